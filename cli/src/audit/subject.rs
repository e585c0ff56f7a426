//! A kernel with arrays of its own, run again and again, in whichever way.

use super::super::args::StartLocation;
use super::super::measure::{self, Repeats, Setup};
use super::task::AuditTask;
use divvy::array::Handle;
use divvy::catalog::Case;
use divvy::{DeviceId, Error, Placement, Report, Runtime};
use std::time::{Duration, Instant};

/// A kernel that updates an array in place drifts from its input: it is put back to that after so many runs.
const RUNS_BETWEEN_RESETS: usize = 64;
/// A way is run untimed for so long before it is timed, so that caches hold what it touches and nobody stands by any
/// more to help with what ran before: the pool's threads do that for 60 µs.
const SETTLING: Duration = Duration::from_micros(100);
/// After a run that takes longer than this, in seconds, what ran before no longer matters.
const LONG: f64 = 5e-3;

/// A kernel bound to random arguments.
pub struct Subject {
    case: Box<dyn Case>,
    residency: StartLocation,
    written: Vec<Handle>,
    all: Vec<Handle>,
    in_place: bool,
    runs: usize,
}

/// A run of a subject.
pub struct Timed {
    /// Seconds until the results were where they are wanted.
    pub seconds: f64,
    /// The seconds that were predicted for that.
    pub predicted: f64,
    /// What ran where.
    pub report: Report,
}

impl Subject {
    /// The kernel with its arguments, which are on the host.
    pub fn bind(task: &AuditTask) -> Result<Self, Error> {
        let AuditTask {
            entry,
            n,
            residency,
            seed,
        } = *task;
        let mut case = entry.bind(n, entry.default_type(), seed)?;
        case.reset()?;
        let spec = case.spec();
        Ok(Self {
            all: spec.arrays(),
            written: spec.written().cloned().collect(),
            in_place: spec.is_in_place(),
            case,
            residency,
            runs: 0,
        })
    }

    /// Puts the arguments back to what they were drawn as, and to the host.
    pub fn start(&mut self) -> Result<(), Error> {
        self.runs = 0;
        self.case.reset()
    }

    /// Runs the kernel once. With [`StartLocation::Host`] its arrays are on the host before, which is not timed.
    pub fn run(&mut self, rt: &Runtime, placement: &Placement) -> Result<Timed, Error> {
        if self.residency == StartLocation::Host {
            self.all.iter().try_for_each(Handle::move_to_host)?;
        }
        let setup = Setup {
            rt,
            placement,
            residency: self.residency,
            repeats: Repeats::Exactly(1),
        };
        let (seconds, report) = measure::run_once(&setup, &mut *self.case, &self.written)?;
        self.runs += 1;
        Ok(Timed {
            seconds,
            predicted: measure::predicted_seconds(&setup, &report, &self.written)?,
            report,
        })
    }

    /// Runs the kernel until what was run before no longer matters, and shows `each` run.
    pub fn settle(
        &mut self,
        rt: &Runtime,
        placement: &Placement,
        mut each: impl FnMut(&Timed),
    ) -> Result<(), Error> {
        let mut started = Instant::now();
        let first = self.run(rt, placement)?;
        each(&first);
        if self.restore(rt, &first.report)? {
            started = Instant::now();
        }
        while started.elapsed() < SETTLING {
            each(&self.run(rt, placement)?);
        }
        Ok(())
    }

    /// Whether a way that takes so long can be timed without settling, if its arrays are where they should be.
    pub fn is_settled_after(&self, seconds: f64) -> bool {
        seconds > LONG && !(self.in_place && self.runs >= RUNS_BETWEEN_RESETS)
    }

    /// Seconds of deciding what a run would do.
    pub fn decision_seconds(&mut self, rt: &Runtime) -> Result<f64, Error> {
        const BATCHES: usize = 41;
        const BATCH: usize = 16;
        if self.residency == StartLocation::Host {
            self.all.iter().try_for_each(Handle::move_to_host)?;
        }
        let mut times = Vec::with_capacity(BATCHES);
        for _ in 0..BATCHES {
            let started = Instant::now();
            for _ in 0..BATCH {
                std::hint::black_box(self.case.plan(rt, Placement::Auto)?);
            }
            times.push(started.elapsed().as_secs_f64() / BATCH as f64);
        }
        Ok(super::statistics::median(&times).unwrap_or(0.0))
    }

    /// Puts arrays that were updated in place often back to what they were, and to where `last` left them. Returns
    /// whether there was a need.
    fn restore(&mut self, rt: &Runtime, last: &Report) -> Result<bool, Error> {
        if !self.in_place || self.runs < RUNS_BETWEEN_RESETS {
            return Ok(false);
        }
        let device = match last.parts.as_slice() {
            [part] => part.device,
            // Bringing back what several devices hold takes a run, which would count as another call.
            _ => return Ok(false),
        };
        self.runs = 0;
        self.case.reset()?;
        if device != DeviceId::Cpu && self.residency == StartLocation::Device {
            for array in &self.all {
                rt.prefetch_handle(array, device)?;
            }
            rt.synchronize()?;
        }
        Ok(true)
    }
}
