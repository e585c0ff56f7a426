//! The ways in which a call could run, what each is predicted to cost, and the choice among them.
//!
//! The one place where predictions are put together: plans and explanations both come from here, so that an
//! explanation cannot tell another story than the plan. Pure, like the planner it belongs to.

use super::load::{Load, RuledOut, size};
use super::placement::Placement;
use super::plan::{Evidence, Knowledge, Plan, PlannedPart, Policy, Request};
use super::split::{self, Line};
use crate::cost::learned::{Arm, Circumstances, DeviceSet};
use crate::cost::prior::{self, Prediction};
use crate::cost::{DeviceModel, Engine, Machine};
use crate::device::{DeviceId, DeviceKind};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::ops::Range;

/// The ways to run a call, and the one to take.
#[derive(Debug, Default)]
pub(super) struct Considered {
    /// Never empty.
    pub candidates: SmallVec<[Candidate; 4]>,
    /// Index of the candidate to take.
    pub choice: usize,
    pub why: Why,
    /// Devices that may not run the whole call alone.
    pub ruled_out: SmallVec<[(DeviceId, RuledOut); 2]>,
    /// Devices that would have been chosen or tried, were their pipelines compiled.
    pub awaits: DeviceSet,
}

/// A way to run a call.
#[derive(Debug)]
pub(super) struct Candidate {
    pub plan: Plan,
    /// Bytes of its inputs that must move before it can compute.
    pub missing_bytes: f64,
    /// Whether it may be chosen. A software adapter that was never measured is shown, but not chosen.
    pub eligible: bool,
    /// Whether it is only there to compare with: planning does not look for what takes that long.
    pub only_shown: bool,
    /// Its devices that must compile their pipelines first.
    pub compiling: DeviceSet,
    /// The variance of the logarithm of the predicted seconds.
    pub variance: f64,
    /// The part of it that is noise of measurements.
    pub noise: f64,
    /// Whether all its parts were measured as often as counts.
    pub settled: bool,
}

impl Default for Candidate {
    /// No parts.
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            missing_bytes: 0.0,
            eligible: true,
            only_shown: false,
            compiling: DeviceSet::EMPTY,
            variance: 0.0,
            noise: 0.0,
            settled: true,
        }
    }
}

/// Why a candidate was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Why {
    /// There are no items.
    #[default]
    NothingToDo,
    /// The caller asked for it.
    Asked,
    /// There is no other.
    OnlyOne,
    /// It is predicted to be the fastest.
    Fastest,
    /// It holds the data, and the fastest one does not save enough to take them away.
    HoldsData,
    /// It is the fastest single device; a split would be faster, but not by enough.
    SplitSavesLittle,
    /// A faster one must compile its pipelines first.
    Compiling,
    /// To find out whether it is faster than what is known.
    Exploring,
}

/// Finds the candidates that `placement` allows, chooses among them and gives the plan.
pub(super) fn choose(
    request: &Request<'_>,
    machine: &Machine,
    knowledge: &Knowledge,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    let planner = Planner {
        request,
        machine,
        knowledge,
        policy,
    };
    if let Some(asked) = planner.asked(placement)? {
        let mut plan = asked.plan;
        plan.size = size(request, request.items);
        return Ok(plan);
    }
    let mut found = Considered::default();
    planner.auto(Depth::Choice, &mut found)?;
    let mut plan = found.candidates.swap_remove(found.choice).plan;
    plan.size = size(request, request.items);
    plan.exploring = found.why == Why::Exploring;
    // What has no other way compiles as it runs.
    let running = plan.parts.iter().map(|part| part.device);
    plan.awaits = running.fold(found.awaits, DeviceSet::without);
    Ok(plan)
}

/// The same, with everything that a person might want to compare the choice with.
pub(super) fn consider(
    request: &Request<'_>,
    machine: &Machine,
    knowledge: &Knowledge,
    placement: &Placement,
    policy: &Policy,
) -> Result<Considered> {
    let planner = Planner {
        request,
        machine,
        knowledge,
        policy,
    };
    let asked = planner.asked(placement)?;
    let mut found = Considered::default();
    match (planner.auto(Depth::Everything, &mut found), asked) {
        (result, None) => result?,
        // The others are only shown for comparison, so it is no error if there is none.
        (_, Some(asked)) => {
            found.why = if request.items == 0 {
                Why::NothingToDo
            } else {
                Why::Asked
            };
            found.awaits = DeviceSet::EMPTY;
            let same = found
                .candidates
                .iter()
                .position(|known| known.plan == asked.plan);
            found.choice = same.unwrap_or_else(|| {
                found.candidates.push(asked);
                found.candidates.len() - 1
            });
        }
    }
    Ok(found)
}

/// How much is found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Only what the choice depends on.
    Choice,
    /// Also what it does not depend on, for explanations.
    Everything,
}

/// Parts whose times differ by no more than this factor are taken to finish together.
const FINISH_TOGETHER: f64 = 1.03;
/// How often a split is balanced anew by what its parts are predicted to take.
const BALANCING_ROUNDS: usize = 5;
/// How many times as long as the fastest device a split may be predicted to take to be tried.
const WORTH_TRYING: f64 = 1.5;
/// Runs of a software adapter before it is known to be as fast as it seems.
const SOFTWARE_SAMPLES: u64 = 3;
/// A longer backlog than this, a year, is a mistake.
const LONGEST_WAIT: f64 = 3e7;
/// A change of shares that is not worth another round.
const SMALL_CHANGE: f64 = 0.005;
/// A part that spends a larger share of its time on moving data is learned apart from those that move none.
const MOVED_SHARE: f64 = 0.05;

struct Planner<'a> {
    request: &'a Request<'a>,
    machine: &'a Machine,
    knowledge: &'a Knowledge,
    policy: &'a Policy,
}

/// What a part takes on one engine of a device.
#[derive(Clone, Copy)]
struct Estimate<'a> {
    device: &'a DeviceModel,
    engine: &'a Engine,
    predicted: Prediction,
    evidence: Evidence,
    seconds: f64,
    /// How many of the seconds do not depend on how many items it has.
    overhead: f64,
    missing_bytes: f64,
    /// Seconds to move its contribution to a returned value to the host, if it runs beside others.
    combine: f64,
    /// The variance of the logarithm of its seconds, and the part of it that is noise of measurements.
    variance: f64,
    noise: f64,
    settled: bool,
}

/// A device that could take part in a split, with the engine that it would use.
#[derive(Clone, Copy)]
struct Member<'a> {
    device: &'a DeviceModel,
    engine: &'a Engine,
    line: Line,
}

type Members<'a> = SmallVec<[Member<'a>; 8]>;

/// The search for the shares with which the members of a split finish together.
///
/// Time against items is taken to be a line, drawn through what was found last. That a device may be much faster at its
/// part than at all items, because that fits a cache or is partly there already, would make the shares jump to and fro.
/// So once a device was early with one share and late with another, its next is between: where the logarithm of its time
/// over the mean is zero if that too is a line (the rule of false position).
struct Balance {
    items: usize,
    border: usize,
    lines: SmallVec<[Line; 8]>,
    shares: SmallVec<[f64; 8]>,
    brackets: SmallVec<[Bracket; 8]>,
}

/// The greatest share with which a device was early and the least with which it was late, and by how much: the logarithm
/// of its time over the mean.
#[derive(Clone, Copy)]
struct Bracket {
    early: (f64, f64),
    late: (f64, f64),
}

impl Bracket {
    const OPEN: Self = Self {
        early: (0.0, f64::NEG_INFINITY),
        late: (1.0, f64::INFINITY),
    };

    /// Takes note of a share and by how much it was late. Returns a share to try in place of `wanted`.
    fn narrow(&mut self, share: f64, late: f64, wanted: f64) -> f64 {
        const MARGIN: f64 = 0.05;
        if late > 0.0 {
            if share < self.late.0 {
                self.late = (share, late);
            }
        } else if share > self.early.0 {
            self.early = (share, late);
        }
        let (low, high) = (self.early, self.late);
        let width = high.0 - low.0;
        if low.1.is_finite() && high.1.is_finite() {
            let at = low.1 / (low.1 - high.1);
            low.0 + width * at.clamp(MARGIN, 1.0 - MARGIN)
        } else if wanted > low.0 && wanted < high.0 {
            wanted
        } else {
            low.0 + 0.5 * width
        }
    }
}

impl Balance {
    fn new(items: usize, border: usize, members: &Members<'_>) -> Self {
        let lines: SmallVec<[Line; 8]> = members.iter().map(|m| m.line).collect();
        Self {
            items,
            border,
            shares: split::equal_finish(items, border, &lines),
            brackets: SmallVec::from_elem(Bracket::OPEN, members.len()),
            lines,
        }
    }

    /// Shares anew, now that parts of these ranges are known to finish at these times; 0 for those that take no part.
    /// Returns whether that changes much.
    fn improve(&mut self, ranges: &[Range<usize>], finishes: &[f64]) -> bool {
        let count = finishes.iter().filter(|seconds| **seconds > 0.0).count();
        let mean = finishes.iter().sum::<f64>() / count as f64;
        let mut wanted = split::equal_finish(self.items, self.border, &self.lines);
        for (at, range) in ranges.iter().enumerate().filter(|(_, r)| !r.is_empty()) {
            let share = range.len() as f64 / self.items as f64;
            let late = (finishes[at] / mean).ln();
            if wanted[at] > 0.0 {
                wanted[at] = self.brackets[at].narrow(share, late, wanted[at]);
            }
        }
        let sum: f64 = wanted.iter().sum();
        wanted.iter_mut().for_each(|share| *share /= sum);
        let change = wanted.iter().zip(&self.shares).map(|(a, b)| (a - b).abs());
        let changes = change.fold(0.0, f64::max) > SMALL_CHANGE;
        self.shares = wanted;
        changes
    }
}

impl<'a> Planner<'a> {
    /// Every device alone, and all that may share, and the best of these.
    fn auto(&self, depth: Depth, found: &mut Considered) -> Result<()> {
        if self.request.items == 0 {
            found.candidates.push(Candidate::default());
            return Ok(());
        }
        let all = 0..self.request.items;
        let mut members = Members::new();
        // The CPU comes last in a split, as in `split:F`, so that calls agree on who holds which end of the data.
        let of_cpu = |device: &&DeviceModel| device.id == DeviceId::Cpu;
        let devices = &self.machine.devices;
        for device in devices
            .iter()
            .filter(|d| !of_cpu(d))
            .chain(devices.iter().filter(of_cpu))
        {
            match self.load(device, &all) {
                Ok(load) => self.add_alone(device, &load, depth, found, &mut members),
                Err(reason) => {
                    found.ruled_out.push((device.id, reason));
                    members.extend(self.member_for_a_part(device));
                }
            }
        }
        members.retain(|member| member.device.kind != DeviceKind::Software);
        // Worth a look is what could be chosen, or tried.
        let fastest = found.fastest_alone(|_| true);
        let worth = fastest.map(|at| {
            let alone = found.candidates[at].seconds();
            let chosen = (1.0 - self.policy.split_gain) * alone;
            let tried = f64::min(WORTH_TRYING * alone, self.knowledge.allowance.seconds);
            f64::max(chosen, tried)
        });
        let mut split = self.split(members.clone(), worth);
        if split.is_none() && depth == Depth::Everything {
            split = self.split(members, None).map(|split| Candidate {
                only_shown: true,
                ..split
            });
        }
        found.candidates.extend(split);
        if found.candidates.is_empty() {
            return Err(self.infeasible(&found.ruled_out));
        }
        found.choose(self.policy);
        if let Some(tried) = found.worth_trying(
            self.policy,
            self.knowledge,
            size(self.request, self.request.items),
        ) {
            let compiling = found.candidates[tried].compiling;
            if compiling.is_empty() {
                (found.choice, found.why) = (tried, Why::Exploring);
            } else {
                // It can be tried once it is compiled.
                found.awaits = compiling;
            }
        }
        Ok(())
    }

    /// Adds a device alone, with each of its engines, to the candidates, and to those that may share.
    fn add_alone(
        &self,
        device: &'a DeviceModel,
        load: &Load,
        depth: Depth,
        found: &mut Considered,
        members: &mut Members<'a>,
    ) {
        let all = 0..self.request.items;
        let cpu = || self.machine.device(DeviceId::Cpu);
        let cpu_can = || cpu().is_some_and(|cpu| self.load(cpu, &all).is_ok());
        let doubtful = device.kind == DeviceKind::Software && cpu_can();
        let mut fastest: Option<Estimate<'_>> = None;
        for estimate in self.estimates(device, load, DeviceSet::EMPTY) {
            let evidence = &estimate.evidence;
            let measured = evidence.samples >= SOFTWARE_SAMPLES && !evidence.extrapolated;
            let eligible = !doubtful || measured;
            if !eligible {
                found.ruled_out.push((device.id, RuledOut::Software));
            }
            if eligible || depth == Depth::Everything {
                let mut alone = Candidate {
                    eligible,
                    ..Candidate::default()
                };
                self.add(&mut alone, &estimate, &all);
                found.candidates.push(alone);
            }
            if fastest.is_none_or(|fastest| estimate.seconds < fastest.seconds) {
                fastest = Some(estimate);
            }
        }
        let shares = device.kind != DeviceKind::Software && self.machine.devices.len() > 1;
        members.extend(fastest.filter(|_| shares).map(|fastest| Member {
            device,
            engine: fastest.engine,
            line: fastest.line(all.len()),
        }));
    }

    /// What the placement says, unless it leaves the choice to the planner.
    fn asked(&self, placement: &Placement) -> Result<Option<Candidate>> {
        let on = |device| self.forced(&[(device, 1.0)]).map(Some);
        match placement {
            Placement::Auto => Ok(None),
            Placement::Cpu => on(DeviceId::Cpu),
            Placement::Gpu(index) => on(DeviceId::Gpu(*index)),
            Placement::Split(shares) => {
                placement.check()?;
                self.forced(shares).map(Some)
            }
        }
    }

    /// The items shared as the caller asks.
    fn forced(&self, shares: &[(DeviceId, f64)]) -> Result<Candidate> {
        let mut devices = SmallVec::<[&DeviceModel; 8]>::new();
        for (id, _) in shares {
            devices.push(
                self.machine
                    .device(*id)
                    .ok_or_else(|| self.no_such_device(*id))?,
            );
        }
        let fractions: SmallVec<[f64; 8]> = shares.iter().map(|(_, share)| *share).collect();
        let ranges = split::ranges(self.request.items, self.request.border_grain, &fractions);
        let parts = || devices.iter().zip(&ranges).filter(|(_, r)| !r.is_empty());
        let all: DeviceSet = parts().map(|(device, _)| device.id).collect();
        let mut together = Candidate::default();
        let mut ruled_out = SmallVec::<[(DeviceId, RuledOut); 2]>::new();
        for (device, range) in parts() {
            match self.fastest(device, range, all.without(device.id)) {
                Ok(estimate) => self.add(&mut together, &estimate, range),
                Err(reason) => ruled_out.push((device.id, reason)),
            }
        }
        if !ruled_out.is_empty() {
            return Err(self.infeasible(&ruled_out));
        }
        Ok(together)
    }

    /// The best split over the members or, if it takes less, over fewer of them, if at least two get a part and it
    /// takes less than `worth` seconds.
    fn split(&self, mut members: Members<'_>, worth: Option<f64>) -> Option<Candidate> {
        self.leave_out_the_slow(&mut members);
        let mut best = self.balanced(&members, worth);
        // Devices that slow the others down may be better left out: the one that does least goes first, or each in turn
        // while that is few.
        while members.len() > 2 {
            let leave = if members.len() == 3 {
                0..3
            } else {
                let share = |at: &usize| {
                    best.as_ref()
                        .map_or(0, |b| b.items_of(members[*at].device.id))
                };
                let least = (0..members.len()).min_by_key(share)?;
                least..least + 1
            };
            let mut fewer = leave.map(|at| {
                let mut rest = members.clone();
                rest.remove(at);
                let limit = best.as_ref().map(Candidate::seconds).or(worth);
                (self.balanced(&rest, limit), rest)
            });
            let better = fewer.find(|(split, _)| split.is_some());
            match better {
                Some((split, rest)) => (best, members) = (split, rest),
                None => break,
            }
        }
        best
    }

    /// Leaves out devices that are so much slower than the fastest that they could not save enough.
    fn leave_out_the_slow(&self, members: &mut Members<'_>) {
        let fastest = members
            .iter()
            .map(|m| m.line.per_item)
            .fold(f64::INFINITY, f64::min);
        let slow = |line: &Line| line.per_item > self.policy.split_speed_ratio * fastest;
        // A device may be much faster at a part than at all items, because that fits a cache. One that is so much slower
        // would get about so many.
        let part = (self.request.items as f64 / self.policy.split_speed_ratio.max(1.0)) as usize;
        let part = 0..part.max(1);
        members.retain(|m| {
            if slow(&m.line) {
                let of_part = self.part(m, &part, DeviceSet::EMPTY);
                m.line = of_part.map_or(m.line, |estimate| estimate.line(part.len()));
            }
            !slow(&m.line)
        });
    }

    /// What a part takes on a member's engine.
    fn part<'m>(
        &self,
        member: &Member<'m>,
        range: &Range<usize>,
        beside: DeviceSet,
    ) -> Result<Estimate<'m>, RuledOut> {
        let load = self.load(member.device, range)?;
        let wait = self.wait(member.device, &load);
        Ok(self.estimate(member.device, member.engine, &load, beside, wait))
    }

    /// The split over these members in which they finish together, if at least two get a part and it takes less than
    /// `worth` seconds.
    fn balanced(&self, members: &Members<'_>, worth: Option<f64>) -> Option<Candidate> {
        if members.len() < 2 {
            return None;
        }
        let border = self.request.border_grain;
        let mut balance = Balance::new(self.request.items, border, members);
        let mut best: Option<Candidate> = None;
        for _ in 0..BALANCING_ROUNDS {
            let ranges = split::ranges(self.request.items, border, &balance.shares);
            let parts = || members.iter().zip(&ranges).filter(|(_, r)| !r.is_empty());
            if parts().nth(1).is_none() {
                break;
            }
            let all: DeviceSet = parts().map(|(member, _)| member.device.id).collect();
            let mut together = Candidate::default();
            let mut finishes = SmallVec::<[f64; 8]>::from_elem(0.0, members.len());
            for (at, (member, range)) in members.iter().zip(&ranges).enumerate() {
                if range.is_empty() {
                    continue;
                }
                let beside = all.without(member.device.id);
                let estimate = self.part(member, range, beside).ok()?;
                balance.lines[at] = estimate.line(range.len());
                finishes[at] = estimate.seconds;
                self.add(&mut together, &estimate, range);
            }
            let taking_part = finishes.iter().copied().filter(|seconds| *seconds > 0.0);
            let first_finish = taking_part.fold(f64::INFINITY, f64::min);
            let last_finish = together.seconds() - together.plan.combine_seconds;
            let settled = last_finish <= FINISH_TOGETHER * first_finish;
            // However the items are shared anew, nobody finishes before who is first now.
            let hopeless = worth.is_some_and(|worth| first_finish >= worth);
            let limit = best.as_ref().map(Candidate::seconds).or(worth);
            if limit.is_none_or(|limit| together.seconds() < limit) {
                best = Some(together);
            }
            if settled || hopeless || !balance.improve(&ranges, &finishes) {
                break;
            }
        }
        best
    }

    /// A device that cannot run the whole, as a member that may run a part.
    fn member_for_a_part(&self, device: &'a DeviceModel) -> Option<Member<'a>> {
        let least = 0..self.request.border_grain.min(self.request.items);
        let estimate = self.fastest(device, &least, DeviceSet::EMPTY).ok()?;
        Some(Member {
            device,
            engine: estimate.engine,
            line: estimate.line(least.len()),
        })
    }

    fn load(&self, device: &DeviceModel, range: &Range<usize>) -> Result<Load, RuledOut> {
        Load::new(self.request, self.machine, device, range)
    }

    /// What a part takes on the engine of the device that is fastest for it.
    fn fastest<'m>(
        &self,
        device: &'m DeviceModel,
        range: &Range<usize>,
        beside: DeviceSet,
    ) -> Result<Estimate<'m>, RuledOut> {
        let load = self.load(device, range)?;
        let fastest = self.estimates(device, &load, beside).reduce(|best, next| {
            if next.seconds < best.seconds {
                next
            } else {
                best
            }
        });
        Ok(fastest.expect("a device model has at least one engine"))
    }

    /// What a part takes on each engine of a device, beside other devices.
    fn estimates<'m>(
        &self,
        device: &'m DeviceModel,
        load: &Load,
        beside: DeviceSet,
    ) -> impl Iterator<Item = Estimate<'m>> {
        let wait = self.wait(device, load);
        device
            .engines
            .iter()
            .map(move |engine| self.estimate(device, engine, load, beside, wait))
    }

    fn estimate<'m>(
        &self,
        device: &'m DeviceModel,
        engine: &'m Engine,
        load: &Load,
        beside: DeviceSet,
        wait: f64,
    ) -> Estimate<'m> {
        let launch = engine.launch_seconds + (load.dispatches - 1) as f64 * device.queued_seconds;
        let returned_bytes = self.request.returned_bytes as f64;
        let download = device.download.as_ref().filter(|_| returned_bytes > 0.0);
        // A value comes back with the submission that computes it, whose wait is in the launch already.
        let returned = download.map_or(0.0, |link| {
            let line = link.line(returned_bytes);
            (line.fixed - engine.launch_seconds).max(0.0) + returned_bytes * line.per_byte
        });
        // Of a split the contributions to a value are put together when all are there.
        let (with_it, combine) = if beside.is_empty() {
            (returned, 0.0)
        } else {
            (0.0, returned)
        };
        let compute = prior::compute_seconds(engine, &load.demand);
        let transfers = load.upload + load.download + with_it;
        let prior_seconds = launch + compute + transfers;
        let arm = Arm {
            device: device.id,
            threads: engine.threads,
            beside,
            moved: load.upload + load.download > MOVED_SHARE * prior_seconds,
        };
        let circumstances = Circumstances {
            execution_share: if transfers > 0.0 {
                1.0 - transfers / prior_seconds
            } else {
                1.0
            },
            log_slowdown: self.log_slowdown(device, engine, load, beside),
        };
        let learned = self
            .knowledge
            .experience
            .estimate(&arm, load.size, &circumstances);
        let factor = if learned.log_factor == 0.0 {
            1.0
        } else {
            learned.log_factor.exp()
        };
        let predicted = Prediction {
            wait,
            launch: factor * launch,
            upload: factor * load.upload,
            compute: factor * compute,
            download: factor * (load.download + with_it) + load.read_back,
        };
        let seconds = predicted.seconds();
        let share = if seconds > 0.0 {
            factor * prior_seconds / seconds
        } else {
            1.0
        };
        Estimate {
            device,
            engine,
            predicted,
            evidence: Evidence {
                arm,
                size: load.size,
                prior_seconds,
                samples: learned.samples,
                uncertainty: share * learned.variance.sqrt(),
                extrapolated: learned.extrapolated,
            },
            seconds,
            overhead: wait
                + factor * (engine.launch_seconds + load.fixed + with_it)
                + load.read_back_fixed,
            missing_bytes: load.missing_bytes,
            combine,
            variance: share * share * learned.variance,
            noise: share * share * learned.noise,
            settled: learned.settled,
        }
    }

    /// Seconds until a device can begin: it is done with its work, and so are those that hold what it needs.
    fn wait(&self, device: &DeviceModel, load: &Load) -> f64 {
        let backlog = &self.knowledge.backlog;
        let on_cores = |id: DeviceId| {
            id == DeviceId::Cpu
                || self
                    .machine
                    .device(id)
                    .is_some_and(|device| device.kind == DeviceKind::Software)
        };
        let delays = |id: DeviceId| {
            id == device.id || load.holders.contains(id) || (on_cores(id) && on_cores(device.id))
        };
        backlog
            .iter()
            .filter(|(id, _)| delays(*id))
            .map(|(_, seconds)| seconds.clamp(0.0, LONGEST_WAIT))
            .fold(0.0, f64::max)
    }

    /// By how much the devices beside it are expected to slow a device down, before that is learned for the kernel.
    fn log_slowdown(
        &self,
        device: &DeviceModel,
        engine: &Engine,
        load: &Load,
        beside: DeviceSet,
    ) -> f64 {
        if beside.is_empty() {
            return 0.0;
        }
        let bound = prior::bound(engine, &load.demand);
        let (mut measured, mut unmeasured) = (1.0, 1.0);
        for other in self
            .machine
            .devices
            .iter()
            .filter(|d| beside.contains(d.id))
        {
            match self.machine.corun_slowdown(device.id, other.id, bound) {
                Some(factor) => measured *= factor,
                None => unmeasured = self.policy.corun_slowdown,
            }
        }
        // A machine that somebody made up may say anything.
        let log = f64::ln(measured * unmeasured);
        if log.is_finite() { log } else { 0.0 }
    }

    /// Adds a part, which runs at the same time as the others, to a candidate.
    fn add(&self, candidate: &mut Candidate, estimate: &Estimate<'_>, range: &Range<usize>) {
        let device = estimate.device.id;
        let plan = &mut candidate.plan;
        plan.parts.push(PlannedPart {
            device,
            range: range.clone(),
            threads: estimate.evidence.arm.threads,
            predicted: estimate.predicted,
            evidence: estimate.evidence,
        });
        let longest = plan.predicted_seconds - plan.combine_seconds;
        plan.combine_seconds = plan.combine_seconds.max(estimate.combine);
        plan.predicted_seconds = longest.max(estimate.seconds) + plan.combine_seconds;
        candidate.missing_bytes += estimate.missing_bytes;
        candidate.variance = candidate.variance.max(estimate.variance);
        candidate.noise = candidate.noise.max(estimate.noise);
        candidate.settled &= estimate.settled;
        if self.knowledge.compiling.contains(device) {
            candidate.compiling = candidate.compiling.with(device);
        }
    }

    fn infeasible(&self, ruled_out: &[(DeviceId, RuledOut)]) -> Error {
        let mut reasons: Vec<String> = ruled_out
            .iter()
            .map(|(device, reason)| format!("{device}: {reason}"))
            .collect();
        if self.request.has_gpu && !self.machine.devices.iter().any(|d| d.id != DeviceId::Cpu) {
            reasons.push("this runtime has no GPU".into());
        }
        Error::Infeasible {
            kernel: self.request.kernel.name.into(),
            reasons: reasons.join("; "),
        }
    }

    fn no_such_device(&self, wanted: DeviceId) -> Error {
        let mut ids: SmallVec<[DeviceId; 8]> = self.machine.devices.iter().map(|d| d.id).collect();
        ids.sort_unstable();
        let available: Vec<String> = ids.iter().map(DeviceId::to_string).collect();
        let available = if available.is_empty() {
            "none".into()
        } else {
            available.join(", ")
        };
        Error::NoSuchDevice {
            wanted: wanted.to_string(),
            available,
        }
    }
}

impl Estimate<'_> {
    /// The time against the number of items, drawn through this estimate for `items`.
    fn line(&self, items: usize) -> Line {
        // A kernel that claims no work at all still needs a line that rises.
        let per_item = ((self.seconds - self.overhead) / items as f64).max(1e-18);
        Line {
            overhead: self.overhead,
            per_item,
        }
    }
}

impl Candidate {
    pub fn seconds(&self) -> f64 {
        self.plan.predicted_seconds
    }

    fn is_split(&self) -> bool {
        self.plan.parts.len() > 1
    }

    /// How many items a device gets.
    fn items_of(&self, device: DeviceId) -> usize {
        let parts = self.plan.parts.iter();
        parts
            .filter(|part| part.device == device)
            .map(|part| part.range.len())
            .sum()
    }
}

/// The choice among the candidates.
impl Considered {
    /// The fastest single device of those that may be chosen. The CPU is last and wins ties.
    fn fastest_alone(&self, allowed: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let alone = self.candidates.iter().enumerate().rev();
        alone
            .filter(|(_, c)| c.eligible && !c.is_split() && allowed(c))
            .min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()))
            .map(|(at, _)| at)
    }

    /// Chooses the fastest, but leaves data where they are and work in one piece unless that costs enough.
    fn choose(&mut self, policy: &Policy) {
        (self.choice, self.why) = self.best(policy, |_| true);
        let awaited = self.candidates[self.choice].compiling;
        let ready = |candidate: &Candidate| candidate.compiling.is_empty();
        let can_run =
            |candidate: &Candidate| candidate.eligible && !candidate.only_shown && ready(candidate);
        if !awaited.is_empty() && self.candidates.iter().any(can_run) {
            self.awaits = awaited;
            (self.choice, _) = self.best(policy, ready);
            self.why = Why::Compiling;
            let waiting = awaited.iter().map(|device| (device, RuledOut::Compiling));
            self.ruled_out.extend(waiting);
        }
    }

    /// The best of the candidates that may be chosen and are `allowed`. There must be one that may be chosen.
    fn best(&self, policy: &Policy, allowed: impl Fn(&Candidate) -> bool) -> (usize, Why) {
        let eligible = || {
            let candidates = self.candidates.iter().enumerate().rev();
            candidates.filter(|(_, c)| c.eligible && allowed(c))
        };
        let split = eligible().find(|(_, c)| c.is_split());
        let Some(fastest) = self.fastest_alone(&allowed) else {
            return (split.map_or(0, |(at, _)| at), Why::OnlyOne);
        };
        let alone = &self.candidates[fastest];
        if let Some((at, split)) = split
            && !split.only_shown
            && policy.is_worth_splitting(split, alone)
        {
            return (at, Why::Fastest);
        }
        let holding = eligible()
            .filter(|(_, c)| !c.is_split())
            .min_by(|(_, a), (_, b)| {
                a.missing_bytes
                    .total_cmp(&b.missing_bytes)
                    .then(a.seconds().total_cmp(&b.seconds()))
            });
        if let Some((holder, holding)) = holding
            && alone.missing_bytes > holding.missing_bytes
            && alone.seconds() >= (1.0 - policy.hysteresis) * holding.seconds()
        {
            return (holder, Why::HoldsData);
        }
        let why = match split {
            Some((_, split)) if split.seconds() < alone.seconds() => Why::SplitSavesLittle,
            _ if eligible().nth(1).is_some() => Why::Fastest,
            _ => Why::OnlyOne,
        };
        (fastest, why)
    }

    /// A candidate to try instead of the choice, because it may well be faster and enough calls of that size will follow
    /// to profit.
    fn worth_trying(&self, policy: &Policy, knowledge: &Knowledge, size: f64) -> Option<usize> {
        let allowance = knowledge.allowance;
        if self.why == Why::Compiling || allowance.seconds <= 0.0 {
            return None;
        }
        let chosen = &self.candidates[self.choice];
        let affordable = |candidate: &Candidate| {
            candidate.eligible
                && !candidate.only_shown
                && candidate.seconds() <= allowance.seconds
                && candidate.seconds() <= policy.exploration_limit * chosen.seconds()
        };
        let visits = f64::from(knowledge.experience.visits(size));
        let follow = visits.clamp(LEAST_CALLS, MOST_CALLS);
        self.candidates
            .iter()
            .enumerate()
            .filter(|(at, candidate)| *at != self.choice && affordable(candidate))
            .map(|(at, candidate)| (at, candidate.profit_of_trying(chosen, follow)))
            .filter(|(at, profit)| *profit > allowance.price * self.candidates[*at].seconds())
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(at, _)| at)
    }
}

/// As many calls like this one are expected to follow as there were, but at least and at most so many.
const LEAST_CALLS: f64 = 20.0;
const MOST_CALLS: f64 = 1000.0;

impl Policy {
    /// Whether a split is enough faster than the fastest single device: by more than the estimate flatters itself and,
    /// once both are known as well as they will ever be, by more than noise explains. Before that it is measured more.
    fn is_worth_splitting(&self, split: &Candidate, alone: &Candidate) -> bool {
        const STANDARD_ERRORS: f64 = 3.0;
        let error = if split.settled && alone.settled {
            (split.noise + alone.noise).sqrt()
        } else {
            0.0
        };
        let gain = f64::max(self.split_gain, 1.0 - (-STANDARD_ERRORS * error).exp());
        split.seconds() < (1.0 - gain) * alone.seconds()
    }
}

impl Candidate {
    /// Seconds that trying this once is expected to save over `follow` further calls, less what it costs now.
    ///
    /// The expected improvement of Bayesian optimisation (D. Jones, M. Schonlau, W. Welch, "Efficient global
    /// optimization of expensive black-box functions", J. Global Optimization 13, 1998), with the logarithms of both
    /// times normally distributed.
    fn profit_of_trying(&self, chosen: &Self, follow: f64) -> f64 {
        let deviation = (self.variance - self.noise).max(0.0).sqrt();
        if deviation == 0.0 || chosen.seconds() <= 0.0 || self.seconds() <= 0.0 {
            return 0.0;
        }
        let behind = (self.seconds() / chosen.seconds()).ln();
        let improvement = deviation * expected_excess(-behind / deviation);
        let loss = deviation * expected_excess(behind / deviation);
        chosen.seconds() * (follow * improvement - loss)
    }
}

/// The mean of what a standard normal variable exceeds `-z` by, or 0 where it does not.
fn expected_excess(z: f64) -> f64 {
    let density = (-0.5 * z * z).exp() * 0.398_942_280_401_432_7;
    // The logistic approximation of the normal distribution function, good to 0.01 %.
    let below = 1.0 / (1.0 + (-z * (1.595_769_121_6 + 0.072_630_2 * z * z)).exp());
    (density + z * below).max(0.0)
}
