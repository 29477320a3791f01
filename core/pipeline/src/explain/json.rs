//! The plan as JSON for programs. Members are added, none is taken away; texts of the file are as written, so that no secret is shown.

use super::plugin_files;
use crate::{
    guarantee::{self, SinkGuarantee},
    modes,
    plan::{Exchange, FunctionKind, Node, Operator, Output, Plan},
};
use serde_json::{Value, json};
use standpipe_formats::types;
use standpipe_loader::PluginFile;

/// The plan: its nodes in topological order, the functions that they call, the plugin files that both are of, each with the SHA-256 of its content.
#[must_use]
pub fn json(plan: &Plan) -> Value {
    let guarantees = guarantee::of(plan);
    let nodes: Vec<Value> = plan.nodes.iter().map(|described| node(plan, described, &guarantees)).collect();
    let function = |function: &crate::plan::PluginFunction| {
        let kind = match function.kind {
            FunctionKind::Scalar(_) => "scalar",
            FunctionKind::Aggregate(_) => "aggregate",
        };
        json!({"function": function.name, "kind": kind, "plugin": kind_of(function.kind.name(), function.kind.plugin())})
    };
    let file = |file: &std::sync::Arc<PluginFile>| {
        let used: Vec<String> =
            plan.plugins().into_iter().filter(|used| std::sync::Arc::ptr_eq(used.plugin, file)).map(|used| used.path).collect();
        json!({
            "plugin": file.name,
            "version": file.version,
            "file": file.path.display().to_string(),
            "sha256": file.hash(),
            "used_by": used,
        })
    };
    json!({
        "name": plan.name,
        "plan": format!("{:016x}", plan.hash.0),
        "slots": plan.slots(),
        "parallelism": plan.settings.parallelism,
        "max_parallelism": plan.settings.max_parallelism,
        "chains": plan.chains.len(),
        "nodes": nodes,
        "functions": plan.functions.iter().map(function).collect::<Vec<_>>(),
        "plugins": plugin_files(plan).into_iter().map(file).collect::<Vec<_>>(),
    })
}

/// A kind of a plugin: what it is called, and which version of which plugin that is.
fn kind_of(name: &str, plugin: &PluginFile) -> Value {
    json!({"kind": name, "plugin": plugin.name, "version": plugin.version, "sha256": plugin.hash()})
}

fn node(plan: &Plan, node: &Node, guarantees: &[SinkGuarantee]) -> Value {
    let (operator, plugin) = match &node.operator {
        Operator::Source(source) => ("source", Some(kind_of(source.kind.name(), source.kind.plugin()))),
        Operator::Filter(_) => ("filter", None),
        Operator::Project(_) => ("select", None),
        Operator::Union => ("union", None),
        Operator::Transform(transform) => ("transform", Some(kind_of(transform.kind.name(), transform.kind.plugin()))),
        Operator::Window(_) => ("window", None),
        Operator::Aggregate(_) => ("aggregate", None),
        Operator::Encode(_) => ("encode", None),
        Operator::Sink(sink) => ("sink", Some(kind_of(sink.kind.name(), sink.kind.plugin()))),
    };
    let inputs: Vec<Value> = plan
        .inputs(node.id)
        .map(|edge| {
            let from = plan.node(edge.from);
            let (exchange, columns) = match &edge.exchange {
                Exchange::Forward => ("forward", &[][..]),
                Exchange::Rebalance => ("rebalance", &[][..]),
                Exchange::Hash(columns) => ("hash", columns.as_slice()),
            };
            let output = from.outputs.get(edge.output as usize);
            let names = |output: &Output| -> Vec<String> {
                columns.iter().filter_map(|at| output.schema.fields().get(*at)).map(|field| field.name().clone()).collect()
            };
            json!({
                "node": from.path,
                "output": output.map(|output| output.name.as_str()),
                "exchange": exchange,
                "columns": output.map(names).unwrap_or_default(),
            })
        })
        .collect();
    let guarantee = guarantees.iter().find(|sink| sink.sink == node.id).map(|sink| sink.guarantee.to_string());
    json!({
        "node": node.path,
        "operator": operator,
        "plugin": plugin,
        "parallelism": node.parallelism,
        "isolation": node.isolation().map(|limits| json!({"mode": "process", "memory": limits.memory, "sandbox": limits.sandbox})),
        "chain": plan.chains.iter().position(|chain| chain.nodes.contains(&node.id)),
        "inputs": inputs,
        "outputs": node.outputs.iter().map(output).collect::<Vec<_>>(),
        "guarantee": guarantee,
    })
}

fn output(output: &Output) -> Value {
    let column =
        |field: &arrow_schema::FieldRef| json!({"name": field.name(), "type": types::type_text(field), "nullable": field.is_nullable()});
    json!({
        "output": output.name,
        "mode": modes::name(output.mode),
        "key": output.key,
        "event_time": output.event_time.and_then(|at| output.schema.fields().get(at)).map(|field| field.name().clone()),
        "columns": output.schema.fields().iter().map(column).collect::<Vec<_>>(),
    })
}
