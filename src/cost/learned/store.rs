//! The measurements of all kernels, from any thread, and the exploration budget.

use super::class::{Class, class_of};
use super::perf_model::{
    KernelSummary, MeasuredSplit, PerfModel, Shares, VariantSummary, Visits, visits_near,
};
use super::record::{ClassRecord, Record};
use super::variant::{KernelKey, Sample, Variant};
use crate::cost::bounds::LARGEST_LOG_FACTOR;
use crate::cost::params::{LearnerParams, PARAMS};
use crate::element::ElementType;
use crate::hash::fnv1a;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

const LEARNER: LearnerParams = PARAMS.learner;

/// Stores how long kernels took. Shared by all threads of a runtime.
#[derive(Debug, Default)]
pub struct Learner {
    kernels: RwLock<HashMap<u64, Arc<Mutex<Kernel>>>>,
    spent: Mutex<Spent>,
}

/// The time that calls may spend on trying slower-looking variants.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExplorationBudget {
    /// Seconds that may be spent.
    pub seconds: f64,
    /// The seconds that each spent second must be expected to save. The price rises as the budget is spent, so that the
    /// rest goes where it pays best.
    pub price: f64,
}

impl Default for ExplorationBudget {
    /// Nothing.
    fn default() -> Self {
        Self {
            seconds: 0.0,
            price: f64::INFINITY,
        }
    }
}

/// Seconds of all calls.
#[derive(Clone, Copy, Debug, Default)]
struct Spent {
    all: f64,
    exploring: f64,
}

/// The measurements of one kernel.
#[derive(Debug)]
struct Kernel {
    name: Box<str>,
    element_type: Option<ElementType>,
    implementation: u64,
    variants: Vec<MeasuredVariant>,
    summary: Arc<KernelSummary>,
}

/// The measurements of one variant.
#[derive(Debug)]
struct MeasuredVariant {
    variant: Variant,
    /// The classes with data, by ascending class.
    classes: Vec<MeasuredClass>,
}

/// The measurements of one class of sizes.
#[derive(Debug)]
struct MeasuredClass {
    class: i16,
    measurements: Class,
}

/// Where a class of a variant is.
#[derive(Clone, Copy)]
struct ClassIndex {
    variant: usize,
    class: usize,
}

impl Learner {
    /// A learner that knows nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A snapshot of a kernel's measurements.
    pub fn perf_model(&self, key: &KernelKey<'_>) -> PerfModel {
        let kernel = self.find(key);
        PerfModel::of(kernel.map(|kernel| Arc::clone(&lock(&kernel).summary)))
    }

    /// Records a call of `size` (log2 of the sum of its operations, bytes and items) and the times of its parts. A time
    /// that is not positive, as from a clock that does not move, is ignored.
    pub fn observe(
        &self,
        key: &KernelKey<'_>,
        size: f64,
        samples: impl IntoIterator<Item = Sample>,
    ) {
        let kernel = self.find_or_insert(key);
        let mut kernel = lock(&kernel);
        kernel.visit(class_of(size));
        for sample in samples {
            kernel.add(&sample);
        }
    }

    /// Records the split of a call of `size` and the call's seconds. A split that was only `tried` is recorded if it
    /// took less than the one chosen before.
    pub fn remember(
        &self,
        key: &KernelKey<'_>,
        size: f64,
        shares: Shares,
        seconds: f64,
        tried: bool,
    ) {
        if seconds > 0.0 && seconds.is_finite() && size.is_finite() {
            let kernel = self.find_or_insert(key);
            let split = MeasuredSplit::new(class_of(size), shares, seconds);
            lock(&kernel).remember(split, tried);
        }
    }

    /// Adds the seconds of a call to the accounts, and whether the call explored.
    pub fn account(&self, seconds: f64, exploring: bool) {
        if !(seconds > 0.0 && seconds.is_finite()) {
            return;
        }
        let mut spent = lock(&self.spent);
        spent.all += seconds;
        if exploring {
            spent.exploring += seconds;
        }
    }

    /// The exploration budget now.
    pub fn exploration_budget(&self) -> ExplorationBudget {
        let spent = *lock(&self.spent);
        let whole = LEARNER.exploring_share * spent.all;
        let seconds = (whole - spent.exploring).max(0.0);
        ExplorationBudget {
            seconds,
            price: if seconds > 0.0 {
                (whole - seconds) / seconds
            } else {
                f64::INFINITY
            },
        }
    }

    /// The share of the accounted seconds that went into exploring.
    pub fn exploring_share(&self) -> f64 {
        let spent = *lock(&self.spent);
        if spent.all > 0.0 {
            spent.exploring / spent.all
        } else {
            0.0
        }
    }

    /// Everything that was learned.
    pub fn records(&self) -> Vec<Record> {
        let kernels = self.kernels.read().unwrap_or_else(PoisonError::into_inner);
        let mut records: Vec<Record> = kernels
            .values()
            .flat_map(|kernel| lock(kernel).records())
            .collect();
        records.sort_by(|a, b| {
            let element_type = |r: &Record| r.element_type.map(ElementType::name);
            let key = |r: &Record| {
                (
                    element_type(r),
                    r.implementation,
                    r.device,
                    r.threads,
                    r.moved,
                )
            };
            (&a.kernel, key(a), &a.beside).cmp(&(&b.kernel, key(b), &b.beside))
        });
        records
    }

    /// Restores records where nothing, or less, is known. Ignores records that are not sound.
    pub fn restore(&self, records: &[Record]) {
        for record in records.iter().filter(|record| record.is_sound()) {
            let kernel = self.find_or_insert(&KernelKey {
                name: &record.kernel,
                element_type: record.element_type,
                implementation: record.implementation,
            });
            lock(&kernel).restore(record);
        }
    }

    fn find(&self, key: &KernelKey<'_>) -> Option<Arc<Mutex<Kernel>>> {
        let kernels = self.kernels.read().unwrap_or_else(PoisonError::into_inner);
        kernels.get(&fingerprint(key)).map(Arc::clone)
    }

    fn find_or_insert(&self, key: &KernelKey<'_>) -> Arc<Mutex<Kernel>> {
        self.find(key).unwrap_or_else(|| {
            let mut kernels = self.kernels.write().unwrap_or_else(PoisonError::into_inner);
            if kernels.len() >= LEARNER.most_kernels {
                forget_rare(&mut kernels);
            }
            let kernel = kernels
                .entry(fingerprint(key))
                .or_insert_with(|| Arc::new(Mutex::new(Kernel::new(key))));
            Arc::clone(kernel)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets at least half of the kernels: those with the fewest calls.
fn forget_rare(kernels: &mut HashMap<u64, Arc<Mutex<Kernel>>>) {
    let calls = |kernel: &Arc<Mutex<Kernel>>| {
        let visits = &lock(kernel).summary.visits;
        visits.iter().map(|visits| u64::from(visits.count)).sum()
    };
    let mut counts: Vec<u64> = kernels.values().map(calls).collect();
    let middle = counts.len() / 2;
    let (_, median, _) = counts.select_nth_unstable(middle);
    let median = *median;
    kernels.retain(|_, kernel| calls(kernel) > median);
}

/// A hash of the key: at 64 bits, a collision within a program is unlikely enough.
fn fingerprint(key: &KernelKey<'_>) -> u64 {
    let element_type = key.element_type.map_or("", ElementType::name);
    let name = key.name.bytes().chain([0xff]).chain(element_type.bytes());
    fnv1a(name.chain(key.implementation.to_le_bytes()))
}

impl Kernel {
    fn new(key: &KernelKey<'_>) -> Self {
        Self {
            name: key.name.into(),
            element_type: key.element_type,
            implementation: key.implementation,
            variants: Vec::new(),
            summary: Arc::default(),
        }
    }

    fn visit(&mut self, class: i16) {
        let visits = &mut Arc::make_mut(&mut self.summary).visits;
        match visits.binary_search_by_key(&class, |visits| visits.class) {
            Ok(at) => visits[at].count = visits[at].count.saturating_add(1),
            Err(at) => visits.insert(at, Visits { class, count: 1 }),
        }
    }

    fn remember(&mut self, split: MeasuredSplit, tried: bool) {
        let splits = &mut Arc::make_mut(&mut self.summary).splits;
        match splits.binary_search_by_key(&split.class, |known| known.class) {
            Ok(at) => splits[at].replace(split, tried),
            Err(at) => splits.insert(at, split),
        }
    }

    fn measurements(&mut self, at: ClassIndex) -> &mut Class {
        &mut self.variants[at.variant].classes[at.class].measurements
    }

    fn add(&mut self, sample: &Sample) {
        let log_factor = (sample.seconds / sample.prior_seconds).ln();
        // Negated, so that NaN is ignored too.
        if !(log_factor.abs() <= LARGEST_LOG_FACTOR && sample.size.is_finite()) {
            return;
        }
        let at = self.class(sample.variant, class_of(sample.size));
        let stale = self.summary.calls_since(at.variant, at.class) >= LEARNER.stale_calls;
        let class = self.measurements(at);
        if stale && sample.variant.beside.is_empty() {
            class.keep_latest(LEARNER.kept_of_stale);
        }
        if let Some(shift) = class.add(sample.size, log_factor as f32) {
            let changed = class.clone();
            self.doubt(&sample.variant, sample.size, shift);
            *self.measurements(at) = changed;
        }
        self.summarize(at);
    }

    /// Raises the variance of all variants with the same device and threads, since the device changed at one size. The
    /// effect falls off with the distance in size: what makes small calls slow, such as threads that must wake up, does
    /// not affect large ones.
    fn doubt(&mut self, changed: &Variant, size: f64, shift: f32) {
        for (at, measured) in self.variants.iter_mut().enumerate() {
            let variant = &measured.variant;
            if variant.device != changed.device || variant.threads != changed.threads {
                continue;
            }
            let summaries = &mut Arc::make_mut(&mut self.summary).variants[at].classes;
            for (class, summary) in measured.classes.iter_mut().zip(summaries) {
                let distance = (summary.size - size as f32).abs();
                let measurements = &mut class.measurements;
                measurements.doubt(shift * (-distance / LEARNER.doubt_range).exp());
                *summary = measurements.summary();
            }
        }
    }

    fn restore(&mut self, record: &Record) {
        for class in &record.classes {
            let at = self.class(record.variant(), class_of(class.size));
            let known = self.measurements(at);
            let restored = Class::restored(class.size, &class.recent, class.samples);
            if known.recent().next().is_none() || known.summary().total < restored.summary().total {
                *known = restored;
            }
            self.summarize(at);
        }
    }

    /// The index of a class of a variant. Inserts what is missing.
    fn class(&mut self, variant: Variant, class: i16) -> ClassIndex {
        let index = self
            .variants
            .iter()
            .position(|known| known.variant == variant);
        let index = index.unwrap_or_else(|| {
            self.variants.push(MeasuredVariant {
                variant,
                classes: Vec::new(),
            });
            Arc::make_mut(&mut self.summary)
                .variants
                .push(VariantSummary {
                    variant,
                    classes: Vec::new(),
                    measured_at: Vec::new(),
                });
            self.variants.len() - 1
        });
        let classes = &mut self.variants[index].classes;
        let at = classes.partition_point(|known| known.class < class);
        if classes.get(at).is_none_or(|known| known.class != class) {
            let measurements = Class::default();
            let summary = &mut Arc::make_mut(&mut self.summary).variants[index];
            summary.classes.insert(at, measurements.summary());
            summary.measured_at.insert(at, 0);
            let measured = MeasuredClass {
                class,
                measurements,
            };
            classes.insert(at, measured);
        }
        ClassIndex {
            variant: index,
            class: at,
        }
    }

    /// Updates the summary of a class.
    fn summarize(&mut self, at: ClassIndex) {
        let measured = &self.variants[at.variant].classes[at.class];
        let summary = Arc::make_mut(&mut self.summary);
        let visits = visits_near(&summary.visits, measured.class);
        let variant = &mut summary.variants[at.variant];
        variant.classes[at.class] = measured.measurements.summary();
        variant.measured_at[at.class] = visits;
    }

    fn records(&self) -> Vec<Record> {
        let class = |MeasuredClass { measurements, .. }: &MeasuredClass| {
            let summary = measurements.summary();
            ClassRecord {
                size: f64::from(summary.size),
                samples: summary.total,
                recent: measurements.recent().map(f64::from).collect(),
            }
        };
        let record = |MeasuredVariant { variant, classes }: &MeasuredVariant| Record {
            kernel: self.name.to_string(),
            element_type: self.element_type,
            implementation: self.implementation,
            device: variant.device,
            threads: variant.threads,
            beside: variant.beside.iter().collect(),
            moved: variant.moved,
            classes: classes.iter().map(class).collect(),
        };
        self.variants.iter().map(record).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::RunConditions;
    use super::*;
    use crate::device::{DeviceId, DeviceSet};

    const CPU: Variant = Variant {
        device: DeviceId::Cpu,
        threads: 8,
        beside: DeviceSet::EMPTY,
        moved: false,
    };
    const GPU: Variant = Variant {
        device: DeviceId::Gpu(0),
        threads: 1,
        ..CPU
    };
    const PLAIN: RunConditions = RunConditions {
        execution_share: 1.0,
        log_slowdown: 0.0,
    };

    fn key() -> KernelKey<'static> {
        KernelKey::named("axpy")
    }

    fn sample(variant: Variant, size: f64, factor: f64) -> Sample {
        Sample {
            variant,
            size,
            prior_seconds: 1e-3,
            seconds: factor * 1e-3,
        }
    }

    fn factor(learner: &Learner, variant: Variant, size: f64) -> f64 {
        let estimate = learner.perf_model(&key()).estimate(&variant, size, &PLAIN);
        estimate.log_factor.exp()
    }

    #[test]
    fn kernels_types_implementations_devices_and_threads_are_learned_apart() {
        let learner = Learner::new();
        for _ in 0..5 {
            learner.observe(&key(), 20.0, [sample(CPU, 20.0, 2.0)]);
        }
        assert!((factor(&learner, CPU, 20.0) - 2.0).abs() < 0.05);
        assert_eq!(factor(&learner, GPU, 20.0), 1.0);
        assert_eq!(factor(&learner, Variant { threads: 1, ..CPU }, 20.0), 1.0);
        let others = [
            KernelKey::named("axpz"),
            KernelKey {
                implementation: 1,
                ..key()
            },
            KernelKey {
                element_type: Some(ElementType::F32),
                ..key()
            },
        ];
        for other in others {
            let unknown = learner.perf_model(&other).estimate(&CPU, 20.0, &PLAIN);
            assert_eq!((unknown.log_factor, unknown.samples), (0.0, 0), "{other:?}");
        }
    }

    #[test]
    fn a_snapshot_does_not_change_while_others_learn() {
        let learner = Learner::new();
        learner.observe(&key(), 20.0, [sample(CPU, 20.0, 2.0)]);
        let before = learner.perf_model(&key());
        let estimate = before.estimate(&CPU, 20.0, &PLAIN);
        for _ in 0..20 {
            learner.observe(
                &key(),
                20.0,
                [sample(CPU, 20.0, 4.0), sample(GPU, 20.0, 4.0)],
            );
        }
        assert_eq!(before.estimate(&CPU, 20.0, &PLAIN), estimate);
        assert!(factor(&learner, CPU, 20.0) > 3.5);
    }

    #[test]
    fn a_clock_that_does_not_move_teaches_nothing() {
        let learner = Learner::new();
        for (prior_seconds, seconds) in [
            (1.0, 0.0),
            (0.0, 1.0),
            (0.0, 0.0),
            (1.0, -1.0),
            (1.0, f64::NAN),
            (f64::INFINITY, 1.0),
            (1.0, f64::INFINITY),
        ] {
            let sample = Sample {
                prior_seconds,
                seconds,
                ..sample(CPU, 20.0, 1.0)
            };
            learner.observe(&key(), 20.0, [sample]);
            learner.account(seconds, true);
        }
        let mut nowhere = sample(CPU, f64::NAN, 1.0);
        learner.observe(&key(), 20.0, [nowhere]);
        nowhere.size = f64::INFINITY;
        learner.observe(&key(), 20.0, [nowhere]);
        assert_eq!(learner.records(), []);
        assert!(learner.exploration_budget().seconds >= 0.0 && learner.exploring_share() <= 1.0);
    }

    #[test]
    fn moving_runs_resident_runs_and_runs_beside_others_inform_each_other() {
        let learner = Learner::new();
        for _ in 0..8 {
            learner.observe(&key(), 20.0, [sample(GPU, 20.0, 3.0)]);
        }
        let perf_model = learner.perf_model(&key());
        let moved = Variant { moved: true, ..GPU };
        let half = RunConditions {
            execution_share: 0.5,
            log_slowdown: 0.0,
        };
        let estimate = perf_model.estimate(&moved, 20.0, &half);
        assert!(
            (estimate.log_factor.exp() - 2.0).abs() < 0.1,
            "{estimate:?}"
        );
        let beside = Variant {
            beside: DeviceSet::EMPTY.with(DeviceId::Cpu),
            ..GPU
        };
        let slowed = RunConditions {
            execution_share: 1.0,
            log_slowdown: 1.5f64.ln(),
        };
        let estimate = perf_model.estimate(&beside, 20.0, &slowed);
        assert!(
            (estimate.log_factor.exp() - 4.5).abs() < 0.2,
            "{estimate:?}"
        );
        assert!(estimate.variance > perf_model.estimate(&GPU, 20.0, &PLAIN).variance);
    }

    #[test]
    fn the_variance_grows_while_a_variant_is_not_measured() {
        let learner = Learner::new();
        for _ in 0..10 {
            learner.observe(&key(), 20.0, [sample(GPU, 20.0, 3.0)]);
        }
        let variance = || {
            learner
                .perf_model(&key())
                .estimate(&GPU, 20.0, &PLAIN)
                .variance
        };
        let fresh = variance();
        (0..200).for_each(|_| learner.observe(&key(), 20.0, []));
        let doubted = variance();
        assert!(doubted > fresh + 0.05);
        learner.observe(&key(), 20.0, [sample(GPU, 20.0, 3.0)]);
        assert!(variance() < doubted);
    }

    #[test]
    fn old_measurements_do_not_outweigh_a_new_one() {
        let learner = Learner::new();
        for _ in 0..30 {
            learner.observe(&key(), 20.0, [sample(GPU, 20.0, 3.0)]);
        }
        learner.observe(&key(), 20.0, [sample(GPU, 20.0, 2.0)]);
        assert!((factor(&learner, GPU, 20.0) - 3.0).abs() < 0.01);
        (0..LEARNER.stale_calls).for_each(|_| learner.observe(&key(), 20.0, []));
        learner.observe(&key(), 20.0, [sample(GPU, 20.0, 2.0)]);
        assert!(factor(&learner, GPU, 20.0) < 2.2);
    }

    #[test]
    fn tried_shares_are_recorded_if_they_took_less() {
        let learner = Learner::new();
        let split =
            |gpu: f64| Shares::from_slice(&[(DeviceId::Gpu(0), gpu), (DeviceId::Cpu, 1.0 - gpu)]);
        let known = || learner.perf_model(&key()).shares(20.0).cloned();
        assert_eq!(known(), None);
        learner.remember(&key(), 20.0, split(0.5), 1.0, false);
        learner.remember(&key(), 20.0, split(0.6), 1.1, true);
        assert_eq!(known(), Some(split(0.5)));
        learner.remember(&key(), 20.0, split(0.6), 1.1, false);
        assert_eq!(known(), Some(split(0.6)));
        learner.remember(&key(), 20.0, split(0.7), 0.5, true);
        assert_eq!(known(), Some(split(0.7)));
        learner.remember(&key(), 20.0, split(0.8), f64::NAN, false);
        assert_eq!(known(), Some(split(0.7)));
        assert_eq!(learner.perf_model(&key()).shares(21.0), None);
    }

    #[test]
    fn exploring_may_take_a_small_share_of_the_time() {
        let learner = Learner::new();
        assert_eq!(learner.exploration_budget().seconds, 0.0);
        learner.account(100.0, false);
        let exploration_budget = learner.exploration_budget().seconds;
        assert!(exploration_budget > 0.0 && exploration_budget <= 5.0);
        learner.account(exploration_budget, true);
        assert!(learner.exploration_budget().seconds < 0.5);
        assert!(learner.exploring_share() <= 0.05);
    }

    #[test]
    fn the_number_of_remembered_kernels_is_bounded() {
        let learner = Learner::new();
        (0..10).for_each(|_| learner.observe(&key(), 20.0, [sample(CPU, 20.0, 2.0)]));
        for implementation in 1..2 * LEARNER.most_kernels as u64 {
            let key = KernelKey {
                implementation,
                ..key()
            };
            learner.observe(&key, 20.0, [sample(CPU, 20.0, 2.0)]);
        }
        assert!(learner.records().len() <= LEARNER.most_kernels);
        assert!((factor(&learner, CPU, 20.0) - 2.0).abs() < 0.05);
    }

    #[test]
    fn records_come_in_the_same_order_every_time() {
        for _ in 0..20 {
            let learner = Learner::new();
            for element_type in [Some(ElementType::U32), None, Some(ElementType::F32)] {
                let key = KernelKey {
                    element_type,
                    ..key()
                };
                learner.observe(&key, 20.0, [sample(CPU, 20.0, 2.0)]);
            }
            let types = learner.records().into_iter().map(|r| r.element_type);
            let wanted = [None, Some(ElementType::F32), Some(ElementType::U32)];
            assert_eq!(types.collect::<Vec<_>>(), wanted);
        }
    }

    #[test]
    fn records_can_be_restored_and_more_samples_win() {
        let learner = Learner::new();
        for call in 0..30 {
            let size = 10.0 + f64::from(call % 3) * 4.0;
            let beside = Variant {
                beside: DeviceSet::EMPTY.with(DeviceId::Gpu(0)),
                ..CPU
            };
            learner.observe(
                &key(),
                size,
                [sample(CPU, size, 2.0), sample(beside, size - 1.0, 3.0)],
            );
        }
        let records = learner.records();
        assert_eq!(records.len(), 2);
        let again = Learner::new();
        again.observe(&key(), 10.0, [sample(CPU, 10.0, 9.0)]);
        again.restore(&records);
        assert_eq!(again.records(), records);
        let perf_model = |l: &Learner| l.perf_model(&key()).estimate(&CPU, 12.0, &PLAIN);
        assert_eq!(perf_model(&again), perf_model(&learner));
        let unsound = Record {
            kernel: "other".into(),
            classes: vec![ClassRecord {
                size: 10.0,
                samples: 3,
                recent: vec![f64::NAN],
            }],
            ..records[0].clone()
        };
        again.restore(&[unsound]);
        assert_eq!(again.records(), records);
    }
}
