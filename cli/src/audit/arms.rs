//! The ways in which a kernel can be run, each forced and timed: what `Placement::Auto` is held against.

use super::super::args::StartLocation;
use super::statistics::Samples;
use super::subject::Subject;
use divvy::PartReport;
use divvy::cost::Machine;
use divvy::device::DeviceKind;
use divvy::{DeviceId, Error, Placement, Runtime};
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// The shares of a GPU in its splits with the CPU.
const SHARES: [f64; 7] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95];
/// Every way that is not given up is timed at least so often: half of that to choose by, half to tell the time.
const LEAST_ROUNDS: usize = 6;
/// And for this long in sum over all ways,
const LONG: Duration = Duration::from_millis(300);
/// but no more often than this.
const MOST_ROUNDS: usize = 300;
/// Ways come close to the best that take up to so many times as long. What is worse is not taken for the best by
/// mistake,
const CLOSE: f64 = 1.25;
/// and of those that come close, the first few are enough: mistakes among them are small.
const MOST_CONTENDERS: usize = 3;
/// A way is not given up before it was timed for this long in sum, in seconds,
const PATIENCE: f64 = 5e-3;
/// or so often.
const ENOUGH: usize = 4;
/// Splits with a software adapter that takes so many times as long as the CPU are timed only once.
const FEEBLE: f64 = 3.0;

/// The devices, opened so that each way can be forced.
pub struct Forced {
    /// For GPUs, and for splits.
    whole: Runtime,
    /// For the CPU: with one thread, with the pool.
    engines: Vec<(usize, Runtime)>,
    gpus: Vec<(DeviceId, DeviceKind)>,
}

impl Forced {
    /// Ways to force where calls run on the devices of a runtime, which are those of `machine`.
    pub fn new(devices: &Runtime, machine: &Machine) -> Result<Self, Error> {
        let cpu = machine.device(DeviceId::Cpu);
        let engines = cpu.iter().flat_map(|cpu| &cpu.engines).map(|engine| {
            // With a single engine there is no choice. The GPUs stay, so that a call has as much to look after.
            let mut only = machine.clone();
            for device in &mut only.devices {
                if device.id == DeviceId::Cpu {
                    device.engines = vec![engine.clone()];
                }
            }
            Ok((engine.threads, devices.with_machine(only)?))
        });
        let mut gpus: Vec<_> = machine.devices.iter().map(|d| (d.id, d.kind)).collect();
        gpus.retain(|(id, _)| *id != DeviceId::Cpu);
        gpus.sort_unstable_by_key(|(id, _)| *id);
        Ok(Self {
            engines: engines.collect::<Result<_, Error>>()?,
            whole: devices.with_machine(machine.clone())?,
            gpus,
        })
    }

    /// Every way whose shares need no measuring.
    fn arms(&self) -> Vec<Arm> {
        let mut arms: Vec<Arm> = Vec::new();
        for (threads, rt) in &self.engines {
            let kind = Kind::Cpu { threads: *threads };
            arms.push(Arm::new(kind, rt, Placement::Cpu));
        }
        for &(device, _) in &self.gpus {
            let kind = Kind::Gpu { device };
            arms.push(Arm::new(kind, &self.whole, Placement::from(device)));
        }
        if !self.engines.is_empty() {
            for &(device, _) in &self.gpus {
                // The CPU comes last in a split, as the planner has it.
                let shares =
                    SHARES.map(|share| vec![(device, share), (DeviceId::Cpu, 1.0 - share)]);
                arms.extend(shares.map(|shares| self.split(shares)));
            }
        }
        arms
    }

    fn split(&self, shares: Vec<(DeviceId, f64)>) -> Arm {
        let kind = Kind::Split {
            shares: shares.clone(),
        };
        Arm::new(kind, &self.whole, Placement::Split(shares))
    }

    /// Splits whose shares follow from what was measured of each device alone.
    fn equal_finish(&self, arms: &[Arm]) -> Vec<Arm> {
        let alone = |device: DeviceId| {
            let same = arms.iter().filter(|arm| arm.kind.is_alone_on(device));
            Some((device, least(same)?))
        };
        let gpus = self.gpus.iter().filter_map(|(device, _)| alone(*device));
        let shares = equal_finish(&gpus.collect::<Vec<_>>(), alone(DeviceId::Cpu));
        shares.into_iter().map(|each| self.split(each)).collect()
    }

    /// Whether a way's splits are worth no more than a glance: its GPUs only seem to be some, and are far slower alone
    /// than the CPU.
    fn is_feeble(&self, kind: &Kind, arms: &[Arm], cpu: Option<f64>) -> bool {
        let Kind::Split { shares } = kind else {
            return false;
        };
        let is_feeble = |device: DeviceId| {
            let software = self.gpus.contains(&(device, DeviceKind::Software));
            let alone = arms.iter().find(|arm| arm.kind == Kind::Gpu { device });
            let seconds = alone.and_then(|arm| arm.samples.median());
            let slow = |(seconds, cpu)| seconds > FEEBLE * cpu;
            software && seconds.zip(cpu).is_some_and(slow)
        };
        shares.iter().any(|(device, _)| is_feeble(*device))
    }

    /// Times every way in turn, round by round, so that a disturbance of the machine meets them all. Ways that are
    /// hopeless are given up.
    ///
    /// # Errors
    /// Whatever goes wrong, except that a way cannot be taken, which is noted with it.
    pub fn measure(
        &self,
        subject: &mut Subject,
        residency: StartLocation,
    ) -> Result<Vec<Arm>, Error> {
        let mut arms = self.arms();
        let started = Instant::now();
        for round in 0..MOST_ROUNDS {
            if round >= LEAST_ROUNDS && started.elapsed() >= LONG {
                break;
            }
            if round == 1 && self.gpus.len() > 1 {
                arms.extend(self.equal_finish(&arms));
            }
            for at in 0..arms.len() {
                if arms[at].is_out() {
                    continue;
                }
                let cpu = least(arms.iter().filter(|arm| arm.kind.is_cpu()));
                let glance = round == 0 && self.is_feeble(&arms[at].kind, &arms, cpu);
                arms[at].time(subject, residency, glance)?;
                let best = least(&arms).unwrap_or(f64::INFINITY);
                for arm in &mut arms {
                    let tried = arm.seconds >= PATIENCE || arm.samples.len() >= ENOUGH;
                    arm.given_up |= tried && arm.samples.are_hopeless(best);
                }
            }
        }
        Ok(arms)
    }
}

/// The shares with which GPUs in pairs, and all of them together with the CPU, finish together, as far as the seconds
/// that each takes alone tell.
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
        // A clock that did not move makes all equal, not one infinitely fast.
        let speed = |seconds: f64| 1.0 / seconds.max(1e-9);
        let sum: f64 = set.iter().map(|(_, seconds)| speed(*seconds)).sum();
        for (_, seconds) in set {
            *seconds = speed(*seconds) / sum;
        }
    }
    sets
}

/// The least median.
fn least<'a>(arms: impl IntoIterator<Item = &'a Arm>) -> Option<f64> {
    let medians = arms.into_iter().filter_map(|arm| arm.samples.median());
    medians.min_by(f64::total_cmp)
}

/// The ways that may be the best, by the choosing half of their times: those that come close to the one that seems to be,
/// which comes first. Another measurement, in turns with Auto, decides.
pub fn contenders(arms: &[Arm]) -> Vec<usize> {
    let timed = arms.iter().enumerate();
    let mut timed: Vec<(usize, f64)> = timed
        .filter_map(|(at, arm)| Some((at, arm.samples.choosing()?)))
        .collect();
    timed.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let best = timed.first().map_or(0.0, |(_, seconds)| *seconds);
    timed.retain(|(_, seconds)| *seconds <= CLOSE * best);
    timed.truncate(MOST_CONTENDERS);
    timed.into_iter().map(|(at, _)| at).collect()
}

/// A way to run a kernel.
#[derive(Clone)]
pub struct Arm {
    /// What people call it.
    pub kind: Kind,
    rt: Runtime,
    placement: Placement,
    /// What was measured.
    pub samples: Samples,
    /// What ran where when it last ran.
    pub parts: Vec<Part>,
    /// Seconds of its timed runs.
    seconds: f64,
    given_up: bool,
    /// Why it cannot be taken.
    pub problem: Option<String>,
}

/// Which devices take part in a way.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// The CPU alone.
    Cpu {
        /// With so many threads.
        threads: usize,
    },
    /// A GPU alone.
    Gpu {
        /// Which.
        device: DeviceId,
    },
    /// Several devices.
    Split {
        /// The share of each.
        shares: Vec<(DeviceId, f64)>,
    },
}

impl Kind {
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

    /// The share of the items that GPUs get.
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

impl fmt::Display for Kind {
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

/// What one device did in a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Where.
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

/// What people call a run of these parts.
pub fn name(parts: &[Part]) -> String {
    match parts {
        [] => "nothing".into(),
        [part] => engine_name(part.device, part.threads),
        parts => shares_name(parts.iter().map(|part| (part.device, part.fraction))),
    }
}

impl Arm {
    fn new(kind: Kind, rt: &Runtime, placement: Placement) -> Self {
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

    /// Adds a sample, which for short runs is the median of several. At a `glance`, the first run is timed, whatever
    /// ran before.
    fn time(
        &mut self,
        subject: &mut Subject,
        residency: StartLocation,
        glance: bool,
    ) -> Result<(), Error> {
        match self.try_time(subject, residency, glance) {
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
        glance: bool,
    ) -> Result<(), Error> {
        let usual = self.samples.median();
        let settled = residency == StartLocation::Host
            && usual.is_some_and(|seconds| subject.is_settled_after(seconds));
        if !(settled || glance) {
            self.settle(subject)?;
        }
        let mut times = Samples::default();
        loop {
            let (seconds, parts) = self.run(subject)?;
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

    /// Runs it untimed until what ran before no longer matters.
    pub fn settle(&self, subject: &mut Subject) -> Result<(), Error> {
        subject.settle(&self.rt, &self.placement, |_| {})
    }

    /// Runs it once, and returns the seconds that took and what ran where.
    pub fn run(&self, subject: &mut Subject) -> Result<(f64, Vec<Part>), Error> {
        let timed = subject.run(&self.rt, &self.placement)?;
        Ok((timed.seconds, parts(&timed.report.parts)))
    }
}

/// How often a way is timed before it is another's turn: short runs several times, since settling takes longer.
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
    fn whatever_comes_close_contends_to_be_the_best() {
        let rt = Runtime::builder().cpu_only().no_profile().threads(1);
        let rt = rt.build().expect("a runtime");
        let arms = |times: &[&[f64]]| {
            let arms = times.iter().map(|times| {
                let mut arm = Arm::new(Kind::Cpu { threads: 1 }, &rt, Placement::Cpu);
                times.iter().for_each(|seconds| arm.samples.push(*seconds));
                arm
            });
            arms.collect::<Vec<_>>()
        };
        assert!(contenders(&[]).is_empty());
        assert!(contenders(&arms(&[&[], &[]])).is_empty());
        assert_eq!(contenders(&arms(&[&[1.2], &[], &[1.0], &[1.3]])), [2, 0]);
        // By every other time, from the first.
        assert_eq!(contenders(&arms(&[&[1.0, 9.0], &[2.0, 0.1]])), [0]);
        assert_eq!(contenders(&arms(&[&[1.0][..]; 5])), [0, 1, 2]);
    }

    #[test]
    fn runs_are_named_by_what_took_part() {
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
