//! PEM files: what is in them, and whether they will do.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::explain::date;

/// What is wrong with a certificate, a key or a CA: the file, the problem, the next move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub(crate) String);

impl TlsError {
    /// One found elsewhere; `problem` names the file.
    pub fn new(problem: String) -> TlsError {
        TlsError(problem)
    }
}

/// Which files a configuration names. All may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The CAs that the other side's certificate must be from. For a client, none means those that
    /// the machine trusts; for a server, that anybody may come.
    pub ca: Option<PathBuf>,
    /// Our certificate, followed by its intermediates.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Identity {
    /// The certificate, then its intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key.
    pub key: PrivateKeyDer<'static>,
}

impl Files {
    /// Whether none is named.
    pub fn is_empty(&self) -> bool {
        *self == Files::default()
    }

    /// The files that are named.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().map(PathBuf::as_path)
    }

    /// The CAs of the CA file; without one, those that the machine trusts.
    pub fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let Some(path) = &self.ca else {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
            return match roots.is_empty() {
                true => Err(TlsError(
                    "this machine trusts no CA (install ca-certificates), and no CA file is \
                        named; name one"
                        .to_string(),
                )),
                false => Ok(roots),
            };
        };
        for certificate in certificates(path)? {
            roots.add(certificate).map_err(|error| {
                TlsError(format!("{}: not a usable CA certificate: {error}", path.display()))
            })?;
        }
        Ok(roots)
    }

    /// Our certificate and key, if they are named.
    pub fn identity(&self) -> Result<Option<Identity>, TlsError> {
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                Ok(Some(Identity { chain: certificates(cert)?, key: private_key(key)? }))
            }
            (Some(cert), None) => Err(TlsError(format!(
                "{}: a certificate without its key; name the key file, too",
                cert.display()
            ))),
            (None, Some(key)) => Err(TlsError(format!(
                "{}: a key without its certificate; name the certificate file, too",
                key.display()
            ))),
            (None, None) => Ok(None),
        }
    }

    /// What the other side will not like about our certificate: that it has expired, or is from
    /// another CA than the CA file's. It can be served all the same, so this is a warning.
    pub fn doubts(&self) -> Option<String> {
        let identity = self.identity().ok()??;
        let path = self.cert.as_ref()?.display();
        let (leaf, intermediates) = identity.chain.split_first()?;
        let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
        // webpki looks at the validity before it looks for the issuer, so no roots at all do for
        // that.
        let roots = self.ca.as_ref().and_then(|_| self.roots().ok());
        let anchors = roots.as_ref().map_or(&[][..], |roots| &roots.roots[..]);
        let purpose = webpki::KeyUsage::client_auth();
        let now = UnixTime::now();
        let verified = leaf
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                anchors,
                intermediates,
                now,
                purpose,
                None,
                None,
            )
            .map(drop);
        match verified {
            Err(webpki::Error::CertExpired { not_after, .. }) => {
                Some(format!("{path}: the certificate expired on {}; renew it", date(not_after)))
            }
            Err(webpki::Error::CertNotValidYet { not_before, .. }) => Some(format!(
                "{path}: the certificate is not valid before {}; is the clock right?",
                date(not_before)
            )),
            Err(webpki::Error::UnknownIssuer) => self.ca.as_ref().map(|ca| {
                format!(
                    "{path}: the certificate is not from a CA in {}; other machines will refuse it",
                    ca.display()
                )
            }),
            Err(webpki::Error::RequiredEkuNotFoundContext(_)) => Some(format!(
                "{path}: the certificate is for servers only; other machines will refuse it as a \
                    client's: issue it for clientAuth, too"
            )),
            _ => None,
        }
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found =
        CertificateDer::pem_file_iter(path).and_then(|items| items.collect::<Result<Vec<_>, _>>());
    match found {
        Ok(found) if found.is_empty() => Err(TlsError(format!(
            "{}: there is no certificate in it (-----BEGIN CERTIFICATE-----)",
            path.display()
        ))),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(path, "a PEM certificate", &error)),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    match PrivateKeyDer::from_pem_file(path) {
        Err(PemError::NoItemsFound) => Err(TlsError(format!(
            "{}: there is no private key in it (-----BEGIN PRIVATE KEY-----; one with a \
                passphrase cannot be used)",
            path.display()
        ))),
        Err(error) => Err(unreadable(path, "a PEM key", &error)),
        Ok(key) => Ok(key),
    }
}

fn unreadable(path: &Path, what: &str, error: &PemError) -> TlsError {
    match error {
        PemError::Io(error) if error.kind() == std::io::ErrorKind::NotFound => {
            TlsError(format!("{}: no such file; put it there, or name another", path.display()))
        }
        PemError::Io(error) => TlsError(format!("cannot read {}: {error}", path.display())),
        error => TlsError(format!("{}: not {what}: {error}", path.display())),
    }
}
