//! A GPU as a device: an opened wgpu adapter with its buffers, pipelines, staging and queue.
//!
//! Owns everything of wgpu; no type of it leaves this folder. Knows buffers and shaders, never arrays or kernels
//! by name. Nothing here panics on what a driver does: errors that wgpu reports out of band are kept and returned by
//! the next operation.

mod adapter;
mod part;
mod pipelines;
mod pool;
mod recorder;
mod transfer;

pub(crate) use adapter::{Discovery, discover};
pub use part::{GpuArg, GpuPart};
pub(crate) use pool::DeviceBuffer;

use crate::device::DeviceKind;
use crate::error::{Error, Result};
use pipelines::Pipelines;
use pool::{BUFFER_GRAIN, BufferPool};
use recorder::Recorder;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use transfer::Staging;

/// Identifies an opened GPU within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GpuId(u64);

/// What an adapter says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct GpuInfo {
    /// The adapter's name.
    pub name: String,
    /// The driver and its version.
    pub driver: String,
    /// The API it is reached through: vulkan, metal or dx12.
    pub backend: String,
    /// What sort of device it is; software adapters are [`DeviceKind::Software`].
    pub kind: DeviceKind,
    /// What it can bind, allocate and dispatch.
    pub limits: GpuLimits,
    hardware: (u32, u32, String),
}

impl GpuInfo {
    /// Whether both are the same device behind different APIs.
    fn same_hardware(&self, other: &Self) -> bool {
        self.backend != other.backend && self.hardware == other.hardware && self.name == other.name
    }
}

/// What an adapter can bind, allocate and dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GpuLimits {
    /// The largest window of a buffer that a dispatch can see, in bytes.
    pub max_binding_bytes: u64,
    /// The largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// The most workgroups along one dimension of a dispatch.
    pub max_groups: u32,
    /// The most memory that a workgroup can share, in bytes.
    pub max_workgroup_bytes: u32,
    /// All of its memory, if the driver tells.
    pub memory_bytes: Option<u64>,
}

/// How GPUs are opened.
#[derive(Clone, Debug, Default)]
pub(crate) struct GpuOptions {
    /// Compile built-in shaders with run-time checks too.
    pub(crate) checked_shaders: bool,
    /// Use no larger windows than this, although the adapter could.
    pub(crate) max_binding_bytes: Option<u64>,
    /// Use no larger buffers than this, although the adapter could.
    pub(crate) max_buffer_bytes: Option<u64>,
}

/// An opened GPU.
pub(crate) struct Gpu {
    id: GpuId,
    this: Weak<Self>,
    info: GpuInfo,
    checked: bool,
    fault: Arc<Mutex<Fault>>,
    // Declared before the device: what is recorded goes before what it is recorded for.
    recorder: Mutex<Recorder>,
    pipelines: Pipelines,
    arena: wgpu::Buffer,
    pool: BufferPool,
    staging: Staging,
    queue: wgpu::Queue,
    device: wgpu::Device,
}

/// What wgpu reported out of band.
#[derive(Debug, Default)]
struct Fault {
    lost: Option<String>,
    error: Option<String>,
}

impl Gpu {
    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: GpuInfo,
        checked: bool,
    ) -> Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let fault = Arc::new(Mutex::new(Fault::default()));
        let errors = Arc::clone(&fault);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            tracing::error!(%error, "wgpu");
            let mut fault = errors.lock().unwrap_or_else(PoisonError::into_inner);
            fault.error.get_or_insert(error.to_string());
        }));
        let losses = Arc::clone(&fault);
        device.set_device_lost_callback(move |reason, message| {
            let mut fault = losses.lock().unwrap_or_else(PoisonError::into_inner);
            fault.lost.get_or_insert(format!("{reason:?}: {message}"));
        });
        let arena = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("divvy parameters"),
            size: recorder::ARENA_BYTES as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let gpu = Arc::new_cyclic(|this| Self {
            id: GpuId(NEXT.fetch_add(1, Ordering::Relaxed)),
            this: this.clone(),
            info,
            checked,
            fault,
            recorder: Mutex::default(),
            pipelines: Pipelines::default(),
            arena,
            pool: BufferPool::default(),
            staging: Staging::default(),
            queue,
            device,
        });
        gpu.check()?;
        Ok(gpu)
    }

    /// Identifies this GPU within the process.
    pub(crate) fn id(&self) -> GpuId {
        self.id
    }

    /// The adapter's name.
    pub(crate) fn name(&self) -> &str {
        &self.info.name
    }

    /// What the adapter says of itself.
    pub(crate) fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// Whether built-in shaders run with checks too, and more slowly.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked
    }

    /// What it can bind, allocate and dispatch.
    pub(crate) fn limits(&self) -> &GpuLimits {
        &self.info.limits
    }

    /// A buffer of at least `bytes` bytes, of unspecified contents.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if the GPU has no room.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Arc<DeviceBuffer>> {
        let class = BufferPool::class(bytes)
            .min(self.limits().max_buffer_bytes)
            .max(bytes.next_multiple_of(BUFFER_GRAIN));
        let (buffer, id) = match self.pool.take(class) {
            Some(reused) => reused,
            None => {
                let usage = wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST;
                let buffer = self.create_buffer(class, usage, false).or_else(|_| {
                    // Idle buffers of other classes may be what is in the way.
                    self.forget_bind_groups(&self.pool.clear());
                    self.create_buffer(class, usage, false)
                });
                (buffer?, self.pool.new_id())
            }
        };
        Ok(Arc::new(DeviceBuffer::new(buffer, id, self.this.clone())))
    }

    fn create_buffer(
        &self,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<wgpu::Buffer> {
        let descriptor = wgpu::BufferDescriptor {
            label: None,
            size: bytes,
            usage,
            mapped_at_creation: mapped,
        };
        self.catch(|| self.device.create_buffer(&descriptor))
            .map_err(|error| match error {
                wgpu::Error::OutOfMemory { .. } => Error::DeviceMemory {
                    device: self.name().into(),
                    bytes,
                },
                other => self.error(other.to_string()),
            })
    }

    /// Calls wgpu and returns the error that it reports meanwhile, if any.
    fn catch<T>(&self, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes =
            [OutOfMemory, Internal, Validation].map(|filter| self.device.push_error_scope(filter));
        let value = work();
        let mut errors = scopes
            .into_iter()
            .rev()
            .map(|scope| pollster::block_on(scope.pop()));
        // Every scope must be left, whatever the others caught.
        let first = errors
            .by_ref()
            .fold(None, |first: Option<wgpu::Error>, next| first.or(next));
        first.map_or(Ok(value), Err)
    }

    /// Gives this GPU up for good after work was dropped that arrays count on: better an error than stale elements.
    fn give_up(&self, error: &wgpu::Error) -> Error {
        let message = format!("work that was recorded could not be submitted: {error}");
        tracing::error!(gpu = self.name(), message);
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let message = fault.lost.get_or_insert(message).clone();
        Error::DeviceLost {
            device: self.name().into(),
            message,
        }
    }

    /// Takes note that what was recorded last is predicted to take so long; a GPU with enough to do begins.
    pub(crate) fn announce(&self, seconds: f64) -> Result<()> {
        self.recorder().announce(self, seconds)
    }

    /// Submits everything recorded.
    pub(crate) fn flush(&self) -> Result<()> {
        self.recorder().flush(self).map(drop)
    }

    /// Submits everything recorded and waits until all work is done.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        let latest = self.recorder().flush(self)?;
        if let Some(index) = latest {
            self.wait(index)?;
        }
        self.check()
    }

    fn wait(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let wait = wgpu::PollType::Wait {
            submission_index: Some(index),
            timeout: None,
        };
        self.device
            .poll(wait)
            .map_err(|e| self.error(e.to_string()))?;
        Ok(())
    }

    /// The error that wgpu reported out of band, if any. A loss is reported for good, other errors once.
    fn check(&self) -> Result<()> {
        let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = &fault.lost {
            return Err(Error::DeviceLost {
                device: self.name().into(),
                message: message.clone(),
            });
        }
        fault
            .error
            .take()
            .map_or(Ok(()), |message| Err(self.error(message)))
    }

    fn error(&self, message: String) -> Error {
        Error::Gpu {
            device: self.name().into(),
            message,
        }
    }

    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the bind groups that would keep these buffers alive.
    fn forget_bind_groups(&self, buffers: &[u64]) {
        self.pipelines.forget(buffers);
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("id", &self.id)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
