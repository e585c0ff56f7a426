//! A row of the audit: one kernel at one size, every way forced, then `Placement::Auto` against the best of them.

use super::super::args::StartLocation;
use super::arms::{Forced, Kind, Part, contenders, name};
use super::duel::duel;
use super::statistics::ratio;
use super::subject::Subject;
use super::task::AuditTask;
use divvy::array::ElementType;
use divvy::{DeviceId, Error, Runtime};
use serde::Serialize;

/// What was measured of one kernel at one size. Times are medians in seconds unless they say otherwise.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub kernel: &'static str,
    pub n: usize,
    pub dtype: ElementType,
    pub residency: StartLocation,
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
    /// Whether Auto ran the very same parts as the best way, so that the ratio tells only of noise and of deciding.
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
pub fn measure(task: &AuditTask, forced: &Forced, auto: &Runtime) -> Result<Row, Error> {
    let AuditTask {
        entry,
        n,
        residency,
        ..
    } = *task;
    let mut subject = Subject::bind(task)?;
    let arms = forced.measure(&mut subject, residency)?;
    let contenders = contenders(&arms);
    if contenders.is_empty() {
        let problems = arms
            .iter()
            .filter_map(|arm| Some(format!("{}: {}", arm.kind, arm.problem.as_ref()?)));
        return Err(Error::Infeasible {
            kernel: entry.name.into(),
            reasons: problems.collect::<Vec<_>>().join("; "),
        });
    }
    let found = duel(task, auto, &arms, &contenders, subject)?;
    // What was measured last, in turns with Auto, is better than what was measured before.
    let seconds = |at: usize| {
        let again = found.contenders.iter().find(|(arm, _)| *arm == at);
        again.map_or_else(|| arms[at].samples.scoring(), |(_, seconds)| Some(*seconds))
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
        dtype: entry.default_type(),
        residency,
        cpu: least(&Kind::is_cpu).map(|(_, seconds)| seconds),
        gpu: gpus
            .iter()
            .map(|(_, seconds)| *seconds)
            .min_by(f64::total_cmp),
        gpus,
        split: split.map(|(_, seconds)| seconds),
        split_fraction: split.map(|(at, _)| arms[at].kind.gpu_share()),
        oracle: found.oracle,
        oracle_arm: arms[found.best].kind.to_string(),
        chosen: found.chosen,
        ratio: ratio(found.chosen, found.oracle),
        same_plan: found.parts == arms[found.best].parts,
        chosen_parts: found.parts,
        chosen_cold: found.chosen_cold,
        oracle_cold: found.oracle_cold,
        chosen_mean: found.chosen_mean,
        oracle_mean: found.oracle_mean,
        prediction_error: found.prediction_error,
        auto_seconds: found.seconds,
        exploring_seconds: found.exploring_seconds,
        decision_ns: 1e9 * found.decision_seconds,
        arms: ways.collect(),
    })
}

impl Row {
    /// What Auto did, in words.
    pub fn chosen_name(&self) -> String {
        name(&self.chosen_parts)
    }
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
            residency: StartLocation::Host,
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
