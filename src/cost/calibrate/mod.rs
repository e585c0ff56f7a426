//! Measures what the planner must know of devices: how fast each is, and how much two slow each other down.
//!
//! Everything goes through the same pool, buffers, staging and submissions as a real call. Every figure of one device is
//! the lowest decile of several samples (the lowest, of fewer than ten), since other processes can only slow a sample
//! down. Quantities that will be compared (one thread and the pool, a launch with and without an upload) are sampled in
//! turn, so that a disturbance meets both. Kernels are not measured here: these figures are the ceilings from which the
//! prior predicts them. Every loop ends after a number of rounds too, and every time is positive, even if the clock does
//! not move.

mod corun;
mod cpu;
mod effort;
mod gpu;
mod model;
mod sampling;

pub(super) use corun::{Bench, PAIR_STEPS, corun};
pub(super) use cpu::is_undisturbed;
pub use effort::Thoroughness;
pub(crate) use gpu::SHADER;
pub(super) use model::limits;

use super::machine::DeviceModel;
use crate::device::cpu::Cpu;
use crate::device::gpu::Gpu;
use crate::device::{DeviceId, DeviceKind};
use crate::error::Result;
use effort::Effort;
use model::engine;
use sampling::rounded;
use std::sync::Arc;

/// How one device is measured.
pub(super) struct CalibrationTask<'a> {
    /// How thoroughly.
    pub(super) thoroughness: Thoroughness,
    /// The number of devices that share the time.
    pub(super) devices: usize,
    /// Is called with the name of each step: [`CPU_STEPS`] or [`GPU_STEPS`] times.
    pub(super) note: &'a mut dyn FnMut(&str),
}

/// The steps that measuring the CPU announces.
pub(super) const CPU_STEPS: usize = 3;
/// The steps that measuring a GPU announces.
pub(super) const GPU_STEPS: usize = 4;

/// Measures the CPU with one thread and with its whole pool.
pub(super) fn cpu(cpu: &Cpu, name: String, task: CalibrationTask<'_>) -> Result<DeviceModel> {
    let effort = Effort::of(DeviceKind::Cpu, task.thoroughness).shared_by(task.devices);
    let bench = cpu::CpuBench::new(cpu, effort);
    let threads = cpu.threads();
    (task.note)("arithmetic");
    bench.settle()?;
    let flops = bench.flops()?;
    (task.note)("launch");
    let launch = bench.launch(flops.second / flops.first)?;
    (task.note)("memory");
    let rates = bench.bandwidths(launch.awake)?;
    let mut engines = vec![engine(1, 0.0, flops.first, rates.one_thread)];
    if threads > 1 {
        engines.push(engine(threads, launch.seconds, flops.second, rates.pool));
    }
    let kind = DeviceKind::Cpu;
    Ok(DeviceModel::new(DeviceId::Cpu, kind, name, engines))
}

/// Measures a GPU.
pub(super) fn gpu(gpu: &Arc<Gpu>, id: DeviceId, task: CalibrationTask<'_>) -> Result<DeviceModel> {
    let kind = gpu.info().kind;
    (task.note)("launch");
    let effort = Effort::of(kind, task.thoroughness).shared_by(task.devices);
    let bench = gpu::GpuBench::new(gpu, effort)?;
    let launch = bench.launch()?;
    (task.note)("memory");
    let rates = bench.bandwidths(&launch)?;
    (task.note)("arithmetic");
    let flops = bench.flops(launch.seconds)?;
    (task.note)("transfers");
    let links = bench.links()?;
    Ok(DeviceModel {
        id,
        kind,
        name: gpu.name().to_owned(),
        engines: vec![engine(1, launch.seconds, flops, rates)],
        queued_seconds: rounded(launch.queued),
        upload: Some(links.upload),
        download: Some(links.download),
        limits: limits(gpu),
    })
}

#[cfg(test)]
mod tests {
    use super::effort::TRANSFERS;
    use super::model::link;
    use super::sampling::{STOPPED, decile};
    use super::*;
    use crate::cost::bounds::{RATE, SECONDS};
    use proptest::prelude::*;
    use std::time::Instant;

    fn measured_cpu(threads: usize) -> (DeviceModel, Vec<String>) {
        let pool = Cpu::new(threads, crate::simd::Simd::best()).expect("as many threads");
        let mut steps = Vec::new();
        let task = CalibrationTask {
            thoroughness: Thoroughness::First,
            devices: 1,
            note: &mut |what| steps.push(what.to_owned()),
        };
        let model = cpu(&pool, "here".into(), task).expect("there is memory");
        (model, steps)
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
    fn the_decile_ignores_slow_samples() {
        assert_eq!(decile(vec![9.0, 1.1, 8.0]), 1.1);
        let many = (0..30).map(|i| f64::from(29 - i)).collect();
        assert_eq!(decile(many), 3.0);
    }

    #[test]
    fn the_figures_of_a_cpu_are_plausible() {
        let (model, steps) = measured_cpu(2);
        assert_eq!(steps.len(), CPU_STEPS);
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
    fn a_stopped_clock_gives_usable_figures() {
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
    fn a_faster_longer_transfer_corrects_the_shorter_one() {
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
        fn links_ascend_for_any_measurements(times in prop::collection::vec(0.0f64..10.0, 1..10)) {
            let points = times.iter().enumerate().map(|(i, time)| [64.0 * 4f64.powi(i as i32), *time]);
            let link = link(points.collect());
            prop_assert!(link.points().is_sorted_by(|a, b| a[1] <= b[1]));
            prop_assert!(link.bytes_per_second().is_finite());
        }
    }
}
