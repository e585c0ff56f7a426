//! Auto and the variants that may be the best take turns, so that a disturbance of the machine meets all of them.

use super::super::args::StartLocation;
use super::super::params::{AuditParams, PARAMS};
use super::statistics::{Samples, best, mean, median};
use super::subject::{Subject, Timed};
use super::task::AuditTask;
use super::variants::{self, ForcedRun, Part, Variant, runs_per_visit};
use divvy::{DeviceId, Error, Placement, Runtime};
use std::time::Instant;

const AUDIT: AuditParams = PARAMS.audit;

/// The result. Times are medians in seconds unless they say otherwise.
pub struct Outcome {
    /// The index of the best variant.
    pub best: usize,
    /// The time of the best variant.
    pub oracle: f64,
    /// The time of each variant that took part.
    pub contenders: Vec<ContenderTime>,
    /// The time of Auto.
    pub chosen: f64,
    /// What ran where in most of its calls.
    pub parts: Vec<Part>,
    /// Means of all warm calls.
    pub chosen_mean: f64,
    pub oracle_mean: f64,
    /// Means of the first calls.
    pub chosen_cold: f64,
    pub oracle_cold: f64,
    /// The median of `|predicted - actual| / actual` of Auto's warm calls.
    pub prediction_error: f64,
    /// Seconds of all of Auto's calls, and of those that explored.
    pub seconds: f64,
    pub exploring_seconds: f64,
    /// Seconds to decide where a call runs.
    pub decision_seconds: f64,
}

/// The time of a variant that took part.
pub struct ContenderTime {
    /// The index of the variant.
    pub at: usize,
    pub seconds: f64,
}

/// Mean seconds of cold calls.
struct ColdMeans {
    chosen: f64,
    oracle: f64,
}

/// Lets Auto and the contenders take turns: while Auto is cold with the first contender, then with all.
///
/// # Errors
/// Errors of devices.
pub fn duel(
    task: &AuditTask,
    auto: &Runtime,
    variants: &[Variant],
    contenders: &[usize],
    mut subject: Subject,
) -> Result<Outcome, Error> {
    subject.start()?;
    let mut auto = Auto {
        rt: auto,
        subject,
        turns: Samples::default(),
        warm: Vec::new(),
        errors: Vec::new(),
        seen: Vec::new(),
        on_cpu: false,
        seconds: 0.0,
        exploring_seconds: 0.0,
    };
    let each = contenders.iter().map(|at| Contender {
        at: *at,
        variant: &variants[*at],
        apart: None,
        turns: Samples::default(),
        times: Vec::new(),
    });
    let mut others: Vec<Contender> = each.collect();
    let cold = cold(task, &mut auto, &mut others[0])?;
    let started = Instant::now();
    for turn in 0..AUDIT.most_turns {
        if turn >= AUDIT.least_turns && started.elapsed() >= AUDIT.turns_time {
            break;
        }
        // The order rotates, in case it matters, but a choosing turn and the scoring turn after it have the same order.
        let all = 1 + others.len();
        for next in 0..all {
            match (turn / 2 + next) % all {
                0 => auto.turn()?,
                at => others[at - 1].turn(task, &mut auto)?,
            }
        }
    }
    let winner = best(others.iter().map(|other| &other.turns)).unwrap_or(0);
    let oracle_mean = mean(&others[winner].times).unwrap_or(0.0);
    let figures = others.iter().map(|other| ContenderTime {
        at: other.at,
        seconds: other.turns.scoring().unwrap_or(0.0),
    });
    let most = auto.seen.iter().max_by_key(|seen| seen.calls);
    Ok(Outcome {
        best: others[winner].at,
        oracle: others[winner].turns.scoring().unwrap_or(0.0),
        contenders: figures.collect(),
        chosen: auto.turns.median().unwrap_or(0.0),
        parts: most.map(|seen| seen.parts.clone()).unwrap_or_default(),
        chosen_mean: mean(&auto.warm).unwrap_or(0.0),
        oracle_mean,
        chosen_cold: cold.chosen,
        // Only the first contender took part while Auto was cold.
        oracle_cold: if winner == 0 {
            cold.oracle
        } else {
            oracle_mean
        },
        prediction_error: median(&auto.errors).unwrap_or(0.0),
        decision_seconds: auto.subject.decision_seconds(auto.rt)?,
        seconds: auto.seconds,
        exploring_seconds: auto.exploring_seconds,
    })
}

/// The first calls of Auto, and the same number of runs of a contender.
fn cold(
    task: &AuditTask,
    auto: &mut Auto<'_>,
    other: &mut Contender<'_>,
) -> Result<ColdMeans, Error> {
    let (mut chosen, mut oracle) = (Vec::new(), Vec::new());
    while chosen.len() < AUDIT.cold_calls {
        rest();
        for _ in 0..AUDIT.cold_turn {
            chosen.push(auto.call()?.seconds);
        }
        let (variant, subject) = other.subject(task, auto)?;
        rest();
        for _ in 0..AUDIT.cold_turn {
            oracle.push(variant.run(subject)?.seconds);
        }
    }
    Ok(ColdMeans {
        chosen: mean(&chosen).unwrap_or(0.0),
        oracle: mean(&oracle).unwrap_or(0.0),
    })
}

/// Waits until the pool's idle threads sleep.
fn rest() {
    std::thread::sleep(AUDIT.rest);
}

/// A plan that Auto chose.
struct SeenPlan {
    parts: Vec<Part>,
    /// The number of calls that ran it.
    calls: usize,
}

/// Automatic placement, in a runtime that learns only from its own calls.
struct Auto<'a> {
    rt: &'a Runtime,
    subject: Subject,
    /// The median of each turn.
    turns: Samples,
    /// Seconds of every timed warm call.
    warm: Vec<f64>,
    /// The relative error of its prediction.
    errors: Vec<f64>,
    /// The plans of these calls.
    seen: Vec<SeenPlan>,
    /// Whether the last call ran only on the CPU.
    on_cpu: bool,
    seconds: f64,
    exploring_seconds: f64,
}

impl Auto<'_> {
    fn call(&mut self) -> Result<Timed, Error> {
        let timed = self.subject.run(self.rt, &Placement::Auto)?;
        self.on_cpu = is_on_cpu(&timed);
        self.account(timed.seconds, timed.report.exploring);
        Ok(timed)
    }

    fn turn(&mut self) -> Result<(), Error> {
        let last = self.warm.last();
        if !last.is_some_and(|seconds| self.subject.is_settled_after(*seconds)) {
            self.subject.settle(self.rt, &Placement::Auto, |timed| {
                self.seconds += timed.seconds;
                if timed.report.exploring {
                    self.exploring_seconds += timed.seconds;
                }
                self.on_cpu = is_on_cpu(timed);
            })?;
        }
        let first = self.warm.len();
        loop {
            let timed = self.call()?;
            let error = (timed.predicted - timed.seconds).abs() / timed.seconds.max(1e-9);
            self.warm.push(timed.seconds);
            self.errors.push(error);
            let parts = variants::parts(&timed.report.parts);
            match self.seen.iter_mut().find(|seen| seen.parts == parts) {
                Some(seen) => seen.calls += 1,
                None => self.seen.push(SeenPlan { parts, calls: 1 }),
            }
            if self.warm.len() - first >= runs_per_visit(timed.seconds) {
                break;
            }
        }
        self.turns.push(median(&self.warm[first..]).unwrap_or(0.0));
        Ok(())
    }

    fn account(&mut self, seconds: f64, exploring: bool) {
        self.seconds += seconds;
        if exploring {
            self.exploring_seconds += seconds;
        }
    }
}

fn is_on_cpu(timed: &Timed) -> bool {
    let parts = &timed.report.parts;
    parts.iter().all(|part| part.device == DeviceId::Cpu)
}

/// A variant that may be the best.
struct Contender<'a> {
    /// Its index.
    at: usize,
    variant: &'a Variant,
    /// Its own subject, if it must not find the data where another variant left them.
    apart: Option<Subject>,
    /// The median of each turn.
    turns: Samples,
    /// Every run.
    times: Vec<f64>,
}

impl<'a> Contender<'a> {
    /// The variant and its subject. That is Auto's subject, unless one would leave data where the other has to fetch
    /// them: the same kernel takes another time with arrays at other addresses.
    fn subject<'b>(
        &'b mut self,
        task: &AuditTask,
        auto: &'b mut Auto<'_>,
    ) -> Result<(&'a Variant, &'b mut Subject), Error> {
        let on_host = task.residency == StartLocation::Host;
        if on_host || auto.on_cpu && self.variant.kind.is_cpu() {
            return Ok((self.variant, &mut auto.subject));
        }
        let apart = match self.apart.take() {
            Some(apart) => apart,
            None => {
                let mut fresh = Subject::bind(task)?;
                self.variant.settle(&mut fresh)?;
                fresh
            }
        };
        Ok((self.variant, self.apart.insert(apart)))
    }

    fn turn(&mut self, task: &AuditTask, auto: &mut Auto<'_>) -> Result<(), Error> {
        let last = self.times.last().copied();
        let (variant, subject) = self.subject(task, auto)?;
        if !last.is_some_and(|seconds| subject.is_settled_after(seconds)) {
            variant.settle(subject)?;
        }
        let mut times = Vec::new();
        loop {
            let ForcedRun { seconds, .. } = variant.run(subject)?;
            times.push(seconds);
            if times.len() >= runs_per_visit(seconds) {
                break;
            }
        }
        self.turns.push(median(&times).unwrap_or(0.0));
        self.times.extend(times);
        Ok(())
    }
}
