//! Which state of an array is where: numbers of states, by range.

use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The state of an element, named by the moment it was written; unique in the process.
pub(crate) type Version = u64;

/// As it was before anybody took notes.
pub(super) const ORIGINAL: Version = 0;
/// None that anybody could ask for.
pub(super) const UNKNOWN: Version = u64::MAX;

static CLOCK: AtomicU64 = AtomicU64::new(1);

/// The current moment.
pub(crate) fn now() -> Version {
    CLOCK.load(Ordering::Acquire)
}

/// A new moment.
pub(crate) fn tick() -> Version {
    CLOCK.fetch_add(1, Ordering::AcqRel) + 1
}

/// The version of every element. Nearly always one range with one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Versions {
    /// Ascending, without gaps, and no two neighbours alike.
    segments: SmallVec<[(Range<usize>, Version); 1]>,
}

impl Versions {
    pub(super) fn all(len: usize, version: Version) -> Self {
        Self {
            segments: smallvec![(0..len, version)],
        }
    }

    /// The versions of a range, piece by piece.
    pub(super) fn of(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Version)> + '_ {
        let first = self.segments.partition_point(|(r, _)| r.end <= range.start);
        self.segments[first..]
            .iter()
            .map(move |(r, version)| (r.start.max(range.start)..r.end.min(range.end), *version))
            .take_while(|(r, _)| !r.is_empty())
    }

    /// All of a range is of this version from now on.
    pub(super) fn set(&mut self, range: Range<usize>, version: Version) {
        if range.is_empty() {
            return;
        }
        if let [(only, of)] = self.segments.as_mut_slice()
            && (*of == version || *only == range)
        {
            *of = version;
            return;
        }
        let end = self.segments.last().map_or(0, |(r, _)| r.end);
        let before: SmallVec<[_; 4]> = self.of(0..range.start).collect();
        let after: SmallVec<[_; 4]> = self.of(range.end..end).collect();
        self.segments.clear();
        for (range, version) in before.into_iter().chain([(range, version)]).chain(after) {
            match self.segments.last_mut() {
                Some((last, of)) if *of == version => last.end = range.end,
                _ => self.segments.push((range, version)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behave_like_one_number_for_each_element(
            steps in prop::collection::vec((0usize..40, 0usize..20, 0u64..4), 0..40),
        ) {
            let mut versions = Versions::all(50, 9);
            let mut plain = vec![9; 50];
            for (at, len, version) in steps {
                let range = at..(at + len).min(50);
                versions.set(range.clone(), version);
                plain[range.clone()].fill(version);
                let all: Vec<_> = versions.of(0..50).collect();
                prop_assert!(all.windows(2).all(|w| w[0].0.end == w[1].0.start && w[0].1 != w[1].1));
                prop_assert_eq!(all.iter().map(|(r, _)| r.len()).sum::<usize>(), 50);
                for (range, version) in versions.of(range).chain(all) {
                    prop_assert!(plain[range].iter().all(|v| *v == version));
                }
            }
        }
    }
}
