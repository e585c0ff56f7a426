//! The search for the shares with which several devices finish together.

use super::split::{self, Line};
use smallvec::SmallVec;
use std::ops::Range;

/// A change of shares that is not worth another round.
const SMALL_CHANGE: f64 = 0.005;

/// The search for the shares with which the members of a split finish together.
///
/// Time against items is taken to be a line, drawn through what was found last. That a device may be much faster at its
/// part than at all items, because that fits a cache or is partly there already, would make the shares jump to and fro.
/// So once a device was early with one share and late with another, its next is between: where the logarithm of its time
/// over the mean is zero if that too is a line (the rule of false position).
pub(super) struct Balance {
    items: usize,
    border: usize,
    pub lines: SmallVec<[Line; 8]>,
    pub shares: SmallVec<[f64; 8]>,
    brackets: SmallVec<[Bracket; 8]>,
}

/// The greatest share with which a device was early and the least with which it was late, and by how much: the logarithm
/// of its time over the mean.
#[derive(Clone, Copy)]
struct Bracket {
    early: (f64, f64),
    late: (f64, f64),
}

impl Bracket {
    const OPEN: Self = Self {
        early: (0.0, f64::NEG_INFINITY),
        late: (1.0, f64::INFINITY),
    };

    /// Takes note of a share and by how much it was late. Returns a share to try in place of `wanted`.
    fn narrow(&mut self, share: f64, late: f64, wanted: f64) -> f64 {
        const MARGIN: f64 = 0.05;
        if late > 0.0 {
            if share < self.late.0 {
                self.late = (share, late);
            }
        } else if share > self.early.0 {
            self.early = (share, late);
        }
        let (low, high) = (self.early, self.late);
        let width = high.0 - low.0;
        if low.1.is_finite() && high.1.is_finite() {
            let at = low.1 / (low.1 - high.1);
            low.0 + width * at.clamp(MARGIN, 1.0 - MARGIN)
        } else if wanted > low.0 && wanted < high.0 {
            wanted
        } else {
            low.0 + 0.5 * width
        }
    }
}

impl Balance {
    /// The search among members with these lines.
    pub fn new(items: usize, border: usize, lines: SmallVec<[Line; 8]>) -> Self {
        Self {
            items,
            border,
            shares: split::equal_finish(items, border, &lines),
            brackets: SmallVec::from_elem(Bracket::OPEN, lines.len()),
            lines,
        }
    }

    /// Shares anew, now that parts of these ranges are known to finish at these times; 0 for those that take no part.
    /// Returns whether that changes much.
    pub fn improve(&mut self, ranges: &[Range<usize>], finishes: &[f64]) -> bool {
        let count = finishes.iter().filter(|seconds| **seconds > 0.0).count();
        let mean = finishes.iter().sum::<f64>() / count as f64;
        let mut wanted = split::equal_finish(self.items, self.border, &self.lines);
        for (at, range) in ranges.iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            let share = range.len() as f64 / self.items as f64;
            let late = (finishes[at] / mean).ln();
            if wanted[at] > 0.0 {
                wanted[at] = self.brackets[at].narrow(share, late, wanted[at]);
            }
        }
        let sum: f64 = wanted.iter().sum();
        wanted.iter_mut().for_each(|share| *share /= sum);
        let change = wanted.iter().zip(&self.shares).map(|(a, b)| (a - b).abs());
        let changes = change.fold(0.0, f64::max) > SMALL_CHANGE;
        self.shares = wanted;
        changes
    }
}
