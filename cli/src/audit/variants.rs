//! The variants of a kernel, each forced and timed: the reference for `Placement::Auto`.

use super::super::args::StartLocation;
use super::super::params::{AuditParams, PARAMS};
use super::statistics::Samples;
use super::subject::Subject;
use divvy::PartReport;
use divvy::cost::Machine;
use divvy::device::DeviceKind;
use divvy::{DeviceId, Error, Placement, Runtime};
use serde::Serialize;
use std::fmt;
use std::time::Instant;

const AUDIT: AuditParams = PARAMS.audit;

/// The devices, opened so that each variant can be forced.
pub struct Forced {
    /// For GPUs, and for splits.
    whole: Runtime,
    /// For the CPU: with one thread, with the pool.
    engines: Vec<ForcedEngine>,
    gpus: Vec<ForcedGpu>,
}

/// A runtime whose CPU always uses the same number of threads.
struct ForcedEngine {
    threads: usize,
    rt: Runtime,
}

#[derive(Clone, Copy)]
struct ForcedGpu {
    device: DeviceId,
    kind: DeviceKind,
}

/// A run of a variant.
pub struct ForcedRun {
    /// How long it took.
    pub seconds: f64,
    /// What ran where.
    pub parts: Vec<Part>,
}

impl Forced {
    /// The devices of a runtime, which are those of `machine`.
    pub fn new(devices: &Runtime, machine: &Machine) -> Result<Self, Error> {
        let cpu = machine.device(DeviceId::Cpu);
        let engines = cpu.iter().flat_map(|cpu| &cpu.engines).map(|engine| {
            // A single engine leaves no choice. The GPUs stay, so that a call has the same overhead.
            let mut only = machine.clone();
            for device in &mut only.devices {
                if device.id == DeviceId::Cpu {
                    device.engines = vec![engine.clone()];
                }
            }
            Ok(ForcedEngine {
                threads: engine.threads,
                rt: devices.with_machine(only)?,
            })
        });
        let gpus = machine.devices.iter().map(|model| ForcedGpu {
            device: model.id,
            kind: model.kind,
        });
        let mut gpus: Vec<ForcedGpu> = gpus.collect();
        gpus.retain(|gpu| gpu.device != DeviceId::Cpu);
        gpus.sort_unstable_by_key(|gpu| gpu.device);
        Ok(Self {
            engines: engines.collect::<Result<_, Error>>()?,
            whole: devices.with_machine(machine.clone())?,
            gpus,
        })
    }

    /// Every variant with fixed shares.
    fn variants(&self) -> Vec<Variant> {
        let mut variants: Vec<Variant> = Vec::new();
        for ForcedEngine { threads, rt } in &self.engines {
            let kind = VariantKind::Cpu { threads: *threads };
            variants.push(Variant::new(kind, rt, Placement::Cpu));
        }
        for &ForcedGpu { device, .. } in &self.gpus {
            let kind = VariantKind::Gpu { device };
            variants.push(Variant::new(kind, &self.whole, Placement::from(device)));
        }
        if !self.engines.is_empty() {
            for &ForcedGpu { device, .. } in &self.gpus {
                // The CPU comes last in a split, as in the planner.
                let split = |share| vec![(device, share), (DeviceId::Cpu, 1.0 - share)];
                let shares = AUDIT.shares.map(split);
                variants.extend(shares.map(|shares| self.split(shares)));
            }
        }
        variants
    }

    fn split(&self, shares: Vec<(DeviceId, f64)>) -> Variant {
        let kind = VariantKind::Split {
            shares: shares.clone(),
        };
        Variant::new(kind, &self.whole, Placement::Split(shares))
    }

    /// Splits whose shares follow from the times of each device alone.
    fn equal_finish(&self, variants: &[Variant]) -> Vec<Variant> {
        let alone = |device: DeviceId| {
            let same = variants
                .iter()
                .filter(|variant| variant.kind.is_alone_on(device));
            Some((device, least(same)?))
        };
        let gpus = self.gpus.iter().filter_map(|gpu| alone(gpu.device));
        let shares = equal_finish(&gpus.collect::<Vec<_>>(), alone(DeviceId::Cpu));
        shares.into_iter().map(|each| self.split(each)).collect()
    }

    /// Whether it is a split that is timed only once: one with a software adapter that is far slower alone than the CPU.
    fn is_feeble(&self, kind: &VariantKind, variants: &[Variant], cpu: Option<f64>) -> bool {
        let VariantKind::Split { shares } = kind else {
            return false;
        };
        let is_feeble = |device: DeviceId| {
            let same = self.gpus.iter().find(|gpu| gpu.device == device);
            let software = same.is_some_and(|gpu| gpu.kind == DeviceKind::Software);
            let alone = variants
                .iter()
                .find(|variant| variant.kind == VariantKind::Gpu { device });
            let seconds = alone.and_then(|variant| variant.samples.median());
            let slow = |(seconds, cpu)| seconds > AUDIT.feeble * cpu;
            software && seconds.zip(cpu).is_some_and(slow)
        };
        shares.iter().any(|(device, _)| is_feeble(*device))
    }

    /// Times every variant in turn, round by round, so that a disturbance of the machine meets them all. Gives up
    /// hopeless variants.
    ///
    /// # Errors
    /// Any error, except that a variant is infeasible, which is recorded in it.
    pub fn measure(
        &self,
        subject: &mut Subject,
        residency: StartLocation,
    ) -> Result<Vec<Variant>, Error> {
        let mut variants = self.variants();
        let started = Instant::now();
        for round in 0..AUDIT.most_rounds {
            if round >= AUDIT.least_rounds && started.elapsed() >= AUDIT.rounds_time {
                break;
            }
            if round == 1 && self.gpus.len() > 1 {
                variants.extend(self.equal_finish(&variants));
            }
            for at in 0..variants.len() {
                if variants[at].is_out() {
                    continue;
                }
                let cpu = least(variants.iter().filter(|variant| variant.kind.is_cpu()));
                let once = round == 0 && self.is_feeble(&variants[at].kind, &variants, cpu);
                variants[at].time(subject, residency, once)?;
                let best = least(&variants).unwrap_or(f64::INFINITY);
                for variant in &mut variants {
                    let tried = variant.seconds >= AUDIT.tried_seconds
                        || variant.samples.len() >= AUDIT.tried_samples;
                    variant.given_up |= tried && variant.samples.are_hopeless(best);
                }
            }
        }
        Ok(variants)
    }
}

/// The shares with which pairs of GPUs, and all GPUs with the CPU, finish at the same time, by the seconds of each device
/// alone.
fn equal_finish(
    gpus: &[(DeviceId, f64)],
    cpu: Option<(DeviceId, f64)>,
) -> Vec<Vec<(DeviceId, f64)>> {
    let mut sets: Vec<Vec<(DeviceId, f64)>> = Vec::new();
    for (at, first) in gpus.iter().enumerate() {
        sets.extend(gpus[at + 1..].iter().map(|second| vec![*first, *second]));
    }
    if gpus.len() > 1 {
        sets.extend(cpu.map(|cpu| gpus.iter().copied().chain([cpu]).collect()));
    }
    for set in &mut sets {
        // If the clock did not move, all are equally fast, and none infinitely.
        let speed = |seconds: f64| 1.0 / seconds.max(1e-9);
        let sum: f64 = set.iter().map(|(_, seconds)| speed(*seconds)).sum();
        for (_, seconds) in set {
            *seconds = speed(*seconds) / sum;
        }
    }
    sets
}

/// The least median.
fn least<'a>(variants: impl IntoIterator<Item = &'a Variant>) -> Option<f64> {
    let medians = variants
        .into_iter()
        .filter_map(|variant| variant.samples.median());
    medians.min_by(f64::total_cmp)
}

/// The variants that may be the best: those close to the fastest by the choosing half of their samples, fastest first.
/// Another measurement, in turns with Auto, decides.
pub fn contenders(variants: &[Variant]) -> Vec<usize> {
    let timed = variants.iter().enumerate();
    let mut timed: Vec<(usize, f64)> = timed
        .filter_map(|(at, variant)| Some((at, variant.samples.choosing()?)))
        .collect();
    timed.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let best = timed.first().map_or(0.0, |(_, seconds)| *seconds);
    timed.retain(|(_, seconds)| *seconds <= AUDIT.close * best);
    timed.truncate(AUDIT.most_contenders);
    timed.into_iter().map(|(at, _)| at).collect()
}

/// A way to run a kernel, with its samples.
#[derive(Clone)]
pub struct Variant {
    /// Its devices.
    pub kind: VariantKind,
    rt: Runtime,
    placement: Placement,
    /// Its times.
    pub samples: Samples,
    /// What ran where in its last run.
    pub parts: Vec<Part>,
    /// Seconds of its timed runs.
    seconds: f64,
    given_up: bool,
    /// Why it is infeasible.
    pub problem: Option<String>,
}

/// The devices of a variant.
#[derive(Clone, Debug, PartialEq)]
pub enum VariantKind {
    /// The CPU alone.
    Cpu {
        /// The number of threads.
        threads: usize,
    },
    /// A GPU alone.
    Gpu {
        /// The GPU.
        device: DeviceId,
    },
    /// Several devices.
    Split {
        /// The share of each.
        shares: Vec<(DeviceId, f64)>,
    },
}

impl VariantKind {
    /// Whether it is the CPU alone.
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu { .. })
    }

    /// Whether it is a split.
    pub fn is_split(&self) -> bool {
        matches!(self, Self::Split { .. })
    }

    fn is_alone_on(&self, wanted: DeviceId) -> bool {
        match self {
            Self::Cpu { .. } => wanted == DeviceId::Cpu,
            Self::Gpu { device } => *device == wanted,
            Self::Split { .. } => false,
        }
    }

    /// The share of the items on GPUs.
    pub fn gpu_share(&self) -> f64 {
        match self {
            Self::Cpu { .. } => 0.0,
            Self::Gpu { .. } => 1.0,
            Self::Split { shares } => {
                let gpus = shares.iter().filter(|(device, _)| *device != DeviceId::Cpu);
                gpus.map(|(_, share)| share).sum()
            }
        }
    }
}

impl fmt::Display for VariantKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { threads } => f.write_str(&engine_name(DeviceId::Cpu, *threads)),
            Self::Gpu { device } => write!(f, "{device}"),
            Self::Split { shares } => f.write_str(&shares_name(
                shares.iter().map(|(device, share)| (*device, *share)),
            )),
        }
    }
}

fn engine_name(device: DeviceId, threads: usize) -> String {
    match (device, threads) {
        (DeviceId::Cpu, 1) => "cpu, 1 thread".into(),
        (DeviceId::Cpu, threads) => format!("cpu, {threads} threads"),
        (gpu, _) => gpu.to_string(),
    }
}

fn shares_name(shares: impl Iterator<Item = (DeviceId, f64)>) -> String {
    let each: Vec<String> = shares
        .map(|(device, share)| format!("{device} {:.0} %", 100.0 * share))
        .collect();
    each.join(" + ")
}

/// The part of one device in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// The device.
    pub device: DeviceId,
    /// CPU threads that computed it; 1 on a GPU.
    pub threads: usize,
    /// The first of its items, and the one after the last.
    pub range: [usize; 2],
    /// Its share of the items.
    pub fraction: f64,
}

/// The parts of a report.
pub fn parts(reported: &[PartReport]) -> Vec<Part> {
    let items = reported.last().map_or(0, |part| part.range.end).max(1);
    let parts = reported.iter().map(|part| Part {
        device: part.device,
        threads: part.threads,
        range: [part.range.start, part.range.end],
        fraction: part.range.len() as f64 / items as f64,
    });
    parts.collect()
}

/// The displayed name of a run of these parts.
pub fn name(parts: &[Part]) -> String {
    match parts {
        [] => "nothing".into(),
        [part] => engine_name(part.device, part.threads),
        parts => shares_name(parts.iter().map(|part| (part.device, part.fraction))),
    }
}

impl Variant {
    fn new(kind: VariantKind, rt: &Runtime, placement: Placement) -> Self {
        Self {
            kind,
            rt: rt.clone(),
            placement,
            samples: Samples::default(),
            parts: Vec::new(),
            seconds: 0.0,
            given_up: false,
            problem: None,
        }
    }

    fn is_out(&self) -> bool {
        self.given_up || self.problem.is_some()
    }

    /// Adds a sample, which for short runs is the median of several. With `once`, no untimed run precedes it.
    fn time(
        &mut self,
        subject: &mut Subject,
        residency: StartLocation,
        once: bool,
    ) -> Result<(), Error> {
        match self.try_time(subject, residency, once) {
            Err(Error::Infeasible { reasons, .. }) => {
                self.problem = Some(reasons);
                Ok(())
            }
            other => other,
        }
    }

    fn try_time(
        &mut self,
        subject: &mut Subject,
        residency: StartLocation,
        once: bool,
    ) -> Result<(), Error> {
        let usual = self.samples.median();
        let settled = residency == StartLocation::Host
            && usual.is_some_and(|seconds| subject.is_settled_after(seconds));
        if !(settled || once) {
            self.settle(subject)?;
        }
        let mut times = Samples::default();
        loop {
            let ForcedRun { seconds, parts } = self.run(subject)?;
            self.parts = parts;
            if self.kind.is_split() && self.parts.len() < 2 {
                self.problem = Some("a device would get no items".into());
                return Ok(());
            }
            self.seconds += seconds;
            times.push(seconds);
            if times.len() >= runs_per_visit(seconds) {
                break;
            }
        }
        self.samples.push(times.median().unwrap_or(0.0));
        Ok(())
    }

    /// Runs it untimed until the runs before no longer matter.
    pub fn settle(&self, subject: &mut Subject) -> Result<(), Error> {
        subject.settle(&self.rt, &self.placement, |_| {})
    }

    /// Runs it once.
    pub fn run(&self, subject: &mut Subject) -> Result<ForcedRun, Error> {
        let timed = subject.run(&self.rt, &self.placement)?;
        Ok(ForcedRun {
            seconds: timed.seconds,
            parts: parts(&timed.report.parts),
        })
    }
}

/// The number of timed runs in a turn: several for short runs, since settling takes longer than they do.
pub fn runs_per_visit(seconds: f64) -> usize {
    match seconds {
        s if s < 1e-4 => 5,
        s if s < 1e-3 => 3,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use DeviceId::{Cpu, Gpu};

    #[test]
    fn devices_of_a_split_finish_together() {
        assert!(equal_finish(&[], Some((Cpu, 1.0))).is_empty());
        let one = [(Gpu(0), 1.0)];
        assert!(
            equal_finish(&one, Some((Cpu, 1.0))).is_empty(),
            "measured at fixed shares"
        );
        let two = [(Gpu(0), 1.0), (Gpu(1), 3.0)];
        assert_eq!(equal_finish(&two, None), [[(Gpu(0), 0.75), (Gpu(1), 0.25)]]);
        let with_cpu = equal_finish(&two, Some((Cpu, 1.5)));
        assert_eq!(with_cpu.len(), 2);
        let shares: Vec<f64> = with_cpu[1].iter().map(|(_, share)| *share).collect();
        assert!(Placement::Split(with_cpu[1].clone()).check().is_ok());
        assert!(
            (shares[0] - 0.5).abs() < 1e-12 && shares[2] < shares[0],
            "{shares:?}"
        );
        let three = [(Gpu(0), 1.0), (Gpu(1), 1.0), (Gpu(2), 0.0)];
        let sets = equal_finish(&three, Some((Cpu, 1.0)));
        assert_eq!(sets.len(), 4, "three pairs, and all");
        let usable = |shares: &Vec<_>| Placement::Split(shares.clone()).check().is_ok();
        assert!(sets.iter().all(usable), "{sets:?}");
    }

    #[test]
    fn variants_close_to_the_best_are_contenders() {
        let rt = Runtime::builder().cpu_only().no_profile().threads(1);
        let rt = rt.build().expect("a runtime");
        let variants = |times: &[&[f64]]| {
            let variants = times.iter().map(|times| {
                let mut variant =
                    Variant::new(VariantKind::Cpu { threads: 1 }, &rt, Placement::Cpu);
                times
                    .iter()
                    .for_each(|seconds| variant.samples.push(*seconds));
                variant
            });
            variants.collect::<Vec<_>>()
        };
        assert!(contenders(&[]).is_empty());
        assert!(contenders(&variants(&[&[], &[]])).is_empty());
        assert_eq!(
            contenders(&variants(&[&[1.2], &[], &[1.0], &[1.3]])),
            [2, 0]
        );
        // By every other time, from the first.
        assert_eq!(contenders(&variants(&[&[1.0, 9.0], &[2.0, 0.1]])), [0]);
        assert_eq!(contenders(&variants(&[&[1.0][..]; 5])), [0, 1, 2]);
    }

    #[test]
    fn runs_are_named_after_their_devices() {
        let part = |device, threads, fraction| Part {
            device,
            threads,
            range: [0, 1],
            fraction,
        };
        assert_eq!(name(&[]), "nothing");
        assert_eq!(name(&[part(Cpu, 1, 1.0)]), "cpu, 1 thread");
        assert_eq!(name(&[part(Cpu, 8, 1.0)]), "cpu, 8 threads");
        assert_eq!(name(&[part(Gpu(1), 1, 1.0)]), "gpu1");
        let split = [part(Gpu(0), 1, 0.25), part(Cpu, 2, 0.75)];
        assert_eq!(name(&split), "gpu0 25 % + cpu 75 %");
    }
}
