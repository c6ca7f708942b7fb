//! systemd's own words on why a unit failed, found among the lines of its journal.

/// The longest reason that is passed on, in bytes: a path may be 4 KiB.
const LONGEST: usize = 300;

/// Why the last try of `unit` failed, of systemd's lines on it, oldest first: `Failed to locate
/// executable /bin/x: No such file or directory`. None where systemd has only said that it failed.
pub fn reason<'a>(unit: &str, lines: impl DoubleEndedIterator<Item = &'a str>) -> Option<String> {
    let mut found = None;
    for line in lines.rev() {
        // `systemctl status` has a date, a host and a process before it.
        let Some(said) =
            line.find(&format!("{unit}: ")).map(|at| line[at + unit.len() + 2..].trim_end())
        else {
            continue;
        };
        if said.starts_with("Failed with result ") {
            // The last word on one try: what stands before that is of an earlier one.
            if found.is_some() {
                break;
            }
        } else if said.starts_with("Failed ") {
            found = Some(said); // the first one is the cause, the others follow from it
        }
    }
    found.map(|said| said[..said.floor_char_boundary(LONGEST)].to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_of_the_last_try_is_the_reason() {
        let lines = "a.service: Failed to locate executable /bin/old: No such file or directory
            a.service: Failed with result 'exit-code'.
            Started a.service.
            a.service: Failed to locate executable /bin/new: No such file or directory
            a.service: Failed at step EXEC spawning /bin/new: No such file or directory
            a.service: Main process exited, code=exited, status=203/EXEC
            a.service: Failed with result 'exit-code'.";
        let said = reason("a.service", lines.lines());
        assert_eq!(
            said.as_deref(),
            Some("Failed to locate executable /bin/new: No such file or directory")
        );
        assert_eq!(reason("b.service", lines.lines()), None);
    }

    #[test]
    fn lines_of_systemctl_status_will_do_and_a_bare_failure_is_no_reason() {
        let line = "Nov 30 07:54:42 h1 systemd[1]: a.service: Failed to load environment files: \
            No such file or directory";
        assert_eq!(
            reason("a.service", [line].into_iter()).unwrap(),
            "Failed to load environment files: No such file or directory"
        );
        assert_eq!(
            reason("a.service", ["a.service: Failed with result 'timeout'."].into_iter()),
            None
        );
        let long = format!("a.service: Failed to ä{}", "ä".repeat(LONGEST));
        assert!(reason("a.service", [long.as_str()].into_iter()).unwrap().len() <= LONGEST);
    }
}
