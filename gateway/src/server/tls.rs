//! The server's side of TLS.

use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::config;

/// `None` when no certificate is configured. What is wrong comes with the field at fault.
pub(super) fn acceptor(
    server: &config::ServerConfig,
) -> Result<Option<TlsAcceptor>, (&'static str, String)> {
    let (Some(cert), Some(key)) = (&server.tls_cert, &server.tls_key) else {
        return Ok(None);
    };
    let chain = certificates(cert).map_err(|why| ("tls_cert", why))?;
    let key = private_key(key).map_err(|why| ("tls_key", why))?;
    // Named explicitly: a process-wide default would panic if two crates set it.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| ("tls_cert", format!("{}: {error}", cert.display())))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// All that is wrong with the files of certificate and key, by field.
pub(crate) fn problems(server: &config::ServerConfig) -> Vec<(&'static str, String)> {
    let (Some(cert), Some(key)) = (&server.tls_cert, &server.tls_key) else {
        return Vec::new();
    };
    let found = [
        certificates(cert).err().map(|why| ("tls_cert", why)),
        private_key(key).err().map(|why| ("tls_key", why)),
    ];
    let found: Vec<_> = found.into_iter().flatten().collect();
    match found.is_empty() {
        // Whether they belong together.
        true => acceptor(server).err().into_iter().collect(),
        false => found,
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("{}: {error}; expected a PEM private key", path.display()))
}

/// All certificates of a PEM file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("{}: {error}; expected PEM certificates", path.display())
    };
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"no certificate found"));
    }
    Ok(chain)
}
