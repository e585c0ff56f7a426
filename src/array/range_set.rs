//! Sets of index ranges: which elements of an array are valid in a place.
//!
//! A set is a sorted list of disjoint, non-empty, non-adjacent half-open ranges. In practice nearly every set is empty or
//! one range, so two are kept inline and no operation on them allocates.

use smallvec::SmallVec;
use std::ops::Range;

/// A set of `usize` indices, kept as ranges.
///
/// ```
/// use divvy::array::RangeSet;
///
/// let mut valid = RangeSet::from(0..100);
/// valid.remove(40..60);
/// assert!(valid.contains(&(0..40)) && !valid.contains(&(30..50)));
/// assert_eq!(valid.missing(30..70).collect::<Vec<_>>(), [40..60]);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    ranges: SmallVec<[Range<usize>; 2]>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the set has no index.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The number of indices in the set.
    pub fn len(&self) -> usize {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The ranges, in ascending order, with a gap between any two.
    pub fn iter(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.ranges.iter().cloned()
    }

    /// Whether every index of `range` is in the set. The empty range is in every set.
    pub fn contains(&self, range: &Range<usize>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.first_ending_after(range.start);
        self.ranges
            .get(at)
            .is_some_and(|r| r.start <= range.start && range.end <= r.end)
    }

    /// Adds every index of `range`.
    pub fn insert(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        // Adjacent ranges merge, so a range that ends where this one starts counts.
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        if from == to {
            self.ranges.insert(from, range);
            return;
        }
        let merged =
            self.ranges[from].start.min(range.start)..self.ranges[to - 1].end.max(range.end);
        self.ranges[from] = merged;
        self.ranges.drain(from + 1..to);
    }

    /// Removes every index of `range`.
    pub fn remove(&mut self, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let from = self.first_ending_after(range.start);
        let to = self.ranges.partition_point(|r| r.start < range.end);
        if from >= to {
            return;
        }
        let left = self.ranges[from].start..range.start;
        let right = range.end..self.ranges[to - 1].end;
        self.ranges.drain(from..to);
        if !right.is_empty() {
            self.ranges.insert(from, right);
        }
        if !left.is_empty() {
            self.ranges.insert(from, left);
        }
    }

    /// The parts of `range` that are in the set, in ascending order.
    pub fn overlap(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let from = self.first_ending_after(range.start);
        self.ranges[from..]
            .iter()
            .map(move |r| r.start.max(range.start)..r.end.min(range.end))
            .take_while(|r| !r.is_empty())
    }

    /// The parts of `range` that are not in the set, in ascending order.
    pub fn missing(&self, range: Range<usize>) -> impl Iterator<Item = Range<usize>> + '_ {
        let end = range.end;
        let mut at = range.start;
        // The gap before each overlap, and the one after the last.
        self.overlap(range)
            .chain(std::iter::once(end..end))
            .map(move |next| std::mem::replace(&mut at, next.end)..next.start)
            .filter(|gap| !gap.is_empty())
    }

    /// The number of indices of `range` that are not in the set.
    pub fn missing_len(&self, range: Range<usize>) -> usize {
        range.len() - self.overlap(range).map(|r| r.len()).sum::<usize>()
    }

    /// The position of the first range that ends after `index`.
    fn first_ending_after(&self, index: usize) -> usize {
        self.ranges.partition_point(|r| r.end <= index)
    }
}

impl From<Range<usize>> for RangeSet {
    fn from(range: Range<usize>) -> Self {
        let mut set = Self::new();
        set.insert(range);
        set
    }
}

impl FromIterator<Range<usize>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<usize>>>(ranges: I) -> Self {
        let mut set = Self::new();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

impl std::fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(&self.ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bitmap(set: &RangeSet, len: usize) -> Vec<bool> {
        let mut bits = vec![false; len];
        set.iter().for_each(|r| bits[r].fill(true));
        bits
    }

    #[test]
    fn an_empty_range_changes_nothing_and_is_always_contained() {
        let mut set = RangeSet::from(3..5);
        set.insert(9..9);
        set.remove(4..4);
        assert_eq!(set, RangeSet::from(3..5));
        assert!(RangeSet::new().contains(&(7..7)));
    }

    #[test]
    fn adjacent_ranges_become_one() {
        let mut set = RangeSet::from(0..4);
        set.insert(4..8);
        assert_eq!(set, RangeSet::from(0..8));
    }

    proptest! {
        #[test]
        fn behaves_like_a_bitmap(steps in prop::collection::vec((any::<bool>(), 0usize..64, 0usize..20), 0..60),
                                 lo in 0usize..80, len in 0usize..40) {
            let mut set = RangeSet::new();
            let mut bits = vec![false; 128];
            for (put, at, len) in steps {
                if put { set.insert(at..at + len) } else { set.remove(at..at + len) }
                bits[at..at + len].fill(put);
                prop_assert_eq!(&bitmap(&set, 128), &bits);
                // Canonical form: sorted, non-empty, with gaps.
                let all: Vec<_> = set.iter().collect();
                prop_assert!(all.iter().all(|r| !r.is_empty()));
                prop_assert!(all.windows(2).all(|w| w[0].end < w[1].start));
            }
            let query = lo..lo + len;
            prop_assert_eq!(set.len(), bits.iter().filter(|b| **b).count());
            prop_assert_eq!(set.contains(&query), bits[query.clone()].iter().all(|b| *b));
            let mut inside = [false; 128];
            set.overlap(query.clone()).for_each(|r| inside[r].fill(true));
            let mut outside = [false; 128];
            set.missing(query.clone()).for_each(|r| outside[r].fill(true));
            for i in 0..128 {
                prop_assert_eq!(inside[i], query.contains(&i) && bits[i]);
                prop_assert_eq!(outside[i], query.contains(&i) && !bits[i]);
            }
            prop_assert_eq!(set.missing_len(query), outside.iter().filter(|b| **b).count());
        }
    }
}
