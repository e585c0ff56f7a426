//! Making a plan happen: the only place that moves bytes and changes residency on behalf of kernels.
//!
//! Each launch of a pass goes in this order: fetch to the host what the CPU's part needs (that waits for GPUs, so it
//! comes before giving them more to do), encode and submit the GPUs' parts, compute the CPU's part meanwhile.

use super::plan::{Plan, PlannedPart};
use super::report::{PartTiming, Timing};
use crate::array::{Array, DeviceView, Element, Handle, Moved, Rehearsal};
use crate::device::cpu::{Cpu, CpuPart, HostView, catch_panic};
use crate::device::gpu::{Clock, Gpu, GpuLimits, GpuPart};
use crate::device::{DeviceId, Devices};
use crate::error::{Error, Result};
use crate::kernel::{CpuTasks, Kernel, Outline, Pass};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// A run of a kernel under way: what [`Kernel::execute`](crate::kernel::Kernel::execute) launches its passes through.
pub struct Execution<'r> {
    task: Task<'r>,
    moved: Moved,
    timers: SmallVec<[Timer; 2]>,
    /// Passes that were compiled and not run.
    compiled: usize,
    /// The arrays that passes used.
    used: SmallVec<[Handle; 4]>,
}

/// What is to be done with the passes that are launched.
#[derive(Clone, Copy)]
enum Task<'r> {
    /// They run as planned.
    Run {
        devices: &'r Devices,
        plan: &'r Plan,
    },
    /// Their pipelines are compiled for a GPU that is to run these items.
    Compile {
        gpu: &'r Arc<Gpu>,
        items: &'r Range<usize>,
    },
}

/// What a part has taken so far.
#[derive(Debug, Default)]
struct Timer {
    seconds: f64,
    waited_seconds: f64,
    clock: Option<Arc<Clock>>,
}

/// What some items took on the CPU.
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

/// Passes that a kernel may launch when it is only to be compiled: one that launches until its values suit it would
/// never end on values that are not computed.
const MOST_COMPILED: usize = 64;

impl<'r> Execution<'r> {
    pub(crate) fn new(devices: &'r Devices, plan: &'r Plan) -> Self {
        let timers = plan.parts.iter().map(|_| Timer::default());
        Self {
            task: Task::Run { devices, plan },
            moved: Moved::default(),
            timers: timers.collect(),
            compiled: 0,
            used: SmallVec::new(),
        }
    }

    /// An execution that moves nothing, computes nothing and changes no array that was there before: it only compiles
    /// what `gpu` needs to run `items` of the kernel.
    fn compiling(gpu: &'r Arc<Gpu>, items: &'r Range<usize>) -> Self {
        Self {
            task: Task::Compile { gpu, items },
            moved: Moved::default(),
            timers: SmallVec::new(),
            compiled: 0,
            used: SmallVec::new(),
        }
    }

    /// What has been moved so far.
    pub(crate) fn moved(&self) -> Moved {
        self.moved
    }

    /// How long each part of the plan took, in the plan's order: all launches of the kernel together, except for small
    /// follow-up passes of a split, which are nobody's part. Nothing can be launched afterwards. Its GPUs are ready for the
    /// kernel, of which this is the [`identity`](crate::kernel::identity), from now on.
    pub(crate) fn finish(self, identity: u64) -> SmallVec<[PartTiming; 2]> {
        if let Task::Run { devices, plan } = self.task {
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

    /// Runs a pass over the planned parts. It must have as many items as the planned outline.
    ///
    /// # Errors
    /// Whatever a device reports, and [`Error::Argument`] if the pass declares outputs that overlap.
    pub fn launch<P: Pass + ?Sized>(&mut self, pass: &P) -> Result<()> {
        let outline = checked_outline(pass)?;
        let (devices, plan) = match self.task {
            Task::Run { devices, plan } => (devices, plan),
            Task::Compile { gpu, items } => {
                return self.compile(pass, &outline, items.clone(), gpu);
            }
        };
        let planned = plan.parts.last().map_or(0, |part| part.range.end);
        if planned != outline.items {
            return Err(Error::argument(
                pass.name(),
                format!(
                    "a pass of {} items was launched, {planned} were planned",
                    outline.items
                ),
            ));
        }
        let parts = &plan.parts;
        let at_border = |part: &PlannedPart| part.range.start.is_multiple_of(outline.grain.max(1));
        if !parts.iter().all(at_border) {
            return Err(Error::argument(
                pass.name(),
                "its parts were cut for a kernel of another grain; give that kernel's outline the grain of its passes",
            ));
        }
        for binding in &outline.bindings {
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
        if parts.len() > 1 {
            for (index, part) in on(parts, true) {
                let started = Instant::now();
                self.fetch_to_host(&outline, &part.range)?;
                self.timers[index].waited_seconds += started.elapsed().as_secs_f64();
            }
        }
        for (index, part) in on(parts, false) {
            if let DeviceId::Gpu(number) = part.device {
                let gpu = devices.gpu(number)?;
                let predicted = &part.predicted;
                let seconds = predicted.upload + predicted.compute;
                self.run_part_on_gpu(pass, &outline, (index, &part.range, seconds), gpu)?;
                if parts.len() > 1 {
                    gpu.flush()?;
                }
            }
        }
        for (index, part) in on(parts, true) {
            let cpu = &devices.cpu;
            let timed = self.run_on_cpu(pass, &outline, &part.range, (cpu, part.threads))?;
            self.timers[index].add(timed);
        }
        Ok(())
    }

    /// Runs a small follow-up pass unsplit: on the device that ran everything so far, or on the CPU after a split.
    ///
    /// # Errors
    /// As [`Execution::launch`].
    pub fn launch_small<P: Pass + ?Sized>(&mut self, pass: &P) -> Result<()> {
        let outline = checked_outline(pass)?;
        if outline.items == 0 {
            return Ok(());
        }
        let all = 0..outline.items;
        let (devices, plan) = match self.task {
            Task::Run { devices, plan } => (devices, plan),
            Task::Compile { gpu, .. } => return self.compile(pass, &outline, all, gpu),
        };
        let gpu = |part: &PlannedPart| match part.device {
            DeviceId::Gpu(index) => Some(index),
            DeviceId::Cpu => None,
        };
        if let [part] = plan.parts.as_slice()
            && let Some(index) = gpu(part)
        {
            let gpu = devices.gpu(index)?;
            return self.run_part_on_gpu(pass, &outline, (0, &all, 0.0), gpu);
        }
        if outline.has_cpu {
            let timed = self.run_on_cpu(pass, &outline, &all, (&devices.cpu, 1))?;
            if let [timer] = self.timers.as_mut_slice() {
                timer.add(timed);
            }
            return Ok(());
        }
        let index = plan.parts.iter().find_map(gpu).unwrap_or(0);
        self.run_on_gpu(pass, &outline, &all, devices.gpu(index)?)
    }

    /// A temporary array.
    pub fn uninit<T: Element>(&self, len: usize) -> Result<Array<T>> {
        Array::uninit(len)
    }

    fn fetch_to_host(&mut self, outline: &Outline, items: &Range<usize>) -> Result<()> {
        for binding in outline
            .bindings
            .iter()
            .filter(|binding| binding.access.reads())
        {
            let elements = binding.elements(items, outline.items);
            let mut residency = binding.array.residency();
            residency.host_access(elements, true, false)?;
            self.moved += residency.take_moved();
        }
        Ok(())
    }

    /// Computes items on the CPU, with so many threads of it.
    fn run_on_cpu<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        items: &Range<usize>,
        (cpu, threads): (&Cpu, usize),
    ) -> Result<Timed> {
        let started = Instant::now();
        let mut views = SmallVec::<[HostView; 4]>::new();
        let mut borrows = SmallVec::<[_; 4]>::new();
        let mut fetched = 0;
        for binding in &outline.bindings {
            let elements = binding.elements(items, outline.items);
            let access = binding.access;
            let (start, borrow) =
                binding
                    .array
                    .borrow_on_host(elements, access.reads(), access.writes())?;
            let moved = binding.array.residency().take_moved();
            fetched += moved.to_host;
            self.moved += moved;
            views.push(HostView {
                start,
                ty: binding.array.element_type(),
            });
            borrows.push(borrow);
        }
        // The clock is read once less where nothing had to be waited for: small calls are that short.
        let ready = if fetched > 0 { Instant::now() } else { started };
        let run = |range: Range<usize>, threads| {
            // SAFETY: the borrows held here keep everybody else from writing what is read and from touching what is
            // written, and made it present. Calls get disjoint ranges whose borders are multiples of the grain, so
            // by `checked_outline` the elements they write are disjoint too.
            pass.cpu(&mut unsafe { CpuPart::new(range, outline, &views, threads) })
        };
        catch_panic(pass.name(), || match pass.cpu_tasks() {
            CpuTasks::Ranges => {
                cpu.for_ranges(items.clone(), outline.grain.max(1), threads, &|range| {
                    run(range, 1)
                })
            }
            CpuTasks::Own if threads > 1 => cpu.install(|| run(items.clone(), threads)),
            CpuTasks::Own => run(items.clone(), 1),
        })
        .inspect_err(|_| undefine_outputs(outline, items))?;
        Ok(Timed {
            seconds: ready.elapsed().as_secs_f64(),
            waited_seconds: ready.saturating_duration_since(started).as_secs_f64(),
        })
    }

    /// Encodes items of the part `index` for a GPU, which are predicted to keep it busy for so many seconds, as far as no
    /// launch before has counted them.
    fn run_part_on_gpu<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        (index, items, seconds): (usize, &Range<usize>, f64),
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        let (clock, predicted) = match &self.timers[index].clock {
            Some(clock) => (Arc::clone(clock), 0.0),
            None => (Clock::new(), seconds),
        };
        self.timers[index].clock = Some(Arc::clone(&clock));
        gpu.begin(&clock, predicted);
        let ran = self.run_on_gpu(pass, outline, items, gpu);
        // Whatever came of it, what is recorded next belongs to another call.
        let announced = gpu.announce(&clock);
        ran.and(announced)
    }

    fn run_on_gpu<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        items: &Range<usize>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        for piece in pieces(pass, outline, items, gpu)? {
            let mut views = SmallVec::<[DeviceView; 4]>::new();
            for binding in &outline.bindings {
                let elements = binding.elements(&piece, outline.items);
                let access = binding.access;
                let mut residency = binding.array.residency();
                views.push(residency.device_access(
                    gpu,
                    elements,
                    access.reads(),
                    access.writes(),
                )?);
                self.moved += residency.take_moved();
            }
            pass.gpu(&mut GpuPart::new(gpu, outline, piece, &views))?;
        }
        Ok(())
    }

    /// Compiles what a GPU needs to run `items` of a pass.
    fn compile<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        items: Range<usize>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        self.compiled += 1;
        if self.compiled > MOST_COMPILED {
            let problem = format!("more than {MOST_COMPILED} passes, when nothing was computed");
            return Err(Error::argument(pass.name(), problem));
        }
        if !outline.has_gpu {
            return Ok(());
        }
        let items = items.start..items.end.min(outline.items);
        for piece in pieces(pass, outline, &items, gpu)? {
            pass.gpu(&mut GpuPart::to_compile(gpu, outline, piece))?;
        }
        Ok(())
    }
}

/// Takes note that items were not all computed: what their outputs hold is not specified.
fn undefine_outputs(outline: &Outline, items: &Range<usize>) {
    let outputs = outline.bindings.iter().filter(|b| b.access.writes());
    for binding in outputs {
        let elements = binding.elements(items, outline.items);
        binding.array.residency().undefine(elements);
    }
}

/// Cuts items into pieces of which every window fits a binding of the GPU.
fn pieces<P: Pass + ?Sized>(
    pass: &P,
    outline: &Outline,
    items: &Range<usize>,
    gpu: &Gpu,
) -> Result<impl Iterator<Item = Range<usize>> + use<P>> {
    let most = piece_items(pass.name(), outline, gpu.limits())?;
    let Range { mut start, end } = items.clone();
    Ok(std::iter::from_fn(move || {
        let piece = start..end.min(start.saturating_add(most));
        start = piece.end;
        (!piece.is_empty()).then_some(piece)
    }))
}

/// The parts on the CPU, or those on GPUs, with their places in the plan.
fn on(parts: &[PlannedPart], cpu: bool) -> impl Iterator<Item = (usize, &PlannedPart)> {
    let wanted = move |part: &PlannedPart| (part.device == DeviceId::Cpu) == cpu;
    parts
        .iter()
        .enumerate()
        .filter(move |(_, part)| wanted(part))
}

/// Compiles in the background what `gpu` needs to run `items` of a kernel, unless it is compiled or being compiled.
/// [`Gpu::readiness`] of the kernel's [`identity`](crate::kernel::identity) is `Ready` afterwards, whatever came of it:
/// if the kernel cannot run, its run will say so.
pub(crate) fn warm_up<K: Kernel>(kernel: Arc<K>, items: Range<usize>, gpu: &Arc<Gpu>) {
    let identity = crate::kernel::identity(&*kernel);
    gpu.compile_ahead(identity, move |gpu| {
        let rehearsal = Rehearsal::begin();
        let outcome = catch_panic(kernel.name(), || {
            kernel
                .execute(&mut Execution::compiling(gpu, &items))
                .map(drop)
        });
        drop(rehearsal);
        if let Err(error) = outcome {
            tracing::debug!(kernel = kernel.name(), %error, "could not be compiled ahead");
        }
    });
}

/// The outline of a pass, after making sure that ranges of items write disjoint elements: what the safety of
/// [`CpuPart::write`] rests on.
fn checked_outline<P: Pass + ?Sized>(pass: &P) -> Result<Outline> {
    let outline = pass.outline()?;
    outline.check(pass.name())?;
    Ok(outline)
}

/// The most items that one piece of a part may have, so that every window fits a binding.
fn piece_items(name: &str, outline: &Outline, limits: &GpuLimits) -> Result<usize> {
    let mut most = usize::MAX;
    let limit = limits.max_binding_bytes.min(limits.max_buffer_bytes);
    for binding in &outline.bindings {
        let size = binding.array.element_type().size();
        let len = binding.array.len();
        most = most.min(binding.role.bindable_items(len, size, limit));
    }
    if most >= outline.items {
        return Ok(most);
    }
    let grain = outline.border_grain();
    match most / grain * grain {
        0 => Err(Error::Infeasible {
            kernel: name.into(),
            reasons: format!(
                "the least piece of it needs a larger storage binding than {limit} bytes",
            ),
        }),
        pieces => Ok(pieces),
    }
}

#[cfg(test)]
mod tests;
