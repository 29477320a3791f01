//! The secrets of one job: the token that its manager wants, and a certificate of an authority that nobody can use again. They are made where the job is deployed and are in its
//! Secret alone: never in a handle, a log or a preview.

use crate::manifests::Names;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
use ring::rand::{SecureRandom, SystemRandom};
use standpipe_sdk::{Error, Result};
use std::fmt;

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Instead of a secret, where one is only to be looked at.
pub(crate) const PLACEHOLDER: &str = "made-at-deploy";

/// See the module's documentation.
pub(crate) struct Secrets {
    pub(crate) token: String,
    /// The authority's certificate, PEM.
    pub(crate) authority: String,
    /// The manager's, PEM.
    pub(crate) certificate: String,
    /// Its private key, PEM.
    pub(crate) key: String,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// New ones.
    ///
    /// # Errors
    /// When this machine has no random numbers.
    pub(crate) fn make(names: &Names) -> Result<Self> {
        let mut bytes = [0_u8; TOKEN_BYTES];
        SystemRandom::new().fill(&mut bytes).map_err(|_| Error::external("this machine has no random numbers"))?;
        let (authority, certificate, key) =
            certificate(names).map_err(|error| Error::external(format!("the job's certificate: {error}")))?;
        Ok(Self { token: URL_SAFE_NO_PAD.encode(bytes), authority, certificate, key })
    }

    /// What a preview shows.
    pub(crate) fn placeholders() -> Self {
        let text = || PLACEHOLDER.to_owned();
        Self { token: text(), authority: text(), certificate: text(), key: text() }
    }
}

/// The authority, the manager's certificate for every name that it is reached by, and its key.
fn certificate(names: &Names) -> std::result::Result<(String, String, String), rcgen::Error> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, format!("{} authority", names.id));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut own = CertificateParams::new(names.manager_hosts())?;
    own.distinguished_name.push(DnType::CommonName, names.id.clone());
    own.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = own.signed_by(&key, &authority)?;
    Ok((authority.pem(), certificate.pem(), key.serialize_pem()))
}

/// Lower-case letters and digits that nobody else has.
///
/// # Errors
/// When this machine has no random numbers.
pub(crate) fn random_word(characters: usize) -> Result<String> {
    const ALPHABET: [char; 32] = [
        'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j', 'k', 'm', 'n', 'p', 'q', 'r', 's', 't', 'u', 'v', 'w', 'x', 'y', 'z', '2', '3',
        '4', '5', '6', '7', '8', '9',
    ];
    let mut bytes = vec![0_u8; characters];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::external("this machine has no random numbers"))?;
    Ok(bytes.iter().map(|byte| ALPHABET[usize::from(byte % 32)]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{
        RootCertStore,
        client::{WebPkiServerVerifier, danger::ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
    };
    use std::{collections::BTreeSet, sync::Arc};

    #[test]
    fn the_manager_is_known_by_every_name_that_it_is_reached_by() {
        let names = Names { id: "job-1".to_owned(), namespace: "streams".to_owned(), jobid: String::new() };
        let (one, other) = (Secrets::make(&names).unwrap(), Secrets::make(&names).unwrap());
        assert!(one.token.len() >= 43 && one.token != other.token);
        let verifier = |secrets: &Secrets| {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(secrets.authority.as_bytes()).unwrap()).unwrap();
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build().unwrap()
        };
        let certificate = CertificateDer::from_pem_slice(one.certificate.as_bytes()).unwrap();
        let is_known = |secrets: &Secrets, name: &str| {
            let name = ServerName::try_from(name.to_owned()).unwrap();
            verifier(secrets).verify_server_cert(&certificate, &[], &name, &[], UnixTime::now()).is_ok()
        };
        for name in ["job-1", "job-1.streams", "job-1.streams.svc", "job-1.streams.svc.cluster.local", "localhost", "127.0.0.1"] {
            assert!(is_known(&one, name), "{name}");
        }
        assert!(!is_known(&one, "other.streams.svc"));
        assert!(!is_known(&other, "job-1"), "another job's authority");
    }

    #[test]
    fn words_are_random() {
        let words: BTreeSet<String> = (0..100).map(|_| random_word(6).unwrap()).collect();
        assert!(words.len() > 95 && words.iter().all(|word| word.len() == 6 && crate::names::label_name(word).is_ok()), "{words:?}");
    }
}
