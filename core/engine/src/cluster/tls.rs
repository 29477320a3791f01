//! TLS between the processes of a job, where [`super::Membership`] has an [`Identity`].
//!
//! Both ends have a certificate (mutual TLS 1.3, rustls' own verifiers, nothing of ours in between). It is of an authority that is made for one start of the job, signs one
//! certificate for each process and is forgotten, so there is nobody else whom it could have signed for, nothing to revoke and nothing to renew. A certificate says which
//! process it is for: who connects checks the name of the process it wants, who accepts that of the process that says hello.
//!
//! The other way would have been any certificate at all, with the job's secret alone to tell who has it (the proofs of `handshake`, bound to the session). It needs a verifier
//! that accepts everything, and a stranger would get as far as our own parser. Here it gets as far as TLS, and a cluster of several machines can bring certificates of its own.
//!
//! The handshake with the secret runs all the same, inside, and its proofs cover what both ends export from the session (`tls-exporter`, RFC 9266). So who has got hold of certificates,
//! or has others of the same authority, cannot stand in the middle and pass proofs on: those of one session are none of another.
//!
//! There are no tickets and no early data: a connection is made once, and what is heard once cannot be said again. The server's name is not sent in the clear.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    client::{Resumption, verify_server_name},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    version::TLS13,
};
use serde::{Deserialize, Serialize};
use std::{io, sync::Arc};

/// What is exported from a session to bind proofs to it.
const BINDING: &[u8] = b"EXPORTER-Channel-Binding";
const BINDING_BYTES: usize = 32;

/// With what a process shows over TLS which one of a job it is, and by what it knows the others. It is handed to a process over a private way, as the secret is, and not printed.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// The certificate of the authority, DER.
    authority: Vec<u8>,
    /// That of the process, DER.
    certificate: Vec<u8>,
    /// Its private key, PKCS #8.
    key: Vec<u8>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Identity(..)")
    }
}

/// The name of a process in its certificate.
fn name(process: u32) -> String {
    format!("process-{process}.standpipe.internal")
}

impl Identity {
    /// One for each of so many processes, of an authority that nobody can use again.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn of_processes(processes: u32) -> io::Result<Vec<Self>> {
        let mut authority = CertificateParams::default();
        authority.distinguished_name.push(DnType::CommonName, "a start of a job");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority =
            CertifiedIssuer::self_signed(authority, KeyPair::generate().map_err(io::Error::other)?).map_err(io::Error::other)?;
        let one = |process| {
            let mut own = CertificateParams::new([name(process)])?;
            own.distinguished_name.push(DnType::CommonName, name(process));
            own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate()?;
            let certificate = own.signed_by(&key, &authority)?.der().to_vec();
            Ok::<_, rcgen::Error>(Self { authority: authority.der().to_vec(), certificate, key: key.serialize_der() })
        };
        (0..processes).map(|process| one(process).map_err(io::Error::other)).collect()
    }
}

/// An [`Identity`], ready for both ends of a connection.
pub(super) struct Tls {
    connects: Arc<ClientConfig>,
    accepts: Arc<ServerConfig>,
}

impl Tls {
    /// # Errors
    /// When it is none: its certificate or key cannot be read, or they do not belong together.
    pub(super) fn of(identity: &Identity) -> io::Result<Self> {
        let wrong = |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidInput, format!("its TLS cannot be used: {error}"));
        let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(identity.authority.clone())).map_err(|error| wrong(&error))?;
        let roots = Arc::new(roots);
        let certificate = vec![CertificateDer::from(identity.certificate.clone())];
        let key = || PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(identity.key.clone()));
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider)).build();
        let verifier = verifier.map_err(|error| wrong(&error))?;
        let accepts = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let accepts = accepts.and_then(|config| config.with_client_cert_verifier(verifier).with_single_cert(certificate.clone(), key()));
        let mut accepts = accepts.map_err(|error| wrong(&error))?;
        accepts.send_tls13_tickets = 0;
        accepts.session_storage = Arc::new(NoServerSessionStorage {});
        let connects = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let connects = connects.and_then(|config| config.with_root_certificates(roots).with_client_auth_cert(certificate, key()));
        let mut connects = connects.map_err(|error| wrong(&error))?;
        connects.resumption = Resumption::disabled();
        connects.enable_sni = false;
        Ok(Self { connects: Arc::new(connects), accepts: Arc::new(accepts) })
    }

    /// The end that connects to a process.
    pub(super) fn connects(&self, to: u32) -> io::Result<Connection> {
        let name = ServerName::try_from(name(to)).map_err(io::Error::other)?;
        ClientConnection::new(Arc::clone(&self.connects), name).map(Connection::Client).map_err(io::Error::other)
    }

    /// The end that accepts.
    pub(super) fn accepts(&self) -> io::Result<Connection> {
        ServerConnection::new(Arc::clone(&self.accepts)).map(Connection::Server).map_err(io::Error::other)
    }
}

/// Whether the certificate of the other end, which has been verified, is for that process.
pub(super) fn is_of(session: &Connection, process: u32) -> bool {
    let Some(certificate) = session.peer_certificates().and_then(<[_]>::first) else { return false };
    let (Ok(certificate), Ok(name)) = (ParsedCertificate::try_from(certificate), ServerName::try_from(name(process))) else { return false };
    verify_server_name(&certificate, &name).is_ok()
}

/// What only the two ends of a session know.
///
/// # Errors
/// While its handshake lasts.
pub(super) fn binding(session: &Connection) -> io::Result<Vec<u8>> {
    session.export_keying_material(vec![0; BINDING_BYTES], BINDING, None).map_err(io::Error::other)
}
