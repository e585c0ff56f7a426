//! A row of the audit: one kernel at one size, every way forced, then `Placement::Auto` against the best of them.

use super::super::args::Residency;
use super::arms::{self, Arm, Forced, Kind, Part, name, runs_per_visit};
use super::statistics::{mean, median, ratio};
use super::subject::{Subject, Timed};
use divvy::array::ElementType;
use divvy::kernels::catalog::Entry;
use divvy::{DeviceId, Error, Placement, Runtime};
use serde::Serialize;
use std::time::{Duration, Instant};

/// The first calls, in which the runtime may still have to learn.
const COLD_CALLS: usize = 20;
/// They are timed in turns of so many.
const COLD_TURN: usize = 5;
/// Auto and the best way are timed in turns, at least so many,
const LEAST_TURNS: usize = 8;
/// and for this long in sum,
const LONG: Duration = Duration::from_millis(500);
/// but no more than this.
const MOST_TURNS: usize = 500;

/// What is to be audited.
#[derive(Clone, Copy)]
pub struct Task {
    /// The kernel.
    pub entry: &'static Entry,
    /// Its size.
    pub n: usize,
    /// Where its arrays are.
    pub residency: Residency,
    /// Seed of its arguments.
    pub seed: u64,
}

/// What was measured of one kernel at one size. Times are medians in seconds unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub kernel: &'static str,
    pub n: usize,
    pub dtype: ElementType,
    pub residency: Residency,
    /// The CPU alone, with one thread or the pool.
    pub cpu: Option<f64>,
    /// The best GPU alone.
    pub gpu: Option<f64>,
    /// Each GPU alone.
    pub gpus: Vec<(DeviceId, f64)>,
    /// The best split.
    pub split: Option<f64>,
    /// The share of the GPUs in it.
    pub split_fraction: Option<f64>,
    /// The best way, measured in turns with Auto.
    pub oracle: f64,
    /// Its name.
    pub oracle_arm: String,
    /// What Auto took when warm.
    pub chosen: f64,
    /// What ran where in most of its calls.
    pub chosen_parts: Vec<Part>,
    /// `chosen / oracle`.
    pub ratio: f64,
    /// Whether Auto ran the very same parts as the best way, so that the ratio tells nothing but noise.
    pub same_plan: bool,
    /// The mean of Auto's first calls, and of as many of the best way's, in turns.
    pub chosen_cold: f64,
    pub oracle_cold: f64,
    /// The means of all calls after those.
    pub chosen_mean: f64,
    pub oracle_mean: f64,
    /// The median of `|predicted - actual| / actual` of Auto's warm calls.
    pub prediction_error: f64,
    /// Seconds that Auto's calls took in sum, and how many of them it spent exploring.
    pub auto_seconds: f64,
    pub exploring_seconds: f64,
    /// Nanoseconds to decide where a call runs.
    pub decision_ns: f64,
    /// Every way: what it took, and how often it was timed until that was clear.
    pub arms: Vec<Way>,
}

/// One way to run a kernel.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// What people call it.
    pub arm: String,
    /// The share of the GPUs.
    pub gpu_share: f64,
    /// The median in seconds. `None` if it cannot be taken.
    pub seconds: Option<f64>,
    /// How often it was timed.
    pub repeats: usize,
    /// Why it cannot be taken.
    pub problem: Option<String>,
}

/// Measures a row. `auto` is a runtime that learns from nothing but its own calls.
///
/// # Errors
/// Whatever a device reports, and [`Error::Infeasible`] if none can run the kernel.
pub fn measure(task: &Task, forced: &Forced, auto: &Runtime) -> Result<Row, Error> {
    let Task {
        entry,
        n,
        residency,
        ..
    } = *task;
    let mut subject = Subject::bind(task)?;
    let arms = forced.measure(&mut subject, residency)?;
    let Some(best) = arms::oracle(&arms) else {
        let problems = arms
            .iter()
            .filter_map(|arm| Some(format!("{}: {}", arm.kind, arm.problem.as_ref()?)));
        return Err(Error::Infeasible {
            kernel: entry.name.into(),
            reasons: problems.collect::<Vec<_>>().join("; "),
        });
    };
    let mut duel = Duel::new(task, auto, &arms[best], subject)?;
    let (chosen_cold, oracle_cold) = duel.cold()?;
    let warm = duel.warm()?;
    let decision_seconds = duel.mine.decision_seconds(auto)?;
    let oracle = warm.oracle;
    // What was measured last, in turns with Auto, is better than what was measured before.
    let seconds = |at: usize| match at == best {
        true => Some(oracle),
        false => arms[at].samples.scoring(),
    };
    let least = |wanted: &dyn Fn(&Kind) -> bool| {
        let found = (0..arms.len()).filter(|at| wanted(&arms[*at].kind));
        let timed = found.filter_map(|at| Some((at, seconds(at)?)));
        timed.min_by(|(_, a), (_, b)| a.total_cmp(b))
    };
    let gpus = arms
        .iter()
        .enumerate()
        .filter_map(|(at, arm)| match arm.kind {
            Kind::Gpu { device } => Some((device, seconds(at)?)),
            _ => None,
        });
    let gpus: Vec<_> = gpus.collect();
    let split = least(&Kind::is_split);
    let ways = arms.iter().enumerate().map(|(at, arm)| Way {
        arm: arm.kind.to_string(),
        gpu_share: arm.kind.gpu_share(),
        seconds: seconds(at),
        repeats: arm.samples.len(),
        problem: arm.problem.clone(),
    });
    Ok(Row {
        kernel: entry.name,
        n,
        dtype: entry.dtypes[0],
        residency,
        cpu: least(&Kind::is_cpu).map(|(_, seconds)| seconds),
        gpu: gpus
            .iter()
            .map(|(_, seconds)| *seconds)
            .min_by(f64::total_cmp),
        gpus,
        split: split.map(|(_, seconds)| seconds),
        split_fraction: split.map(|(at, _)| arms[at].kind.gpu_share()),
        oracle,
        oracle_arm: arms[best].kind.to_string(),
        chosen: warm.chosen,
        ratio: ratio(warm.chosen, oracle),
        same_plan: warm.parts == arms[best].parts,
        chosen_parts: warm.parts,
        chosen_cold,
        oracle_cold,
        chosen_mean: warm.chosen_mean,
        oracle_mean: warm.oracle_mean,
        prediction_error: warm.prediction_error,
        auto_seconds: duel.seconds,
        exploring_seconds: duel.exploring_seconds,
        decision_ns: 1e9 * decision_seconds,
        arms: ways.collect(),
    })
}

impl Row {
    /// What Auto did, in words.
    pub fn chosen_name(&self) -> String {
        name(&self.chosen_parts)
    }
}

/// Auto and the best way in turns, so that what disturbs the machine disturbs both.
struct Duel<'a> {
    task: &'a Task,
    auto: &'a Runtime,
    arm: &'a Arm,
    /// What Auto runs.
    mine: Subject,
    /// What the best way runs where the two must not find the data where the other left them. Otherwise they share one,
    /// since the same kernel takes another time with arrays at other addresses.
    apart: Option<Subject>,
    /// Whether Auto's last call ran on nothing but the CPU.
    on_cpu: bool,
    /// Seconds of Auto's calls, timed for a row or not.
    seconds: f64,
    exploring_seconds: f64,
}

/// How both did after the first calls.
struct Warm {
    chosen: f64,
    chosen_mean: f64,
    oracle: f64,
    oracle_mean: f64,
    parts: Vec<Part>,
    prediction_error: f64,
}

impl<'a> Duel<'a> {
    fn new(
        task: &'a Task,
        auto: &'a Runtime,
        arm: &'a Arm,
        mut mine: Subject,
    ) -> Result<Self, Error> {
        mine.start()?;
        Ok(Self {
            task,
            auto,
            arm,
            mine,
            apart: None,
            on_cpu: false,
            seconds: 0.0,
            exploring_seconds: 0.0,
        })
    }

    /// The best way, and what it runs.
    fn others(&mut self) -> Result<(&'a Arm, &mut Subject), Error> {
        let on_host = self.task.residency == Residency::Host;
        if on_host || self.on_cpu && self.arm.kind.is_cpu() {
            return Ok((self.arm, &mut self.mine));
        }
        let apart = match self.apart.take() {
            Some(apart) => apart,
            None => {
                let mut fresh = Subject::bind(self.task)?;
                self.arm.settle(&mut fresh)?;
                fresh
            }
        };
        Ok((self.arm, self.apart.insert(apart)))
    }

    /// The first calls. Returns the mean seconds of Auto and of the best way.
    fn cold(&mut self) -> Result<(f64, f64), Error> {
        let (mut mine, mut others) = (Vec::new(), Vec::new());
        while mine.len() < COLD_CALLS {
            rest();
            for _ in 0..COLD_TURN {
                mine.push(self.call()?.seconds);
            }
            let (arm, subject) = self.others()?;
            rest();
            for _ in 0..COLD_TURN {
                others.push(arm.run(subject)?.0);
            }
        }
        Ok((mean(&mine).unwrap_or(0.0), mean(&others).unwrap_or(0.0)))
    }

    /// The calls after those.
    fn warm(&mut self) -> Result<Warm, Error> {
        let (mut mine, mut others, mut errors) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen: Vec<(Vec<Part>, usize)> = Vec::new();
        let started = Instant::now();
        for turn in 0..MOST_TURNS {
            if turn >= LEAST_TURNS && started.elapsed() >= LONG {
                break;
            }
            // Who is first alternates, in case it matters.
            for first in [true, false] {
                if first == (turn % 2 == 0) {
                    self.turn(&mut mine, &mut errors, &mut seen)?;
                } else {
                    self.others_turn(&mut others)?;
                }
            }
        }
        let most = seen.into_iter().max_by_key(|(_, times)| *times);
        Ok(Warm {
            chosen: median(&mine).unwrap_or(0.0),
            chosen_mean: mean(&mine).unwrap_or(0.0),
            oracle: median(&others).unwrap_or(0.0),
            oracle_mean: mean(&others).unwrap_or(0.0),
            parts: most.map(|(parts, _)| parts).unwrap_or_default(),
            prediction_error: median(&errors).unwrap_or(0.0),
        })
    }

    fn turn(
        &mut self,
        times: &mut Vec<f64>,
        errors: &mut Vec<f64>,
        seen: &mut Vec<(Vec<Part>, usize)>,
    ) -> Result<(), Error> {
        let settled = times
            .last()
            .is_some_and(|seconds| self.mine.is_settled_after(*seconds));
        if !settled {
            let mut untimed = Vec::new();
            self.mine.settle(self.auto, &Placement::Auto, |timed| {
                untimed.push((timed.seconds, timed.report.exploring));
                self.on_cpu = is_on_cpu(timed);
            })?;
            for (seconds, exploring) in untimed {
                self.account(seconds, exploring);
            }
        }
        for run in 1.. {
            let timed = self.call()?;
            times.push(timed.seconds);
            errors.push((timed.predicted - timed.seconds).abs() / timed.seconds.max(1e-9));
            let parts = arms::parts(&timed.report.parts);
            match seen.iter_mut().find(|(known, _)| *known == parts) {
                Some((_, times)) => *times += 1,
                None => seen.push((parts, 1)),
            }
            if run >= runs_per_visit(timed.seconds) {
                break;
            }
        }
        Ok(())
    }

    fn others_turn(&mut self, times: &mut Vec<f64>) -> Result<(), Error> {
        let (arm, subject) = self.others()?;
        let settled = times
            .last()
            .is_some_and(|seconds| subject.is_settled_after(*seconds));
        if !settled {
            arm.settle(subject)?;
        }
        for run in 1.. {
            let (seconds, _) = arm.run(subject)?;
            times.push(seconds);
            if run >= runs_per_visit(seconds) {
                break;
            }
        }
        Ok(())
    }

    /// A call that Auto places.
    fn call(&mut self) -> Result<Timed, Error> {
        let timed = self.mine.run(self.auto, &Placement::Auto)?;
        self.on_cpu = is_on_cpu(&timed);
        self.account(timed.seconds, timed.report.exploring);
        Ok(timed)
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

/// Lets the threads of the pool that worked last go to sleep.
fn rest() {
    std::thread::sleep(Duration::from_micros(150));
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row in which the CPU is the best way and Auto takes another time.
    pub fn row(kernel: &'static str, oracle: f64, chosen: f64) -> Row {
        let part = Part {
            device: DeviceId::Cpu,
            threads: 2,
            range: [0, 100],
            fraction: 1.0,
        };
        Row {
            kernel,
            n: 100,
            dtype: ElementType::F32,
            residency: Residency::Host,
            cpu: Some(oracle),
            gpu: None,
            gpus: Vec::new(),
            split: None,
            split_fraction: None,
            oracle,
            oracle_arm: "cpu, 2 threads".into(),
            chosen,
            chosen_parts: vec![part],
            ratio: ratio(chosen, oracle),
            same_plan: false,
            chosen_cold: chosen,
            oracle_cold: oracle,
            chosen_mean: chosen,
            oracle_mean: oracle,
            prediction_error: 0.1,
            auto_seconds: chosen,
            exploring_seconds: 0.0,
            decision_ns: 200.0,
            arms: Vec::new(),
        }
    }
}
