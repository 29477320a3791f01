//! A plugin's process as its host has it: how it is started, how a call is made, how it is ended. The thread of the instance makes the calls; a second thread (`listen`) hears what
//! the process tells besides.
//!
//! A call has no time of its own, as a call of a plugin that is here has none. Once the job is cancelled, the process is told, and killed if it does not come back soon: so a plugin that
//! hangs is left behind by nobody.

use super::{
    death::{Death, Killed},
    listen::{self, Heard},
};
use crate::{
    Launcher, Limits,
    batch::{self, Packed, Parcel},
    memory::{Mapped, Pool},
    wire::{self, Received, Wire, WireError, wait},
    words::{Back, Create, Envelope, Part, Reply, Request},
};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use rustix::event::PollFlags;
use standpipe_loader::{Error, ErrorCode, HostServices, InstanceContext, NodeInput, Origin, PluginError, PluginFile};
use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt},
    },
    process::{ChildStderr, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How often a thread that waits for a process looks whether the job is cancelled.
const LOOK: Duration = Duration::from_millis(50);
/// How long a call has from then on. The engine leaves behind what does not come back within 0.4 s.
const GRACE: Duration = Duration::from_millis(250);
/// How long a process that has nothing left to do has to end by itself.
const LEAVE: Duration = Duration::from_millis(500);

/// What both threads of the host know of a process.
pub(super) struct Shared {
    pub(super) host: Arc<dyn HostServices>,
    pub(super) origin: Arc<Origin>,
    pub(super) node: String,
    pub(super) death: Death,
    /// Where news come from and answers to them go.
    pub(super) news: Arc<OwnedFd>,
    /// One answer at a time.
    pub(super) answering: Mutex<()>,
    /// The process' segments.
    pub(super) mapped: Mutex<Mapped>,
    pub(super) heard: Mutex<Heard>,
    pub(super) changed: Condvar,
    /// It is to end: that is no failure.
    pub(super) is_ending: AtomicBool,
}

impl Shared {
    pub(super) fn failure(&self, error: Error) -> PluginError {
        PluginError::new(&self.origin, &self.node, error)
    }

    /// That the process is gone. It is not made again by itself, and its call cannot be: the job is started again, as its strategy says.
    pub(super) fn lost(&self) -> PluginError {
        let told = format!("the process of the plugin {} {}", self.origin.plugin, self.death.describe());
        self.failure(Error::new(ErrorCode::OTHER, told))
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn mapped(&self) -> MutexGuard<'_, Mapped> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something on the socket of the news.
    pub(super) fn say(&self, back: Back) -> Result<(), WireError> {
        let _one = self.answering.lock().unwrap_or_else(PoisonError::into_inner);
        let envelope = Envelope { released: Vec::new(), gone: Vec::new(), told: 0, message: back };
        let begun = Instant::now();
        // It is always read; a process that does not is stopped, or about to be killed.
        wire::send(&self.news, &envelope, &[], &[], &mut |socket, what| {
            if begun.elapsed() > GRACE || self.death.is_over() {
                return Err(WireError::GivenUp);
            }
            wait(&[(socket, what), (self.death.signal(), PollFlags::IN)], Some(LOOK)).map(drop)
        })
    }
}

/// What an instance is made of.
pub(super) struct Making<'a> {
    pub(super) launcher: &'a Launcher,
    pub(super) limits: &'a Limits,
    pub(super) origin: &'a Arc<Origin>,
    pub(super) plugin: &'a PluginFile,
    pub(super) part: Part,
    pub(super) node: &'a str,
    pub(super) config: &'a serde_json::Value,
    pub(super) context: &'a InstanceContext,
    pub(super) inputs: &'a [NodeInput],
}

/// A process with an instance.
pub(super) struct Process {
    calls: Wire,
    pool: Pool,
    pub(super) shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
    /// A call did not come back: no other one is made.
    is_broken: bool,
}

/// A reply, and what came with it.
pub(super) struct Answer {
    pub(super) reply: Reply,
    inline: Vec<u8>,
    files: VecDeque<OwnedFd>,
}

impl Process {
    /// Starts a process and makes an instance in it: the schemas that it told.
    pub(super) fn start(making: &Making<'_>, host: Arc<dyn HostServices>) -> Result<(Self, Vec<SchemaRef>), PluginError> {
        let failure = |error: Error| PluginError::new(making.origin, making.node, error);
        let cannot = |what: &str, error: &dyn std::fmt::Display| {
            failure(Error::new(ErrorCode::OTHER, format!("a process of its own cannot be started: {what}: {error}")))
        };
        let create = create(making).map_err(failure)?;
        let (calls, theirs) = UnixStream::pair().map_err(|error| cannot("no socket", &error))?;
        let (news, their_news) = UnixStream::pair().map_err(|error| cannot("no socket", &error))?;
        let (death, stderr) = spawn(making, theirs.into()).map_err(|error| cannot("the program", &error))?;
        let news = Wire::new(news.into());
        let shared = Arc::new(Shared {
            host,
            origin: Arc::clone(making.origin),
            node: making.node.to_owned(),
            death,
            news: Arc::clone(news.socket()),
            answering: Mutex::default(),
            mapped: Mutex::default(),
            heard: Mutex::default(),
            changed: Condvar::new(),
            is_ending: AtomicBool::new(false),
        });
        let (ours, memory) = (Arc::clone(&shared), making.limits.memory);
        let listener = thread::Builder::new().name(format!("apart:{}", making.context.node));
        let listener = listener.spawn(move || listen::listen(&ours, news, stderr, memory)).map_err(|error| {
            shared.death.kill(Killed::Unused);
            cannot("no thread", &error)
        })?;
        let mut process =
            Self { calls: Wire::new(calls.into()), pool: Pool::default(), shared, listener: Some(listener), is_broken: false };
        // The process has what this one reads where the source reads its standard input.
        let stdin = rustix::stdio::stdin().try_clone_to_owned().map_err(|error| cannot("standard input", &error))?;
        let files = vec![Arc::new(OwnedFd::from(their_news)), Arc::new(stdin)];
        let answer = process.exchange(Request::Create(Box::new(create)), Parcel { inline: Vec::new(), files })?;
        let Reply::Created(schemas) = answer.reply else { return Err(process.nonsense("create")) };
        let schemas = schemas.iter().map(|schema| batch::schema(&schema.0)).collect::<Result<_, _>>();
        let schemas = schemas.map_err(|error| process.shared.failure(Error::from(error)))?;
        Ok((process, schemas))
    }

    /// Makes a call without batches.
    pub(super) fn call(&mut self, request: Request<'_>) -> Result<Answer, PluginError> {
        self.exchange(request, Parcel::default())
    }

    /// Makes a call that has one way to succeed.
    pub(super) fn done(&mut self, request: Request<'_>) -> Result<(), PluginError> {
        let name = request.name();
        match self.call(request)?.reply {
            Reply::Done => Ok(()),
            _ => Err(self.nonsense(name)),
        }
    }

    /// Makes a call that gives bytes.
    pub(super) fn bytes(&mut self, request: Request<'_>) -> Result<Vec<u8>, PluginError> {
        let name = request.name();
        match self.call(request)?.reply {
            Reply::Bytes(bytes) => Ok(bytes.0.into_owned()),
            _ => Err(self.nonsense(name)),
        }
    }

    /// Makes a call that gives JSON.
    pub(super) fn json<T: serde::de::DeserializeOwned>(&mut self, request: Request<'_>) -> Result<T, PluginError> {
        let name = request.name();
        let answer = self.call(request)?;
        let Reply::Json(json) = answer.reply else { return Err(self.nonsense(name)) };
        serde_json::from_str(&json).map_err(|_| self.nonsense(name))
    }

    /// Makes a call with a batch, which must be of the schema.
    pub(super) fn give<'r>(
        &mut self,
        batch: &RecordBatch,
        schema: &SchemaRef,
        request: impl FnOnce(Packed) -> Request<'r>,
    ) -> Result<Answer, PluginError> {
        let mut parcel = Parcel::default();
        let packed = batch::pack(batch, schema, &mut self.pool, &mut parcel);
        let packed = packed.map_err(|error| self.shared.failure(Error::from(error)))?;
        self.exchange(request(packed), parcel)
    }

    /// Ends the instance. One that is gone has been told of.
    pub(super) fn close(&mut self, reason: u32) -> Result<(), PluginError> {
        if self.is_broken || self.shared.death.is_over() { Ok(()) } else { self.done(Request::Close(reason)) }
    }

    /// The batches of an answer.
    pub(super) fn batch(&self, packed: &Packed, schema: &SchemaRef, answer: &mut Answer) -> Result<RecordBatch, PluginError> {
        let batch = batch::unpack(packed, schema, &answer.inline, &mut answer.files, &mut self.shared.mapped());
        batch.map_err(|error| self.shared.failure(Error::from(error)))
    }

    /// An answer that belongs to another call.
    pub(super) fn nonsense(&self, call: &str) -> PluginError {
        self.shared.failure(Error::new(ErrorCode::OTHER, format!("its process answers {call} with something else")))
    }

    fn exchange(&mut self, request: Request<'_>, parcel: Parcel) -> Result<Answer, PluginError> {
        if self.is_broken {
            return Err(self.shared.lost());
        }
        let name = request.name();
        let released = self.shared.mapped().take_released();
        let envelope = Envelope { released, gone: self.pool.take_gone(), told: 0, message: request };
        let mut cancelled = None;
        let shared = &self.shared;
        let mut wait = |socket: BorrowedFd<'_>, what| heed(shared, socket, what, &mut cancelled);
        let sent = wire::send(self.calls.socket(), &envelope, &parcel.inline, &parcel.files, &mut wait);
        let received = sent.and_then(|()| self.calls.receive::<Reply>(&mut wait));
        match received {
            Ok(Received { envelope, inline }) => self.accept(envelope, inline),
            Err(error) => Err(self.broke(name, &error)),
        }
    }

    fn accept(&mut self, envelope: Envelope<Reply>, inline: Vec<u8>) -> Result<Answer, PluginError> {
        self.pool.release(&envelope.released);
        self.shared.mapped().forget(&envelope.gone);
        self.wait_for_news(envelope.told);
        match envelope.message {
            Reply::Failed(failure) => Err(self.shared.failure(failure.into())),
            reply => Ok(Answer { reply, inline, files: std::mem::take(&mut self.calls.files) }),
        }
    }

    /// What was told before the answer is heard before it: what a sink rejects and acknowledges in a `flush`, say.
    fn wait_for_news(&self, told: u64) {
        let heard = self.shared.heard();
        drop(self.shared.changed.wait_while(heard, |heard| heard.count < told && !heard.is_over));
    }

    /// Until all is heard that the process has said before its end.
    fn wait_for_the_end(&self) {
        if !self.shared.death.wait(LEAVE) {
            self.shared.death.kill(Killed::Unused);
        }
        drop(self.shared.changed.wait_timeout_while(self.shared.heard(), LEAVE, |heard| !heard.is_over));
    }

    fn broke(&mut self, call: &str, error: &WireError) -> PluginError {
        self.is_broken = true;
        match error {
            WireError::GivenUp => {
                self.shared.death.kill(Killed::Cancelled);
                self.shared.failure(Error::cancelled())
            }
            WireError::Closed => {
                self.wait_for_the_end();
                self.shared.lost()
            }
            error => {
                self.shared.death.kill(Killed::Unused);
                self.shared.failure(Error::new(ErrorCode::OTHER, format!("{call} in a process of its own: {error}")))
            }
        }
    }
}

/// Ends the process: by itself if it can, which flushes what it has printed; nothing of it is left behind.
impl Drop for Process {
    fn drop(&mut self) {
        self.shared.is_ending.store(true, SeqCst);
        if !self.is_broken && !self.shared.death.is_over() && self.call(Request::Destroy).is_ok() {
            self.shared.death.wait(LEAVE);
        }
        self.shared.death.kill(Killed::Unused);
        if let Some(listener) = self.listener.take() {
            // It has no panic to tell of, and ends with the process.
            drop(listener.join());
        }
    }
}

/// Waits for a socket of the process, which may end meanwhile, and whose job may be cancelled.
fn heed(shared: &Shared, socket: BorrowedFd<'_>, what: PollFlags, cancelled: &mut Option<Instant>) -> Result<(), WireError> {
    loop {
        let [ready, ended] = wait(&[(socket, what), (shared.death.signal(), PollFlags::IN)], Some(LOOK))?;
        if ready {
            return Ok(());
        }
        if ended {
            return Err(WireError::Closed);
        }
        if cancelled.is_none() && shared.host.cancelled() {
            *cancelled = Some(Instant::now());
            // One that does not hear it is killed below.
            drop(shared.say(Back::Cancelled));
        }
        if cancelled.is_some_and(|since| since.elapsed() >= GRACE) {
            return Err(WireError::GivenUp);
        }
    }
}

fn create(making: &Making<'_>) -> Result<Create, Error> {
    if making.plugin.path.as_os_str().is_empty() {
        return Err(Error::unsupported("its plugin is linked into this program, and cannot run in a process of its own"));
    }
    let file = making.plugin.path.to_str();
    let file = file.ok_or_else(|| Error::unsupported("the path of its plugin is no UTF-8, and cannot be told to a process of its own"))?;
    let inputs = making.inputs.iter().map(|input| (batch::schema_bytes(&input.schema).into(), crate::words::details(&input.details)));
    Ok(Create {
        build: crate::child::BUILD.to_owned(),
        part: making.part,
        file: file.to_owned(),
        hash: making.plugin.hash(),
        kind: making.origin.kind.clone(),
        node: making.node.to_owned(),
        config: making.config.to_string(),
        context: making.context.into(),
        inputs: inputs.collect(),
        sandbox: making.limits.sandbox.clone(),
    })
}

/// Starts the program. Its standard input is the socket of the calls; its standard error is heard of.
fn spawn(making: &Making<'_>, calls: OwnedFd) -> io::Result<(Death, ChildStderr)> {
    let mut command = Command::new(&making.launcher.program);
    command.arg0("standpipe").args(&making.launcher.arguments);
    command.arg("--parent").arg(std::process::id().to_string());
    // As messages name the node.
    let named = PluginError::new(making.origin, making.node, Error::cancelled());
    command.arg("--of").arg(format!("{}:{}", named.node, making.origin.kind));
    command.stdin(Stdio::from(calls)).stdout(Stdio::inherit()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let stderr = child.stderr.take().ok_or_else(|| io::Error::other("standard error is not piped"))?;
    Ok((Death::of(child, making.limits.memory)?, stderr))
}
