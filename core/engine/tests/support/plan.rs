//! Plans made by hand, node by node, as the planner would make them.

use super::plugins::{Collect, Later, Ledger, Lines, Numbers, Pass, Tally, Texts};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion_expr::Operator as Comparison;
use datafusion_physical_expr::{
    PhysicalExpr,
    aggregate::AggregateExprBuilder,
    expressions::{BinaryExpr, col, lit},
};
use serde_json::{Value, json};
use standpipe_loader::{Catalogue, NodeInput, wire};
use standpipe_pipeline::plan::{
    Alignment, AsyncCalls, Chain, ChangeMode, Edge, EventTime, Exchange, FilterNode, JobSettings, Node, NodeId, Operator, Output, Plan,
    PlanHash, SinkNode, SourceNode, StateBackend, TransformNode, WindowAggregate, WindowAssigner, WindowNode,
};
use standpipe_sdk::export::Kind;
use std::{sync::Arc, time::Duration};

/// The plugins of the test.
pub fn catalogue() -> Catalogue {
    let kinds = [
        Kind::source::<Numbers>(),
        Kind::source::<Texts>(),
        Kind::transform::<Pass>(),
        Kind::transform::<Later>(),
        Kind::transform::<Tally>(),
        Kind::sink::<Collect>(),
        Kind::sink::<Ledger>(),
        Kind::sink::<Lines>(),
    ];
    Catalogue::linked("test", &kinds)
}

/// A plan that grows.
pub struct Builder {
    pub settings: JobSettings,
    pub idle_timeout: Duration,
    pub alignment: Option<Alignment>,
    pub state: StateBackend,
    nodes: Vec<Node>,
    edges: Vec<Edge>,
}

impl Builder {
    pub fn new() -> Self {
        let settings = JobSettings {
            parallelism: 1,
            max_parallelism: 128,
            batch_rows: 8192,
            in_flight_bytes: 16 << 20,
            flush_interval: Duration::from_millis(10),
        };
        Self {
            settings,
            idle_timeout: Duration::from_secs(10),
            alignment: None,
            state: StateBackend::Memory,
            nodes: Vec::new(),
            edges: Vec::new(),
        }
    }

    fn node(&mut self, section: &str, name: &str, parallelism: u32, operator: Operator, outputs: Vec<(&str, SchemaRef)>) -> NodeId {
        let id = NodeId(self.nodes.len() as u32);
        let output = |(name, schema): (&str, SchemaRef)| {
            let event_time = schema.index_of("ts").ok();
            Output { name: name.to_owned(), schema, mode: ChangeMode::Append, key: Vec::new(), event_time }
        };
        let outputs = outputs.into_iter().map(output).collect();
        self.nodes.push(Node { id, name: name.to_owned(), path: format!("{section}.{name}"), parallelism, operator, outputs });
        id
    }

    fn schema(&self, (node, output): (NodeId, u32)) -> SchemaRef {
        Arc::clone(&self.nodes[node.0 as usize].outputs[output as usize].schema)
    }

    fn edge(&mut self, from: (NodeId, u32), to: NodeId, input: u32, exchange: Option<Exchange>) {
        let parallelism = |id: NodeId| self.nodes[id.0 as usize].parallelism;
        let natural = if parallelism(from.0) == parallelism(to) { Exchange::Forward } else { Exchange::Rebalance };
        self.edges.push(Edge { from: from.0, output: from.1, to, input, exchange: exchange.unwrap_or(natural) });
    }

    fn input(&self, from: (NodeId, u32)) -> NodeInput {
        NodeInput {
            schema: self.schema(from),
            details: wire::InputDetails { name: self.nodes[from.0.0 as usize].name.clone(), ..Default::default() },
        }
    }

    /// The source of numbered rows.
    pub fn numbers(&mut self, name: &str, parallelism: u32, config: Value) -> (NodeId, u32) {
        let kind = catalogue().source("numbers").unwrap();
        let validation = kind.validate(name, &config).unwrap();
        let schema = Arc::clone(&validation.schema);
        let (idle_timeout, alignment) = (self.idle_timeout, self.alignment.clone());
        let event_time = EventTime { column: 1, out_of_orderness: Duration::from_millis(5), idle_timeout, alignment };
        let source = SourceNode { kind, config, validation, decode: None, event_time: Some(event_time), isolation: None };
        (self.node("sources", name, parallelism, Operator::Source(source), vec![("main", schema)]), 0)
    }

    /// Rows with an `n` of at least that.
    pub fn filter(&mut self, name: &str, from: (NodeId, u32), at_least: i64) -> (NodeId, u32) {
        let schema = self.schema(from);
        let n = col("n", &schema).unwrap();
        let predicate: Arc<dyn PhysicalExpr> = Arc::new(BinaryExpr::new(n, Comparison::GtEq, lit(at_least)));
        let filter = FilterNode { predicate, row_kind: None, text: format!("n >= {at_least}") };
        let parallelism = self.nodes[from.0.0 as usize].parallelism;
        let node = self.node("transforms", name, parallelism, Operator::Filter(filter), vec![("main", schema)]);
        self.edge(from, node, 0, None);
        (node, 0)
    }

    /// A filter with an expression that does to the engine what it likes.
    pub fn filter_by(
        &mut self,
        name: &str,
        from: (NodeId, u32),
        predicate: Arc<dyn PhysicalExpr>,
        exchange: Option<Exchange>,
    ) -> (NodeId, u32) {
        let schema = self.schema(from);
        let filter = FilterNode { predicate, row_kind: None, text: "?".to_owned() };
        let parallelism = self.nodes[from.0.0 as usize].parallelism;
        let node = self.node("transforms", name, parallelism, Operator::Filter(filter), vec![("main", schema)]);
        self.edge(from, node, 0, exchange);
        (node, 0)
    }

    pub fn union(&mut self, name: &str, parallelism: u32, from: &[(NodeId, u32)]) -> (NodeId, u32) {
        let schema = self.schema(from[0]);
        let node = self.node("transforms", name, parallelism, Operator::Union, vec![("main", schema)]);
        for (input, from) in (0..).zip(from) {
            self.edge(*from, node, input, None);
        }
        (node, 0)
    }

    /// Tumbling windows by key with a count, the sum and the maximum of `n`. Output 1: late rows.
    pub fn window(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), size: Duration) -> (NodeId, u32) {
        let schema = self.schema(from);
        let aggregate = |udaf, argument: Arc<dyn PhysicalExpr>, name: &str| {
            let function = AggregateExprBuilder::new(udaf, vec![argument]).schema(Arc::clone(&schema)).alias(name).build().unwrap();
            WindowAggregate { name: name.to_owned(), function: Arc::new(function), state: None, text: name.to_owned() }
        };
        let n = || col("n", &schema).unwrap();
        let aggregates = vec![
            aggregate(datafusion_functions_aggregate::count::count_udaf(), lit(1_i64), "count"),
            aggregate(datafusion_functions_aggregate::sum::sum_udaf(), n(), "sum"),
            aggregate(datafusion_functions_aggregate::min_max::max_udaf(), n(), "max"),
        ];
        let time = schema.field(1).clone();
        let fields = vec![
            schema.field(0).clone(),
            time.clone().with_name("window_start"),
            time.with_name("window_end"),
            Field::new("count", DataType::Int64, true),
            Field::new("sum", DataType::Int64, true),
            Field::new("max", DataType::Int64, true),
        ];
        let assigner = WindowAssigner::Tumbling { size, offset: Duration::ZERO };
        let window = WindowNode { keys: vec![0], time: 1, assigner, allowed_lateness: Duration::ZERO, aggregates };
        let outputs = vec![("main", Arc::new(Schema::new(fields)) as SchemaRef), ("late", Arc::clone(&schema))];
        let node = self.node("transforms", name, parallelism, Operator::Window(window), outputs);
        self.edge(from, node, 0, Some(Exchange::Hash(vec![0])));
        (node, 0)
    }

    /// The transform that passes rows on; keyed with `key`.
    pub fn pass(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), config: Value, keyed: bool) -> (NodeId, u32) {
        self.transform("pass", name, parallelism, from, config, keyed)
    }

    /// The transform whose calls end later.
    pub fn later(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), config: Value, calls: AsyncCalls) -> (NodeId, u32) {
        self.any_transform("later", name, parallelism, from, config, false, Some(calls))
    }

    /// The same one, with keys, which a planner refuses.
    pub fn keyed_later(&mut self, name: &str, from: (NodeId, u32), config: Value) -> (NodeId, u32) {
        self.transform("later", name, 1, from, config, true)
    }

    fn transform(&mut self, kind: &str, name: &str, parallelism: u32, from: (NodeId, u32), config: Value, keyed: bool) -> (NodeId, u32) {
        self.any_transform(kind, name, parallelism, from, config, keyed, None)
    }

    #[allow(clippy::too_many_arguments, reason = "one place that makes the node")]
    fn any_transform(
        &mut self,
        kind: &str,
        name: &str,
        parallelism: u32,
        from: (NodeId, u32),
        config: Value,
        keyed: bool,
        asynchronous: Option<AsyncCalls>,
    ) -> (NodeId, u32) {
        let kind = catalogue().transform(kind).unwrap();
        let mut inputs = vec![self.input(from)];
        if keyed {
            inputs[0].details.key = vec!["key".to_owned()];
        }
        let validation = kind.validate(name, &config, &inputs, keyed).unwrap();
        let schema = Arc::clone(&validation.outputs[0].1);
        let keys = if keyed { vec![0] } else { Vec::new() };
        let transform = TransformNode { kind, config, inputs, validation, keys, asynchronous, isolation: None };
        let node = self.node("transforms", name, parallelism, Operator::Transform(transform), vec![("main", schema)]);
        self.edge(from, node, 0, keyed.then(|| Exchange::Hash(vec![0])));
        (node, 0)
    }

    /// The keyed transform that counts in state, and gives by timers.
    pub fn tally(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), config: Value) -> (NodeId, u32) {
        self.transform("tally", name, parallelism, from, config, true)
    }

    /// The sink that remembers. Output 0: what it refuses.
    pub fn collect(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), config: Value) -> (NodeId, u32) {
        self.sink("collect", name, parallelism, from, config)
    }

    /// The sink whose rows count when they are committed.
    pub fn ledger(&mut self, name: &str, parallelism: u32, from: (NodeId, u32), config: Value) -> (NodeId, u32) {
        self.sink("ledger", name, parallelism, from, config)
    }

    fn sink(&mut self, kind: &str, name: &str, parallelism: u32, from: (NodeId, u32), config: Value) -> (NodeId, u32) {
        let kind = catalogue().sink(kind).unwrap();
        let input = self.input(from);
        let validation = kind.validate(&config, &input, name).unwrap();
        let mut errors = input.schema.fields().to_vec();
        errors.push(Arc::new(Field::new("reason", DataType::Utf8, false)));
        let sink = SinkNode { kind, config, input, validation, isolation: None };
        let node = self.node("sinks", name, parallelism, Operator::Sink(sink), vec![("errors", Arc::new(Schema::new(errors)))]);
        self.edge(from, node, 0, None);
        (node, 0)
    }

    /// The plan, stateless steps fused.
    pub fn build(self) -> Plan {
        let Self { settings, nodes, edges, .. } = self;
        let mut chains: Vec<Chain> = Vec::new();
        for node in &nodes {
            let only = |id: NodeId| edges.iter().filter(|edge| edge.from == id && edge.output == 0).count() == 1;
            let mut into = edges.iter().filter(|edge| edge.to == node.id);
            let before = match (into.next(), into.next(), &node.operator) {
                (Some(edge), None, Operator::Filter(_)) if edge.exchange == Exchange::Forward && edge.output == 0 && only(edge.from) => {
                    Some(edge.from)
                }
                _ => None,
            };
            match before.and_then(|before| chains.iter_mut().find(|chain| chain.nodes.last() == Some(&before))) {
                Some(chain) => chain.nodes.push(node.id),
                None => chains.push(Chain { nodes: vec![node.id] }),
            }
        }
        Plan {
            state: self.state,
            metrics: None,
            name: "test".to_owned(),
            settings,
            checkpoint: None,
            restart: standpipe_pipeline::RestartStrategy::None,
            functions: Vec::new(),
            nodes,
            edges,
            chains,
            hash: PlanHash(0),
        }
    }
}

/// The configuration of a plugin of the test, with its probe.
pub fn config(probe: &str, more: Value) -> Value {
    let mut config = json!({"probe": probe});
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}
