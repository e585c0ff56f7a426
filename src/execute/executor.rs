//! The executor runs a plan: it is the only place that moves bytes and changes residency on behalf of kernels.
//!
//! Each launch of a pass takes three steps. First, fetch to the host what the CPU's part needs; this waits for GPUs, so it
//! comes before they get more work. Second, encode and submit the GPUs' parts. Third, compute the CPU's part while the GPUs
//! work.

use super::params::PARAMS;
use super::part_access::PartAccess;
use super::recheck::{Recheck, Verify};
use super::report::{PartTiming, Timing};
use super::tiles::{TileQueue, need, needs};
use crate::array::{AccessSet, Coverage, DryRun, Handle, TransferBytes, Usage, WeakHandle};
use crate::device::buffer_size::window_buffer;
use crate::device::cpu::Cpu;
use crate::device::gpu::{Clock, Gate, Gpu, Victims};
use crate::device::{DeviceId, Devices};
use crate::error::{Error, Result};
use crate::kernel::{
    Binding, CpuPart, CpuTasks, Execution, GpuPart, HostView, Kernel, Launch, LaunchSpec, Pass,
    Role, Views,
};
use crate::panics::catch_panic;
use crate::plan::tiling::Tiling;
use crate::plan::{Plan, PlannedPart};
use crate::simd::Simd;
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Runs the passes that a kernel launches, as planned.
pub(crate) struct Executor<'r> {
    mode: Mode<'r>,
    moved: TransferBytes,
    timers: SmallVec<[Timer; 2]>,
    /// The number of passes that a dry run compiled.
    compiled: usize,
    /// The arrays that passes used.
    used: SmallVec<[Handle; 4]>,
    /// The access sets of the call, if it is recorded.
    recording: Option<&'r PartAccess>,
    /// Picks parts to compute a second time.
    verifier: Option<&'r dyn Verify>,
    /// The number of verified parts.
    verified: usize,
    /// Whether anything was computed or queued.
    has_begun: bool,
    /// Whether the plan covers only some of the items.
    is_partial: bool,
    /// Arrays that the kernel created itself and wrote on a GPU.
    created: SmallVec<[WeakHandle; 2]>,
}

/// What the executor does with launched passes.
#[derive(Clone, Copy)]
enum Mode<'r> {
    /// Runs them as planned.
    Run {
        devices: &'r Devices,
        plan: &'r Plan,
    },
    /// A dry run: compiles their pipelines for a GPU that is going to run these items.
    Compile {
        gpu: &'r Arc<Gpu>,
        items: &'r Range<usize>,
    },
}

/// A part of a plan on a GPU.
#[derive(Clone, Copy)]
struct GpuWork<'p> {
    /// Its place in the plan.
    index: usize,
    items: &'p Range<usize>,
    /// The time for which it is predicted to keep the GPU busy.
    seconds: f64,
}

/// The time that a part has taken so far.
#[derive(Debug, Default)]
struct Timer {
    seconds: f64,
    waited_seconds: f64,
    clock: Option<Arc<Clock>>,
}

/// The time that some items took on the CPU.
#[derive(Clone, Copy, Debug)]
struct Timed {
    seconds: f64,
    waited_seconds: f64,
}

impl Timer {
    fn add(&mut self, timed: Timed) {
        self.seconds += timed.seconds;
        self.waited_seconds += timed.waited_seconds;
    }
}

impl<'r> Executor<'r> {
    pub(crate) fn new(devices: &'r Devices, plan: &'r Plan) -> Self {
        Self::of(Mode::Run { devices, plan }, plan.parts.len())
    }

    fn of(mode: Mode<'r>, parts: usize) -> Self {
        Self {
            mode,
            moved: TransferBytes::default(),
            timers: (0..parts).map(|_| Timer::default()).collect(),
            compiled: 0,
            used: SmallVec::new(),
            recording: None,
            verifier: None,
            verified: 0,
            has_begun: false,
            is_partial: false,
            created: SmallVec::new(),
        }
    }

    /// The same, with access sets that record what it reads and writes.
    pub(crate) fn recorded(self, recording: Option<&'r PartAccess>) -> Self {
        Self { recording, ..self }
    }

    /// The same, verifying the parts that `verifier` picks.
    pub(crate) fn verified(self, verifier: Option<&'r dyn Verify>) -> Self {
        Self { verifier, ..self }
    }

    /// An executor for a plan that covers only some of a kernel's items: for recovery and verification.
    pub(crate) fn again(devices: &'r Devices, plan: &'r Plan) -> Self {
        Self {
            is_partial: true,
            ..Self::new(devices, plan)
        }
    }

    /// Fetches to the host the arrays that the kernel created and returned to the caller: the journal does not record them.
    pub(crate) fn fetch_created_arrays(&mut self) -> Result<()> {
        for array in std::mem::take(&mut self.created) {
            if let Some(array) = array.upgrade().filter(Handle::is_owned) {
                self.moved += array.fetch_range(0..array.len())?;
            }
        }
        Ok(())
    }

    /// An executor for a dry run: it moves nothing, computes nothing and changes no array that existed before. It only
    /// compiles what `gpu` needs to run `items` of the kernel.
    fn compiling(gpu: &'r Arc<Gpu>, items: &'r Range<usize>) -> Self {
        Self::of(Mode::Compile { gpu, items }, 0)
    }

    /// Whether anything was computed or queued. If so, elements may have changed.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// The bytes that were moved so far.
    pub(crate) fn moved(&self) -> TransferBytes {
        self.moved
    }

    /// The number of verified parts.
    pub(crate) fn parts_verified(&self) -> usize {
        self.verified
    }

    /// The time of each part, in the plan's order: all launches of the kernel together. The small follow-up passes of a
    /// split belong to no part. Marks the plan's GPUs as ready for the kernel with this
    /// [`identity`](crate::kernel::identity).
    pub(crate) fn finish(self, identity: u64) -> SmallVec<[PartTiming; 2]> {
        if let Mode::Run { devices, plan } = self.mode {
            for part in &plan.parts {
                if let DeviceId::Gpu(index) = part.device
                    && let Ok(gpu) = devices.gpu(index)
                {
                    gpu.set_ready(identity);
                }
            }
        }
        let finish = |timer: Timer| PartTiming {
            timing: match timer.clock {
                Some(clock) => {
                    clock.seal();
                    Timing::Clock(clock)
                }
                None => Timing::Seconds(timer.seconds),
            },
            waited_seconds: timer.waited_seconds,
        };
        self.timers.into_iter().map(finish).collect()
    }

    /// Picks the parts to verify, before anything runs, and copies what they read.
    fn pick<'p>(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        parts: impl IntoIterator<Item = (DeviceId, &'p Range<usize>)>,
        devices: &Devices,
    ) -> SmallVec<[Box<dyn Recheck>; 1]> {
        let Some(verifier) = self.verifier else {
            return SmallVec::new();
        };
        let parts = parts.into_iter();
        let picked =
            parts.filter_map(|(device, items)| verifier.pick(pass, spec, device, items, devices));
        picked.collect()
    }

    /// Verifies the picked parts.
    fn verify(
        &mut self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        picked: &[Box<dyn Recheck>],
        devices: &Devices,
    ) -> Result<()> {
        for part in picked {
            let verified = part.verify(pass, spec, devices);
            let verified = verified.inspect_err(|_| undefine_outputs(spec, part.items()))?;
            self.verified += usize::from(verified);
        }
        Ok(())
    }

    fn fetch_to_host(&mut self, spec: &LaunchSpec, items: &Range<usize>) -> Result<()> {
        for binding in spec
            .bindings
            .iter()
            .filter(|binding| binding.access.reads())
        {
            let elements = binding.elements(items, spec.items);
            self.moved += binding.array.fetch_range(elements)?;
        }
        Ok(())
    }

    /// Computes items on the CPU, with this number of threads.
    fn run_on_cpu(
        &mut self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        items: &Range<usize>,
        cpu: &Cpu,
        threads: usize,
    ) -> Result<Timed> {
        let started = Instant::now();
        let mut views = SmallVec::<[HostView; 4]>::new();
        let mut borrows = SmallVec::<[_; 4]>::new();
        let mut fetched = 0;
        for binding in &spec.bindings {
            let elements = binding.elements(items, spec.items);
            let accesses = self.recording.and_then(PartAccess::of_cpu);
            let usage = usage(binding);
            let (start, borrow) = binding.array.borrow_for(accesses, elements, usage)?;
            let moved = binding.array.residency().take_moved();
            fetched += moved.to_host;
            self.moved += moved;
            views.push(HostView {
                start,
                ty: binding.array.element_type(),
            });
            borrows.push(borrow);
        }
        // One clock read less if nothing was fetched: it counts in small calls.
        let ready = if fetched > 0 { Instant::now() } else { started };
        let run = |range: Range<usize>, threads| {
            // SAFETY: the borrows held here keep all other code from writing what is read and from touching what is
            // written, and made it valid here. Calls get disjoint ranges whose borders are multiples of the grain, so
            // by `checked_spec` the elements they write are disjoint too.
            pass.cpu(&mut unsafe { CpuPart::new(range, spec, &views, threads, cpu.simd()) })
        };
        self.has_begun = true;
        catch_panic(pass.name(), || match pass.cpu_tasks() {
            CpuTasks::Ranges => {
                cpu.for_ranges(items.clone(), spec.grain.max(1), threads, &|range| {
                    run(range, 1)
                })
            }
            CpuTasks::Own if threads > 1 => cpu.install(|| run(items.clone(), threads)),
            CpuTasks::Own => run(items.clone(), 1),
        })
        .inspect_err(|_| undefine_outputs(spec, items))?;
        Ok(Timed {
            seconds: ready.elapsed().as_secs_f64(),
            waited_seconds: ready.saturating_duration_since(started).as_secs_f64(),
        })
    }

    /// Encodes a part for a GPU. Its predicted time counts at the part's first launch only.
    fn run_part_on_gpu(
        &mut self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        work: GpuWork<'_>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        let timer = &mut self.timers[work.index];
        let (clock, predicted) = match &timer.clock {
            Some(clock) => (Arc::clone(clock), 0.0),
            None => (Clock::new(), work.seconds),
        };
        timer.clock = Some(Arc::clone(&clock));
        gpu.begin(&clock, predicted);
        let ran = self.run_on_gpu(pass, spec, Some(work.index), work.items, gpu);
        // Also after an error: what is recorded next belongs to another call.
        let announced = gpu.announce(&clock);
        ran.and(announced)
    }

    /// Encodes items for a GPU; `part` is their part's place in the plan, if they belong to one.
    fn run_on_gpu(
        &mut self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        part: Option<usize>,
        items: &Range<usize>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        let accesses = self.recording.and_then(|recording| recording.of_part(part));
        let mut pieces = TileQueue::new(pass.name(), spec, items, gpu)?;
        while let Some(piece) = pieces.next() {
            let held = self.hold(spec, &piece, &pieces.cut, gpu);
            // Nothing is encoded yet and no array has changed, so the piece can be cut smaller.
            let views = match held {
                Err(error @ Error::DeviceMemory { .. }) => {
                    pieces.did_not_fit(piece, error)?;
                    continue;
                }
                held => held?,
            };
            self.has_begun = true;
            self.record_usage(spec, &piece, &views, accesses)?;
            let window = pieces.cut.window;
            pass.gpu(&mut GpuPart::of_piece(gpu, spec, piece, &views, window))?;
            self.collect_moved(spec);
        }
        Ok(())
    }

    /// Makes room on a GPU for a piece's arrays, or for windows of those that are too large, and makes valid there what the
    /// piece reads.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room for all of it at once, even after evictions.
    fn hold<'g>(
        &mut self,
        spec: &LaunchSpec,
        piece: &Range<usize>,
        cut: &Tiling,
        gpu: &'g Arc<Gpu>,
    ) -> Result<Views<'g>> {
        // A piece that moves windows cannot begin again once it is being encoded, so it needs the GPU alone.
        let moves_windows = needs(spec).any(|need| !need.is_held_whole(cut));
        if !moves_windows {
            match self.hold_behind(gpu.share(), spec, piece, cut, gpu) {
                Err(Error::DeviceMemory { .. }) => {}
                held => return held,
            }
        }
        self.hold_behind(gpu.be_alone(), spec, piece, cut, gpu)
    }

    fn hold_behind<'g>(
        &mut self,
        gate: Gate<'g>,
        spec: &LaunchSpec,
        piece: &Range<usize>,
        cut: &Tiling,
        gpu: &Arc<Gpu>,
    ) -> Result<Views<'g>> {
        let mut views = Views {
            arrays: SmallVec::new(),
            gate,
        };
        // Extents that exist are held first, so that making room for the rest does not evict them.
        let mut complete = true;
        for binding in &spec.bindings {
            let elements = binding.elements(piece, spec.items);
            let resident = binding.array.residency().resident(gpu.id(), &elements);
            complete &= resident
                .as_ref()
                .is_some_and(|resident| resident.is_valid || !binding.access.reads());
            views.arrays.push(resident.map(|resident| resident.view));
        }
        if complete {
            return Ok(views);
        }
        let new: SmallVec<[bool; 4]> = views.arrays.iter().map(Option::is_none).collect();
        if let Err(error) = self.hold_the_rest(&mut views, spec, piece, cut, gpu) {
            // These extents would take the room of a smaller piece.
            for (at, view) in views.arrays.into_iter().enumerate() {
                if let Some(extent) = view.filter(|_| new[at]).map(|view| view.extent) {
                    let mut residency = spec.bindings[at].array.residency();
                    residency.evict(extent, Victims::Any)?;
                }
            }
            return Err(error);
        }
        Ok(views)
    }

    /// Makes room for the arrays that are not on the GPU, and uploads what a piece reads of them.
    fn hold_the_rest(
        &mut self,
        views: &mut Views<'_>,
        spec: &LaunchSpec,
        piece: &Range<usize>,
        cut: &Tiling,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        let mut windows = SmallVec::<[_; 2]>::new();
        for (at, binding) in spec.bindings.iter().enumerate() {
            let elements = binding.elements(piece, spec.items);
            let (array, reads) = (&binding.array, binding.access.reads());
            match &views.arrays[at] {
                Some(view) if reads => {
                    array.fetch_to_device(gpu, view, &elements, &views.gate)?;
                }
                Some(_) => continue,
                None if !need(binding).is_held_whole(cut) => {
                    windows.push(window_buffer(cut.window));
                    continue;
                }
                None => {
                    let fit = if cut.whole {
                        Coverage::Whole
                    } else {
                        Coverage::Window { at_least: 0 }
                    };
                    let view = array.admit(gpu, elements, reads, fit, &views.gate)?;
                    views.arrays[at] = Some(view);
                }
            }
            self.moved += array.residency().take_moved();
        }
        self.moved.to_host += gpu.reserve(&windows, &views.gate)?.to_host;
        Ok(())
    }

    /// Records what a piece reads and writes, before it is encoded.
    fn record_usage(
        &mut self,
        spec: &LaunchSpec,
        piece: &Range<usize>,
        views: &Views<'_>,
        accesses: Option<&Arc<AccessSet>>,
    ) -> Result<()> {
        for (binding, view) in spec.bindings.iter().zip(&views.arrays) {
            let elements = binding.elements(piece, spec.items);
            let usage = usage(binding);
            let array = &binding.array;
            array.used_on_device(view.as_ref(), &elements, usage, accesses)?;
            let is_created = |accesses: &Arc<AccessSet>| array.is_created_since(accesses.version);
            if usage.writes && accesses.is_some_and(is_created) {
                self.add_created(array);
            }
        }
        Ok(())
    }

    /// Records an array that the kernel created.
    fn add_created(&mut self, array: &Handle) {
        if !self.created.iter().any(|created| created.is_of(array)) {
            self.created.push(array.downgrade());
        }
    }

    /// Adds the bytes that windows of a pass's arrays moved.
    fn collect_moved(&mut self, spec: &LaunchSpec) {
        for binding in &spec.bindings {
            if binding.role == Role::WholeWindowed {
                self.moved += binding.array.residency().take_moved();
            }
        }
    }

    /// Compiles what a GPU needs to run `items` of a pass.
    fn compile(
        &mut self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        items: Range<usize>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        self.compiled += 1;
        if self.compiled > PARAMS.dry_run_passes {
            let most = PARAMS.dry_run_passes;
            let problem = format!("more than {most} passes, when nothing was computed");
            return Err(Error::argument(pass.name(), problem));
        }
        if !spec.has_gpu {
            return Ok(());
        }
        let items = items.start..items.end.min(spec.items);
        let pieces = TileQueue::new(pass.name(), spec, &items, gpu)?;
        let window = pieces.cut.window;
        for piece in pieces {
            pass.gpu(&mut GpuPart::to_compile(gpu, spec, piece, window))?;
        }
        Ok(())
    }
}

impl Launch for Executor<'_> {
    fn simd(&self) -> Simd {
        match self.mode {
            Mode::Run { devices, .. } => devices.cpu.simd(),
            // A dry run computes nothing, so any set will do.
            Mode::Compile { .. } => Simd::best(),
        }
    }

    fn launch(&mut self, pass: &dyn Pass) -> Result<()> {
        let spec = checked_spec(pass)?;
        let (devices, plan) = match self.mode {
            Mode::Run { devices, plan } => (devices, plan),
            Mode::Compile { gpu, items } => {
                return self.compile(pass, &spec, items.clone(), gpu);
            }
        };
        let planned = plan.parts.last().map_or(0, |part| part.range.end);
        if planned != spec.items && !self.is_partial {
            return Err(Error::argument(
                pass.name(),
                format!(
                    "a pass of {} items was launched, {planned} were planned",
                    spec.items
                ),
            ));
        }
        let parts = &plan.parts;
        let at_border = |part: &PlannedPart| part.range.start.is_multiple_of(spec.grain.max(1));
        if !parts.iter().all(at_border) {
            return Err(Error::argument(
                pass.name(),
                "its parts were cut for a kernel of another grain; give that kernel's launch spec the grain of its passes",
            ));
        }
        for binding in &spec.bindings {
            let again = self.used.iter().any(|used| used.same_array(&binding.array));
            let mut residency = binding.array.residency();
            if again {
                residency.read_back().used_again(binding.access.writes());
            } else {
                residency
                    .read_back()
                    .used_by_kernel(binding.access.writes());
                self.used.push(binding.array.clone());
            }
        }
        let sampled = parts.iter().map(|part| (part.device, &part.range));
        let picked = self.pick(pass, &spec, sampled, devices);
        if parts.len() > 1 {
            for (index, part) in on(parts, true) {
                let started = Instant::now();
                self.fetch_to_host(&spec, &part.range)?;
                self.timers[index].waited_seconds += started.elapsed().as_secs_f64();
            }
        }
        for (index, part) in on(parts, false) {
            if let DeviceId::Gpu(number) = part.device {
                let gpu = devices.gpu(number)?;
                let predicted = &part.predicted;
                let work = GpuWork {
                    index,
                    items: &part.range,
                    seconds: predicted.upload + predicted.compute,
                };
                self.run_part_on_gpu(pass, &spec, work, &gpu)?;
                if parts.len() > 1 {
                    gpu.flush()?;
                }
            }
        }
        for (index, part) in on(parts, true) {
            let cpu = &devices.cpu;
            let timed = self.run_on_cpu(pass, &spec, &part.range, cpu, part.threads)?;
            self.timers[index].add(timed);
        }
        self.verify(pass, &spec, &picked, devices)
    }

    fn launch_small(&mut self, pass: &dyn Pass) -> Result<()> {
        let spec = checked_spec(pass)?;
        if spec.items == 0 {
            return Ok(());
        }
        let all = 0..spec.items;
        let (devices, plan) = match self.mode {
            Mode::Run { devices, plan } => (devices, plan),
            Mode::Compile { gpu, .. } => return self.compile(pass, &spec, all, gpu),
        };
        let is_split = plan.parts.len() != 1;
        let first_gpu = plan.parts.iter().find_map(|part| part.device.gpu());
        let device = match first_gpu {
            Some(index) if !is_split || !spec.has_cpu => DeviceId::Gpu(index),
            None if !spec.has_cpu => DeviceId::Gpu(0),
            _ => DeviceId::Cpu,
        };
        let picked = self.pick(pass, &spec, [(device, &all)], devices);
        match device {
            DeviceId::Gpu(index) if is_split || first_gpu.is_none() => {
                self.run_on_gpu(pass, &spec, None, &all, &devices.gpu(index)?)?;
            }
            DeviceId::Gpu(index) => {
                let gpu = devices.gpu(index)?;
                let work = GpuWork {
                    index: 0,
                    items: &all,
                    seconds: 0.0,
                };
                self.run_part_on_gpu(pass, &spec, work, &gpu)?;
            }
            DeviceId::Cpu => {
                let timed = self.run_on_cpu(pass, &spec, &all, &devices.cpu, 1)?;
                if let [timer] = self.timers.as_mut_slice() {
                    timer.add(timed);
                }
            }
        }
        self.verify(pass, &spec, &picked, devices)
    }
}

/// How a pass uses the array of a binding.
fn usage(binding: &Binding) -> Usage {
    Usage {
        reads: binding.access.reads(),
        writes: binding.access.writes(),
    }
}

/// Records that the outputs of items have unspecified values, since not all items were computed.
fn undefine_outputs(spec: &LaunchSpec, items: &Range<usize>) {
    let outputs = spec.bindings.iter().filter(|b| b.access.writes());
    for binding in outputs {
        let elements = binding.elements(items, spec.items);
        binding.array.residency().undefine(elements);
    }
}

/// The parts on the CPU, or those on GPUs, with their places in the plan.
fn on(parts: &[PlannedPart], cpu: bool) -> impl Iterator<Item = (usize, &PlannedPart)> {
    let wanted = move |part: &PlannedPart| (part.device == DeviceId::Cpu) == cpu;
    parts
        .iter()
        .enumerate()
        .filter(move |(_, part)| wanted(part))
}

/// Compiles in the background what `gpu` needs to run `items` of a kernel, unless that was begun before. At the end
/// [`Gpu::readiness`] of the kernel's [`identity`](crate::kernel::identity) is `Ready`, also after an error: a kernel that
/// cannot run reports it when it runs.
pub(crate) fn warm_up<K: Kernel>(kernel: Arc<K>, items: Range<usize>, gpu: &Arc<Gpu>) {
    let identity = crate::kernel::identity(&*kernel);
    gpu.compile_ahead(identity, move |gpu| {
        let dry_run = DryRun::begin();
        let outcome = catch_panic(kernel.name(), || {
            let mut compiler = Executor::compiling(gpu, &items);
            kernel
                .execute(&mut Execution::through(&mut compiler))
                .map(drop)
        });
        drop(dry_run);
        if let Err(error) = outcome {
            tracing::debug!(kernel = kernel.name(), %error, "could not be compiled ahead");
        }
    });
}

/// The launch spec of a pass, after a check that ranges of items write disjoint elements. The safety of
/// [`CpuPart::write`] rests on that.
fn checked_spec(pass: &dyn Pass) -> Result<LaunchSpec> {
    let spec = pass.spec()?;
    spec.check(pass.name())?;
    Ok(spec)
}
