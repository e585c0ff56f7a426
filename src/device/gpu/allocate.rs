//! Buffers for arrays: idle ones first, then new ones, as far as there is room.

use super::gpu::Gpu;
use super::pool::{DeviceBuffer, PooledBuffer};
use crate::device::buffer_size::{BUFFER_GRAIN, buffer_class};
use crate::error::{Error, Result};
use std::sync::Arc;

impl Gpu {
    /// The most bytes that arrays may take together, if that is limited.
    pub(crate) fn array_budget(&self) -> Option<u64> {
        Some(self.memory.shares().arrays).filter(|bytes| *bytes != u64::MAX)
    }

    /// The largest buffer that an array may have.
    pub(crate) fn largest_buffer(&self) -> u64 {
        let budget = self.memory.shares().arrays / 256 * 256;
        self.limits().max_buffer_bytes.min(budget)
    }

    /// A buffer of at least `bytes` bytes, of unspecified contents.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if the GPU has no room.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Arc<DeviceBuffer>> {
        let class = buffer_class(bytes)
            .min(self.largest_buffer())
            .max(bytes.next_multiple_of(BUFFER_GRAIN));
        let buffer = match self.pool.take(class..=class) {
            Some(reused) => reused,
            None => self.new_buffer(class)?,
        };
        Ok(self.pool.give_out(buffer))
    }

    /// A buffer of a class of which none is idle.
    fn new_buffer(&self, class: u64) -> Result<PooledBuffer> {
        loop {
            let refused = match self.pool.create(class) {
                Err(error @ Error::DeviceMemory { .. }) => error,
                made => return made,
            };
            // Idle buffers may be what is in the way; one that is not much larger will do.
            if let Some(near) = self.pool.take(class..=class.saturating_add(class / 4)) {
                return Ok(near);
            }
            let released = self.pool.release(class);
            if !released && !self.memory.has_room_for_arrays(class) {
                return Err(refused);
            }
            // Memory is free once nothing under way uses it.
            self.wait_for_all()?;
            // If it is the driver that has no more, staging may be what is in the way.
            if !released && !self.staging.release() {
                return Err(refused);
            }
        }
    }
}
