//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// As many as fleetd wants: some thousands of connections, and what requests open besides. More
/// would only let a leak grow.
const WANTED: u64 = 65_536;

/// What the kernel gives where nothing else is configured.
const USUAL: u64 = 1024;

/// Raises the limit as far as this process may. Answers with what it is then.
pub fn raise() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let now = current.unwrap_or(u64::MAX);
    let most = maximum.unwrap_or(u64::MAX);
    let wanted = WANTED.min(most);
    if now >= wanted {
        return now;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum }) {
        Ok(()) => {
            if wanted <= USUAL {
                warn!(
                    "only {wanted} files may be open at once; LimitNOFILE= in fleetd.service says \
                        how many"
                );
            }
            wanted
        }
        Err(error) => {
            warn!("cannot raise how many files may be open at once above {now}: {error}");
            now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_raised_as_far_as_it_may_be() {
        let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let raised = raise();
        assert_eq!(raised, getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX));
        assert!(raised >= WANTED.min(most));
    }
}
