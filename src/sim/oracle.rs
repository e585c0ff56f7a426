//! The best plan there is: what the truth of a simulated machine allows, found without the planner.

use super::job::{Job, Parts, World, most};
use super::track::Track;
use crate::device::DeviceKind;

/// Times closer than this share of each other are taken to be the same.
const PRECISION: f64 = 1e-5;
/// Into how many shares every pair is also cut, for tables that do not rise with the size.
const GRID: usize = 20;

/// The best plans of all jobs.
pub(super) struct Best {
    /// For each epoch the first call of the next.
    ends: Vec<usize>,
    /// For each job and epoch.
    plans: Vec<Vec<(f64, Parts)>>,
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
        self.plans[job][self.epoch(call)].0
    }

    /// The best parts of a job at the first call.
    pub fn parts(&self, job: usize) -> &Parts {
        &self.plans[job][0].1
    }

    /// Takes what somebody did in less time than the best that was found for the best: possible where tables fall.
    pub fn include(&mut self, tracks: &[Track]) {
        for track in tracks {
            for (job, seconds) in track.seconds.iter().enumerate() {
                for (call, seconds) in seconds.iter().enumerate() {
                    let epoch = self.epoch(call);
                    let best = &mut self.plans[job][epoch].0;
                    *best = best.min(*seconds);
                }
            }
        }
    }

    fn epoch(&self, call: usize) -> usize {
        self.ends.partition_point(|end| *end <= call)
    }
}

/// The fastest way to run a job, and its seconds.
pub(super) fn best(world: &World<'_>, job: &Job<'_>, slowness: &[f64]) -> (f64, Parts) {
    let devices = 0..world.machine.devices.len();
    let mut found = (f64::INFINITY, Parts::new());
    let consider = |parts: Parts, found: &mut (f64, Parts)| {
        let seconds = job.seconds(world, &parts, slowness);
        if seconds < found.0 {
            *found = (seconds, parts);
        }
    };
    for device in devices.clone() {
        if job.fits(world, device, job.request.items) {
            consider(
                Parts::from_slice(&[(device, job.request.items)]),
                &mut found,
            );
        }
    }
    let able: Vec<(usize, usize)> = devices
        .filter(|device| world.machine.devices[*device].kind != DeviceKind::Software)
        .map(|device| (device, job.most_borders(world, device)))
        .filter(|(_, borders)| *borders > 0)
        .collect();
    for subset in 1u32..1 << able.len() {
        if subset.count_ones() < 2 {
            continue;
        }
        let chosen = able.iter().enumerate();
        let members: Vec<(usize, usize)> = chosen
            .filter(|(at, _)| subset >> at & 1 == 1)
            .map(|(_, member)| *member)
            .collect();
        let split = OracleSplit {
            world,
            job,
            slowness,
            corun: members
                .iter()
                .map(|(device, _)| job.corun(world, *device, members.iter().map(|m| m.0)))
                .collect(),
            members,
        };
        // Whoever is last gets the piece that is not full.
        for last in 0..split.members.len() {
            if let Some(parts) = split.finish_before(found.0, last) {
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
    if found.1.is_empty() {
        // The planner sees a way that does not fit: its times are as good as any.
        let able = job.kernel.tables.iter().position(Option::is_some);
        let all = Parts::from_slice(&[(able.unwrap_or(0), job.request.items)]);
        consider(all, &mut found);
    }
    found
}

/// Some devices that share a job.
struct OracleSplit<'a> {
    world: &'a World<'a>,
    job: &'a Job<'a>,
    slowness: &'a [f64],
    /// Devices, and the most pieces that each can hold.
    members: Vec<(usize, usize)>,
    /// How much longer each computes because of the others.
    corun: Vec<f64>,
}

impl OracleSplit<'_> {
    /// The parts with which all are done soonest, if that is before `limit`. The member `last` gets the piece that is not
    /// full.
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

    /// The most pieces that a member has done at a time.
    fn done_by(&self, at: usize, last: usize, finish: f64) -> usize {
        most(self.most(at, last), |borders| {
            borders == 0 || self.seconds(at, last, borders) <= finish
        })
    }

    /// The most pieces that a member can hold.
    fn most(&self, at: usize, last: usize) -> usize {
        let (device, full) = self.members[at];
        let more = full < self.job.borders() && at == last;
        let holds = || {
            self.job
                .fits(self.world, device, self.items(at, last, full + 1))
        };
        full + usize::from(more && holds())
    }

    fn seconds(&self, at: usize, last: usize, borders: usize) -> f64 {
        let device = self.members[at].0;
        let (corun, slowness) = (self.corun[at], self.slowness[device]);
        let items = self.items(at, last, borders);
        self.job
            .alone(self.world, device, items, corun, slowness)
            .seconds()
    }

    /// The items of so many pieces.
    fn items(&self, at: usize, last: usize, borders: usize) -> usize {
        let grain = self.job.request.border_grain;
        let missing = self.job.borders().saturating_mul(grain) - self.job.request.items;
        borders.saturating_mul(grain) - if at == last { missing } else { 0 }
    }

    /// As many pieces for each as `counts` says, or fewer if those are more than there are.
    fn parts(&self, mut counts: Vec<usize>, last: usize) -> Option<Parts> {
        let total: usize = counts.iter().sum();
        let mut excess = total - self.job.borders();
        // Taken from whom it leaves something, so that all keep a part if they can.
        for count in counts.iter_mut().rev() {
            let less = excess.min(count.saturating_sub(1));
            *count -= less;
            excess -= less;
        }
        if excess > 0 || counts[last] == 0 {
            return None;
        }
        let parts = counts.iter().enumerate().filter(|(_, count)| **count > 0);
        let part =
            |(at, count): (usize, &usize)| (self.members[at].0, self.items(at, last, *count));
        Some(parts.map(part).collect())
    }

    /// The first of two gets `share` twentieths.
    fn cut(&self, share: usize) -> Option<Parts> {
        let items = self.job.request.items;
        let grain = self.job.request.border_grain;
        let first = (items / GRID * share / grain * grain).min(items);
        let parts = [
            (self.members[0].0, first),
            (self.members[1].0, items - first),
        ];
        let holds = |at: usize, items: usize| self.job.fits(self.world, self.members[at].0, items);
        if first == 0 || !holds(0, first) || !holds(1, items - first) {
            return None;
        }
        Some(Parts::from_slice(&parts))
    }
}
