//! Device buffers in size classes, kept for reuse: creating one costs more than a small kernel, and wgpu clears a new
//! one before its first use.
//!
//! A buffer may be given out again while commands that use it are still queued: everything a GPU does for Divvy goes
//! through one queue, in order, so whatever is recorded later runs later.

use super::Gpu;
use super::memory::Allocation;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};

/// Idle buffers are kept up to this many bytes in all; beyond it the largest class goes first.
const IDLE_BYTES: u64 = 512 << 20;

/// A buffer in a GPU's memory; goes back to the pool when the last user drops it.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    buffer: Option<Allocation>,
    id: u64,
    gpu: Weak<Gpu>,
}

impl DeviceBuffer {
    pub(super) fn new(buffer: Allocation, id: u64, gpu: Weak<Gpu>) -> Self {
        Self {
            buffer: Some(buffer),
            id,
            gpu,
        }
    }

    /// The wgpu buffer.
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.buffer.as_ref().expect("taken only in drop").raw
    }

    /// Unique among the buffers of the process; stays with the wgpu buffer through the pool.
    pub(super) fn id(&self) -> u64 {
        self.id
    }

    /// Bytes, a multiple of 256.
    pub(crate) fn bytes(&self) -> u64 {
        self.raw().size()
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let (Some(buffer), Some(gpu)) = (self.buffer.take(), self.gpu.upgrade()) {
            let let_go = gpu.pool.put(buffer, self.id);
            gpu.forget_bind_groups(&let_go);
        }
    }
}

/// The idle buffers of a GPU.
#[derive(Debug)]
pub(super) struct BufferPool {
    idle: Mutex<Idle>,
    /// Bytes of idle buffers that are kept.
    most: u64,
    next_id: AtomicU64,
}

#[derive(Debug, Default)]
struct Idle {
    /// By their bytes; no list is empty.
    classes: BTreeMap<u64, Vec<(Allocation, u64)>>,
    bytes: u64,
}

impl Idle {
    fn take(&mut self, class: u64) -> Option<(Allocation, u64)> {
        let buffers = self.classes.get_mut(&class)?;
        let taken = buffers.pop()?;
        if buffers.is_empty() {
            self.classes.remove(&class);
        }
        self.bytes -= class;
        Some(taken)
    }

    /// Lets go of buffers, the largest first, until no more than so many bytes are left. Returns their ids.
    fn shrink_to(&mut self, bytes: u64) -> Vec<u64> {
        let mut ids = Vec::new();
        while self.bytes > bytes
            && let Some(class) = self.classes.keys().next_back().copied()
        {
            ids.extend(self.take(class).map(|(_, id)| id));
        }
        ids
    }
}

impl BufferPool {
    /// A pool for arrays that may take so many bytes together.
    pub(super) fn new(array_bytes: u64) -> Self {
        Self {
            idle: Mutex::default(),
            most: IDLE_BYTES.min(array_bytes),
            next_id: AtomicU64::new(0),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest idle buffer of these classes.
    pub(super) fn take(&self, classes: RangeInclusive<u64>) -> Option<(Allocation, u64)> {
        let mut idle = self.idle();
        let class = *idle.classes.range(classes).next()?.0;
        idle.take(class)
    }

    /// An id for a new buffer.
    pub(super) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps a buffer for reuse; returns the ids of those let go in exchange.
    fn put(&self, buffer: Allocation, id: u64) -> Vec<u64> {
        let mut idle = self.idle();
        let class = buffer.raw.size();
        idle.bytes += class;
        idle.classes.entry(class).or_default().push((buffer, id));
        idle.shrink_to(self.most)
    }

    /// Lets go of idle buffers of at least so many bytes together, or of all; returns their ids.
    pub(super) fn release(&self, bytes: u64) -> Vec<u64> {
        let mut idle = self.idle();
        let rest = idle.bytes.saturating_sub(bytes);
        idle.shrink_to(rest)
    }
}
