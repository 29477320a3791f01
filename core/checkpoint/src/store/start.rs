//! How a process takes over a job: it claims a generation, finds what the job goes on from, and notes that when it has read it. See "Fencing" in the crate's documentation.

use super::{
    BASE, CONCURRENT, GENERATIONS, Store,
    names::{Name, Names, number},
};
use crate::{
    CheckpointError,
    manifest::Manifest,
    store::place::{self, Place},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

/// From where a job goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// From nothing: what is there is passed over.
    Fresh,
    /// From the newest checkpoint, or from nothing where there is none.
    Latest,
    /// From that one.
    At(u64),
    /// From the one of that manifest, or the newest in that job's folder: a path or a URL, as [`Store::manifest_place`] gives it.
    From(String),
}

/// What a process knows once it has taken over a job, and tells the others that run the job with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakenOver {
    /// Its own.
    pub generation: u64,
    /// The checkpoint that it goes on from.
    pub base: Option<Manifest>,
    /// Where the manifest of `base` is, if that is not among the job's own checkpoints.
    pub elsewhere: Option<String>,
    /// The number of its first checkpoint.
    pub first_id: u64,
}

/// A checkpoint that a job may go on from.
#[derive(Debug)]
pub struct Found {
    /// Its manifest.
    pub manifest: Manifest,
    /// The store that it is in, if that is not the job's own; and where its manifest is.
    pub elsewhere: Option<(Arc<Store>, String)>,
}

/// From where a generation has begun.
#[derive(Debug, Clone, Default)]
pub(super) struct Begun {
    /// 0: from no checkpoint of this store.
    pub(super) base: u64,
    /// A manifest in another one.
    pub(super) elsewhere: Option<String>,
}

impl Begun {
    fn parse(text: &str) -> Option<Self> {
        let (base, elsewhere) = text.split_once(' ').map_or((text, None), |(base, place)| (base, Some(place.to_owned())));
        Some(Self { base: base.parse().ok()?, elsewhere })
    }
}

impl Store {
    /// Takes over: claims the next generation. From now on a process of a former one commits nothing more.
    ///
    /// # Errors
    /// When the store does not answer or may not be written.
    pub fn claim(&self, job_id: &str) -> Result<u64, CheckpointError> {
        self.claim_from(job_id, 1)
    }

    /// Claims a generation that is `first` or a later one.
    fn claim_from(&self, job_id: &str, first: u64) -> Result<u64, CheckpointError> {
        self.wait(async {
            let mut generation = (self.newest_generation().await? + 1).max(first);
            while !self.create(&self.path(GENERATIONS, &format!("{generation:06}")), Bytes::from(job_id.to_owned())).await? {
                generation += 1;
            }
            Ok(generation)
        })
    }

    /// Notes from which checkpoint a claimed generation goes on. Later ones of former generations are passed over for ever.
    ///
    /// # Errors
    /// When the store does not answer or may not be written; when this generation has another base.
    pub fn begin(&self, taken_over: &TakenOver) -> Result<(), CheckpointError> {
        let note = match (&taken_over.base, &taken_over.elsewhere) {
            (_, Some(place)) => format!("0 {place}"),
            (Some(base), None) => base.id.to_string(),
            (None, None) => "0".to_owned(),
        };
        let path = self.path(GENERATIONS, &format!("{:06}{BASE}", taken_over.generation));
        match self.wait(self.create(&path, Bytes::from(note.clone())))? {
            true => Ok(()),
            false => Err(CheckpointError::Damaged { object: path.to_string(), reason: format!("it is not {note}") }),
        }
    }

    /// Whether the run of that id has begun before.
    ///
    /// # Errors
    /// [`CheckpointError::Fenced`] when another run has begun since; when the store does not answer.
    pub fn has_begun(&self, job_id: &str) -> Result<bool, CheckpointError> {
        self.wait(async {
            let Some((newest, _)) = self.begun().await?.pop_last() else { return Ok(false) };
            let mut claims: Vec<u64> = self.names(GENERATIONS).await?.iter().filter_map(|name| number(name)).collect();
            claims.retain(|generation| *generation <= newest);
            claims.sort_unstable();
            for generation in claims.into_iter().rev() {
                if self.get(&self.path(GENERATIONS, &format!("{generation:06}"))).await? == job_id.as_bytes() {
                    let fenced = || CheckpointError::Fenced { place: self.place(), newest, generation };
                    return if generation == newest { Ok(true) } else { Err(fenced()) };
                }
            }
            Ok(false)
        })
    }

    /// The checkpoint that a start goes on from.
    ///
    /// # Errors
    /// When the store does not answer; when there is no such checkpoint, or it cannot be read.
    pub fn find(&self, start: &Start) -> Result<Option<Found>, CheckpointError> {
        let own = |manifest| Found { manifest, elsewhere: None };
        match start {
            Start::Fresh => Ok(None),
            Start::Latest => match self.latest()? {
                Some(manifest) => Ok(Some(own(manifest))),
                None => self.begun_elsewhere()?.map(|place| self.find_at(&place)).transpose(),
            },
            Start::At(id) => self.read(*id).map(|manifest| Some(own(manifest))),
            Start::From(place) => self.find_at(place).map(Some),
        }
    }

    /// Where the manifest is from which the job has begun last, if that is not among its own checkpoints and it has taken none since.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn begun_elsewhere(&self) -> Result<Option<String>, CheckpointError> {
        self.wait(async {
            // A savepoint that was passed over is none that it goes on from.
            if !self.names_of_checkpoints().await?.holding.is_empty() {
                return Ok(None);
            }
            Ok(self.begun().await?.pop_last().and_then(|(_, begun)| begun.elsewhere))
        })
    }

    /// The checkpoints of the job whose folder or manifest is there, and the number of the one that is named; see [`Start::From`].
    ///
    /// # Errors
    /// When it is no such place.
    pub fn at(place: &str) -> Result<(Self, Option<u64>), CheckpointError> {
        place::resolve(place).map(|Place { store, name }| (store, name.map(|name| name.id)))
    }

    fn find_at(&self, text: &str) -> Result<Found, CheckpointError> {
        let Place { store, name } = place::resolve(text)?;
        let id = match name {
            Some(name) => Some(name.id),
            None => store.list()?.last().copied(),
        };
        let manifest = store.read(id.ok_or_else(|| CheckpointError::Nowhere { text: text.to_owned(), there: String::new() })?)?;
        if name.is_some_and(|name| name.generation != manifest.generation) {
            return Err(CheckpointError::Damaged {
                object: text.to_owned(),
                reason: "a later start of its job has passed it over".to_owned(),
            });
        }
        if store.job == self.job && store.location.is_same(&self.location) {
            return Ok(Found { manifest, elsewhere: None });
        }
        let place = store.manifest_place(&manifest);
        Ok(Found { manifest, elsewhere: Some((Arc::new(store), place)) })
    }

    /// Claims a generation and finds what it goes on from; [`Self::begin`] is due when that has been read. See "Fencing" in the crate's documentation.
    ///
    /// # Errors
    /// When the store does not answer or may not be written; when there is no such checkpoint: then nobody is disturbed.
    pub fn take_over(&self, job_id: &str, start: &Start) -> Result<TakenOver, CheckpointError> {
        let found = self.find(start)?;
        // Sinks know the later start of a job by its generation, wherever the checkpoints are.
        let elsewhere = found.as_ref().filter(|found| found.elsewhere.is_some());
        let generation = self.claim_from(job_id, elsewhere.map_or(1, |found| found.manifest.generation + 1))?;
        // Only now: until then, the process before this one may have added some.
        let (base, elsewhere) = match self.find(start)? {
            Some(Found { manifest, elsewhere }) => (Some(manifest), elsewhere.map(|(_, place)| place)),
            None => (None, None),
        };
        let first_id = self.next_id()?.max(base.as_ref().map_or(0, |base| base.id + 1));
        Ok(TakenOver { generation, base, elsewhere, first_id })
    }

    /// Checkpoints of former generations that are newer than the one that a process which has taken over goes on from. Those that cannot be read are left out: they may be why it
    /// does not go on from them.
    ///
    /// # Errors
    /// When the store does not answer.
    pub fn passed_over_by(&self, taken_over: &TakenOver) -> Result<Vec<Manifest>, CheckpointError> {
        // Numbers only grow, wherever the checkpoints are.
        let base = taken_over.base.as_ref().map_or(0, |base| base.id);
        self.wait(async {
            let Names { holding, aside, passed_over } = self.names_of_checkpoints().await?;
            let former = |name: &Name| name.id > base && name.generation < taken_over.generation;
            let mut manifests = Vec::new();
            // Also what a generation in between had passed over: it may have died before it told the sinks.
            for name in [holding, aside, passed_over].into_iter().flatten().filter(former) {
                manifests.extend(self.manifest(name).await);
            }
            Ok(manifests)
        })
    }

    pub(super) async fn newest_generation(&self) -> Result<u64, CheckpointError> {
        Ok(self.names(GENERATIONS).await?.iter().filter_map(|name| number(name)).max().unwrap_or(0))
    }

    /// All generations that have begun.
    pub(super) async fn begun(&self) -> Result<BTreeMap<u64, Begun>, CheckpointError> {
        let generation = |name: &String| name.strip_suffix(BASE).and_then(number);
        let all: Vec<u64> = self.names(GENERATIONS).await?.iter().filter_map(generation).collect();
        let known = self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let read = |generation: u64| async move {
            let path = self.path(GENERATIONS, &format!("{generation:06}{BASE}"));
            let content = self.get(&path).await?;
            let damaged = || CheckpointError::Damaged { object: path.to_string(), reason: "it is no number".to_owned() };
            Ok((generation, std::str::from_utf8(&content).ok().and_then(Begun::parse).ok_or_else(damaged)?))
        };
        let new: Vec<u64> = all.into_iter().filter(|generation| !known.contains_key(generation)).collect();
        let new: Vec<(u64, Begun)> = stream::iter(new).map(read).buffered(CONCURRENT).try_collect().await?;
        // They never change.
        let mut known = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(new);
        Ok(known.clone())
    }
}
