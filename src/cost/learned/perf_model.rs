//! What a plan sees of a kernel's measurements, and what it believes of a part that may never have been measured.

use super::class::{Summary, class_of};
use super::process::{self, LearnedFactor};
use super::variant::Variant;
use crate::device::{DeviceId, DeviceSet};
use smallvec::SmallVec;
use std::sync::Arc;

/// The share of the items that each of several devices gets.
pub type SplitHistory = SmallVec<[(DeviceId, f64); 4]>;

/// The variance of a log factor of which nothing was measured: most kernels are within a factor of two of the roofline.
const UNKNOWN_VARIANCE: f64 = 0.5;
/// What is added to the variance when an arm is judged by another of the same device.
const SIBLING_VARIANCE: f64 = 0.03;

/// What is known of one kernel from its runs: an unchanging picture, for one plan.
#[derive(Clone, Debug, Default)]
pub struct PerfModel {
    picture: Option<Arc<KernelSummary>>,
}

/// What a plan sees of a kernel.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct KernelSummary {
    pub variants: Vec<VariantSummary>,
    /// How many calls of a class of sizes there were, ascending.
    pub visits: Vec<(i16, u32)>,
    /// How the items of a class of sizes were last shared with success, ascending.
    pub splits: Vec<(i16, MeasuredSplit)>,
}

/// A split that was chosen, or tried and found faster than the one chosen before.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MeasuredSplit {
    shares: SplitHistory,
    /// The logarithm of the seconds that such calls take, smoothed.
    log_seconds: f64,
}

impl MeasuredSplit {
    pub fn new(shares: SplitHistory, seconds: f64) -> Self {
        Self {
            shares,
            log_seconds: seconds.ln(),
        }
    }

    /// Goes over to another split that was chosen, or to one that was only tried if it took clearly less.
    pub fn replace(&mut self, other: Self, tried: bool) {
        /// How much a single call, which may have been disturbed, counts.
        const WEIGHT: f64 = 0.2;
        const LARGEST_STEP: f64 = 0.3;
        const CLEARLY: f64 = 0.05;
        let step = other.log_seconds - self.log_seconds;
        if !tried {
            self.shares = other.shares;
            self.log_seconds += WEIGHT * step.clamp(-LARGEST_STEP, LARGEST_STEP);
        } else if step < -CLEARLY {
            *self = other;
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct VariantSummary {
    pub variant: Variant,
    pub classes: Vec<Summary>,
    /// For each class, the visits to the call's size when it was last measured.
    pub measured_at: Vec<u32>,
}

/// What else is known of a part whose speed is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunConditions {
    /// The share of the prior's seconds that is not spent on moving data.
    pub execution_share: f64,
    /// By how much the devices beside it are expected to slow it down, as a natural logarithm.
    pub log_slowdown: f64,
}

impl PerfModel {
    pub(super) fn of(picture: Option<Arc<KernelSummary>>) -> Self {
        Self { picture }
    }

    /// What is believed of a part of that size, run that way.
    ///
    /// Where the arm itself was not measured, the same device with and without moving data tell of each other, and a
    /// device by itself tells of one beside others. Another device, another number of threads or another kernel tell
    /// nothing.
    pub fn estimate(&self, variant: &Variant, size: f64, known: &RunConditions) -> LearnedFactor {
        let nothing = LearnedFactor {
            log_factor: 0.0,
            variance: UNKNOWN_VARIANCE,
            noise: 0.0,
            samples: 0,
            extrapolated: true,
            settled: false,
        };
        let Some(picture) = &self.picture else {
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
        let from_sibling = picture.believe(&sibling, size, nothing).map(|sibling| {
            let execution = known.execution_share;
            // A resident run tells of the execution only; a run with transfers mostly tells of those if they prevail.
            let log_factor = if variant.moved {
                (execution * sibling.log_factor.exp() + 1.0 - execution).ln()
            } else {
                sibling.log_factor
            };
            sibling.of_another(log_factor, 0.25 * (1.0 - execution).powi(2))
        });
        let prior = from_sibling.unwrap_or(nothing);
        let solo = picture.believe(&alone, size, prior).unwrap_or(prior);
        // Alone a device is not slower than beside others.
        let beside = picture.beside(&alone, size);
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
        picture.believe(variant, size, slowed).unwrap_or(slowed)
    }

    /// How the items of a call of that size were last shared with success.
    pub fn shares(&self, size: f64) -> Option<&SplitHistory> {
        let splits = &self.picture.as_ref()?.splits;
        let class = class_of(size);
        let at = splits.binary_search_by_key(&class, |(class, _)| *class);
        at.ok().map(|at| &splits[at].1.shares)
    }

    /// How many calls of about that size there were.
    pub fn visits(&self, size: f64) -> u32 {
        self.picture
            .as_ref()
            .map_or(0, |picture| visits_near(&picture.visits, class_of(size)))
    }
}

impl LearnedFactor {
    /// The same with that log factor, as what is believed of another arm of the same device before it is measured.
    fn of_another(self, log_factor: f64, doubt: f64) -> Self {
        Self {
            log_factor,
            variance: (self.variance + SIBLING_VARIANCE + doubt).min(UNKNOWN_VARIANCE),
            settled: false,
            ..self
        }
    }
}

impl KernelSummary {
    /// What a device did beside others at about that size, if that was measured well: alone it does no worse.
    fn beside(&self, alone: &Variant, size: f64) -> Option<LearnedFactor> {
        const NEAR: f64 = 0.5;
        const ENOUGH: u8 = 5;
        let same = |picture: &&VariantSummary| {
            let variant = &picture.variant;
            let way = (variant.device, variant.threads, variant.moved);
            !variant.beside.is_empty() && way == (alone.device, alone.threads, alone.moved)
        };
        let near = |class: &&Summary| {
            class.recent >= ENOUGH && (f64::from(class.size) - size).abs() <= NEAR
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
            variance: (noise + SIBLING_VARIANCE).min(UNKNOWN_VARIANCE),
            noise,
            samples: 0,
            extrapolated: false,
            settled: false,
        })
    }

    /// How many calls of about the size of a class there were since it was last measured.
    pub fn calls_since(&self, variant: usize, class: usize) -> u32 {
        let variant = &self.variants[variant];
        let size = f64::from(variant.classes[class].size);
        visits_near(&self.visits, class_of(size)).saturating_sub(variant.measured_at[class])
    }

    /// What the measurements of an arm, if there are any, make of what would be believed without them.
    fn believe(&self, variant: &Variant, size: f64, prior: LearnedFactor) -> Option<LearnedFactor> {
        let found = self
            .variants
            .iter()
            .find(|picture| picture.variant == *variant)?;
        let believed = process::estimate(&found.classes, size, prior);
        Some(if variant.beside.is_empty() {
            found.aged(believed, size, &self.visits)
        } else {
            believed
        })
    }
}

impl VariantSummary {
    /// The same, less sure the more calls of that size ran another way since: devices change.
    fn aged(&self, believed: LearnedFactor, size: f64, visits: &[(i16, u32)]) -> LearnedFactor {
        const PER_CALL: f64 = 2e-3;
        const MOST: f64 = 0.25;
        let now = visits_near(visits, class_of(size));
        let nearest = |(a, _): &(&Summary, &u32), (b, _): &(&Summary, &u32)| {
            let distance = |class: &Summary| (f64::from(class.size) - size).abs();
            distance(a).total_cmp(&distance(b))
        };
        let classes = self.classes.iter().zip(&self.measured_at);
        let last = classes.min_by(nearest).map_or(now, |(_, at)| *at);
        let age = f64::from(now.saturating_sub(last));
        LearnedFactor {
            variance: (believed.variance + (PER_CALL * age).min(MOST)).min(UNKNOWN_VARIANCE),
            ..believed
        }
    }
}

/// Calls of about the size of a class.
pub(super) fn visits_near(visits: &[(i16, u32)], class: i16) -> u32 {
    let first = visits.partition_point(|(known, _)| *known < class - 1);
    visits[first..]
        .iter()
        .take_while(|(known, _)| *known <= class + 1)
        .map(|(_, count)| *count)
        .fold(0, u32::saturating_add)
}
