//! What task managers say, and are told.

use super::{
    Shared,
    answer::{Answer, Refusal, blocking, ok, parse},
    random,
};
use crate::protocol::{Beat, Version, is_id};
use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::StatusCode,
};
use std::{sync::Arc, time::Duration};

/// What a task manager may say at once: its workers, with how their jobs do.
pub(super) const LONGEST_BEAT: usize = 32 << 20;
/// A task manager's question for orders is answered after so long at the latest.
const HOLD: Duration = Duration::from_secs(20);
/// Task managers at a time.
const MOST: usize = 1_000;
/// Of one, as its command line has it.
const MOST_SLOTS: u32 = 4_096;
/// Of a host's name.
const LONGEST_HOST: usize = 255;

fn task_manager_id(id: String) -> Result<String, Refusal> {
    if is_id(&id) { Ok(id) } else { Err(Refusal::one(StatusCode::BAD_REQUEST, "a task manager's id has 32 hexadecimal digits")) }
}

fn check(beat: &Beat) -> Result<(), Refusal> {
    let wrong = |why: &str| Err(Refusal::one(StatusCode::BAD_REQUEST, why));
    if beat.slots > MOST_SLOTS {
        return wrong("slots: a task manager has 4096 at the most");
    }
    if beat.host.len() > LONGEST_HOST || beat.host.chars().any(char::is_control) {
        return wrong("host: expected the name or address of a machine");
    }
    Ok(())
}

pub(super) async fn beat(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let id = task_manager_id(id)?;
    let beat: Beat = parse(&body)?;
    check(&beat)?;
    if shared.look(|manager| manager.task_managers().len() >= MOST && !manager.task_managers().contains_key(&id)) {
        return Err(Refusal::one(StatusCode::SERVICE_UNAVAILABLE, "there are too many task managers"));
    }
    let orders = blocking(move || {
        shared.decide(|manager, triggers, now| {
            // Before the end of the process that has answered.
            beat.answers.iter().for_each(|answered| triggers.answered(answered));
            (manager.beat(&id, &beat, now, random()), ())
        });
        shared.note(&beat);
        shared.orders(&id)
    });
    ok(&orders.await?)
}

/// Answers when there is something that the task manager has not seen, or after a while.
pub(super) async fn orders(State(shared): State<Arc<Shared>>, Path(id): Path<String>, Query(seen): Query<Version>) -> Answer {
    let id = task_manager_id(id)?;
    let mut told = shared.told.subscribe();
    let hold = HOLD.min(Duration::from_millis(shared.settings.lease / 4));
    let is_asked = || {
        let state = shared.state();
        !state.triggers.requests(&state.manager, &id).is_empty()
    };
    let changed = async {
        while told.borrow_and_update().eq(&seen) && !is_asked() {
            if told.changed().await.is_err() {
                return;
            }
        }
    };
    // Whether or not there is: whoever asks asks again.
    drop(tokio::time::timeout(hold, changed).await);
    ok(&blocking(move || shared.orders(&id)).await?)
}
