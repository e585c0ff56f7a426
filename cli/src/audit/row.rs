//! A row of the audit: one kernel at one size, every variant forced, then `Placement::Auto` against the best of them.

use super::super::args::StartLocation;
use super::duel::duel;
use super::statistics::ratio;
use super::subject::Subject;
use super::task::AuditTask;
use super::variants::{Forced, Part, VariantKind, contenders, name};
use divvy::array::ElementType;
use divvy::{DeviceId, Error, Runtime};
use serde::Serialize;

/// The measurements of one kernel at one size. Times are medians in seconds unless they say otherwise.
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
    /// The best variant, measured in turns with Auto.
    pub oracle: f64,
    /// Its name.
    pub oracle_variant: String,
    /// The time of Auto when warm.
    pub chosen: f64,
    /// What ran where in most of its calls.
    pub chosen_parts: Vec<Part>,
    /// `chosen / oracle`.
    pub ratio: f64,
    /// Whether Auto ran the same parts as the best variant: the ratio shows only noise and the time to decide then.
    pub same_plan: bool,
    /// The means of Auto's first calls and of the same number of runs of the best variant, in turns.
    pub chosen_cold: f64,
    pub oracle_cold: f64,
    /// The means of all calls after those.
    pub chosen_mean: f64,
    pub oracle_mean: f64,
    /// The median of `|predicted - actual| / actual` of Auto's warm calls.
    pub prediction_error: f64,
    /// Seconds of all of Auto's calls, and of those that explored.
    pub auto_seconds: f64,
    pub exploring_seconds: f64,
    /// Nanoseconds to decide where a call runs.
    pub decision_ns: f64,
    /// Every variant.
    pub variants: Vec<VariantTime>,
}

/// The time of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct VariantTime {
    /// Its displayed name.
    #[serde(rename = "variant")]
    pub name: String,
    /// The share of the GPUs.
    pub gpu_share: f64,
    /// The median in seconds. `None` if the variant is infeasible.
    pub seconds: Option<f64>,
    /// The number of samples.
    pub repeats: usize,
    /// Why it is infeasible.
    pub problem: Option<String>,
}

/// Measures a row. `auto` is a runtime that learns only from its own calls.
///
/// # Errors
/// Errors of devices, and [`Error::Infeasible`] if none can run the kernel.
pub fn measure(task: &AuditTask, forced: &Forced, auto: &Runtime) -> Result<Row, Error> {
    let AuditTask {
        entry,
        n,
        residency,
        ..
    } = *task;
    let mut subject = Subject::bind(task)?;
    let variants = forced.measure(&mut subject, residency)?;
    let contenders = contenders(&variants);
    if contenders.is_empty() {
        let problems = variants
            .iter()
            .filter_map(|variant| Some(format!("{}: {}", variant.kind, variant.problem.as_ref()?)));
        return Err(Error::Infeasible {
            kernel: entry.name.into(),
            reasons: problems.collect::<Vec<_>>().join("; "),
        });
    }
    let found = duel(task, auto, &variants, &contenders, subject)?;
    // The times in turns with Auto are more comparable than the earlier ones.
    let seconds = |at: usize| {
        let again = found.contenders.iter().find(|time| time.at == at);
        again.map_or_else(|| variants[at].samples.scoring(), |time| Some(time.seconds))
    };
    let least = |wanted: &dyn Fn(&VariantKind) -> bool| {
        let found = (0..variants.len()).filter(|at| wanted(&variants[*at].kind));
        let timed = found.filter_map(|at| Some((at, seconds(at)?)));
        timed.min_by(|(_, a), (_, b)| a.total_cmp(b))
    };
    let gpus = variants
        .iter()
        .enumerate()
        .filter_map(|(at, variant)| match variant.kind {
            VariantKind::Gpu { device } => Some((device, seconds(at)?)),
            _ => None,
        });
    let gpus: Vec<_> = gpus.collect();
    let split = least(&VariantKind::is_split);
    let times = variants
        .iter()
        .enumerate()
        .map(|(at, variant)| VariantTime {
            name: variant.kind.to_string(),
            gpu_share: variant.kind.gpu_share(),
            seconds: seconds(at),
            repeats: variant.samples.len(),
            problem: variant.problem.clone(),
        });
    Ok(Row {
        kernel: entry.name,
        n,
        dtype: entry.default_type(),
        residency,
        cpu: least(&VariantKind::is_cpu).map(|(_, seconds)| seconds),
        gpu: gpus
            .iter()
            .map(|(_, seconds)| *seconds)
            .min_by(f64::total_cmp),
        gpus,
        split: split.map(|(_, seconds)| seconds),
        split_fraction: split.map(|(at, _)| variants[at].kind.gpu_share()),
        oracle: found.oracle,
        oracle_variant: variants[found.best].kind.to_string(),
        chosen: found.chosen,
        ratio: ratio(found.chosen, found.oracle),
        same_plan: found.parts == variants[found.best].parts,
        chosen_parts: found.parts,
        chosen_cold: found.chosen_cold,
        oracle_cold: found.oracle_cold,
        chosen_mean: found.chosen_mean,
        oracle_mean: found.oracle_mean,
        prediction_error: found.prediction_error,
        auto_seconds: found.seconds,
        exploring_seconds: found.exploring_seconds,
        decision_ns: 1e9 * found.decision_seconds,
        variants: times.collect(),
    })
}

impl Row {
    /// The displayed name of Auto's most frequent plan.
    pub fn chosen_name(&self) -> String {
        name(&self.chosen_parts)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A row in which the CPU is the best variant and Auto takes another time.
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
            oracle_variant: "cpu, 2 threads".into(),
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
            variants: Vec::new(),
        }
    }
}
