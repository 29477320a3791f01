//! Blobs: the files of bundles, by the hash of their content.

use super::{
    Shared,
    answer::{Answer, Refusal, answer, blocking, ok, parse},
};
use crate::{
    blobs::BlobError,
    bundle::{Hash, MOST_FILES, NoHash},
};
use axum::{
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use std::{sync::Arc, time::Duration};

/// A blob of which nothing comes for so long is given up.
const SILENCE: Duration = Duration::from_secs(60);

fn hash(text: &str) -> Result<Hash, Refusal> {
    text.parse().map_err(|error: NoHash| Refusal::one(StatusCode::BAD_REQUEST, error))
}

pub(super) async fn missing(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        hashes: Vec<Hash>,
    }
    let asked: Asked = parse(&body)?;
    if asked.hashes.len() > MOST_FILES {
        return Err(Refusal::one(StatusCode::BAD_REQUEST, format!("more than {MOST_FILES} hashes at once")));
    }
    if let Some(alone) = &shared.alone {
        // Nobody is to send what is found here.
        alone.has_looked().await;
    }
    let missing = blocking(move || shared.blobs.missing(asked.hashes)).await?;
    ok(&json!({"missing": missing}))
}

fn of_blob(error: BlobError) -> Refusal {
    let code = match error {
        BlobError::Hash { .. } | BlobError::Length { .. } => StatusCode::BAD_REQUEST,
        BlobError::Large { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BlobError::Full { .. } | BlobError::System { .. } => StatusCode::INSUFFICIENT_STORAGE,
    };
    Refusal::one(code, error)
}

pub(super) async fn put(State(shared): State<Arc<Shared>>, Path(name): Path<String>, body: Body) -> Answer {
    let hash = hash(&name)?;
    if let Some(alone) = &shared.alone {
        alone.refuse_other(alone.has_file(hash))?;
    }
    let blobs = shared.blobs.clone();
    // If it is there, it stays for a while.
    let begun = blocking(move || if blobs.missing([hash]).is_empty() { Ok(None) } else { blobs.begin(hash).map(Some) });
    let Some(mut incoming) = begun.await?.map_err(of_blob)? else { return ok(&json!({})) };
    let mut pieces = body.into_data_stream();
    loop {
        let silent = |_| Refusal::one(StatusCode::REQUEST_TIMEOUT, "nothing has come for too long");
        let Some(piece) = tokio::time::timeout(SILENCE, pieces.next()).await.map_err(silent)? else { break };
        let piece = piece.map_err(|error| Refusal::one(StatusCode::BAD_REQUEST, format!("it was cut short: {error}")))?;
        incoming = blocking(move || incoming.write(&piece).map(|()| incoming)).await?.map_err(of_blob)?;
        shared.alone.iter().for_each(|alone| alone.has_come());
    }
    blocking(move || incoming.finish()).await?.map_err(of_blob)?;
    shared.alone.iter().for_each(|alone| alone.has_come_whole());
    Ok(answer(StatusCode::CREATED, &json!({})))
}

pub(super) async fn get(State(shared): State<Arc<Shared>>, Path(name): Path<String>) -> Answer {
    let hash = hash(&name)?;
    let path = shared.blobs.path(hash);
    let file = blocking(move || std::fs::File::open(path)).await?;
    let file = file.map_err(|_| Refusal::one(StatusCode::NOT_FOUND, format!("there is no blob {hash}")))?;
    // A piece at a time: blobs are large, and there may be many of them on their way.
    let pieces = futures_util::stream::try_unfold(file, async |mut file| {
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; 1 << 18];
            let read = std::io::Read::read(&mut file, &mut piece)?;
            piece.truncate(read);
            Ok::<_, std::io::Error>((piece, file))
        });
        let (piece, file) = read.await.map_err(std::io::Error::other)??;
        Ok::<_, std::io::Error>((!piece.is_empty()).then_some((piece, file)))
    });
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(pieces)).into_response())
}
