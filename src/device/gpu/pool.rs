//! Device buffers in size classes, kept for reuse: creating one costs more than a small kernel, and wgpu clears a new
//! one before its first use.
//!
//! A buffer may be given out again while commands that use it are still queued: everything a GPU does for Divvy goes
//! through one queue, in order, so whatever is recorded later runs later.

use super::Gpu;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, Weak};

/// Buffers are a multiple of this: the coarsest binding alignment, so that vec4 tails stay inside.
pub(super) const BUFFER_GRAIN: u64 = 256;
/// Idle buffers are kept up to this many bytes in all; beyond it the largest class goes first.
const IDLE_BYTES: u64 = 512 << 20;

/// A buffer in a GPU's memory; goes back to the pool when the last user drops it.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    buffer: Option<wgpu::Buffer>,
    id: u64,
    gpu: Weak<Gpu>,
}

impl DeviceBuffer {
    pub(super) fn new(buffer: wgpu::Buffer, id: u64, gpu: Weak<Gpu>) -> Self {
        Self {
            buffer: Some(buffer),
            id,
            gpu,
        }
    }

    /// The wgpu buffer.
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        self.buffer.as_ref().expect("taken only in drop")
    }

    /// Unique among the buffers of the process; stays with the wgpu buffer through the pool.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes, a multiple of 256.
    pub(super) fn bytes(&self) -> u64 {
        self.raw().size()
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let (Some(buffer), Some(gpu)) = (self.buffer.take(), self.gpu.upgrade()) {
            let evicted = gpu.pool.put(buffer, self.id);
            gpu.forget_bind_groups(&evicted);
        }
    }
}

/// The idle buffers of a GPU.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    idle: Mutex<Idle>,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Idle {
    classes: HashMap<u64, Vec<(wgpu::Buffer, u64)>>,
    bytes: u64,
}

impl BufferPool {
    /// The size class for `bytes`: the next of 256 * {4, 5, 6, 7} * 2^k, so at most a quarter is wasted.
    pub(super) fn class(bytes: u64) -> u64 {
        let grains = bytes.div_ceil(BUFFER_GRAIN).max(4);
        let step = 1u64 << (grains.ilog2() - 2);
        grains.next_multiple_of(step) * BUFFER_GRAIN
    }

    /// An idle buffer of a class.
    pub(super) fn take(&self, class: u64) -> Option<(wgpu::Buffer, u64)> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = idle.classes.get_mut(&class)?.pop()?;
        idle.bytes -= class;
        Some(taken)
    }

    /// An id for a new buffer.
    pub(super) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a buffer for reuse; returns the ids of those let go in exchange.
    fn put(&self, buffer: wgpu::Buffer, id: u64) -> Vec<u64> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.bytes += buffer.size();
        idle.classes
            .entry(buffer.size())
            .or_default()
            .push((buffer, id));
        let mut evicted = Vec::new();
        while idle.bytes > IDLE_BYTES {
            let largest = idle
                .classes
                .iter()
                .filter(|(_, v)| !v.is_empty())
                .map(|(c, _)| *c)
                .max();
            let Some(class) = largest else { break };
            if let Some((_, id)) = idle.classes.get_mut(&class).and_then(Vec::pop) {
                idle.bytes -= class;
                evicted.push(id);
            }
        }
        evicted
    }

    /// Lets go of every idle buffer; returns their ids.
    pub(super) fn clear(&self) -> Vec<u64> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.bytes = 0;
        idle.classes
            .drain()
            .flat_map(|(_, buffers)| buffers)
            .map(|(_, id)| id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::BufferPool;

    #[test]
    fn classes_hold_what_is_asked_and_waste_at_most_a_quarter() {
        for bytes in (0..100_000)
            .step_by(7)
            .chain([1 << 20, (1 << 30) + 4, u64::from(u32::MAX)])
        {
            let class = BufferPool::class(bytes);
            assert!(
                class >= bytes && class.is_multiple_of(256),
                "{bytes} in {class}"
            );
            assert!(
                bytes < 1024 || class as f64 <= bytes as f64 * 1.25 + 256.0,
                "{bytes} in {class}"
            );
            assert_eq!(BufferPool::class(class), class);
        }
    }
}
