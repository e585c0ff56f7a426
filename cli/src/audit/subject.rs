//! A kernel with its own arrays, which runs repeatedly as any variant.

use super::super::args::StartLocation;
use super::super::measure::{self, Repeats, Setup, TimedRun};
use super::super::params::{AuditParams, PARAMS};
use super::task::AuditTask;
use divvy::array::Handle;
use divvy::catalog::Case;
use divvy::{DeviceId, Error, Placement, Report, Runtime};
use std::time::Instant;

const AUDIT: AuditParams = PARAMS.audit;

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
    /// The predicted seconds.
    pub predicted: f64,
    /// What ran where.
    pub report: Report,
}

impl Subject {
    /// Binds the kernel to random arguments on the host.
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

    /// Restores the initial arguments, on the host.
    pub fn start(&mut self) -> Result<(), Error> {
        self.runs = 0;
        self.case.reset()
    }

    /// Runs the kernel once. With [`StartLocation::Host`], first moves its arrays to the host, untimed.
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
        let TimedRun { seconds, report } =
            measure::run_once(&setup, &mut *self.case, &self.written)?;
        self.runs += 1;
        Ok(Timed {
            seconds,
            predicted: measure::predicted_seconds(&setup, &report, &self.written)?,
            report,
        })
    }

    /// Runs the kernel until earlier runs no longer matter, and passes every run to `each`.
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
        while started.elapsed() < AUDIT.settling {
            each(&self.run(rt, placement)?);
        }
        Ok(())
    }

    /// Whether a variant that takes `seconds` can be timed without settling, if its arrays are in place.
    pub fn is_settled_after(&self, seconds: f64) -> bool {
        let drifted = self.in_place && self.runs >= AUDIT.runs_between_resets;
        seconds > AUDIT.settled_seconds && !drifted
    }

    /// Seconds to decide where a call runs.
    pub fn decision_seconds(&mut self, rt: &Runtime) -> Result<f64, Error> {
        const BATCHES: usize = AUDIT.decision_batches;
        const BATCH: usize = AUDIT.decision_batch;
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

    /// Restores arrays that were often updated in place, and moves them to where `last` left them. Returns whether that
    /// was necessary.
    fn restore(&mut self, rt: &Runtime, last: &Report) -> Result<bool, Error> {
        if !self.in_place || self.runs < AUDIT.runs_between_resets {
            return Ok(false);
        }
        let device = match last.parts.as_slice() {
            [part] => part.device,
            // To distribute arrays over several devices takes a run, which would count as another call.
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
