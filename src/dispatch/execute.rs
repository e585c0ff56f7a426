//! Making a plan happen: the only place that moves bytes and changes residency on behalf of kernels.
//!
//! Each launch of a pass goes in this order: fetch to the host what the CPU's part needs (that waits for GPUs, so it
//! comes before giving them more to do), encode and submit the GPUs' parts, compute the CPU's part meanwhile.

use super::plan::{Plan, PlannedPart};
use crate::array::{Array, DeviceView, Element, Moved};
use crate::device::cpu::{CpuPart, HostView, catch_panic};
use crate::device::gpu::{Gpu, GpuLimits, GpuPart};
use crate::device::{DeviceId, Devices};
use crate::error::{Error, Result};
use crate::kernel::{CpuTasks, Outline, Pass};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// A run of a kernel under way: what [`Kernel::execute`](crate::kernel::Kernel::execute) launches its passes through.
pub struct Execution<'r> {
    devices: &'r Devices,
    plan: &'r Plan,
    moved: Moved,
}

impl<'r> Execution<'r> {
    pub(crate) fn new(devices: &'r Devices, plan: &'r Plan) -> Self {
        Self {
            devices,
            plan,
            moved: Moved::default(),
        }
    }

    /// What has been moved so far.
    pub(crate) fn moved(&self) -> Moved {
        self.moved
    }

    /// Runs a pass over the planned parts. It must have as many items as the planned outline.
    ///
    /// # Errors
    /// Whatever a device reports, and [`Error::Argument`] if the pass declares outputs that overlap.
    pub fn launch<P: Pass + ?Sized>(&mut self, pass: &P) -> Result<()> {
        let outline = checked_outline(pass)?;
        let planned = self.plan.parts.last().map_or(0, |part| part.range.end);
        if planned != outline.items {
            return Err(Error::argument(
                pass.name(),
                format!(
                    "a pass of {} items was launched, {planned} were planned",
                    outline.items
                ),
            ));
        }
        let parts = &self.plan.parts;
        let at_border = |part: &PlannedPart| part.range.start.is_multiple_of(outline.grain.max(1));
        if !parts.iter().all(at_border) {
            return Err(Error::argument(
                pass.name(),
                "its parts were cut for a kernel of another grain; give that kernel's outline the grain of its passes",
            ));
        }
        if parts.len() > 1 {
            for part in parts.iter().filter(|part| part.device == DeviceId::Cpu) {
                self.fetch_to_host(&outline, &part.range)?;
            }
        }
        for part in parts {
            if let DeviceId::Gpu(index) = part.device {
                let gpu = self.devices.gpu(index)?;
                self.run_on_gpu(pass, &outline, &part.range, gpu)?;
                if parts.len() > 1 {
                    gpu.flush()?;
                } else {
                    gpu.announce(part.predicted.compute)?;
                }
            }
        }
        for part in parts.iter().filter(|part| part.device == DeviceId::Cpu) {
            self.run_on_cpu(pass, &outline, &part.range, part.threads)?;
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
        match self.plan.parts.as_slice() {
            [
                PlannedPart {
                    device: DeviceId::Gpu(index),
                    ..
                },
            ] => self.run_on_gpu(pass, &outline, &all, self.devices.gpu(*index)?),
            _ if outline.has_cpu => self.run_on_cpu(pass, &outline, &all, 1),
            parts => {
                let gpus = parts.iter().find_map(|part| match part.device {
                    DeviceId::Gpu(index) => Some(index),
                    DeviceId::Cpu => None,
                });
                self.run_on_gpu(pass, &outline, &all, self.devices.gpu(gpus.unwrap_or(0))?)
            }
        }
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

    fn run_on_cpu<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        items: &Range<usize>,
        threads: usize,
    ) -> Result<()> {
        let mut views = SmallVec::<[HostView; 4]>::new();
        let mut borrows = SmallVec::<[_; 4]>::new();
        for binding in &outline.bindings {
            let elements = binding.elements(items, outline.items);
            let access = binding.access;
            let (start, borrow) =
                binding
                    .array
                    .borrow_on_host(elements, access.reads(), access.writes())?;
            self.moved += binding.array.residency().take_moved();
            views.push(HostView {
                start,
                ty: binding.array.element_type(),
            });
            borrows.push(borrow);
        }
        let run = |range: Range<usize>, threads| {
            // SAFETY: the borrows held here keep everybody else from writing what is read and from touching what is
            // written, and made it present. Calls get disjoint ranges whose borders are multiples of the grain, so
            // by `checked_outline` the elements they write are disjoint too.
            pass.cpu(&mut unsafe { CpuPart::new(range, outline, &views, threads) })
        };
        let cpu = &self.devices.cpu;
        catch_panic(pass.name(), || match pass.cpu_tasks() {
            CpuTasks::Ranges => {
                cpu.for_ranges(items.clone(), outline.grain.max(1), threads, &|range| {
                    run(range, 1)
                })
            }
            CpuTasks::Own if threads > 1 => cpu.install(|| run(items.clone(), threads)),
            CpuTasks::Own => run(items.clone(), 1),
        })
    }

    fn run_on_gpu<P: Pass + ?Sized>(
        &mut self,
        pass: &P,
        outline: &Outline,
        items: &Range<usize>,
        gpu: &Arc<Gpu>,
    ) -> Result<()> {
        let most = piece_items(pass.name(), outline, gpu.limits())?;
        let mut start = items.start;
        while start < items.end {
            let piece = start..items.end.min(start.saturating_add(most));
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
            start = piece.end;
            pass.gpu(&mut GpuPart::new(gpu, outline, piece, &views))?;
        }
        Ok(())
    }
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
