//! The plan's hash: xxh3-64 of a text that holds everything that decides results and shape: the job's settings, and of every node its parallelism, operator,
//! configuration and columns, of asynchronous calls their order, of every edge its exchange. Plugins count by name and version: two builds of one version have one hash. Expressions and configurations count as written, references
//! included: the hash is shown, and must not be a way to guess a secret. The order of keys counts where the plan follows it (nodes, columns), and only there.
//! Stable across processes of one release, not across releases.

use crate::plan::{Exchange, Node, Operator, Plan, PlanHash, ProjectColumn};
use datafusion_physical_expr::expressions::Column;
use serde_json::Value;
use standpipe_sdk::wire::Encoding;
use std::fmt::Write;
use xxhash_rust::xxh3::xxh3_64;

pub(crate) fn of(plan: &Plan) -> PlanHash {
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = write(plan, &mut text);
    PlanHash(xxh3_64(text.as_bytes()))
}

fn write(plan: &Plan, out: &mut String) -> std::fmt::Result {
    writeln!(out, "standpipe plan 1\n{:?}\n{:?}", plan.name, plan.settings)?;
    for function in &plan.functions {
        let plugin = function.kind.plugin();
        let config = sorted(&function.config);
        writeln!(out, "function {:?} {:?} {:?} {:?} {config}", function.name, function.kind.name(), plugin.name, plugin.version)?;
    }
    for node in &plan.nodes {
        writeln!(out, "{:?} {}", node.path, node.parallelism)?;
        operator(node, out)?;
        for output in &node.outputs {
            writeln!(out, "  {:?} {:?} {:?} {:?}", output.name, output.mode, output.key, output.event_time)?;
            for field in output.schema.fields() {
                let mut metadata: Vec<_> = field.metadata().iter().collect();
                metadata.sort();
                writeln!(out, "    {:?} {} {} {metadata:?}", field.name(), field.data_type(), field.is_nullable())?;
            }
        }
    }
    for edge in &plan.edges {
        write!(out, "{}.{} {}.{} ", edge.from.0, edge.output, edge.to.0, edge.input)?;
        match &edge.exchange {
            Exchange::Forward => writeln!(out, "forward")?,
            Exchange::Rebalance => writeln!(out, "rebalance")?,
            Exchange::Hash(columns) => writeln!(out, "hash {columns:?}")?,
        }
    }
    Ok(())
}

fn operator(node: &Node, out: &mut String) -> std::fmt::Result {
    match &node.operator {
        Operator::Source(source) => {
            let plugin = source.kind.plugin();
            writeln!(out, "  source {:?} {:?} {:?} {}", source.kind.name(), plugin.name, plugin.version, sorted(&source.config))?;
            writeln!(out, "  {:?} {:?}", source.decode.as_ref().map(|decode| &decode.format), source.event_time)
        }
        Operator::Filter(filter) => writeln!(out, "  filter {:?}", filter.text),
        Operator::Project(project) => {
            writeln!(out, "  project")?;
            project.columns.iter().try_for_each(|column| writeln!(out, "    {:?} {}", column.name, computed(column)))
        }
        Operator::Union => writeln!(out, "  union"),
        Operator::Transform(transform) => {
            let plugin = transform.kind.plugin();
            let config = sorted(&transform.config);
            writeln!(out, "  transform {:?} {:?} {:?} {config} {:?}", transform.kind.name(), plugin.name, plugin.version, transform.keys)?;
            transform.asynchronous.map_or(Ok(()), |calls| writeln!(out, "  async {:?}", calls.order))
        }
        Operator::Window(window) => {
            writeln!(out, "  window {:?} {} {:?} {:?}", window.keys, window.time, window.assigner, window.allowed_lateness)?;
            window.aggregates.iter().try_for_each(|aggregate| writeln!(out, "    {:?} {:?}", aggregate.name, aggregate.text))
        }
        Operator::Aggregate(aggregate) => {
            writeln!(out, "  aggregate {:?} {:?}", aggregate.keys, aggregate.emit)?;
            aggregate.aggregates.iter().try_for_each(|running| writeln!(out, "    {:?} {:?}", running.name, running.text))
        }
        Operator::Encode(encode) => writeln!(out, "  encode {:?} {:?}", encode.format, encode.columns),
        Operator::Sink(sink) => {
            let plugin = sink.kind.plugin();
            writeln!(out, "  sink {:?} {:?} {:?} {}", sink.kind.name(), plugin.name, plugin.version, sorted(&sink.config))?;
            let format = sink.input.details.format.as_ref().filter(|_| sink.validation.details.encoding == Encoding::Files);
            format.map_or(Ok(()), |format| writeln!(out, "  {}", sorted(format)))
        }
    }
}

/// A column that is kept counts as the column, not as what its name would be as an expression.
fn computed(column: &ProjectColumn) -> String {
    match column.expression.downcast_ref::<Column>() {
        Some(kept) => format!("column {}", kept.index()),
        None => format!("{:?}", column.text),
    }
}

/// A configuration as text, the keys of its maps in order.
fn sorted(config: &Value) -> String {
    match config {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(key, _)| *key);
            let member = |(key, value): (&String, &Value)| format!("{key:?}:{}", sorted(value));
            format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        scalar => scalar.to_string(),
    }
}
