//! The best plan on a simulated machine, found from its true times, without the planner.

use super::job::{Job, PartItems, Parts, World, most};
use super::params::PARAMS;
use super::track::Track;
use crate::device::DeviceKind;

const PRECISION: f64 = PARAMS.precision;
const GRID: usize = PARAMS.grid;

/// The best plans of all jobs.
pub(super) struct Best {
    /// For each epoch, the first call of the next.
    ends: Vec<usize>,
    /// Indexed by job and epoch.
    plans: Vec<Vec<BestPlan>>,
}

/// The best plan of a job.
pub(super) struct BestPlan {
    pub seconds: f64,
    pub parts: Parts,
}

impl Best {
    pub fn new(world: &World<'_>, jobs: &[Job<'_>], epochs: &[usize]) -> Self {
        let slowness: Vec<_> = epochs.iter().map(|call| world.slowness(*call)).collect();
        let best_of = |job| slowness.iter().map(|slow| best(world, job, slow)).collect();
        let ends = epochs.iter().skip(1).copied().chain([usize::MAX]);
        Self {
            ends: ends.collect(),
            plans: jobs.iter().map(best_of).collect(),
        }
    }

    /// The least seconds of a job at a call.
    pub fn seconds(&self, job: usize, call: usize) -> f64 {
        self.plans[job][self.epoch(call)].seconds
    }

    /// The best parts of a job at the first call.
    pub fn parts(&self, job: usize) -> &Parts {
        &self.plans[job][0].parts
    }

    /// Lowers the best times to those of faster plans that a policy found: possible where tables fall.
    pub fn include(&mut self, tracks: &[Track]) {
        for track in tracks {
            for (job, seconds) in track.seconds.iter().enumerate() {
                for (call, seconds) in seconds.iter().enumerate() {
                    let epoch = self.epoch(call);
                    let best = &mut self.plans[job][epoch].seconds;
                    *best = best.min(*seconds);
                }
            }
        }
    }

    fn epoch(&self, call: usize) -> usize {
        self.ends.partition_point(|end| *end <= call)
    }
}

/// The best plan of a job.
pub(super) fn best(world: &World<'_>, job: &Job<'_>, slowness: &[f64]) -> BestPlan {
    let devices = 0..world.machine.devices.len();
    let mut found = BestPlan {
        seconds: f64::INFINITY,
        parts: Parts::new(),
    };
    let consider = |parts: Parts, found: &mut BestPlan| {
        let seconds = job.seconds(world, &parts, slowness);
        if seconds < found.seconds {
            *found = BestPlan { seconds, parts };
        }
    };
    let alone = |device| {
        let items = job.request.items;
        Parts::from_slice(&[PartItems { device, items }])
    };
    for device in devices.clone() {
        if job.fits(world, device, job.request.items) {
            consider(alone(device), &mut found);
        }
    }
    let able: Vec<SplitMember> = devices
        .filter(|device| world.machine.devices[*device].kind != DeviceKind::Software)
        .map(|device| SplitMember {
            device,
            most_borders: job.most_borders(world, device),
        })
        .filter(|member| member.most_borders > 0)
        .collect();
    for subset in 1u32..1 << able.len() {
        if subset.count_ones() < 2 {
            continue;
        }
        let chosen = able.iter().enumerate();
        let members: Vec<SplitMember> = chosen
            .filter(|(at, _)| subset >> at & 1 == 1)
            .map(|(_, member)| *member)
            .collect();
        let split = OracleSplit {
            world,
            job,
            slowness,
            corun: members
                .iter()
                .map(|member| job.corun(world, member.device, members.iter().map(|m| m.device)))
                .collect(),
            members,
        };
        // Each member in turn gets the piece that is not full.
        for last in 0..split.members.len() {
            if let Some(parts) = split.finish_before(found.seconds, last) {
                consider(parts, &mut found);
            }
        }
        if split.members.len() == 2 {
            for share in 1..GRID {
                if let Some(parts) = split.cut(share) {
                    consider(parts, &mut found);
                }
            }
        }
    }
    if found.parts.is_empty() {
        // No plan fits, but the planner found one. The times of any device with a table serve as the best.
        let able = job.kernel.tables.iter().position(Option::is_some);
        consider(alone(able.unwrap_or(0)), &mut found);
    }
    found
}

/// A device of a split.
#[derive(Clone, Copy)]
struct SplitMember {
    device: usize,
    /// The most full pieces that it can hold.
    most_borders: usize,
}

/// A split of a job over some devices.
struct OracleSplit<'a> {
    world: &'a World<'a>,
    job: &'a Job<'a>,
    slowness: &'a [f64],
    members: Vec<SplitMember>,
    /// The factor by which the others slow each member down.
    corun: Vec<f64>,
}

impl OracleSplit<'_> {
    /// The parts with which all members finish first, if that is before `limit`. The member `last` gets the piece that is
    /// not full.
    fn finish_before(&self, limit: f64, last: usize) -> Option<Parts> {
        let all = self.job.borders();
        let members = 0..self.members.len();
        let enough = |finish: f64| {
            let done = members.clone().map(|at| self.done_by(at, last, finish));
            let counts: Vec<usize> = done.collect();
            let sum = counts.iter().fold(0usize, |sum, n| sum.saturating_add(*n));
            (sum >= all).then_some(counts)
        };
        let mut high = if limit.is_finite() {
            limit * (1.0 - PRECISION)
        } else {
            let all_of = |at: usize| self.seconds(at, last, self.most(at, last));
            members.clone().map(all_of).fold(0.0, f64::max)
        };
        let (mut low, mut counts) = (0.0, enough(high)?);
        while high - low > PRECISION * high {
            let middle = (low + high) / 2.0;
            match enough(middle) {
                Some(better) => (high, counts) = (middle, better),
                None => low = middle,
            }
        }
        self.parts(counts, last)
    }

    /// The most pieces that a member completes by the time `finish`.
    fn done_by(&self, at: usize, last: usize, finish: f64) -> usize {
        most(self.most(at, last), |borders| {
            borders == 0 || self.seconds(at, last, borders) <= finish
        })
    }

    /// The most pieces that a member can hold.
    fn most(&self, at: usize, last: usize) -> usize {
        let SplitMember {
            device,
            most_borders: full,
        } = self.members[at];
        let more = full < self.job.borders() && at == last;
        let holds = || {
            self.job
                .fits(self.world, device, self.items(at, last, full + 1))
        };
        full + usize::from(more && holds())
    }

    fn seconds(&self, at: usize, last: usize, borders: usize) -> f64 {
        let device = self.members[at].device;
        let (corun, slowness) = (self.corun[at], self.slowness[device]);
        let items = self.items(at, last, borders);
        self.job
            .part(self.world, PartItems { device, items }, corun, slowness)
            .seconds()
    }

    /// The items of this many pieces.
    fn items(&self, at: usize, last: usize, borders: usize) -> usize {
        let grain = self.job.request.border_grain;
        let missing = self.job.borders().saturating_mul(grain) - self.job.request.items;
        borders.saturating_mul(grain) - if at == last { missing } else { 0 }
    }

    /// The parts with these counts of pieces, reduced if there are fewer pieces in all.
    fn parts(&self, mut counts: Vec<usize>, last: usize) -> Option<Parts> {
        let total: usize = counts.iter().sum();
        let mut excess = total - self.job.borders();
        // Every member keeps at least one piece if it can.
        for count in counts.iter_mut().rev() {
            let less = excess.min(count.saturating_sub(1));
            *count -= less;
            excess -= less;
        }
        if excess > 0 || counts[last] == 0 {
            return None;
        }
        let parts = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let part = |(at, count): (usize, &usize)| PartItems {
            device: self.members[at].device,
            items: self.items(at, last, *count),
        };
        Some(parts.map(part).collect())
    }

    /// The split of a pair in which the first gets `share` of [`GRID`] shares.
    fn cut(&self, share: usize) -> Option<Parts> {
        let items = self.job.request.items;
        let grain = self.job.request.border_grain;
        let first = (items / GRID * share / grain * grain).min(items);
        let part = |at: usize, items: usize| PartItems {
            device: self.members[at].device,
            items,
        };
        let holds =
            |at: usize, items: usize| self.job.fits(self.world, self.members[at].device, items);
        if first == 0 || !holds(0, first) || !holds(1, items - first) {
            return None;
        }
        Some(Parts::from_slice(&[part(0, first), part(1, items - first)]))
    }
}
