//! Residency: which places hold which range of an array. The places are the host and, on each GPU, one or more *extents*. An
//! extent is a device buffer that covers a range of the array.
//!
//! Nearly always a GPU holds one extent for the whole array. If the array exceeds the largest buffer of the adapter, or the
//! GPU has no room for it, there is an extent for each range that was needed. Every place has the set of elements that are
//! valid in it. This module moves missing elements, and keeps the invariant that every element is valid in at least one
//! place.
//!
//! A GPU that needs room evicts extents: elements that are valid nowhere else go to the host first. An extent with a view
//! stays.
//!
//! Host memory and device buffers are allocated at first use. Host memory that is not yet allocated counts as zeros.

mod history;
mod versions;

pub(crate) use history::{AccessSet, DeviceCopy, Rescue, VersionedRange};
pub(crate) use versions::{Segment, Version, now, tick};

use super::ElementType;
use super::host::HostBuffer;
use super::range_set::RangeSet;
use super::read_back::ReadBack;
use super::usage::Usage;
use crate::device::gpu::{
    DeviceBuffer, Evict, Evicted, ExtentId, Gpu, GpuId, Registration, Victims,
};
use crate::error::{Error, Result};
use history::History;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Extents of a part of an array begin and end at multiples of this many elements: 256 bytes, the coarsest offset
/// alignment there is.
const EXTENT_GRAIN: usize = 64;

/// Bytes that crossed between the host and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct TransferBytes {
    /// From the host to devices.
    pub to_device: u64,
    /// From devices to the host.
    pub to_host: u64,
}

impl std::ops::AddAssign for TransferBytes {
    fn add_assign(&mut self, other: Self) {
        self.to_device += other.to_device;
        self.to_host += other.to_host;
    }
}

/// The place of a range of an array on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceView {
    /// The buffer.
    pub(crate) buffer: Arc<DeviceBuffer>,
    /// The array's element at the buffer's start.
    pub(crate) first: usize,
    /// The extent of the buffer.
    pub(crate) extent: ExtentId,
}

/// A range that an extent of a device covers.
pub(crate) struct Resident {
    pub(crate) view: DeviceView,
    /// Whether all of the range is valid there.
    pub(crate) is_valid: bool,
}

/// How much of an array a new extent covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// All of it, if the adapter allows such a large buffer.
    Whole,
    /// Only the range that is needed.
    Window {
        /// The least size of the buffer in bytes, so that windows of different sizes can share it in turn.
        at_least: u64,
    },
}

/// The places of an array's elements.
pub(crate) struct Residency {
    /// The array, which GPUs ask to evict extents.
    owner: Weak<dyn Evict>,
    len: usize,
    ty: ElementType,
    host: Option<HostBuffer>,
    host_valid: RangeSet,
    extents: SmallVec<[Extent; 1]>,
    /// The elements with unspecified values: never written, or outputs of a failed call.
    undefined: RangeSet,
    /// The number of live borrows of the host memory; `EXCLUSIVE` if one is for writing.
    borrows: u32,
    moved: TransferBytes,
    read_back: ReadBack,
    /// Present once a recorded call has used the array.
    history: Option<Box<History>>,
}

/// A lost GPU that held elements.
pub(super) struct LostGpu {
    pub(super) name: String,
    /// Why it was lost.
    pub(super) reason: String,
}

/// The journal that can recover elements of lost GPUs.
pub(super) enum Rescuer {
    /// This one recorded the calls that wrote them.
    Journal(Arc<dyn Rescue>),
    /// No journal recorded those calls, or it is gone.
    None,
}

const EXCLUSIVE: u32 = u32::MAX;

/// A device buffer that covers a range of the array.
struct Extent {
    gpu: Arc<Gpu>,
    range: Range<usize>,
    /// Each view holds a second reference.
    buffer: Arc<DeviceBuffer>,
    valid: RangeSet,
    /// The journal of the calls that wrote here; none if they were not recorded.
    rescuer: Option<Weak<dyn Rescue>>,
    registration: Registration,
}

impl Extent {
    /// Whether there is a view of it.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.buffer) > 1
    }

    /// Remembers the journal of a call that writes here.
    fn remember(&mut self, rescuer: &Weak<dyn Rescue>) {
        let known = self.rescuer.as_ref();
        if !known.is_some_and(|known| known.ptr_eq(rescuer)) {
            self.rescuer = Some(Weak::clone(rescuer));
        }
    }

    fn view(&self) -> DeviceView {
        self.registration.touch();
        DeviceView {
            buffer: Arc::clone(&self.buffer),
            first: self.range.start,
            extent: self.registration.id(),
        }
    }
}

impl Residency {
    /// All elements on the host; without a buffer, they are zeros that take no memory yet.
    pub(super) fn on_host(
        owner: Weak<dyn Evict>,
        len: usize,
        ty: ElementType,
        host: Option<HostBuffer>,
    ) -> Self {
        Self {
            owner,
            len,
            ty,
            host,
            host_valid: RangeSet::from(0..len),
            extents: SmallVec::new(),
            undefined: RangeSet::new(),
            borrows: 0,
            moved: TransferBytes::default(),
            read_back: ReadBack::default(),
            history: None,
        }
    }

    /// How often the host reads what kernels write here.
    pub(crate) fn read_back(&mut self) -> &mut ReadBack {
        &mut self.read_back
    }

    /// A hash of the set of places that hold all elements; `None` if a place holds only some.
    pub(crate) fn location_key(&self) -> Option<u64> {
        let extents = self.extents.iter().map(|e| (e.gpu.id().0, &e.valid));
        let mut places = std::iter::once((u64::MAX, &self.host_valid)).chain(extents);
        places.try_fold(0, |sum: u64, (place, valid)| {
            if valid.is_empty() {
                Some(sum)
            } else if valid.contains(&(0..self.len)) {
                Some(crate::hash::mixed(sum, place))
            } else {
                None
            }
        })
    }

    /// The bytes that were moved for this array since the last call of this.
    pub(crate) fn take_moved(&mut self) -> TransferBytes {
        std::mem::take(&mut self.moved)
    }

    /// The elements that are valid on the host.
    pub(crate) fn valid_on_host(&self) -> &RangeSet {
        &self.host_valid
    }

    /// The elements with unspecified values.
    pub(crate) fn undefined(&self) -> &RangeSet {
        &self.undefined
    }

    /// Records that elements have unspecified values until they are written.
    pub(crate) fn undefine(&mut self, range: Range<usize>) {
        self.undefined.insert(range);
    }

    /// The elements that are valid on a GPU.
    pub(crate) fn valid_on(&self, gpu: GpuId) -> RangeSet {
        let mut here = self.extents.iter().filter(|e| e.gpu.id() == gpu);
        let Some(first) = here.next() else {
            return RangeSet::new();
        };
        let mut valid = first.valid.clone();
        here.flat_map(|e| e.valid.iter())
            .for_each(|r| valid.insert(r));
        valid
    }

    /// The array's start on the host. If the usage reads, `range` is made valid there; if it writes, the host becomes the
    /// only valid place. The caller must register with `borrow` afterwards.
    pub(crate) fn host_access(&mut self, range: Range<usize>, usage: Usage) -> Result<*mut u8> {
        if usage.reads && !self.host_valid.contains(&range) {
            self.fetch_to_host(range.clone())?;
        }
        if usage.writes {
            self.written_by_host(&range)?;
        }
        let start = self.host_start()?;
        if usage.writes {
            self.undefined.remove(range.clone());
            self.host_valid.insert(range.clone());
            self.extents
                .iter_mut()
                .for_each(|e| e.valid.remove(range.clone()));
        }
        Ok(start)
    }

    /// The view of `range` on a GPU, if an extent covers it.
    pub(crate) fn resident(&self, gpu: GpuId, range: &Range<usize>) -> Option<Resident> {
        let extent = &self.extents[self.covering(gpu, range)?];
        Some(Resident {
            view: extent.view(),
            is_valid: extent.valid.contains(range),
        })
    }

    /// The view of `range` on `gpu`, in a new extent if none covers it.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for a new extent. [`Handle::admit`](super::Handle::admit) makes room.
    pub(super) fn admit(
        &mut self,
        gpu: &Arc<Gpu>,
        range: &Range<usize>,
        fit: Coverage,
    ) -> Result<DeviceView> {
        let at = match self.covering(gpu.id(), range) {
            Some(at) => at,
            None => self.new_extent(gpu, range, fit)?,
        };
        Ok(self.extents[at].view())
    }

    /// Makes `range` valid in the extent of a view, in the order of the GPU's queue.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage them.
    pub(super) fn fetch_to_device(
        &mut self,
        view: &DeviceView,
        range: &Range<usize>,
    ) -> Result<()> {
        let at = self.shown_by(view)?;
        if !self.extents[at].valid.contains(range) {
            self.fetch_to_extent(at, range.clone())?;
            self.drop_superseded(at);
        }
        Ok(())
    }

    /// The position of a view's extent. An extent in use stays, so only a view of another array has none here.
    fn shown_by(&self, view: &DeviceView) -> Result<usize> {
        let shown = |extent: &Extent| extent.registration.id() == view.extent;
        let at = self.extents.iter().position(shown);
        at.ok_or_else(|| Error::argument("array access", "this is another array's view"))
    }

    /// Records that a call is about to write `range` in the extent of a view, which becomes its only valid place. `rescuer`
    /// is the journal that records the call, if one does.
    pub(crate) fn written_on_device(
        &mut self,
        view: &DeviceView,
        range: &Range<usize>,
        rescuer: Option<&Weak<dyn Rescue>>,
    ) -> Result<()> {
        if self.borrows > 0 {
            // The borrower's memory would become stale, and a later fetch would change it during the borrow.
            return Err(Self::clash());
        }
        let at = self.shown_by(view)?;
        self.undefined.remove(range.clone());
        self.host_valid.remove(range.clone());
        for extent in &mut self.extents {
            extent.valid.remove(range.clone());
        }
        let extent = &mut self.extents[at];
        extent.valid.insert(range.clone());
        if let Some(rescuer) = rescuer {
            extent.remember(rescuer);
        }
        Ok(())
    }

    /// Frees an extent, unless it is in use or not among the `victims`. Elements that are valid nowhere else go to the host.
    pub(crate) fn evict(&mut self, extent: ExtentId, victims: Victims) -> Result<Option<Evicted>> {
        let wanted = |e: &Extent| e.registration.id() == extent;
        let Some(at) = self.extents.iter().position(wanted) else {
            return Ok(None);
        };
        let extent = &self.extents[at];
        if extent.is_in_use() {
            return Ok(None);
        }
        let only_here = self.only_in(at);
        let may_go = match victims {
            Victims::Stale => extent.valid.is_empty(),
            Victims::Copies => only_here.is_empty(),
            Victims::Any => true,
        };
        if !may_go {
            return Ok(None);
        }
        // The transfer counts for the call that needs the room, not for the next call that uses this array.
        let before = self.moved;
        let fetched = only_here
            .iter()
            .try_for_each(|part| self.fetch_to_host(part.clone()));
        let to_host = self.moved.to_host - before.to_host;
        self.moved = before;
        fetched?;
        let extent = self.extents.swap_remove(at);
        Ok(Some(Evicted {
            freed: extent.buffer.bytes(),
            to_host,
        }))
    }

    /// The extents on a GPU.
    pub(super) fn extents_on(&self, gpu: GpuId) -> SmallVec<[ExtentId; 4]> {
        let here = self.extents.iter().filter(|e| e.gpu.id() == gpu);
        here.map(|extent| extent.registration.id()).collect()
    }

    /// Adds to the bytes that were moved.
    pub(super) fn add_moved(&mut self, moved: TransferBytes) {
        self.moved += moved;
    }

    /// The elements that are valid in an extent and nowhere else.
    fn only_in(&self, at: usize) -> RangeSet {
        let mut only = self.extents[at].valid.clone();
        let others = self.extents.iter().enumerate().filter(|(i, _)| *i != at);
        let others = others.filter(|(_, e)| !e.gpu.is_lost());
        let elsewhere = others.map(|(_, e)| &e.valid);
        for valid in elsewhere.chain([&self.host_valid]) {
            valid.iter().for_each(|range| only.remove(range));
        }
        only
    }

    /// Registers a borrow of the host memory. Refuses one that clashes with a live borrow.
    pub(super) fn borrow(&mut self, exclusive: bool) -> Result<()> {
        self.check_borrow(exclusive)?;
        self.borrows = if exclusive {
            EXCLUSIVE
        } else {
            self.borrows + 1
        };
        Ok(())
    }

    /// Whether the host memory may be borrowed now.
    pub(super) fn check_borrow(&self, exclusive: bool) -> Result<()> {
        if self.borrows == EXCLUSIVE || (exclusive && self.borrows > 0) {
            return Err(Self::clash());
        }
        Ok(())
    }

    fn clash() -> Error {
        Error::argument(
            "array access",
            "the array is being written by another call, or read while this one would write it; \
             wait for that call to return, or drop its guard",
        )
    }

    /// Ends a borrow.
    pub(super) fn give_back(&mut self, exclusive: bool) {
        self.borrows = if exclusive { 0 } else { self.borrows - 1 };
    }

    /// The start of the host memory, which is allocated at the first call.
    fn host_start(&mut self) -> Result<*mut u8> {
        if let Some(host) = &self.host {
            return Ok(host.as_ptr());
        }
        let host = HostBuffer::zeroed(self.len * self.ty.size())?;
        Ok(self.host.insert(host).as_ptr())
    }

    /// Downloads what is missing on the host from the extents that hold it.
    fn fetch_to_host(&mut self, range: Range<usize>) -> Result<()> {
        let size = self.ty.size();
        self.keep_stale_host_memory(&range)?;
        let start = self.host_start()?;
        for i in 0..self.extents.len() {
            let extent = &self.extents[i];
            if extent.gpu.is_lost() {
                continue;
            }
            let wanted: SmallVec<[Range<usize>; 4]> = self
                .host_valid
                .missing(range.clone())
                .flat_map(|r| extent.valid.overlap(r))
                .collect();
            let mut arrived = SmallVec::<[Range<usize>; 4]>::new();
            for part in wanted {
                let bytes = part.len() * size;
                // SAFETY: the range lies in the array's host memory. Nothing else touches it: it is invalid on the
                // host, so no borrower has it, and the residency lock is held.
                let target =
                    unsafe { std::slice::from_raw_parts_mut(start.add(part.start * size), bytes) };
                let offset = (part.start - extent.range.start) * size;
                extent.gpu.download(&extent.buffer, offset as u64, target)?;
                self.moved.to_host += bytes as u64;
                arrived.push(part);
            }
            for part in arrived {
                self.arrived_on_host(&part);
                self.host_valid.insert(part);
            }
        }
        if self.host_valid.contains(&range) {
            return Ok(());
        }
        Err(self.lost_in(&range))
    }

    /// Refuses a range with elements that only lost GPUs hold.
    pub(super) fn check_not_lost(&self, range: &Range<usize>) -> Result<()> {
        if self.lost_within(range).is_empty() {
            return Ok(());
        }
        Err(self.lost_in(range))
    }

    /// The error for a range with elements that only lost GPUs hold.
    fn lost_in(&self, range: &Range<usize>) -> Error {
        let LostGpu { name, reason } = self.lost_gpu();
        Error::DataLost {
            array: format!("[{}; {}]", self.ty, self.len),
            ranges: self.lost_within(range),
            device: name,
            reason,
        }
    }

    /// The elements of a range that only lost GPUs hold.
    pub(super) fn lost_within(&self, range: &Range<usize>) -> Vec<Range<usize>> {
        let lost: RangeSet = self.lost().into_iter().map(|s| s.range).collect();
        lost.overlap(range.clone()).collect()
    }

    /// A lost GPU that held elements; empty strings if there is none.
    pub(super) fn lost_gpu(&self) -> LostGpu {
        let lost = self.extents.iter().map(|e| &e.gpu).find(|g| g.is_lost());
        LostGpu {
            name: lost.map_or_else(String::new, |gpu| gpu.name().to_owned()),
            reason: lost.and_then(|gpu| gpu.loss()).unwrap_or_default(),
        }
    }

    /// Checks after an error whether GPUs that hold elements are lost.
    pub(super) fn probe(&self) {
        self.extents.iter().for_each(|extent| extent.gpu.probe());
    }

    /// The journal that recovers the elements of a range that only lost GPUs hold; `None` if there are no such elements.
    pub(super) fn rescue(&self, range: &Range<usize>) -> Option<Rescuer> {
        let lost = self.lost_within(range);
        let holds = |e: &&Extent| {
            lost.iter()
                .any(|r| e.valid.overlap(r.clone()).next().is_some())
        };
        let mut holders = self
            .extents
            .iter()
            .filter(|e| e.gpu.is_lost())
            .filter(holds);
        holders.clone().next()?;
        let journal = holders.find_map(|extent| extent.rescuer.as_ref()?.upgrade());
        Some(journal.map_or(Rescuer::None, Rescuer::Journal))
    }

    /// Copies what is missing in an extent from other extents of the same GPU, and the rest from the host.
    fn fetch_to_extent(&mut self, at: usize, range: Range<usize>) -> Result<()> {
        let size = self.ty.size();
        let gpu = Arc::clone(&self.extents[at].gpu);
        for from in 0..self.extents.len() {
            if from == at || self.extents[from].gpu.id() != gpu.id() {
                continue;
            }
            let (source, target) = (&self.extents[from], &self.extents[at]);
            let parts: SmallVec<[Range<usize>; 4]> = target
                .valid
                .missing(range.clone())
                .flat_map(|r| source.valid.overlap(r))
                .collect();
            for part in parts {
                let (source, target) = (&self.extents[from], &self.extents[at]);
                gpu.copy(
                    (
                        &source.buffer,
                        ((part.start - source.range.start) * size) as u64,
                    ),
                    (
                        &target.buffer,
                        ((part.start - target.range.start) * size) as u64,
                    ),
                    (part.len() * size) as u64,
                )?;
                // The other extent may be freed once it is superseded.
                let rescuer = source.rescuer.clone();
                let target = &mut self.extents[at];
                target.valid.insert(part);
                if let Some(rescuer) = rescuer {
                    target.remember(&rescuer);
                }
            }
        }
        let missing: SmallVec<[Range<usize>; 4]> =
            self.extents[at].valid.missing(range.clone()).collect();
        for part in missing {
            if !self.host_valid.contains(&part) {
                self.fetch_to_host(part.clone())?;
            }
            if self.borrows == EXCLUSIVE {
                return Err(Self::clash());
            }
            let start = self.host_start()?;
            let bytes = part.len() * size;
            // SAFETY: the range lies in the array's host memory and is valid there; nothing writes it, since no
            // exclusive borrow is alive and the residency lock is held.
            let source = unsafe { std::slice::from_raw_parts(start.add(part.start * size), bytes) };
            let extent = &mut self.extents[at];
            let offset = (part.start - extent.range.start) * size;
            gpu.upload(&extent.buffer, offset as u64, source)?;
            self.moved.to_device += bytes as u64;
            extent.valid.insert(part);
        }
        Ok(())
    }

    /// The extent of a GPU that covers `range`, if possible one in which it is valid.
    fn covering(&self, gpu: GpuId, range: &Range<usize>) -> Option<usize> {
        let covers = |e: &Extent| {
            e.gpu.id() == gpu && e.range.start <= range.start && range.end <= e.range.end
        };
        let first = self.extents.iter().position(covers)?;
        if self.extents[first].valid.contains(range) {
            return Some(first);
        }
        let valid = |e: &Extent| covers(e) && e.valid.contains(range);
        Some(self.extents.iter().position(valid).unwrap_or(first))
    }

    fn new_extent(&mut self, gpu: &Arc<Gpu>, range: &Range<usize>, fit: Coverage) -> Result<usize> {
        let size = self.ty.size();
        let most = (gpu.largest_buffer() / size as u64) as usize;
        let (window, at_least) = match fit {
            Coverage::Whole if self.len <= most => (0..self.len, 0),
            Coverage::Whole => (self.window_on(range), 0),
            Coverage::Window { at_least } => (self.window_on(range), at_least),
        };
        let bytes = (window.len() * size) as u64;
        let buffer = gpu.allocate(bytes.max(at_least))?;
        // A lost extent keeps its whole lost device alive.
        self.drop_lost_extents();
        self.extents.push(Extent {
            gpu: Arc::clone(gpu),
            range: window,
            buffer,
            valid: RangeSet::new(),
            rescuer: None,
            registration: gpu.register(&self.owner),
        });
        Ok(self.extents.len() - 1)
    }

    /// The smallest range of an extent that covers `range`.
    fn window_on(&self, range: &Range<usize>) -> Range<usize> {
        let start = range.start / EXTENT_GRAIN * EXTENT_GRAIN;
        start..range.end.next_multiple_of(EXTENT_GRAIN).min(self.len)
    }

    /// Frees the extents on the same GPU that overlap the extent `by` and are superseded: all their valid elements are also
    /// valid in `by` or on the host.
    fn drop_superseded(&mut self, by: usize) {
        let Extent {
            gpu, range, valid, ..
        } = &self.extents[by];
        let superseded = |extent: &Extent| {
            let overlaps = extent.range.start < range.end && range.start < extent.range.end;
            let elsewhere = |part: Range<usize>| {
                let mut rest = valid.missing(part);
                rest.all(|rest| self.host_valid.contains(&rest))
            };
            extent.gpu.id() == gpu.id()
                && overlaps
                && !extent.is_in_use()
                && extent.valid.iter().all(elsewhere)
        };
        let goes: SmallVec<[ExtentId; 4]> = self
            .extents
            .iter()
            .filter(|extent| superseded(extent))
            .map(|extent| extent.registration.id())
            .collect();
        self.extents
            .retain(|extent| !goes.contains(&extent.registration.id()));
    }
}

impl std::fmt::Debug for Residency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, " host {:?}", self.host_valid)?;
        for extent in &self.extents {
            write!(f, ", {} {:?}", extent.gpu.name(), extent.valid)?;
        }
        Ok(())
    }
}
