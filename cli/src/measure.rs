//! Times a kernel of the catalog on its random arguments.
//!
//! A timing covers the call until its results are where they are wanted. Everything else, such as restoring arrays and
//! their residency, happens between the timings.

use super::args::StartLocation;
use super::params::{PARAMS, TimingParams};
use super::progress::Progress;
use divvy::array::Handle;
use divvy::catalog::Case;
use divvy::{DeviceId, Error, Placement, Report, Runtime};
use serde::Serialize;
use std::time::Instant;

const TIMING: TimingParams = PARAMS.timing;

/// How often a kernel is timed.
#[derive(Clone, Copy, Debug)]
pub enum Repeats {
    /// A fixed number of times.
    Exactly(usize),
    /// For benchmarks: until the median can be trusted, within a time limit.
    Enough,
}

impl Repeats {
    fn are_done(self, done: &[f64]) -> bool {
        match self {
            Self::Exactly(repeats) => done.len() >= repeats,
            Self::Enough => {
                let spent: f64 = done.iter().sum();
                done.len() >= TIMING.most_repeats
                    || spent >= TIMING.most_seconds
                    || spent >= TIMING.enough_seconds && done.len() >= TIMING.least_repeats
            }
        }
    }
}

/// How a kernel is run and timed.
pub struct Setup<'a> {
    /// The devices.
    pub rt: &'a Runtime,
    /// Where the kernel runs.
    pub placement: &'a Placement,
    /// Where its arrays are.
    pub residency: StartLocation,
    /// How often it is timed.
    pub repeats: Repeats,
}

/// One timed run.
pub struct TimedRun {
    /// Seconds until the results were where they are wanted.
    pub seconds: f64,
    /// What ran where.
    pub report: Report,
}

/// The times of a kernel.
#[derive(Debug)]
pub struct Timing {
    /// Seconds of each run, ascending. At least one.
    seconds: Vec<f64>,
    /// The report of the last run.
    pub report: Report,
    /// Seconds predicted for the last run, until its results are where they are wanted.
    pub predicted_seconds: f64,
}

/// The least, the median and the largest of several times, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The largest.
    pub max: f64,
}

impl Timing {
    /// The number of timed runs.
    pub fn repeats(&self) -> usize {
        self.seconds.len()
    }

    /// The spread of the times.
    pub fn spread(&self) -> Spread {
        Spread::of(&self.seconds)
    }

    /// `amount` per second of the median.
    pub fn rate(&self, amount: f64) -> f64 {
        self.spread().rate(amount)
    }
}

impl Spread {
    /// The spread of at least one time, in ascending order.
    fn of(sorted: &[f64]) -> Self {
        let n = sorted.len();
        Self {
            min: sorted[0],
            median: (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
            max: sorted[n - 1],
        }
    }

    fn rate(&self, amount: f64) -> f64 {
        if self.median > 0.0 {
            amount / self.median
        } else {
            0.0
        }
    }
}

/// Times the kernel after one warm-up run, which also compiles its shaders and moves its arrays to where it runs.
pub fn time(setup: &Setup<'_>, case: &mut dyn Case, progress: &Progress) -> Result<Timing, Error> {
    let spec = case.spec();
    let (all, in_place) = (spec.arrays(), spec.is_in_place());
    let written: Vec<Handle> = spec.written().cloned().collect();

    progress.doing("warming up");
    case.reset()?;
    run_once(setup, case, &written)?;
    progress.step();

    progress.doing("timing");
    let mut seconds = Vec::new();
    loop {
        if in_place && (seconds.len() + 1).is_multiple_of(TIMING.runs_between_resets) {
            case.reset()?;
            run_once(setup, case, &written)?;
        }
        if setup.residency == StartLocation::Host {
            all.iter().try_for_each(Handle::move_to_host)?;
        }
        let run = run_once(setup, case, &written)?;
        seconds.push(run.seconds);
        progress.step();
        if setup.repeats.are_done(&seconds) {
            seconds.sort_by(f64::total_cmp);
            return Ok(Timing {
                seconds,
                predicted_seconds: predicted_seconds(setup, &run.report, &written)?,
                report: run.report,
            });
        }
    }
}

/// Runs the kernel until its results are where they are wanted.
pub fn run_once(
    setup: &Setup<'_>,
    case: &mut dyn Case,
    written: &[Handle],
) -> Result<TimedRun, Error> {
    let placement = setup.placement.clone();
    let started = Instant::now();
    let report = case.run(setup.rt, placement)?;
    match setup.residency {
        StartLocation::Host => written.iter().try_for_each(Handle::fetch)?,
        // The CPU is done when the call returns.
        StartLocation::Device if report.parts.iter().all(|p| p.device == DeviceId::Cpu) => {}
        StartLocation::Device => setup.rt.synchronize()?,
    }
    Ok(TimedRun {
        seconds: started.elapsed().as_secs_f64(),
        report,
    })
}

/// The predicted seconds of the call and, if its outputs are wanted on the host, of fetching them, which is not part of
/// the call.
pub fn predicted_seconds(
    setup: &Setup<'_>,
    report: &Report,
    written: &[Handle],
) -> Result<f64, Error> {
    let mut seconds = report.predicted_seconds;
    if setup.residency == StartLocation::Host {
        let machine = setup.rt.machine()?;
        let items = report.parts.last().map_or(0, |part| part.range.end);
        for part in &report.parts {
            let model = machine.device(part.device);
            if let Some(link) = model.and_then(|model| model.download.as_ref()) {
                let share = part.range.len() as f64 / items as f64;
                let bytes = |array: &Handle| (array.len() * array.element_type().size()) as f64;
                seconds += written
                    .iter()
                    .map(|array| link.seconds(share * bytes(array)))
                    .sum::<f64>();
            }
        }
    }
    Ok(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_least_median_and_largest() {
        let spread = |seconds: &[f64]| {
            let Spread { min, median, max } = Spread::of(seconds);
            [min, median, max]
        };
        assert_eq!(spread(&[3.0]), [3.0, 3.0, 3.0]);
        assert_eq!(spread(&[1.0, 2.0]), [1.0, 1.5, 2.0]);
        assert_eq!(spread(&[1.0, 2.0, 9.0]), [1.0, 2.0, 9.0]);
        assert_eq!(spread(&[1.0, 2.0, 4.0, 9.0]), [1.0, 3.0, 9.0]);
    }

    #[test]
    fn rates_are_finite_even_if_the_clock_did_not_move() {
        assert_eq!(Spread::of(&[0.0]).rate(5.0), 0.0);
        assert_eq!(Spread::of(&[0.5]).rate(5.0), 10.0);
    }

    #[test]
    fn benchmarks_repeat_short_kernels_often_and_long_ones_once() {
        let count = |seconds: f64| {
            let mut done = Vec::new();
            while !Repeats::Enough.are_done(&done) {
                done.push(seconds);
            }
            done.len()
        };
        assert_eq!(count(1e-6), TIMING.most_repeats);
        assert_eq!(count(0.01), 30);
        assert_eq!(count(0.2), TIMING.least_repeats);
        assert_eq!(count(10.0), 1);
    }
}
