//! A transform whose calls end later: after a while, when the test says so, together with others, badly, or never.

use super::Probe;
use arrow::array::RecordBatch;
use standpipe_sdk::{
    Call, Completion, Context, Error, Result, Transform, TransformDeclaration, TransformInput,
    transform::{Asynchronous, OutputDeclaration},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

/// Passes rows on, later.
#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct LaterConfig {
    pub probe: String,
    /// Each call ends within that time, each after another one.
    #[serde(default)]
    pub within_ms: u64,
    /// Calls wait for the test ([`Probe::calls`]).
    #[serde(default)]
    pub hold: bool,
    /// Calls end together, so many at a time, or when they are waited for.
    pub together: Option<usize>,
    /// That call fails, in a way that may pass.
    pub fail_at: Option<u64>,
    /// The thread of that call panics.
    pub panic_at: Option<u64>,
    /// The completion of that call is dropped.
    pub drop_at: Option<u64>,
    /// That call never ends.
    pub never_at: Option<u64>,
}

/// A call that has not ended.
pub struct HeldCall {
    pub completion: Completion,
    pub batch: RecordBatch,
    pending: Arc<AtomicU64>,
}

impl HeldCall {
    /// Gives it its rows, and ends it.
    pub fn end(self) {
        let Self { completion, batch, pending } = self;
        completion.answer(|results| {
            results.emit(batch)?;
            pending.fetch_sub(1, SeqCst);
            Ok(())
        });
    }
}

pub struct Later {
    config: LaterConfig,
    probe: Arc<Probe>,
    node: String,
    begun: u64,
    rows: u64,
    pending: Arc<AtomicU64>,
    put_off: Vec<HeldCall>,
}

impl Later {
    fn end_together(&mut self) {
        let calls = std::mem::take(&mut self.put_off);
        // The last one first.
        thread::spawn(move || calls.into_iter().rev().for_each(HeldCall::end));
    }

    fn nothing_pending(&self, when: &str) -> Result<()> {
        match self.pending.load(SeqCst) {
            0 => Ok(()),
            some => Err(Error::data(format!("{some} calls are pending {when}"))),
        }
    }
}

impl Transform for Later {
    const NAME: &'static str = "later";
    type Config = LaterConfig;

    fn declare(_: &LaterConfig, input: &TransformInput) -> Result<TransformDeclaration> {
        let main = OutputDeclaration::main(input.inputs[0].schema.clone());
        Ok(TransformDeclaration { outputs: vec![main], asynchronous: Some(Asynchronous::default()), ..Default::default() })
    }

    fn open(config: LaterConfig, _: &TransformInput, context: Context) -> Result<Self> {
        let probe = Probe::of(&config.probe);
        Ok(Self { config, probe, node: context.node, begun: 0, rows: 0, pending: Arc::default(), put_off: Vec::new() })
    }

    fn process(&mut self, batch: RecordBatch, call: &mut Call<'_>) -> Result<()> {
        let completion = call.completion()?;
        self.begun += 1;
        self.rows += batch.num_rows() as u64;
        let number = self.begun;
        let is = |at: Option<u64>| at == Some(number);
        let call = HeldCall { completion, batch, pending: Arc::clone(&self.pending) };
        let most = self.pending.fetch_add(1, SeqCst) + 1;
        self.probe.most_pending.fetch_max(most, SeqCst);
        if is(self.config.never_at) || self.config.hold {
            self.probe.fails();
            self.probe.calls.lock().unwrap().push(call);
            return Ok(());
        }
        if let Some(together) = self.config.together {
            self.put_off.push(call);
            if self.put_off.len() >= together {
                self.end_together();
            }
            return Ok(());
        }
        let (fails, panics, drops) = (is(self.config.fail_at), is(self.config.panic_at), is(self.config.drop_at));
        let wait = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) % (self.config.within_ms * 1000 + 1);
        let probe = Arc::clone(&self.probe);
        thread::spawn(move || {
            thread::sleep(Duration::from_micros(wait));
            if fails || panics || drops {
                probe.fails();
            }
            if fails {
                return call.completion.fail(Error::external("the service says 503").retryable());
            }
            assert!(!panics, "the thread is broken");
            if drops {
                return drop(call);
            }
            call.end();
        });
        Ok(())
    }

    fn drain(&mut self, checkpoint: Option<u64>) -> Result<()> {
        self.probe.drains.lock().unwrap().push(checkpoint);
        self.end_together();
        Ok(())
    }

    fn snapshot(&mut self) -> Result<Vec<u8>> {
        self.nothing_pending("in a checkpoint")?;
        Ok(self.rows.to_le_bytes().to_vec())
    }

    fn restore(&mut self, parts: &[&[u8]]) -> Result<()> {
        self.rows = parts.iter().filter_map(|part| Some(u64::from_le_bytes((*part).try_into().ok()?))).sum();
        Ok(())
    }

    fn finish(&mut self, _: &mut Call<'_>) -> Result<()> {
        self.nothing_pending("at the end")?;
        self.probe.counted.lock().unwrap().insert(self.node.clone(), self.rows);
        Ok(())
    }
}
