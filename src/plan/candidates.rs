//! The search for candidates: each device alone, the splits over several, and the predicted time of each.
//!
//! Plans and explanations both come from here, so that an explanation always agrees with the plan.

mod estimate;

use super::balance::Balance;
use super::evaluation::{Candidate, Evaluation, Reason};
use super::input::PlannerInput;
use super::load::{Load, size};
use super::params::PARAMS;
use super::planned::{Plan, PlannedPart};
use super::policy::Policy;
use super::request::Request;
use super::ruled_out::RuledOut;
use super::split::{self, Line};
use crate::cost::{DeviceModel, Engine, Machine};
use crate::device::DeviceSet;
use crate::device::{DeviceId, DeviceKind, Placement};
use crate::error::{Error, Result};
use estimate::CostEstimate;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Plans a call: finds the candidates that `placement` allows and returns the plan of the best.
pub(super) fn choose(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    let planner = Planner::new(request, machine, input, policy);
    if let Some(asked) = planner.asked(placement)? {
        let mut plan = asked.candidate.plan;
        plan.size = planner.size;
        plan.exploring = asked.reason == Reason::Exploring;
        return Ok(plan);
    }
    let mut found = Evaluation::default();
    planner.auto(Depth::Choice, &mut found)?;
    let mut plan = found.candidates.swap_remove(found.choice).plan;
    plan.size = planner.size;
    plan.exploring = found.reason == Reason::Exploring;
    // A device that runs the call compiles its pipelines then.
    let running = plan.parts.iter().map(|part| part.device);
    plan.awaits = running.fold(found.awaits, DeviceSet::without);
    Ok(plan)
}

/// The same, with every candidate that a person may want to compare with the choice.
pub(super) fn evaluate(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Evaluation> {
    let planner = Planner::new(request, machine, input, policy);
    let asked = planner.asked(placement)?;
    let mut found = Evaluation::default();
    match (planner.auto(Depth::Everything, &mut found), asked) {
        (result, None) => result?,
        // `auto` only finds candidates to compare with, so its failure is no error.
        (_, Some(asked)) => {
            found.reason = asked.reason;
            found.awaits = DeviceSet::EMPTY;
            let same = found
                .candidates
                .iter()
                .position(|known| known.plan == asked.candidate.plan);
            found.choice = same.unwrap_or_else(|| {
                found.candidates.push(asked.candidate);
                found.candidates.len() - 1
            });
        }
    }
    Ok(found)
}

/// How many candidates the search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Depth {
    /// Those that the choice depends on.
    Choice,
    /// Also those that could not be chosen, for explanations.
    Everything,
}

/// The candidate that a placement asks for.
struct Asked {
    candidate: Candidate,
    /// Usually [`Reason::Asked`].
    reason: Reason,
}

struct Planner<'a> {
    request: &'a Request<'a>,
    machine: &'a Machine,
    input: &'a PlannerInput,
    policy: &'a Policy,
    /// The size of the call for the learner.
    size: f64,
}

/// A device that may have a part in a split, with its engine.
#[derive(Clone, Copy)]
struct Member<'a> {
    device: &'a DeviceModel,
    engine: &'a Engine,
    line: Line,
}

type Members<'a> = SmallVec<[Member<'a>; 8]>;

/// The estimate for a member's part of a split.
struct MemberEstimate<'a> {
    /// The member's index.
    member: usize,
    estimate: CostEstimate<'a>,
}

type MemberEstimates<'a> = SmallVec<[MemberEstimate<'a>; 2]>;

/// A split, and the estimate of each part.
struct SplitEstimate<'a> {
    candidate: Candidate,
    parts: MemberEstimates<'a>,
}

impl SplitEstimate<'_> {
    fn first_finish(&self) -> f64 {
        let seconds = self.parts.iter().map(|part| part.estimate.seconds);
        seconds.fold(f64::INFINITY, f64::min)
    }

    fn finishes_together(&self) -> bool {
        let last_finish = self.candidate.seconds() - self.candidate.plan.combine_seconds;
        last_finish <= PARAMS.finish_together * self.first_finish()
    }
}

/// The split that was chosen before at about this size.
struct KnownSplit {
    candidate: Candidate,
    /// Whether its parts still finish together.
    balanced: bool,
}

impl<'a> Planner<'a> {
    fn new(
        request: &'a Request<'a>,
        machine: &'a Machine,
        input: &'a PlannerInput,
        policy: &'a Policy,
    ) -> Self {
        Self {
            request,
            machine,
            input,
            policy,
            size: size(request, request.items),
        }
    }

    /// Finds every device alone and the best split, and chooses.
    fn auto(&self, depth: Depth, found: &mut Evaluation) -> Result<()> {
        if self.request.items == 0 {
            found.candidates.push(Candidate::default());
            return Ok(());
        }
        let all = 0..self.request.items;
        let mut members = Members::new();
        // The CPU comes last in a split, as in `split:F`, so that all calls leave the same end of the data on a device.
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
        // The search stops at splits that are too slow to be chosen or explored.
        let fastest = found.fastest_alone(|_| true);
        let limit = fastest.map(|at| {
            let alone = found.candidates[at].seconds();
            let chosen = (1.0 - self.policy.split_gain) * alone;
            let explored = f64::min(
                PARAMS.split_exploration_ratio * alone,
                self.input.exploration_budget.seconds,
            );
            f64::max(chosen, explored)
        });
        self.remove_slow(&mut members);
        let mut split = self.split(members.clone(), limit);
        if split.is_none() && depth == Depth::Everything {
            split = self.split(members.clone(), None).map(|split| Candidate {
                only_shown: true,
                ..split
            });
        }
        if fastest.is_some_and(|at| self.can_explore(&found.candidates[at])) {
            self.add_explored_splits(split.as_ref(), &members, &mut found.candidates);
        }
        found.candidates.extend(split);
        if found.candidates.is_empty() {
            return Err(self.infeasible(&found.ruled_out));
        }
        found.choose(self.policy);
        if let Some(explored) = found.worth_exploring(self.policy, self.input, self.size) {
            let compiling = found.candidates[explored].compiling;
            if compiling.is_empty() {
                (found.choice, found.reason) = (explored, Reason::Exploring);
            } else {
                // It can be explored once its pipelines are compiled.
                found.awaits = compiling;
            }
        }
        Ok(())
    }

    /// Adds a device alone to the candidates, with each of its engines, and to the members of splits.
    fn add_alone(
        &self,
        device: &'a DeviceModel,
        load: &Load,
        depth: Depth,
        found: &mut Evaluation,
        members: &mut Members<'a>,
    ) {
        let all = 0..self.request.items;
        let cpu = || self.machine.device(DeviceId::Cpu);
        let cpu_can = || cpu().is_some_and(|cpu| self.load(cpu, &all).is_ok());
        let must_be_measured = device.kind == DeviceKind::Software && cpu_can();
        let mut fastest: Option<CostEstimate<'_>> = None;
        for estimate in self.estimates(device, load, DeviceSet::EMPTY) {
            let evidence = &estimate.evidence;
            let measured = evidence.samples >= PARAMS.software_samples && !evidence.extrapolated;
            let eligible = !must_be_measured || measured;
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
        let may_share = device.kind != DeviceKind::Software && self.machine.devices.len() > 1;
        members.extend(fastest.filter(|_| may_share).map(|fastest| Member {
            device,
            engine: fastest.engine,
            line: fastest.line(all.len()),
        }));
    }

    /// The candidate that the placement asks for; `None` for [`Placement::Auto`].
    fn asked(&self, placement: &Placement) -> Result<Option<Asked>> {
        match placement {
            Placement::Auto => Ok(None),
            Placement::Cpu => self.all_on(DeviceId::Cpu).map(Some),
            Placement::Gpu(index) => self.all_on(DeviceId::Gpu(*index)).map(Some),
            Placement::Split(shares) => {
                placement.check()?;
                let reason = match self.request.items {
                    0 => Reason::NothingToDo,
                    _ => Reason::Asked,
                };
                let candidate = self.forced(shares)?;
                Ok(Some(Asked { candidate, reason }))
            }
        }
    }

    /// All items on one device, with its fastest engine or one that is worth exploring. Without exploration, a single bad
    /// measurement would rule an engine out for ever.
    fn all_on(&self, id: DeviceId) -> Result<Asked> {
        let device = self.machine.device(id);
        let device = device.ok_or_else(|| self.no_such_device(id))?;
        let all = 0..self.request.items;
        if all.is_empty() {
            return Ok(Asked {
                candidate: Candidate::default(),
                reason: Reason::NothingToDo,
            });
        }
        let load = self.load(device, &all);
        let load = load.map_err(|reason| self.infeasible(&[(id, reason)]))?;
        let alone = self
            .estimates(device, &load, DeviceSet::EMPTY)
            .map(|estimate| {
                let mut alone = Candidate::default();
                self.add(&mut alone, &estimate, &all);
                alone
            });
        let mut found = Evaluation {
            candidates: alone.collect(),
            reason: Reason::Asked,
            ..Evaluation::default()
        };
        let engines = found.candidates.iter().enumerate();
        let fastest = engines.min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()));
        found.choice = fastest.map_or(0, |(at, _)| at);
        if let Some(explored) = found.worth_exploring(self.policy, self.input, self.size) {
            (found.choice, found.reason) = (explored, Reason::Exploring);
        }
        Ok(Asked {
            candidate: found.candidates.swap_remove(found.choice),
            reason: found.reason,
        })
    }

    /// The split that the caller asks for.
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
        let ranges = self.ranges(&fractions);
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

    /// The best split over the members, or over fewer if that is faster. `None` unless at least two get a part and it
    /// takes less than `limit` seconds.
    ///
    /// The search takes longer than a small call, and only finds a local optimum near its start. So a split that was chosen
    /// before is used again while its parts still finish together, unless the exploration budget allows a search.
    fn split(&self, mut members: Members<'_>, limit: Option<f64>) -> Option<Candidate> {
        let is_within = |split: &Candidate| limit.is_none_or(|limit| split.seconds() < limit);
        let known = self.known(&members);
        let still_good = |known: &KnownSplit| known.balanced && !self.can_explore(&known.candidate);
        if known.as_ref().is_some_and(still_good) {
            return known.map(|known| known.candidate).filter(is_within);
        }
        let mut best = self.balanced(&members, limit);
        // A split may be faster without a device that slows the others down. With three members, each is left out in
        // turn; with more, the one with the fewest items.
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
                let limit = best.as_ref().map(Candidate::seconds).or(limit);
                (self.balanced(&rest, limit), rest)
            });
            let better = fewer.find(|(split, _)| split.is_some());
            match better {
                Some((split, rest)) => (best, members) = (split, rest),
                None => break,
            }
        }
        let known = known.map(|known| known.candidate).filter(is_within);
        let found = [best, known].into_iter().flatten();
        found.min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
    }

    /// Whether the exploration budget covers a candidate.
    fn can_explore(&self, candidate: &Candidate) -> bool {
        self.input.exploration_budget.seconds >= candidate.seconds()
    }

    /// Adds splits that the search skips, for exploration. With more than two members: the best split with one device
    /// more or fewer, since only a run together shows how much devices slow each other down. With two: other shares,
    /// since time need not rise with the items, and then both finish together at several shares, of which the search
    /// finds the nearest.
    fn add_explored_splits(
        &self,
        best: Option<&Candidate>,
        members: &Members<'_>,
        candidates: &mut SmallVec<[Candidate; 4]>,
    ) {
        let limit = Some(self.input.exploration_budget.seconds);
        if members.len() == 2 {
            let shares = PARAMS.explored_shares;
            for share in (1..shares).map(|at| at as f64 / shares as f64) {
                let ranges = self.ranges(&[share, 1.0 - share]);
                let split = self.estimate_split(members, &ranges);
                candidates.extend(split.map(|split| split.candidate));
            }
        } else if let Some(best) = best.filter(|best| !best.only_shown) {
            for changed in members {
                let takes_part = |member: &&Member<'_>| {
                    let part = best.items_of(member.device.id) > 0;
                    part != (member.device.id == changed.device.id)
                };
                let others = members.iter().filter(takes_part).copied().collect();
                candidates.extend(self.balanced(&others, limit));
            }
        }
    }

    /// Removes devices that are too slow, compared with the fastest, to save enough.
    fn remove_slow(&self, members: &mut Members<'_>) {
        let fastest = members
            .iter()
            .map(|m| m.line.per_item)
            .fold(f64::INFINITY, f64::min);
        let slow = |line: &Line| line.per_item > self.policy.split_speed_ratio * fastest;
        // A device may be much faster at a part than at all items, because the part fits a cache. A device at the limit
        // would get about this many items.
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

    /// The estimate for a part on a member's engine.
    fn part<'m>(
        &self,
        member: &Member<'m>,
        range: &Range<usize>,
        beside: DeviceSet,
    ) -> Result<CostEstimate<'m>, RuledOut> {
        let load = self.load(member.device, range)?;
        let wait = self.wait(member.device, &load);
        Ok(self.estimate(member.device, member.engine, &load, beside, wait))
    }

    /// The split in which these members finish together. `None` unless at least two get a part and it takes less than
    /// `limit` seconds.
    fn balanced(&self, members: &Members<'_>, limit: Option<f64>) -> Option<Candidate> {
        if members.len() < 2 {
            return None;
        }
        let (items, border) = (self.request.items, self.request.border_grain);
        let lines = members.iter().map(|member| member.line).collect();
        let mut balance = Balance::new(items, border, lines);
        let mut best: Option<Candidate> = None;
        for _ in 0..PARAMS.balancing_rounds {
            let ranges = self.ranges(&balance.shares);
            let Some(split) = self.estimate_split(members, &ranges) else {
                break;
            };
            let mut finishes = SmallVec::<[f64; 8]>::from_elem(0.0, members.len());
            for part in &split.parts {
                let at = part.member;
                balance.lines[at] = part.estimate.line(ranges[at].len());
                finishes[at] = part.estimate.seconds;
            }
            let balanced = split.finishes_together();
            // A balanced split takes at least as long as the first part of this one.
            let hopeless = limit.is_some_and(|limit| split.first_finish() >= limit);
            let limit = best.as_ref().map(Candidate::seconds).or(limit);
            if limit.is_none_or(|limit| split.candidate.seconds() < limit) {
                best = Some(split.candidate);
            }
            if balanced || hopeless || !balance.improve(&ranges, &finishes) {
                break;
            }
        }
        best
    }

    /// The split that was last chosen at about this size, if all its devices are members.
    fn known(&self, members: &Members<'_>) -> Option<KnownSplit> {
        let known = self.input.perf_model.shares(self.size)?;
        let share = |member: &Member<'_>| {
            let mut of_device = known.iter().filter(|(id, _)| *id == member.device.id);
            of_device.next().map_or(0.0, |(_, share)| *share)
        };
        let shares: SmallVec<[f64; 8]> = members.iter().map(share).collect();
        let all_there = shares.iter().filter(|share| **share > 0.0).count() == known.len();
        let split = all_there.then(|| self.estimate_split(members, &self.ranges(&shares)))??;
        Some(KnownSplit {
            balanced: split.finishes_together(),
            candidate: split.candidate,
        })
    }

    fn ranges(&self, shares: &[f64]) -> SmallVec<[Range<usize>; 2]> {
        split::ranges(self.request.items, self.request.border_grain, shares)
    }

    /// The split in which each member computes its range. `None` if fewer than two get items, or if one cannot run its
    /// part.
    fn estimate_split<'m>(
        &self,
        members: &Members<'m>,
        ranges: &[Range<usize>],
    ) -> Option<SplitEstimate<'m>> {
        let parts = || {
            let all = members.iter().zip(ranges).enumerate();
            all.filter(|(_, (_, range))| !range.is_empty())
        };
        parts().nth(1)?;
        let all: DeviceSet = parts().map(|(_, (member, _))| member.device.id).collect();
        let mut candidate = Candidate::default();
        let mut estimates = SmallVec::new();
        for (at, (member, range)) in parts() {
            let beside = all.without(member.device.id);
            let estimate = self.part(member, range, beside).ok()?;
            self.add(&mut candidate, &estimate, range);
            estimates.push(MemberEstimate {
                member: at,
                estimate,
            });
        }
        Some(SplitEstimate {
            candidate,
            parts: estimates,
        })
    }

    /// A device that cannot run the whole call but can run a part, as a member.
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
        let mut unusable = self.input.unusable.iter();
        match unusable.find(|(id, _)| *id == device.id) {
            Some((_, reason)) => Err(RuledOut::Unusable(Arc::clone(reason))),
            None => Load::new(self.request, self.machine, device, range),
        }
    }

    /// Adds a part to a candidate. Its parts run at the same time.
    fn add(&self, candidate: &mut Candidate, estimate: &CostEstimate<'_>, range: &Range<usize>) {
        let device = estimate.device.id;
        let plan = &mut candidate.plan;
        plan.parts.push(PlannedPart {
            device,
            range: range.clone(),
            threads: estimate.evidence.variant.threads,
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
        if self.input.compiling.contains(device) {
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
