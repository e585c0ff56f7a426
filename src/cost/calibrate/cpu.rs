//! The CPU under measurement: arithmetic, memory, and what entering the pool costs.

use super::effort::{Effort, Thoroughness};
use super::model::Rates;
use super::sampling::{LEAST_SHARE, TRAFFIC, WorkUnit, now, seconds_since, time};
use crate::array::Array;
use crate::device::cpu::Cpu;
use crate::error::Result;
use crate::simd::{Lanes, VectorLoop};
use std::hint::black_box;
use std::sync::{Mutex, PoisonError};

/// Whether the pool gets the cores that it asks for, rather than sharing them with other processes: then the machine
/// was measured as it is, not as it happened to be.
pub(in crate::cost) fn is_undisturbed(cpu: &Cpu) -> Result<bool> {
    /// Long enough to meet the turns of other processes, which take milliseconds.
    const SECONDS: f64 = 6e-3;
    const LEAST_SHARE_OF_CORES: f64 = 0.8;
    let threads = cpu.threads();
    let bench = CpuBench::new(cpu, Effort::of_cpu(Thoroughness::First));
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

/// Waits until the pool's threads sleep.
fn fall_asleep() {
    const SECONDS: f64 = 5e-4;
    const MOST_LOOKS: usize = 1 << 15;
    let since = now();
    for _ in 0..MOST_LOOKS {
        if seconds_since(since) >= SECONDS {
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

/// Pieces for each thread, so that one that is held up leaves work for the others, as in a real call.
const PIECES: usize = 8;

impl<'a> CpuBench<'a> {
    pub(super) fn new(cpu: &'a Cpu, effort: Effort) -> Self {
        Self {
            cpu,
            threads: cpu.threads(),
            effort,
        }
    }

    /// Keeps the pool busy until its threads have spread over the cores. The system may have put several on one core,
    /// where they take turns of milliseconds, and moves them apart only while they compete.
    pub(super) fn settle(&self) -> Result<()> {
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
    pub(super) fn flops(&self) -> Result<(f64, f64)> {
        let rounds = self.rounds_for(self.effort.sample_seconds)?;
        let tasks = self.threads * PIECES;
        let (one, all) = self.effort.compare(1, || {
            Ok((
                self.chains(1, 1, rounds)?,
                self.chains(tasks, self.threads, rounds / PIECES)?,
            ))
        })?;
        let flops = |tasks: usize, rounds: usize| {
            tasks as f64 * self.cpu.simd().run(Chains { rounds }).flops
        };
        Ok((flops(1, rounds) / one, flops(tasks, rounds / PIECES) / all))
    }

    /// What a parallel region costs if its helpers stand by, and in general. `gain` is how many times faster the pool
    /// computes than one thread: fewer than it has threads if others hold the cores, which is no matter of the launch.
    pub(super) fn launch(&self, gain: f64) -> Result<(f64, f64)> {
        if self.threads == 1 {
            return Ok((0.0, 0.0));
        }
        let ready = self.pool_launch(gain, || ())?;
        let asleep = self.pool_launch(gain, fall_asleep)?;
        // A plan cannot know whether the helpers will stand by. The geometric mean is wrong by the same factor either way.
        Ok((ready, (ready * asleep.max(ready)).sqrt()))
    }

    /// What a parallel region costs on top of its work, after `before`.
    fn pool_launch(&self, gain: f64, before: fn()) -> Result<f64> {
        let rounds = self.rounds_for(self.effort.sample_seconds / 2.0)?;
        let tasks = self.threads * PIECES;
        let (one, all) = self.effort.compare(3, || {
            let alone = self.chains(tasks, 1, rounds / tasks)?;
            before();
            Ok((alone, self.chains(tasks, self.threads, rounds / tasks)?))
        })?;
        let empty = self.effort.measure(3, || {
            before();
            self.chains(tasks, self.threads, 0)
        })?;
        Ok((all - one / gain).max(empty))
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
                    black_box(self.cpu.simd().run(Chains { rounds }));
                }
                Ok(())
            })
        })
    }

    /// Bytes per second at each footprint, of one thread and of all. `launch` is taken off what all take.
    pub(super) fn bandwidths(&self, launch: f64) -> Result<(Rates, Rates)> {
        const MOST_BYTES: f64 = 1e8;
        let (mut x, mut y, footprints) = arrays(self.effort.footprints)?;
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
            // No more than takes a moment, even if the clock says that it takes none.
            let most = (MOST_BYTES / *footprint as f64).clamp(1.0, 1000.0);
            let passes = (self.effort.sample_seconds / trial).clamp(1.0, most) as usize;
            let (one, all) = self.effort.compare(1, || {
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

    /// Arithmetic on all threads that takes about so long.
    pub(super) fn arithmetic(self, seconds: f64) -> Result<WorkUnit<'a>> {
        let rounds = self.rounds_for(seconds / PIECES as f64)?;
        Ok(Box::new(move || {
            self.chains(self.threads * PIECES, self.threads, rounds)
                .map(drop)
        }))
    }

    /// Passes of all threads over the largest footprint, that take about so long.
    pub(super) fn memory(self, seconds: f64) -> Result<WorkUnit<'a>> {
        const MOST: f64 = 100.0;
        let (mut x, mut y, _) = arrays(self.effort.footprints)?;
        let mut pass = move |passes: usize| -> Result<f64> {
            let (mut x, mut y) = (x.write()?, y.write()?);
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

impl VectorLoop for Chains {
    type Output = Ran;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Ran {
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
        Ran {
            flops: (2 * CHAINS * L::F32_LANES * self.rounds) as f64,
            _value: lanes.reduce_sum_f32s(sum),
        }
    }
}
