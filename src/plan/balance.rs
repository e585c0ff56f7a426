//! The search for the shares with which several devices finish together.

use super::params::PARAMS;
use super::split::{self, Line};
use smallvec::SmallVec;
use std::ops::Range;

/// The search for the shares with which the members of a split finish together.
///
/// The time of a device is modelled as a line through its last estimate. But a device may be much faster at its part than
/// at all items, because the part fits a cache or is partly on the device already, and then the shares would oscillate.
/// So once a device was early with one share and late with another, its next share lies between the two, where the
/// logarithm of its time over the mean is zero if it is linear too (the rule of false position).
pub(super) struct Balance {
    items: usize,
    border: usize,
    pub lines: SmallVec<[Line; 8]>,
    pub shares: SmallVec<[f64; 8]>,
    brackets: SmallVec<[Bracket; 8]>,
}

/// The largest share with which a device was early, and the smallest with which it was late.
#[derive(Clone, Copy)]
struct Bracket {
    early: Trial,
    late: Trial,
}

/// A share and its result.
#[derive(Clone, Copy)]
struct Trial {
    share: f64,
    /// The logarithm of the device's time over the mean.
    lateness: f64,
}

impl Bracket {
    const OPEN: Self = Self {
        early: Trial {
            share: 0.0,
            lateness: f64::NEG_INFINITY,
        },
        late: Trial {
            share: 1.0,
            lateness: f64::INFINITY,
        },
    };

    /// Adds the result of a share and returns the next one to try, which is `wanted` where the bracket allows it.
    fn narrow(&mut self, trial: Trial, wanted: f64) -> f64 {
        const MARGIN: f64 = PARAMS.bracket_margin;
        if trial.lateness > 0.0 {
            if trial.share < self.late.share {
                self.late = trial;
            }
        } else if trial.share > self.early.share {
            self.early = trial;
        }
        let (low, high) = (self.early, self.late);
        let width = high.share - low.share;
        if low.lateness.is_finite() && high.lateness.is_finite() {
            let at = low.lateness / (low.lateness - high.lateness);
            low.share + width * at.clamp(MARGIN, 1.0 - MARGIN)
        } else if wanted > low.share && wanted < high.share {
            wanted
        } else {
            low.share + 0.5 * width
        }
    }
}

impl Balance {
    /// Starts at the shares that these lines give.
    pub fn new(items: usize, border: usize, lines: SmallVec<[Line; 8]>) -> Self {
        Self {
            items,
            border,
            shares: split::equal_finish(items, border, &lines),
            brackets: SmallVec::from_elem(Bracket::OPEN, lines.len()),
            lines,
        }
    }

    /// Corrects the shares, given that parts of these ranges finish at these times; 0 for devices without a part. Returns
    /// whether the change is worth another round.
    pub fn improve(&mut self, ranges: &[Range<usize>], finishes: &[f64]) -> bool {
        let count = finishes.iter().filter(|seconds| **seconds > 0.0).count();
        let mean = finishes.iter().sum::<f64>() / count as f64;
        let mut wanted = split::equal_finish(self.items, self.border, &self.lines);
        for (at, range) in ranges.iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            let trial = Trial {
                share: range.len() as f64 / self.items as f64,
                lateness: (finishes[at] / mean).ln(),
            };
            if wanted[at] > 0.0 {
                wanted[at] = self.brackets[at].narrow(trial, wanted[at]);
            }
        }
        let sum: f64 = wanted.iter().sum();
        wanted.iter_mut().for_each(|share| *share /= sum);
        let change = wanted.iter().zip(&self.shares).map(|(a, b)| (a - b).abs());
        let changes = change.fold(0.0, f64::max) > PARAMS.share_tolerance;
        self.shares = wanted;
        changes
    }
}
