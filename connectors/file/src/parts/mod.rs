//! A sink that writes parts into a folder: each row into the folder that its values name, parts cut by size and age, each to be seen when a checkpoint has it.
//!
//! Exactly once: what is prepared for a checkpoint is durable, but not to be seen: sealed parts, and, of text on a disk, the lengths of those that are written on.
//! A commit lets sealed parts be seen. A restart lets what its checkpoint has be seen, open parts cut to their length there, and takes away whatever its
//! own runs have begun behind that checkpoint, seen or not: their rows come again. Names are never given twice ([`name`]).
//!
//! Without checkpoints all parts are to be seen when the job has ended well.

mod depot;
mod disk;
mod folders;
mod name;
pub(crate) mod store;
#[cfg(test)]
mod tests;

use crate::{
    content::{Content, append_records, columns, format_of},
    sink::{FileSinkConfig, Roll, Writer},
    target::PENDING,
};
use arrow_array::{RecordBatch, UInt32Array};
use arrow_schema::Schema;
use arrow_select::take::take_record_batch;
use depot::{Depot, Draft, Found, Sealed, State};
use disk::Disk;
use folders::{Folders, Group};
use name::{Names, PartId};
use serde::{Deserialize, Serialize};
use standpipe_formats::{FileEncoder, template::TemplateError};
use standpipe_sdk::{CloseReason, Committable, Context, Error, Host, Recovered, Rejection, Result, SinkInput, Written};
use std::{
    collections::{BTreeMap, HashMap},
    time::Instant,
};
use store::Store;

/// Parts that are written at the same time. With more folders the one that has waited longest for a row is sealed.
const MAX_OPEN: usize = 64;
/// Bytes in memory, of all parts together: parquet writes nothing out before a row group is whole, an object store takes pieces.
const MAX_BUFFERED: usize = 128 << 20;

/// A path without its references, of which nobody knows yet what they stand for: their braces are no columns'.
pub(crate) fn without_references(path: &str) -> String {
    folders::without(path, "${", "")
}

/// What is wrong with the path of a folder, and what was probably meant. Of one that is not known yet, only the columns are looked at.
pub(crate) fn check(path: &str, is_known: bool, schema: &Schema) -> Result<(), (String, Option<String>)> {
    let compiled = |path: &str| {
        Folders::compile(folders::split(path).1, schema).map(|_| ()).map_err(|error: TemplateError| (error.message, error.suggestion))
    };
    if !is_known {
        return compiled(&without_references(path));
    }
    if !path.ends_with('/') {
        return Err((
            format!("{path:?} is an object: an object store takes parts, into a folder that ends with /"),
            Some(format!("{path}/")),
        ));
    }
    store::check_url(folders::split(path).0).map_err(|message| (message, None))?;
    compiled(path)
}

/// What a subtask has at a checkpoint.
#[derive(Serialize, Deserialize)]
struct Prepared {
    run: u64,
    /// The number that its next part would have.
    next: u64,
    sealed: Vec<Sealed>,
    /// Text on a disk.
    open: Vec<OpenPart>,
}

/// A part that is written on behind a checkpoint.
#[derive(Serialize, Deserialize)]
struct OpenPart {
    name: String,
    length: u64,
}

/// A part that is being written.
struct Writing<D> {
    name: String,
    draft: D,
    /// Of rows.
    encoder: Option<Box<dyn FileEncoder>>,
    since: Instant,
    /// The batch that its last row came with.
    used: u64,
}

/// Writes parts.
pub(crate) struct Parts<D: Depot> {
    depot: D,
    names: Names,
    folders: Folders,
    content: Content,
    roll: Roll,
    host: Host,
    run: u64,
    subtask: u32,
    parallelism: u32,
    next: u64,
    /// By folder.
    writing: HashMap<String, Writing<D::Draft>>,
    /// Whole, but not all of it durable.
    full: Vec<D::Draft>,
    /// In no checkpoint yet.
    sealed: Vec<Sealed>,
    /// A checkpoint may refer to what has been written.
    is_remembered: bool,
}

/// Opens the folder of a path.
pub(crate) fn open(config: &FileSinkConfig, input: &SinkInput, context: Context) -> Result<Box<dyn Writer>> {
    let root = folders::split(&config.path).0;
    let names = Names::new(&context.job_name, &context.node, format_of(input)?.kind.extension());
    let own = (context.generation, context.subtask);
    // No row is to blame for that.
    let first = names.of(PartId { run: own.0, subtask: own.1, number: 0 });
    if first.len() + PENDING.len() > disk::MAX_NAME {
        let most = disk::MAX_NAME - PENDING.len();
        return Err(Error::config(
            "path",
            format!("parts would be called {first}, which is too long ({most} bytes at most): shorten the names of job or sink"),
        ));
    }
    Ok(match store::local_root(root)? {
        Some(root) => {
            let disk = Disk::open(&root, names.clone(), own, config.create_dirs)?;
            Box::new(Parts::open(disk, names, config, input, context)?)
        }
        None => {
            let store = Store::open(root, &config.options, names.clone(), own)?;
            Box::new(Parts::open(store, names, config, input, context)?)
        }
    })
}

impl<D: Depot> Parts<D> {
    fn open(depot: D, names: Names, config: &FileSinkConfig, input: &SinkInput, context: Context) -> Result<Self> {
        let below = folders::split(&config.path).1;
        let columns = columns(input, &format_of(input)?);
        let mut parts = Self {
            depot,
            names,
            folders: Folders::compile(below, &columns).map_err(|error| Error::config("path", error.message))?,
            content: Content::new(input, config.newline)?,
            roll: config.roll.unwrap_or_default(),
            host: context.host,
            run: context.generation,
            subtask: context.subtask,
            parallelism: context.parallelism,
            next: 0,
            writing: HashMap::new(),
            full: Vec::new(),
            sealed: Vec::new(),
            is_remembered: context.restored,
        };
        if !context.restored {
            parts.begin_with_nothing()?;
        }
        Ok(parts)
    }

    fn next_name(&self, folder: &str) -> String {
        let id = PartId { run: self.run, subtask: self.subtask, number: self.next };
        format!("{folder}{}", self.names.of(id))
    }

    /// Refuses a folder with parts of an earlier life of the sink: their rows would be there twice. What that has not finished goes.
    fn begin_with_nothing(&mut self) -> Result<()> {
        // Another subtask may have begun.
        let is_other = |found: &Found| found.part.subtask != self.subtask && (self.subtask > 0 || found.part.subtask < self.parallelism);
        let mut found = self.depot.find()?;
        found.retain(|found| !(found.part.run == self.run && is_other(found)));
        if let Some(old) = found.iter().find(|found| found.state == State::Visible) {
            let (place, path) = (self.depot.place(), &old.path);
            return Err(Error::external(format!(
                "{place} has parts of an earlier run of this sink, {path} for one: move them away, or write to another folder"
            )));
        }
        if self.subtask > 0 {
            found.retain(|found| found.part.run == self.run);
        }
        self.clean(found, |_| true)
    }

    fn clean(&mut self, found: Vec<Found>, goes: impl Fn(&Found) -> bool) -> Result<()> {
        let mut gone = 0;
        // A list goes when what it lists is gone.
        let (lists, others): (Vec<_>, Vec<_>) = found.into_iter().filter(goes).partition(|found| found.state == State::List);
        for found in others.iter().chain(&lists) {
            self.depot.remove(found)?;
            gone += usize::from(found.state != State::List);
        }
        if gone > 0 {
            self.host.info(format!("{gone} parts of an earlier run that no checkpoint has are removed from {}", self.depot.place()), &[]);
        }
        Ok(())
    }

    fn append(&mut self, seq: u64, batch: &RecordBatch, group: Group) -> Result<()> {
        let (newline, roll) = (self.content.newline(), self.roll);
        if !self.writing.contains_key(&group.folder) && !self.begin(seq, batch, &group)? {
            return Ok(());
        }
        let Some(part) = self.writing.get_mut(&group.folder) else { return Ok(()) };
        part.used = seq;
        match (&mut part.encoder, group.rows) {
            (Some(encoder), None) => encoder.write(batch, part.draft.buffer())?,
            (Some(encoder), Some(rows)) => {
                let rows = take_record_batch(batch, &UInt32Array::from(rows))?;
                encoder.write(&rows, part.draft.buffer())?;
            }
            (None, rows) => append_records(batch, rows.as_deref(), newline, part.draft.buffer())?,
        }
        if is_full(part, roll) {
            self.close_part(&group.folder)?;
        }
        Ok(())
    }

    /// Ends the largest parts, as long as all of them hold too much in memory.
    fn bound_memory(&mut self) -> Result<()> {
        let held = |part: &Writing<D::Draft>| part.draft.held() + buffered(part);
        while self.writing.values().map(held).sum::<usize>() > MAX_BUFFERED
            && let Some(largest) = self.writing.iter().max_by_key(|(_, part)| held(part)).map(|(folder, _)| folder.clone())
        {
            self.close_part(&largest)?;
        }
        Ok(())
    }

    /// Begins a part of a folder; false: there cannot be one, and its rows are refused.
    fn begin(&mut self, seq: u64, batch: &RecordBatch, group: &Group) -> Result<bool> {
        let name = self.next_name(&group.folder);
        if let Some(reason) = self.depot.refuses(&name) {
            let rows = group.rows.clone().unwrap_or_else(|| (0..batch.num_rows() as u32).collect());
            let refused = |row| Rejection { row, reason: reason.clone(), details: String::new() };
            self.host.reject(seq, &rows.into_iter().map(refused).collect::<Vec<_>>())?;
            return Ok(false);
        }
        if self.writing.len() >= MAX_OPEN
            && let Some(idle) = self.writing.iter().min_by_key(|(_, part)| part.used).map(|(folder, _)| folder.clone())
        {
            self.close_part(&idle)?;
        }
        let mut draft = self.depot.begin(&name);
        self.next += 1;
        let mut encoder = self.content.encoder()?;
        if let Some(encoder) = &mut encoder {
            encoder.begin(draft.buffer())?;
        }
        self.writing.insert(group.folder.clone(), Writing { name, draft, encoder, since: Instant::now(), used: 0 });
        Ok(true)
    }

    /// The part of a folder is whole.
    fn close_part(&mut self, folder: &str) -> Result<()> {
        let Some(mut part) = self.writing.remove(folder) else { return Ok(()) };
        if let Some(encoder) = &mut part.encoder {
            encoder.finish(part.draft.buffer())?;
        }
        self.full.push(part.draft);
        Ok(())
    }

    /// Hands over what there is. What fails may be tried again.
    fn settle(&mut self) -> Result<()> {
        self.depot.seal(&mut self.full, &mut self.sealed)?;
        self.depot.settle(self.writing.values_mut().map(|part| &mut part.draft).collect())
    }

    fn sync(&mut self) -> Result<()> {
        self.depot.sync(self.writing.values_mut().map(|part| &mut part.draft).collect())
    }

    fn publish(&mut self, prepared: &[Committable]) -> Result<()> {
        for committable in prepared {
            let prepared: Prepared = serde_json::from_slice(&committable.bytes)?;
            self.depot.publish(&prepared.sealed)?;
        }
        Ok(())
    }

    fn leave(&mut self, reason: CloseReason) -> Result<()> {
        let is_unfinished = !self.writing.is_empty() || !self.full.is_empty() || !self.sealed.is_empty();
        if reason == CloseReason::Failed && !self.is_remembered {
            self.writing.drain().for_each(|(_, part)| part.draft.discard());
            self.full.drain(..).for_each(Draft::discard);
            // What is sealed has let go of its file: it is found by its name.
            let run = self.run;
            let own = |found: &Found| found.part.run == run && found.state != State::Visible;
            let mut found = self.depot.find()?;
            found.retain(|found| found.part.subtask == self.subtask);
            return self.clean(found, own);
        }
        if is_unfinished {
            self.sync()?;
            let place = self.depot.place();
            let message = format!(
                "parts in {place} are not finished: a restart from a checkpoint goes on with them, a start without one removes them"
            );
            self.host.info(message, &[]);
        }
        Ok(())
    }
}

impl<D: Depot> Writer for Parts<D> {
    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        // Before the batch is taken: this may fail and be tried again.
        self.settle()?;
        let columns = match self.content {
            Content::Records { .. } => batch.columns().get(1..).unwrap_or_default(),
            Content::Rows { .. } => batch.columns(),
        };
        for group in self.folders.groups(columns, batch.num_rows())? {
            self.append(seq, batch, group)?;
        }
        self.bound_memory()?;
        self.host.ack(seq);
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.settle()
    }

    fn prepare(&mut self, _: u64) -> Result<Vec<u8>> {
        let stays = self.content.is_text() && self.depot.can_cut();
        let whole = |part: &Writing<D::Draft>| !stays || is_full(part, self.roll);
        let due: Vec<String> = self.writing.iter().filter(|(_, part)| whole(part)).map(|(folder, _)| folder.clone()).collect();
        due.iter().try_for_each(|folder| self.close_part(folder))?;
        self.settle()?;
        self.sync()?;
        let open = self.writing.values().map(|part| OpenPart { name: part.name.clone(), length: part.draft.length() }).collect();
        let prepared = Prepared { run: self.run, next: self.next, sealed: std::mem::take(&mut self.sealed), open };
        self.is_remembered = true;
        Ok(serde_json::to_vec(&prepared)?)
    }

    fn commit(&mut self, prepared: &[Committable]) -> Result<()> {
        self.publish(prepared)
    }

    /// What the checkpoint has is to be seen; what came behind it is not.
    fn recover(&mut self, prepared: &[Committable]) -> Result<Vec<Recovered>> {
        self.publish(prepared)?;
        let mut newest: BTreeMap<u32, (u64, Prepared)> = BTreeMap::new();
        for committable in prepared {
            let is_newer = newest.get(&committable.subtask).is_none_or(|(checkpoint, _)| *checkpoint < committable.checkpoint);
            if is_newer {
                newest.insert(committable.subtask, (committable.checkpoint, serde_json::from_slice(&committable.bytes)?));
            }
        }
        for (_, prepared) in newest.values() {
            prepared.open.iter().try_for_each(|part| self.depot.publish_cut(&part.name, part.length))?;
        }
        let Some(base) = newest.values().map(|(_, prepared)| prepared.run).max() else { return Ok(Vec::new()) };
        let (run, is_first) = (self.run, self.subtask == 0);
        let goes = |found: &Found| match newest.get(&found.part.subtask) {
            Some((_, prepared)) if prepared.run == found.part.run => found.state != State::Visible || found.part.number >= prepared.next,
            // Of runs between that of the checkpoint and this one no row counts.
            _ => is_first && base < found.part.run && found.part.run < run,
        };
        let found = self.depot.find()?;
        self.clean(found, goes)?;
        Ok(vec![Recovered::Committed; prepared.len()])
    }

    fn finish(&mut self) -> Result<()> {
        let folders: Vec<String> = self.writing.keys().cloned().collect();
        folders.iter().try_for_each(|folder| self.close_part(folder))?;
        self.settle()?;
        self.depot.publish(&self.sealed)?;
        self.sealed.clear();
        self.depot.end()
    }

    fn close(&mut self, reason: CloseReason) -> Result<()> {
        let result = self.leave(reason);
        self.depot.let_go();
        result
    }
}

/// Whether a part has the size or the age of one.
fn is_full<D: Draft>(part: &Writing<D>, roll: Roll) -> bool {
    part.draft.length() + buffered(part) as u64 >= roll.size.0 as u64 || part.since.elapsed() >= roll.interval.0
}

/// Bytes that its encoder holds in memory.
fn buffered<D>(part: &Writing<D>) -> usize {
    part.encoder.as_ref().map_or(0, |encoder| encoder.buffered())
}
