//! The outcome of a simulation: times and regrets of the planner and of the simple rules.

use super::job::{Job, PartItems, Parts, World};
use super::machine::Change;
use super::options::{COLD_CALLS, DataLocation, Options};
use super::oracle::Best;
use super::params::PARAMS;
use super::track::Track;
use crate::device::DeviceId;

/// The outcome of a simulation.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Outcome {
    /// The machine's name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<DeviceId>,
    /// The planner first, then the rules that it is compared with.
    pub rows: Vec<Row>,
    /// Every kernel, size and residency.
    pub cases: Vec<SimulatedCase>,
    /// The planner's recovery from each change that makes a device slower.
    pub recovery: Vec<Recovery>,
}

/// A policy and its score.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Row {
    /// Its name.
    pub policy: &'static str,
    /// Its score.
    #[serde(flatten)]
    pub score: Score,
}

impl Row {
    /// The score of a policy for one job.
    fn of(track: &Track, job: usize, best: &Best) -> Self {
        let mut score = Score {
            exploring_seconds: track.exploring_seconds[job],
            ..Score::default()
        };
        for (call, seconds) in track.seconds[job].iter().enumerate() {
            let sums = if call < COLD_CALLS {
                &mut score.cold
            } else {
                &mut score.warm
            };
            sums.add(Sums {
                seconds: *seconds,
                oracle_seconds: best.seconds(job, call),
            });
        }
        score.worst_warm = score.warm.regret().map(|regret| 1.0 + regret);
        Self {
            policy: track.policy,
            score,
        }
    }
}

/// The score of a policy.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
#[serde(into = "Summary")]
#[non_exhaustive]
pub struct Score {
    /// The first calls of each kernel and size.
    pub cold: Sums,
    /// All further calls.
    pub warm: Sums,
    /// The largest ratio of the warm calls' time to that of the best plans, over kernels, sizes and residencies.
    pub worst_warm: Option<f64>,
    /// Seconds of calls that were chosen for exploration.
    pub exploring_seconds: f64,
}

/// Seconds of some calls.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Sums {
    /// Of the chosen plans.
    pub seconds: f64,
    /// Of the best plans.
    pub oracle_seconds: f64,
}

impl Sums {
    /// `Σ(T − O) / ΣO`; `None` without any calls.
    pub fn regret(&self) -> Option<f64> {
        (self.oracle_seconds > 0.0)
            .then(|| (self.seconds - self.oracle_seconds) / self.oracle_seconds)
    }

    fn add(&mut self, other: Self) {
        self.seconds += other.seconds;
        self.oracle_seconds += other.oracle_seconds;
    }
}

impl Score {
    /// Seconds of all calls.
    pub fn seconds(&self) -> f64 {
        self.cold.seconds + self.warm.seconds
    }

    /// The share of the time that went into exploration.
    pub fn exploration_share(&self) -> f64 {
        let all = self.seconds();
        if all > 0.0 {
            self.exploring_seconds / all
        } else {
            0.0
        }
    }

    fn add(&mut self, other: &Self) {
        self.cold.add(other.cold);
        self.warm.add(other.warm);
        self.worst_warm = match (self.worst_warm, other.worst_warm) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        self.exploring_seconds += other.exploring_seconds;
    }
}

/// A score as it is written down.
#[derive(serde::Serialize)]
struct Summary {
    regret_cold: Option<f64>,
    regret_warm: Option<f64>,
    worst_warm: Option<f64>,
    exploration_share: f64,
    seconds: f64,
    oracle_seconds: f64,
}

impl From<Score> for Summary {
    fn from(score: Score) -> Self {
        Self {
            regret_cold: score.cold.regret(),
            regret_warm: score.warm.regret(),
            worst_warm: score.worst_warm,
            exploration_share: score.exploration_share(),
            seconds: score.seconds(),
            oracle_seconds: score.cold.oracle_seconds + score.warm.oracle_seconds,
        }
    }
}

/// A kernel at a size.
#[derive(Clone, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct SimulatedCase {
    /// The kernel.
    pub kernel: String,
    /// Its size.
    pub n: usize,
    /// Where its arrays are.
    pub residency: DataLocation,
    /// Seconds of the best plan at the first call.
    pub oracle_seconds: f64,
    /// That plan.
    pub oracle_parts: Vec<PartShare>,
    /// What the planner chose at the last call.
    pub chosen_parts: Vec<PartShare>,
    /// The score of each policy on this case.
    pub rows: Vec<Row>,
}

/// A part of a plan.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
#[non_exhaustive]
pub struct PartShare {
    /// Where it ran.
    pub device: DeviceId,
    /// Its share of the items.
    pub share: f64,
}

/// The planner's recovery from a device that became slower.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[non_exhaustive]
pub struct Recovery {
    /// The first call that it concerned.
    pub after_call: usize,
    /// The device.
    pub device: DeviceId,
    /// How many times slower than in its tables it became.
    pub factor: f64,
    /// The regret over all kernels and sizes, from 20 to 40 calls after the change.
    pub regret: f64,
}

pub(super) fn outcome(
    world: &World<'_>,
    jobs: &[Job<'_>],
    best: &Best,
    tracks: &[Track],
    options: &Options,
) -> Outcome {
    let devices: Vec<DeviceId> = world.machine.devices.iter().map(|d| d.id).collect();
    let cases: Vec<SimulatedCase> = jobs
        .iter()
        .enumerate()
        .map(|(at, job)| {
            let shares = |parts: &Parts| {
                let share = |part: &PartItems| PartShare {
                    device: devices[part.device],
                    share: part.items as f64 / job.request.items as f64,
                };
                parts.iter().map(share).collect()
            };
            SimulatedCase {
                kernel: job.kernel.name.clone(),
                n: job.n,
                residency: job.residency,
                oracle_seconds: best.seconds(at, 0),
                oracle_parts: shares(best.parts(at)),
                chosen_parts: tracks
                    .first()
                    .map_or(Vec::new(), |auto| shares(&auto.chosen[at])),
                rows: tracks
                    .iter()
                    .map(|track| Row::of(track, at, best))
                    .collect(),
            }
        })
        .collect();
    let rows = tracks.iter().enumerate().map(|(at, track)| Row {
        policy: track.policy,
        score: cases.iter().fold(Score::default(), |mut sum, case| {
            sum.add(&case.rows[at].score);
            sum
        }),
    });
    Outcome {
        name: world.machine.name.clone(),
        rows: rows.collect(),
        recovery: recovery(world, best, tracks, options),
        devices,
        cases,
    }
}

/// The planner's regret some calls after every change to the worse.
fn recovery(world: &World<'_>, best: &Best, tracks: &[Track], options: &Options) -> Vec<Recovery> {
    let before = |change: &Change| {
        let device = world.position(change.device);
        let call = change.after_call.checked_sub(1);
        call.map_or(1.0, |call| world.machine.slowness(device, call))
    };
    let changes = world.machine.changes.iter();
    let worse = changes.filter(|change| change.factor > before(change));
    let judged = worse.filter_map(|change| {
        let [from, to] = [PARAMS.recovery_begin, PARAMS.recovery_end]
            .map(|calls| change.after_call.saturating_add(calls).min(options.calls));
        let mut sums = Sums::default();
        for (job, seconds) in tracks.first()?.seconds.iter().enumerate() {
            for (call, seconds) in seconds.iter().enumerate().take(to).skip(from) {
                sums.add(Sums {
                    seconds: *seconds,
                    oracle_seconds: best.seconds(job, call),
                });
            }
        }
        Some(Recovery {
            after_call: change.after_call,
            device: change.device,
            factor: change.factor,
            regret: sums.regret()?,
        })
    });
    judged.collect()
}

/// The score of each policy over all machines together.
pub fn fleet(outcomes: &[Outcome]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for row in outcomes.iter().flat_map(|outcome| &outcome.rows) {
        match rows.iter_mut().find(|known| known.policy == row.policy) {
            Some(known) => known.score.add(&row.score),
            None => rows.push(row.clone()),
        }
    }
    rows
}
