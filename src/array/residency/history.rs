//! What must be known of an array to bring back what a lost GPU held of it: which version each element has, which
//! version host memory still holds although it is stale, and which versions the calls need that would be run again.
//!
//! A call on a GPU leaves what it read and wrote, and in which versions, in its [`AccessSet`]. As long as these live, what
//! host memory holds of a version that they read is not overwritten without being kept as an *image*. So whatever is
//! lost can be computed again: from host memory, from images, and from calls that wrote what these read.
//!
//! Arrays that no such call ever touched have no history, and pay nothing.

use super::versions::{ORIGINAL, UNKNOWN, Version, Versions, tick};
use super::{EXCLUSIVE, HostBuffer, RangeSet, Residency};
use crate::array::{Handle, WeakHandle};
use crate::device::gpu::{DeviceBuffer, Gpu};
use crate::error::Result;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Recovers what only a lost GPU held.
pub(crate) trait Rescue: Send + Sync {
    /// Makes valid on the host what was valid on lost GPUs alone, of `asked` and of every other array of which a record
    /// is kept.
    ///
    /// # Errors
    /// Why that is not possible for some of it.
    fn rescue(&self, asked: &Handle) -> Result<()>;
}

/// What a call on a GPU read and wrote.
#[derive(Debug)]
pub(crate) struct AccessSet {
    /// The version of all that it wrote. Arrays that are no older are its own temporaries.
    pub(crate) version: Version,
    /// Keeps the record of the call. Extents that the call writes remember it.
    rescuer: Weak<dyn Rescue>,
    lists: Mutex<Lists>,
}

/// Elements of an array in one version.
#[derive(Clone, Debug)]
pub(crate) struct VersionedRange {
    pub(crate) array: WeakHandle,
    pub(crate) range: Range<usize>,
    pub(crate) version: Version,
}

#[derive(Debug, Default)]
struct Lists {
    reads: SmallVec<[VersionedRange; 3]>,
    writes: SmallVec<[VersionedRange; 2]>,
    written_bytes: usize,
}

impl AccessSet {
    /// A call that has used nothing yet, of which `rescuer` keeps the record.
    pub(crate) fn new(rescuer: Weak<dyn Rescue>) -> Self {
        Self {
            version: tick(),
            rescuer,
            lists: Mutex::default(),
        }
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Recovers what it wrote.
    pub(crate) fn rescuer(&self) -> &Weak<dyn Rescue> {
        &self.rescuer
    }

    /// What it read that it had not written itself.
    pub(crate) fn reads(&self) -> SmallVec<[VersionedRange; 3]> {
        self.lists().reads.clone()
    }

    /// What it wrote.
    pub(crate) fn writes(&self) -> SmallVec<[VersionedRange; 2]> {
        self.lists().writes.clone()
    }

    /// Bytes that it wrote, counted again for each of its passes.
    pub(crate) fn written_bytes(&self) -> usize {
        self.lists().written_bytes
    }
}

/// Adds elements to a list in which whole arrays often appear again and ranges follow on each other. Returns whether
/// they were not there.
fn note<const N: usize>(
    list: &mut SmallVec<[VersionedRange; N]>,
    array: &Handle,
    range: Range<usize>,
    version: Version,
) -> bool {
    for known in list.iter_mut() {
        if known.version != version || !known.array.is_of(array) {
            continue;
        }
        if known.range.start <= range.start && range.end <= known.range.end {
            return false;
        }
        if known.range.end == range.start {
            known.range.end = range.end;
            return true;
        }
    }
    let array = array.downgrade();
    list.push(VersionedRange {
        array,
        range,
        version,
    });
    true
}

/// The versions of an array's elements.
pub(super) struct History {
    current: Versions,
    /// What host memory holds, valid or stale.
    host: Versions,
    images: Vec<Image>,
    readers: Vec<Reader>,
    /// Readers are looked through for those that are gone once there are so many.
    tidy_at: usize,
}

/// Elements in a version that some calls would need to be run again, taken out of host memory before it changed.
struct Image {
    range: Range<usize>,
    version: Version,
    /// The element at the start of the bytes.
    first: usize,
    /// Zeros if there are none.
    bytes: Option<Arc<HostBuffer>>,
}

/// A call that reads elements in a version.
struct Reader {
    range: Range<usize>,
    version: Version,
    accesses: Weak<AccessSet>,
}

/// A copy of elements on a GPU.
pub(crate) struct DeviceCopy {
    gpu: Arc<Gpu>,
    buffer: Arc<DeviceBuffer>,
    pub(crate) range: Range<usize>,
    bytes: usize,
}

impl DeviceCopy {
    /// Brings it to the host, and waits for that.
    pub(crate) fn download(&self) -> Result<HostBuffer> {
        let host = HostBuffer::zeroed(self.bytes)?;
        // SAFETY: the new memory has exactly these bytes, initialised, and nobody else knows of it.
        let target = unsafe { std::slice::from_raw_parts_mut(host.as_ptr(), self.bytes) };
        self.gpu.download(&self.buffer, 0, target)?;
        Ok(host)
    }
}

const FEW_READERS: usize = 16;

fn overlap(a: &Range<usize>, b: &Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

impl History {
    fn new(len: usize, on_host: &RangeSet) -> Self {
        let mut host = Versions::all(len, UNKNOWN);
        on_host.iter().for_each(|r| host.set(r, ORIGINAL));
        Self {
            current: Versions::all(len, ORIGINAL),
            host,
            images: Vec::new(),
            readers: Vec::new(),
            tidy_at: FEW_READERS,
        }
    }

    /// Whether a call that may be run again reads some of these elements.
    fn is_wanted(&self, range: &Range<usize>, version: Version) -> bool {
        self.readers.iter().any(|reader| {
            reader.version == version
                && !overlap(&reader.range, range).is_empty()
                && reader.accesses.strong_count() > 0
        })
    }

    fn add_reader(&mut self, range: Range<usize>, version: Version, accesses: &Arc<AccessSet>) {
        if self.readers.len() >= self.tidy_at {
            self.readers
                .retain(|reader| reader.accesses.strong_count() > 0);
            self.tidy_at = FEW_READERS.max(2 * self.readers.len());
        }
        self.readers.push(Reader {
            range,
            version,
            accesses: Arc::downgrade(accesses),
        });
    }

    /// The elements of a range whose state in a version neither host memory nor an image holds.
    fn missing(&self, range: Range<usize>, version: Version) -> RangeSet {
        let mut missing = RangeSet::from(range.clone());
        let on_host = self.host.of(range).filter(|(_, of)| *of == version);
        on_host.for_each(|(r, _)| missing.remove(r));
        let images = self.images.iter().filter(|image| image.version == version);
        images.for_each(|image| missing.remove(image.range.clone()));
        missing
    }

    /// The images that nobody needs any more.
    fn take_useless_images(&mut self, on_host: &RangeSet) -> Vec<Image> {
        let images = std::mem::take(&mut self.images);
        let useful = |image: &Image| {
            let saves =
                |(r, of): (Range<usize>, Version)| of == image.version && !on_host.contains(&r);
            self.current.of(image.range.clone()).any(saves)
                || self.is_wanted(&image.range, image.version)
        };
        let (useful, useless) = images.into_iter().partition(useful);
        self.images = useful;
        useless
    }
}

impl Residency {
    fn history(&mut self) -> &mut History {
        let (len, on_host) = (self.len, &self.host_valid);
        self.history
            .get_or_insert_with(|| Box::new(History::new(len, on_host)))
    }

    /// From now on it is known which version is where.
    pub(crate) fn begin_history(&mut self) {
        self.history();
    }

    /// Takes note that a call on a GPU, or a part of one, reads or writes a range, or both.
    pub(crate) fn record(
        &mut self,
        array: &Handle,
        range: &Range<usize>,
        (reads, writes): (bool, bool),
        accesses: &Arc<AccessSet>,
    ) {
        let size = self.ty.size();
        let history = self.history();
        let mut lists = accesses.lists();
        if reads {
            let read: SmallVec<[_; 2]> = history.current.of(range.clone()).collect();
            for (range, version) in read {
                if version != accesses.version
                    && note(&mut lists.reads, array, range.clone(), version)
                {
                    history.add_reader(range, version, accesses);
                }
            }
        }
        if writes {
            note(&mut lists.writes, array, range.clone(), accesses.version);
            lists.written_bytes += range.len() * size;
            history.current.set(range.clone(), accesses.version);
        }
    }

    /// Takes note that somebody who keeps no record wrote a range on a device.
    pub(crate) fn written_without_record(&mut self, range: &Range<usize>) {
        if let Some(history) = &mut self.history {
            history.current.set(range.clone(), tick());
        }
    }

    /// Takes note that host memory is about to change in a range, to which the host then writes.
    pub(super) fn written_by_host(&mut self, range: &Range<usize>) -> Result<()> {
        self.keep_host_memory(range)?;
        if let Some(history) = &mut self.history {
            let version = tick();
            history.current.set(range.clone(), version);
            history.host.set(range.clone(), version);
            if !history.images.is_empty() {
                self.tidy();
            }
        }
        Ok(())
    }

    /// Takes note that host memory now holds the current elements of a range.
    pub(in crate::array) fn arrived_on_host(&mut self, range: &Range<usize>) {
        if let Some(history) = &mut self.history {
            let arrived: SmallVec<[_; 2]> = history.current.of(range.clone()).collect();
            for (range, version) in arrived {
                history.host.set(range, version);
            }
        }
    }

    /// [`Residency::keep_host_memory`] of what is not valid in a range, and about to arrive.
    pub(super) fn keep_stale_host_memory(&mut self, range: &Range<usize>) -> Result<()> {
        if self.history.is_none() {
            return Ok(());
        }
        let stale: SmallVec<[Range<usize>; 2]> = self.host_valid.missing(range.clone()).collect();
        stale.iter().try_for_each(|r| self.keep_host_memory(r))
    }

    /// Keeps what host memory holds of a range, as far as calls that may be run again read it, before it changes.
    pub(super) fn keep_host_memory(&mut self, range: &Range<usize>) -> Result<()> {
        let Some(history) = &self.history else {
            return Ok(());
        };
        let wanted: SmallVec<[(Range<usize>, Version); 2]> = history
            .host
            .of(range.clone())
            .filter(|(r, version)| history.is_wanted(r, *version))
            .collect();
        let unseen = self.host_valid.is_empty() && self.borrows == 0;
        if unseen && !wanted.is_empty() && *range == (0..self.len) {
            // All of it changes and nobody looks at it: the memory itself becomes the image.
            let bytes = self.host.take().map(Arc::new);
            let image = |(range, version)| Image {
                range,
                version,
                first: 0,
                bytes: bytes.clone(),
            };
            self.history().images.extend(wanted.into_iter().map(image));
        } else {
            for (range, version) in wanted {
                let first = range.start;
                let bytes = self.copy_of_host(&range)?.map(Arc::new);
                self.history().images.push(Image {
                    range,
                    version,
                    first,
                    bytes,
                });
            }
        }
        self.history().host.set(range.clone(), UNKNOWN);
        Ok(())
    }

    /// A copy of what host memory holds of a range; none if that is zeros.
    fn copy_of_host(&self, range: &Range<usize>) -> Result<Option<HostBuffer>> {
        let Some(host) = &self.host else {
            return Ok(None);
        };
        let size = self.ty.size();
        let copy = HostBuffer::zeroed(range.len() * size)?;
        // SAFETY: the range lies within the array's host memory, the copy is as long as it, and the two are apart. Who
        // may write host memory meanwhile holds an exclusive borrow, and writes only versions that no call reads.
        unsafe {
            let source = host.as_ptr().add(range.start * size);
            std::ptr::copy_nonoverlapping(source, copy.as_ptr(), range.len() * size);
        }
        Ok(Some(copy))
    }

    /// The ranges that no place holds but lost GPUs, with their versions, as far as these are known.
    pub(crate) fn lost(&self) -> Vec<(Range<usize>, Version)> {
        let mut lost = RangeSet::from(0..self.len);
        self.host_valid.iter().for_each(|r| lost.remove(r));
        for extent in self.extents.iter().filter(|e| !e.gpu.is_lost()) {
            extent.valid.iter().for_each(|r| lost.remove(r));
        }
        self.versions_of(&lost)
    }

    /// What of a range is in that version, and held by no place but lost GPUs.
    pub(crate) fn lost_in_version(&self, range: &Range<usize>, version: Version) -> RangeSet {
        let lost: RangeSet = self
            .lost()
            .into_iter()
            .filter_map(|(r, of)| (of == version).then_some(r))
            .collect();
        lost.overlap(range.clone()).collect()
    }

    /// The ranges that only GPUs hold, with their versions.
    pub(crate) fn only_on_gpus(&self) -> Vec<(Range<usize>, Version)> {
        let mut ranges = RangeSet::from(0..self.len);
        self.host_valid.iter().for_each(|r| ranges.remove(r));
        self.versions_of(&ranges)
    }

    fn versions_of(&self, ranges: &RangeSet) -> Vec<(Range<usize>, Version)> {
        match &self.history {
            Some(history) => ranges.iter().flat_map(|r| history.current.of(r)).collect(),
            None => ranges.iter().map(|r| (r, UNKNOWN)).collect(),
        }
    }

    /// The elements of a range whose state in a version neither host memory nor an image holds.
    pub(crate) fn missing(&self, range: Range<usize>, version: Version) -> RangeSet {
        match &self.history {
            Some(history) => history.missing(range, version),
            None => RangeSet::from(range),
        }
    }

    /// What of a range is not, or can no longer be had, as it was in that version.
    pub(crate) fn changed(&self, range: &Range<usize>, version: Version) -> RangeSet {
        let mut changed: RangeSet = self.lost_within(range).into_iter().collect();
        if let Some(history) = &self.history {
            let others = history.current.of(range.clone());
            let others = others.filter(|(_, of)| *of != version);
            others.for_each(|(r, _)| changed.insert(r));
        }
        changed
    }

    /// Copies of what only GPUs hold of a range, on these GPUs and in the order of their queues.
    pub(crate) fn copies_on_devices(&self, range: &Range<usize>) -> Result<Vec<DeviceCopy>> {
        let size = self.ty.size();
        let mut missing = RangeSet::from(range.clone());
        self.host_valid.iter().for_each(|r| missing.remove(r));
        let mut copies = Vec::new();
        for extent in self.extents.iter().filter(|e| !e.gpu.is_lost()) {
            let parts: Vec<_> = missing
                .iter()
                .flat_map(|r| extent.valid.overlap(r))
                .collect();
            for part in parts {
                let bytes = (part.len() * size) as u64;
                let buffer = extent.gpu.allocate(bytes)?;
                let offset = ((part.start - extent.range.start) * size) as u64;
                extent
                    .gpu
                    .copy((&extent.buffer, offset), (&buffer, 0), bytes)?;
                missing.remove(part.clone());
                copies.push(DeviceCopy {
                    gpu: Arc::clone(&extent.gpu),
                    buffer,
                    range: part,
                    bytes: bytes as usize,
                });
            }
        }
        Ok(copies)
    }

    /// Lets go of what is kept for calls that will not be run again.
    pub(crate) fn tidy(&mut self) {
        let Some(history) = &mut self.history else {
            return;
        };
        history
            .readers
            .retain(|reader| reader.accesses.strong_count() > 0);
        drop(history.take_useless_images(&self.host_valid));
    }

    /// Bytes that images take.
    pub(crate) fn image_bytes(&self) -> usize {
        let size = self.ty.size();
        let images = self.history.iter().flat_map(|history| &history.images);
        let bytes = images.filter(|image| image.bytes.is_some());
        bytes.map(|image| image.range.len() * size).sum()
    }

    /// Takes elements in as a state that calls may be run again from, if anybody could still want it.
    pub(crate) fn add_image(&mut self, range: Range<usize>, version: Version, bytes: HostBuffer) {
        let image = Image {
            first: range.start,
            range,
            version,
            bytes: Some(Arc::new(bytes)),
        };
        self.history().images.push(image);
        self.tidy();
    }

    /// A residency of nothing, in which calls are run again apart from what goes on: see `replay`.
    pub(crate) fn shadow(&self) -> Self {
        let mut shadow = Self::on_host(self.owner.clone(), self.len, self.ty, None);
        shadow.host_valid = RangeSet::new();
        let mut history = History::new(self.len, &shadow.host_valid);
        history.current = Versions::all(self.len, UNKNOWN);
        shadow.history = Some(Box::new(history));
        shadow
    }

    /// Makes a range of a stand-in what it was in that version, from what `source`, the array itself, holds of it.
    /// Returns what it holds nothing of.
    pub(crate) fn load(
        &mut self,
        source: &Self,
        range: Range<usize>,
        version: Version,
    ) -> Result<RangeSet> {
        let needed: SmallVec<[Range<usize>; 2]> = match &self.history {
            Some(history) => history
                .current
                .of(range)
                .filter_map(|(r, of)| (of != version).then_some(r))
                .collect(),
            None => SmallVec::from_iter([range]),
        };
        let mut missing = RangeSet::new();
        for range in needed {
            missing = source.missing(range.clone(), version);
            if !missing.is_empty() {
                break;
            }
            source.copy_version(&range, version, self.host_start()?);
            self.host_valid.insert(range.clone());
            self.forget_on_devices(&range);
            self.set_version(range, version);
        }
        Ok(missing)
    }

    /// Copies a range in that version, which must be held, to where host memory of the whole array begins.
    fn copy_version(&self, range: &Range<usize>, version: Version, target: *mut u8) {
        let Some(history) = &self.history else {
            return;
        };
        let size = self.ty.size();
        let copy = |part: Range<usize>, bytes: Option<&HostBuffer>, first: usize| {
            // SAFETY: the part lies within the bytes, which begin with element `first` of the array, and within the
            // target, which nobody else uses. Without bytes it is zeros.
            unsafe {
                let target = target.add(part.start * size);
                match bytes {
                    Some(bytes) => {
                        let source = bytes.as_ptr().add((part.start - first) * size);
                        std::ptr::copy_nonoverlapping(source, target, part.len() * size);
                    }
                    None => target.write_bytes(0, part.len() * size),
                }
            }
        };
        for image in history.images.iter().filter(|i| i.version == version) {
            let part = overlap(&image.range, range);
            if !part.is_empty() {
                copy(part, image.bytes.as_deref(), image.first);
            }
        }
        let host = self.host.as_ref();
        for (part, _) in history
            .host
            .of(range.clone())
            .filter(|(_, of)| *of == version)
        {
            copy(part, host, 0);
        }
    }

    /// All of a range is in that version from now on.
    pub(crate) fn set_version(&mut self, range: Range<usize>, version: Version) {
        self.history().current.set(range, version);
    }

    /// Takes over from a stand-in what is on its host in that version, as what the elements of a range are.
    pub(crate) fn restore(
        &mut self,
        shadow: &mut Self,
        range: Range<usize>,
        version: Version,
    ) -> Result<()> {
        if self.borrows == EXCLUSIVE
            || (self.borrows > 0 && self.host_valid.overlap(range.clone()).next().is_some())
        {
            return Err(Self::clash());
        }
        shadow.fetch_to_host(range.clone())?;
        self.keep_host_memory(&range)?;
        let size = self.ty.size();
        let (source, target) = (shadow.host_start()?, self.host_start()?);
        // SAFETY: both are the starts of host memory of the whole array. Nobody looks at the range here: it is not valid
        // on the host, or nothing of the array is borrowed.
        unsafe {
            let offset = range.start * size;
            std::ptr::copy_nonoverlapping(
                source.add(offset),
                target.add(offset),
                range.len() * size,
            );
        }
        self.host_valid.insert(range.clone());
        self.forget_on_devices(&range);
        self.set_version(range.clone(), version);
        self.history().host.set(range, version);
        Ok(())
    }

    /// No device holds the elements of a range any more.
    fn forget_on_devices(&mut self, range: &Range<usize>) {
        let extents = self.extents.iter_mut();
        extents.for_each(|extent| extent.valid.remove(range.clone()));
    }

    /// Lets go of lost GPUs, but for those that held what no other place holds.
    pub(crate) fn drop_lost_extents(&mut self) {
        if !self.extents.iter().any(|extent| extent.gpu.is_lost()) {
            return;
        }
        let lost: RangeSet = self.lost().into_iter().map(|(range, _)| range).collect();
        let held = |range| lost.overlap(range).next().is_some();
        self.extents
            .retain(|extent| !extent.gpu.is_lost() || extent.valid.iter().any(held));
    }
}
