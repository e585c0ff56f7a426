//! Measures what the planner must know of devices: how fast each is, and how much two slow each other down.
//!
//! Everything goes through the same pool, buffers, staging and submissions as a real call. Every figure of one device is
//! the lowest decile of several samples (the lowest, of fewer than ten), since other processes can only slow a sample
//! down. The samples of what will be compared (one thread and the pool, a launch with and without an upload) take turns,
//! so that a disturbance meets both. Kernels are not measured here: these are the ceilings from which the prior predicts
//! them. Every loop ends after a number of rounds too, and every time is positive, even if the clock does not move.

mod corun;
mod cpu;
mod gpu;

pub(super) use corun::{Bench, PAIR_STEPS, corun};
pub(super) use cpu::is_undisturbed;

use super::RATE;
use super::machine::{Curve, DeviceModel, Engine, Limits, Link};
use crate::device::cpu::Cpu;
use crate::device::gpu::Gpu;
use crate::device::{DeviceId, DeviceKind};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Instant;

/// How thoroughly a machine is measured, which decides how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Thoroughness {
    /// As at the first need of a program that has better things to do: about a tenth of a second per device.
    First,
    /// In less than three seconds altogether, with how much devices slow each other down.
    Quick,
    /// In less than a minute altogether, with more samples of everything, at more sizes.
    Full,
}

/// How much is measured of a device.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Samples of which the decile is taken.
    samples: usize,
    /// Seconds after which no more of them are taken.
    budget_seconds: f64,
    /// Seconds that a sample should last, so that the clock and a wake-up do not matter.
    sample_seconds: f64,
    /// Footprints at which bandwidth is measured.
    footprints: &'static [usize],
    /// Bytes of the transfers that are timed.
    transfers: &'static [usize],
}

const KI: usize = 1 << 10;
const MI: usize = 1 << 20;

/// Few sizes that end at a transfer of several pieces.
const TRANSFERS: &[usize] = &[256, 4 * KI, 64 * KI, MI, 8 * MI, 32 * MI];
/// More sizes.
const ALL_TRANSFERS: &[usize] = &[
    256,
    4 * KI,
    16 * KI,
    64 * KI,
    256 * KI,
    MI,
    4 * MI,
    8 * MI,
    32 * MI,
    64 * MI,
];

impl Effort {
    fn of(kind: DeviceKind, thoroughness: Thoroughness) -> Self {
        match kind {
            DeviceKind::Cpu => Self::of_cpu(thoroughness),
            DeviceKind::Software => Self::of_software(thoroughness),
            DeviceKind::Discrete | DeviceKind::Integrated | DeviceKind::Other => {
                Self::of_hardware(thoroughness)
            }
        }
    }

    /// On the CPU: from inside the first-level cache to far outside the last.
    fn of_cpu(thoroughness: Thoroughness) -> Self {
        /// About 100 ms on two cores.
        const FIRST: Effort = Effort {
            samples: 9,
            budget_seconds: 25e-3,
            sample_seconds: 2e-4,
            footprints: &[32 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 128 * MI],
            transfers: &[],
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 31,
                budget_seconds: 60e-3,
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 301,
                budget_seconds: 0.4,
                sample_seconds: 5e-4,
                footprints: &[
                    16 * KI,
                    64 * KI,
                    256 * KI,
                    MI,
                    2 * MI,
                    4 * MI,
                    8 * MI,
                    16 * MI,
                    32 * MI,
                    64 * MI,
                    128 * MI,
                    512 * MI,
                ],
                ..FIRST
            },
        }
    }

    /// On a GPU with hardware, which is fast enough for large sizes.
    fn of_hardware(thoroughness: Thoroughness) -> Self {
        const FIRST: Effort = Effort {
            samples: 5,
            budget_seconds: 8e-3,
            sample_seconds: 1e-3,
            footprints: &[64 * KI, MI, 16 * MI, 128 * MI],
            transfers: TRANSFERS,
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 25,
                budget_seconds: 25e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI, 256 * MI],
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 201,
                budget_seconds: 0.25,
                sample_seconds: 2e-3,
                footprints: &[
                    64 * KI,
                    256 * KI,
                    MI,
                    4 * MI,
                    16 * MI,
                    64 * MI,
                    256 * MI,
                    1024 * MI,
                ],
                transfers: ALL_TRANSFERS,
            },
        }
    }

    /// On a software adapter, which is slow, and of which little needs to be known.
    fn of_software(thoroughness: Thoroughness) -> Self {
        const FIRST: Effort = Effort {
            samples: 3,
            budget_seconds: 4e-3,
            sample_seconds: 1e-3,
            footprints: &[64 * KI, MI, 8 * MI],
            transfers: &[256, 4 * KI, 32 * KI, 256 * KI, MI, 4 * MI],
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 15,
                budget_seconds: 20e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI],
                transfers: TRANSFERS,
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 101,
                budget_seconds: 0.25,
                sample_seconds: 2e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI, 128 * MI],
                transfers: ALL_TRANSFERS,
            },
        }
    }

    /// With the time that `devices` of them may take together, if more than two would take too long.
    fn shared_by(self, devices: usize) -> Self {
        Self {
            budget_seconds: self.budget_seconds * (2.0 / devices.max(2) as f64),
            ..self
        }
    }

    /// The decile of so many times the usual number of samples.
    fn measure(&self, times: usize, mut sample: impl FnMut() -> Result<f64>) -> Result<f64> {
        let (decile, _) = self.compare(times, || Ok((sample()?, 0.0)))?;
        Ok(decile)
    }

    /// The deciles of two quantities that are sampled in turn.
    fn compare(
        &self,
        times: usize,
        mut sample: impl FnMut() -> Result<(f64, f64)>,
    ) -> Result<(f64, f64)> {
        const LEAST_SAMPLES: usize = 3;
        let started = now();
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for taken in 0..times * self.samples {
            if taken >= LEAST_SAMPLES && seconds_since(started) > self.budget_seconds {
                break;
            }
            let (first, second) = sample()?;
            firsts.push(first);
            seconds.push(second);
        }
        Ok((decile(firsts), decile(seconds)))
    }
}

/// What one device is measured with, and who hears of it.
pub(super) struct Task<'a> {
    /// How thoroughly.
    pub(super) thoroughness: Thoroughness,
    /// How many devices are measured in the same time.
    pub(super) devices: usize,
    /// Hears what is measured next: [`CPU_STEPS`] or [`GPU_STEPS`] times.
    pub(super) note: &'a mut dyn FnMut(&str),
}

/// How often measuring the CPU says what comes next.
pub(super) const CPU_STEPS: usize = 3;
/// How often measuring a GPU says what comes next.
pub(super) const GPU_STEPS: usize = 4;

/// Measures the CPU with one thread and with its whole pool.
pub(super) fn cpu(cpu: &Cpu, name: String, task: Task<'_>) -> Result<DeviceModel> {
    let effort = Effort::of(DeviceKind::Cpu, task.thoroughness).shared_by(task.devices);
    let bench = cpu::CpuBench::new(cpu, effort);
    let threads = cpu.threads();
    (task.note)("arithmetic");
    bench.settle()?;
    let (one_flops, pool_flops) = bench.flops()?;
    (task.note)("launch");
    let (ready, launch) = bench.launch(pool_flops / one_flops)?;
    (task.note)("memory");
    let (one_rates, pool_rates) = bench.bandwidths(ready)?;
    let mut engines = vec![engine(1, 0.0, one_flops, one_rates)];
    if threads > 1 {
        engines.push(engine(threads, launch, pool_flops, pool_rates));
    }
    Ok(DeviceModel {
        id: DeviceId::Cpu,
        kind: DeviceKind::Cpu,
        name,
        engines,
        queued_seconds: 0.0,
        upload: None,
        download: None,
        limits: Limits::default(),
    })
}

/// Measures a GPU.
pub(super) fn gpu(gpu: &Arc<Gpu>, id: DeviceId, task: Task<'_>) -> Result<DeviceModel> {
    let kind = gpu.info().kind;
    (task.note)("launch");
    let effort = Effort::of(kind, task.thoroughness).shared_by(task.devices);
    let bench = gpu::GpuBench::new(gpu, effort)?;
    let (launch, queued) = bench.launch()?;
    (task.note)("memory");
    let rates = bench.bandwidths(launch, queued)?;
    (task.note)("arithmetic");
    let flops = bench.flops(launch)?;
    (task.note)("transfers");
    let (upload, download) = bench.links()?;
    Ok(DeviceModel {
        id,
        kind,
        name: gpu.name().to_owned(),
        engines: vec![engine(1, launch, flops, rates)],
        queued_seconds: rounded(queued),
        upload: Some(upload),
        download: Some(download),
        limits: limits(gpu),
    })
}

/// Bytes per second by bytes touched, not yet a curve.
type Rates = Vec<[f64; 2]>;

/// What an adapter says it can hold, which is known without measuring.
pub(super) fn limits(gpu: &Gpu) -> Limits {
    let limits = gpu.limits();
    Limits {
        max_binding_bytes: Some(limits.max_binding_bytes),
        max_buffer_bytes: Some(limits.max_buffer_bytes),
        memory_bytes: limits.memory_bytes,
        budget_bytes: gpu.array_budget(),
        max_arrays: Some(limits.max_arrays),
        max_uniform_bytes: Some(gpu.largest_uniform()),
    }
}

fn engine(threads: usize, launch_seconds: f64, flops: f64, rates: Rates) -> Engine {
    // What a clock that does not move makes of them is no speed.
    let possible = |rate: f64| rounded(rate.clamp(*RATE.start(), *RATE.end()));
    let rates = rates
        .into_iter()
        .map(|[bytes, rate]| [bytes, possible(rate)]);
    Engine {
        threads,
        launch_seconds: rounded(launch_seconds),
        flops_per_second: possible(flops),
        bandwidth: Curve::new(rates.collect()).expect("sizes ascend and times are positive"),
    }
}

/// A link through measured times, at sizes that ascend. A longer transfer never takes less: noise only adds time, so the
/// time of the longer one holds for the shorter too. And none is infinitely fast, whatever the clock said.
fn link(mut times: Vec<[f64; 2]>) -> Link {
    /// Bytes per second that no transfer reaches.
    const FASTEST: f64 = 1e13;
    for shorter in (1..times.len()).rev() {
        times[shorter - 1][1] = times[shorter - 1][1].min(times[shorter][1]);
    }
    for [_, seconds] in &mut times {
        *seconds = rounded(*seconds);
    }
    if let [[bytes, seconds]] = times[..] {
        // Of one size only, as where little may be bound: others are taken to be in proportion.
        times.push([2.0 * bytes, 2.0 * seconds]);
    }
    if let [.., [before, least], [bytes, seconds]] = &mut times[..] {
        *seconds = seconds.max(*least + (*bytes - *before) / FASTEST);
    }
    Link::new(times).expect("sizes ascend and times are positive")
}

/// Four digits: more would only pretend, and the profile is for people too.
fn rounded(value: f64) -> f64 {
    let digits = 3.0 - value.abs().log10().floor();
    let scale = 10f64.powf(digits.abs());
    if !scale.is_finite() {
        // Of 0, or of what is next to it.
        value
    } else if digits >= 0.0 {
        (value * scale).round() / scale
    } else {
        (value / scale).round() * scale
    }
}

/// The clock.
fn now() -> Instant {
    #[cfg(test)]
    if let Some(stopped) = tests::STOPPED.get() {
        return stopped;
    }
    Instant::now()
}

fn seconds_since(started: Instant) -> f64 {
    now().duration_since(started).as_secs_f64()
}

/// Seconds that `work` takes; never 0, even if the clock does not move.
fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = now();
    work()?;
    Ok(seconds_since(started).max(1e-9))
}

/// The share of a sample that remains at least when its launch is taken off, however noisy both are.
const LEAST_SHARE: f64 = 0.25;
/// Bytes that one pass of `y = alpha * x + y` reads and writes, for each byte that it touches.
const TRAFFIC: f64 = 1.5;

/// The value that a tenth of the samples are below, or the least if they are few.
fn decile(samples: Vec<f64>) -> f64 {
    quantile(samples, 0.1)
}

/// The value that this share of the samples are below.
fn quantile(mut samples: Vec<f64>, share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(samples.len() as f64 * share) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::SECONDS;
    use proptest::prelude::*;
    use std::cell::Cell;

    thread_local! {
        /// The time at which the clock of this thread stands still.
        pub(super) static STOPPED: Cell<Option<Instant>> = const { Cell::new(None) };
    }

    fn measured_cpu(threads: usize) -> (DeviceModel, Vec<String>) {
        let pool = Cpu::new(threads).expect("as many threads");
        let mut heard = Vec::new();
        let task = Task {
            thoroughness: Thoroughness::First,
            devices: 1,
            note: &mut |what| heard.push(what.to_owned()),
        };
        let model = cpu(&pool, "here".into(), task).expect("there is memory");
        (model, heard)
    }

    #[test]
    fn numbers_are_rounded_to_four_digits() {
        for (value, short) in [
            (0.0, 0.0),
            (1.23456e-7, 1.235e-7),
            (98765.4, 98770.0),
            (133_599_999.999, 133_600_000.0),
            (1.0, 1.0),
            (9.99999e10, 1e11),
            (5e-324, 5e-324),
        ] {
            assert_eq!(rounded(value), short);
        }
    }

    #[test]
    fn the_decile_ignores_what_is_slow() {
        assert_eq!(decile(vec![9.0, 1.1, 8.0]), 1.1);
        let many = (0..30).map(|i| f64::from(29 - i)).collect();
        assert_eq!(decile(many), 3.0);
    }

    #[test]
    fn the_cpu_is_measured_in_ranges_that_any_machine_is_in() {
        let (model, heard) = measured_cpu(2);
        assert_eq!(heard.len(), CPU_STEPS);
        assert_eq!(
            model.engines.iter().map(|e| e.threads).collect::<Vec<_>>(),
            [1, 2]
        );
        for engine in &model.engines {
            assert!((1e8..1e13).contains(&engine.flops_per_second), "{engine:?}");
            assert!((0.0..1e-2).contains(&engine.launch_seconds), "{engine:?}");
            for [_, rate] in engine.bandwidth.points() {
                assert!((1e8..1e13).contains(rate), "{engine:?}");
            }
        }
    }

    #[test]
    fn a_clock_that_does_not_move_gives_figures_that_a_plan_can_use() {
        STOPPED.set(Some(Instant::now()));
        let (model, _) = measured_cpu(2);
        STOPPED.set(None);
        for engine in &model.engines {
            assert!(SECONDS.contains(&engine.launch_seconds), "{engine:?}");
            assert!(RATE.contains(&engine.flops_per_second), "{engine:?}");
            for [_, rate] in engine.bandwidth.points() {
                assert!(RATE.contains(rate), "{engine:?}");
            }
        }
        let still = link(TRANSFERS.iter().map(|bytes| [*bytes as f64, 0.0]).collect());
        assert_eq!(still.seconds(4096.0), 0.0);
        assert!(still.bytes_per_second().is_finite());
    }

    #[test]
    fn a_longer_transfer_that_took_less_tells_of_the_shorter() {
        let noisy = vec![
            [256.0, 2e-5],
            [4096.0, 1e-5],
            [65536.0, 9e-4],
            [1048576.0, 5e-4],
        ];
        let clean = link(noisy);
        let times: Vec<f64> = clean.points().iter().map(|[_, seconds]| *seconds).collect();
        assert_eq!(times[..3], [1e-5, 1e-5, 5e-4]);
        assert!(times[3] > 5e-4 && times[3] < 5.01e-4);
    }

    proptest! {
        #[test]
        fn links_ascend_whatever_was_measured(times in prop::collection::vec(0.0f64..10.0, 1..10)) {
            let points = times.iter().enumerate().map(|(i, time)| [64.0 * 4f64.powi(i as i32), *time]);
            let link = link(points.collect());
            prop_assert!(link.points().is_sorted_by(|a, b| a[1] <= b[1]));
            prop_assert!(link.bytes_per_second().is_finite());
        }
    }
}
