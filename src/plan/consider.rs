//! The ways in which a call could run, what each is predicted to cost, and the choice among them.
//!
//! The one place where predictions are put together: plans and explanations both come from here, so that an
//! explanation cannot tell another story than the plan. Pure, like the planner it belongs to.

mod estimate;

use super::balance::Balance;
use super::evaluation::{Candidate, Evaluation, Reason};
use super::input::PlannerInput;
use super::load::{Load, size};
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

/// Finds the candidates that `placement` allows, chooses among them and gives the plan.
pub(super) fn choose(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    let planner = Planner {
        request,
        machine,
        input,
        policy,
        size: size(request, request.items),
    };
    if let Some((asked, why)) = planner.asked(placement)? {
        let mut plan = asked.plan;
        plan.size = planner.size;
        plan.exploring = why == Reason::Exploring;
        return Ok(plan);
    }
    let mut found = Evaluation::default();
    planner.auto(Depth::Choice, &mut found)?;
    let mut plan = found.candidates.swap_remove(found.choice).plan;
    plan.size = planner.size;
    plan.exploring = found.why == Reason::Exploring;
    // What has no other way compiles as it runs.
    let running = plan.parts.iter().map(|part| part.device);
    plan.awaits = running.fold(found.awaits, DeviceSet::without);
    Ok(plan)
}

/// The same, with everything that a person might want to compare the choice with.
pub(super) fn consider(
    request: &Request<'_>,
    machine: &Machine,
    input: &PlannerInput,
    placement: &Placement,
    policy: &Policy,
) -> Result<Evaluation> {
    let planner = Planner {
        request,
        machine,
        input,
        policy,
        size: size(request, request.items),
    };
    let asked = planner.asked(placement)?;
    let mut found = Evaluation::default();
    match (planner.auto(Depth::Everything, &mut found), asked) {
        (result, None) => result?,
        // The others are only shown for comparison, so it is no error if there is none.
        (_, Some((asked, why))) => {
            found.why = why;
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

struct Planner<'a> {
    request: &'a Request<'a>,
    machine: &'a Machine,
    input: &'a PlannerInput,
    policy: &'a Policy,
    /// Of all items.
    size: f64,
}

/// A device that could take part in a split, with the engine that it would use.
#[derive(Clone, Copy)]
struct Member<'a> {
    device: &'a DeviceModel,
    engine: &'a Engine,
    line: Line,
}

type Members<'a> = SmallVec<[Member<'a>; 8]>;

/// What the parts of a split take, with the places of those who compute them among the members.
type CostEstimates<'a> = SmallVec<[(usize, CostEstimate<'a>); 2]>;

fn first_finish(parts: &CostEstimates<'_>) -> f64 {
    let seconds = parts.iter().map(|(_, estimate)| estimate.seconds);
    seconds.fold(f64::INFINITY, f64::min)
}

fn finish_together(split: &Candidate, first_finish: f64) -> bool {
    split.seconds() - split.plan.combine_seconds <= FINISH_TOGETHER * first_finish
}

impl<'a> Planner<'a> {
    /// Every device alone, and all that may share, and the best of these.
    fn auto(&self, depth: Depth, found: &mut Evaluation) -> Result<()> {
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
            let tried = f64::min(WORTH_TRYING * alone, self.input.exploration_budget.seconds);
            f64::max(chosen, tried)
        });
        self.leave_out_the_slow(&mut members);
        let mut split = self.split(members.clone(), worth);
        if split.is_none() && depth == Depth::Everything {
            split = self.split(members.clone(), None).map(|split| Candidate {
                only_shown: true,
                ..split
            });
        }
        if fastest.is_some_and(|at| self.can_try(&found.candidates[at])) {
            self.add_others(split.as_ref(), &members, &mut found.candidates);
        }
        found.candidates.extend(split);
        if found.candidates.is_empty() {
            return Err(self.infeasible(&found.ruled_out));
        }
        found.choose(self.policy);
        if let Some(tried) = found.worth_trying(self.policy, self.input, self.size) {
            let compiling = found.candidates[tried].compiling;
            if compiling.is_empty() {
                (found.choice, found.why) = (tried, Reason::Exploring);
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
        found: &mut Evaluation,
        members: &mut Members<'a>,
    ) {
        let all = 0..self.request.items;
        let cpu = || self.machine.device(DeviceId::Cpu);
        let cpu_can = || cpu().is_some_and(|cpu| self.load(cpu, &all).is_ok());
        let doubtful = device.kind == DeviceKind::Software && cpu_can();
        let mut fastest: Option<CostEstimate<'_>> = None;
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
    fn asked(&self, placement: &Placement) -> Result<Option<(Candidate, Reason)>> {
        match placement {
            Placement::Auto => Ok(None),
            Placement::Cpu => self.all_on(DeviceId::Cpu).map(Some),
            Placement::Gpu(index) => self.all_on(DeviceId::Gpu(*index)).map(Some),
            Placement::Split(shares) => {
                placement.check()?;
                let why = match self.request.items {
                    0 => Reason::NothingToDo,
                    _ => Reason::Asked,
                };
                Ok(Some((self.forced(shares)?, why)))
            }
        }
    }

    /// All items on one device, with that of its engines that is the fastest, or is worth trying: what a single bad
    /// measurement says of one would otherwise be believed for ever.
    fn all_on(&self, id: DeviceId) -> Result<(Candidate, Reason)> {
        let device = self.machine.device(id);
        let device = device.ok_or_else(|| self.no_such_device(id))?;
        let all = 0..self.request.items;
        if all.is_empty() {
            return Ok((Candidate::default(), Reason::NothingToDo));
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
            why: Reason::Asked,
            ..Evaluation::default()
        };
        let engines = found.candidates.iter().enumerate();
        let fastest = engines.min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()));
        found.choice = fastest.map_or(0, |(at, _)| at);
        if let Some(tried) = found.worth_trying(self.policy, self.input, self.size) {
            (found.choice, found.why) = (tried, Reason::Exploring);
        }
        Ok((found.candidates.swap_remove(found.choice), found.why))
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

    /// The best split over the members or, if it takes less, over fewer of them, if at least two get a part and it
    /// takes less than `worth` seconds.
    ///
    /// The search costs more than a small call, and finds what is nearest to where it begins. So what was good before is
    /// good enough while its parts still finish together, but for the calls that may try something.
    fn split(&self, mut members: Members<'_>, worth: Option<f64>) -> Option<Candidate> {
        let is_worth = |split: &Candidate| worth.is_none_or(|worth| split.seconds() < worth);
        let known = self.known(&members);
        if let Some((split, balanced)) = &known
            && *balanced
            && !self.can_try(split)
        {
            return known.map(|(split, _)| split).filter(is_worth);
        }
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
        let known = known.map(|(split, _)| split).filter(is_worth);
        let found = [best, known].into_iter().flatten();
        found.min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
    }

    /// Whether enough may be spent on trying for a way that takes as long as this one.
    fn can_try(&self, candidate: &Candidate) -> bool {
        self.input.exploration_budget.seconds >= candidate.seconds()
    }

    /// Adds splits that the search passes over: with one device more or less than the best, since that devices do each
    /// other less harm than expected is not found out by those that never meet; and of two devices with other shares,
    /// since time need not rise with the items, so that both may finish together with several, of which the search finds
    /// the nearest.
    fn add_others(
        &self,
        best: Option<&Candidate>,
        members: &Members<'_>,
        candidates: &mut SmallVec<[Candidate; 4]>,
    ) {
        const SHARES: usize = 8;
        let limit = Some(self.input.exploration_budget.seconds);
        if members.len() == 2 {
            for share in (1..SHARES).map(|eighths| eighths as f64 / SHARES as f64) {
                let ranges = self.ranges(&[share, 1.0 - share]);
                let cut = self.cut(members, &ranges);
                candidates.extend(cut.map(|(candidate, _)| candidate));
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
    ) -> Result<CostEstimate<'m>, RuledOut> {
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
        let (items, border) = (self.request.items, self.request.border_grain);
        let lines = members.iter().map(|member| member.line).collect();
        let mut balance = Balance::new(items, border, lines);
        let mut best: Option<Candidate> = None;
        for _ in 0..BALANCING_ROUNDS {
            let ranges = self.ranges(&balance.shares);
            let Some((together, estimates)) = self.cut(members, &ranges) else {
                break;
            };
            let mut finishes = SmallVec::<[f64; 8]>::from_elem(0.0, members.len());
            for (at, estimate) in &estimates {
                balance.lines[*at] = estimate.line(ranges[*at].len());
                finishes[*at] = estimate.seconds;
            }
            let first_finish = first_finish(&estimates);
            let settled = finish_together(&together, first_finish);
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

    /// The split that was last successful at about this size, and whether its parts still finish together.
    fn known(&self, members: &Members<'_>) -> Option<(Candidate, bool)> {
        let known = self.input.perf_model.shares(self.size)?;
        let share = |member: &Member<'_>| {
            let mut of_device = known.iter().filter(|(id, _)| *id == member.device.id);
            of_device.next().map_or(0.0, |(_, share)| *share)
        };
        let shares: SmallVec<[f64; 8]> = members.iter().map(share).collect();
        // One that may no longer take part leaves a part to nobody.
        let all_there = shares.iter().filter(|share| **share > 0.0).count() == known.len();
        let (split, estimates) = all_there.then(|| self.cut(members, &self.ranges(&shares)))??;
        let balanced = finish_together(&split, first_finish(&estimates));
        Some((split, balanced))
    }

    fn ranges(&self, shares: &[f64]) -> SmallVec<[Range<usize>; 2]> {
        split::ranges(self.request.items, self.request.border_grain, shares)
    }

    /// The split in which each member computes its range, and what each of those takes; `None` if fewer than two get any
    /// items, or one cannot run its part.
    fn cut<'m>(
        &self,
        members: &Members<'m>,
        ranges: &[Range<usize>],
    ) -> Option<(Candidate, CostEstimates<'m>)> {
        let parts = || {
            let all = members.iter().zip(ranges).enumerate();
            all.filter(|(_, (_, range))| !range.is_empty())
        };
        parts().nth(1)?;
        let all: DeviceSet = parts().map(|(_, (member, _))| member.device.id).collect();
        let mut together = Candidate::default();
        let mut estimates = SmallVec::new();
        for (at, (member, range)) in parts() {
            let beside = all.without(member.device.id);
            let estimate = self.part(member, range, beside).ok()?;
            self.add(&mut together, &estimate, range);
            estimates.push((at, estimate));
        }
        Some((together, estimates))
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
        let mut unusable = self.input.unusable.iter();
        match unusable.find(|(id, _)| *id == device.id) {
            Some((_, reason)) => Err(RuledOut::Unusable(Arc::clone(reason))),
            None => Load::new(self.request, self.machine, device, range),
        }
    }

    /// Adds a part, which runs at the same time as the others, to a candidate.
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
