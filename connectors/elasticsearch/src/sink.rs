//! The sink as the host calls it: `declare` checks, `open` connects, `write` turns a batch into lines and queues them, `flush` waits. All sending is on the thread of
//! `sender`, so that a call returns at once while there is room; but the first batch waits for the first answer, so that what the server refuses is seen at the start.

use crate::{
    bulk::Encoder,
    client::Client,
    config::Config,
    plan::Plan,
    progress::Shared,
    sender::{Message, Sender},
    template,
};
use arrow_array::RecordBatch;
use standpipe_sdk::{
    CloseReason, Context, Error, Result, Sink, SinkDeclaration, SinkInput, Written,
    wire::{Capabilities, ChangeMode, Problem, TypeClass},
};
use std::{sync::Arc, thread::JoinHandle, time::Duration};
use tokio::sync::mpsc::{self, UnboundedSender};

/// How long the first batch waits for an answer: a host takes ten seconds for a call that hangs.
const FIRST_ANSWER: Duration = Duration::from_secs(5);

/// The Elasticsearch sink.
pub struct ElasticsearchSink {
    encoder: Encoder,
    shared: Arc<Shared>,
    /// `None` once closed.
    outbox: Option<UnboundedSender<Message>>,
    thread: Option<JoinHandle<()>>,
    /// The sequence number of the last batch.
    written: u64,
}

impl Sink for ElasticsearchSink {
    const NAME: &'static str = "elasticsearch";
    type Config = Config;

    fn declare(config: &Config, input: &SinkInput) -> Result<SinkDeclaration> {
        let (id, problems) = match Plan::new(config, input) {
            Ok(plan) => (plan.id.iter().map(|column| input.schema.field(*column).name().clone()).collect(), Vec::new()),
            Err(problems) => (Vec::new(), problems),
        };
        let has_ids = !id.is_empty();
        Ok(SinkDeclaration {
            accepts: vec![ChangeMode::Append, ChangeMode::Upsert],
            capabilities: Capabilities { idempotent: has_ids, ordered: has_ids, ..Capabilities::default() },
            id,
            types: vec![TypeClass::Large, TypeClass::View, TypeClass::Nested],
            problems,
            ..SinkDeclaration::default()
        })
    }

    fn open(config: Config, input: &SinkInput, context: Context) -> Result<Self> {
        let plan = Plan::new(&config, input).map_err(first)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut client = Client::new(&config, context.references)?;
        runtime.block_on(async {
            client.probe(&context.host).await?;
            if let (Some(template), Some(index)) = (config.template.as_ref().filter(|template| template.create), &plan.index) {
                let name = template::name(template, index).map_err(|why| Error::config("template", why))?;
                let body = template::body(template, index, &input.schema, plan.row_kind, config.data_stream);
                client.put_template(&name, template, &body, &context.host).await?;
            }
            Ok::<_, Error>(())
        })?;
        let encoder = Encoder::new(plan, &config)?;
        let shared = Shared::new(context.host, config.buffer.0);
        let mut sender = Sender::new(client, &config, encoder.ours(), encoder.operation(), Arc::clone(&shared));
        if context.restored {
            sender.goes_on();
        }
        let (outbox, inbox) = mpsc::unbounded_channel();
        let thread = std::thread::Builder::new().name("elasticsearch".to_owned()).spawn(move || sender.run(runtime, inbox))?;
        Ok(Self { encoder, shared, outbox: Some(outbox), thread: Some(thread), written: 0 })
    }

    fn write(&mut self, seq: u64, batch: &RecordBatch) -> Result<Written> {
        self.shared.check()?;
        if !self.shared.has_room() {
            // While there is trouble, an error that may pass: the host shows why nothing moves.
            return self.shared.trouble().map_or(Ok(Written::Busy), Err);
        }
        let encoded = self.encoder.encode(batch)?;
        let permits = encoded.lanes.iter().map(|items| self.shared.take_room(items.bytes.len())).collect();
        self.send(Message::Batch { seq, rows: batch.num_rows(), encoded, permits })?;
        if self.written == 0 {
            self.send(Message::Flush)?;
            self.shared.wait_for_answer(seq, FIRST_ANSWER)?;
        }
        self.written = seq;
        Ok(Written::Taken)
    }

    fn flush(&mut self, _: u64) -> Result<()> {
        self.send(Message::Flush)?;
        self.shared.wait(self.written)
    }

    fn close(&mut self, _: CloseReason) -> Result<()> {
        self.end();
        Ok(())
    }
}

impl ElasticsearchSink {
    fn send(&self, message: Message) -> Result<()> {
        let sent = self.outbox.as_ref().is_some_and(|outbox| outbox.send(message).is_ok());
        // The thread ends early only with a failure, which says more.
        if sent {
            Ok(())
        } else {
            self.shared.check().and_then(|()| Err(Error::new(standpipe_sdk::ErrorCode::OTHER, "the sink is closed")))
        }
    }

    fn end(&mut self) {
        self.outbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported as a failure.
            let _ = thread.join();
        }
    }
}

impl Drop for ElasticsearchSink {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first of several mistakes; the host has shown all at `declare`, unless they come from references.
fn first(problems: Vec<Problem>) -> Error {
    let problem = problems.into_iter().next().unwrap_or_default();
    let error = Error::config(problem.path, problem.message);
    match problem.suggestion {
        Some(suggestion) => error.with("suggestion", suggestion),
        None => error,
    }
}
