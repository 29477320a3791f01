//! TLS between the processes of a job: nothing is read on the way, and whoever has not all that makes one of them gets nowhere, in the middle or at the door.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
    version::TLS13,
};
use serde_json::json;
use standpipe_engine::{Cluster, ClusterError, Identity, Membership, RunOptions, Secret};
use standpipe_pipeline::plan::Plan;
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::Duration,
};
use support::{
    over::{JOINING, Talk, clusters_by, listeners, memberships, start_in},
    plan::{Builder, config},
    plugins::Probe,
    proxy,
};

/// How long a process looks in vain for one that there is not.
const VAIN: Duration = Duration::from_secs(2);

fn rows(name: &str) -> Plan {
    let mut plan = Builder::new();
    let source = plan.numbers("numbers", 2, config(name, json!({"splits": 2, "rows": 20_000})));
    let pass = plan.pass("pass", 2, source, json!({}), true);
    plan.collect("out", 2, pass, config(name, json!({})));
    plan.build()
}

/// A part of an identity, as a thief would have it.
fn part(identity: &Identity, name: &str) -> Vec<u8> {
    serde_json::from_value(serde_json::to_value(identity).unwrap()[name].clone()).unwrap()
}

fn chain(identity: &Identity) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    (vec![part(identity, "certificate").into()], PrivatePkcs8KeyDer::from(part(identity, "key")).into())
}

fn roots(identity: &Identity) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(part(identity, "authority").into()).unwrap();
    Arc::new(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// To a process, with the certificate of another one or none.
fn client(tcp: TcpStream, knows: &Identity, to: u32, own: Option<&Identity>) -> StreamOwned<ClientConnection, TcpStream> {
    let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let config = config.with_root_certificates(roots(knows));
    let config = match own.map(chain) {
        Some((chain, key)) => config.with_client_auth_cert(chain, key).unwrap(),
        None => config.with_no_client_auth(),
    };
    let name = format!("process-{to}.standpipe.internal").try_into().unwrap();
    StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), tcp)
}

fn server(tcp: TcpStream, own: &Identity) -> StreamOwned<ServerConnection, TcpStream> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(own), provider()).allow_unauthenticated().build().unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13]).unwrap();
    let (chain, key) = chain(own);
    let config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap();
    StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), tcp)
}

type Joining = JoinHandle<Result<Cluster, ClusterError>>;

/// The first of two processes listens, for so long.
fn first(plan: &Plan, talk: Talk, patience: Duration) -> (Joining, Vec<SocketAddr>, Vec<Membership>) {
    let (mut listeners, addresses) = listeners(2);
    let own = memberships(plan, 2, talk);
    let (listener, told, first) = (listeners.remove(0), addresses.clone(), own[0].clone());
    (thread::spawn(move || Cluster::join(listener, &told, &first, patience)), addresses, own)
}

/// The second one comes to an address.
fn second(address: SocketAddr, own: &Membership, patience: Duration) -> Result<Cluster, ClusterError> {
    let (mut listeners, mut addresses) = listeners(2);
    addresses[0] = address;
    Cluster::join(listeners.remove(1), &addresses, own, patience)
}

/// Why it does not get there.
fn refused(address: SocketAddr, own: &Membership) -> String {
    second(address, own, VAIN).unwrap_err().to_string()
}

fn contains(heard: &Mutex<Vec<u8>>, text: &str) -> bool {
    let heard = heard.lock().unwrap();
    heard.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn what_goes_between_processes_is_not_read_on_the_way() {
    for talk in [Talk::Clear, Talk::Tls] {
        let name = format!("tls-heard-{talk:?}");
        let plan = Arc::new(rows(&name));
        let mut heard = None;
        let clusters = clusters_by(&plan, 2, talk, |mut addresses| {
            let (address, kept) = proxy::recording(addresses[0]);
            heard = Some(kept);
            addresses[0] = address;
            addresses
        });
        let job = start_in(&plan, clusters, &[1, 1], &RunOptions::new());
        assert_eq!(job.ended().unwrap().totals.rows_out, 40_000);
        let heard = heard.unwrap();
        assert!(heard.lock().unwrap().len() > 100_000, "half of the rows go through it");
        for text in ["key-7", "Numbers", "standpip", "process-0"] {
            assert_eq!(contains(&heard, text), talk == Talk::Clear && text != "process-0", "{text} in {talk:?}");
        }
        assert_eq!(Probe::of(&name).row_count("out"), 40_000);
    }
}

#[test]
fn who_has_not_all_that_makes_a_process_of_the_job_gets_nowhere() {
    let plan = rows("tls-strangers");
    let (joining, addresses, own) = first(&plan, Talk::Tls, JOINING);
    let (at, own) = (addresses[0], &own[1]);
    let missing = "process 1 has waited 2 s in vain for process 0";
    // In the clear.
    assert_eq!(refused(at, &Membership { tls: None, ..own.clone() }), missing);
    // A certificate of an authority of its own.
    let others = Identity::of_processes(2).unwrap();
    let said = refused(at, &Membership { tls: Some(others[1].clone()), ..own.clone() });
    assert!(said.starts_with("process 1 is refused by process 0: its TLS is not that of this job: invalid peer certificate: "), "{said}");
    // It asks no questions, and shows that certificate, or none.
    let identity = own.tls.as_ref().unwrap();
    for (shown, alert) in [(None, "CertificateRequired"), (Some(&others[1]), "UnknownCA")] {
        let mut stranger = client(TcpStream::connect(at).unwrap(), identity, 0, shown);
        _ = stranger.write_all(b"standpip");
        let mut heard = Vec::new();
        let error = stranger.read_to_end(&mut heard).unwrap_err().to_string();
        assert!(heard.is_empty(), "{heard:?}");
        // The curve's signature of another authority of the same name, or an authority that is not known.
        assert!(error.contains(alert) || shown.is_some() && error.contains("DecryptError"), "{error}");
    }
    // All but the secret.
    let said = refused(at, &Membership { secret: Secret::random().unwrap(), ..own.clone() });
    assert_eq!(said, "process 1 is refused by process 0: who answers there does not know the job's secret");
    // Something else than a certificate.
    let broken: Identity = serde_json::from_value(json!({"authority": [], "certificate": [1], "key": [2]})).unwrap();
    let said = refused(at, &Membership { tls: Some(broken), ..own.clone() });
    assert!(said.starts_with("process 1 cannot find the others: its TLS cannot be used: "), "{said}");
    // After all of them the right one.
    second(at, own, JOINING).unwrap();
    joining.join().unwrap().unwrap();
}

#[test]
fn one_process_is_not_taken_for_another() {
    let plan = rows("tls-other");
    let (joining, addresses, own) = first(&plan, Talk::Tls, JOINING);
    let as_first = Membership { tls: own[0].tls.clone(), ..own[1].clone() };
    assert_eq!(refused(addresses[0], &as_first), "process 1 has waited 2 s in vain for process 0");
    second(addresses[0], &own[1], JOINING).unwrap();
    joining.join().unwrap().unwrap();
    // And who connects does not take any process of the job for the one that it wants.
    let (joining, addresses, own) = first(&plan, Talk::Tls, VAIN);
    let second_of = own[1].tls.clone().unwrap();
    let address = proxy::between(addresses[0], move |from, _| {
        _ = server(from, &second_of).read(&mut [0]);
    });
    let said = refused(address, &own[1]);
    assert!(
        said.contains("refused by process 0: its TLS is not that of this job: invalid peer certificate: certificate not valid for name"),
        "{said}"
    );
    joining.join().unwrap().unwrap_err();
}

#[test]
fn a_process_that_speaks_tls_does_not_reach_one_that_does_not() {
    let plan = rows("tls-none");
    let (joining, addresses, own) = first(&plan, Talk::Clear, JOINING);
    let tls = memberships(&plan, 2, Talk::Tls)[1].tls.clone();
    assert_eq!(refused(addresses[0], &Membership { tls, ..own[1].clone() }), "process 1 has waited 2 s in vain for process 0");
    second(addresses[0], &own[1], JOINING).unwrap();
    joining.join().unwrap().unwrap();
}

/// Ends TLS on both sides, passes on what is said in the handshake, and keeps what it hears.
fn middleman(to: SocketAddr, shows: [Identity; 2], knows: Identity) -> (SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heard);
    let address = proxy::between(to, move |from, to| {
        let mut from = server(from, &shows[0]);
        let mut to = client(to, &knows, 0, Some(&shows[1]));
        let mut message = vec![0; 112];
        let mut talk = || {
            from.read_exact(&mut message)?;
            kept.lock().unwrap().extend_from_slice(&message);
            to.write_all(&message)?;
            message.resize(68, 0);
            to.read_exact(&mut message)?;
            kept.lock().unwrap().extend_from_slice(&message);
            from.write_all(&message)?;
            message.resize(32, 0);
            from.read_exact(&mut message)?;
            kept.lock().unwrap().extend_from_slice(&message);
            to.write_all(&message)
        };
        _ = talk();
    });
    (address, heard)
}

#[test]
fn one_in_the_middle_is_found_out() {
    let plan = rows("tls-middle");
    // With certificates of its own it hears nothing.
    let (joining, addresses, own) = first(&plan, Talk::Tls, JOINING);
    let mut others = Identity::of_processes(2).unwrap();
    let (theirs, its) = (others.remove(1), others.remove(0));
    let (address, heard) = middleman(addresses[0], [its.clone(), theirs], own[1].tls.clone().unwrap());
    let said = refused(address, &own[1]);
    assert!(said.contains("its TLS is not that of this job: invalid peer certificate: "), "{said}");
    assert!(heard.lock().unwrap().is_empty());
    // With those of both processes, stolen, it hears who they are and passes on their proofs; they are of another session.
    let stolen = [own[0].tls.clone().unwrap(), own[1].tls.clone().unwrap()];
    let (address, heard) = middleman(addresses[0], stolen, own[1].tls.clone().unwrap());
    let said = refused(address, &own[1]);
    assert_eq!(said, "process 1 is refused by process 0: who answers there does not know the job's secret");
    assert_eq!(heard.lock().unwrap().len(), 112 + 68, "the process that connects proves nothing");
    second(addresses[0], &own[1], JOINING).unwrap();
    joining.join().unwrap().unwrap();
}

/// Passes on whole records of TLS, but for the one that says that nothing follows: an alert of two bytes, a byte of its type, 16 of its tag.
fn but_for_the_end(mut from: TcpStream, mut to: TcpStream) {
    let mut header = [0; 5];
    while from.read_exact(&mut header).is_ok() {
        let mut record = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        if from.read_exact(&mut record).is_err() || header[0] == 23 && record.len() == 19 {
            break;
        }
        if to.write_all(&header).and_then(|()| to.write_all(&record)).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Write);
}

#[test]
fn an_end_that_is_cut_off_is_none() {
    let plan = Arc::new(rows("tls-cut"));
    let clusters = clusters_by(&plan, 2, Talk::Tls, |mut addresses| {
        addresses[0] = proxy::between(addresses[0], |a, b| proxy::both_ways(&a, &b, but_for_the_end));
        addresses
    });
    let job = start_in(&plan, clusters, &[1, 1], &RunOptions::new());
    let error = job.ended().unwrap_err().to_string();
    assert!(
        error == "the connection to process 1 is broken: it has been cut off"
            || error == "the connection to process 0 is broken: it has been cut off",
        "{error}"
    );
    assert_eq!(Probe::of("tls-cut").row_count("out"), 40_000, "all rows were there before");
}
