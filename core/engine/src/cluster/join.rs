//! Connecting the processes of a job: each connects to those before it and accepts those behind it, one connection for timely between any two, one for control between the
//! first and each other one. The accepting end looks at all unproved connections in turns, so that none of them, silent, slow or talkative, keeps another one waiting.

use super::{
    Cluster, ClusterError, Connections, Control, Membership,
    handshake::{self, ANSWER, CHALLENGE, HELLO, Hello, Kind, PROOF, Verdict},
    random,
    tls::Tls,
    wire::{self, Fresh, Wire},
};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// A connection that has not proved itself by then is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Unproved connections at a time; beyond that the oldest is dropped.
const MOST: usize = 256;
/// Between two looks at them.
const LOOK: Duration = Duration::from_millis(2);
/// Before a connection is tried again.
const RETRY: Duration = Duration::from_millis(50);
/// How long the kernel goes on trying to deliver what is sent before a connection counts as broken.
const UNDELIVERED: Duration = Duration::from_secs(20);

type Accepted = BTreeMap<(u32, Kind), Option<(Fresh, u32)>>;

impl Cluster {
    /// Connects this process with the others of its job. `addresses` are those where they listen, by process; `listener` is where this one does. It is closed when
    /// all are connected.
    ///
    /// # Errors
    /// When another one is missing after `patience`, or says that this one is not welcome.
    pub fn join(
        listener: TcpListener,
        addresses: &[SocketAddr],
        membership: &Membership,
        patience: Duration,
    ) -> Result<Self, ClusterError> {
        let Membership { process, processes, .. } = *membership;
        let system = |source| ClusterError::System { process, source };
        let own = Own { membership, tls: membership.tls.as_ref().map(Tls::of).transpose().map_err(system)? };
        let deadline = Instant::now() + patience;
        let mut data: Vec<Option<Wire>> = (0..processes).map(|_| None).collect();
        let mut control = Vec::new();
        let settle = |fresh: Fresh| settle(&fresh.tcp).map(|()| fresh.settled()).map_err(system);
        // Connections go to lower numbers only, and the lowest only accepts: nobody waits in a circle.
        for (to, address) in (0..process).zip(addresses) {
            let connect = |kind| connect(*address, &own, to, kind, deadline, patience);
            data[to as usize] = Some(settle(connect(Kind::Data)?.0)?);
            if to == 0 {
                let (stream, id) = connect(Kind::Control)?;
                control.push(Control { process: 0, id, stream: settle(stream)? });
            }
        }
        let kinds = if process == 0 { vec![Kind::Data, Kind::Control] } else { vec![Kind::Data] };
        let behind = (process + 1..processes).flat_map(|from| kinds.iter().map(move |kind| ((from, *kind), None)));
        let mut expected: Accepted = behind.collect();
        accept(&listener, &own, &mut expected, deadline, patience)?;
        for ((from, kind), accepted) in expected {
            match (kind, accepted) {
                (Kind::Data, Some((stream, _))) => data[from as usize] = Some(settle(stream)?),
                (Kind::Control, Some((stream, id))) => control.push(Control { process: from, id, stream: settle(stream)? }),
                (_, None) => {}
            }
        }
        let how = if own.tls.is_some() { "over TLS" } else { "in the clear" };
        tracing::info!(job = %membership.job_id, process, processes, "connected to the other processes {how}");
        Ok(Self { process, processes, connections: Mutex::new(Some(Connections { data, control })) })
    }
}

/// What a process says of itself, and what it speaks TLS with.
struct Own<'a> {
    membership: &'a Membership,
    tls: Option<Tls>,
}

/// Readies a connection for what follows the handshake.
fn settle(stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(None)?;
    stream.set_write_timeout(None)?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(UNDELIVERED / 2).with_interval(UNDELIVERED / 8))?;
    // A network that is cut says nothing. A process that is stopped is another matter: the kernel still takes what it is sent, and only its lease tells.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(UNDELIVERED))?;
    Ok(())
}

/// Why one try has failed.
enum Trouble {
    /// It may be another time.
    Passing,
    Final(ClusterError),
}

impl From<io::Error> for Trouble {
    fn from(_: io::Error) -> Self {
        Self::Passing
    }
}

/// Connects, again and again while it fails in a way that may pass; with the system's id of the process there.
fn connect(
    address: SocketAddr,
    own: &Own<'_>,
    to: u32,
    kind: Kind,
    deadline: Instant,
    patience: Duration,
) -> Result<(Fresh, u32), ClusterError> {
    loop {
        match try_connect(address, own, to, kind, deadline) {
            Ok(connected) => return Ok(connected),
            Err(Trouble::Final(error)) => return Err(error),
            Err(Trouble::Passing) if Instant::now() + RETRY < deadline => thread::sleep(RETRY),
            Err(Trouble::Passing) => {
                return Err(ClusterError::Missing { process: own.membership.process, missing: to, seconds: patience.as_secs() });
            }
        }
    }
}

fn try_connect(address: SocketAddr, own: &Own<'_>, to: u32, kind: Kind, deadline: Instant) -> Result<(Fresh, u32), Trouble> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let tcp = TcpStream::connect_timeout(&address, left)?;
    tcp.set_read_timeout(Some(left))?;
    tcp.set_write_timeout(Some(left))?;
    tcp.set_nodelay(true)?;
    let refused = |reason| Trouble::Final(ClusterError::Refused { process: own.membership.process, by: to, reason });
    let of_tls = |error: io::Error| if wire::is_of_tls(&error) { refused(error.to_string()) } else { Trouble::Passing };
    let mut stream = Fresh::connected(tcp, own.tls.as_ref(), to).map_err(of_tls)?;
    let introduced = introduce(&mut stream, own.membership, to, kind).map_err(|error| match error.kind() {
        // It may have said why before it has gone, and this process was still speaking.
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => stream.read(&mut [0]).err().filter(wire::is_of_tls).unwrap_or(error),
        _ => error,
    });
    match introduced.map_err(of_tls)? {
        Ok(id) => Ok((stream, id)),
        Err(reason) => Err(refused(reason.to_owned())),
    }
}

/// Proves to who is there that this process is of the job, and that that one is; with the system's id of the process, or why this is not to be.
fn introduce(stream: &mut Fresh, own: &Membership, to: u32, kind: Kind) -> io::Result<Result<u32, &'static str>> {
    let hello = Hello::new(own, kind, to, random()?).to_bytes();
    stream.write_all(&hello)?;
    let said = [hello, stream.binding()?].concat();
    let mut answer = [0; ANSWER];
    stream.read_exact(&mut answer)?;
    let Some(id) = handshake::check_answer(&own.secret, &said, &answer) else {
        return Ok(Err("who answers there does not know the job's secret"));
    };
    stream.write_all(&handshake::proof(&own.secret, &said, &answer))?;
    let mut verdict = [0];
    stream.read_exact(&mut verdict)?;
    Ok(match Verdict::of(verdict[0]) {
        Some(Verdict::Welcome) => Ok(id),
        Some(verdict) => Err(verdict.reason()),
        None => Err("it says what nobody understands"),
    })
}

/// Accepts until all that are expected are here.
fn accept(
    listener: &TcpListener,
    own: &Own<'_>,
    expected: &mut Accepted,
    deadline: Instant,
    patience: Duration,
) -> Result<(), ClusterError> {
    let Own { membership: own, tls } = own;
    let system = |source| ClusterError::System { process: own.process, source };
    listener.set_nonblocking(true).map_err(system)?;
    let mut knocking: VecDeque<Knocking> = VecDeque::new();
    loop {
        let Some(missing) = expected.iter().find(|(_, accepted)| accepted.is_none()).map(|((from, _), _)| *from) else { return Ok(()) };
        if Instant::now() >= deadline {
            return Err(ClusterError::Missing { process: own.process, missing, seconds: patience.as_secs() });
        }
        for _ in 0..MOST {
            // Whatever is wrong with one that knocks is not wrong with the next one.
            let Ok((stream, from)) = listener.accept() else { break };
            let Ok(stream) = stream.set_nonblocking(true).and_then(|()| Fresh::accepted(stream, tls.as_ref())) else { continue };
            if knocking.len() >= MOST
                && let Some(oldest) = knocking.pop_front()
            {
                oldest.dropped(own, "too many knock at the same time");
            }
            knocking.push_back(Knocking { stream, from, since: Instant::now(), got: Vec::new(), proving: None });
        }
        for mut one in std::mem::take(&mut knocking) {
            match one.step(own, expected) {
                Step::Waiting if one.since.elapsed() >= PATIENCE => one.dropped(own, "it has said nothing, or too little, for too long"),
                Step::Waiting => knocking.push_back(one),
                Step::Dropped(reason) => one.dropped(own, &reason),
                Step::Welcome(hello) => {
                    if let Some(place) = expected.get_mut(&(hello.from, hello.kind)) {
                        *place = Some((one.stream, hello.id));
                    }
                }
            }
        }
        thread::sleep(LOOK);
    }
}

/// A connection that has not proved itself.
struct Knocking {
    stream: Fresh,
    from: SocketAddr,
    since: Instant,
    /// What has come of the message that is next.
    got: Vec<u8>,
    /// Its hello, that with what binds it to the connection, and what was answered, once it has said hello.
    proving: Option<(Hello, Vec<u8>, Vec<u8>)>,
}

enum Step {
    Waiting,
    Dropped(String),
    Welcome(Hello),
}

impl Knocking {
    fn dropped(self, own: &Membership, reason: &str) {
        tracing::warn!(job = %own.job_id, process = own.process, from = %self.from, "a connection is dropped: {reason}");
    }

    /// Goes as far as what has come allows.
    fn step(&mut self, own: &Membership, expected: &Accepted) -> Step {
        loop {
            let wanted = if self.proving.is_none() { HELLO } else { PROOF };
            match self.read(wanted) {
                Ok(true) => {}
                Ok(false) => return Step::Waiting,
                Err(error) => return Step::Dropped(error.to_string()),
            }
            let got = std::mem::take(&mut self.got);
            let Some((hello, said, answer)) = self.proving.take() else {
                match self.greet(own, got) {
                    Ok(()) => continue,
                    Err(reason) => return Step::Dropped(reason),
                }
            };
            if !handshake::check_proof(&own.secret, &said, &answer, &got) {
                return Step::Dropped("it does not know the job's secret".to_owned());
            }
            let verdict = match hello.judge(own) {
                Verdict::Welcome if !matches!(expected.get(&(hello.from, hello.kind)), Some(None)) => Verdict::NotExpected,
                verdict => verdict,
            };
            if let Err(error) = self.stream.write_all(&[verdict as u8]) {
                return Step::Dropped(error.to_string());
            }
            return if verdict == Verdict::Welcome { Step::Welcome(hello) } else { Step::Dropped(verdict.reason().to_owned()) };
        }
    }

    /// Answers a hello.
    fn greet(&mut self, own: &Membership, said: Vec<u8>) -> Result<(), String> {
        let bytes: &[u8; HELLO] = said.as_slice().try_into().map_err(|_| "it has said too little")?;
        let hello = Hello::from_bytes(bytes)?;
        if !self.stream.may_be(hello.from) {
            return Err(format!("it says that it is process {}, and its certificate does not", hello.from));
        }
        let said = [said, self.stream.binding().map_err(|error| error.to_string())?].concat();
        let challenge: [u8; CHALLENGE] = random().map_err(|error| error.to_string())?;
        let answer = handshake::answer(&own.secret, &said, challenge);
        // It fits into any socket's buffer.
        self.stream.write_all(&answer).map_err(|error| error.to_string())?;
        self.proving = Some((hello, said, answer));
        Ok(())
    }

    /// Reads no more than the message that is next; whether all of it has come.
    fn read(&mut self, wanted: usize) -> io::Result<bool> {
        let mut buffer = [0; HELLO];
        while self.got.len() < wanted {
            match self.stream.read(&mut buffer[..wanted - self.got.len()]) {
                Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it has gone")),
                Ok(read) => self.got.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}
