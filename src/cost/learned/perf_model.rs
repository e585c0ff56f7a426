//! The snapshot of a kernel's measurements that a plan sees, and estimates for parts that may be unmeasured.

use super::class::{Summary, class_of};
use super::process::{self, LearnedFactor};
use super::variant::Variant;
use crate::cost::params::{ModelParams, PARAMS};
use crate::device::{DeviceId, DeviceSet};
use smallvec::SmallVec;
use std::sync::Arc;

/// The share of the items of each device.
pub type Shares = SmallVec<[(DeviceId, f64); 4]>;

const MODEL: ModelParams = PARAMS.model;

/// What runs taught about one kernel: an immutable snapshot, for one plan.
#[derive(Clone, Debug, Default)]
pub struct PerfModel {
    summary: Option<Arc<KernelSummary>>,
}

/// The state of one kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KernelSummary {
    pub variants: Vec<VariantSummary>,
    /// By ascending class.
    pub visits: Vec<Visits>,
    /// By ascending class.
    pub splits: Vec<MeasuredSplit>,
}

/// The number of calls of a class of sizes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Visits {
    pub class: i16,
    pub count: u32,
}

/// The last successful split of a class of sizes: one that was chosen, or tried and found faster than the chosen one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MeasuredSplit {
    pub class: i16,
    shares: Shares,
    /// The smoothed logarithm of the seconds that such calls take.
    log_seconds: f64,
}

impl MeasuredSplit {
    pub fn new(class: i16, shares: Shares, seconds: f64) -> Self {
        Self {
            class,
            shares,
            log_seconds: seconds.ln(),
        }
    }

    /// Replaces the shares by those that were chosen, or by those that were only tried if they took clearly less.
    pub fn replace(&mut self, other: Self, tried: bool) {
        let step = other.log_seconds - self.log_seconds;
        if !tried {
            let largest = MODEL.largest_split_step;
            self.shares = other.shares;
            self.log_seconds += MODEL.split_weight * step.clamp(-largest, largest);
        } else if step < -MODEL.clearly_faster {
            *self = other;
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct VariantSummary {
    pub variant: Variant,
    pub classes: Vec<Summary>,
    /// For each class, the calls near its size at its last measurement.
    pub measured_at: Vec<u32>,
}

/// The conditions of a part whose speed is estimated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunConditions {
    /// The share of the prior's seconds that does not move data.
    pub execution_share: f64,
    /// The natural logarithm of the slow-down that the devices beside it are expected to cause.
    pub log_slowdown: f64,
}

impl PerfModel {
    pub(super) fn of(summary: Option<Arc<KernelSummary>>) -> Self {
        Self { summary }
    }

    /// The estimate for a part of this size, run as this variant.
    ///
    /// If the variant itself is unmeasured, the estimate follows from the same device with or without moving data, or
    /// from the same device without others beside it. Another device, another number of threads or another kernel does
    /// not contribute.
    pub fn estimate(&self, variant: &Variant, size: f64, known: &RunConditions) -> LearnedFactor {
        let nothing = LearnedFactor {
            log_factor: 0.0,
            variance: MODEL.unknown_variance,
            noise: 0.0,
            samples: 0,
            extrapolated: true,
            settled: false,
        };
        let Some(summary) = &self.summary else {
            return LearnedFactor {
                log_factor: known.log_slowdown,
                ..nothing
            };
        };
        let alone = Variant {
            beside: DeviceSet::EMPTY,
            ..*variant
        };
        let sibling = Variant {
            moved: !variant.moved,
            ..alone
        };
        let from_sibling = summary.refine(&sibling, size, nothing).map(|sibling| {
            let execution = known.execution_share;
            // A resident run says nothing about transfers, and in a run with transfers they may prevail.
            let log_factor = if variant.moved {
                (execution * sibling.log_factor.exp() + 1.0 - execution).ln()
            } else {
                sibling.log_factor
            };
            sibling.of_another(log_factor, MODEL.moved_variance * (1.0 - execution).powi(2))
        });
        let prior = from_sibling.unwrap_or(nothing);
        let solo = summary.refine(&alone, size, prior).unwrap_or(prior);
        // A device alone is not slower than beside others.
        let beside = summary.beside(&alone, size);
        let solo = match beside {
            Some(beside)
                if beside.log_factor < solo.log_factor && beside.variance < solo.variance =>
            {
                beside
            }
            _ => solo,
        };
        if variant.beside.is_empty() {
            return solo;
        }
        let slowed = solo.of_another(solo.log_factor + known.log_slowdown, 0.0);
        summary.refine(variant, size, slowed).unwrap_or(slowed)
    }

    /// The last successful split of a call of this size.
    pub fn shares(&self, size: f64) -> Option<&Shares> {
        let splits = &self.summary.as_ref()?.splits;
        let at = splits.binary_search_by_key(&class_of(size), |split| split.class);
        at.ok().map(|at| &splits[at].shares)
    }

    /// The number of calls of about this size.
    pub fn visits(&self, size: f64) -> u32 {
        self.summary
            .as_ref()
            .map_or(0, |summary| visits_near(&summary.visits, class_of(size)))
    }
}

impl LearnedFactor {
    /// The estimate for another, unmeasured variant of the same device, with its log factor.
    fn of_another(self, log_factor: f64, doubt: f64) -> Self {
        Self {
            log_factor,
            variance: (self.variance + MODEL.sibling_variance + doubt).min(MODEL.unknown_variance),
            settled: false,
            ..self
        }
    }
}

impl KernelSummary {
    /// The fastest well-measured factor of the device beside others, at about this size: alone it is no slower.
    fn beside(&self, alone: &Variant, size: f64) -> Option<LearnedFactor> {
        let same = |summary: &&VariantSummary| {
            let variant = &summary.variant;
            let solo = Variant {
                beside: DeviceSet::EMPTY,
                ..*variant
            };
            !variant.beside.is_empty() && solo == *alone
        };
        let near = |class: &&Summary| {
            class.recent >= MODEL.beside_samples
                && (f64::from(class.size) - size).abs() <= MODEL.beside_octaves
        };
        let classes = self
            .variants
            .iter()
            .filter(same)
            .flat_map(|variant| &variant.classes);
        let fastest = classes
            .filter(near)
            .min_by(|a, b| a.median.total_cmp(&b.median))?;
        let noise = f64::from(fastest.variance);
        Some(LearnedFactor {
            log_factor: f64::from(fastest.median),
            variance: (noise + MODEL.sibling_variance).min(MODEL.unknown_variance),
            noise,
            samples: 0,
            extrapolated: false,
            settled: false,
        })
    }

    /// The number of calls near the size of a class since its last measurement.
    pub fn calls_since(&self, variant: usize, class: usize) -> u32 {
        let variant = &self.variants[variant];
        let size = f64::from(variant.classes[class].size);
        visits_near(&self.visits, class_of(size)).saturating_sub(variant.measured_at[class])
    }

    /// The estimate from the measurements of a variant, if there are any; `prior` is the estimate without them.
    fn refine(&self, variant: &Variant, size: f64, prior: LearnedFactor) -> Option<LearnedFactor> {
        let found = self
            .variants
            .iter()
            .find(|summary| summary.variant == *variant)?;
        let estimate = process::estimate(&found.classes, size, prior);
        Some(if variant.beside.is_empty() {
            found.aged(estimate, size, &self.visits)
        } else {
            estimate
        })
    }
}

impl VariantSummary {
    /// The estimate with more variance, the more calls of this size ran another way since: devices change.
    fn aged(&self, estimate: LearnedFactor, size: f64, visits: &[Visits]) -> LearnedFactor {
        let now = visits_near(visits, class_of(size));
        let nearest = |(a, _): &(&Summary, &u32), (b, _): &(&Summary, &u32)| {
            let distance = |class: &Summary| (f64::from(class.size) - size).abs();
            distance(a).total_cmp(&distance(b))
        };
        let classes = self.classes.iter().zip(&self.measured_at);
        let last = classes.min_by(nearest).map_or(now, |(_, at)| *at);
        let age = f64::from(now.saturating_sub(last));
        let doubt = (MODEL.variance_per_call * age).min(MODEL.largest_age_variance);
        LearnedFactor {
            variance: (estimate.variance + doubt).min(MODEL.unknown_variance),
            ..estimate
        }
    }
}

/// Calls of about the size of a class.
pub(super) fn visits_near(visits: &[Visits], class: i16) -> u32 {
    let first = visits.partition_point(|known| known.class < class - 1);
    visits[first..]
        .iter()
        .take_while(|known| known.class <= class + 1)
        .map(|known| known.count)
        .fold(0, u32::saturating_add)
}
