//! A GPU as a device: an opened wgpu adapter with its buffers, pipelines, staging and queue.
//!
//! Owns everything of wgpu; no type of it leaves this folder. Knows buffers and shaders, never arrays or kernels
//! by name. Nothing here panics on what a driver does: errors that wgpu reports out of band are kept and returned by
//! the next operation.

mod adapter;
mod clock;
mod dispatch;
mod faults;
mod memory;
mod pipelines;
mod pool;
mod readiness;
mod recorder;
mod self_test;
mod shader;
mod stamps;
#[cfg(test)]
mod tests;
mod timeline;
mod transfer;

pub(crate) use adapter::{Discovery, Opener, discover};
pub(crate) use clock::{Clock, Reading};
pub(crate) use dispatch::{Arity, Dispatch, EntryPoint, Window};
pub use faults::{FaultPoint, Faults};
pub use memory::GpuMemory;
pub(crate) use memory::{Evict, Evicted, ExtentId, Gate, LEAST_BUDGET, Registration, Victims};
pub(crate) use pool::DeviceBuffer;
pub(crate) use readiness::Readiness;
pub use shader::{BindingKind, Shader};

use crate::device::DeviceKind;
use crate::device::buffer_size::{BUFFER_GRAIN, buffer_class};
use crate::error::{Error, Result};
use memory::{Allocation, Memory, Purpose, Refusal};
use pipelines::{Pipeline, Pipelines};
use pool::BufferPool;
use readiness::KnownImplementations;
use recorder::{Recorder, Waiting};
use stamps::Stamps;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use timeline::Timeline;
use transfer::Staging;

/// What is done is looked for before waiting, unless it was just looked for.
const RECENT: Duration = Duration::from_micros(5);
/// How long it takes at the most to find out whether an error comes from a loss.
const PROBE: Duration = Duration::from_secs(10);
const PROBES: [Duration; 3] = [RECENT, Duration::from_micros(100), Duration::from_millis(2)];
/// A submission hangs that takes longer than this, if the user does not say otherwise, ...
const HANG_LIMIT: Duration = Duration::from_secs(120);
/// ... and longer than so many times what it is predicted to take: predictions may be off by a factor of several.
const HANG_FACTOR: u32 = 100;

/// Identifies an opened GPU within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GpuId(pub(crate) u64);

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
    /// What is taken of its memory at most if nobody says otherwise: what the driver tells, less what it, the screen and
    /// other programs may need of it.
    fn default_budget(&self) -> Option<u64> {
        const LEAST_RESERVE: u64 = 256 << 20;
        let all = self.limits.memory_bytes?;
        Some(all - (all / 16).max(LEAST_RESERVE).min(all / 2))
    }

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
    /// The most arrays that a dispatch can see.
    pub max_arrays: u32,
    /// The largest uniform, in bytes.
    pub max_uniform_bytes: u64,
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
    /// Bind no more arrays at once than this, although the adapter could.
    pub(crate) max_arrays: Option<u32>,
    /// Take no more of its memory than this.
    pub(crate) memory_budget: Option<u64>,
    /// Fail allocations as a driver with no more memory than this would.
    pub(crate) driver_bytes: Option<u64>,
    /// Take a submission that is not done after this time to hang, unless it is predicted to take that long.
    pub(crate) hang_limit: Option<Duration>,
}

/// An opened GPU.
pub(crate) struct Gpu {
    id: GpuId,
    this: Weak<Self>,
    info: GpuInfo,
    checked: bool,
    opener: Arc<Opener>,
    condition: Arc<Condition>,
    // Declared before the device: what is recorded goes before what it is recorded for.
    recorder: Mutex<Recorder>,
    timeline: Arc<Timeline>,
    stamps: Stamps,
    known: KnownImplementations,
    pipelines: Pipelines,
    arena: Allocation,
    pool: BufferPool,
    staging: Staging,
    memory: Arc<Memory>,
    queue: wgpu::Queue,
    device: wgpu::Device,
}

/// Whether a GPU still works.
#[derive(Debug, Default)]
struct Condition {
    is_lost: AtomicBool,
    fault: Mutex<Fault>,
}

/// What wgpu reported out of band.
#[derive(Debug, Default)]
struct Fault {
    lost: Option<String>,
    error: Option<String>,
}

impl Condition {
    fn fault(&self) -> MutexGuard<'_, Fault> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of a loss, unless one was noted before; returns the first reason.
    fn lose(&self, reason: String) -> String {
        let mut fault = self.fault();
        let reason = fault.lost.get_or_insert(reason).clone();
        self.is_lost.store(true, Ordering::Release);
        reason
    }
}

impl Gpu {
    fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: GpuInfo,
        opener: &Arc<Opener>,
    ) -> Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let condition = Arc::new(Condition::default());
        let timeline = Arc::new(Timeline::default());
        let (errors, timed) = (Arc::clone(&condition), Arc::clone(&timeline));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            tracing::error!(%error, "wgpu");
            timed.spoil();
            errors.fault().error.get_or_insert(error.to_string());
        }));
        let (losses, timed) = (Arc::clone(&condition), Arc::clone(&timeline));
        device.set_device_lost_callback(move |reason, message| {
            timed.give_up();
            losses.lose(format!("{reason:?}: {message}"));
        });
        let options = opener.options();
        let budget = options.memory_budget.or_else(|| info.default_budget());
        let memory = Arc::new(Memory::new(budget, options.driver_bytes));
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let bytes = memory.shares().parameters;
        let arena = memory.allocate(&device, Purpose::Staging, bytes, usage, false);
        let arena = arena.map_err(|error| Error::Gpu {
            device: info.name.clone(),
            message: format!("no room for parameters: {error}"),
        })?;
        let gpu = Arc::new_cyclic(|this| Self {
            id: GpuId(NEXT.fetch_add(1, Ordering::Relaxed)),
            this: this.clone(),
            info,
            checked: options.checked_shaders,
            opener: Arc::clone(opener),
            condition,
            recorder: Mutex::new(Recorder::new(&timeline)),
            timeline,
            stamps: Stamps::default(),
            known: KnownImplementations::default(),
            pipelines: Pipelines::default(),
            arena,
            pool: BufferPool::new(memory.shares().arrays),
            staging: Staging::new(memory.shares().staging),
            memory,
            queue,
            device,
        });
        gpu.staging.reserve(&gpu)?;
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

    /// How it was opened, and can be again.
    pub(crate) fn opener(&self) -> &Arc<Opener> {
        &self.opener
    }

    /// Whether it is lost for good, as far as is known. What was put on it since it was last waited for may be lost
    /// without this being known yet.
    pub(crate) fn is_lost(&self) -> bool {
        self.condition.is_lost.load(Ordering::Acquire)
    }

    /// Finds out whether it is lost. That is told only when nothing is under way any more, so this waits, though not for
    /// ever: for use after an error.
    pub(crate) fn probe(&self) {
        for pause in PROBES {
            if self.is_lost() {
                return;
            }
            let _ = self.device.poll(wgpu::PollType::Wait {
                submission_index: None,
                timeout: Some(PROBE),
            });
            // Another thread may have been told, and be about to take note of it.
            std::thread::sleep(pause);
        }
        if self.is_lost() {
            return;
        }
        // That thread may be held up for long. A device that is gone refuses even this.
        let submitted = self.catch(|| {
            let encoder = self.device.create_command_encoder(&Default::default());
            self.queue.submit([encoder.finish()])
        });
        if let Err(error) = submitted {
            self.lose(format_args!("it takes no more work: {error}"));
        }
    }

    /// Why it is lost, if it is.
    pub(crate) fn loss(&self) -> Option<String> {
        self.condition.fault().lost.clone()
    }

    /// Counts an operation, for tests that have one fail; destroys the device if one of them wants that now.
    fn meets_fault(&self, point: FaultPoint) -> bool {
        let hit = self.opener.faults().hits(point);
        if hit.device {
            self.device.destroy();
        }
        hit.fails
    }

    /// Whether built-in shaders run with checks too, and more slowly.
    pub(crate) fn is_checked(&self) -> bool {
        self.checked
    }

    /// What it can bind, allocate and dispatch.
    pub(crate) fn limits(&self) -> &GpuLimits {
        &self.info.limits
    }

    /// The largest uniform that a dispatch can have, in bytes.
    pub(crate) fn largest_uniform(&self) -> u64 {
        self.limits().max_uniform_bytes.min(self.arena.raw.size())
    }

    /// A buffer of at least `bytes` bytes, of unspecified contents.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if the GPU has no room.
    pub(crate) fn allocate(&self, bytes: u64) -> Result<Arc<DeviceBuffer>> {
        let class = buffer_class(bytes)
            .min(self.largest_buffer())
            .max(bytes.next_multiple_of(BUFFER_GRAIN));
        let (buffer, id) = match self.pool.take(class..=class) {
            Some(reused) => reused,
            None => self.new_buffer(class)?,
        };
        Ok(Arc::new(DeviceBuffer::new(buffer, id, self.this.clone())))
    }

    /// A buffer of a class of which none is idle, with its id.
    fn new_buffer(&self, class: u64) -> Result<(Allocation, u64)> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        loop {
            let refused = match self.create_buffer(Purpose::Arrays, class, usage, false) {
                Err(error @ Error::DeviceMemory { .. }) => error,
                made => return Ok((made?, self.pool.new_id())),
            };
            // Idle buffers may be what is in the way; one that is not much larger will do.
            if let Some(near) = self.pool.take(class..=class.saturating_add(class / 4)) {
                return Ok(near);
            }
            let let_go = self.pool.release(class);
            self.forget_bind_groups(&let_go);
            if let_go.is_empty() && !self.memory.has_room_for_arrays(class) {
                return Err(refused);
            }
            // Memory is free once nothing under way uses it.
            self.wait_for_all()?;
            // If it is the driver that has no more, staging may be what is in the way.
            if let_go.is_empty() && !self.staging.release() {
                return Err(refused);
            }
        }
    }

    fn create_buffer(
        &self,
        purpose: Purpose,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped: bool,
    ) -> Result<Allocation> {
        if self.meets_fault(FaultPoint::Allocation) {
            return Err(self.no_room(bytes));
        }
        let made = self
            .memory
            .allocate(&self.device, purpose, bytes, usage, mapped);
        made.map_err(|error| match error {
            Refusal::NoRoom => {
                if purpose == Purpose::Staging || self.memory.has_room_for_arrays(bytes) {
                    // What the driver has must do for more than staging.
                    self.staging.limit_to(self.memory().used_bytes / 8);
                }
                self.no_room(bytes)
            }
            Refusal::Other(message) => self.error(message),
        })
    }

    /// Calls wgpu and returns the error that it reports meanwhile, if any.
    fn catch<T>(&self, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        catch(&self.device, work)
    }

    /// Gives this GPU up for good, because work was dropped that arrays count on or the driver no longer does what it is
    /// asked: better an error than stale elements.
    fn give_up(&self, problem: impl std::fmt::Display) -> Error {
        // If it is lost already, that is the reason.
        self.probe();
        self.lose(problem)
    }

    /// Gives this GPU up because it does not get done. It is never closed: that would wait for it.
    fn abandon(&self) -> Error {
        std::mem::forget(self.this.upgrade());
        self.lose("its work hangs: it takes far longer than it should")
    }

    fn lose(&self, problem: impl std::fmt::Display) -> Error {
        self.timeline.give_up();
        let message = self.condition.lose(problem.to_string());
        tracing::error!(gpu = self.name(), message, "lost");
        Error::DeviceLost {
            device: self.name().into(),
            message,
        }
    }

    /// What is recorded from now until [`Gpu::announce`] belongs to one call, predicted to keep this GPU busy for so
    /// many seconds; `clock` will show how long it took. A call may begin and be announced several times.
    pub(crate) fn begin(&self, clock: &Arc<Clock>, predicted_seconds: f64) {
        self.recorder().begin(clock, predicted_seconds);
    }

    /// The call that began is recorded; a GPU with enough to do begins with it.
    pub(crate) fn announce(&self, clock: &Arc<Clock>) -> Result<()> {
        self.recorder().announce(self, clock)
    }

    /// Predicted seconds until this GPU is done with everything it was given so far. Never negative.
    pub(crate) fn backlog_seconds(&self) -> f64 {
        self.timeline.backlog_seconds()
    }

    /// Sets the clocks of what is done, without waiting; for a caller who goes by clocks and uses this GPU no more.
    pub(crate) fn look(&self) {
        if self.timeline.latest().is_some() && self.timeline.since_look() > RECENT {
            // An error shows in the next operation.
            let _ = self.device.poll(wgpu::PollType::Poll);
            self.timeline.looked();
        }
    }

    /// How many pipelines have been compiled.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> u64 {
        self.pipelines.compiled()
    }

    /// Records a dispatch, whose pipeline is compiled at the first use.
    ///
    /// # Errors
    /// [`Error::Wgsl`] or [`Error::Gpu`] if the shader cannot be compiled or does not take these arguments,
    /// [`Error::TooLarge`] if it needs more than the adapter has.
    pub(crate) fn dispatch(&self, dispatch: &Dispatch<'_>) -> Result<()> {
        let given = Arity {
            arrays: dispatch.windows.len(),
            uniforms: dispatch.uniforms.len(),
        };
        let pipeline = self.pipeline(&dispatch.entry_point, given)?;
        self.recorder().dispatch(self, &pipeline, dispatch)
    }

    /// Compiles the pipeline of a dispatch that would give so many arguments, and records nothing.
    ///
    /// # Errors
    /// As [`Gpu::dispatch`].
    pub(crate) fn compile(&self, entry_point: &EntryPoint<'_>, given: Arity) -> Result<()> {
        self.pipeline(entry_point, given).map(drop)
    }

    fn pipeline(&self, entry_point: &EntryPoint<'_>, given: Arity) -> Result<Arc<Pipeline>> {
        let pipeline = self.pipelines.get(self, entry_point)?;
        let used = pipeline.arity();
        if used != given {
            return Err(self.error(format!(
                "shader `{}` uses {} arrays and {} uniforms, but {} and {} were given",
                entry_point.shader.label(),
                used.arrays,
                used.uniforms,
                given.arrays,
                given.uniforms
            )));
        }
        Ok(pipeline)
    }

    /// Submits everything recorded.
    pub(crate) fn flush(&self) -> Result<()> {
        self.recorder().flush(self, Waiting::NotYet).map(drop)
    }

    /// Submits everything recorded and waits until all work is done.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        let latest = self.recorder().flush(self, Waiting::Now)?;
        if let Some(number) = latest {
            self.wait(number)?;
        }
        self.check()
    }

    /// Waits for a submission, and before it for each before it, so that it is known when each was done.
    fn wait(&self, number: u64) -> Result<()> {
        // What is done already must not be taken for what ends just now.
        let mut looked = self.timeline.since_look() > RECENT;
        if looked {
            self.poll(wgpu::PollType::Poll)?;
            self.timeline.looked();
        }
        while let Some(watched) = self.timeline.watch(number) {
            looked = true;
            let limit = self.opener.options().hang_limit.unwrap_or(HANG_LIMIT);
            self.poll(wgpu::PollType::Wait {
                submission_index: Some(watched.index),
                timeout: Some(limit.max(watched.predicted.saturating_mul(HANG_FACTOR))),
            })?;
            self.timeline.watched(watched.number);
        }
        // Somebody else may have seen the submission done before mappings were asked for that wait for it.
        if !looked {
            self.poll(wgpu::PollType::Poll)?;
        }
        Ok(())
    }

    fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        match self.device.poll(poll) {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => Err(self.abandon()),
            // A submission that the driver knows nothing of: it was dropped.
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// The error that wgpu reported out of band, if any. A loss is reported for good, other errors once.
    fn check(&self) -> Result<()> {
        let mut fault = self.condition.fault();
        if fault.lost.is_none() && fault.error.is_some() {
            drop(fault);
            // Using what went with a lost device is an error too, and may be reported first.
            self.probe();
            fault = self.condition.fault();
        }
        if let Some(message) = &fault.lost {
            return Err(Error::DeviceLost {
                device: self.name().into(),
                message: message.clone(),
            });
        }
        let error = fault.error.take();
        error.map_or(Ok(()), |message| Err(self.error(message)))
    }

    /// The error that there is no room for so many bytes.
    pub(crate) fn no_room(&self, bytes: u64) -> Error {
        Error::DeviceMemory {
            device: self.name().into(),
            bytes,
        }
    }

    pub(crate) fn error(&self, message: String) -> Error {
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

/// Calls wgpu and returns the error that it reports meanwhile, if any.
fn catch<T>(device: &wgpu::Device, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let scopes = [OutOfMemory, Internal, Validation].map(|filter| device.push_error_scope(filter));
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

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("id", &self.id)
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
