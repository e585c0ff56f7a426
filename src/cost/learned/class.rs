//! The measurements of one arm at sizes within half an octave: a ring of recent ones, summed up by median and
//! median absolute deviation, which a spike does not move.

use smallvec::SmallVec;

/// Recent measurements that count.
pub(super) const RING: usize = 32;
/// As many before one of them can be told to be an outlier.
const JUDGED: usize = 5;
/// Fewer than so many are not trusted to be undisturbed for the most part.
const FEW: usize = 8;
/// Outliers in a row that are a new truth.
const NEW_TRUTH: usize = 5;
/// Median absolute deviations from the median beyond which a measurement is an outlier.
const OUTLIER: f32 = 5.0;
/// The least deviation that is believed: a lucky streak of equal times says little.
const LEAST_DEVIATION: f32 = 0.02;
/// The standard deviation of a normal distribution in median absolute deviations.
const NORMAL: f32 = 1.4826;
/// The variance of a median over that of a mean, of as many normal samples.
const MEDIAN_VARIANCE: f32 = 1.57;
/// How likely it is that a device that changed at one size did so at another.
const LIKELY: f32 = 0.5;
/// The logarithm of as much as a device is expected to change by, at sizes at which that was not measured.
const LARGEST_SHIFT: f32 = 1.4;
/// The deviation of the first measurement of a class, which may well be a cold one. More of them soon tell more.
const FIRST_DEVIATION: f32 = 0.4;

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
    outliers: [f32; NEW_TRUTH],
    outlying: usize,
    /// Measurements ever.
    total: u64,
    /// The mean of the sizes measured.
    size: f64,
    /// By how much the device's log factors changed since, going by those at another size.
    shift: Option<f32>,
}

/// What is believed of a class.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Summary {
    /// The mean of the sizes measured.
    pub size: f32,
    /// The median of the log factors.
    pub median: f32,
    /// The variance of that median.
    pub variance: f32,
    /// How many it rests on.
    pub recent: u8,
    /// How many there were ever.
    pub total: u64,
}

impl Class {
    /// A class that was kept: its recent log factors, oldest first, and how many there were ever.
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

    /// Takes a measurement in, unless it is an outlier and not one of many. If those are a new truth, returns by how much
    /// it differs from the old.
    pub(super) fn add(&mut self, size: f64, log_factor: f32) -> Option<f32> {
        self.total = self.total.saturating_add(1);
        if let Some(shift) = self.shift.take() {
            let (median, _) = self.median_and_deviation();
            let distance = |expected: f32| (log_factor - expected).abs();
            if distance(median + shift) < distance(median) {
                // So it did change here too.
                (self.len, self.next, self.outlying) = (0, 0, 0);
            }
        }
        let weight = 1.0 / (self.total.min(RING as u64) as f64);
        self.size += weight * (size - self.size);
        if self.len >= JUDGED {
            let (median, deviation) = self.median_and_deviation();
            if (log_factor - median).abs() > OUTLIER * deviation.max(LEAST_DEVIATION) {
                self.outliers[self.outlying] = log_factor;
                self.outlying += 1;
                if self.outlying == NEW_TRUTH {
                    (self.len, self.next, self.outlying) = (0, 0, 0);
                    let truth = self.outliers;
                    truth.into_iter().for_each(|factor| self.push(factor));
                    return Some(self.median_and_deviation().0 - median);
                }
                return None;
            }
        }
        self.outlying = 0;
        self.push(log_factor);
        None
    }

    /// Takes note that the device's log factors changed by so much at another size: perhaps here too, until it is
    /// measured.
    pub(super) fn doubt(&mut self, shift: f32) {
        let both = self.shift.unwrap_or(0.0) + shift;
        self.shift = Some(both.clamp(-LARGEST_SHIFT, LARGEST_SHIFT));
    }

    /// Forgets all measurements but the `most` latest ones: the others are too old to be held against a new one.
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

    /// What there is to believe. There must have been a measurement.
    pub(super) fn summary(&self) -> Summary {
        let (median, deviation) = self.median_and_deviation();
        let count = self.len.max(1) as f32;
        let measured = NORMAL * deviation.max(LEAST_DEVIATION);
        let deviation = if self.len >= JUDGED {
            measured
        } else {
            measured.max(FIRST_DEVIATION / count.sqrt())
        };
        let shift = self.shift.unwrap_or(0.0);
        Summary {
            size: self.size as f32,
            median: median + LIKELY * shift,
            variance: deviation * deviation * MEDIAN_VARIANCE.min(count) / count
                + LIKELY * (1.0 - LIKELY) * shift * shift,
            recent: self.len as u8,
            total: self.total,
        }
    }

    /// The median and the median absolute deviation from it. Of few, a lower one than the median: whatever disturbs a
    /// measurement makes it longer, and two of three may have been disturbed.
    fn median_and_deviation(&self) -> (f32, f32) {
        let values = &self.sorted[..self.len];
        let Some(last) = values.len().checked_sub(1) else {
            return (0.0, 0.0);
        };
        let middle = if values.len() < FEW {
            last / 3
        } else {
            last / 2
        };
        let median = values[middle];
        // The deviations ascend on both sides of the median: take the lesser until half are taken.
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
        if values.len() < JUDGED {
            (median, deviation.max(0.3 * (values[last] - values[0])))
        } else {
            (median, deviation)
        }
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
    fn of_two_the_faster_is_believed_and_more_make_it_surer() {
        assert_eq!(of([2.0, 0.1]).summary().median, 0.1);
        let variance = |n: usize| of((0..n).map(|i| 0.05 * (i % 3) as f32)).summary().variance;
        assert!(variance(1) > variance(3) && variance(3) > variance(12));
    }

    #[test]
    fn what_was_kept_is_restored() {
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
        fn whatever_comes_the_summary_is_finite(factors in prop::collection::vec(-20.0f32..20.0, 1..60)) {
            let summary = of(factors.iter().copied()).summary();
            let (least, most) = factors.iter().fold((f32::MAX, f32::MIN), |(l, m), f| (l.min(*f), m.max(*f)));
            prop_assert!((least..=most).contains(&summary.median));
            prop_assert!(summary.variance > 0.0 && summary.variance.is_finite());
        }

        #[test]
        fn the_deviation_is_the_median_of_the_deviations(factors in prop::collection::vec(-0.1f32..0.1, 8..32)) {
            let mut class = Class::default();
            factors.iter().for_each(|factor| class.push(*factor));
            let (median, deviation) = class.median_and_deviation();
            let mut sorted = factors.clone();
            sorted.sort_by(f32::total_cmp);
            prop_assert_eq!(median, sorted[(sorted.len() - 1) / 2]);
            let mut deviations: Vec<f32> = sorted.iter().map(|value| (value - median).abs()).collect();
            deviations.sort_by(f32::total_cmp);
            prop_assert_eq!(deviation, deviations[deviations.len() / 2]);
        }
    }
}
