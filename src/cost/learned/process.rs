//! Estimates for a size from measurements at other sizes: an Ornstein–Uhlenbeck process over log2 of the size.
//!
//! A Gaussian process whose covariance falls off exponentially with the distance (C. Rasmussen, C. Williams, "Gaussian
//! Processes for Machine Learning", MIT Press 2006, section 4.2). It is Markov: only the nearest measured size on either
//! side counts, which makes it cheap enough for every call. Its variance grows with the distance from both, up to the
//! variance without measurements.

use super::class::{RING, Summary};
use crate::cost::params::{PARAMS, ProcessParams};

/// The estimate of a log factor.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct LearnedFactor {
    /// The most likely log factor: predicted seconds are `exp` of it times the prior's.
    pub log_factor: f64,
    /// The variance of the log factor.
    pub variance: f64,
    /// The part of the variance that comes from noise in measurements rather than from a lack of them. 0 without
    /// measurements.
    pub noise: f64,
    /// Measurements of this size itself.
    pub samples: u64,
    /// Whether no size at least as large, or none at least as small, was measured.
    pub extrapolated: bool,
    /// Whether this size itself has the most measurements that count.
    pub settled: bool,
}

const PROCESS: ProcessParams = PARAMS.process;

/// The estimate at `size`. The classes ascend by size; `prior` is the estimate without them.
pub(super) fn estimate(classes: &[Summary], size: f64, prior: LearnedFactor) -> LearnedFactor {
    let above = classes.partition_point(|class| f64::from(class.size) < size);
    let left = above.checked_sub(1).and_then(|at| classes.get(at));
    let right = classes.get(above);
    let point = |class: &Summary| Point::new(class, size, &prior);
    match (left.map(point), right.map(point)) {
        (None, None) => prior,
        (Some(only), None) | (None, Some(only)) => LearnedFactor {
            extrapolated: only.distance > PROCESS.same,
            ..only.alone(&prior)
        },
        (Some(left), Some(right)) => {
            let (near, far) = if left.distance <= right.distance {
                (left, right)
            } else {
                (right, left)
            };
            if near.distance <= PROCESS.same && near.variance < PROCESS.sure_variance {
                near.alone(&prior)
            } else {
                near.beside(&far, &prior)
            }
        }
    }
}

/// A measured class, relative to the size of the estimate.
struct Point {
    /// Octaves between both sizes.
    distance: f64,
    /// The correlation between both sizes.
    correlation: f64,
    /// The difference of the log factor from the prior's.
    residual: f64,
    variance: f64,
    samples: u64,
    settled: bool,
}

impl Point {
    fn new(class: &Summary, size: f64, prior: &LearnedFactor) -> Self {
        let distance = (f64::from(class.size) - size).abs();
        let residual = f64::from(class.median) - prior.log_factor;
        let lone_spike = class.recent == 1 && residual > PROCESS.suspicious;
        Self {
            distance,
            correlation: if distance <= PROCESS.same {
                1.0
            } else {
                (-distance / PROCESS.range).exp()
            },
            residual,
            variance: if lone_spike {
                PROCESS.suspect_variance
            } else {
                f64::from(class.variance)
            },
            samples: if distance <= PROCESS.same {
                class.total
            } else {
                0
            },
            settled: distance <= PROCESS.same && usize::from(class.recent) == RING,
        }
    }

    /// The estimate from the prior and this point alone.
    fn alone(&self, prior: &LearnedFactor) -> LearnedFactor {
        let gain = self.correlation * prior.variance / (prior.variance + self.variance);
        LearnedFactor {
            log_factor: prior.log_factor + gain * self.residual,
            variance: prior.variance * (1.0 - self.correlation * gain),
            noise: gain * gain * self.variance,
            samples: self.samples,
            extrapolated: false,
            settled: self.settled,
        }
    }

    /// The estimate from the prior, this point, and a farther one on the other side.
    fn beside(&self, far: &Self, prior: &LearnedFactor) -> LearnedFactor {
        let scale = prior.variance;
        let cross = scale * self.correlation * far.correlation;
        let (near_sum, far_sum) = (scale + self.variance, scale + far.variance);
        let determinant = near_sum * far_sum - cross * cross;
        if determinant.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
            return self.alone(prior);
        }
        let (with_near, with_far) = (scale * self.correlation, scale * far.correlation);
        let near_gain = (with_near * far_sum - with_far * cross) / determinant;
        let far_gain = (with_far * near_sum - with_near * cross) / determinant;
        LearnedFactor {
            log_factor: prior.log_factor + near_gain * self.residual + far_gain * far.residual,
            variance: (scale - near_gain * with_near - far_gain * with_far).max(0.0),
            noise: near_gain * near_gain * self.variance + far_gain * far_gain * far.variance,
            samples: self.samples,
            extrapolated: false,
            settled: self.settled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOTHING: LearnedFactor = LearnedFactor {
        log_factor: 0.0,
        variance: 0.5,
        noise: 0.0,
        samples: 0,
        extrapolated: true,
        settled: false,
    };

    fn class(size: f32, median: f32, recent: u8) -> Summary {
        Summary {
            size,
            median,
            variance: 0.02 / f32::from(recent),
            recent,
            total: recent.into(),
        }
    }

    #[test]
    fn without_measurements_the_prior_is_the_estimate() {
        assert_eq!(estimate(&[], 20.0, NOTHING), NOTHING);
    }

    #[test]
    fn a_measured_size_is_reproduced_and_the_variance_grows_with_the_distance() {
        let measured = [class(16.0, 0.8, 16), class(22.0, 0.2, 16)];
        let at = |size| estimate(&measured, size, NOTHING);
        assert!((at(16.0).log_factor - 0.8).abs() < 0.01 && at(16.0).variance < 0.005);
        assert!((at(22.0).log_factor - 0.2).abs() < 0.01);
        let middle = at(19.0);
        assert!((0.4..0.6).contains(&middle.log_factor), "{middle:?}");
        assert!(middle.variance > at(17.0).variance && at(17.0).variance > at(16.0).variance);
        assert!(!middle.extrapolated);
        let outside = [24.0, 28.0, 40.0, 400.0].map(at);
        assert!(
            outside
                .windows(2)
                .all(|two| two[0].variance < two[1].variance)
        );
        assert!(outside.iter().all(|estimate| estimate.extrapolated));
        assert!((outside[3].variance - NOTHING.variance).abs() < 1e-6);
        assert!(outside[3].log_factor.abs() < 1e-6);
    }

    #[test]
    fn a_lone_spike_counts_little_but_a_second_one_counts() {
        let lone = estimate(&[class(20.0, 3.0, 1)], 20.0, NOTHING);
        let twice = estimate(&[class(20.0, 3.0, 2)], 20.0, NOTHING);
        assert!(lone.log_factor < 1.2 && lone.variance > 0.3, "{lone:?}");
        assert!(twice.log_factor > 2.8 && twice.variance < 0.05, "{twice:?}");
    }

    proptest! {
        #[test]
        fn measurements_never_raise_the_variance(
            points in prop::collection::btree_map(0i32..80, (-3.0f32..3.0, 1u8..16), 0..6),
            size in -10.0f64..60.0, mean in -1.0f64..1.0, variance in 0.01f64..1.0,
        ) {
            let classes: Vec<_> = points.iter().map(|(at, (median, n))| class(*at as f32 / 2.0, *median, *n)).collect();
            let prior = LearnedFactor { log_factor: mean, variance, ..NOTHING };
            let found = estimate(&classes, size, prior);
            prop_assert!(found.variance >= 0.0 && found.variance <= variance * (1.0 + 1e-9), "{:?}", found);
            prop_assert!(found.log_factor.is_finite() && found.noise >= 0.0);
            let (least, most) = classes.iter().fold((mean, mean), |(l, m), c| (l.min(c.median.into()), m.max(c.median.into())));
            prop_assert!(found.log_factor >= least - 0.5 && found.log_factor <= most + 0.5, "{:?}", found);
        }
    }
}
