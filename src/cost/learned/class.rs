//! The measurements of one variant at sizes within half an octave: a ring of recent ones, summed up by median and
//! median absolute deviation, which a spike does not move.

use crate::cost::params::{ClassParams, PARAMS};
use smallvec::SmallVec;

const CLASS: ClassParams = PARAMS.class;
/// Recent measurements that count.
pub(super) const RING: usize = CLASS.ring;
/// The standard deviation of a normal distribution in median absolute deviations.
const NORMAL: f32 = 1.4826;
/// The variance of a median over that of a mean of the same number of normal samples.
const MEDIAN_VARIANCE: f32 = 1.57;

/// The class of a size, which is a log2: two to the octave.
pub(super) fn class_of(size: f64) -> i16 {
    (2.0 * size).round().clamp(-1e4, 1e4) as i16
}

/// The measurements of one class.
#[derive(Clone, Debug, Default)]
pub(super) struct Class {
    /// Log factors, the oldest at `next` once the ring is full.
    ring: [f32; RING],
    /// The same, ascending.
    sorted: [f32; RING],
    len: usize,
    next: usize,
    /// Outliers since the last measurement that was none.
    outliers: [f32; CLASS.new_truth],
    outlying: usize,
    /// All measurements there ever were.
    total: u64,
    /// The mean of the measured sizes.
    size: f64,
    /// The change of the device's log factor since, measured at another size.
    shift: Option<f32>,
}

/// The median and the deviation of log factors.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    median: f32,
    /// The median absolute deviation from the median.
    deviation: f32,
}

/// The estimate for a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// The mean of the measured sizes.
    pub size: f32,
    /// The median of the log factors.
    pub median: f32,
    /// The variance of that median.
    pub variance: f32,
    /// The number of measurements it rests on.
    pub recent: u8,
    /// The number of all measurements there ever were.
    pub total: u64,
}

impl Class {
    /// A saved class: its recent log factors, oldest first, and the number of all measurements.
    pub(super) fn restored(size: f64, recent: &[f64], total: u64) -> Self {
        let mut class = Self {
            size,
            ..Self::default()
        };
        let skipped = recent.len().saturating_sub(RING);
        recent[skipped..]
            .iter()
            .for_each(|factor| class.push(*factor as f32));
        class.total = total.max(recent.len() as u64);
        class
    }

    /// Adds a measurement, unless it is a single outlier. If a row of outliers becomes the new truth, returns its
    /// difference from the old.
    pub(super) fn add(&mut self, size: f64, log_factor: f32) -> Option<f32> {
        self.total = self.total.saturating_add(1);
        if let Some(shift) = self.shift.take() {
            let median = self.spread().median;
            let distance = |expected: f32| (log_factor - expected).abs();
            if distance(median + shift) < distance(median) {
                // The change happened at this size too.
                (self.len, self.next, self.outlying) = (0, 0, 0);
            }
        }
        let weight = 1.0 / (self.total.min(RING as u64) as f64);
        self.size += weight * (size - self.size);
        if self.len >= CLASS.judged {
            let Spread { median, deviation } = self.spread();
            let allowed = CLASS.outlier * deviation.max(CLASS.least_deviation);
            if (log_factor - median).abs() > allowed {
                self.outliers[self.outlying] = log_factor;
                self.outlying += 1;
                if self.outlying == CLASS.new_truth {
                    (self.len, self.next, self.outlying) = (0, 0, 0);
                    let truth = self.outliers;
                    truth.into_iter().for_each(|factor| self.push(factor));
                    return Some(self.spread().median - median);
                }
                return None;
            }
        }
        self.outlying = 0;
        self.push(log_factor);
        None
    }

    /// Records that the device's log factor changed by `shift` at another size. Until the next measurement, it may have
    /// changed here too.
    pub(super) fn doubt(&mut self, shift: f32) {
        let both = self.shift.unwrap_or(0.0) + shift;
        self.shift = Some(both.clamp(-CLASS.largest_shift, CLASS.largest_shift));
    }

    /// Forgets all measurements but the `most` latest ones: the others are too old to outweigh a new one.
    pub(super) fn keep_latest(&mut self, most: usize) {
        let latest: SmallVec<[f32; RING]> = self.recent().collect();
        let skipped = latest.len().saturating_sub(most);
        if skipped > 0 {
            (self.len, self.next, self.outlying) = (0, 0, 0);
            latest[skipped..]
                .iter()
                .for_each(|factor| self.push(*factor));
        }
    }

    fn push(&mut self, log_factor: f32) {
        if self.len == RING {
            let oldest = self.ring[self.next];
            let at = self.sorted.partition_point(|known| *known < oldest);
            self.sorted.copy_within(at + 1.., at);
            self.len -= 1;
        }
        let at = self.sorted[..self.len].partition_point(|known| *known < log_factor);
        self.sorted.copy_within(at..self.len, at + 1);
        self.sorted[at] = log_factor;
        self.ring[self.next] = log_factor;
        self.next = (self.next + 1) % RING;
        self.len += 1;
    }

    /// The recent log factors, oldest first.
    pub(super) fn recent(&self) -> impl Iterator<Item = f32> {
        (0..self.len).map(|i| self.ring[(self.next + RING - self.len + i) % RING])
    }

    /// The estimate. There must be a measurement.
    pub(super) fn summary(&self) -> Summary {
        let Spread { median, deviation } = self.spread();
        let count = self.len.max(1) as f32;
        let measured = NORMAL * deviation.max(CLASS.least_deviation);
        let deviation = if self.len >= CLASS.judged {
            measured
        } else {
            measured.max(CLASS.first_deviation / count.sqrt())
        };
        let shift = self.shift.unwrap_or(0.0);
        Summary {
            size: self.size as f32,
            median: median + CLASS.likely * shift,
            variance: deviation * deviation * MEDIAN_VARIANCE.min(count) / count
                + CLASS.likely * (1.0 - CLASS.likely) * shift * shift,
            recent: self.len as u8,
            total: self.total,
        }
    }

    /// The median and the deviation. Of few measurements, a value below the median: a disturbance only makes a
    /// measurement longer, and two of three may be disturbed.
    fn spread(&self) -> Spread {
        let values = &self.sorted[..self.len];
        let Some(last) = values.len().checked_sub(1) else {
            return Spread {
                median: 0.0,
                deviation: 0.0,
            };
        };
        let middle = if values.len() < CLASS.few {
            last / 3
        } else {
            last / 2
        };
        let median = values[middle];
        // The deviations ascend on both sides of the median: takes the lesser one until half are taken.
        let (mut below, mut above) = (middle, middle + 1);
        let mut deviation = 0.0;
        for _ in 0..values.len() / 2 {
            let left = below.checked_sub(1).map(|at| median - values[at]);
            let right = values.get(above).map(|value| value - median);
            deviation = match (left, right) {
                (Some(left), Some(right)) if left <= right => {
                    below -= 1;
                    left
                }
                (Some(left), None) => {
                    below -= 1;
                    left
                }
                (_, Some(right)) => {
                    above += 1;
                    right
                }
                (None, None) => break,
            };
        }
        if values.len() < CLASS.judged {
            deviation = deviation.max(CLASS.few_spread * (values[last] - values[0]));
        }
        Spread { median, deviation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(factors: impl IntoIterator<Item = f32>) -> Class {
        let mut class = Class::default();
        for factor in factors {
            class.add(20.0, factor);
        }
        class
    }

    #[test]
    fn spikes_do_not_move_the_median() {
        let mut rng = fastrand::Rng::with_seed(7);
        let mut class = Class::default();
        for call in 0..1000 {
            let spike = if call % 50 == 17 { 3.0 } else { 0.0 };
            class.add(20.0, 0.5 + 0.1 * (rng.f32() + rng.f32() - 1.0) + spike);
            assert!((class.summary().median - 0.5).abs() < 0.12, "call {call}");
        }
        assert_eq!(class.summary().total, 1000);
    }

    #[test]
    fn four_outliers_in_a_row_are_ignored_and_five_are_the_new_truth() {
        let mut class = of([0.0, 0.01, -0.01, 0.02, 0.0, 0.01, -0.02, 0.0]);
        for _ in 0..4 {
            class.add(20.0, 1.1);
            assert!(class.summary().median < 0.05);
        }
        class.add(20.0, 1.1);
        assert_eq!(class.summary().median, 1.1);
        // One that is no outlier ends the row.
        for factor in [5.0, 5.0, 5.0, 5.0, 1.1, 5.0, 5.0, 5.0, 5.0] {
            class.add(20.0, factor);
        }
        assert_eq!(class.summary().median, 1.1);
    }

    #[test]
    fn a_slow_drift_is_followed() {
        let mut class = Class::default();
        for call in 0..200 {
            class.add(20.0, 0.005 * call as f32);
        }
        let median = class.summary().median;
        assert!((0.85..=1.0).contains(&median), "{median}");
    }

    #[test]
    fn the_faster_of_two_counts_and_more_measurements_lower_the_variance() {
        assert_eq!(of([2.0, 0.1]).summary().median, 0.1);
        let variance = |n: usize| of((0..n).map(|i| 0.05 * (i % 3) as f32)).summary().variance;
        assert!(variance(1) > variance(3) && variance(3) > variance(12));
    }

    #[test]
    fn a_saved_class_is_restored() {
        let class = of((0..40).map(|i| 0.01 * (i % 5) as f32));
        let recent: Vec<f64> = class.recent().map(f64::from).collect();
        let restored = Class::restored(20.0, &recent, 40);
        assert_eq!(restored.summary(), class.summary());
        let too_many = vec![0.25; 1000];
        assert_eq!(
            usize::from(Class::restored(20.0, &too_many, 0).summary().recent),
            RING
        );
    }

    proptest! {
        #[test]
        fn every_summary_is_finite(factors in prop::collection::vec(-20.0f32..20.0, 1..60)) {
            let summary = of(factors.iter().copied()).summary();
            let (least, most) = factors.iter().fold((f32::MAX, f32::MIN), |(l, m), f| (l.min(*f), m.max(*f)));
            prop_assert!((least..=most).contains(&summary.median));
            prop_assert!(summary.variance > 0.0 && summary.variance.is_finite());
        }

        #[test]
        fn the_deviation_is_the_median_of_the_deviations(factors in prop::collection::vec(-0.1f32..0.1, 8..32)) {
            let mut class = Class::default();
            factors.iter().for_each(|factor| class.push(*factor));
            let Spread { median, deviation } = class.spread();
            let mut sorted = factors.clone();
            sorted.sort_by(f32::total_cmp);
            prop_assert_eq!(median, sorted[(sorted.len() - 1) / 2]);
            let mut deviations: Vec<f32> = sorted.iter().map(|value| (value - median).abs()).collect();
            deviations.sort_by(f32::total_cmp);
            prop_assert_eq!(deviation, deviations[deviations.len() / 2]);
        }
    }
}
