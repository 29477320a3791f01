//! The way to the manager's port: a listener on this machine, whose connections go through the API server into the manager's pod. Each connection finds the pod anew, so that one
//! that is replaced meanwhile is reached all the same. Who connects still needs the job's token, and is spoken to over TLS from end to end.

use crate::{
    cluster::{Asking, Shared},
    manifests::{MANAGER, Names, REST_PORT},
    trouble,
};
use standpipe_sdk::{Error, Result};
use std::{
    io,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Until the port of a pod is reached.
const REACH: Duration = Duration::from_secs(15);

/// After a connection that could not be taken.
const AGAIN: Duration = Duration::from_millis(100);
/// Until it is said why a connection has ended.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Why the last connection came to nothing.
type Trouble = Arc<Mutex<Option<String>>>;

/// See the module's documentation. It ends with this.
pub(crate) struct Forward {
    port: u16,
    trouble: Trouble,
    task: JoinHandle<()>,
}

impl Forward {
    /// Listens; connects to nobody yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub(crate) fn open(asking: &Asking, cluster: &Shared, names: &Names) -> Result<Self> {
        let failed = |error: io::Error| Error::external(format!("a port of this machine: {error}"));
        let listener = asking.wait_for_all(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let trouble = Trouble::default();
        let task = asking.handle().spawn(listen(listener, Arc::clone(cluster), names.clone(), Arc::clone(&trouble)));
        Ok(Self { port, trouble, task })
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Says why the last connection came to nothing.
    pub(crate) fn why(&self) -> impl Fn() -> Option<String> + Send + Sync + 'static {
        let trouble = Arc::clone(&self.trouble);
        move || trouble.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn listen(listener: TcpListener, cluster: Shared, names: Names, trouble: Trouble) {
    loop {
        let Ok((mut connection, _)) = listener.accept().await else {
            // It has no files left for now, or whoever connected is gone already: the next one may fare better.
            sleep(AGAIN).await;
            continue;
        };
        let (cluster, names, trouble) = (Arc::clone(&cluster), names.clone(), Arc::clone(&trouble));
        tokio::spawn(async move {
            // Whoever sees the connection end asks why at once.
            if let Err(why) = connect(&mut connection, &cluster, &names).await {
                *trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
            }
            drop(connection);
        });
    }
}

/// Passes one connection on, until either side ends it.
async fn connect(connection: &mut TcpStream, cluster: &Shared, names: &Names) -> std::result::Result<(), String> {
    let late = |_| format!("the API server at {} does not reach the pod within {} s", cluster.server, REACH.as_secs());
    let pods = timeout(REACH, cluster.pods(names, MANAGER)).await.map_err(late)?.map_err(|error| error.message)?;
    let pod = pods.iter().find(|pod| trouble::runs(pod, MANAGER)).ok_or_else(|| "no pod of it runs".to_owned())?;
    let pod = trouble::name(pod).to_owned();
    let mut forwarder = timeout(REACH, cluster.forward(&pod, REST_PORT)).await.map_err(late)?.map_err(|error| error.message)?;
    let error = forwarder.take_error(REST_PORT);
    let stream = forwarder.take_stream(REST_PORT).ok_or_else(|| format!("pod {pod} gives no port {REST_PORT}"))?;
    let (mut from_here, mut to_here) = connection.split();
    let (mut from_pod, mut to_pod) = split(stream);
    let mut passed = 0;
    tokio::select! {
        _ = copy(&mut from_here, &mut to_pod) => {}
        () = async { passed = pass(&mut from_pod, &mut to_here).await; } => {}
    }
    // Either side has ended; what the pod has not heard of, it hears now.
    drop(to_pod.shutdown().await);
    let said = match error {
        Some(error) if passed == 0 => timeout(LAST_WORD, error).await.ok().flatten(),
        _ => None,
    };
    forwarder.abort();
    match said {
        Some(said) => Err(format!("pod {pod}: {}", said.trim())),
        None => Ok(()),
    }
}

/// Passes on what comes; how many bytes.
async fn pass(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin)) -> u64 {
    copy(from, to).await.unwrap_or(0)
}
