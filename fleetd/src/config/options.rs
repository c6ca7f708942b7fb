//! The names of all options, of those that fleet 1.0 had and nobody needs any more, and what a typo
//! may have meant.

/// Every option that is read.
pub(super) const OPTIONS: &[&str] = &[
    "agent_ttl",
    "data_dir",
    "disable_engine",
    "etcd_cafile",
    "etcd_certfile",
    "etcd_key_prefix",
    "etcd_keyfile",
    "etcd_password",
    "etcd_request_timeout",
    "etcd_servers",
    "etcd_username",
    "insecure",
    "leader_ttl",
    "listen",
    "listen_names",
    "log",
    "metadata",
    "public_ip",
    "run_dir",
    "socket",
    "systemd_user",
    "tls_cafile",
    "tls_certfile",
    "tls_keyfile",
    "units_directory",
    "verbosity",
];

/// Those that hold several things, or none.
pub(super) const LISTS: &[&str] = &["etcd_servers", "listen", "listen_names", "metadata"];

/// fleet 1.0's options that do nothing any more, and why.
const OBSOLETE: &[(&str, &str)] = &[
    ("authorized_keys_file", "units are not signed"),
    ("disable_watches", "the store's watches are what wakes fleetd"),
    ("enable_grpc", "reports go through the store, one document a machine"),
    ("engine_reconcile_interval", "the engine looks whenever something changes"),
    ("token_limit", "a list has pages of any size; a request names its own with pageSize"),
    ("verify_units", "units are not signed"),
];

/// Why an option of fleet 1.0 does nothing any more; `None` if it is none of these.
pub(super) fn obsolete(key: &str) -> Option<&'static str> {
    OBSOLETE.iter().find(|(name, _)| *name == key).map(|(_, why)| *why)
}

/// The option whose name is nearest, if it is near enough to be meant: a slip of two letters, or a
/// third of a long name.
pub(super) fn nearest(key: &str) -> Option<&'static str> {
    let distance = |option: &&&str| strsim::damerau_levenshtein(key, option);
    let near = OPTIONS.iter().min_by_key(distance)?;
    (distance(&near) <= 2.max(near.len() / 3)).then_some(near)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typo_has_a_nearest_name_and_a_strange_word_none() {
        assert_eq!(nearest("metdata"), Some("metadata"));
        assert_eq!(nearest("etcd_endpoints"), None);
        assert_eq!(nearest("tls_cert_file"), Some("tls_certfile"));
        assert_eq!(nearest("lab_cache"), None);
    }
}
