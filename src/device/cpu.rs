//! The CPU as a device: one rayon pool.

use super::params::PARAMS;
use super::region::{RangeTask, Region, Standby};
use crate::error::{Error, Result};
use crate::simd::Simd;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The processor's cores: one rayon pool, and the instruction set that loops run with.
pub(crate) struct Cpu {
    pool: rayon::ThreadPool,
    standby: Arc<Standby>,
    simd: Simd,
}

impl Cpu {
    /// A pool of `threads` threads, whose loops run with `simd`.
    pub(crate) fn new(threads: usize, simd: Simd) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("divvy-{i}"))
            .build()
            .map_err(|e| Error::Setting {
                setting: "threads".into(),
                given: threads.to_string(),
                expected: format!("a number of threads that the system can start ({e})"),
            })?;
        Ok(Self {
            pool,
            standby: Arc::default(),
            simd,
        })
    }

    /// The system's name for the processor, else its architecture.
    pub(crate) fn name(&self) -> &'static str {
        static NAME: OnceLock<String> = OnceLock::new();
        NAME.get_or_init(|| {
            let model = |text: String| {
                let line = text.lines().find(|line| line.starts_with("model name"))?;
                Some(line.split_once(':')?.1.trim().to_owned())
            };
            let info = std::fs::read_to_string("/proc/cpuinfo").ok();
            info.and_then(model)
                .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
        })
    }

    /// The number of threads of the pool.
    pub(crate) fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// The instruction set that loops run with.
    pub(crate) fn simd(&self) -> Simd {
        self.simd
    }

    /// Runs `task` inside the pool, so that rayon's parallel iterators use its threads.
    pub(crate) fn install<R: Send>(&self, task: impl FnOnce() -> R + Send) -> R {
        self.assist(self.standby.dismiss());
        self.pool.install(task)
    }

    /// Finds a helper for a region whose helpers were recalled.
    fn assist(&self, displaced: Option<Arc<Region>>) {
        if let Some(region) = displaced {
            self.pool.spawn(move || region.work());
        }
    }

    /// Calls `task` for consecutive ranges that together are `items`, on up to `threads` threads including this one.
    /// Borders between ranges are multiples of `grain`. The first error stops the distribution of ranges.
    pub(crate) fn for_ranges(
        &self,
        items: Range<usize>,
        grain: usize,
        threads: usize,
        task: &RangeTask<'_>,
    ) -> Result<()> {
        let step = items
            .len()
            .div_ceil(threads * PARAMS.ranges_per_thread)
            .next_multiple_of(grain);
        if threads == 1 || items.len() <= step {
            return if items.is_empty() {
                Ok(())
            } else {
                task(items)
            };
        }
        // SAFETY: `region.finish()` below returns only after every claimed range is computed and none can be claimed
        // any more. Before that, nothing returns or unwinds.
        let region = unsafe { Region::new(items, step, task) };
        let helpers = threads.min(region.ranges()) - 1;
        let offer = self.standby.offer(&region);
        self.assist(offer.displaced);
        for _ in offer.waiting..helpers {
            let (standby, region) = (Arc::clone(&self.standby), Arc::clone(&region));
            self.pool.spawn(move || standby.help(region, offer.epoch));
        }
        region.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panics::catch_panic;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_is_visited_once_at_grain_borders() {
        let cpu = Cpu::new(3, Simd::best()).expect("three threads");
        for (n, grain, threads) in [
            (0, 1, 2),
            (1, 1, 3),
            (1000, 64, 3),
            (1001, 7, 2),
            (4096, 4096, 3),
        ] {
            let seen: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
            cpu.for_ranges(0..n, grain, threads, &|range| {
                assert_eq!(range.start % grain, 0);
                for i in range {
                    seen[i].fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
            .expect("no range fails");
            assert!(
                seen.iter().all(|s| s.load(Ordering::Relaxed) == 1),
                "{n} {grain} {threads}"
            );
        }
    }

    #[test]
    fn an_error_is_returned_and_stops_the_rest() {
        let cpu = Cpu::new(2, Simd::best()).expect("two threads");
        let begun = AtomicUsize::new(0);
        let result = cpu.for_ranges(0..1 << 20, 1, 2, &|_| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(Error::argument("test", "always fails"))
        });
        assert!(result.is_err());
        assert!(
            begun.load(Ordering::Relaxed) <= 2,
            "each thread begins one range at the most"
        );
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let cpu = Cpu::new(2, Simd::best()).expect("two threads");
        let error = catch_panic("test", || {
            cpu.for_ranges(0..100, 1, 2, &|range| {
                if range.contains(&50) {
                    panic!("item {}", 50)
                } else {
                    Ok(())
                }
            })
        })
        .expect_err("it panics");
        assert!(error.to_string().contains("item 50"), "{error}");
        // The pool still works.
        cpu.for_ranges(0..100, 1, 2, &|_| Ok(()))
            .expect("nothing fails");
    }

    #[test]
    fn regions_nest_inside_the_pool_without_deadlock() {
        let cpu = Cpu::new(2, Simd::best()).expect("two threads");
        let sum = AtomicUsize::new(0);
        cpu.install(|| {
            cpu.for_ranges(0..100, 1, 2, &|outer| {
                cpu.for_ranges(outer, 1, 2, &|inner| {
                    sum.fetch_add(inner.len(), Ordering::Relaxed);
                    Ok(())
                })
            })
        })
        .expect("nothing fails");
        assert_eq!(sum.load(Ordering::Relaxed), 100);
    }
}
