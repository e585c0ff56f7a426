//! How many times longer each of two devices takes while the other computes too.
//!
//! Each repeats the same work, alone and together with the other in turn, and the median of the ratios counts. Shared
//! resources slow both down: cores, if one is a software adapter, memory channels, power.

use super::cpu::CpuBench;
use super::effort::{CoRunEffort, Effort, KI, MI, Thoroughness};
use super::gpu::GpuBench;
use super::sampling::{WorkUnit, now, quantile, rounded, seconds_since};
use crate::cost::machine::{Bound, CoRun};
use crate::cost::params::PARAMS;
use crate::device::cpu::Cpu;
use crate::device::gpu::Gpu;
use crate::device::{DeviceId, DeviceKind};
use crate::error::Result;
use std::sync::{Arc, Barrier};

/// The steps that measuring a pair announces.
pub(in crate::cost) const PAIR_STEPS: usize = 2;

/// A device that can be kept busy.
#[derive(Clone, Copy)]
pub(in crate::cost) enum Bench<'a> {
    Cpu(&'a Cpu),
    Gpu(DeviceId, &'a Arc<Gpu>),
}

impl<'a> Bench<'a> {
    pub(in crate::cost) fn id(&self) -> DeviceId {
        match self {
            Self::Cpu(_) => DeviceId::Cpu,
            Self::Gpu(id, _) => *id,
        }
    }

    /// Work of about `seconds`.
    fn unit(self, bound: Bound, seconds: f64) -> Result<WorkUnit<'a>> {
        // The largest footprint must exceed the caches. A software adapter is slow, and needs less.
        let kind = match self {
            Self::Cpu(_) => DeviceKind::Cpu,
            Self::Gpu(_, gpu) => gpu.info().kind,
        };
        let footprints: &[usize] = match (bound, kind) {
            (Bound::Compute, _) => &[MI],
            (Bound::Memory, DeviceKind::Cpu) => &[MI, 64 * MI],
            (Bound::Memory, DeviceKind::Software) => &[64 * KI, MI, 64 * MI],
            (Bound::Memory, _) => &[64 * KI, MI, 16 * MI, 128 * MI],
        };
        let effort = Effort {
            footprints,
            ..Effort::of(kind, Thoroughness::First)
        };
        match (self, bound) {
            (Self::Cpu(cpu), Bound::Compute) => CpuBench::new(cpu, effort).arithmetic(seconds),
            (Self::Cpu(cpu), Bound::Memory) => CpuBench::new(cpu, effort).memory(seconds),
            (Self::Gpu(_, gpu), Bound::Compute) => GpuBench::new(gpu, effort)?.arithmetic(seconds),
            (Self::Gpu(_, gpu), Bound::Memory) => GpuBench::new(gpu, effort)?.memory(seconds),
        }
    }
}

/// The windows in which a pair is timed.
#[derive(Clone, Copy)]
struct Watch {
    window_seconds: f64,
    rounds: usize,
}

impl Watch {
    /// The windows of each pair, if `pairs` of them share the time.
    fn of(thoroughness: Thoroughness, pairs: usize) -> Self {
        let CoRunEffort {
            total_seconds,
            rounds,
            longest_window,
        } = CoRunEffort::of(thoroughness);
        // Both kinds of work; each device alone, and both together.
        let windows = 2 * 3 * rounds * pairs.max(1);
        Self {
            window_seconds: (total_seconds / windows as f64).clamp(2e-3, longest_window),
            rounds,
        }
    }
}

/// Measures one of `pairs` pairs, and announces each of the [`PAIR_STEPS`] steps through `note`.
pub(in crate::cost) fn corun(
    pair: [Bench<'_>; 2],
    thoroughness: Thoroughness,
    pairs: usize,
    note: &mut dyn FnMut(&str),
) -> Result<CoRun> {
    let watch = Watch::of(thoroughness, pairs);
    let mut slowdown = |bound: Bound, what: &str| {
        note(what);
        let seconds = watch.window_seconds / PARAMS.calibration.corun_units;
        let mut one = pair[0].unit(bound, seconds)?;
        slowdown(&mut *one, &mut *pair[1].unit(bound, seconds)?, watch)
    };
    Ok(CoRun {
        devices: pair.map(|bench| bench.id()),
        compute: slowdown(Bound::Compute, "arithmetic together")?,
        memory: slowdown(Bound::Memory, "memory together")?,
    })
}

/// How many times longer each takes beside the other.
fn slowdown(
    one: &mut (dyn FnMut() -> Result<()> + Send),
    other: &mut (dyn FnMut() -> Result<()> + Send),
    watch: Watch,
) -> Result<[f64; 2]> {
    let (mut ones, mut others) = (Vec::new(), Vec::new());
    for _ in 0..watch.rounds {
        let alone = [pace(one, watch)?, pace(other, watch)?];
        let start = Barrier::new(2);
        let together = std::thread::scope(|scope| {
            let beside = std::thread::Builder::new().spawn_scoped(scope, || {
                start.wait();
                pace(other, watch)
            });
            // Without another thread nothing runs at the same time.
            let Ok(beside) = beside else {
                return Ok(alone);
            };
            start.wait();
            let here = pace(one, watch);
            let there = beside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok([here?, there?])
        })?;
        ones.push(together[0] / alone[0]);
        others.push(together[1] / alone[1]);
    }
    Ok([ones, others].map(|ratios| factor(quantile(ratios, 0.5))))
}

/// A slow-down that a plan can use: another device makes nothing faster, and none comes to a halt.
fn factor(ratio: f64) -> f64 {
    const MOST: f64 = 1e3;
    rounded(ratio.clamp(1.0, MOST))
}

/// Seconds that each unit takes.
fn pace(unit: &mut dyn FnMut() -> Result<()>, watch: Watch) -> Result<f64> {
    let started = now();
    let mut done = 0;
    loop {
        unit()?;
        done += 1;
        let seconds = seconds_since(started);
        if seconds >= watch.window_seconds || done >= PARAMS.calibration.most_corun_units {
            return Ok(seconds.max(1e-9) / done as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::time::Duration;

    const WATCH: Watch = Watch {
        window_seconds: 5e-3,
        rounds: 3,
    };

    #[test]
    fn work_that_takes_turns_is_slowed_down() {
        let only = Mutex::new(());
        let turn = || {
            let _turn = only.lock().expect("no thread panics");
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let [one, other] = slowdown(&mut { turn }, &mut { turn }, WATCH).expect("nothing fails");
        assert!(one * other > 1.5, "{one} and {other}");
        let mut sleep = || {
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        };
        let [one, other] = slowdown(&mut { sleep }, &mut sleep, WATCH).expect("nothing fails");
        assert!((1.0..1e3).contains(&one) && (1.0..1e3).contains(&other));
    }

    #[test]
    fn factors_are_rounded_and_bounded() {
        for (ratio, expected) in [(0.5, 1.0), (1.23456, 1.235), (1e9, 1e3)] {
            assert_eq!(factor(ratio), expected);
        }
    }

    #[test]
    fn more_pairs_share_the_same_time() {
        let seconds = |pairs| {
            let watch = Watch::of(Thoroughness::Full, pairs);
            (2 * 3 * watch.rounds * pairs) as f64 * watch.window_seconds
        };
        assert!(seconds(1) < 13.0 && seconds(28) < 13.0);
    }

    #[test]
    fn a_failing_unit_is_an_error() {
        let fail = || Err(crate::Error::argument("test", "fails"));
        assert!(slowdown(&mut || Ok(()), &mut { fail }, WATCH).is_err());
    }
}
