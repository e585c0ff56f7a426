//! Host-visible buffers through which bytes move between host memory and device buffers, kept for reuse.
//!
//! Never `Queue::write_buffer`: out of memory in the staging behind it loses the device. Here what is in flight is
//! bounded, and where the driver has no room for a staging buffer, transfers go on in smaller pieces.

use super::allocation::{Allocation, BufferRequest};
use super::connection::Connection;
use super::faults::FaultPoint;
use super::memory::{Memory, Purpose, prev_power_of_two};
use super::pool::BufferPool;
use crate::error::{Error, Result};
use smallvec::SmallVec;
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Which way a staging buffer carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    ToDevice,
    ToHost,
}

/// A host-visible buffer. One that carries to the device is mapped while no commands use it.
#[derive(Debug)]
pub(super) struct StagingBuffer {
    buffer: Allocation,
    direction: Direction,
    /// Whether it is one that is always there.
    reserved: bool,
}

impl StagingBuffer {
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.buffer.raw
    }

    /// Whether it is one that is always there.
    pub(super) fn is_reserved(&self) -> bool {
        self.reserved
    }

    /// Puts `bytes` at the start of a mapped buffer and unmaps it, ready for commands.
    fn fill(&self, connection: &Connection, bytes: &[u8]) -> Result<()> {
        meet_mapping_fault(connection)?;
        let range = self
            .raw()
            .slice(..bytes.len() as u64)
            .get_mapped_range_mut();
        let mut view = range.map_err(|error| connection.give_up(not_mapped(&error)))?;
        view.copy_from_slice(bytes);
        drop(view);
        self.raw().unmap();
        Ok(())
    }

    /// Copies the start of a buffer whose mapping is complete to `target`, and unmaps it.
    pub(super) fn read(&self, connection: &Connection, target: &mut [u8]) -> Result<()> {
        meet_mapping_fault(connection)?;
        let range = self.raw().slice(..target.len() as u64).get_mapped_range();
        let view = range.map_err(|error| connection.give_up(not_mapped(&error)))?;
        target.copy_from_slice(&view);
        drop(view);
        self.raw().unmap();
        Ok(())
    }
}

/// Fails where a test wants a mapping to fail.
fn meet_mapping_fault(connection: &Connection) -> Result<()> {
    if connection.meets_fault(FaultPoint::Mapping) {
        return Err(connection.give_up(not_mapped(&"a test wants it to fail")));
    }
    Ok(())
}

/// Staging that cannot be mapped is a sign of a device that is lost, or as good as lost: nothing can be got from it.
fn not_mapped(error: &dyn std::fmt::Display) -> String {
    format!("staging memory could not be mapped: {error}")
}

/// The staging buffers of a GPU that are free, and how many bytes are not.
///
/// They keep to a share of the memory: at most a half of it is kept free, a quarter carries to the device, and the pieces
/// of a download take less than the last quarter.
#[derive(Debug)]
pub(super) struct Staging {
    free: Arc<FreeBuffers>,
    pool: Arc<BufferPool>,
    memory: Arc<Memory>,
    connection: Arc<Connection>,
}

/// The free buffers, which those in use come back to.
#[derive(Debug, Default)]
struct FreeBuffers {
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

impl FreeBuffers {
    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Staging with the buffers that are always there.
    pub(super) fn new(
        connection: &Arc<Connection>,
        memory: &Arc<Memory>,
        pool: &Arc<BufferPool>,
    ) -> Result<Self> {
        let staging = Self {
            free: Arc::default(),
            pool: Arc::clone(pool),
            memory: Arc::clone(memory),
            connection: Arc::clone(connection),
        };
        let reserved = connection.tuning().reserved_download_bytes;
        for (direction, bytes) in [
            (Direction::ToDevice, memory.shares().parameters),
            (Direction::ToHost, staging.piece().min(reserved)),
        ] {
            let mut buffer = staging.create(direction, bytes)?;
            buffer.reserved = true;
            staging.free().reserved.push(buffer);
        }
        Ok(staging)
    }

    /// The largest piece in which a transfer is staged.
    pub(super) fn piece(&self) -> u64 {
        let tuning = self.connection.tuning();
        let piece = prev_power_of_two(self.memory.staging_share() / 16);
        piece.clamp(tuning.smallest_piece, tuning.largest_piece)
    }

    /// Bytes of free buffers that are kept.
    fn most_kept(&self) -> u64 {
        self.memory.staging_share() / 2
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock()
    }

    /// A staging buffer of at least `bytes`, mapped if it carries to the device.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for it even without all idle buffers.
    pub(super) fn take(&self, direction: Direction, bytes: u64) -> Result<StagingBuffer> {
        let smallest = self.connection.tuning().smallest_piece;
        let class = bytes.next_power_of_two().max(smallest);
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
            None => match self.create(direction, class) {
                Err(Error::DeviceMemory { .. }) => {
                    self.make_room()?;
                    self.create(direction, class)?
                }
                created => created?,
            },
        };
        if direction == Direction::ToDevice {
            self.free().uploading += class;
        }
        Ok(staging)
    }

    /// A mapped staging buffer for `bytes` bytes of parameters, whether or not there is room for another. The recorder may
    /// be locked.
    pub(super) fn take_for_parameters(&self, bytes: u64) -> Result<StagingBuffer> {
        match self.take(Direction::ToDevice, bytes) {
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

    /// The staging buffer that is kept for downloads; `None` if it is lost. Waits until it is not in use: the thread that has
    /// it needs nothing that the caller may have, but the recorder must not be locked.
    pub(super) fn take_for_download(&self) -> Option<StagingBuffer> {
        let mut free = self.free();
        while !free.lost {
            let reserved = free.take_reserved(Direction::ToHost);
            if reserved.is_some() {
                return reserved;
            }
            let returned = &self.free.returned;
            free = returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        None
    }

    /// The staging buffer that is kept for downloads will not come back.
    pub(super) fn lose_reserved(&self) {
        self.free().lost = true;
        self.free.returned.notify_all();
    }

    fn create(&self, direction: Direction, class: u64) -> Result<StagingBuffer> {
        let usage = match direction {
            Direction::ToDevice => wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
            Direction::ToHost => wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
        };
        let request = BufferRequest {
            purpose: Purpose::Staging,
            bytes: class,
            usage,
            mapped: direction == Direction::ToDevice,
        };
        Ok(StagingBuffer {
            buffer: Allocation::new(&self.connection, &self.memory, &request)?,
            direction,
            reserved: false,
        })
    }

    /// Lets go of all buffers that are not in use, once the GPU does not use them either. The recorder may be locked.
    fn make_room(&self) -> Result<()> {
        let connection = &self.connection;
        if let Some(latest) = connection.timeline().latest() {
            connection.wait(latest)?;
        }
        self.release();
        self.pool.release(u64::MAX);
        connection.poll(wgpu::PollType::Poll)
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
    pub(super) fn is_exhausted(&self) -> bool {
        let most = self.connection.tuning().upload_bytes;
        self.free().uploading >= (self.memory.staging_share() / 4).min(most)
    }

    /// Fills a mapped buffer; one that fails will not come back.
    pub(super) fn fill(&self, staging: &StagingBuffer, bytes: &[u8]) -> Result<()> {
        staging
            .fill(&self.connection, bytes)
            .inspect_err(|_| self.forget(staging))
    }

    /// Takes a buffer back after the submission that uses it; it becomes free once that is done.
    pub(super) fn give_back(&self, staging: StagingBuffer) {
        let most = self.most_kept();
        match staging.direction {
            Direction::ToHost => {
                self.free().put(staging, most);
                self.free.returned.notify_all();
            }
            Direction::ToDevice => {
                let buffers = Arc::clone(&self.free);
                let buffer = staging.raw().clone();
                buffer.map_async(wgpu::MapMode::Write, .., move |outcome| {
                    let mut free = buffers.lock();
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
