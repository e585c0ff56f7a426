//! Statistics of repeated times: which variant is the best, and how much slower another one is.
//!
//! Pure. The least of many noisy figures is a lucky one. Therefore one half of the samples chooses the variant, and the
//! other half gives its time.

use super::super::params::PARAMS;

/// The middle of some times, or the mean of the two in the middle. `None` if there are none.
pub fn median(times: &[f64]) -> Option<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

/// The mean of some times. `None` if there are none.
pub fn mean(times: &[f64]) -> Option<f64> {
    (!times.is_empty()).then(|| times.iter().sum::<f64>() / times.len() as f64)
}

/// Times of one variant, in the order of measurement.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds a sample.
    pub fn push(&mut self, seconds: f64) {
        self.0.push(seconds);
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The median of all samples.
    pub fn median(&self) -> Option<f64> {
        median(&self.0)
    }

    /// The median of the samples that choose the best variant: every other one, from the first.
    pub fn choosing(&self) -> Option<f64> {
        median(&self.every_other(0))
    }

    /// The median of the samples that give the variant's time: the others. A single sample serves for both; only variants
    /// far from the best have a single one.
    pub fn scoring(&self) -> Option<f64> {
        median(&self.every_other(1)).or_else(|| self.median())
    }

    fn every_other(&self, first: usize) -> Vec<f64> {
        self.0.iter().skip(first).step_by(2).copied().collect()
    }

    /// Whether further samples are a waste, if the best variant takes `best` seconds. They are not if any sample was
    /// fast, since a busy machine slows down any variant now and then.
    pub fn are_hopeless(&self, best: f64) -> bool {
        let limit = match self.len() {
            0 => return false,
            1 => PARAMS.audit.hopeless_at_once * best,
            _ => PARAMS.audit.hopeless * best,
        };
        self.0.iter().all(|seconds| *seconds > limit)
    }
}

/// The index of the best variant by the choosing half of the samples. `None` without samples.
pub fn best<'a>(variants: impl IntoIterator<Item = &'a Samples>) -> Option<usize> {
    let chosen_by = variants
        .into_iter()
        .enumerate()
        .filter_map(|(at, samples)| Some((at, samples.choosing()?)));
    chosen_by
        .min_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(at, _)| at)
}

/// The ratio of a time to the best time. It is finite even if the clock did not move.
pub fn ratio(seconds: f64, best: f64) -> f64 {
    /// No call takes less than this.
    const LEAST: f64 = 1e-9;
    seconds.max(LEAST) / best.max(LEAST)
}

/// The regret `Σ(T − O) / ΣO` of pairs of a time and the best time. `None` if the sum of the best times is 0.
pub fn regret(pairs: impl IntoIterator<Item = (f64, f64)>) -> Option<f64> {
    let (mut lost, mut best) = (0.0, 0.0);
    for (time, oracle) in pairs {
        lost += time - oracle;
        best += oracle;
    }
    (best > 0.0).then(|| lost / best)
}

/// The geometric mean of positive numbers. `None` if there are none.
pub fn geometric_mean(values: &[f64]) -> Option<f64> {
    let logarithms: Vec<f64> = values.iter().map(|value| value.ln()).collect();
    mean(&logarithms).map(f64::exp)
}

/// The share of the numbers for which `holds` is true. `None` if there are none.
pub fn share(values: &[f64], holds: impl Fn(f64) -> bool) -> Option<f64> {
    let holding = values.iter().filter(|value| holds(**value)).count();
    (!values.is_empty()).then(|| holding as f64 / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(times: &[f64]) -> Samples {
        Samples(times.to_vec())
    }

    #[test]
    fn medians_are_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    }

    #[test]
    fn one_half_of_the_samples_chooses_and_the_other_scores() {
        // Chosen by 1, 1, 1; its time is 5.
        let lucky = samples(&[1.0, 5.0, 1.0, 5.0, 1.0, 5.0]);
        let steady = samples(&[2.0; 6]);
        assert_eq!(best([&steady, &lucky]), Some(1));
        assert_eq!(lucky.scoring(), Some(5.0));
        // Luck in the scoring half does not choose a variant.
        let late = samples(&[3.0, 0.1, 3.0, 0.1]);
        assert_eq!(best([&steady, &late]), Some(0));
    }

    #[test]
    fn the_best_of_nothing_is_nothing() {
        assert_eq!(best([]), None);
        assert_eq!(best([&samples(&[]), &samples(&[])]), None);
        assert_eq!(best([&samples(&[]), &samples(&[7.0])]), Some(1));
        assert_eq!(samples(&[]).scoring(), None);
        assert_eq!(samples(&[7.0]).scoring(), Some(7.0));
    }

    #[test]
    fn hopeless_variants_are_given_up_after_one_or_two_samples() {
        assert!(!samples(&[]).are_hopeless(1.0));
        assert!(!samples(&[9.0]).are_hopeless(1.0));
        assert!(samples(&[11.0]).are_hopeless(1.0));
        assert!(samples(&[9.0, 9.0]).are_hopeless(1.0));
        assert!(
            !samples(&[9.0, 9.0, 1.0]).are_hopeless(1.0),
            "it can do better"
        );
        assert!(!samples(&[2.9, 2.9]).are_hopeless(1.0));
    }

    #[test]
    fn regret_weighs_rows_by_their_time() {
        let pairs = [(2.0, 1.0), (100.0, 100.0)];
        assert_eq!(regret(pairs), Some(1.0 / 101.0));
        assert_eq!(regret([(1.0, 1.0)]), Some(0.0));
        assert_eq!(regret([(0.5, 1.0)]), Some(-0.5));
        assert_eq!(regret([]), None);
        assert_eq!(regret([(1.0, 0.0)]), None);
    }

    #[test]
    fn ratios_are_finite_if_the_clock_did_not_move() {
        assert_eq!(ratio(0.0, 0.0), 1.0);
        assert_eq!(ratio(3.0, 2.0), 1.5);
        assert!(ratio(1.0, 0.0).is_finite());
    }

    #[test]
    fn geometric_means_and_shares() {
        let close = |a: Option<f64>, b: f64| (a.expect("some") - b).abs() < 1e-12;
        assert!(close(geometric_mean(&[0.5, 2.0]), 1.0));
        assert!(close(geometric_mean(&[4.0, 9.0]), 6.0));
        assert_eq!(geometric_mean(&[]), None);
        assert_eq!(
            share(&[1.0, 1.05, 1.2, 2.0], |ratio| ratio <= 1.05),
            Some(0.5)
        );
        assert_eq!(share(&[], |_| true), None);
    }

    proptest! {
        #[test]
        fn a_variant_that_is_always_faster_is_the_best(times in proptest::collection::vec(1e-9f64..1.0, 1..40), factor in 1.01f64..5.0) {
            let fast = Samples(times.clone());
            let slow = Samples(times.iter().map(|time| time * factor).collect());
            prop_assert_eq!(best([&slow, &fast]), Some(1));
            prop_assert!(fast.scoring() < slow.scoring());
            let least = fast.median().expect("some");
            prop_assert!(!fast.are_hopeless(least));
        }

        #[test]
        fn a_median_lies_among_the_times(times in proptest::collection::vec(0.0f64..1.0, 1..40)) {
            let (low, high) = times.iter().fold((1.0f64, 0.0f64), |(low, high), t| (low.min(*t), high.max(*t)));
            let median = median(&times).expect("some");
            prop_assert!(low <= median && median <= high);
        }
    }
}
