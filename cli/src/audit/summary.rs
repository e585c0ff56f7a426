//! The figures over all rows of an audit.

use super::super::args::is_software;
use super::super::params::PARAMS;
use super::row::Row;
use super::statistics::{geometric_mean, median, regret, share};
use divvy::units::{count, seconds};
use divvy::{DeviceId, Runtime};
use serde::Serialize;
use std::fmt;

/// The figures by which the cost model is judged. Each is `None` if there are no rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// `Σ(T − O) / ΣO` of the mean times of Auto's first calls, which include compiling shaders.
    pub regret_cold: Option<f64>,
    /// The same of all later calls, including those that explored.
    pub regret_warm: Option<f64>,
    /// The geometric mean of the ratio of medians, Auto's over the best variant's.
    pub geomean_warm: Option<f64>,
    /// The largest such ratio.
    pub worst_warm: Option<f64>,
    /// The share of rows whose ratio is at most 1.05.
    pub within_5pct: Option<f64>,
    /// The median over rows of the median relative error of predictions.
    pub prediction_error_median: Option<f64>,
    /// The share of the time of all of Auto's calls that went into exploring.
    pub exploration_share: Option<f64>,
    /// The median over rows of the nanoseconds of a decision.
    pub decision_ns: Option<f64>,
}

impl Summary {
    /// The summary of some rows.
    pub fn of(rows: &[Row]) -> Self {
        let each = |figure: fn(&Row) -> f64| rows.iter().map(figure).collect::<Vec<f64>>();
        let ratios = each(|row| row.ratio);
        let exploring: f64 = each(|row| row.exploring_seconds).iter().sum();
        let all: f64 = each(|row| row.auto_seconds).iter().sum();
        Self {
            regret_cold: regret(rows.iter().map(|row| (row.chosen_cold, row.oracle_cold))),
            regret_warm: regret(rows.iter().map(|row| (row.chosen_mean, row.oracle_mean))),
            geomean_warm: geometric_mean(&ratios),
            worst_warm: ratios.iter().copied().max_by(f64::total_cmp),
            within_5pct: share(&ratios, |ratio| ratio <= PARAMS.audit.right),
            prediction_error_median: median(&each(|row| row.prediction_error)),
            exploration_share: (all > 0.0).then(|| exploring / all),
            decision_ns: median(&each(|row| row.decision_ns)),
        }
    }

    /// Each figure as text, with its name.
    pub fn lines(&self) -> [(&'static str, String); 8] {
        let percent = |share: &Option<f64>| text(share, |share| format!("{:.1} %", 100.0 * share));
        let times = |ratio: &Option<f64>| text(ratio, |ratio| format!("{ratio:.3}"));
        [
            ("regret, cold", percent(&self.regret_cold)),
            ("regret, warm", percent(&self.regret_warm)),
            ("mean T/O, warm", times(&self.geomean_warm)),
            ("worst T/O, warm", times(&self.worst_warm)),
            ("within 5 %", percent(&self.within_5pct)),
            ("prediction error", percent(&self.prediction_error_median)),
            ("exploring", percent(&self.exploration_share)),
            (
                "a decision",
                text(&self.decision_ns, |ns| seconds(1e-9 * ns)),
            ),
        ]
    }
}

fn text(figure: &Option<f64>, form: impl Fn(f64) -> String) -> String {
    figure.map_or_else(|| "none".into(), form)
}

/// The machine, the time and the totals of an audit.
#[derive(Clone, Debug, Serialize)]
pub struct Meta {
    /// The version of this program.
    pub version: &'static str,
    /// When it ended, in seconds since 1970.
    pub date: u64,
    /// How long it took.
    pub seconds: f64,
    /// The processor.
    pub cpu: String,
    /// Threads of its pool.
    pub threads: usize,
    /// The GPUs.
    pub gpus: Vec<GpuMeta>,
    /// Seed of the random arguments.
    pub seed: u64,
    #[serde(flatten)]
    pub totals: Totals,
}

/// A GPU of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct GpuMeta {
    /// Its name within the runtime.
    pub device: DeviceId,
    /// The adapter's name.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API it is reached through.
    pub backend: String,
    /// Whether it is a software adapter.
    pub software: bool,
}

/// Sums over rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Seconds of the best variant in every row.
    pub oracle_total: f64,
    /// Seconds of Auto in every row.
    pub auto_total: f64,
    /// Seconds of the CPU alone in every row, with one thread or the pool, whichever is faster. `None` if it cannot run
    /// every row.
    pub always_cpu_total: Option<f64>,
    /// The number of rows in which Auto ran the same plan as the best variant. The ratio there comes from noise, and from
    /// the time to decide, which a forced placement does not need.
    pub same_plan_rows: usize,
    /// The geometric mean and the largest of the ratios of these rows.
    pub same_plan_geomean: Option<f64>,
    pub same_plan_worst: Option<f64>,
    /// The median of the seconds by which Auto takes longer in these rows.
    pub same_plan_extra_seconds: Option<f64>,
}

impl Totals {
    /// The sums of some rows.
    pub fn of(rows: &[Row]) -> Self {
        let same: Vec<&Row> = rows.iter().filter(|row| row.same_plan).collect();
        let extra: Vec<f64> = same.iter().map(|row| row.chosen - row.oracle).collect();
        let same: Vec<f64> = same.iter().map(|row| row.ratio).collect();
        Self {
            oracle_total: rows.iter().map(|row| row.oracle).sum(),
            auto_total: rows.iter().map(|row| row.chosen).sum(),
            always_cpu_total: rows.iter().map(|row| row.cpu).sum(),
            same_plan_rows: same.len(),
            same_plan_geomean: geometric_mean(&same),
            same_plan_worst: same.iter().copied().max_by(f64::total_cmp),
            same_plan_extra_seconds: median(&extra),
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "all rows   auto {}, the best variants {}",
            seconds(self.auto_total),
            seconds(self.oracle_total)
        )?;
        if let Some(cpu) = self.always_cpu_total {
            write!(f, ", always the cpu {}", seconds(cpu))?;
        }
        if let (Some(mean), Some(worst), Some(extra)) = (
            self.same_plan_geomean,
            self.same_plan_worst,
            self.same_plan_extra_seconds,
        ) {
            write!(
                f,
                "\nsame plan  in {} rows auto runs the plan of the best variant: mean T/O {mean:.3}, worst {worst:.3}, \
                 {} longer (the median)",
                count(self.same_plan_rows),
                seconds(extra)
            )?;
        }
        Ok(())
    }
}

/// The GPUs of a runtime.
pub fn gpus(rt: &Runtime) -> Vec<GpuMeta> {
    let gpus = rt.gpus().enumerate().map(|(index, gpu)| {
        let device = DeviceId::Gpu(index);
        GpuMeta {
            device,
            name: gpu.name.clone(),
            driver: gpu.driver.clone(),
            backend: gpu.backend.clone(),
            software: is_software(rt, device),
        }
    });
    gpus.collect()
}

#[cfg(test)]
mod tests {
    use super::super::row::tests::row;
    use super::*;

    #[test]
    fn a_summary_of_nothing_has_no_figures() {
        assert_eq!(Summary::of(&[]), Summary::default());
        let lines = Summary::default().lines();
        assert!(lines.iter().all(|(_, text)| text == "none"));
        assert_eq!(Totals::of(&[]).same_plan_rows, 0);
    }

    #[test]
    fn regret_uses_means_and_ratios_use_medians() {
        let mut slow = row("a", 1.0, 1.5);
        slow.exploring_seconds = 1.0;
        slow.auto_seconds = 10.0;
        (slow.chosen_mean, slow.oracle_mean) = (3.0, 2.0);
        (slow.chosen_cold, slow.oracle_cold) = (6.0, 2.0);
        let mut right = row("b", 8.0, 8.0);
        right.auto_seconds = 10.0;
        right.same_plan = true;
        let rows = [slow, right];
        let summary = Summary::of(&rows);
        assert_eq!(summary.regret_warm, Some(0.1));
        assert_eq!(summary.regret_cold, Some(0.4));
        assert!((summary.geomean_warm.expect("some") - 1.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(summary.worst_warm, Some(1.5));
        assert_eq!(summary.within_5pct, Some(0.5));
        assert_eq!(summary.exploration_share, Some(0.05));
        let totals = Totals::of(&rows);
        assert_eq!((totals.auto_total, totals.oracle_total), (9.5, 9.0));
        assert_eq!(totals.always_cpu_total, Some(9.0));
        assert_eq!(
            (totals.same_plan_rows, totals.same_plan_worst),
            (1, Some(1.0))
        );
    }

    #[test]
    fn a_cpu_that_cannot_run_every_row_has_no_total() {
        let mut gpu_only = row("a", 1.0, 1.0);
        gpu_only.cpu = None;
        assert_eq!(
            Totals::of(&[gpu_only, row("b", 1.0, 1.0)]).always_cpu_total,
            None
        );
    }
}
