//! Auto and the ways that may be the best in turns, so that what disturbs the machine disturbs all of them.

use super::super::args::StartLocation;
use super::arms::{self, Arm, Part, runs_per_visit};
use super::statistics::{Samples, best, mean, median};
use super::subject::{Subject, Timed};
use super::task::AuditTask;
use divvy::{DeviceId, Error, Placement, Runtime};
use std::time::{Duration, Instant};

/// The first calls, in which the runtime may still have to learn.
const COLD_CALLS: usize = 20;
/// They are timed in turns of so many.
const COLD_TURN: usize = 5;
/// When warm, all take turns at least so often,
const LEAST_TURNS: usize = 8;
/// and for this long in sum,
const LONG: Duration = Duration::from_millis(600);
/// but no more often than this.
const MOST_TURNS: usize = 500;

/// What came out. Times are medians in seconds unless they say otherwise.
pub struct Outcome {
    /// The index of the best way.
    pub best: usize,
    /// What it took.
    pub oracle: f64,
    /// What each way that took part took.
    pub contenders: Vec<(usize, f64)>,
    /// What Auto took.
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

/// Lets Auto and these ways take turns: while Auto is cold with the first of them, then with all.
///
/// # Errors
/// Whatever a device reports.
pub fn duel(
    task: &AuditTask,
    auto: &Runtime,
    arms: &[Arm],
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
        arm: &arms[*at],
        apart: None,
        turns: Samples::default(),
        times: Vec::new(),
    });
    let mut others: Vec<Contender> = each.collect();
    let (chosen_cold, oracle_cold) = cold(task, &mut auto, &mut others[0])?;
    let started = Instant::now();
    for turn in 0..MOST_TURNS {
        if turn >= LEAST_TURNS && started.elapsed() >= LONG {
            break;
        }
        // Who is first changes, in case it matters, but not from the half that chooses to the half that scores.
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
    let figures = others
        .iter()
        .map(|other| (other.at, other.turns.scoring().unwrap_or(0.0)));
    let most = auto.seen.iter().max_by_key(|(_, times)| *times);
    Ok(Outcome {
        best: others[winner].at,
        oracle: others[winner].turns.scoring().unwrap_or(0.0),
        contenders: figures.collect(),
        chosen: auto.turns.median().unwrap_or(0.0),
        parts: most.map(|(parts, _)| parts.clone()).unwrap_or_default(),
        chosen_mean: mean(&auto.warm).unwrap_or(0.0),
        oracle_mean,
        chosen_cold,
        // Only one of the ways was there when it was cold.
        oracle_cold: if winner == 0 {
            oracle_cold
        } else {
            oracle_mean
        },
        prediction_error: median(&auto.errors).unwrap_or(0.0),
        decision_seconds: auto.subject.decision_seconds(auto.rt)?,
        seconds: auto.seconds,
        exploring_seconds: auto.exploring_seconds,
    })
}

/// The first calls of Auto. Returns their mean seconds, and those of as many of a way.
fn cold(
    task: &AuditTask,
    auto: &mut Auto<'_>,
    other: &mut Contender<'_>,
) -> Result<(f64, f64), Error> {
    let (mut mine, mut others) = (Vec::new(), Vec::new());
    while mine.len() < COLD_CALLS {
        rest();
        for _ in 0..COLD_TURN {
            mine.push(auto.call()?.seconds);
        }
        let (arm, subject) = other.subject(task, auto)?;
        rest();
        for _ in 0..COLD_TURN {
            others.push(arm.run(subject)?.0);
        }
    }
    Ok((mean(&mine).unwrap_or(0.0), mean(&others).unwrap_or(0.0)))
}

/// Lets the threads of the pool that worked last go to sleep.
fn rest() {
    std::thread::sleep(Duration::from_micros(150));
}

/// Automatic placement, in a runtime that learns from nothing but its own calls.
struct Auto<'a> {
    rt: &'a Runtime,
    subject: Subject,
    /// The median of each turn.
    turns: Samples,
    /// Every warm call that was timed,
    warm: Vec<f64>,
    /// how far off its prediction was,
    errors: Vec<f64>,
    /// and how often what ran where.
    seen: Vec<(Vec<Part>, usize)>,
    /// Whether the last call ran on nothing but the CPU.
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
            let mut untimed = Vec::new();
            self.subject.settle(self.rt, &Placement::Auto, |timed| {
                untimed.push((timed.seconds, timed.report.exploring));
                self.on_cpu = is_on_cpu(timed);
            })?;
            for (seconds, exploring) in untimed {
                self.account(seconds, exploring);
            }
        }
        let first = self.warm.len();
        loop {
            let timed = self.call()?;
            let error = (timed.predicted - timed.seconds).abs() / timed.seconds.max(1e-9);
            self.warm.push(timed.seconds);
            self.errors.push(error);
            let parts = arms::parts(&timed.report.parts);
            match self.seen.iter_mut().find(|(known, _)| *known == parts) {
                Some((_, times)) => *times += 1,
                None => self.seen.push((parts, 1)),
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

/// A way that may be the best.
struct Contender<'a> {
    /// Its index.
    at: usize,
    arm: &'a Arm,
    /// What it runs where it must not find the data where another left them.
    apart: Option<Subject>,
    /// The median of each turn.
    turns: Samples,
    /// Every run.
    times: Vec<f64>,
}

impl<'a> Contender<'a> {
    /// The way, and what it runs: what Auto runs if neither leaves data where the other has to fetch them, since the
    /// same kernel takes another time with arrays at other addresses.
    fn subject<'b>(
        &'b mut self,
        task: &AuditTask,
        auto: &'b mut Auto<'_>,
    ) -> Result<(&'a Arm, &'b mut Subject), Error> {
        let on_host = task.residency == StartLocation::Host;
        if on_host || auto.on_cpu && self.arm.kind.is_cpu() {
            return Ok((self.arm, &mut auto.subject));
        }
        let apart = match self.apart.take() {
            Some(apart) => apart,
            None => {
                let mut fresh = Subject::bind(task)?;
                self.arm.settle(&mut fresh)?;
                fresh
            }
        };
        Ok((self.arm, self.apart.insert(apart)))
    }

    fn turn(&mut self, task: &AuditTask, auto: &mut Auto<'_>) -> Result<(), Error> {
        let last = self.times.last().copied();
        let (arm, subject) = self.subject(task, auto)?;
        if !last.is_some_and(|seconds| subject.is_settled_after(seconds)) {
            arm.settle(subject)?;
        }
        let mut times = Vec::new();
        loop {
            let (seconds, _) = arm.run(subject)?;
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
