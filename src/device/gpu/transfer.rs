//! Moving bytes between host memory and device buffers through reused staging buffers.
//!
//! Never `Queue::write_buffer`: out of memory in the staging behind it loses the device. Here an allocation that fails
//! is an error, and what is in flight is bounded.

use super::Gpu;
use super::pool::DeviceBuffer;
use super::recorder::Waiting;
use crate::error::{Error, Result};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

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
    buffer: wgpu::Buffer,
    direction: Direction,
}

impl StagingBuffer {
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.buffer
    }

    /// Puts `bytes` at the start of a mapped buffer and unmaps it, ready for commands.
    fn fill(&self, bytes: &[u8]) -> Result<()> {
        let range = self
            .buffer
            .slice(..bytes.len() as u64)
            .get_mapped_range_mut();
        let mut view = range.map_err(|e| mapping_failed(&e))?;
        view.copy_from_slice(bytes);
        drop(view);
        self.buffer.unmap();
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
#[derive(Debug, Default)]
pub(super) struct Staging {
    free: Arc<Mutex<Free>>,
}

#[derive(Debug, Default)]
struct Free {
    buffers: HashMap<(Direction, u64), Vec<StagingBuffer>>,
    /// Bytes of upload staging that are in use.
    uploading: u64,
}

impl Staging {
    /// A staging buffer of at least `bytes`, mapped if it carries to the device.
    pub(super) fn take(
        &self,
        gpu: &Gpu,
        direction: Direction,
        bytes: u64,
    ) -> Result<StagingBuffer> {
        let class = bytes.next_power_of_two().max(SMALLEST);
        {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            if direction == Direction::ToDevice {
                free.uploading += class;
            }
            if let Some(staging) = free.buffers.get_mut(&(direction, class)).and_then(Vec::pop) {
                return Ok(staging);
            }
        }
        let usage = match direction {
            Direction::ToDevice => wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            Direction::ToHost => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        };
        let mapped = direction == Direction::ToDevice;
        match gpu.create_buffer(class, usage, mapped) {
            Ok(buffer) => Ok(StagingBuffer { buffer, direction }),
            Err(error) => {
                self.forget(direction, class);
                Err(error)
            }
        }
    }

    /// Whether so much upload staging is in use that some should come back first.
    fn is_exhausted(&self) -> bool {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .uploading
            >= UPLOAD_BYTES
    }

    /// Fills a mapped buffer; one that fails will not come back.
    pub(super) fn fill(&self, staging: &StagingBuffer, bytes: &[u8]) -> Result<()> {
        staging
            .fill(bytes)
            .inspect_err(|_| self.forget(staging.direction, staging.buffer.size()))
    }

    /// Takes a buffer back after the submission that uses it; it becomes free once that is done.
    pub(super) fn give_back(&self, staging: StagingBuffer) {
        let class = staging.buffer.size();
        match staging.direction {
            Direction::ToHost => self.put(staging, class),
            Direction::ToDevice => {
                let free = Arc::clone(&self.free);
                let buffer = staging.buffer.clone();
                buffer.map_async(wgpu::MapMode::Write, .., move |outcome| {
                    let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
                    free.uploading -= class;
                    if outcome.is_ok() {
                        free.buffers
                            .entry((staging.direction, class))
                            .or_default()
                            .push(staging);
                    }
                });
            }
        }
    }

    fn put(&self, staging: StagingBuffer, class: u64) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.buffers
            .entry((staging.direction, class))
            .or_default()
            .push(staging);
    }

    /// Counts out a buffer that will not come back.
    fn forget(&self, direction: Direction, class: u64) {
        if direction == Direction::ToDevice {
            self.free
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .uploading -= class;
        }
    }
}

impl Gpu {
    /// Copies `source` to a device buffer, in the order of the queue. The source may change as soon as this returns.
    pub(crate) fn upload(&self, target: &DeviceBuffer, offset: u64, source: &[u8]) -> Result<()> {
        let mut at = offset;
        for piece in source.chunks(PIECE as usize) {
            if self.staging.is_exhausted() {
                self.wait_for_all()?;
            }
            let bytes = piece.len() as u64;
            let staging = self.staging.take(self, Direction::ToDevice, bytes)?;
            self.staging.fill(&staging, piece)?;
            let mut recorder = self.recorder();
            recorder.copy(self, (staging.raw(), 0), (target.raw(), at), bytes)?;
            recorder.recycle(staging);
            if source.len() as u64 > PIECE {
                // Let the copy of this piece overlap with filling the next.
                recorder.flush(self, Waiting::NotYet)?;
            }
            at += bytes;
        }
        self.check()
    }

    /// Copies from a device buffer to `target`, after everything queued before it. Waits.
    pub(crate) fn download(
        &self,
        source: &DeviceBuffer,
        offset: u64,
        target: &mut [u8],
    ) -> Result<()> {
        let mut at = offset;
        let mut pieces = target.chunks_mut(PIECE as usize);
        let mut under_way: VecDeque<(StagingBuffer, u64, &mut [u8])> =
            VecDeque::with_capacity(DOWNLOADS);
        loop {
            while under_way.len() < DOWNLOADS {
                let Some(piece) = pieces.next() else { break };
                let bytes = piece.len() as u64;
                let staging = self.staging.take(self, Direction::ToHost, bytes)?;
                let mut recorder = self.recorder();
                recorder.copy(self, (source.raw(), at), (staging.raw(), 0), bytes)?;
                let number = recorder
                    .flush(self, Waiting::Now)?
                    .ok_or_else(|| mapping_failed(&"nothing was submitted"))?;
                drop(recorder);
                staging
                    .raw()
                    .map_async(wgpu::MapMode::Read, ..bytes, |_| {});
                under_way.push_back((staging, number, piece));
                at += bytes;
            }
            let Some((staging, number, piece)) = under_way.pop_front() else {
                return Ok(());
            };
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
        }
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
