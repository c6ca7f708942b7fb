//! What a machine may be reached at: an IP address or a host name, and the URL of its API. Others
//! hand it to programs such as ssh, so a text that could be an option, a path or a command is none.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer};

/// The longest name that the DNS knows, in bytes.
const LONGEST_NAME: usize = 253;

/// The longest part of such a name, in bytes.
const LONGEST_LABEL: usize = 63;

/// Whether it is an IP address without brackets, or a host name.
pub fn is_host(text: &str) -> bool {
    let is_label = |label: &str| {
        let letters = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=LONGEST_LABEL).contains(&label.len())
            && letters
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.parse::<IpAddr>().is_ok() || (text.len() <= LONGEST_NAME && text.split('.').all(is_label))
}

/// Whether it is the URL of an API: `https://10.0.0.1:4100`, `http://[fd00::1]:4100`, and nothing
/// more.
pub fn is_api(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    let Some((host, port)) = rest.and_then(|rest| rest.rsplit_once(':')) else { return false };
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains(':') && is_host(host),
    };
    is_port && is_host
}

/// Reads an address of a document: what is none counts as not known, since a machine is more than
/// that.
pub(crate) fn read_host<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    Ok(if is_host(&text) { text } else { String::new() })
}

/// The same of the URL of its API.
pub(crate) fn read_api<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.filter(|url| is_api(url)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_host_names_are_hosts() {
        for good in [
            "10.0.0.1",
            "fd00::1",
            "::1",
            "h1",
            "h1.example.com",
            "xn--bcher-kva.example",
            "node_1",
        ] {
            assert!(is_host(good), "{good}");
        }
    }

    #[test]
    fn what_a_program_could_take_for_something_else_is_no_host() {
        let long = "a".repeat(64);
        for bad in [
            "",
            "-oProxyCommand=x",
            "a b",
            "user@h",
            "h:22",
            "[::1]",
            "../x",
            "a/b",
            "$(id)",
            "`id`",
            "a;b",
            "a..b",
            ".a",
            "a.",
            "-a",
            "a-",
            "a\n",
            "ssh://h",
            "fe80::1%eth0",
            "h%h",
            &long,
        ] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn the_url_of_an_api_has_a_host_and_a_port_and_no_more() {
        for good in ["http://10.0.0.1:4100", "https://[fd00::1]:4100", "https://h1.example:1"] {
            assert!(is_api(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1:4100",
            "http://10.0.0.1",
            "http://10.0.0.1:0",
            "http://10.0.0.1:+1",
            "http://10.0.0.1:4100/x",
            "http://u@h:1",
            "http://[h1]:1",
            "http://::1:1",
            "file:///etc:1",
            "http://h:99999",
        ] {
            assert!(!is_api(bad), "{bad}");
        }
    }

    #[test]
    fn a_record_s_address_that_is_none_is_not_known_and_the_machine_still_is() {
        let text = r#"{"v":1,"id":"m1","address":"-oProxyCommand=x","api":"http://u@h:1/x"}"#;
        let machine: crate::model::Machine = serde_json::from_str(text).unwrap();
        assert_eq!((machine.address.as_str(), machine.api), ("", None));
        let text = r#"{"v":1,"id":"m1","address":"10.0.0.1","api":"http://10.0.0.1:4100"}"#;
        let machine: crate::model::Machine = serde_json::from_str(text).unwrap();
        assert_eq!(
            (machine.address.as_str(), machine.api.as_deref()),
            ("10.0.0.1", Some("http://10.0.0.1:4100"))
        );
    }
}
