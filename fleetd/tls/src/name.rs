//! Whose certificate it is: the common name of its subject, or else the first name that it is for.

use rustls::pki_types::CertificateDer;

/// The tags of DER that a subject is made of, and of its texts.
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_ID: u8 = 0x06;
const TEXTS: [u8; 3] = [0x0c, 0x13, 0x16]; // UTF8String, PrintableString, IA5String

/// The object id of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The name of whoever holds the certificate; `None` if it says none.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let leaf = webpki::EndEntityCert::try_from(certificate).ok()?;
    let common = common_name(leaf.subject()).filter(|name| !name.is_empty());
    common.or_else(|| leaf.valid_dns_names().next().map(str::to_string))
}

/// The last common name in the inside of a subject: sets of pairs of an object id and a value.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((tag, mut set, rest)) = element(subject) {
        subject = rest;
        while let Some((inner, pair, rest)) = element(set).filter(|_| tag == SET) {
            set = rest;
            let id = element(pair).filter(|(tag, ..)| (inner, *tag) == (SEQUENCE, OBJECT_ID));
            let Some((_, COMMON_NAME, value)) = id else { continue };
            if let Some((_, value, _)) = element(value).filter(|(tag, ..)| TEXTS.contains(tag)) {
                found = std::str::from_utf8(value).ok().map(str::to_string).or(found);
            }
        }
    }
    found
}

/// The first element of some DER: its tag, what is in it, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A name is never so long that its length takes more than two bytes.
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (inside, rest) = rest.split_at_checked(length)?;
    Some((tag, inside, rest))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn named(names: &[&str], subject: &[(DnType, &str)]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let key = KeyPair::generate().unwrap();
        name_of(params.self_signed(&key).unwrap().der())
    }

    #[test]
    fn a_certificate_is_called_by_its_common_name_or_what_it_is_for() {
        // What another part of the subject says is no name, whatever it looks like.
        let org = "x\u{6}\u{3}U\u{4}\u{3}\u{c}\u{3}bob";
        let subject = [(DnType::OrganizationName, org), (DnType::CommonName, "alice ä")];
        assert_eq!(named(&["h1.example"], &subject).as_deref(), Some("alice ä"));
        let long = "x".repeat(300);
        assert_eq!(named(&[], &[(DnType::CommonName, &long)]), Some(long));
        assert_eq!(named(&["h1.example"], &subject[..1]).as_deref(), Some("h1.example"));
        assert_eq!(named(&[], &[]), None);
    }

    #[test]
    fn what_is_cut_short_has_no_name() {
        for der in
            [&[0x31][..], &[0x31, 0x05, 0x30], &[0x31, 0x82, 0xff], &[0x31, 0x84, 0, 0, 0, 1]]
        {
            assert_eq!(common_name(der), None);
        }
    }
}
