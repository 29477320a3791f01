//! Reads a checkpoint back: the state of every node, by its path, for whatever plan the job has now.

use super::{COMMITTABLES, CheckpointOptions, splits::RestoredSource};
use crate::{
    operator::{OperatorError, Snapshot, StoredTables},
    operators,
    runtime::error::{Cause, JobError, Phase},
};
use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, UInt32Type, UInt64Type},
};
use standpipe_checkpoint::{CheckpointError, FileRef, Manifest, NodeState, Store};
use standpipe_loader::Committable;
use standpipe_pipeline::plan::{Node, NodeId, Operator, Plan, StateBackend};
use standpipe_state::{
    KeyGroupRange,
    keyed::is_state,
    range_of,
    snapshot::{SnapshotError, typed_column},
};
use std::{collections::BTreeMap, sync::Arc};

/// What a job goes on from.
#[derive(Debug, Default)]
pub(crate) struct Restored {
    sources: BTreeMap<NodeId, RestoredSource>,
    /// Of each former subtask, in their order.
    operators: BTreeMap<NodeId, Vec<Part>>,
    sinks: BTreeMap<NodeId, Vec<Committable>>,
    /// What sinks had prepared for checkpoints that are passed over.
    aborted: BTreeMap<NodeId, Vec<Committable>>,
}

/// The state of a former subtask.
#[derive(Debug, Default)]
struct Part {
    state: Snapshot,
    /// The first and last key group of each of its tables, where rows have one.
    key_groups: Vec<Option<(u16, u16)>>,
}

impl Part {
    /// What may belong to these key groups; rows are not looked at.
    fn of(&self, owned: KeyGroupRange) -> Snapshot {
        let tables = self.state.tables.iter().zip(&self.key_groups).filter(|(_, groups)| may_be_in(owned, **groups));
        Snapshot { tables: tables.map(|(table, _)| table.clone()).collect(), rest: None, stored: self.state.stored.clone() }
    }
}

/// Whether rows of these key groups, the first and the last, may be among those.
fn may_be_in(owned: KeyGroupRange, key_groups: Option<(u16, u16)>) -> bool {
    key_groups.is_none_or(|(first, last)| first < owned.end && last >= owned.start)
}

/// What a node is called in a manifest; `None`: it has no state.
pub(super) fn operator_name(operator: &Operator) -> Option<&'static str> {
    match operator {
        Operator::Source(_) => Some("source"),
        Operator::Window(_) => Some("window"),
        Operator::Aggregate(_) => Some("aggregate"),
        Operator::Transform(_) => Some("transform"),
        Operator::Sink(_) => Some("sink"),
        Operator::Filter(_) | Operator::Project(_) | Operator::Encode(_) | Operator::Union => None,
    }
}

impl Restored {
    /// Reads the checkpoint that the job goes on from, if any.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the state does not fit the plan.
    pub(crate) fn load(options: &CheckpointOptions, plan: &Plan) -> Result<Option<Self>, JobError> {
        let Some(manifest) = &options.taken_over.base else { return Ok(None) };
        let refuse = |message: String| JobError::new("", Phase::Start, Cause::Restore { checkpoint: manifest.id, message });
        check(manifest, plan, options.allow_non_restored_state).map_err(refuse)?;
        let store = match &options.taken_over.elsewhere {
            Some(place) => Arc::new(Store::at(place).map_err(|error| unread(manifest, "", &error))?.0),
            None => Arc::clone(&options.store),
        };
        let mut restored = Self::default();
        for (path, state) in &manifest.nodes {
            let Some(node) = plan.nodes.iter().find(|node| node.path == *path) else { continue };
            let of_node = |message: String| refuse(format!("{path}: {message}"));
            // What need not fit into memory later must not have to now.
            let lazily = matches!((&plan.state, &node.operator), (StateBackend::Disk(_), Operator::Transform(_)));
            let parts = read(&store, state, lazily).map_err(|error| unread(manifest, path, &error))?;
            try_out(plan, node, parts.iter().map(|part| &part.state)).map_err(|error| refuse(error.to_string()))?;
            restored.add(node, parts).map_err(|error| of_node(error.to_string()))?;
        }
        let goes_on = |source: &RestoredSource| source.splits.is_empty() || source.splits.values().any(|split| !split.ended);
        if manifest.drained && restored.sources.values().any(goes_on) {
            let message = "the job had been drained: its windows have fired before their time, and cannot go on; restore an earlier one, or begin with --fresh";
            return Err(refuse(message.to_owned()));
        }
        restored.find_aborted(options, plan);
        Ok(Some(restored))
    }

    /// What sinks had prepared for checkpoints that the job does not go on from. A newer checkpoint that cannot be read may be why an older one is restored: it is no failure.
    fn find_aborted(&mut self, options: &CheckpointOptions, plan: &Plan) {
        let place = options.store.place();
        let unknown =
            |error: String| tracing::warn!("what sinks prepared for checkpoints of {place} that are passed over is not known: {error}");
        let passed_over = options.store.passed_over_by(&options.taken_over).unwrap_or_else(|error| {
            unknown(error.to_string());
            Vec::new()
        });
        // What is in a checkpoint alone (`needs_log`) is given up with it.
        let is_outside = |node: &&Node| matches!(&node.operator, Operator::Sink(sink) if sink.validation.details.capabilities.transactional && !sink.validation.details.capabilities.needs_log);
        for node in plan.nodes.iter().filter(is_outside) {
            let restored = self.sinks.get(&node.id).map(Vec::as_slice).unwrap_or_default();
            let mut aborted: Vec<Committable> = Vec::new();
            let files = passed_over.iter().filter_map(|manifest| manifest.nodes.get(&node.path)?.tables.get(COMMITTABLES)).flatten();
            for file in files {
                let mut all = Vec::new();
                let read = || options.store.table(file).map_err(|error| error.to_string());
                let add = |tables: Vec<RecordBatch>| {
                    tables.iter().try_for_each(|table| read_committables(table, &mut all)).map_err(|error| error.to_string())
                };
                read().and_then(add).unwrap_or_else(unknown);
                // One that was not committed at once is in several.
                all.retain(|committable| !restored.contains(committable) && !aborted.contains(committable));
                aborted.append(&mut all);
            }
            self.aborted.insert(node.id, aborted);
        }
    }

    fn add(&mut self, node: &Node, parts: Vec<Part>) -> Result<(), SnapshotError> {
        match node.operator {
            Operator::Source(_) => {
                let tables = parts.iter().flat_map(|part| &part.state.tables);
                self.sources.insert(node.id, RestoredSource::read(tables)?);
            }
            Operator::Sink(_) => {
                let mut all = Vec::new();
                for (name, table) in parts.iter().flat_map(|part| &part.state.tables) {
                    match name.as_str() {
                        COMMITTABLES => read_committables(table, &mut all)?,
                        other => return Err(SnapshotError::Misfit(format!("a sink has no table {other:?}"))),
                    }
                }
                self.sinks.insert(node.id, all);
            }
            _ => _ = self.operators.insert(node.id, parts),
        }
        Ok(())
    }

    /// Where a source goes on.
    pub(crate) fn source(&self, node: NodeId) -> RestoredSource {
        self.sources.get(&node).cloned().unwrap_or_default()
    }

    /// What all former subtasks of an operator had of these key groups, and perhaps more; `None`: it had no state.
    pub(crate) fn operator(&self, node: NodeId, owned: KeyGroupRange) -> Option<Vec<Snapshot>> {
        self.operators.get(&node).map(|parts| parts.iter().map(|part| part.of(owned)).collect())
    }

    /// What former subtasks of a sink had prepared and not committed, as far as that subtask is to see to it.
    pub(crate) fn sink(&self, node: NodeId, subtask: u32, parallelism: u32) -> Vec<Committable> {
        of_subtask(&self.sinks, node, subtask, parallelism)
    }

    /// What they had prepared for checkpoints that are passed over; it may have been committed.
    pub(crate) fn aborted(&self, node: NodeId, subtask: u32, parallelism: u32) -> Vec<Committable> {
        of_subtask(&self.aborted, node, subtask, parallelism)
    }
}

fn of_subtask(all: &BTreeMap<NodeId, Vec<Committable>>, node: NodeId, subtask: u32, parallelism: u32) -> Vec<Committable> {
    let all = all.get(&node).into_iter().flatten();
    all.filter(|committable| committable.subtask % parallelism == subtask).cloned().collect()
}

/// Whether a plan can take over the state of a checkpoint, as far as its manifest and the columns of its tables say; what is in them comes out when they are read.
///
/// # Errors
/// When it cannot, or the store does not answer.
pub fn check_restore(store: &Store, manifest: &Manifest, plan: &Plan, allow_non_restored_state: bool) -> Result<(), JobError> {
    let refuse = |message: String| JobError::new("", Phase::Start, Cause::Restore { checkpoint: manifest.id, message });
    check(manifest, plan, allow_non_restored_state).map_err(refuse)?;
    for (path, state) in &manifest.nodes {
        let Some(node) = plan.nodes.iter().find(|node| node.path == *path) else { continue };
        let mut part = Snapshot::default();
        for (name, files) in &state.tables {
            let Some(file) = files.first() else { continue };
            let schema = store.schema(file).map_err(|error| unread(manifest, path, &error))?;
            part.tables.push((name.clone(), RecordBatch::new_empty(schema)));
        }
        try_out(plan, node, std::iter::once(&part)).map_err(|error| refuse(error.to_string()))?;
    }
    Ok(())
}

/// What cannot be read now may be there later; what is damaged will not be.
fn unread(manifest: &Manifest, path: &str, error: &CheckpointError) -> JobError {
    let message = if path.is_empty() { error.to_string() } else { format!("{path}: {error}") };
    let cause = match error.is_transient() {
        true => Cause::Checkpoint(format!("checkpoint {}: {message}", manifest.id)),
        false => Cause::Restore { checkpoint: manifest.id, message },
    };
    JobError::new("", Phase::Start, cause)
}

/// Whether an operator takes its state, by its tables without their rows: what does not fit is found before anything is opened, which may change what is outside.
fn try_out<'a>(plan: &Plan, node: &Node, parts: impl Iterator<Item = &'a Snapshot>) -> Result<(), OperatorError> {
    let rowless = |part: &Snapshot| {
        let mut rowless = Snapshot::default();
        rowless.tables.extend(part.tables.iter().map(|(name, table)| (name.clone(), table.slice(0, 0))));
        rowless
    };
    let parts: Vec<Snapshot> = parts.map(rowless).collect();
    let all = range_of(0, 1, plan.settings.max_parallelism);
    match &node.operator {
        Operator::Window(_) | Operator::Aggregate(_) => operators::operator(plan, node)?.restore(&parts, all),
        Operator::Transform(_) => operators::try_out(plan, node, &parts, all),
        _ => Ok(()),
    }
}

/// Whether the plan can take over the state.
fn check(manifest: &Manifest, plan: &Plan, allow_non_restored_state: bool) -> Result<(), String> {
    if manifest.job != plan.name {
        return Err(format!("it is of the job {:?}, this is {:?}", manifest.job, plan.name));
    }
    if manifest.max_parallelism != plan.settings.max_parallelism {
        return Err(format!(
            "its state is in {} key groups, the pipeline's engine.max_parallelism is {}; that is fixed with a job's first start",
            manifest.max_parallelism, plan.settings.max_parallelism
        ));
    }
    for (path, state) in &manifest.nodes {
        match plan.nodes.iter().find(|node| node.path == *path) {
            Some(node) if operator_name(&node.operator) == Some(state.operator.as_str()) => {}
            Some(_) => return Err(format!("{path} was a {}, which it is not any more; give the new one another name", state.operator)),
            None if allow_non_restored_state => {
                tracing::warn!(operator = %path, "{path} is not in the pipeline any more: its state is left behind")
            }
            None => {
                return Err(format!("it has state of {path}, which is not in the pipeline; --allow-non-restored-state leaves it behind"));
            }
        }
    }
    Ok(())
}

/// Tables that are read when their turn comes.
struct Stored {
    store: Arc<Store>,
    files: Vec<(String, FileRef)>,
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored").field("place", &self.store.place()).field("files", &self.files.len()).finish_non_exhaustive()
    }
}

impl StoredTables for Stored {
    fn read(&self, owned: KeyGroupRange, take: &mut dyn FnMut(&str, RecordBatch) -> Result<(), String>) -> Result<(), String> {
        for (name, file) in self.files.iter().filter(|(_, file)| may_be_in(owned, file.key_groups)) {
            let batches = self.store.table(file).map_err(|error| error.to_string())?;
            batches.into_iter().try_for_each(|batch| take(name, batch))?;
        }
        Ok(())
    }
}

/// The tables of a node by former subtask; lazily: those of its states are not read yet.
fn read(store: &Arc<Store>, state: &NodeState, lazily: bool) -> Result<Vec<Part>, CheckpointError> {
    let mut parts: BTreeMap<u32, Part> = BTreeMap::new();
    let mut later: BTreeMap<u32, Vec<(String, FileRef)>> = BTreeMap::new();
    for (name, files) in &state.tables {
        for file in files {
            if lazily && is_state(name) {
                later.entry(file.subtask).or_default().push((name.clone(), file.clone()));
                continue;
            }
            let batches = store.table(file)?;
            let part = parts.entry(file.subtask).or_default();
            for batch in batches {
                part.state.tables.push((name.clone(), batch));
                part.key_groups.push(file.key_groups);
            }
        }
    }
    for (subtask, files) in later {
        parts.entry(subtask).or_default().state.stored = Some(Arc::new(Stored { store: Arc::clone(store), files }));
    }
    Ok(parts.into_values().collect())
}

fn read_committables(table: &RecordBatch, all: &mut Vec<Committable>) -> Result<(), SnapshotError> {
    let checkpoints = typed_column(table, "checkpoint", &DataType::UInt64)?.as_primitive::<UInt64Type>();
    let subtasks = typed_column(table, "subtask", &DataType::UInt32)?.as_primitive::<UInt32Type>();
    let bytes = typed_column(table, "bytes", &DataType::Binary)?.as_binary::<i32>();
    for row in 0..table.num_rows() {
        let bytes = bytes.value(row).to_vec();
        all.push(Committable { checkpoint: checkpoints.value(row), subtask: subtasks.value(row), bytes });
    }
    Ok(())
}
