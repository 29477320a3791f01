//! TLS on the manager's port: its certificate and key for those who listen, and for those who ask the authority by which they know it. TLS 1.2 and 1.3, rustls' own verifiers.

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// What a file of certificates or keys may have, in bytes.
const LONGEST: u64 = 4 << 20;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is none.
    #[error("{path}: expected {wanted} in PEM: {reason}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What should be there.
        wanted: &'static str,
        /// What is wrong.
        reason: String,
    },
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > LONGEST {
        return Err(TlsError::Content { path: path.to_owned(), wanted: "certificates or a key", reason: "it is too long".to_owned() });
    }
    fs::read(path).map_err(failed)
}

/// For a manager that listens: its certificate, with those between it and its authority, and its key.
///
/// # Errors
/// When a file cannot be read, or the key is not that of the certificate.
pub fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &Path, wanted| {
        let path = path.to_owned();
        move |reason: String| TlsError::Content { path, wanted, reason }
    };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&read(certificate)?).collect();
    let chain = chain.map_err(|error| wrong(certificate, "certificates")(error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "certificates")("there is none".to_owned()));
    }
    let own = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| wrong(key, "a private key")(error.to_string()))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions();
    let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, own));
    let mut config = config.map_err(|error| wrong(key, "the key of the certificate")(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// For whoever asks a manager: the authorities of that file, and no other; without one, those that everybody knows.
///
/// # Errors
/// When the file cannot be read or has no certificate in it.
pub fn client(authority: Option<&Path>) -> Result<TlsConfig, TlsError> {
    let Some(path) = authority else { return Ok(TlsConfig::default()) };
    let wrong = |reason: String| TlsError::Content { path: path.to_owned(), wanted: "certificates", reason };
    let mut known: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            known.push(certificate);
        }
    }
    if known.is_empty() {
        return Err(wrong("there is none".to_owned()));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&known)).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let error = client(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("No such file"), "{error}");
        for text in ["", "nothing", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, text).unwrap();
            let (of_client, of_server) = (client(Some(&path)).unwrap_err(), server(&path, &path).unwrap_err());
            assert!(
                matches!(of_client, TlsError::Content { .. }) && matches!(of_server, TlsError::Content { .. }),
                "{text}: {of_client} {of_server}"
            );
        }
        client(None).unwrap();
    }
}
