//! Moving bytes between host memory and device buffers through reused staging buffers.
//!
//! Never `Queue::write_buffer`: out of memory in the staging behind it loses the device. Here what is in flight is
//! bounded, and where the driver has no room for a staging buffer, transfers go on in smaller pieces.

use super::memory::{Allocation, Purpose, prev_power_of_two};
use super::pool::DeviceBuffer;
use super::recorder::Waiting;
use super::Gpu;
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest piece in which a transfer is staged: large enough to run at full speed, small enough that filling one
/// overlaps with copying another.
const PIECE: u64 = 8 << 20;
/// The smallest staging buffer.
const SMALLEST: u64 = 4 << 10;
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
    fn fill(&self, bytes: &[u8]) -> Result<()> {
        let range = self
            .raw()
            .slice(..bytes.len() as u64)
            .get_mapped_range_mut();
        let mut view = range.map_err(|e| mapping_failed(&e))?;
        view.copy_from_slice(bytes);
        drop(view);
        self.raw().unmap();
        Ok(())
    }
}

fn mapping_failed(error: &dyn std::fmt::Display) -> Error {
    Error::Gpu {
        device: "staging memory".into(),
        message: error.to_string(),
    }
}

/// The staging buffers of a GPU that are free, and how many bytes are not.
#[derive(Debug)]
pub(super) struct Staging {
    /// The largest piece in which a transfer is staged.
    piece: u64,
    /// Bytes of upload staging in use before some must come back.
    most_uploading: u64,
    /// Bytes of free buffers that are kept.
    most_kept: u64,
    free: Arc<Mutex<Free>>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: HashMap<(Direction, u64), Vec<StagingBuffer>>,
    /// Bytes of them.
    kept: u64,
    /// Bytes of upload staging that are in use.
    uploading: u64,
    /// One for parameters, without which nothing that is recorded could be submitted, unless it is in use.
    reserved: Option<StagingBuffer>,
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
            self.reserved = Some(staging);
            return;
        }
        let class = staging.raw().size();
        if self.kept + class <= most {
            self.kept += class;
            let key = (staging.direction, class);
            self.buffers.entry(key).or_default().push(staging);
        }
    }

    /// Lets go of those of other classes until there is room for one of this class among the most that are kept.
    fn make_room(&mut self, direction: Direction, class: u64, most: u64) {
        for (key, buffers) in &mut self.buffers {
            while *key != (direction, class) && self.kept + class > most && buffers.pop().is_some() {
                self.kept -= key.1;
            }
        }
    }
}

impl Staging {
    /// Staging that keeps to a share of the memory: at most a half is kept free, a quarter carries to the device, and the
    /// pieces of a download take less than the last quarter.
    pub(super) fn new(share: u64) -> Self {
        Self {
            piece: prev_power_of_two(share / 16).clamp(SMALLEST, PIECE),
            most_uploading: (share / 4).min(UPLOAD_BYTES),
            most_kept: share / 2,
            free: Arc::default(),
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
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
                free.make_room(direction, class, self.most_kept);
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

    /// Makes the staging buffer that is kept for parameters.
    pub(super) fn reserve(&self, gpu: &Gpu) -> Result<()> {
        let mut staging = Self::create(gpu, Direction::ToDevice, gpu.arena.raw.size())?;
        staging.reserved = true;
        self.free().reserved = Some(staging);
        Ok(())
    }

    /// A mapped staging buffer for so many bytes of parameters, whether or not there is room for another. The recorder may
    /// be locked.
    pub(super) fn take_for_parameters(&self, gpu: &Gpu, bytes: u64) -> Result<StagingBuffer> {
        match self.take(gpu, Direction::ToDevice, bytes) {
            Err(error @ Error::DeviceMemory { .. }) => {
                // Everything submitted is done by now, so that it is back.
                let mut free = self.free();
                let reserved = free.reserved.take().ok_or(error)?;
                free.uploading += reserved.raw().size();
                Ok(reserved)
            }
            taken => taken,
        }
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
        let idle = {
            let mut free = self.free();
            free.kept = 0;
            std::mem::take(&mut free.buffers)
        };
        drop(idle);
        gpu.forget_bind_groups(&gpu.pool.release(u64::MAX));
        gpu.poll(wgpu::PollType::Poll)
    }

    /// Whether so much upload staging is in use that some should come back first.
    fn is_exhausted(&self) -> bool {
        self.free().uploading >= self.most_uploading
    }

    /// Fills a mapped buffer; one that fails will not come back.
    pub(super) fn fill(&self, staging: &StagingBuffer, bytes: &[u8]) -> Result<()> {
        staging
            .fill(bytes)
            .inspect_err(|_| self.forget(staging))
    }

    /// Takes a buffer back after the submission that uses it; it becomes free once that is done.
    pub(super) fn give_back(&self, staging: StagingBuffer) {
        let most = self.most_kept;
        match staging.direction {
            Direction::ToHost => self.free().put(staging, most),
            Direction::ToDevice => {
                let free = Arc::clone(&self.free);
                let buffer = staging.raw().clone();
                buffer.map_async(wgpu::MapMode::Write, .., move |outcome| {
                    let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
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
    /// Copies `source` to a device buffer, in the order of the queue. The source may change as soon as this returns.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage even the smallest piece.
    pub(crate) fn upload(&self, target: &DeviceBuffer, offset: u64, source: &[u8]) -> Result<()> {
        let mut at = offset;
        let mut rest = source;
        let mut most = self.staging.piece;
        while !rest.is_empty() {
            self.let_uploads_finish()?;
            let bytes = most.min(rest.len() as u64);
            let staging = match self.staging.take(self, Direction::ToDevice, bytes) {
                Err(Error::DeviceMemory { .. }) if bytes > SMALLEST => {
                    most = prev_power_of_two(bytes / 2).max(SMALLEST);
                    continue;
                }
                taken => taken?,
            };
            let (piece, later) = rest.split_at(bytes as usize);
            self.staging.fill(&staging, piece)?;
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
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage even the smallest piece.
    pub(crate) fn download(
        &self,
        source: &DeviceBuffer,
        offset: u64,
        target: &mut [u8],
    ) -> Result<()> {
        let mut at = offset;
        let mut rest = target;
        let mut most = self.staging.piece;
        let mut under_way: VecDeque<Download<'_>> = VecDeque::with_capacity(DOWNLOADS);
        loop {
            while under_way.len() < DOWNLOADS && !rest.is_empty() {
                let bytes = most.min(rest.len() as u64);
                let staging = match self.staging.take(self, Direction::ToHost, bytes) {
                    // What is under way will come back first.
                    Err(Error::DeviceMemory { .. }) if !under_way.is_empty() => break,
                    Err(Error::DeviceMemory { .. }) if bytes > SMALLEST => {
                        most = prev_power_of_two(bytes / 2).max(SMALLEST);
                        continue;
                    }
                    taken => taken?,
                };
                let (piece, later) = rest.split_at_mut(bytes as usize);
                rest = later;
                under_way.push_back(self.begin_download(staging, (source, at), piece)?);
                at += bytes;
            }
            match under_way.pop_front() {
                Some(oldest) => self.finish_download(oldest)?,
                None => return Ok(()),
            }
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
            .ok_or_else(|| mapping_failed(&"nothing was submitted"))?;
        drop(recorder);
        staging
            .raw()
            .map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        Ok((staging, number, piece))
    }

    fn finish_download(&self, (staging, number, piece): Download<'_>) -> Result<()> {
        self.wait(number)?;
        self.check()?;
        let view = staging
            .raw()
            .slice(..piece.len() as u64)
            .get_mapped_range()
            .map_err(|e| mapping_failed(&e))?;
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
