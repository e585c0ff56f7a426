//! The ways in which a call could run, what each is predicted to cost, and the choice among them.
//!
//! The one place where predictions are put together: plans and explanations both come from here, so that an
//! explanation cannot tell another story than the plan. Pure, like the planner it belongs to.

use super::load::{Load, RuledOut};
use super::placement::Placement;
use super::plan::{Plan, PlannedPart, Policy, Request};
use super::split::{self, Line};
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
}

/// A way to run a call.
#[derive(Debug)]
pub(super) struct Candidate {
    pub plan: Plan,
    /// Bytes of its inputs that must move before it can compute.
    pub missing_bytes: f64,
    /// Whether it may be chosen. A software adapter is shown, but not chosen.
    pub eligible: bool,
}

impl Default for Candidate {
    /// No parts.
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            missing_bytes: 0.0,
            eligible: true,
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
}

/// Finds the candidates that `placement` allows, chooses among them and gives the plan.
pub(super) fn choose(
    request: &Request<'_>,
    machine: &Machine,
    placement: &Placement,
    policy: &Policy,
) -> Result<Plan> {
    let planner = Planner {
        request,
        machine,
        policy,
    };
    if let Some(asked) = planner.asked(placement)? {
        return Ok(asked.plan);
    }
    let mut found = Considered::default();
    planner.auto(Depth::Choice, &mut found)?;
    Ok(found.candidates.swap_remove(found.choice).plan)
}

/// The same, with everything that a person might want to compare the choice with.
pub(super) fn consider(
    request: &Request<'_>,
    machine: &Machine,
    placement: &Placement,
    policy: &Policy,
) -> Result<Considered> {
    let planner = Planner {
        request,
        machine,
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
const FINISH_TOGETHER: f64 = 1.05;

struct Planner<'a> {
    request: &'a Request<'a>,
    machine: &'a Machine,
    policy: &'a Policy,
}

/// What a part takes on one engine of a device.
#[derive(Clone, Copy)]
struct Estimate<'a> {
    device: &'a DeviceModel,
    engine: &'a Engine,
    predicted: Prediction,
    seconds: f64,
    /// How many of the seconds do not depend on how many items it has.
    overhead: f64,
    missing_bytes: f64,
}

/// A device that could take part in a split.
struct Member<'a> {
    device: &'a DeviceModel,
    line: Line,
}

impl<'a> Planner<'a> {
    /// Every device alone, and all that may share, and the best of these.
    fn auto(&self, depth: Depth, found: &mut Considered) -> Result<()> {
        if self.request.items == 0 {
            found.candidates.push(Candidate::default());
            return Ok(());
        }
        let all = 0..self.request.items;
        let cpu_can = self.request.has_cpu && self.machine.device(DeviceId::Cpu).is_some();
        let mut members = SmallVec::<[Member; 8]>::new();
        // The CPU comes last in a split, as in `split:F`, so that calls agree on who holds which end of the data.
        let of_cpu = |device: &&DeviceModel| device.id == DeviceId::Cpu;
        let devices = &self.machine.devices;
        for device in devices
            .iter()
            .filter(|d| !of_cpu(d))
            .chain(devices.iter().filter(of_cpu))
        {
            let software = device.kind == DeviceKind::Software;
            let eligible = !software || !cpu_can;
            let load = match self.load(device, &all) {
                Ok(load) => load,
                Err(reason) => {
                    found.ruled_out.push((device.id, reason));
                    members.extend(self.member_for_a_part(device).filter(|_| !software));
                    continue;
                }
            };
            if !eligible {
                found.ruled_out.push((device.id, RuledOut::Software));
                if depth == Depth::Choice {
                    continue;
                }
            }
            for estimate in self.estimates(device, &load) {
                found.candidates.push(Candidate {
                    eligible,
                    ..Candidate::of(&estimate, &all)
                });
            }
            if !software {
                members.push(Member {
                    device,
                    line: self.fastest_engine(device, &load).line(all.len()),
                });
            }
        }
        let alone = found.choose_alone(self.policy);
        let limit = alone
            .map(|fastest| (1.0 - self.policy.split_gain) * found.candidates[fastest].seconds());
        let worth = limit.filter(|_| depth == Depth::Choice);
        if let Some(split) = self.split(members, worth) {
            if limit.is_none_or(|limit| split.seconds() < limit) {
                found.choice = found.candidates.len();
                found.why = if alone.is_some() {
                    Why::Fastest
                } else {
                    Why::OnlyOne
                };
            } else if found.why == Why::Fastest
                && split.seconds() < found.candidates[found.choice].seconds()
            {
                found.why = Why::SplitSavesLittle;
            }
            found.candidates.push(split);
        }
        if found.candidates.is_empty() {
            return Err(self.infeasible(&found.ruled_out));
        }
        Ok(())
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
        let mut together = Candidate::default();
        let mut ruled_out = SmallVec::<[(DeviceId, RuledOut); 2]>::new();
        for (device, range) in devices
            .into_iter()
            .zip(&ranges)
            .filter(|(_, range)| !range.is_empty())
        {
            match self.fastest(device, range) {
                Ok(estimate) => together.add(&estimate, range),
                Err(reason) => ruled_out.push((device.id, reason)),
            }
        }
        if !ruled_out.is_empty() {
            return Err(self.infeasible(&ruled_out));
        }
        Ok(together.slowed_down(self.policy))
    }

    /// The split over the members in which they finish together, if at least two get a part and it takes less than
    /// `worth` seconds.
    fn split(
        &self,
        mut members: SmallVec<[Member<'_>; 8]>,
        worth: Option<f64>,
    ) -> Option<Candidate> {
        let border = self.request.border_grain;
        let fastest = members
            .iter()
            .map(|m| m.line.per_item)
            .fold(f64::INFINITY, f64::min);
        members.retain(|m| m.line.per_item <= self.policy.split_speed_ratio * fastest);
        let mut best: Option<Candidate> = None;
        // The lines are drawn through what each device takes for all items. Its speed at its own part may be another,
        // because that fits a cache or is partly there already; a second round draws them through that.
        for _ in 0..2 {
            if members.len() < 2 {
                break;
            }
            let lines: SmallVec<[Line; 8]> = members.iter().map(|m| m.line).collect();
            let shares = split::equal_finish(self.request.items, border, &lines);
            let ranges = split::ranges(self.request.items, border, &shares);
            if ranges.iter().filter(|range| !range.is_empty()).count() < 2 {
                break;
            }
            let mut together = Candidate::default();
            let mut first_finish = f64::INFINITY;
            for (member, range) in members
                .iter_mut()
                .zip(&ranges)
                .filter(|(_, range)| !range.is_empty())
            {
                let Ok(estimate) = self.fastest(member.device, range) else {
                    return best;
                };
                member.line = estimate.line(range.len());
                first_finish = first_finish.min(estimate.seconds);
                together.add(&estimate, range);
            }
            let balanced = together.seconds() <= FINISH_TOGETHER * first_finish;
            let together = together.slowed_down(self.policy);
            if best
                .as_ref()
                .is_none_or(|best| together.seconds() < best.seconds())
            {
                best = Some(together);
            }
            // However the items are shared anew, nobody finishes before who is first now.
            let hopeless =
                worth.is_some_and(|worth| self.policy.corun_slowdown * first_finish >= worth);
            if balanced || hopeless {
                break;
            }
        }
        best.filter(|best| worth.is_none_or(|worth| best.seconds() < worth))
    }

    /// A device that cannot run the whole, as a member that may run a part.
    fn member_for_a_part(&self, device: &'a DeviceModel) -> Option<Member<'a>> {
        let least = 0..self.request.border_grain.min(self.request.items);
        let estimate = self.fastest(device, &least).ok()?;
        Some(Member {
            device,
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
    ) -> Result<Estimate<'m>, RuledOut> {
        Ok(self.fastest_engine(device, &self.load(device, range)?))
    }

    fn fastest_engine<'m>(&self, device: &'m DeviceModel, load: &Load) -> Estimate<'m> {
        self.estimates(device, load)
            .reduce(|best, next| {
                if next.seconds < best.seconds {
                    next
                } else {
                    best
                }
            })
            .expect("a device model has at least one engine")
    }

    /// What a part takes on each engine of a device.
    fn estimates<'m>(
        &self,
        device: &'m DeviceModel,
        load: &Load,
    ) -> impl Iterator<Item = Estimate<'m>> {
        let further_dispatches = (load.dispatches - 1) as f64 * device.queued_seconds;
        let returned_bytes = self.request.returned_bytes as f64;
        let download = device.download.as_ref().filter(|_| returned_bytes > 0.0);
        device.engines.iter().map(move |engine| {
            // A value comes back with the submission that computes it, whose wait is in the launch already.
            let returned = download.map_or(0.0, |link| {
                let line = link.line(returned_bytes);
                let more = (line.fixed - engine.launch_seconds).max(0.0);
                more + returned_bytes * line.per_byte
            });
            let predicted = Prediction {
                launch: engine.launch_seconds + further_dispatches,
                upload: load.upload,
                compute: prior::compute_seconds(engine, &load.demand),
                download: load.download + returned,
            };
            Estimate {
                device,
                engine,
                predicted,
                seconds: predicted.seconds(),
                overhead: engine.launch_seconds + load.fixed + returned,
                missing_bytes: load.missing_bytes,
            }
        })
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
            kernel: self.request.kernel.into(),
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
    fn of(estimate: &Estimate<'_>, range: &Range<usize>) -> Self {
        let mut alone = Self::default();
        alone.add(estimate, range);
        alone
    }

    /// Adds a part that runs at the same time as the others.
    fn add(&mut self, estimate: &Estimate<'_>, range: &Range<usize>) {
        self.plan.parts.push(PlannedPart {
            device: estimate.device.id,
            range: range.clone(),
            threads: estimate.engine.threads,
            predicted: estimate.predicted,
        });
        self.plan.predicted_seconds = self.plan.predicted_seconds.max(estimate.seconds);
        self.missing_bytes += estimate.missing_bytes;
    }

    /// The same, if there are several parts, with what it costs that they run at the same time.
    fn slowed_down(mut self, policy: &Policy) -> Self {
        if self.plan.parts.len() > 1 {
            self.plan.predicted_seconds *= policy.corun_slowdown;
        }
        self
    }

    pub fn seconds(&self) -> f64 {
        self.plan.predicted_seconds
    }
}

impl Considered {
    /// Chooses among the devices alone, and returns the fastest of them, which need not be the choice.
    fn choose_alone(&mut self, policy: &Policy) -> Option<usize> {
        let eligible = || {
            self.candidates
                .iter()
                .enumerate()
                .rev()
                .filter(|(_, c)| c.eligible)
        };
        // The CPU is last and wins ties.
        let (fastest, best) =
            eligible().min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()))?;
        let (holder, holding) = eligible().min_by(|(_, a), (_, b)| {
            a.missing_bytes
                .total_cmp(&b.missing_bytes)
                .then(a.seconds().total_cmp(&b.seconds()))
        })?;
        let moves = best.missing_bytes > holding.missing_bytes;
        let gains = best.seconds() < (1.0 - policy.hysteresis) * holding.seconds();
        (self.choice, self.why) = match (moves && !gains, eligible().nth(1).is_some()) {
            (true, _) => (holder, Why::HoldsData),
            (false, true) => (fastest, Why::Fastest),
            (false, false) => (fastest, Why::OnlyOne),
        };
        Some(fastest)
    }
}
