//! The ways in which a call could run, what each is predicted to cost, and the choice among them.
//!
//! The one place where a prediction is made: plans and explanations both come from [`consider`], so that an
//! explanation cannot tell another story than the plan. Pure, like the planner it belongs to.

use super::placement::Placement;
use super::plan::{Operand, Plan, PlannedPart, Policy, Request};
use super::split::{self, Line};
use crate::array::RangeSet;
use crate::cost::prior::{self, Demand, Prediction};
use crate::cost::{DeviceKind, DeviceModel, Engine, Machine};
use crate::device::DeviceId;
use crate::error::{Error, Result};
use crate::kernel::Role;
use smallvec::{SmallVec, smallvec};
use std::fmt;
use std::ops::Range;

/// How much [`consider`] finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// Only what the choice depends on.
    Choice,
    /// Also what it does not depend on, for explanations.
    Everything,
}

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
#[derive(Debug, Default)]
pub(super) struct Candidate {
    pub plan: Plan,
    /// Bytes of its inputs that must move before it can compute.
    pub missing_bytes: f64,
    /// Whether it may be chosen. A software adapter is shown, but not chosen.
    pub eligible: bool,
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

/// Why a device cannot, or may not, run a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RuledOut {
    NoImplementation,
    Binding {
        array: usize,
        bytes: u64,
        limit: u64,
    },
    Buffer {
        array: usize,
        bytes: u64,
        limit: u64,
    },
    Memory {
        bytes: u64,
        limit: u64,
    },
    Software,
}

impl fmt::Display for RuledOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoImplementation => f.write_str("the kernel has no implementation for it"),
            Self::Binding { array, bytes, limit } => write!(
                f,
                "array {array} must be bound in pieces of at least {bytes} bytes; the adapter binds at most {limit}"
            ),
            Self::Buffer { array, bytes, limit } => write!(
                f,
                "array {array} needs one buffer of {bytes} bytes; the adapter allows at most {limit}"
            ),
            Self::Memory { bytes, limit } => {
                write!(f, "the arrays need {bytes} bytes; it has {limit}")
            }
            Self::Software => f.write_str(
                "a software adapter computes on the CPU's cores, and is not known to be faster than they are",
            ),
        }
    }
}

/// Finds the candidates that `placement` allows and chooses among them.
pub(super) fn consider(
    request: &Request<'_>,
    machine: &Machine,
    placement: &Placement,
    policy: &Policy,
    depth: Depth,
) -> Result<Considered> {
    let planner = Planner {
        request,
        machine,
        policy,
    };
    let asked = match placement {
        Placement::Auto => return planner.auto(depth),
        Placement::Cpu => planner.forced(&[(DeviceId::Cpu, 1.0)])?,
        Placement::Gpu(index) => planner.forced(&[(DeviceId::Gpu(*index), 1.0)])?,
        Placement::Split(shares) => {
            placement.check()?;
            planner.forced(shares)?
        }
    };
    let mut considered = match depth {
        Depth::Choice => Considered::default(),
        // The others are only shown for comparison, so it is no error if there is none.
        Depth::Everything => planner.auto(depth).unwrap_or_default(),
    };
    considered.why = if request.items == 0 {
        Why::NothingToDo
    } else {
        Why::Asked
    };
    let same = considered
        .candidates
        .iter()
        .position(|candidate| candidate.plan == asked.plan);
    considered.choice = same.unwrap_or_else(|| {
        considered.candidates.push(asked);
        considered.candidates.len() - 1
    });
    Ok(considered)
}

struct Planner<'a> {
    request: &'a Request<'a>,
    machine: &'a Machine,
    policy: &'a Policy,
}

/// A part as one device would run it.
struct Estimate {
    part: PlannedPart,
    missing_bytes: f64,
    /// The seconds that do not depend on how many items it has.
    overhead: f64,
}

/// A device that could take part in a split.
struct Member<'a> {
    device: &'a DeviceModel,
    line: Line,
}

impl Planner<'_> {
    /// Every device alone, and all that may share, and the best of these.
    fn auto(&self, depth: Depth) -> Result<Considered> {
        let mut found = Considered::default();
        if self.request.items == 0 {
            found.candidates.push(Candidate::default());
            return Ok(found);
        }
        let all = 0..self.request.items;
        let cpu_can = self.request.has_cpu && self.machine.device(DeviceId::Cpu).is_some();
        // The CPU comes last in a split, as in `split:F`, so that calls agree on who holds which end of the data.
        let of_cpu = |device: &&DeviceModel| device.id == DeviceId::Cpu;
        let devices = &self.machine.devices;
        let ordered = || {
            devices
                .iter()
                .filter(|d| !of_cpu(d))
                .chain(devices.iter().filter(of_cpu))
        };
        for device in ordered() {
            let ruled_out = self.rule_out(device, &all).or_else(|| {
                (device.kind == DeviceKind::Software && cpu_can).then_some(RuledOut::Software)
            });
            if let Some(reason) = ruled_out {
                found.ruled_out.push((device.id, reason));
            }
            let eligible = ruled_out.is_none();
            let shown =
                eligible || (depth == Depth::Everything && ruled_out == Some(RuledOut::Software));
            if shown {
                for engine in &device.engines {
                    let estimate = self.estimate(device, engine, &all);
                    found.candidates.push(Candidate::alone(estimate, eligible));
                }
            }
        }
        let alone = found.choose_alone(self.policy);
        let limit = alone
            .map(|fastest| (1.0 - self.policy.split_gain) * found.candidates[fastest].seconds());
        let worth = if depth == Depth::Everything {
            None
        } else {
            limit
        };
        if let Some(split) = self.split(ordered(), worth) {
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
            return Err(self.infeasible(found.ruled_out));
        }
        Ok(found)
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
        let ranges = split::ranges(
            self.request.items,
            split::border(self.request.grain),
            &fractions,
        );
        let parts = || {
            devices
                .iter()
                .copied()
                .zip(&ranges)
                .filter(|(_, range)| !range.is_empty())
        };
        let ruled_out: SmallVec<[_; 2]> = parts()
            .filter_map(|(device, range)| Some((device.id, self.rule_out(device, range)?)))
            .collect();
        if !ruled_out.is_empty() {
            return Err(self.infeasible(ruled_out));
        }
        Ok(Candidate::together(
            parts().map(|(device, range)| self.fastest(device, range)),
            self.policy,
        ))
    }

    /// The split over those of the devices that may share in which they finish together, if there are at least two
    /// and it takes less than `worth` seconds.
    fn split<'m>(
        &self,
        devices: impl Iterator<Item = &'m DeviceModel>,
        worth: Option<f64>,
    ) -> Option<Candidate> {
        let border = split::border(self.request.grain);
        let sharing: SmallVec<[&DeviceModel; 8]> = devices
            .filter(|device| self.may_share(device, border))
            .collect();
        if sharing.len() < 2 {
            return None;
        }
        let all = 0..self.request.items;
        let mut members: SmallVec<[Member; 8]> = sharing
            .iter()
            .map(|device| Member {
                device,
                line: self.fastest(device, &all).line(),
            })
            .collect();
        let least_per_item = members
            .iter()
            .map(|m| m.line.per_item)
            .fold(f64::INFINITY, f64::min);
        members.retain(|m| m.line.per_item <= self.policy.split_speed_ratio * least_per_item);
        let mut best: Option<Candidate> = None;
        // The lines are drawn through what each device takes for all items. Its speed at its own part may be another,
        // because that fits a cache or is partly there already, so the second round draws them through that.
        for _ in 0..2 {
            let lines: SmallVec<[Line; 8]> = members.iter().map(|m| m.line).collect();
            if members.len() < 2 {
                break;
            }
            let shares = split::equal_finish(self.request.items, border, &lines);
            let ranges = split::ranges(self.request.items, border, &shares);
            let mut estimates = SmallVec::<[Estimate; 2]>::new();
            for (member, range) in members
                .iter_mut()
                .zip(&ranges)
                .filter(|(_, range)| !range.is_empty())
            {
                if self.rule_out(member.device, range).is_some() {
                    return best;
                }
                let estimate = self.fastest(member.device, range);
                member.line = estimate.line();
                estimates.push(estimate);
            }
            if estimates.len() < 2 {
                break;
            }
            let candidate = Candidate::together(estimates, self.policy);
            if best
                .as_ref()
                .is_none_or(|best| candidate.seconds() < best.seconds())
            {
                best = Some(candidate);
            }
        }
        best.filter(|best| worth.is_none_or(|worth| best.seconds() < worth))
    }

    /// Whether a device can run a part of the least size, though perhaps not the whole, beside others.
    fn may_share(&self, device: &DeviceModel, border: usize) -> bool {
        let least = 0..border.min(self.request.items);
        device.kind != DeviceKind::Software && self.rule_out(device, &least).is_none()
    }

    /// The part run on the engine of the device that is fastest for it.
    fn fastest(&self, device: &DeviceModel, range: &Range<usize>) -> Estimate {
        device
            .engines
            .iter()
            .map(|engine| self.estimate(device, engine, range))
            .min_by(|a, b| a.seconds().total_cmp(&b.seconds()))
            .expect("a device model has at least one engine")
    }

    /// What a part would take on one engine of a device.
    fn estimate(&self, device: &DeviceModel, engine: &Engine, range: &Range<usize>) -> Estimate {
        let compute = prior::compute_seconds(engine, &self.demand(range));
        let further_dispatches = self.dispatches(device, range).saturating_sub(1) as f64;
        let launch = engine.launch_seconds + further_dispatches * device.queued_seconds;
        let moves = self.moves(device, range);
        let returned = device
            .download
            .map_or(0.0, |link| link.seconds(self.request.returned_bytes as f64));
        let predicted = Prediction {
            launch,
            upload: moves.upload,
            compute,
            download: moves.download + returned,
        };
        Estimate {
            part: PlannedPart {
                device: device.id,
                range: range.clone(),
                threads: engine.threads,
                predicted,
            },
            missing_bytes: moves.bytes,
            overhead: engine.launch_seconds + moves.fixed + returned,
        }
    }

    /// What a part costs in the abstract.
    fn demand(&self, range: &Range<usize>) -> Demand {
        let share = range.len() as f64 / self.request.items as f64;
        let (mut footprint, mut whole) = (0.0, 0.0);
        for operand in &self.request.operands {
            let bytes = operand.bytes(range, self.request.items);
            footprint += bytes;
            if operand.is_whole() {
                whole += bytes;
            }
        }
        let work = self.request.work;
        Demand {
            flops: sane(work.flops) * share,
            // An array that every part reads whole is in the work once, but in the traffic of each part.
            traffic_bytes: sane(work.bytes()) * share + whole * (1.0 - share),
            footprint_bytes: footprint,
        }
    }

    /// Dispatches that a part takes on a device because one cannot bind all of it.
    fn dispatches(&self, device: &DeviceModel, range: &Range<usize>) -> u64 {
        let Some(limit) = device.limits.max_binding_bytes else {
            return 1;
        };
        let pieces = self
            .request
            .operands
            .iter()
            .filter(|operand| !operand.is_whole())
            .map(|operand| {
                (operand.bytes(range, self.request.items) as u64).div_ceil(limit.max(1))
            });
        pieces.max().unwrap_or(1).max(1)
    }

    /// What moving the inputs of a part to a device takes.
    fn moves(&self, device: &DeviceModel, range: &Range<usize>) -> Moves {
        let mut moves = Moves::default();
        let mut fetched = SmallVec::<[(DeviceId, f64); 2]>::new();
        let (mut uploaded, mut uploaded_whole) = (0.0, 0.0);
        for operand in self
            .request
            .operands
            .iter()
            .filter(|operand| operand.access.reads())
        {
            let wanted = operand.elements(range, self.request.items);
            let there = operand.valid_on(device.id);
            if there.is_some_and(|there| there.contains(&wanted)) {
                continue;
            }
            let mut missing = 0;
            for gap in gaps(there, wanted) {
                missing += gap.len();
                // What is not on the host either is fetched from the devices that have it.
                for gap in gaps(operand.valid_on(DeviceId::Cpu), gap) {
                    let mut left = gap.len();
                    for (holder, valid) in &operand.residency {
                        let has = valid
                            .overlap(gap.clone())
                            .map(|r| r.len())
                            .sum::<usize>()
                            .min(left);
                        left -= has;
                        add(&mut fetched, *holder, (has * operand.element_bytes) as f64);
                    }
                }
            }
            let bytes = (missing * operand.element_bytes) as f64;
            moves.bytes += bytes;
            if device.id != DeviceId::Cpu {
                uploaded += bytes;
                uploaded_whole += if operand.is_whole() { bytes } else { 0.0 };
            }
        }
        if let Some(link) = device.upload {
            moves.upload = link.seconds(uploaded);
            moves.fixed = moves.upload - (uploaded - uploaded_whole) / link.bytes_per_second;
        }
        for (holder, bytes) in fetched {
            if let Some(link) = self
                .machine
                .device(holder)
                .and_then(|holder| holder.download)
            {
                moves.download += link.seconds(bytes);
                moves.fixed += link.seconds(bytes).min(link.latency_seconds);
            }
        }
        moves
    }

    /// Why a device cannot run a part, if it cannot.
    fn rule_out(&self, device: &DeviceModel, range: &Range<usize>) -> Option<RuledOut> {
        let implemented = if device.id == DeviceId::Cpu {
            self.request.has_cpu
        } else {
            self.request.has_gpu
        };
        if !implemented {
            return Some(RuledOut::NoImplementation);
        }
        let limits = &device.limits;
        let piece = range.start
            ..range
                .end
                .min(range.start + split::border(self.request.grain));
        let mut total = 0;
        for (array, operand) in self.request.operands.iter().enumerate() {
            let bytes = operand.bytes(range, self.request.items) as u64;
            total += bytes;
            if operand.role == Role::WholeWindowed {
                continue;
            }
            let bound = operand.bytes(&piece, self.request.items) as u64;
            if let Some(limit) = limits.max_binding_bytes.filter(|limit| bound > *limit) {
                return Some(RuledOut::Binding {
                    array,
                    bytes: bound,
                    limit,
                });
            }
            if operand.role == Role::Whole
                && let Some(limit) = limits.max_buffer_bytes.filter(|limit| bytes > *limit)
            {
                return Some(RuledOut::Buffer {
                    array,
                    bytes,
                    limit,
                });
            }
        }
        let limit = limits.memory_bytes.filter(|limit| total > *limit)?;
        Some(RuledOut::Memory {
            bytes: total,
            limit,
        })
    }

    fn infeasible(&self, ruled_out: impl IntoIterator<Item = (DeviceId, RuledOut)>) -> Error {
        let mut reasons: Vec<String> = ruled_out
            .into_iter()
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

/// What moving the inputs of a part takes.
#[derive(Default)]
struct Moves {
    upload: f64,
    download: f64,
    bytes: f64,
    /// The seconds of both that do not depend on how many items the part has.
    fixed: f64,
}

/// The parts of `wanted` that are not in `valid`.
fn gaps(valid: Option<&RangeSet>, wanted: Range<usize>) -> SmallVec<[Range<usize>; 2]> {
    match valid {
        Some(valid) => valid.missing(wanted).collect(),
        None if wanted.is_empty() => SmallVec::new(),
        None => smallvec![wanted],
    }
}

fn add(sums: &mut SmallVec<[(DeviceId, f64); 2]>, device: DeviceId, bytes: f64) {
    match sums.iter_mut().find(|(at, _)| *at == device) {
        Some((_, sum)) => *sum += bytes,
        None => sums.push((device, bytes)),
    }
}

/// A user's kernel may claim any work; a plan must not become NaN by it.
fn sane(quantity: f64) -> f64 {
    quantity.max(0.0).min(1e30)
}

impl Operand {
    fn elements(&self, items: &Range<usize>, all_items: usize) -> Range<usize> {
        self.role.elements(items, all_items, self.len)
    }

    fn bytes(&self, items: &Range<usize>, all_items: usize) -> f64 {
        self.elements(items, all_items).len() as f64 * self.element_bytes as f64
    }

    fn valid_on(&self, device: DeviceId) -> Option<&RangeSet> {
        self.residency
            .iter()
            .find(|(at, _)| *at == device)
            .map(|(_, valid)| valid)
    }

    fn is_whole(&self) -> bool {
        matches!(self.role, Role::Whole | Role::WholeWindowed)
    }
}

impl Estimate {
    fn seconds(&self) -> f64 {
        self.part.predicted.seconds()
    }

    fn line(&self) -> Line {
        let items = self.part.range.len().max(1) as f64;
        // A kernel that claims no work at all still needs a line that rises.
        let per_item = ((self.seconds() - self.overhead) / items).max(1e-18);
        Line {
            overhead: self.overhead,
            per_item,
        }
    }
}

impl Candidate {
    fn alone(estimate: Estimate, eligible: bool) -> Self {
        let predicted_seconds = estimate.seconds();
        let missing_bytes = estimate.missing_bytes;
        Self {
            plan: Plan {
                parts: smallvec![estimate.part],
                predicted_seconds,
            },
            missing_bytes,
            eligible,
        }
    }

    /// Parts that run at the same time and slow each other down.
    fn together(estimates: impl IntoIterator<Item = Estimate>, policy: &Policy) -> Self {
        let mut candidate = Self {
            eligible: true,
            ..Self::default()
        };
        let mut longest = 0.0f64;
        for estimate in estimates {
            longest = longest.max(estimate.seconds());
            candidate.missing_bytes += estimate.missing_bytes;
            candidate.plan.parts.push(estimate.part);
        }
        let slowdown = if candidate.plan.parts.len() > 1 {
            policy.corun_slowdown
        } else {
            1.0
        };
        candidate.plan.predicted_seconds = slowdown * longest;
        candidate
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
