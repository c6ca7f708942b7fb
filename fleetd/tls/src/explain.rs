//! What a failed handshake means, as one sentence with the next move.

use std::error::Error;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, InvalidMessage};

use crate::Files;

/// The sentence for a TLS error anywhere in this error's chain, from the view of the side that uses
/// `files`; it has no subject, and reads on after "HOST: ". `None`: it is not about TLS.
pub fn explain(error: &(dyn Error + 'static), files: &Files) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = find(error) {
            return Some(sentence(tls, files));
        }
        next = error.source();
    }
    None
}

/// An I/O error does not give the error that it wraps as its source, only that one's source.
fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut error = error;
    loop {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls);
        }
        error = error.downcast_ref::<std::io::Error>()?.get_ref()?;
    }
}

fn sentence(error: &rustls::Error, files: &Files) -> String {
    use AlertDescription as Alert;
    let ca = files
        .ca
        .as_ref()
        .map_or("the CAs that this machine trusts".to_string(), |path| path.display().to_string());
    let ours = files
        .cert
        .as_ref()
        .map_or("our certificate".to_string(), |path| path.display().to_string());
    match error {
        rustls::Error::InvalidCertificate(problem) => certificate(problem, &ca),
        rustls::Error::NoCertificatesPresented => {
            "it came without a client certificate; give it one of the cluster's CA (fleetctl \
                --cert-file, --key-file)"
                .to_string()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            // Go says BadCertificate of one that is missing.
            Alert::CertificateRequired | Alert::BadCertificate if files.cert.is_none() => {
                "it lets nobody in without a client certificate; name one and its key".to_string()
            }
            // Before TLS 1.3 there was no alert for a missing certificate.
            Alert::HandshakeFailure if files.cert.is_none() => {
                "it refused the handshake, maybe for want of a client certificate; name one and \
                    its key"
                    .to_string()
            }
            Alert::CertificateExpired => {
                format!("it refuses {ours}: expired, by its clock; renew it")
            }
            Alert::UnknownCA => format!(
                "it refuses {ours}: from a CA that it does not know; use one of the cluster's CA"
            ),
            Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::DecryptError => {
                format!(
                    "it refuses {ours} ({alert:?}); is it one for clients, of the cluster's CA?"
                )
            }
            Alert::CertificateRevoked => format!("it refuses {ours}: revoked; use another"),
            Alert::ProtocolVersion => "it speaks no TLS 1.2 or later; upgrade it".to_string(),
            alert => format!("it ended the TLS handshake: {alert:?}"),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "it does not speak TLS; write http:// if it is meant to be so".to_string()
        }
        other => format!("TLS failed: {other}"),
    }
}

fn certificate(problem: &CertificateError, ca: &str) -> String {
    use CertificateError as Bad;
    match problem {
        Bad::ExpiredContext { not_after, .. } => {
            format!("its certificate expired on {}; renew it there", date(*not_after))
        }
        Bad::Expired => "its certificate has expired; renew it there".to_string(),
        Bad::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}; compare the clocks", date(*not_before))
        }
        Bad::NotValidYet => "its certificate is not valid yet; compare the clocks".to_string(),
        Bad::UnknownIssuer | Bad::BadSignature => {
            format!("its certificate is not from a CA in {ca}; name the CA that it is from")
        }
        Bad::NotValidForNameContext { expected, presented } => {
            let expected = match expected {
                ServerName::IpAddress(address) => std::net::IpAddr::from(*address).to_string(),
                name => name.to_str().into_owned(),
            };
            let presented: Vec<&str> = presented.iter().map(|name| words(name)).collect();
            let presented = if presented.is_empty() {
                "no name at all".to_string()
            } else {
                presented.join(", ")
            };
            format!(
                "its certificate is for {presented}, not for {expected}; use a name that it has, \
                or issue it for this one"
            )
        }
        Bad::NotValidForName => {
            "its certificate is for another name; use the name that it has, or issue it for this \
                one"
            .to_string()
        }
        Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
            "its certificate is not meant for this (client or server); issue it for both \
                clientAuth and serverAuth"
                .to_string()
        }
        Bad::Revoked => "its certificate is revoked; use another".to_string(),
        other => format!("its certificate is refused: {other}"),
    }
}

/// webpki writes `DnsName("h2")` and `IpAddress(10.0.0.1)`; only what is inside matters.
fn words(presented: &str) -> &str {
    let inside = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(presented).trim_matches('"')
}

/// `2026-11-24`, in UTC.
pub(crate) fn date(time: UnixTime) -> String {
    // Days to a date by Howard Hinnant's `civil_from_days`, in years that begin in March so that
    // leap days come last.
    let days = (time.as_secs() / 86_400) as i64 + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let on = |secs| date(UnixTime::since_unix_epoch(Duration::from_secs(secs)));
        assert_eq!(
            [on(0), on(951_782_400), on(1_709_164_800), on(1_795_478_400)].join(" "),
            "1970-01-01 2000-02-29 2024-02-29 2026-11-24"
        );
    }

    #[test]
    fn a_tls_error_is_found_inside_an_io_error() {
        let inner = rustls::Error::InvalidCertificate(CertificateError::Expired);
        let wrapped =
            std::io::Error::other(std::io::Error::new(std::io::ErrorKind::InvalidData, inner));
        assert_eq!(
            explain(&wrapped, &Files::default()).unwrap(),
            "its certificate has expired; renew it there"
        );
        assert_eq!(explain(&std::io::Error::other("else"), &Files::default()), None);
    }
}
