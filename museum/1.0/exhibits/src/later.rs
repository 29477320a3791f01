//! `exhibit-later`: unkeyed, ends its calls later, on a thread of its own and every two in the other order.

use arrow_array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use standpipe_sdk::transform::{Asynchronous, OutputDeclaration};
use standpipe_sdk::{Call, Completion, Context, Error, Result, Transform, TransformDeclaration, TransformInput};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::{sync::Arc, thread, time::Duration};

/// Gives the rows as they are, a little later.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LaterConfig {
    /// Milliseconds that a call waits for another to end before it.
    #[serde(default = "one")]
    pub millis: u64,
}

fn one() -> u64 {
    1
}

type Pending = (RecordBatch, Completion);

pub struct Later(Sender<Pending>);

fn end((batch, completion): Pending) {
    completion.answer(|results| results.emit(batch));
}

fn end_all(calls: &Receiver<Pending>, patience: Duration) {
    while let Ok(first) = calls.recv() {
        match calls.recv_timeout(patience) {
            Ok(second) => {
                end(second);
                end(first);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => end(first),
        }
    }
}

impl Transform for Later {
    const NAME: &'static str = "exhibit-later";
    type Config = LaterConfig;

    fn declare(_: &LaterConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        Ok(TransformDeclaration {
            outputs: vec![OutputDeclaration::main(Arc::clone(&input.only()?.schema))],
            asynchronous: Some(Asynchronous::default()),
            ..TransformDeclaration::default()
        })
    }

    fn open(config: LaterConfig, _: &TransformInput, _: Context) -> Result<Self> {
        let (calls, pending) = channel();
        thread::spawn(move || end_all(&pending, Duration::from_millis(config.millis)));
        Ok(Self(calls))
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let completion = call.completion()?;
        self.0.send((batch, completion)).map_err(|_| Error::external("the thread has ended"))
    }
}
