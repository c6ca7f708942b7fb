//! Certificates for tests: a CA, and what it issues, as files.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use fleet_tls::Files;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};

/// A CA with a folder for its files.
pub struct Authority {
    folder: PathBuf,
    name: String,
    issuer: Issuer<'static, KeyPair>,
}

/// How long a certificate is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// From 2000 on, for longer than any test.
    Good,
    /// Until 2001-02-03.
    Expired,
}

impl Authority {
    /// Makes one; its certificate is `FOLDER/NAME.pem`.
    pub fn new(folder: &Path, name: &str) -> Result<Authority> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(2100, 1, 1);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem())?;
        Ok(Authority {
            folder: folder.to_path_buf(),
            name: name.to_string(),
            issuer: Issuer::new(params, key),
        })
    }

    /// The CA's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.folder.join(format!("{}.pem", self.name))
    }

    /// Issues a certificate for clients and servers with these names, which may be addresses, as
    /// `FOLDER/FILE.pem` and `FILE.key`; what was there is replaced as a whole. Answers with all
    /// three files.
    pub fn issue(&self, file: &str, names: &[&str], lifetime: Lifetime) -> Result<Files> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, file);
        for name in names {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into()?),
            });
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = if lifetime == Lifetime::Good {
            date_time_ymd(2100, 1, 1)
        } else {
            date_time_ymd(2001, 2, 3)
        };
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let (cert_file, key_file) =
            (self.folder.join(format!("{file}.pem")), self.folder.join(format!("{file}.key")));
        replace(&key_file, &key.serialize_pem())?;
        replace(&cert_file, &certificate.pem())?;
        Ok(Files { ca: Some(self.ca()), cert: Some(cert_file), key: Some(key_file) })
    }
}

fn replace(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)?;
    Ok(())
}
