//! Moving bytes between host memory and device buffers through reused staging buffers.
//!
//! Never `Queue::write_buffer`: out of memory in the staging behind it loses the device. Here what is in flight is
//! bounded, and where the driver has no room for a staging buffer, transfers go on in smaller pieces.

use super::memory::{Allocation, Purpose, prev_power_of_two};
use super::pool::DeviceBuffer;
use super::recorder::Waiting;
use super::{FaultPoint, Gpu};
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The largest piece in which a transfer is staged: large enough to run at full speed, small enough that filling one
/// overlaps with copying another.
const PIECE: u64 = 8 << 20;
/// The smallest staging buffer.
const SMALLEST: u64 = 4 << 10;
/// The largest staging buffer that is kept for downloads when there is no room for others.
const MOST_RESERVED: u64 = 64 << 10;
/// Bytes of upload staging in use before recording flushes and waits for some to come back.
const UPLOAD_BYTES: u64 = 64 << 20;
/// Pieces of one download that are under way at once.
const DOWNLOADS: usize = 3;

/// Which way a staging buffer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    ToDevice,
    ToHost,
}

/// A host-visible buffer. One that carries to the device is mapped while nobody's commands use it.
#[derive(Debug)]
pub(super) struct StagingBuffer {
    buffer: Allocation,
    direction: Direction,
    /// Whether it is the one that is kept for parameters.
    reserved: bool,
}

impl StagingBuffer {
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.buffer.raw
    }

    /// Puts `bytes` at the start of a mapped buffer and unmaps it, ready for commands.
    fn fill(&self, gpu: &Gpu, bytes: &[u8]) -> Result<()> {
        gpu.may_map()?;
        let range = self
            .raw()
            .slice(..bytes.len() as u64)
            .get_mapped_range_mut();
        let mut view = range.map_err(|error| gpu.give_up(not_mapped(&error)))?;
        view.copy_from_slice(bytes);
        drop(view);
        self.raw().unmap();
        Ok(())
    }
}

/// Staging that cannot be mapped is a sign of a device that is lost, or as good as lost: nothing can be got from it.
fn not_mapped(error: &dyn std::fmt::Display) -> String {
    format!("staging memory could not be mapped: {error}")
}

/// The staging buffers of a GPU that are free, and how many bytes are not.
#[derive(Debug)]
pub(super) struct Staging {
    /// Bytes that staging keeps to: at most a half is kept free, a quarter carries to the device, and the pieces of a
    /// download take less than the last quarter.
    share: AtomicU64,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    free: Mutex<Free>,
    /// A reserved buffer has come back.
    returned: Condvar,
}

#[derive(Debug, Default)]
struct Free {
    buffers: HashMap<(Direction, u64), Vec<StagingBuffer>>,
    /// Bytes of them.
    kept: u64,
    /// Bytes of upload staging that are in use.
    uploading: u64,
    /// One for each direction, unless it is in use: for parameters, without which nothing that is recorded could be
    /// submitted, and for taking from the device what must make way.
    reserved: SmallVec<[StagingBuffer; 2]>,
    /// The one for downloads was in one that failed, and will not come back.
    lost: bool,
}

impl Free {
    fn take(&mut self, direction: Direction, class: u64) -> Option<StagingBuffer> {
        let taken = self.buffers.get_mut(&(direction, class))?.pop()?;
        self.kept -= class;
        Some(taken)
    }

    /// Keeps a buffer, unless there are enough.
    fn put(&mut self, staging: StagingBuffer, most: u64) {
        if staging.reserved {
            self.reserved.push(staging);
            return;
        }
        let class = staging.raw().size();
        if self.kept + class <= most {
            self.kept += class;
            let key = (staging.direction, class);
            self.buffers.entry(key).or_default().push(staging);
        }
    }

    fn take_reserved(&mut self, direction: Direction) -> Option<StagingBuffer> {
        let wanted = |staging: &StagingBuffer| staging.direction == direction;
        let at = self.reserved.iter().position(wanted)?;
        Some(self.reserved.swap_remove(at))
    }

    /// Lets go of those of other classes until there is room for one of this class among the most that are kept.
    fn make_room(&mut self, direction: Direction, class: u64, most: u64) {
        for (key, buffers) in &mut self.buffers {
            while *key != (direction, class) && self.kept + class > most && buffers.pop().is_some()
            {
                self.kept -= key.1;
            }
        }
    }
}

impl Staging {
    /// Staging that keeps to a share of the memory.
    pub(super) fn new(share: u64) -> Self {
        Self {
            share: AtomicU64::new(share),
            shared: Arc::default(),
        }
    }

    /// Makes the buffers that are always there.
    pub(super) fn reserve(&self, gpu: &Gpu) -> Result<()> {
        let download = self.piece().min(MOST_RESERVED);
        for (direction, bytes) in [
            (Direction::ToDevice, gpu.arena.raw.size()),
            (Direction::ToHost, download),
        ] {
            let mut staging = Self::create(gpu, direction, bytes)?;
            staging.reserved = true;
            self.free().reserved.push(staging);
        }
        Ok(())
    }

    /// Keeps to a smaller share from now on, since the driver has no more memory.
    pub(super) fn limit_to(&self, share: u64) {
        self.share
            .fetch_min(share.max(16 * SMALLEST), Ordering::Relaxed);
    }

    fn share(&self) -> u64 {
        self.share.load(Ordering::Relaxed)
    }

    /// The largest piece in which a transfer is staged.
    fn piece(&self) -> u64 {
        prev_power_of_two(self.share() / 16).clamp(SMALLEST, PIECE)
    }

    /// Bytes of free buffers that are kept.
    fn most_kept(&self) -> u64 {
        self.share() / 2
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        let free = &self.shared.free;
        free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A staging buffer of at least `bytes`, mapped if it carries to the device.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it even without all idle buffers.
    pub(super) fn take(
        &self,
        gpu: &Gpu,
        direction: Direction,
        bytes: u64,
    ) -> Result<StagingBuffer> {
        let class = bytes.next_power_of_two().max(SMALLEST);
        let found = {
            let mut free = self.free();
            let found = free.take(direction, class);
            if found.is_none() {
                free.make_room(direction, class, self.most_kept());
            }
            found
        };
        let staging = match found {
            Some(staging) => staging,
            None => match Self::create(gpu, direction, class) {
                Err(Error::DeviceMemory { .. }) => {
                    self.make_room(gpu)?;
                    Self::create(gpu, direction, class)?
                }
                created => created?,
            },
        };
        if direction == Direction::ToDevice {
            self.free().uploading += class;
        }
        Ok(staging)
    }

    /// A mapped staging buffer for so many bytes of parameters, whether or not there is room for another. The recorder may
    /// be locked.
    pub(super) fn take_for_parameters(&self, gpu: &Gpu, bytes: u64) -> Result<StagingBuffer> {
        match self.take(gpu, Direction::ToDevice, bytes) {
            Err(error @ Error::DeviceMemory { .. }) => {
                // Everything submitted is done by now, so that it is back.
                let mut free = self.free();
                let reserved = free.take_reserved(Direction::ToDevice).ok_or(error)?;
                free.uploading += reserved.raw().size();
                Ok(reserved)
            }
            taken => taken,
        }
    }

    /// The staging buffer that is kept for downloads; `None` if it is lost. Waits until it is not in use: whoever has it
    /// needs nothing that the caller may have, but the recorder must not be locked.
    fn take_for_download(&self) -> Option<StagingBuffer> {
        let mut free = self.free();
        while !free.lost {
            let reserved = free.take_reserved(Direction::ToHost);
            if reserved.is_some() {
                return reserved;
            }
            let returned = &self.shared.returned;
            free = returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// The staging buffer that is kept for downloads will not come back.
    fn lose_reserved(&self) {
        self.free().lost = true;
        self.shared.returned.notify_all();
    }

    fn create(gpu: &Gpu, direction: Direction, class: u64) -> Result<StagingBuffer> {
        let usage = match direction {
            Direction::ToDevice => wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            Direction::ToHost => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        };
        let mapped = direction == Direction::ToDevice;
        let buffer = gpu.create_buffer(Purpose::Staging, class, usage, mapped)?;
        Ok(StagingBuffer {
            buffer,
            direction,
            reserved: false,
        })
    }

    /// Lets go of all buffers that nobody uses, once the GPU does not either. The recorder may be locked.
    fn make_room(&self, gpu: &Gpu) -> Result<()> {
        if let Some(latest) = gpu.timeline.latest() {
            gpu.wait(latest)?;
        }
        self.release();
        gpu.forget_bind_groups(&gpu.pool.release(u64::MAX));
        gpu.poll(wgpu::PollType::Poll)
    }

    /// Lets go of all buffers that are kept for reuse. Whether there were any.
    pub(super) fn release(&self) -> bool {
        let mut free = self.free();
        free.kept = 0;
        let idle = std::mem::take(&mut free.buffers);
        drop(free);
        idle.values().any(|buffers| !buffers.is_empty())
    }

    /// Whether so much upload staging is in use that some should come back first.
    fn is_exhausted(&self) -> bool {
        self.free().uploading >= (self.share() / 4).min(UPLOAD_BYTES)
    }

    /// Fills a mapped buffer; one that fails will not come back.
    pub(super) fn fill(&self, gpu: &Gpu, staging: &StagingBuffer, bytes: &[u8]) -> Result<()> {
        staging
            .fill(gpu, bytes)
            .inspect_err(|_| self.forget(staging))
    }

    /// Takes a buffer back after the submission that uses it; it becomes free once that is done.
    pub(super) fn give_back(&self, staging: StagingBuffer) {
        let most = self.most_kept();
        match staging.direction {
            Direction::ToHost => {
                self.free().put(staging, most);
                self.shared.returned.notify_all();
            }
            Direction::ToDevice => {
                let shared = Arc::clone(&self.shared);
                let buffer = staging.raw().clone();
                buffer.map_async(wgpu::MapMode::Write, .., move |outcome| {
                    let free = shared.free.lock();
                    let mut free = free.unwrap_or_else(PoisonError::into_inner);
                    free.uploading -= staging.raw().size();
                    if outcome.is_ok() {
                        free.put(staging, most);
                    }
                });
            }
        }
    }

    /// Counts out a buffer that will not come back.
    fn forget(&self, staging: &StagingBuffer) {
        if staging.direction == Direction::ToDevice {
            self.free().uploading -= staging.raw().size();
        }
    }
}

/// A piece of a download under way: its staging buffer, the submission that fills it, and where it goes.
type Download<'a> = (StagingBuffer, u64, &'a mut [u8]);

impl Gpu {
    /// Fails where a test wants a mapping to fail.
    fn may_map(&self) -> Result<()> {
        if self.meets_fault(FaultPoint::Mapping) {
            return Err(self.give_up(not_mapped(&"a test wants it to fail")));
        }
        Ok(())
    }

    /// Copies `source` to a device buffer, in the order of the queue. The source may change as soon as this returns.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage even the smallest piece.
    pub(crate) fn upload(&self, target: &DeviceBuffer, offset: u64, source: &[u8]) -> Result<()> {
        let mut at = offset;
        let mut rest = source;
        let mut most = self.staging.piece();
        let mut has_waited = false;
        while !rest.is_empty() {
            self.let_uploads_finish()?;
            let bytes = most.min(rest.len() as u64);
            let staging = match self.staging.take(self, Direction::ToDevice, bytes) {
                // What is recorded and not submitted holds some.
                Err(Error::DeviceMemory { .. }) if !has_waited => {
                    self.wait_for_all()?;
                    has_waited = true;
                    continue;
                }
                Err(Error::DeviceMemory { .. }) if bytes > SMALLEST => {
                    most = prev_power_of_two(bytes / 2).max(SMALLEST);
                    continue;
                }
                taken => taken?,
            };
            has_waited = false;
            let (piece, later) = rest.split_at(bytes as usize);
            self.staging.fill(self, &staging, piece)?;
            let mut recorder = self.recorder();
            recorder.copy(self, (staging.raw(), 0), (target.raw(), at), bytes)?;
            recorder.recycle(staging);
            if source.len() as u64 > most {
                // Let the copy of this piece overlap with filling the next.
                recorder.flush(self, Waiting::NotYet)?;
            }
            at += bytes;
            rest = later;
        }
        self.check()
    }

    /// Waits for submissions, the oldest first, while so much upload staging is in use that some must come back.
    fn let_uploads_finish(&self) -> Result<()> {
        while self.staging.is_exhausted() {
            self.flush()?;
            match self.timeline.oldest() {
                Some((oldest, _)) => self.wait(oldest)?,
                // All is done, though nobody may have looked since.
                None => return self.poll(wgpu::PollType::Poll),
            }
        }
        Ok(())
    }

    /// Copies from a device buffer to `target`, after everything queued before it. Waits.
    pub(crate) fn download(
        &self,
        source: &DeviceBuffer,
        offset: u64,
        target: &mut [u8],
    ) -> Result<()> {
        let mut has_reserved = false;
        let done = self.download_with((source, offset), target, &mut has_reserved);
        if done.is_err() && has_reserved {
            self.staging.lose_reserved();
        }
        done
    }

    /// Downloads; notes in `has_reserved` whether the staging buffer that is always there is in use for it.
    fn download_with(
        &self,
        (source, offset): (&DeviceBuffer, u64),
        target: &mut [u8],
        has_reserved: &mut bool,
    ) -> Result<()> {
        let mut at = offset;
        let mut rest = target;
        let mut most = self.staging.piece();
        let mut under_way: VecDeque<Download<'_>> = VecDeque::with_capacity(DOWNLOADS);
        loop {
            while under_way.len() < DOWNLOADS && !rest.is_empty() {
                let mut bytes = most.min(rest.len() as u64);
                let staging = match self.staging.take(self, Direction::ToHost, bytes) {
                    // What is under way will come back first.
                    Err(Error::DeviceMemory { .. }) if !under_way.is_empty() => break,
                    Err(error @ Error::DeviceMemory { .. }) => {
                        let reserved = self.staging.take_for_download().ok_or(error)?;
                        *has_reserved = true;
                        most = reserved.raw().size();
                        bytes = bytes.min(most);
                        reserved
                    }
                    taken => taken?,
                };
                let (piece, later) = rest.split_at_mut(bytes as usize);
                rest = later;
                under_way.push_back(self.begin_download(staging, (source, at), piece)?);
                at += bytes;
            }
            let Some(oldest) = under_way.pop_front() else {
                return Ok(());
            };
            let was_reserved = oldest.0.reserved;
            self.finish_download(oldest)?;
            *has_reserved &= !was_reserved;
        }
    }

    fn begin_download<'a>(
        &self,
        staging: StagingBuffer,
        (source, offset): (&DeviceBuffer, u64),
        piece: &'a mut [u8],
    ) -> Result<Download<'a>> {
        let bytes = piece.len() as u64;
        let mut recorder = self.recorder();
        recorder.copy(self, (source.raw(), offset), (staging.raw(), 0), bytes)?;
        let number = recorder
            .flush(self, Waiting::Now)?
            .ok_or_else(|| self.error("nothing was submitted".into()))?;
        drop(recorder);
        staging
            .raw()
            .map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        Ok((staging, number, piece))
    }

    fn finish_download(&self, (staging, number, piece): Download<'_>) -> Result<()> {
        self.wait(number)?;
        self.check()?;
        self.may_map()?;
        let view = staging
            .raw()
            .slice(..piece.len() as u64)
            .get_mapped_range()
            .map_err(|error| self.give_up(not_mapped(&error)))?;
        piece.copy_from_slice(&view);
        drop(view);
        staging.raw().unmap();
        self.staging.give_back(staging);
        Ok(())
    }

    /// Copies between buffers of this GPU, in the order of the queue.
    pub(crate) fn copy(
        &self,
        source: (&DeviceBuffer, u64),
        target: (&DeviceBuffer, u64),
        bytes: u64,
    ) -> Result<()> {
        self.recorder().copy(
            self,
            (source.0.raw(), source.1),
            (target.0.raw(), target.1),
            bytes,
        )?;
        self.check()
    }
}
