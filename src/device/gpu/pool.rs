//! Device buffers in size classes, kept for reuse: creating one costs more than a small kernel, and wgpu clears a new
//! one before its first use.
//!
//! A buffer may be given out again while commands that use it are still queued: everything a GPU does for Divvy goes
//! through one queue, in order, so whatever is recorded later runs later.

use super::allocation::{Allocation, BufferRequest};
use super::bind_groups::BindGroups;
use super::connection::Connection;
use super::memory::{Memory, Purpose};
use crate::error::Result;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A buffer in a GPU's memory; goes back to the pool when the last user drops it. It does not keep the GPU.
#[derive(Debug)]
pub(crate) struct DeviceBuffer {
    buffer: Option<PooledBuffer>,
    pool: Weak<BufferPool>,
}

/// A buffer with its id.
#[derive(Debug)]
pub(super) struct PooledBuffer {
    allocation: Allocation,
    /// Unique among the buffers of the GPU.
    id: u64,
}

impl DeviceBuffer {
    fn buffer(&self) -> &PooledBuffer {
        self.buffer.as_ref().expect("taken only in drop")
    }

    /// The wgpu buffer.
    pub(super) fn raw(&self) -> &wgpu::Buffer {
        &self.buffer().allocation.raw
    }

    /// Unique among the buffers of the GPU; stays with the wgpu buffer through the pool.
    pub(super) fn id(&self) -> u64 {
        self.buffer().id
    }

    /// Bytes, a multiple of 256.
    pub(crate) fn bytes(&self) -> u64 {
        self.raw().size()
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if let (Some(buffer), Some(pool)) = (self.buffer.take(), self.pool.upgrade()) {
            pool.put(buffer);
        }
    }
}

/// The idle buffers of a GPU.
#[derive(Debug)]
pub(super) struct BufferPool {
    idle: Mutex<Idle>,
    /// Bytes of idle buffers that are kept; beyond it the largest class goes first.
    most: u64,
    next_id: AtomicU64,
    /// They hold buffers, and forget those that are let go.
    bind_groups: Arc<BindGroups>,
    memory: Arc<Memory>,
    connection: Arc<Connection>,
}

#[derive(Debug, Default)]
struct Idle {
    /// By their bytes; no list is empty.
    classes: BTreeMap<u64, Vec<PooledBuffer>>,
    bytes: u64,
}

impl Idle {
    fn take(&mut self, class: u64) -> Option<PooledBuffer> {
        let buffers = self.classes.get_mut(&class)?;
        let taken = buffers.pop()?;
        if buffers.is_empty() {
            self.classes.remove(&class);
        }
        self.bytes -= class;
        Some(taken)
    }

    /// Lets go of buffers, the largest first, until no more than `bytes` bytes are left. Returns their ids.
    fn shrink_to(&mut self, bytes: u64) -> Vec<u64> {
        let mut ids = Vec::new();
        while self.bytes > bytes
            && let Some(class) = self.classes.keys().next_back().copied()
        {
            ids.extend(self.take(class).map(|buffer| buffer.id));
        }
        ids
    }
}

impl BufferPool {
    pub(super) fn new(
        connection: &Arc<Connection>,
        memory: &Arc<Memory>,
        bind_groups: &Arc<BindGroups>,
    ) -> Self {
        let most = connection.tuning().idle_bytes.min(memory.shares().arrays);
        Self {
            idle: Mutex::default(),
            most,
            next_id: AtomicU64::new(0),
            bind_groups: Arc::clone(bind_groups),
            memory: Arc::clone(memory),
            connection: Arc::clone(connection),
        }
    }

    fn idle(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The smallest idle buffer of these classes.
    pub(super) fn take(&self, classes: RangeInclusive<u64>) -> Option<PooledBuffer> {
        let mut idle = self.idle();
        let class = *idle.classes.range(classes).next()?.0;
        idle.take(class)
    }

    /// A new buffer of a class.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`](crate::Error::DeviceMemory) if there is no room for it.
    pub(super) fn create(&self, class: u64) -> Result<PooledBuffer> {
        let request = BufferRequest {
            purpose: Purpose::Arrays,
            bytes: class,
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_SRC
                | wgpu::BufferUsages::COPY_DST,
            mapped: false,
        };
        let allocation = Allocation::new(&self.connection, &self.memory, &request)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Ok(PooledBuffer { allocation, id })
    }

    /// Gives a buffer to a user, from whom it comes back.
    pub(super) fn give_out(self: &Arc<Self>, buffer: PooledBuffer) -> Arc<DeviceBuffer> {
        Arc::new(DeviceBuffer {
            buffer: Some(buffer),
            pool: Arc::downgrade(self),
        })
    }

    /// Keeps a buffer for reuse, and lets others go in exchange if there are too many.
    fn put(&self, buffer: PooledBuffer) {
        let let_go = {
            let mut idle = self.idle();
            let class = buffer.allocation.raw.size();
            idle.bytes += class;
            idle.classes.entry(class).or_default().push(buffer);
            idle.shrink_to(self.most)
        };
        self.bind_groups.forget(&let_go);
    }

    /// Lets go of idle buffers of at least `bytes` bytes together, or of all. Whether there were any.
    pub(super) fn release(&self, bytes: u64) -> bool {
        let let_go = {
            let mut idle = self.idle();
            let rest = idle.bytes.saturating_sub(bytes);
            idle.shrink_to(rest)
        };
        self.bind_groups.forget(&let_go);
        !let_go.is_empty()
    }
}
