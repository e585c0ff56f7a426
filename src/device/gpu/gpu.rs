//! A GPU as a device: what it records, submits and waits for.

use super::allocation::Allocation;
use super::bind_groups::BindGroups;
use super::clock::Clock;
use super::connection::Connection;
use super::dispatch::{Arity, Dispatch, EntryPoint};
use super::extents::ExtentRegister;
use super::faults::Faults;
use super::info::{GpuId, GpuInfo, GpuLimits, GpuOptions};
use super::memory::{GpuMemory, Memory};
use super::pipelines::{Pipeline, Pipelines};
use super::pool::BufferPool;
use super::readiness::KnownImplementations;
use super::recorder::{Recorder, Waiting};
use super::staging::Staging;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An opened GPU.
pub(crate) struct Gpu {
    id: GpuId,
    recorder: Mutex<Recorder>,
    pub(super) known: KnownImplementations,
    pub(super) pipelines: Arc<Pipelines>,
    pub(super) staging: Arc<Staging>,
    pub(super) pool: Arc<BufferPool>,
    pub(super) extents: Arc<ExtentRegister>,
    pub(super) memory: Arc<Memory>,
    pub(super) connection: Arc<Connection>,
}

impl Gpu {
    /// A GPU over a wgpu device that was just opened.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] or [`Error::Gpu`] if there is no room for what is always there.
    pub(super) fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: GpuInfo,
        options: &GpuOptions,
        faults: &Arc<Faults>,
    ) -> Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tuning = &options.tuning;
        let default_budget = info.default_budget(tuning);
        let budget = options.memory_budget.or(default_budget);
        let connection = Connection::new(device, queue, info, options, faults);
        let memory = Arc::new(Memory::new(budget, options.driver_bytes, tuning));
        let arena = Arc::new(Allocation::arena(&connection, &memory)?);
        let bind_groups = Arc::new(BindGroups::new(tuning.bind_groups));
        let pool = Arc::new(BufferPool::new(&connection, &memory, &bind_groups));
        let checked = options.checked_shaders;
        let pipelines = Pipelines::new(&connection, &arena, &bind_groups, checked);
        let pipelines = Arc::new(pipelines);
        let staging = Arc::new(Staging::new(&connection, &memory, &pool)?);
        let recorder = Recorder::new(&connection, &arena, &pipelines, &staging);
        connection.check()?;
        Ok(Self {
            id: GpuId(NEXT.fetch_add(1, Ordering::Relaxed)),
            recorder: Mutex::new(recorder),
            known: KnownImplementations::default(),
            pipelines,
            staging,
            pool,
            extents: Arc::default(),
            memory,
            connection,
        })
    }

    /// Identifies this GPU within the process.
    pub(crate) fn id(&self) -> GpuId {
        self.id
    }

    /// The adapter's name.
    pub(crate) fn name(&self) -> &str {
        self.connection.name()
    }

    /// What the adapter says of itself.
    pub(crate) fn info(&self) -> &GpuInfo {
        self.connection.info()
    }

    /// What it can bind, allocate and dispatch.
    pub(crate) fn limits(&self) -> &GpuLimits {
        &self.info().limits
    }

    /// The largest uniform that a dispatch can have, in bytes.
    pub(crate) fn largest_uniform(&self) -> u64 {
        self.pipelines.largest_uniform()
    }

    /// Whether built-in shaders run with checks too, and more slowly.
    pub(crate) fn is_checked(&self) -> bool {
        self.pipelines.is_checked()
    }

    /// How much of its memory is taken.
    pub(crate) fn memory(&self) -> GpuMemory {
        self.memory.report()
    }

    /// Whether it is lost for good, as far as is known. What was put on it since it was last waited for may be lost
    /// without this being known yet.
    pub(crate) fn is_lost(&self) -> bool {
        self.connection.is_lost()
    }

    /// Finds out whether it is lost. That is told only when nothing is under way any more, so this waits, though not for
    /// ever: for use after an error.
    pub(crate) fn probe(&self) {
        self.connection.probe();
    }

    /// Why it is lost, if it is.
    pub(crate) fn loss(&self) -> Option<String> {
        self.connection.loss()
    }

    /// The error that there is no room for `bytes` bytes.
    pub(crate) fn no_room(&self, bytes: u64) -> Error {
        self.connection.no_room(bytes)
    }

    /// What is recorded from now until [`Gpu::announce`] belongs to one call, predicted to keep this GPU busy for
    /// `predicted_seconds`; `clock` will show how long it took. A call may begin and be announced several times.
    pub(crate) fn begin(&self, clock: &Arc<Clock>, predicted_seconds: f64) {
        self.recorder().begin(clock, predicted_seconds);
    }

    /// The call that began is recorded; a GPU with enough to do begins with it.
    pub(crate) fn announce(&self, clock: &Arc<Clock>) -> Result<()> {
        self.recorder().announce(clock)
    }

    /// Predicted seconds until this GPU is done with everything it was given so far. Never negative.
    pub(crate) fn backlog_seconds(&self) -> f64 {
        self.connection.timeline().backlog_seconds()
    }

    /// Sets the clocks of what is done, without waiting; for a caller who goes by clocks and uses this GPU no more.
    pub(crate) fn look(&self) {
        self.connection.look();
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
        self.recorder().dispatch(&pipeline, dispatch)
    }

    /// Compiles the pipeline of a dispatch that would give these arguments, and records nothing.
    ///
    /// # Errors
    /// As [`Gpu::dispatch`].
    pub(crate) fn compile(&self, entry_point: &EntryPoint<'_>, given: Arity) -> Result<()> {
        self.pipeline(entry_point, given).map(drop)
    }

    fn pipeline(&self, entry_point: &EntryPoint<'_>, given: Arity) -> Result<Arc<Pipeline>> {
        let pipeline = self.pipelines.get(entry_point)?;
        let used = pipeline.arity();
        if used != given {
            return Err(self.connection.error(format!(
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

    /// How many pipelines have been compiled.
    #[cfg(test)]
    pub(crate) fn compiled(&self) -> u64 {
        self.pipelines.compiled()
    }

    /// Submits everything recorded.
    pub(crate) fn flush(&self) -> Result<()> {
        self.recorder().flush(Waiting::NotYet).map(drop)
    }

    /// Submits everything recorded and waits until all work is done.
    pub(crate) fn wait_for_all(&self) -> Result<()> {
        let latest = self.recorder().flush(Waiting::Now)?;
        if let Some(number) = latest {
            self.connection.wait(number)?;
        }
        self.connection.check()
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Gpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gpu")
            .field("id", &self.id)
            .field("info", self.info())
            .finish_non_exhaustive()
    }
}
