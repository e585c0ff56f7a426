//! The history of an array, for recovery: the version of each element, the version that host memory holds even where it is
//! stale, and the versions that recorded calls read.
//!
//! A call on a GPU leaves the elements that it read and wrote, with their versions, in its [`AccessSet`]. While the set
//! lives, host memory that holds a version from it is not overwritten before it is kept as an *image*. So lost elements can
//! be computed again: from host memory, from images, and by the calls that wrote what these calls read.
//!
//! An array that no recorded call has touched has no history, and costs nothing.

use super::versions::{ORIGINAL, Segment, UNKNOWN, Version, Versions, tick};
use super::{EXCLUSIVE, HostBuffer, RangeSet, Residency, Usage};
use crate::array::{Handle, WeakHandle};
use crate::device::gpu::{DeviceBuffer, Gpu};
use crate::error::Result;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Recovers what only a lost GPU held.
pub(crate) trait Rescue: Send + Sync {
    /// Makes valid on the host what only lost GPUs hold, of `asked` and of every other recorded array.
    ///
    /// # Errors
    /// Why some of it cannot be restored.
    fn rescue(&self, asked: &Handle) -> Result<()>;
}

/// The elements that a call on a GPU read and wrote.
#[derive(Debug)]
pub(crate) struct AccessSet {
    /// The version of everything it writes. Arrays that are no older are its own temporaries.
    pub(crate) version: Version,
    /// The journal that holds the call. Extents that the call writes remember it.
    rescuer: Weak<dyn Rescue>,
    lists: Mutex<Lists>,
}

/// Elements of an array that have one version.
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
    /// An empty set for a call that `rescuer` records.
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

    /// The journal that recovers what the call wrote.
    pub(crate) fn rescuer(&self) -> &Weak<dyn Rescue> {
        &self.rescuer
    }

    /// The elements that it read and had not written itself.
    pub(crate) fn reads(&self) -> SmallVec<[VersionedRange; 3]> {
        self.lists().reads.clone()
    }

    /// The elements that it wrote.
    pub(crate) fn writes(&self) -> SmallVec<[VersionedRange; 2]> {
        self.lists().writes.clone()
    }

    /// Bytes that it wrote, summed over its passes.
    pub(crate) fn written_bytes(&self) -> usize {
        self.lists().written_bytes
    }
}

/// Adds elements to a list and returns whether they are new. The common cases are kept short: the same range again, and a
/// range that continues the last one.
fn insert<const N: usize>(
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
    /// The versions in host memory, valid or stale.
    host: Versions,
    images: Vec<Image>,
    readers: Vec<Reader>,
    /// The number of readers at which those of dropped access sets are removed.
    tidy_at: usize,
}

/// Elements in a version that recorded calls read, saved from host memory before it changed or by a snapshot.
struct Image {
    range: Range<usize>,
    version: Version,
    /// The array's element at the start of the bytes.
    first: usize,
    /// None if all elements are zero.
    bytes: Option<Arc<HostBuffer>>,
}

/// A recorded call that reads elements in a version.
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
    /// Downloads the copy and waits until it has arrived.
    pub(crate) fn download(&self) -> Result<HostBuffer> {
        let host = HostBuffer::zeroed(self.bytes)?;
        // SAFETY: the new memory has exactly these bytes, initialised, and nothing else refers to it.
        let target = unsafe { std::slice::from_raw_parts_mut(host.as_ptr(), self.bytes) };
        self.gpu.download(&self.buffer, 0, target)?;
        Ok(host)
    }
}

/// Dropped readers are first removed at this number, and later whenever the list has doubled.
const FIRST_TIDY: usize = 16;

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
            tidy_at: FIRST_TIDY,
        }
    }

    /// Whether a recorded call reads some of these elements in this version.
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
            self.tidy_at = FIRST_TIDY.max(2 * self.readers.len());
        }
        self.readers.push(Reader {
            range,
            version,
            accesses: Arc::downgrade(accesses),
        });
    }

    /// The elements of a range that neither host memory nor an image holds in that version.
    fn missing(&self, range: Range<usize>, version: Version) -> RangeSet {
        let mut missing = RangeSet::from(range.clone());
        let on_host = self.host.of(range).filter(|s| s.version == version);
        on_host.for_each(|s| missing.remove(s.range));
        let images = self.images.iter().filter(|image| image.version == version);
        images.for_each(|image| missing.remove(image.range.clone()));
        missing
    }

    /// Removes and returns the images that recovery no longer needs.
    fn take_useless_images(&mut self, on_host: &RangeSet) -> Vec<Image> {
        let images = std::mem::take(&mut self.images);
        let useful = |image: &Image| {
            let saves = |s: Segment| s.version == image.version && !on_host.contains(&s.range);
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

    /// Begins to track the versions of elements.
    pub(crate) fn begin_history(&mut self) {
        self.history();
    }

    /// Records that a call on a GPU, or a part of one, uses a range.
    pub(crate) fn record(
        &mut self,
        array: &Handle,
        range: &Range<usize>,
        usage: Usage,
        accesses: &Arc<AccessSet>,
    ) {
        let size = self.ty.size();
        let history = self.history();
        let mut lists = accesses.lists();
        if usage.reads {
            let read: SmallVec<[_; 2]> = history.current.of(range.clone()).collect();
            for Segment { range, version } in read {
                if version != accesses.version
                    && insert(&mut lists.reads, array, range.clone(), version)
                {
                    history.add_reader(range, version, accesses);
                }
            }
        }
        if usage.writes {
            insert(&mut lists.writes, array, range.clone(), accesses.version);
            lists.written_bytes += range.len() * size;
            history.current.set(range.clone(), accesses.version);
        }
    }

    /// Records that a call without an access set writes a range on a device.
    pub(crate) fn written_without_record(&mut self, range: &Range<usize>) {
        if let Some(history) = &mut self.history {
            history.current.set(range.clone(), tick());
        }
    }

    /// Records that the host is about to write a range.
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

    /// Records that host memory now holds the current elements of a range.
    pub(in crate::array) fn arrived_on_host(&mut self, range: &Range<usize>) {
        if let Some(history) = &mut self.history {
            let arrived: SmallVec<[_; 2]> = history.current.of(range.clone()).collect();
            for Segment { range, version } in arrived {
                history.host.set(range, version);
            }
        }
    }

    /// [`Residency::keep_host_memory`] for the stale elements of a range, which are about to arrive.
    pub(super) fn keep_stale_host_memory(&mut self, range: &Range<usize>) -> Result<()> {
        if self.history.is_none() {
            return Ok(());
        }
        let stale: SmallVec<[Range<usize>; 2]> = self.host_valid.missing(range.clone()).collect();
        stale.iter().try_for_each(|r| self.keep_host_memory(r))
    }

    /// Saves what host memory holds of a range as images before it changes, where recorded calls read it.
    pub(super) fn keep_host_memory(&mut self, range: &Range<usize>) -> Result<()> {
        let Some(history) = &self.history else {
            return Ok(());
        };
        let wanted: SmallVec<[Segment; 2]> = history
            .host
            .of(range.clone())
            .filter(|s| history.is_wanted(&s.range, s.version))
            .collect();
        let unseen = self.host_valid.is_empty() && self.borrows == 0;
        if unseen && !wanted.is_empty() && *range == (0..self.len) {
            // All of it changes and nothing is borrowed: the memory itself becomes the image.
            let bytes = self.host.take().map(Arc::new);
            let image = |Segment { range, version }| Image {
                range,
                version,
                first: 0,
                bytes: bytes.clone(),
            };
            self.history().images.extend(wanted.into_iter().map(image));
        } else {
            for Segment { range, version } in wanted {
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

    /// A copy of what host memory holds of a range; none if all elements are zero.
    fn copy_of_host(&self, range: &Range<usize>) -> Result<Option<HostBuffer>> {
        let Some(host) = &self.host else {
            return Ok(None);
        };
        let size = self.ty.size();
        let copy = HostBuffer::zeroed(range.len() * size)?;
        // SAFETY: the range lies within the array's host memory, the copy is as long as it, and the two are apart. Another
        // thread that writes host memory meanwhile holds an exclusive borrow, and writes only versions that no call reads.
        unsafe {
            let source = host.as_ptr().add(range.start * size);
            std::ptr::copy_nonoverlapping(source, copy.as_ptr(), range.len() * size);
        }
        Ok(Some(copy))
    }

    /// The elements that only lost GPUs hold. Without a history, their version is unknown.
    pub(crate) fn lost(&self) -> Vec<Segment> {
        let mut lost = RangeSet::from(0..self.len);
        self.host_valid.iter().for_each(|r| lost.remove(r));
        for extent in self.extents.iter().filter(|e| !e.gpu.is_lost()) {
            extent.valid.iter().for_each(|r| lost.remove(r));
        }
        self.versions_of(&lost)
    }

    /// The elements of a range that have that version and that only lost GPUs hold.
    pub(crate) fn lost_in_version(&self, range: &Range<usize>, version: Version) -> RangeSet {
        let lost: RangeSet = self
            .lost()
            .into_iter()
            .filter_map(|s| (s.version == version).then_some(s.range))
            .collect();
        lost.overlap(range.clone()).collect()
    }

    /// The elements that only GPUs hold.
    pub(crate) fn only_on_gpus(&self) -> Vec<Segment> {
        let mut ranges = RangeSet::from(0..self.len);
        self.host_valid.iter().for_each(|r| ranges.remove(r));
        self.versions_of(&ranges)
    }

    fn versions_of(&self, ranges: &RangeSet) -> Vec<Segment> {
        let unknown = |range| Segment {
            range,
            version: UNKNOWN,
        };
        match &self.history {
            Some(history) => ranges.iter().flat_map(|r| history.current.of(r)).collect(),
            None => ranges.iter().map(unknown).collect(),
        }
    }

    /// The elements of a range that neither host memory nor an image holds in that version.
    pub(crate) fn missing(&self, range: Range<usize>, version: Version) -> RangeSet {
        match &self.history {
            Some(history) => history.missing(range, version),
            None => RangeSet::from(range),
        }
    }

    /// The elements of a range that have another version, or that are lost.
    pub(crate) fn changed(&self, range: &Range<usize>, version: Version) -> RangeSet {
        let mut changed: RangeSet = self.lost_within(range).into_iter().collect();
        if let Some(history) = &self.history {
            let others = history.current.of(range.clone());
            let others = others.filter(|s| s.version != version);
            others.for_each(|s| changed.insert(s.range));
        }
        changed
    }

    /// Copies, within the memory of each GPU, of the elements of a range that only GPUs hold. The copies are made in the
    /// order of the queues.
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

    /// Drops readers and images that are kept for calls that the journal has removed.
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

    /// Adds an image, unless recovery can no longer need it.
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

    /// An empty residency of the same array: see [`shadow`](crate::array::shadow).
    pub(crate) fn shadow(&self) -> Self {
        let mut shadow = Self::on_host(self.owner.clone(), self.len, self.ty, None);
        shadow.host_valid = RangeSet::new();
        let mut history = History::new(self.len, &shadow.host_valid);
        history.current = Versions::all(self.len, UNKNOWN);
        shadow.history = Some(Box::new(history));
        shadow
    }

    /// Loads a range of a shadow in that version from `source`, the residency of the array itself. Returns the elements that
    /// neither its host memory nor its images hold.
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
                .filter_map(|s| (s.version != version).then_some(s.range))
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

    /// Copies a range in that version to the same place in `target`, the start of host memory for the whole array. Host
    /// memory and images must hold all of it.
    fn copy_version(&self, range: &Range<usize>, version: Version, target: *mut u8) {
        let Some(history) = &self.history else {
            return;
        };
        let size = self.ty.size();
        let copy = |part: Range<usize>, bytes: Option<&HostBuffer>, first: usize| {
            // SAFETY: the part lies within the bytes, which begin with element `first` of the array, and within the
            // target, which nothing else uses. Without bytes it is zeros.
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
        let on_host = history.host.of(range.clone());
        for segment in on_host.filter(|s| s.version == version) {
            copy(segment.range, host, 0);
        }
    }

    /// Gives all elements of a range that version.
    pub(crate) fn set_version(&mut self, range: Range<usize>, version: Version) {
        self.history().current.set(range, version);
    }

    /// Restores a range in that version from a shadow: afterwards its elements are valid on the host only.
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
        // SAFETY: both are the starts of host memory of the whole array. Nothing else reads the range: it is not valid on
        // the host, or nothing of the array is borrowed.
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

    /// Marks a range invalid on every device.
    fn forget_on_devices(&mut self, range: &Range<usize>) {
        let extents = self.extents.iter_mut();
        extents.for_each(|extent| extent.valid.remove(range.clone()));
    }

    /// Drops the extents on lost GPUs, except those with elements that no other place holds.
    pub(crate) fn drop_lost_extents(&mut self) {
        if !self.extents.iter().any(|extent| extent.gpu.is_lost()) {
            return;
        }
        let lost: RangeSet = self.lost().into_iter().map(|s| s.range).collect();
        let held = |range| lost.overlap(range).next().is_some();
        self.extents
            .retain(|extent| !extent.gpu.is_lost() || extent.valid.iter().any(held));
    }
}
