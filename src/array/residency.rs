//! Who holds which range of an array: the host, and per GPU one or more *extents*, each a device buffer that covers a
//! range of the array.
//!
//! Nearly always a GPU holds one extent that covers the whole array. An array larger than the largest buffer of the
//! adapter is held in extents of the ranges that were needed. Every place has the set of elements that are valid
//! in it; this module moves what is missing and keeps the invariant that every element is valid in at least one place.
//!
//! Host memory and device buffers are allocated at first use. Host memory that is not yet allocated counts as zeros.

use super::ElementType;
use super::host::HostBuffer;
use super::range_set::RangeSet;
use super::read_back::ReadBack;
use crate::device::gpu::{DeviceBuffer, Gpu, GpuId};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Window borders of extents are multiples of this many elements: 256 bytes, the coarsest offset alignment there is.
const EXTENT_GRAIN: usize = 64;

/// Bytes that crossed between the host and devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Moved {
    /// From the host to devices.
    pub to_device: u64,
    /// From devices to the host.
    pub to_host: u64,
}

impl std::ops::AddAssign for Moved {
    fn add_assign(&mut self, other: Self) {
        self.to_device += other.to_device;
        self.to_host += other.to_host;
    }
}

/// Where a range of an array lies on a device.
#[derive(Clone, Debug)]
pub(crate) struct DeviceView {
    /// The buffer.
    pub(crate) buffer: Arc<DeviceBuffer>,
    /// The array's element at the buffer's start.
    pub(crate) first: usize,
}

/// The places of an array's elements.
pub(crate) struct Residency {
    len: usize,
    ty: ElementType,
    host: Option<HostBuffer>,
    host_valid: RangeSet,
    extents: SmallVec<[Extent; 1]>,
    /// The elements that hold unspecified values: nobody has written them, or a call that would have failed.
    undefined: RangeSet,
    /// How many borrows of the host memory are alive; `EXCLUSIVE` if one is for writing.
    borrows: u32,
    moved: Moved,
    read_back: ReadBack,
}

const EXCLUSIVE: u32 = u32::MAX;

/// A device buffer that covers a range of the array.
struct Extent {
    gpu: Arc<Gpu>,
    range: Range<usize>,
    buffer: Arc<DeviceBuffer>,
    valid: RangeSet,
}

impl Residency {
    /// All elements on the host; without a buffer, they are zeros that take no memory yet.
    pub(super) fn on_host(len: usize, ty: ElementType, host: Option<HostBuffer>) -> Self {
        Self {
            len,
            ty,
            host,
            host_valid: RangeSet::from(0..len),
            extents: SmallVec::new(),
            undefined: RangeSet::new(),
            borrows: 0,
            moved: Moved::default(),
            read_back: ReadBack::default(),
        }
    }

    /// Whether the host is wont to read what kernels write here.
    pub(crate) fn read_back(&mut self) -> &mut ReadBack {
        &mut self.read_back
    }

    /// Where all of it is and where none of it, as a number that is another one elsewhere; `None` if a place has only a
    /// part of it.
    pub(crate) fn whereabouts(&self) -> Option<u64> {
        let extents = self.extents.iter().map(|e| (e.gpu.id().0, &e.valid));
        let mut places = std::iter::once((u64::MAX, &self.host_valid)).chain(extents);
        places.try_fold(0, |sum: u64, (place, valid)| {
            if valid.is_empty() {
                Some(sum)
            } else if valid.contains(&(0..self.len)) {
                Some(crate::kernel::shader::mixed(sum, place))
            } else {
                None
            }
        })
    }

    /// What has been moved for this array since this was last asked.
    pub(crate) fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    /// The elements that are valid on the host.
    pub(crate) fn valid_on_host(&self) -> &RangeSet {
        &self.host_valid
    }

    /// The elements that hold unspecified values.
    pub(crate) fn undefined(&self) -> &RangeSet {
        &self.undefined
    }

    /// Takes note that elements hold unspecified values until they are written.
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

    /// The array's start on the host, after making `range` present there if its values are needed (`fetch`), and
    /// the only valid place if it is about to change (`write`). The caller must have been counted in by `borrow` meanwhile.
    pub(crate) fn host_access(
        &mut self,
        range: Range<usize>,
        fetch: bool,
        write: bool,
    ) -> Result<*mut u8> {
        let start = self.host_start()?;
        if fetch && !self.host_valid.contains(&range) {
            self.fetch_to_host(range.clone())?;
        }
        if write {
            self.undefined.remove(range.clone());
            self.host_valid.insert(range.clone());
            self.extents
                .iter_mut()
                .for_each(|e| e.valid.remove(range.clone()));
        }
        Ok(start)
    }

    /// Where `range` lies on `gpu`, after making it present there if its values are needed (`fetch`), and the
    /// only valid place if it is about to change (`write`). The copies and the change happen in the order of the
    /// GPU's queue.
    pub(crate) fn device_access(
        &mut self,
        gpu: &Arc<Gpu>,
        range: Range<usize>,
        fetch: bool,
        write: bool,
    ) -> Result<DeviceView> {
        if write && self.borrows > 0 {
            // What the borrower sees would become stale, and later be fetched again under its eyes.
            return Err(Self::clash());
        }
        let at = self.extent(gpu, &range)?;
        if fetch && !self.extents[at].valid.contains(&range) {
            self.fetch_to_extent(at, range.clone())?;
        }
        if write {
            self.undefined.remove(range.clone());
            self.host_valid.remove(range.clone());
            self.extents
                .iter_mut()
                .for_each(|e| e.valid.remove(range.clone()));
            self.extents[at].valid.insert(range);
        }
        let extent = &self.extents[at];
        Ok(DeviceView {
            buffer: Arc::clone(&extent.buffer),
            first: extent.range.start,
        })
    }

    /// Counts a borrow of the host memory in; refused if it clashes with one that is alive.
    pub(super) fn borrow(&mut self, exclusive: bool) -> Result<()> {
        if self.borrows == EXCLUSIVE || (exclusive && self.borrows > 0) {
            return Err(Self::clash());
        }
        self.borrows = if exclusive {
            EXCLUSIVE
        } else {
            self.borrows + 1
        };
        Ok(())
    }

    fn clash() -> Error {
        Error::argument(
            "array access",
            "the array is being written by another call, or read while this one would write it; \
             wait for that call to return, or drop its guard",
        )
    }

    /// Counts a borrow out.
    pub(super) fn give_back(&mut self, exclusive: bool) {
        self.borrows = if exclusive { 0 } else { self.borrows - 1 };
    }

    /// The start of the host memory, allocating it if need be.
    fn host_start(&mut self) -> Result<*mut u8> {
        if let Some(host) = &self.host {
            return Ok(host.as_ptr());
        }
        let host = HostBuffer::zeroed(self.len * self.ty.size())?;
        Ok(self.host.insert(host).as_ptr())
    }

    /// Downloads what is missing on the host from whichever extents hold it.
    fn fetch_to_host(&mut self, range: Range<usize>) -> Result<()> {
        let size = self.ty.size();
        let start = self.host_start()?;
        for i in 0..self.extents.len() {
            let extent = &self.extents[i];
            let wanted: SmallVec<[Range<usize>; 4]> = self
                .host_valid
                .missing(range.clone())
                .flat_map(|r| extent.valid.overlap(r))
                .collect();
            for part in wanted {
                let bytes = part.len() * size;
                // SAFETY: the range lies in the array's host memory. Nobody else touches it: it is invalid on the
                // host, so no borrower was given it, and the residency lock is held.
                let target =
                    unsafe { std::slice::from_raw_parts_mut(start.add(part.start * size), bytes) };
                let offset = (part.start - extent.range.start) * size;
                extent.gpu.download(&extent.buffer, offset as u64, target)?;
                self.moved.to_host += bytes as u64;
                self.host_valid.insert(part);
            }
        }
        debug_assert!(
            self.host_valid.contains(&range),
            "an element was valid nowhere"
        );
        Ok(())
    }

    /// Copies what is missing in an extent from other extents of the same GPU, else from the host.
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
                self.extents[at].valid.insert(part);
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
            // SAFETY: the range lies in the array's host memory and is valid there; nobody writes it, since no
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

    /// The extent of `gpu` that covers `range`: one there is, or a new one.
    fn extent(&mut self, gpu: &Arc<Gpu>, range: &Range<usize>) -> Result<usize> {
        let covers = |e: &Extent| {
            e.gpu.id() == gpu.id() && e.range.start <= range.start && range.end <= e.range.end
        };
        if let Some(at) = self.extents.iter().position(covers) {
            return Ok(at);
        }
        let most = (gpu.limits().max_buffer_bytes / self.ty.size() as u64) as usize;
        let window = if self.len <= most {
            0..self.len
        } else {
            let start = range.start / EXTENT_GRAIN * EXTENT_GRAIN;
            start..range.end.next_multiple_of(EXTENT_GRAIN).min(self.len)
        };
        self.drop_redundant_extents(gpu.id());
        let bytes = (window.len() * self.ty.size()) as u64;
        let buffer = gpu.allocate(bytes)?;
        self.extents.push(Extent {
            gpu: Arc::clone(gpu),
            range: window,
            buffer,
            valid: RangeSet::new(),
        });
        Ok(self.extents.len() - 1)
    }

    /// Frees extents on a GPU of which every valid element is valid on the host too.
    fn drop_redundant_extents(&mut self, gpu: GpuId) {
        let host = &self.host_valid;
        self.extents
            .retain(|e| e.gpu.id() != gpu || !e.valid.iter().all(|r| host.contains(&r)));
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
