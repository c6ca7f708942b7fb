//! rustls configurations: TLS 1.2 or later, ring, always verified.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::files::{Files, Identity, TlsError};

/// For a client: the server must be of the CA file's CAs (or the machine's), and gets our
/// certificate when it asks for one.
pub fn client(files: &Files) -> Result<ClientConfig, TlsError> {
    let builder = client_builder(files.roots()?);
    match files.identity()? {
        Some(Identity { chain, key }) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| unfit(files, &error))
        }
        None => Ok(builder.with_no_client_auth()),
    }
}

/// For a client that speaks no TLS at all, where a library wants a configuration: it trusts nobody,
/// and reads no files.
pub fn plain() -> ClientConfig {
    client_builder(RootCertStore::empty()).with_no_client_auth()
}

/// For a server. With a CA file, only clients with a certificate of one of its CAs get in.
pub fn server(files: &Files) -> Result<ServerConfig, TlsError> {
    let identity = files.identity()?;
    let Identity { chain, key } = identity.ok_or_else(|| {
        TlsError("a TLS server needs a certificate and a key; name both files".to_string())
    })?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    let builder = match &files.ca {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(files.roots()?), provider())
                    .build();
            let verifier =
                verifier.map_err(|error| TlsError(format!("{}: {error}", ca.display())))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unfit(files, &error))?;
    // A resumed session would skip the look at the client's certificate, which may have expired
    // since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn client_builder(
    roots: RootCertStore,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has them");
    builder.with_root_certificates(roots)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn unfit(files: &Files, error: &rustls::Error) -> TlsError {
    let (cert, key) =
        (files.cert.as_deref().unwrap_or("".as_ref()), files.key.as_deref().unwrap_or("".as_ref()));
    TlsError(match error {
        rustls::Error::InconsistentKeys(_) => {
            format!(
                "{} is not the key of {}; name the two that were made together",
                key.display(),
                cert.display()
            )
        }
        error => format!("{} with {}: cannot be used: {error}", cert.display(), key.display()),
    })
}
