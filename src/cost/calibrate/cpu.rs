//! The CPU under measurement: arithmetic, memory, and what entering the pool costs.

use super::effort::{Effort, Thoroughness};
use super::model::Rates;
use super::sampling::{Pair, TRAFFIC, WorkUnit, now, seconds_since, time};
use crate::array::Array;
use crate::cost::params::PARAMS;
use crate::device::cpu::Cpu;
use crate::error::Result;
use crate::simd::{Lanes, VectorLoop};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

/// Whether the pool has its cores to itself. If other processes share them, the figures are too low.
pub(in crate::cost) fn is_undisturbed(cpu: &Cpu) -> Result<bool> {
    let threads = cpu.threads();
    let bench = CpuBench::new(cpu, Effort::of_cpu(Thoroughness::First));
    let rounds = bench.rounds_for(PARAMS.calibration.undisturbed_seconds / PIECES as f64)?;
    let before = cpu_seconds();
    let wall = bench.chains(threads * PIECES, threads, rounds)?;
    // Threads beyond the number of cores cannot have one each.
    let cores =
        std::thread::available_parallelism().map_or(threads, |cores| threads.min(cores.get()));
    let used = cpu_seconds()
        .zip(before)
        .map(|(after, before)| after - before);
    Ok(used.is_none_or(|used| used >= PARAMS.calibration.undisturbed_share * wall * cores as f64))
}

/// CPU seconds of this process on all cores together, where the system reports them.
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

/// Waits until the pool's threads sleep.
fn fall_asleep() {
    /// Ends the loop even if the clock does not move.
    const MOST_LOOKS: usize = 1 << 15;
    let since = now();
    for _ in 0..MOST_LOOKS {
        if seconds_since(since) >= PARAMS.calibration.asleep_seconds {
            break;
        }
        std::hint::spin_loop();
    }
}

/// The CPU under measurement.
pub(super) struct CpuBench<'a> {
    cpu: &'a Cpu,
    threads: usize,
    effort: Effort,
}

const PIECES: usize = PARAMS.calibration.pieces_per_thread;

/// What a parallel region costs.
pub(super) struct PoolLaunch {
    /// Seconds if the pool's threads are awake.
    pub(super) awake: f64,
    /// Seconds in general.
    pub(super) seconds: f64,
}

/// Bandwidth by footprint.
pub(super) struct CpuRates {
    pub(super) one_thread: Rates,
    pub(super) pool: Rates,
}

impl<'a> CpuBench<'a> {
    pub(super) fn new(cpu: &'a Cpu, effort: Effort) -> Self {
        Self {
            cpu,
            threads: cpu.threads(),
            effort,
        }
    }

    /// Keeps the pool busy until its threads have spread over the cores. The system may put several on one core, where
    /// they take turns of milliseconds, and moves them apart only while they compete.
    pub(super) fn settle(&self) -> Result<()> {
        let params = PARAMS.calibration;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let expected = cores.min(self.threads) as f64;
        let rounds = self.rounds_for(params.settling_seconds / PIECES as f64)?;
        for _ in 0..params.most_settling_rounds {
            let one = self.chains(PIECES, 1, rounds)?;
            let all = self.chains(self.threads * PIECES, self.threads, rounds)?;
            if one * self.threads as f64 >= params.settled_share * expected * all {
                break;
            }
        }
        Ok(())
    }

    /// Operations per second of one thread and of all.
    pub(super) fn flops(&self) -> Result<Pair> {
        let rounds = self.rounds_for(self.effort.sample_seconds)?;
        let tasks = self.threads * PIECES;
        let seconds = self.effort.compare(1, || {
            Ok(Pair {
                first: self.chains(1, 1, rounds)?,
                second: self.chains(tasks, self.threads, rounds / PIECES)?,
            })
        })?;
        let flops = |tasks: usize, rounds: usize| {
            tasks as f64 * self.cpu.simd().run(Chains { rounds }).flops
        };
        Ok(Pair {
            first: flops(1, rounds) / seconds.first,
            second: flops(tasks, rounds / PIECES) / seconds.second,
        })
    }

    /// What a parallel region costs. `gain` is the speed-up of the pool over one thread. It is lower than the number of
    /// threads if other processes hold cores, which must not count as launch.
    pub(super) fn launch(&self, gain: f64) -> Result<PoolLaunch> {
        if self.threads == 1 {
            return Ok(PoolLaunch {
                awake: 0.0,
                seconds: 0.0,
            });
        }
        let awake = self.pool_launch(gain, || ())?;
        let asleep = self.pool_launch(gain, fall_asleep)?;
        Ok(PoolLaunch {
            awake,
            // A plan cannot know whether the threads will be awake. The geometric mean is wrong by the same factor
            // either way.
            seconds: (awake * asleep.max(awake)).sqrt(),
        })
    }

    /// Seconds that a parallel region costs on top of its work, right after `before`.
    fn pool_launch(&self, gain: f64, before: fn()) -> Result<f64> {
        let rounds = self.rounds_for(self.effort.sample_seconds / 2.0)?;
        let tasks = self.threads * PIECES;
        let seconds = self.effort.compare(3, || {
            let first = self.chains(tasks, 1, rounds / tasks)?;
            before();
            let second = self.chains(tasks, self.threads, rounds / tasks)?;
            Ok(Pair { first, second })
        })?;
        let empty = self.effort.measure(3, || {
            before();
            self.chains(tasks, self.threads, 0)
        })?;
        Ok((seconds.second - seconds.first / gain).max(empty))
    }

    /// The rounds of arithmetic that one thread does in `seconds`.
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
                    black_box(self.cpu.simd().run(Chains { rounds }));
                }
                Ok(())
            })
        })
    }

    /// Bytes per second at each footprint. `launch` is subtracted from the pool's times.
    pub(super) fn bandwidths(&self, launch: f64) -> Result<CpuRates> {
        let mut buffers = Buffers::new(self.effort.footprints)?;
        let (mut x, mut y) = (buffers.x.write()?, buffers.y.write()?);
        // Written first: the system may back memory that was never written with one page of zeros.
        self.for_pieces(&mut x, &mut y, self.threads, &|x, y| {
            x.fill(1.0);
            y.fill(1.0);
        })?;
        let (mut one_thread, mut pool) = (Vec::new(), Vec::new());
        for footprint in buffers.footprints {
            let items = footprint / 8;
            let traffic = TRAFFIC * *footprint as f64;
            let (x, y) = (&mut x[..items], &mut y[..items]);
            let trial = self.passes(x, y, self.threads, 1)?;
            let most_bytes = PARAMS.calibration.most_bandwidth_bytes;
            let most = (most_bytes / *footprint as f64).clamp(1.0, 1000.0);
            let passes = (self.effort.sample_seconds / trial).clamp(1.0, most) as usize;
            let pass = self.effort.compare(1, || {
                Ok(Pair {
                    first: self.passes(x, y, 1, passes)? / passes as f64,
                    second: self.passes(x, y, self.threads, passes)? / passes as f64,
                })
            })?;
            let least = PARAMS.calibration.least_share * pass.second;
            let pool_pass = (pass.second - launch).max(least);
            one_thread.push([*footprint as f64, traffic / pass.first]);
            pool.push([*footprint as f64, traffic / pool_pass]);
        }
        Ok(CpuRates { one_thread, pool })
    }

    /// Arithmetic on all threads that takes about `seconds`.
    pub(super) fn arithmetic(self, seconds: f64) -> Result<WorkUnit<'a>> {
        let rounds = self.rounds_for(seconds / PIECES as f64)?;
        Ok(Box::new(move || {
            self.chains(self.threads * PIECES, self.threads, rounds)
                .map(drop)
        }))
    }

    /// Passes of all threads over the largest footprint that take about `seconds`.
    pub(super) fn memory(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 100.0;
        let mut buffers = Buffers::new(self.effort.footprints)?;
        let mut pass = move |passes: usize| -> Result<f64> {
            let (mut x, mut y) = (buffers.x.write()?, buffers.y.write()?);
            self.passes(&mut x, &mut y, self.threads, passes)
        };
        // The first touches the memory.
        pass(1)?;
        let passes = (seconds / pass(1)?).clamp(1.0, MOST) as usize;
        Ok(Box::new(move || pass(passes).map(drop)))
    }

    fn passes(&self, x: &mut [f32], y: &mut [f32], threads: usize, passes: usize) -> Result<f64> {
        time(|| {
            (0..passes).try_for_each(|_| {
                self.for_pieces(x, y, threads, &|x, y| self.cpu.simd().run(Axpy { x, y }))
            })
        })
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

/// Two arrays that together have the largest footprint for which there is memory.
struct Buffers<'a> {
    x: Array<f32>,
    y: Array<f32>,
    /// The footprints that fit.
    footprints: &'a [usize],
}

impl<'a> Buffers<'a> {
    fn new(footprints: &'a [usize]) -> Result<Self> {
        let largest = footprints.last().copied().unwrap_or(0);
        let allocated = || {
            let (mut x, mut y) = (Array::uninit(largest / 8)?, Array::uninit(largest / 8)?);
            x.write()?;
            y.write()?;
            Ok(Self { x, y, footprints })
        };
        match footprints {
            [smaller @ .., _] if !smaller.is_empty() => allocated().or_else(|_| Self::new(smaller)),
            _ => allocated(),
        }
    }
}

/// `y = y/2 + x`: reads two streams and writes one.
struct Axpy<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
}

impl VectorLoop for Axpy<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        for (y, x) in self.y.iter_mut().zip(self.x) {
            *y = 0.5 * *y + *x;
        }
    }
}

/// Independent chains of multiply-adds: enough to hide the latency of one, few enough for the registers.
struct Chains {
    rounds: usize,
}

/// The result of running the chains.
struct ChainsOutput {
    /// Operations that were done.
    flops: f64,
    /// Keeps the compiler from removing the work.
    _value: f32,
}

impl VectorLoop for Chains {
    type Output = ChainsOutput;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> ChainsOutput {
        const CHAINS: usize = 12;
        let (factor, addend) = (lanes.splat(black_box(0.5)), lanes.splat(black_box(1.0)));
        let mut chains = [addend; CHAINS];
        for _ in 0..self.rounds {
            for chain in &mut chains {
                *chain = lanes.multiply_add(*chain, factor, addend);
            }
        }
        let mut sum = lanes.splat(0.0);
        for chain in chains {
            sum = lanes.add(sum, chain);
        }
        ChainsOutput {
            flops: (2 * CHAINS * L::F32_LANES * self.rounds) as f64,
            _value: lanes.reduce_sum_f32s(sum),
        }
    }
}
