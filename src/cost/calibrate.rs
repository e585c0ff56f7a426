//! Measures what the planner must know of a device, quickly: a few hundred milliseconds for all of them.
//!
//! Everything goes through the same pool, buffers, staging and submissions as a real call. Every figure is the lowest
//! decile of several samples (the lowest, of fewer than ten), since other processes can only slow a sample down. The
//! samples of what will be compared (one thread and the pool) take turns, so that a disturbance meets both. Kernels
//! are not measured here: these are the ceilings from which the prior predicts them.

use super::machine::{Curve, DeviceModel, Engine, Limits, Link};
use crate::array::{Array, DeviceView};
use crate::device::cpu::Cpu;
use crate::device::gpu::{Gpu, GpuPart};
use crate::device::{DeviceId, DeviceKind};
use crate::error::Result;
use crate::kernel::shader::Shader;
use crate::kernel::{Binding, Outline, Role, Work};
use crate::simd::vectorised;
use bytemuck::{Pod, Zeroable};
use pulp::{Arch, Simd, WithSimd};
use std::hint::black_box;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Instant;

/// How much is measured, which decides how long it takes.
struct Effort {
    /// Samples of which the decile is taken.
    samples: usize,
    /// Seconds after which no more of them are taken.
    budget_seconds: f64,
    /// Seconds that a sample should last, so that the clock and a wake-up do not matter.
    sample_seconds: f64,
    /// Footprints at which bandwidth is measured.
    footprints: &'static [usize],
    /// Bytes of a long transfer.
    transfer: usize,
}

/// On the CPU: from inside the first-level cache to far outside the last. About 150 ms here.
const CPU: Effort = Effort {
    samples: 9,
    budget_seconds: 25e-3,
    sample_seconds: 2e-4,
    footprints: &[32 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 128 << 20],
    transfer: 0,
};

/// On a GPU with hardware, which is fast enough for large sizes.
const HARDWARE: Effort = Effort {
    samples: 5,
    budget_seconds: 10e-3,
    sample_seconds: 1e-3,
    footprints: &[64 << 10, 1 << 20, 16 << 20, 128 << 20],
    transfer: 16 << 20,
};

/// On a software adapter, which is slow, and of which little needs to be known.
const SOFTWARE: Effort = Effort {
    samples: 3,
    budget_seconds: 5e-3,
    sample_seconds: 1e-3,
    footprints: &[64 << 10, 1 << 20, 8 << 20],
    transfer: 2 << 20,
};

/// Measures the CPU with one thread and with its whole pool.
pub(super) fn cpu(cpu: &Cpu, name: String) -> Result<DeviceModel> {
    let threads = cpu.threads();
    let bench = CpuBench { cpu, threads };
    bench.settle()?;
    let (one_flops, pool_flops) = bench.flops()?;
    let (ready, asleep) = if threads > 1 {
        (bench.pool_launch(|| ())?, bench.pool_launch(fall_asleep)?)
    } else {
        (0.0, 0.0)
    };
    // A plan cannot know whether the helpers will stand by. The geometric mean is wrong by the same factor either way.
    let launch = (ready * asleep.max(ready)).sqrt();
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
pub(super) fn gpu(gpu: &Arc<Gpu>, id: DeviceId) -> Result<DeviceModel> {
    let software = gpu.info().kind == DeviceKind::Software;
    let bench = GpuBench::new(gpu, if software { &SOFTWARE } else { &HARDWARE })?;
    let (launch, queued) = bench.launch()?;
    let rates = bench.bandwidths(launch, queued)?;
    let flops = bench.flops(launch)?;
    let (upload, download) = bench.links(launch)?;
    Ok(DeviceModel {
        id,
        kind: gpu.info().kind,
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

/// Whether the pool gets the cores that it asks for, rather than sharing them with other processes: then the machine
/// was measured as it is, not as it happened to be.
pub(super) fn is_undisturbed(cpu: &Cpu) -> Result<bool> {
    /// Long enough to meet the turns of other processes, which take milliseconds.
    const SECONDS: f64 = 6e-3;
    const LEAST_SHARE_OF_CORES: f64 = 0.8;
    let threads = cpu.threads();
    let bench = CpuBench { cpu, threads };
    let rounds = bench.rounds_for(SECONDS / PIECES as f64)?;
    let before = cpu_seconds();
    let wall = bench.chains(threads * PIECES, threads, rounds)?;
    // More threads than cores cannot all have one.
    let cores =
        std::thread::available_parallelism().map_or(threads, |cores| threads.min(cores.get()));
    let used = cpu_seconds()
        .zip(before)
        .map(|(after, before)| after - before);
    Ok(used.is_none_or(|used| used >= LEAST_SHARE_OF_CORES * wall * cores as f64))
}

/// Seconds that the process has spent on all cores together, where the system tells.
fn cpu_seconds() -> Option<f64> {
    #[cfg(unix)]
    {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the pointer leads to a `timespec`, which is all that the call writes.
        let failed = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) } != 0;
        (!failed).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
    #[cfg(not(unix))]
    None
}

/// What an adapter says it can hold, which is known without measuring.
pub(super) fn limits(gpu: &Gpu) -> Limits {
    Limits {
        max_binding_bytes: Some(gpu.limits().max_binding_bytes),
        max_buffer_bytes: Some(gpu.limits().max_buffer_bytes),
        memory_bytes: None,
    }
}

fn engine(threads: usize, launch_seconds: f64, flops: f64, rates: Rates) -> Engine {
    let rates = rates
        .into_iter()
        .map(|[bytes, rate]| [bytes, rounded(rate)]);
    Engine {
        threads,
        launch_seconds: rounded(launch_seconds),
        flops_per_second: rounded(flops),
        bandwidth: Curve::new(rates.collect()).expect("sizes ascend and times are positive"),
    }
}

/// Four digits: more would only pretend, and the profile is for people too.
fn rounded(value: f64) -> f64 {
    if value == 0.0 {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Waits until the pool's threads sleep.
fn fall_asleep() {
    const SECONDS: f64 = 5e-4;
    let since = Instant::now();
    while since.elapsed().as_secs_f64() < SECONDS {
        std::hint::spin_loop();
    }
}

/// Seconds that `work` takes; never 0, even if the clock does not move.
fn time(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64().max(1e-9))
}

/// The value that a tenth of the samples are below, or the least if they are few.
fn decile(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 10]
}

impl Effort {
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
        let started = Instant::now();
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for taken in 0..times * self.samples {
            if taken >= LEAST_SAMPLES && started.elapsed().as_secs_f64() > self.budget_seconds {
                break;
            }
            let (first, second) = sample()?;
            firsts.push(first);
            seconds.push(second);
        }
        Ok((decile(firsts), decile(seconds)))
    }
}

/// The CPU under measurement.
struct CpuBench<'a> {
    cpu: &'a Cpu,
    threads: usize,
}

/// Pieces for each thread, so that one that is held up leaves work for the others, as in a real call.
const PIECES: usize = 8;
/// Bytes that one pass of `y = alpha * x + y` reads and writes, for each byte that it touches.
const TRAFFIC: f64 = 1.5;
/// The share of a sample that remains at least when its launch is taken off, however noisy both are.
const LEAST_SHARE: f64 = 0.25;

impl CpuBench<'_> {
    /// Keeps the pool busy until its threads have spread over the cores. The system may have put several on one core,
    /// where they take turns of milliseconds, and moves them apart only while they compete.
    fn settle(&self) -> Result<()> {
        const SECONDS: f64 = 1e-3;
        const MOST: usize = 30;
        /// Of the speed-up that as many cores can give.
        const ENOUGH: f64 = 0.8;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let expected = cores.min(self.threads) as f64;
        let rounds = self.rounds_for(SECONDS / PIECES as f64)?;
        for _ in 0..MOST {
            let one = self.chains(PIECES, 1, rounds)?;
            let all = self.chains(self.threads * PIECES, self.threads, rounds)?;
            if one * self.threads as f64 >= ENOUGH * expected * all {
                break;
            }
        }
        Ok(())
    }

    /// Operations per second of one thread and of all.
    fn flops(&self) -> Result<(f64, f64)> {
        let rounds = self.rounds_for(CPU.sample_seconds)?;
        let tasks = self.threads * PIECES;
        let (one, all) = CPU.compare(1, || {
            Ok((
                self.chains(1, 1, rounds)?,
                self.chains(tasks, self.threads, rounds / PIECES)?,
            ))
        })?;
        let flops = |tasks: usize, rounds: usize| {
            tasks as f64 * Arch::new().dispatch(Chains { rounds }).flops
        };
        Ok((flops(1, rounds) / one, flops(tasks, rounds / PIECES) / all))
    }

    /// What a parallel region costs on top of its share of the work, after `before`.
    fn pool_launch(&self, before: fn()) -> Result<f64> {
        let rounds = self.rounds_for(CPU.sample_seconds / 2.0)?;
        let tasks = self.threads * PIECES;
        let (one, all) = CPU.compare(3, || {
            let alone = self.chains(tasks, 1, rounds / tasks)?;
            before();
            Ok((alone, self.chains(tasks, self.threads, rounds / tasks)?))
        })?;
        let empty = CPU.measure(3, || {
            before();
            self.chains(tasks, self.threads, 0)
        })?;
        Ok((all - one / self.threads as f64).max(empty))
    }

    /// How many rounds of arithmetic one thread does in that time.
    fn rounds_for(&self, seconds: f64) -> Result<usize> {
        const TRIAL: usize = 2000;
        self.chains(1, 1, TRIAL)?;
        let trial = self.chains(1, 1, TRIAL)?;
        Ok(((seconds / trial * TRIAL as f64) as usize).clamp(TRIAL / 10, TRIAL * 1000))
    }

    fn chains(&self, tasks: usize, threads: usize, rounds: usize) -> Result<f64> {
        time(|| {
            self.cpu.for_ranges(0..tasks, 1, threads, &|range| {
                for _ in range {
                    black_box(Arch::new().dispatch(Chains { rounds }));
                }
                Ok(())
            })
        })
    }

    /// Bytes per second at each footprint, of one thread and of all. `launch` is taken off what all take.
    fn bandwidths(&self, launch: f64) -> Result<(Rates, Rates)> {
        let (mut x, mut y, footprints) = arrays(CPU.footprints)?;
        let (mut x, mut y) = (x.write()?, y.write()?);
        // Written first, since memory that was only ever read need not exist.
        self.for_pieces(&mut x, &mut y, self.threads, &|x, y| {
            x.fill(1.0);
            y.fill(1.0);
        })?;
        let (mut ones, mut alls) = (Vec::new(), Vec::new());
        for footprint in footprints {
            let items = footprint / 8;
            let traffic = TRAFFIC * *footprint as f64;
            let (x, y) = (&mut x[..items], &mut y[..items]);
            let trial = self.passes(x, y, self.threads, 1)?;
            let passes = (CPU.sample_seconds / trial).clamp(1.0, 1000.0) as usize;
            let (one, all) = CPU.compare(1, || {
                let alone = self.passes(x, y, 1, passes)? / passes as f64;
                Ok((
                    alone,
                    self.passes(x, y, self.threads, passes)? / passes as f64,
                ))
            })?;
            let all = (all - launch).max(LEAST_SHARE * all);
            ones.push([*footprint as f64, traffic / one]);
            alls.push([*footprint as f64, traffic / all]);
        }
        Ok((ones, alls))
    }

    fn passes(&self, x: &mut [f32], y: &mut [f32], threads: usize, passes: usize) -> Result<f64> {
        time(|| (0..passes).try_for_each(|_| self.for_pieces(x, y, threads, &|x, y| axpy(x, y))))
    }

    /// Calls `work` for matching pieces of both arrays.
    fn for_pieces(
        &self,
        x: &mut [f32],
        y: &mut [f32],
        threads: usize,
        work: &(dyn Fn(&mut [f32], &mut [f32]) + Sync),
    ) -> Result<()> {
        if threads == 1 {
            work(x, y);
            return Ok(());
        }
        let piece = x.len().div_ceil(threads * PIECES).next_multiple_of(64);
        let pieces: Vec<_> = x
            .chunks_mut(piece)
            .zip(y.chunks_mut(piece))
            .map(Mutex::new)
            .collect();
        self.cpu.for_ranges(0..pieces.len(), 1, threads, &|range| {
            for piece in &pieces[range] {
                let mut piece = piece.lock().unwrap_or_else(PoisonError::into_inner);
                let (x, y) = &mut *piece;
                work(x, y);
            }
            Ok(())
        })
    }
}

/// Two arrays that together have the largest of these footprints for which there is memory, and those that fit.
fn arrays(footprints: &[usize]) -> Result<(Array<f32>, Array<f32>, &[usize])> {
    let Some((largest, smaller)) = footprints.split_last() else {
        return Ok((Array::uninit(0)?, Array::uninit(0)?, footprints));
    };
    let allocated = || {
        let mut both = (Array::uninit(largest / 8)?, Array::uninit(largest / 8)?);
        both.0.write()?;
        both.1.write()?;
        Ok(both)
    };
    match allocated() {
        Ok((x, y)) => Ok((x, y, footprints)),
        Err(error) if smaller.is_empty() => Err(error),
        Err(_) => arrays(smaller),
    }
}

fn axpy(x: &[f32], y: &mut [f32]) {
    vectorised(
        #[inline(always)]
        || {
            for (y, x) in y.iter_mut().zip(x) {
                *y = 0.5 * *y + *x;
            }
        },
    );
}

/// Chains of multiply-adds that do not wait for each other: enough to hide the latency of one, few enough for the
/// registers.
struct Chains {
    rounds: usize,
}

/// What running the chains gives.
struct Ran {
    /// Operations that were done.
    flops: f64,
    /// The result, so that none of it can be left out.
    _value: f32,
}

impl WithSimd for Chains {
    type Output = Ran;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Ran {
        const CHAINS: usize = 12;
        let (factor, addend) = (
            simd.splat_f32s(black_box(0.5)),
            simd.splat_f32s(black_box(1.0)),
        );
        let mut chains = [addend; CHAINS];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = simd.mul_add_e_f32s(*chain, factor, addend);
            }
        }
        let sum = chains
            .into_iter()
            .reduce(|a, b| simd.add_f32s(a, b))
            .unwrap_or(addend);
        Ran {
            flops: (2 * CHAINS * S::F32_LANES * self.rounds) as f64,
            _value: simd.reduce_sum_f32s(sum),
        }
    }
}

static SHADER: LazyLock<Shader> =
    LazyLock::new(|| Shader::builtin("calibrate", include_str!("../../shaders/calibrate.wgsl")));

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    /// Vectors of four elements.
    vectors: u32,
    rounds: u32,
    alpha: f32,
}

/// A GPU under measurement, with two arrays that it alone holds.
struct GpuBench<'a> {
    gpu: &'a Arc<Gpu>,
    effort: &'static Effort,
    outline: Outline,
    views: [DeviceView; 2],
    /// The footprints that fit the adapter.
    footprints: Vec<usize>,
}

impl<'a> GpuBench<'a> {
    fn new(gpu: &'a Arc<Gpu>, effort: &'static Effort) -> Result<Self> {
        let limits = gpu.limits();
        let largest = limits.max_binding_bytes.min(limits.max_buffer_bytes);
        let fits = |footprint: &&usize| **footprint as u64 / 2 <= largest;
        let mut footprints: Vec<usize> = effort.footprints.iter().filter(fits).copied().collect();
        if footprints.is_empty() {
            footprints.push(2 * largest.max(256) as usize);
        }
        let items = footprints.last().copied().unwrap_or_default() / 8;
        let (x, y) = (Array::<f32>::uninit(items)?, Array::<f32>::uninit(items)?);
        let view = |array: &Array<f32>| {
            array
                .handle()
                .residency()
                .device_access(gpu, 0..items, false, true)
        };
        let views = [view(&x)?, view(&y)?];
        let bindings = [
            Binding::read(x.handle(), Role::ITEM),
            Binding::update(y.handle(), Role::ITEM),
        ];
        let outline = Outline::new(items, bindings, Work::default());
        let bench = Self {
            gpu,
            effort,
            outline,
            views,
            footprints,
        };
        // Compiles the shader, clears the buffers, and wakes the driver.
        bench.run(1, items, 0)?;
        Ok(bench)
    }

    /// Seconds to dispatch the shader so many times over that many items, and wait.
    fn run(&self, times: usize, items: usize, rounds: u32) -> Result<f64> {
        let part = GpuPart::new(self.gpu, &self.outline, 0..items.max(1), &self.views);
        let vectors = (items / 4) as u32;
        let params = Params {
            vectors,
            rounds,
            alpha: 0.5,
        };
        time(|| {
            for _ in 0..times {
                let args = [part.arg(0), part.arg(1)];
                part.dispatch(&SHADER, &args, &params, vectors.div_ceil(64).max(1))?;
            }
            self.gpu.wait_for_all()
        })
    }

    /// Seconds of an empty dispatch that is waited for, and of each further one that is queued with it.
    fn launch(&self) -> Result<(f64, f64)> {
        const QUEUED: usize = 50;
        let launch = self.effort.measure(3, || self.run(1, 0, 0))?;
        let many = self.effort.measure(1, || self.run(1 + QUEUED, 0, 0))?;
        Ok((launch, (many - launch).max(0.0) / QUEUED as f64))
    }

    /// Bytes per second at each footprint.
    fn bandwidths(&self, launch: f64, queued: f64) -> Result<Rates> {
        let measure = |footprint: &usize| {
            let items = footprint / 8;
            let trial = self.run(1, items, 0)?;
            let times = (self.effort.sample_seconds / trial).clamp(1.0, 50.0) as usize;
            let sample = self.effort.measure(1, || self.run(times, items, 0))?;
            let overhead = launch + (times - 1) as f64 * queued;
            let pass = (sample - overhead).max(LEAST_SHARE * sample) / times as f64;
            Ok([*footprint as f64, TRAFFIC * *footprint as f64 / pass])
        };
        self.footprints.iter().map(measure).collect()
    }

    /// Operations per second, with as much work as lasts for a sample.
    fn flops(&self, launch: f64) -> Result<f64> {
        const MOST_ROUNDS: u32 = 1 << 14;
        /// Four chains of four lanes, two operations each.
        const FLOPS: f64 = 32.0;
        let most_items = self.outline.items;
        let (mut items, mut rounds) = (most_items.min(1 << 14), 64);
        while self.run(1, items, rounds)? - launch < self.effort.sample_seconds {
            if items < most_items {
                items = (4 * items).min(most_items);
            } else if rounds < MOST_ROUNDS {
                rounds *= 4;
            } else {
                break;
            }
        }
        let sample = self.effort.measure(1, || self.run(1, items, rounds))?;
        let flops = (items / 4) as f64 * f64::from(rounds) * FLOPS;
        Ok(flops / (sample - launch).max(LEAST_SHARE * sample))
    }

    /// To the device and back.
    fn links(&self, launch: f64) -> Result<(Link, Link)> {
        const SMALL: usize = 256;
        let buffer = &self.views[1].buffer;
        let long = self.effort.transfer.min(self.outline.items * 4);
        let mut host = vec![0u8; long];
        let upload = |bytes: usize, host: &[u8]| {
            time(|| {
                self.gpu.upload(buffer, 0, &host[..bytes])?;
                self.gpu.wait_for_all()
            })
        };
        upload(long, &host)?;
        let up_small = self.effort.measure(3, || upload(SMALL.min(long), &host))?;
        let up_long = self.effort.measure(1, || upload(long, &host))?;
        let mut download = |bytes: usize| time(|| self.gpu.download(buffer, 0, &mut host[..bytes]));
        download(long)?;
        let down_small = self.effort.measure(3, || download(SMALL.min(long)))?;
        let down_long = self.effort.measure(1, || download(long))?;
        let link = |latency: f64, small: f64, all: f64| {
            let rate = long as f64 / (all - small).max(LEAST_SHARE * all);
            Link::from_rate(rounded(latency), rounded(rate)).expect("times are positive")
        };
        // An upload goes to the device with the call that needs it, and shares its submission and its wait.
        let up = link((up_small - launch).max(0.0), up_small, up_long);
        Ok((up, link(down_small, down_small, down_long)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_four_digits() {
        for (value, short) in [
            (0.0, 0.0),
            (1.23456e-7, 1.235e-7),
            (98765.4, 98770.0),
            (1.0, 1.0),
            (9.99999e10, 1e11),
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
        let pool = Cpu::new(2).expect("two threads");
        let model = cpu(&pool, "here".into()).expect("there is memory");
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
}
