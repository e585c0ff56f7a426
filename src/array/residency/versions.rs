//! Versions: a number for each state of an element, kept by range.

use smallvec::{SmallVec, smallvec};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The state of an element: the moment at which it was written. Unique in the process.
pub(crate) type Version = u64;

/// The state when the history of an array begins.
pub(super) const ORIGINAL: Version = 0;
/// A state that no access set names.
pub(super) const UNKNOWN: Version = u64::MAX;

/// A range of elements that have one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) range: Range<usize>,
    pub(crate) version: Version,
}

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
    /// Ascending, without gaps. Neighbours have different versions.
    segments: SmallVec<[Segment; 1]>,
}

impl Versions {
    pub(super) fn all(len: usize, version: Version) -> Self {
        let range = 0..len;
        Self {
            segments: smallvec![Segment { range, version }],
        }
    }

    /// The segments of a range.
    pub(super) fn of(&self, range: Range<usize>) -> impl Iterator<Item = Segment> + '_ {
        let first = self
            .segments
            .partition_point(|s| s.range.end <= range.start);
        self.segments[first..]
            .iter()
            .map(move |s| Segment {
                range: s.range.start.max(range.start)..s.range.end.min(range.end),
                version: s.version,
            })
            .take_while(|s| !s.range.is_empty())
    }

    /// Gives all elements of a range this version.
    pub(super) fn set(&mut self, range: Range<usize>, version: Version) {
        if range.is_empty() {
            return;
        }
        if let [only] = self.segments.as_mut_slice()
            && (only.version == version || only.range == range)
        {
            only.version = version;
            return;
        }
        let end = self.segments.last().map_or(0, |s| s.range.end);
        let before: SmallVec<[_; 4]> = self.of(0..range.start).collect();
        let after: SmallVec<[_; 4]> = self.of(range.end..end).collect();
        self.segments.clear();
        let new = Segment { range, version };
        for segment in before.into_iter().chain([new]).chain(after) {
            match self.segments.last_mut() {
                Some(last) if last.version == segment.version => {
                    last.range.end = segment.range.end;
                }
                _ => self.segments.push(segment),
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
                let meet = |w: &[Segment]| w[0].range.end == w[1].range.start && w[0].version != w[1].version;
                prop_assert!(all.windows(2).all(meet));
                prop_assert_eq!(all.iter().map(|s| s.range.len()).sum::<usize>(), 50);
                for Segment { range, version } in versions.of(range).chain(all) {
                    prop_assert!(plain[range].iter().all(|v| *v == version));
                }
            }
        }
    }
}
