//! A session cluster over TLS: the manager shows a certificate, task managers and users know it by its authority, and the token keeps others out. On another address than loopback nothing
//! listens without a token, unless that is meant.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use base64::{Engine, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use standpipe_tests::{Folder, Running, free_port, standpipe};
use std::{os::unix::fs::PermissionsExt, time::Duration};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

const PATIENCE: Duration = Duration::from_secs(90);
const TOKEN: &str = "0123456789abcdef-secret";

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", BASE64_STANDARD.encode(der))
}

/// Files `ca.pem`, `cert.pem` and `key.pem`: an authority, and a certificate for this machine by it.
fn certificates(folder: &Folder) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    folder.write("ca.pem", pem("CERTIFICATE", authority.der()));
    folder.write("cert.pem", pem("CERTIFICATE", own.der()));
    folder.write("key.pem", pem("PRIVATE KEY", &key.serialize_der()));
    let token = folder.write("token", TOKEN);
    std::fs::set_permissions(token, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn manager(folder: &Folder, bind: &str, arguments: &[&str]) -> Running {
    let mut run = standpipe(["jobmanager", "--bind", bind, "--data", "manager"]).args(arguments).in_directory(folder.path());
    run = run.timeout(4 * PATIENCE);
    let mut run = run.start();
    run.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http"));
    run
}

#[test]
fn manager_task_manager_and_users_speak_tls_and_know_each_other() {
    let (folder, other, port) = (Folder::new(), Folder::new(), free_port());
    certificates(&folder);
    certificates(&other);
    let bind = format!("127.0.0.1:{port}");
    let manager = manager(&folder, &bind, &["--tls-cert", "cert.pem", "--tls-key", "key.pem", "--token-file", "token"]);
    assert!(manager.stderr().contains(&format!("job manager: https://{bind}")), "{}", manager.stderr());
    let url = format!("https://{bind}");
    let task_manager = |arguments: &[&str]| {
        let run = standpipe(["taskmanager", "--slots", "1", "--jobmanager", &url, "--data", "worker", "--log-level", "info"]);
        run.args(["--token-file", "token"]).args(arguments).in_directory(folder.path()).timeout(4 * PATIENCE)
    };
    let mut running = task_manager(&["--ca-file", "ca.pem"]).start();
    running.wait_until("the task manager", PATIENCE, |run| run.stderr().contains("slots are with the job manager"));
    let list = |arguments: &[&str]| {
        standpipe(["job", "list", "--jobmanager", &url]).args(arguments).in_directory(folder.path()).timeout(PATIENCE).finish()
    };
    assert!(list(&["--ca-file", "ca.pem", "--token-file", "token"]).code(0).stdout.contains("STATE"));
    // Without the token, of another authority, in the clear.
    let error = list(&["--ca-file", "ca.pem"]).one_error(2);
    assert!(error.contains("Authorization: Bearer TOKEN"), "{error}");
    let foreign = other.at("ca.pem");
    let error = list(&["--ca-file", foreign.to_str().unwrap(), "--token-file", "token"]).one_error(3);
    assert!(error.contains("no job manager answers at https://"), "{error}");
    assert!(list(&["--token-file", "token"]).code(3).stderr.contains("no job manager answers"));
    assert!(ureq::get(format!("http://{bind}/overview")).call().is_err());
    let ca = std::fs::read(folder.at("ca.pem")).unwrap();
    let roots = RootCerts::new_with_certs(&[Certificate::from_pem(&ca).unwrap()]);
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(TlsConfig::builder().root_certs(roots).build()).build().into();
    let overview = agent.get(format!("https://localhost:{port}/v1/overview")).header("Authorization", format!("Bearer {TOKEN}")).call();
    let overview: serde_json::Value = serde_json::from_str(&overview.unwrap().body_mut().read_to_string().unwrap()).unwrap();
    assert_eq!(overview["taskmanagers"], 1);
    // What cannot be used is said before anything runs.
    let refused = standpipe(["jobmanager", "--bind", "127.0.0.1:0", "--data", "x", "--tls-cert", "cert.pem", "--tls-key"]);
    let refused = refused.args([other.at("key.pem")]).in_directory(folder.path()).finish().one_error(2);
    assert!(refused.contains("key.pem: expected the key of the certificate"), "{refused}");
    let refused = task_manager(&["--ca-file", "key.pem"]).finish().code(2);
    assert!(refused.stderr.contains("key.pem: expected certificates in PEM"), "{}", refused.stderr);
}

#[test]
fn without_a_token_only_who_asks_for_it_listens_to_others_and_jobs_come_from_this_machine() {
    let (folder, port) = (Folder::new(), free_port());
    let bind = format!("0.0.0.0:{port}");
    let refused = standpipe(["jobmanager", "--bind", &bind, "--data", "manager"]).in_directory(folder.path()).finish().one_error(2);
    assert!(refused.contains("give --token-file") && refused.contains("--open"), "{refused}");
    let manager = manager(&folder, &bind, &["--open"]);
    assert!(manager.stderr().contains("warning: whoever reaches it"), "{}", manager.stderr());
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().into();
    // By an address that is not loopback, where there is one: everybody looks, nobody submits.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let own = socket.connect("192.0.2.1:9").ok().and_then(|()| socket.local_addr().ok()).map(|address| address.ip());
    for address in [Some(std::net::IpAddr::from([127, 0, 0, 1])), own.filter(|own| !own.is_loopback())].into_iter().flatten() {
        let url = format!("http://{address}:{port}");
        assert_eq!(agent.get(format!("{url}/overview")).call().unwrap().status(), 200);
        let expected = if address.is_loopback() { 400 } else { 403 };
        assert_eq!(agent.post(format!("{url}/v1/jobs")).send("{}").unwrap().status(), expected, "{address}");
        // A page in a browser that has found a name for this machine is not from here.
        let foreign = agent.post(format!("{url}/v1/jobs")).header("Host", "evil.example").send("{}").unwrap();
        assert_eq!(foreign.status(), 403, "{address}");
    }
}
