//! Which of a unit's texts are kept, and which contents that come with an application's.

use std::collections::{BTreeMap, BTreeSet};

use crate::app::Checksum;

/// So many texts of a unit are kept whatever they weigh: the newest.
pub const KEPT_TEXTS: usize = 10;

/// No more than so many are, but for those that are needed.
pub const MAX_KEPT_TEXTS: usize = 16;

/// What the texts between may weigh together, in bytes.
pub const MAX_KEPT_BYTES: u64 = 256 * 1024;

/// What the contents that come with an application's texts may weigh together, in bytes, but for
/// those that are needed: four times the largest application.
pub const MAX_KEPT_CONTENTS: u64 = 64 * 1024 * 1024;

/// A text that a unit has had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    /// Its number.
    pub number: u64,
    /// What it weighs, in bytes; asked for only of those after the newest [`KEPT_TEXTS`], up to
    /// [`MAX_KEPT_TEXTS`].
    pub bytes: u64,
    /// Whether it stays in any case: it is the present one or runs, or a rollback or a rollout goes
    /// back to it.
    pub needed: bool,
}

/// The numbers of the texts that go; `texts` are in order.
pub fn outdated(texts: &[Text]) -> Vec<u64> {
    let (mut bytes, mut full) = (0, false);
    let mut gone: Vec<u64> = Vec::new();
    for (age, text) in texts.iter().rev().enumerate().skip(KEPT_TEXTS) {
        bytes += text.bytes;
        full |= age >= MAX_KEPT_TEXTS || bytes > MAX_KEPT_BYTES;
        gone.extend(Some(text.number).filter(|_| full && !text.needed));
    }
    gone.reverse();
    gone
}

/// What comes with one text: each content with what it weighs, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comes {
    /// When the text was written: a larger number is later.
    pub written: i64,
    /// Whether the text is needed, as [`Text::needed`].
    pub needed: bool,
    /// The contents.
    pub contents: BTreeMap<Checksum, u64>,
}

/// The contents that stay: those of texts that are needed, and of the newest others as long as all
/// that stays weighs no more than [`MAX_KEPT_CONTENTS`].
pub fn kept_contents(mut texts: Vec<Comes>) -> BTreeSet<Checksum> {
    texts.sort_by_key(|text| (!text.needed, -text.written));
    let (mut kept, mut total) = (BTreeSet::new(), 0_u64);
    for text in texts {
        let new = text.contents.iter().filter(|(sum, _)| !kept.contains(*sum));
        let more: u64 = new.map(|(_, bytes)| *bytes).sum();
        if !text.needed && total.saturating_add(more) > MAX_KEPT_CONTENTS {
            break;
        }
        total = total.saturating_add(more);
        kept.extend(text.contents.into_keys());
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(number: u64, bytes: u64, needed: bool) -> Text {
        Text { number, bytes, needed }
    }

    #[test]
    fn small_texts_go_by_their_number_and_large_ones_by_their_weight() {
        let of = |count: u64, bytes| {
            let texts: Vec<Text> = (1..=count).map(|n| text(n, bytes, n == count)).collect();
            outdated(&texts)
        };
        let none: [u64; 0] = [];
        assert_eq!(of(16, 1_000), none);
        assert_eq!(of(18, 1_000), [1, 2]);
        assert_eq!(of(10, 1 << 20), none);
        assert_eq!(of(12, 1 << 20), [1, 2]);
        assert_eq!(of(14, 100 << 10), [1, 2]);
        let mut texts: Vec<Text> = (1..=30).map(|n| text(n, 1, false)).collect();
        texts[2].needed = true;
        assert_eq!(outdated(&texts), [1, 2].into_iter().chain(4..=14).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn what_is_needed_and_the_newest_ten_stay_and_the_rest_is_bounded(
            sizes in prop::collection::vec((0_u64..(1 << 20), prop::bool::weighted(0.2)), 0..60),
        ) {
            let numbered = sizes.iter().zip(1..).map(|((bytes, needed), n)| text(n, *bytes, *needed));
            let texts: Vec<Text> = numbered.collect();
            let gone = outdated(&texts);
            let stays: Vec<&Text> = texts.iter().filter(|it| !gone.contains(&it.number)).collect();
            prop_assert!(texts.iter().filter(|it| it.needed).all(|it| stays.contains(&it)));
            prop_assert!(texts.iter().rev().take(KEPT_TEXTS).all(|it| stays.contains(&it)));
            let spare = stays.iter().rev().skip(KEPT_TEXTS).filter(|it| !it.needed);
            let spare: Vec<u64> = spare.map(|it| it.bytes).collect();
            prop_assert!(spare.len() <= MAX_KEPT_TEXTS - KEPT_TEXTS);
            prop_assert!(spare.iter().sum::<u64>() <= MAX_KEPT_BYTES);
            // Doing it twice does no more.
            let left: Vec<Text> = stays.into_iter().copied().collect();
            prop_assert!(outdated(&left).is_empty());
            prop_assert!(gone.is_sorted());
        }

        #[test]
        fn contents_of_needed_texts_stay_and_all_together_are_bounded(
            texts in prop::collection::vec(
                (0_i64..20, prop::bool::weighted(0.15), prop::collection::vec(0_u8..40, 0..6)),
                0..30,
            ),
        ) {
            // The same content weighs the same.
            let weight = |n: u8| u64::from(n) << 20;
            let sum = |n: u8| Checksum::of(&[n]);
            let comes = |(written, needed, contents): &(i64, bool, Vec<u8>)| Comes {
                written: *written,
                needed: *needed,
                contents: contents.iter().map(|n| (sum(*n), weight(*n))).collect(),
            };
            let texts: Vec<Comes> = texts.iter().map(comes).collect();
            let kept = kept_contents(texts.clone());
            let whole = |text: &Comes| text.contents.keys().all(|sum| kept.contains(sum));
            prop_assert!(texts.iter().filter(|text| text.needed).all(whole));
            let weigh = |sums: &BTreeSet<Checksum>| -> u64 {
                (0..40).filter(|n| sums.contains(&sum(*n))).map(weight).sum()
            };
            let needed = texts.iter().filter(|text| text.needed);
            let needed = needed.flat_map(|text| text.contents.keys().cloned()).collect();
            prop_assert!(weigh(&kept) <= MAX_KEPT_CONTENTS.max(weigh(&needed)));
            // None is left out while there was room for all.
            let all = texts.iter().flat_map(|text| text.contents.keys().cloned()).collect();
            prop_assert!(weigh(&all) > MAX_KEPT_CONTENTS || kept == all);
        }
    }
}
