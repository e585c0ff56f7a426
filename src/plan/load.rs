//! The load that a range of items puts on one device: whether it can run there, which bytes must move first, and the work.
//! `candidates` turns it into seconds.

use super::request::{Operand, Request};
use super::ruled_out::{RuledOut, Streaming};
use super::tiling::{Capacity, Requirement, TiledPart, Tiling};
use crate::array::RangeSet;
use crate::cost::prior::Demand;
use crate::cost::{DeviceModel, Machine};
use crate::device::DeviceId;
use crate::device::DeviceSet;
use crate::kernel::Role;
use smallvec::SmallVec;
use std::ops::Range;

/// The load of a part on a device.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub demand: Demand,
    /// Dispatches; more than 1 if one cannot bind the whole part, or if it streams.
    pub dispatches: u64,
    /// Bytes of its inputs that are not on the device.
    pub missing_bytes: f64,
    /// Seconds to move the missing bytes from the host to the device.
    pub upload: f64,
    /// Seconds to move to the host what neither the device nor the host holds, and what streaming evicts.
    pub download: f64,
    /// Seconds of both that do not depend on the number of items.
    pub fixed: f64,
    /// Seconds to move to the host, after the run, what the caller is expected to read.
    pub read_back: f64,
    /// Seconds of these that do not depend on the number of items.
    pub read_back_fixed: f64,
    /// The devices that must send data to the host first.
    pub holders: DeviceSet,
    /// Its size for the learner: log2 of the sum of its operations, bytes and items.
    pub size: f64,
    /// How it streams through the device's memory, if its arrays do not fit.
    pub streams: Option<Streaming>,
}

impl Load {
    /// The load of the items of `range`, which must not be empty, on `device`.
    pub fn new(
        request: &Request<'_>,
        machine: &Machine,
        device: &DeviceModel,
        range: &Range<usize>,
    ) -> Result<Self, RuledOut> {
        let on_cpu = device.id == DeviceId::Cpu;
        let implemented = if on_cpu {
            request.has_cpu
        } else {
            request.has_gpu
        };
        if !implemented {
            return Err(RuledOut::NoImplementation);
        }
        check_bindings(request, device)?;
        let mut load = Self::default();
        let mut moves = Moves::default();
        let mut bindable = BindableItems::new(device);
        let (mut bytes_of_all, mut bytes_of_whole) = (0, 0);
        for (array, operand) in request.operands.iter().enumerate() {
            let elements = operand.role.elements(range, request.items, operand.len);
            let bytes = operand.bytes(&elements);
            bytes_of_all = u64::saturating_add(bytes_of_all, bytes);
            let whole = matches!(operand.role, Role::Whole | Role::WholeWindowed);
            if whole {
                bytes_of_whole = u64::saturating_add(bytes_of_whole, bytes);
            }
            let limit = device.limits.max_buffer_bytes.unwrap_or(u64::MAX);
            if operand.role == Role::Whole && bytes > limit {
                return Err(RuledOut::Buffer {
                    array,
                    bytes,
                    limit,
                });
            }
            bindable.add(array, operand);
            if operand.access.writes() {
                load.add_read_back(operand, bytes, device);
            }
            if operand.access.reads() {
                moves.add(operand, device.id, elements, whole);
            }
        }
        load.dispatches = bindable.dispatches(request, range)?;
        let limits = &device.limits;
        if limits.budget_bytes.is_some() {
            load.stream(request, device, range, &mut moves)?;
        } else if let Some(limit) = limits.memory_bytes.filter(|limit| bytes_of_all > *limit) {
            return Err(RuledOut::Memory {
                bytes: bytes_of_all,
                limit,
            });
        }
        load.add_moves(&moves, machine, device);
        let share = range.len() as f64 / request.items as f64;
        load.demand = Demand {
            flops: sane(request.work.flops) * share,
            // The work counts an array that every part reads whole once; the traffic counts it for each part.
            traffic_bytes: sane(request.work.bytes()) * share
                + bytes_of_whole as f64 * (1.0 - share),
            footprint_bytes: bytes_of_all as f64,
        };
        load.size = size(request, range.len());
        Ok(load)
    }

    /// Cuts the part into tiles that fit and, if there are several, adds the transfers of streaming: reads beyond the
    /// memory move to the device, wherever they were before; arrays read in windows move again for each tile; writes
    /// beyond the memory move to the host.
    fn stream(
        &mut self,
        request: &Request<'_>,
        device: &DeviceModel,
        range: &Range<usize>,
        moves: &mut Moves,
    ) -> Result<(), RuledOut> {
        let memory = device.limits.budget_bytes.unwrap_or(u64::MAX);
        let operands = &request.operands;
        // Most calls need far less than the memory, and planning them must stay quick.
        let all = operands.iter().map(|o| o.bytes(&(0..o.len)));
        if all.fold(0, u64::saturating_add) <= memory / 2 {
            return Ok(());
        }
        let part = TiledPart {
            items: range.len(),
            border_grain: request.border_grain,
            bindable_items: range.len().div_ceil(self.dispatches as usize),
        };
        let max_buffer = device.limits.max_buffer_bytes.unwrap_or(u64::MAX);
        let capacity = Capacity {
            arrays: memory,
            buffer: max_buffer.min(memory),
            binding: device.limits.max_binding_bytes.unwrap_or(u64::MAX),
        };
        let arrays = operands.iter().map(Operand::requirement);
        let tiling =
            Tiling::new(arrays, part, &capacity).map_err(|bytes| RuledOut::SmallestTile {
                bytes,
                limit: memory,
            })?;
        let tiles = range.len().div_ceil(tiling.items.min(range.len())) as u64;
        let is_held = |operand: &Operand| operand.requirement().is_held_whole(&tiling);
        if tiling.whole || (tiles <= self.dispatches && operands.iter().all(is_held)) {
            return Ok(());
        }
        let (mut read, mut again, mut written, mut all) = (0u64, 0u64, 0, 0);
        for operand in operands {
            let bytes = operand.bytes(&operand.role.elements(range, request.items, operand.len));
            all = u64::saturating_add(all, bytes);
            if operand.access.reads() {
                let times = if is_held(operand) { 0 } else { tiles - 1 };
                again = again.saturating_add(bytes.saturating_mul(times));
                read = read.saturating_add(bytes);
            }
            if operand.access.writes() {
                written = u64::saturating_add(written, bytes);
            }
        }
        moves.missing = moves.missing.max(read.saturating_sub(memory) as f64) + again as f64;
        let evicted = written.saturating_sub(memory) as f64;
        if let Some(link) = device.download.as_ref().filter(|_| evicted > 0.0) {
            let line = link.line(evicted);
            self.download += line.fixed + line.per_byte * evicted;
            // The host already has the evicted bytes.
            self.read_back *= 1.0 - evicted / written as f64;
        }
        self.dispatches = self.dispatches.max(tiles);
        self.streams = Some(Streaming {
            tiles,
            bytes: all,
            memory,
        });
        Ok(())
    }

    fn add_read_back(&mut self, operand: &Operand, bytes: u64, device: &DeviceModel) {
        let bytes = bytes as f64 * operand.read_back.clamp(0.0, 1.0);
        if let Some(link) = device.download.as_ref().filter(|_| bytes > 0.0) {
            let line = link.line(bytes);
            self.read_back += line.fixed + line.per_byte * bytes;
            self.read_back_fixed += line.fixed;
        }
    }

    fn add_moves(&mut self, moves: &Moves, machine: &Machine, device: &DeviceModel) {
        self.missing_bytes = moves.missing;
        if let Some(link) = device.upload.as_ref().filter(|_| moves.missing > 0.0) {
            let line = link.line(moves.missing);
            self.upload = line.fixed + line.per_byte * moves.missing;
            self.fixed = line.fixed + line.per_byte * moves.missing_whole;
        }
        for (holder, bytes) in &moves.fetched {
            self.holders = self.holders.with(*holder);
            let holder = machine.device(*holder);
            if let Some(link) = holder.and_then(|holder| holder.download.as_ref()) {
                let line = link.line(*bytes);
                self.download += line.fixed + line.per_byte * bytes;
                self.fixed += line.fixed;
            }
        }
    }
}

/// The size of this many of the request's items for the learner: log2 of the sum of their operations, bytes and number.
pub(super) fn size(request: &Request<'_>, items: usize) -> f64 {
    let share = items as f64 / request.items.max(1) as f64;
    let work = sane(request.work.flops) + sane(request.work.bytes());
    quick_log2((work * share + items as f64).max(1.0))
}

/// log2 to within 0.01, continuous and rising. Sizes need no more precision, and a plan computes many.
fn quick_log2(x: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    const BIAS: i64 = 1023;
    let bits = x.to_bits();
    let exponent = (bits >> MANTISSA_BITS) as i64 - BIAS;
    let fraction = f64::from_bits(bits & ((1 << MANTISSA_BITS) - 1) | 1f64.to_bits()) - 1.0;
    exponent as f64 + fraction + 0.344 * fraction * (1.0 - fraction)
}

/// Rules a device out if one dispatch cannot bind the arrays or the uniform.
fn check_bindings(request: &Request<'_>, device: &DeviceModel) -> Result<(), RuledOut> {
    let (limits, count) = (&device.limits, request.operands.len());
    if let Some(limit) = limits.max_arrays.filter(|limit| count > *limit as usize) {
        return Err(RuledOut::Arrays { count, limit });
    }
    let bytes = request.uniform_bytes as u64;
    match limits.max_uniform_bytes.filter(|limit| bytes > *limit) {
        Some(limit) => Err(RuledOut::Uniform { bytes, limit }),
        None => Ok(()),
    }
}

/// The most items that one dispatch can bind.
struct BindableItems {
    max_binding_bytes: Option<u64>,
    items: usize,
    /// The array that sets the limit.
    array: usize,
}

impl BindableItems {
    fn new(device: &DeviceModel) -> Self {
        Self {
            max_binding_bytes: device.limits.max_binding_bytes,
            items: usize::MAX,
            array: 0,
        }
    }

    fn add(&mut self, array: usize, operand: &Operand) {
        let Some(limit) = self.max_binding_bytes else {
            return;
        };
        let items = operand
            .role
            .bindable_items(operand.len, operand.element_bytes, limit);
        if items < self.items {
            (self.items, self.array) = (items, array);
        }
    }

    /// The dispatches that a range takes.
    fn dispatches(&self, request: &Request<'_>, range: &Range<usize>) -> Result<u64, RuledOut> {
        if self.items >= request.items {
            return Ok(1);
        }
        let items = self.items / request.border_grain * request.border_grain;
        if items > 0 {
            return Ok(range.len().div_ceil(items) as u64);
        }
        let operand = &request.operands[self.array];
        let least = 0..request.border_grain.min(request.items);
        Err(RuledOut::Binding {
            array: self.array,
            bytes: operand.bytes(&operand.role.elements(&least, request.items, operand.len)),
            limit: self.max_binding_bytes.unwrap_or(u64::MAX),
        })
    }
}

/// The bytes that must move before a part can run.
#[derive(Default)]
struct Moves {
    missing: f64,
    /// Of these, bytes of arrays that every part reads whole.
    missing_whole: f64,
    /// Bytes that the host lacks, by the device that holds them.
    fetched: SmallVec<[(DeviceId, f64); 2]>,
}

impl Moves {
    fn add(&mut self, operand: &Operand, device: DeviceId, wanted: Range<usize>, whole: bool) {
        let mut missing = 0;
        let host = operand.valid_on(DeviceId::Cpu);
        for_gaps(operand.valid_on(device), wanted, |gap| {
            missing += gap.len();
            // Transfers between devices go through the host.
            for_gaps(host, gap, |gap| self.fetch(operand, &gap));
        });
        let bytes = (missing * operand.element_bytes) as f64;
        self.missing += bytes;
        if whole {
            self.missing_whole += bytes;
        }
    }

    /// Adds what devices must send to the host, which lacks `gap`.
    fn fetch(&mut self, operand: &Operand, gap: &Range<usize>) {
        let mut left = gap.len();
        for (holder, valid) in &operand.residency {
            let has = valid
                .overlap(gap.clone())
                .map(|r| r.len())
                .sum::<usize>()
                .min(left);
            left -= has;
            let bytes = (has * operand.element_bytes) as f64;
            match self.fetched.iter_mut().find(|(known, _)| known == holder) {
                Some((_, sum)) => *sum += bytes,
                None if has > 0 => self.fetched.push((*holder, bytes)),
                None => {}
            }
        }
    }
}

impl Operand {
    fn bytes(&self, elements: &Range<usize>) -> u64 {
        elements.len() as u64 * self.element_bytes as u64
    }

    fn requirement(&self) -> Requirement {
        Requirement {
            role: self.role,
            len: self.len,
            element_bytes: self.element_bytes,
        }
    }

    fn valid_on(&self, device: DeviceId) -> Option<&RangeSet> {
        self.residency
            .iter()
            .find(|(place, _)| *place == device)
            .map(|(_, valid)| valid)
    }
}

/// Calls `visit` for the parts of `wanted` that are not in `valid`.
fn for_gaps(valid: Option<&RangeSet>, wanted: Range<usize>, mut visit: impl FnMut(Range<usize>)) {
    match valid {
        Some(valid) if valid.contains(&wanted) => {}
        Some(valid) => valid.missing(wanted).for_each(visit),
        None if wanted.is_empty() => {}
        None => visit(wanted),
    }
}

/// A kernel's work as a finite number that is not negative. A user's kernel may claim anything, even NaN.
fn sane(quantity: f64) -> f64 {
    if quantity > 0.0 {
        quantity.min(1e30)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_quick_logarithm_is_close_and_rises(x in 1.0f64..1e30, factor in 1.0001f64..4.0) {
            prop_assert!((quick_log2(x) - x.log2()).abs() < 0.01);
            prop_assert!(quick_log2(x * factor) > quick_log2(x));
        }
    }
}
