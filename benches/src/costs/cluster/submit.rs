//! From the submission of a job to its state RUNNING and to its first row, by REST and by `standpipe deploy`, one job at a time on an idle cluster.

use super::{Costs, PATIENCE, PERIOD, Session, percentile, state, trickle};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Of each way, at full scale.
const SUBMISSIONS: f64 = 25.0;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Rest,
    Deploy,
}

impl Way {
    const fn title(self) -> &'static str {
        match self {
            Self::Rest => "REST",
            Self::Deploy => "`standpipe deploy`",
        }
    }
}

/// Milliseconds since the submission was begun.
struct Times {
    answered: f64,
    running: f64,
    first_row: f64,
}

pub(super) fn run(costs: &Costs<'_>) -> Result<()> {
    let mut session = Session::start(costs, "15s")?;
    session.join(2)?;
    let submissions = ((SUBMISSIONS * costs.scale) as usize).max(2);
    let mut results = [(Way::Rest, Vec::new()), (Way::Deploy, Vec::new())];
    for (way, _) in &results {
        // The first one sends plugin files, and loads what the machine has not read yet.
        submit(&session, *way, 0)?;
    }
    for number in 1..=submissions {
        for (way, times) in &mut results {
            let one = submit(&session, *way, number)?;
            eprintln!(
                "{way:?} {number}: answered {:.0} ms, RUNNING {:.0} ms, first row {:.0} ms",
                one.answered, one.running, one.first_row
            );
            times.push(one);
        }
    }
    println!("From submission, ms, {submissions} submissions each, one at a time:\n");
    println!("| by | answered: p50 | RUNNING: p50 | p95 | worst | first row: p50 | p95 | worst |");
    println!("|---|---|---|---|---|---|---|---|");
    for (way, times) in &results {
        let of = |figure: fn(&Times) -> f64, percent| percentile(&times.iter().map(figure).collect::<Vec<_>>(), percent);
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
            way.title(),
            of(|one| one.answered, 50),
            of(|one| one.running, 50),
            of(|one| one.running, 95),
            of(|one| one.running, 100),
            of(|one| one.first_row, 50),
            of(|one| one.first_row, 95),
            of(|one| one.first_row, 100)
        );
    }
    println!();
    Ok(())
}

fn submit(session: &Session<'_>, way: Way, number: usize) -> Result<Times> {
    let name = format!("submit-{}-{number}", if way == Way::Rest { "rest" } else { "deploy" });
    let pipeline = trickle(&name, 1_000, "", "connector: print");
    let file = session.folder.join(format!("{name}.yaml"));
    fs::write(&file, &pipeline)?;
    let begun = Instant::now();
    let millis = || begun.elapsed().as_secs_f64() * 1e3;
    let job = match way {
        Way::Rest => session.submit(&name, &pipeline, 1)?,
        Way::Deploy => deploy(session, &file)?,
    };
    let answered = millis();
    let printed = session.task_managers.first().context("it has joined")?.log(&job);
    let (mut running, mut first_row) = (None, None);
    while running.is_none() || first_row.is_none() {
        if running.is_none() {
            let found = session.ask("GET", &format!("/jobs/{job}"), &[])?;
            ensure!(state(&found) != "FAILED", "{name}: {:?}", found.get("why"));
            running = (state(&found) == "RUNNING").then(millis);
        }
        if first_row.is_none() {
            first_row = fs::read_to_string(&printed).is_ok_and(|text| text.contains("{\"n\":0}")).then(millis);
        }
        ensure!(begun.elapsed() < PATIENCE, "{name}: waited {PATIENCE:?} in vain for its first row");
        thread::sleep(PERIOD.min(Duration::from_millis(2)));
    }
    session.cancel(&job)?;
    Ok(Times { answered, running: running.context("waited for above")?, first_row: first_row.context("waited for above")? })
}

/// As a user does; the job's id.
fn deploy(session: &Session<'_>, file: &Path) -> Result<String> {
    let mut command = session.costs.command(&["deploy"]);
    command.arg(file).args(["-D", "deployment_mode=session", "-D", "rest.address=127.0.0.1", "-D"]);
    let output = command.arg(format!("rest.port={}", session.port)).output().context("cannot start standpipe")?;
    ensure!(output.status.success(), "deploy: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let handle: Value = serde_json::from_slice(&output.stdout).context("deploy gives a handle")?;
    Ok(handle.get("jobid").and_then(Value::as_str).context("the handle has a job's id")?.to_owned())
}
