//! Times for people, by this machine's clock: how long until, how long since.

use std::time::{SystemTime, UNIX_EPOCH};

/// How long it is to a time in milliseconds since 1970: `8 s`; `None` once it has passed.
pub(crate) fn until(time_ms: u64) -> Option<String> {
    let left_ms = time_ms.checked_sub(now_ms()).filter(|left_ms| *left_ms > 0)?;
    Some(format!("{} s", left_ms.div_ceil(1_000)))
}

/// How long ago a time in milliseconds since 1970 is: `12s`, `3m`, `5h`, `9d`. A time that is still
/// to come is `0s`: clocks differ.
pub(crate) fn age(time_ms: u64) -> String {
    seconds(now_ms().saturating_sub(time_ms) / 1_000)
}

fn seconds(seconds: u64) -> String {
    // Two digits where possible: 90 s say more than 1 min.
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7_200 => format!("{}m", seconds / 60),
        7_200..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let ages = [0, 119, 120, 7_199, 7_200, 172_799, 172_800, 86_400 * 400].map(seconds);
        assert_eq!(ages, ["0s", "119s", "2m", "119m", "2h", "47h", "2d", "400d"]);
        assert_eq!(age(u64::MAX), "0s");
        assert_eq!(until(1), None);
        assert!(until(u64::MAX).is_some_and(|left| left.ends_with(" s")));
    }
}
