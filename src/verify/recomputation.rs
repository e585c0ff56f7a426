//! Verification: a sample of parts is computed a second time, on another device, and the results are compared.
//!
//! What a part reads is copied before it runs. Afterwards another device computes the same items from the copy, on
//! stand-ins of the arrays (see `array::shadow`), so that nobody sees its results but the comparison. How far the two may
//! be apart is the pass's own [`Tolerance`](crate::kernel::Tolerance).

use super::compare::{Compared, Values};
use crate::array::{Handle, ShadowTurn};
use crate::device::{DeviceId, DeviceKind, Devices};
use crate::error::{Difference, Error, Mismatch, Result};
use crate::execute::{Executor, Recheck};
use crate::kernel::{Binding, Launch, LaunchSpec, Pass};
use crate::panics::catch_panic;
use crate::plan::Plan;
use smallvec::SmallVec;
use std::ops::Range;

/// A part that is computed twice.
pub(super) struct Recomputation {
    /// Where it is computed first.
    device: DeviceId,
    items: Range<usize>,
    /// Where it is computed again.
    other: DeviceId,
    /// What it reads.
    inputs: SmallVec<[Copied; 4]>,
}

/// A copy of elements.
struct Copied {
    array: Handle,
    range: Range<usize>,
    bytes: Vec<u8>,
}

impl Copied {
    fn of(binding: &Binding, spec: &LaunchSpec, items: &Range<usize>) -> Result<Self> {
        let range = binding.elements(items, spec.items);
        let bytes = binding.array.copy_out(&range)?;
        let array = binding.array.clone();
        Ok(Self {
            array,
            range,
            bytes,
        })
    }

    fn values(&self) -> Values<'_> {
        Values::new(self.array.element_type(), &self.bytes)
    }
}

impl Recomputation {
    /// A device that can compute what another one has: the CPU before GPUs, and real ones before software adapters.
    pub(super) fn device_beside(
        spec: &LaunchSpec,
        first: DeviceId,
        devices: &Devices,
    ) -> Option<DeviceId> {
        if first != DeviceId::Cpu && spec.has_cpu {
            return Some(DeviceId::Cpu);
        }
        if !spec.has_gpu {
            return None;
        }
        let others = devices
            .trusted()
            .filter(|(index, _)| DeviceId::Gpu(*index) != first);
        let is_software = |kind: DeviceKind| kind == DeviceKind::Software;
        let best = others.min_by_key(|(_, gpu)| is_software(gpu.info().kind));
        best.map(|(index, _)| DeviceId::Gpu(index))
    }

    /// Copies what items read before `device` computes them, so that `other` can compute them too; `None` if they cannot
    /// be copied.
    pub(super) fn of(
        kernel: &str,
        spec: &LaunchSpec,
        (device, items): (DeviceId, &Range<usize>),
        other: DeviceId,
    ) -> Option<Self> {
        let read = spec.bindings.iter().filter(|b| b.access.reads());
        let inputs = read.map(|binding| Copied::of(binding, spec, items));
        match inputs.collect() {
            Ok(inputs) => Some(Self {
                device,
                items: items.clone(),
                other,
                inputs,
            }),
            Err(error) => {
                cannot_verify(kernel, &error);
                None
            }
        }
    }

    /// The GPU that a mismatch speaks against: that which computed the part, unless the CPU did.
    fn suspect(&self) -> usize {
        let devices = [self.device, self.other];
        let gpus = devices.iter().find_map(DeviceId::gpu);
        gpus.expect("two different devices are compared")
    }

    /// The largest difference that is not allowed, if there is any, and in which array.
    fn worst_difference(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        devices: &Devices,
    ) -> Result<Option<(Handle, Difference)>> {
        let ours = self.outputs(spec)?;
        let theirs = self.compute_again(pass, spec, devices)?;
        let mut worst: Option<(Handle, Difference)> = None;
        let written = spec.bindings.iter().enumerate();
        let written = written.filter(|(_, binding)| binding.access.writes());
        for (at, (binding, _)) in written.enumerate() {
            let (ours, theirs) = (&ours[at], &theirs[at]);
            if ours.bytes == theirs.bytes {
                continue;
            }
            let tolerance = pass.tolerance(binding);
            let magnitudes = match tolerance.terms() {
                Some(pass) => Some(self.of_magnitudes().compute_again(pass, spec, devices)?),
                None => None,
            };
            let largest_read = self.inputs.iter().map(|input| input.values().largest());
            let compared = Compared {
                ours: ours.values(),
                theirs: theirs.values(),
                magnitudes: magnitudes.as_ref().map(|all| all[at].values()),
                largest_read: largest_read.fold(0.0, f64::max),
            };
            if let Some(mut found) = compared.worst(&tolerance)
                && worst.as_ref().is_none_or(|(_, w)| found.size > w.size)
            {
                found.at += ours.range.start;
                worst = Some((ours.array.clone(), found));
            }
        }
        Ok(worst)
    }

    /// What the other device makes of the inputs.
    fn compute_again(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        devices: &Devices,
    ) -> Result<Vec<Copied>> {
        let threads = devices.threads_of(self.other);
        let plan = Plan::alone(self.other, self.items.clone(), threads);
        let turn = ShadowTurn::take();
        let under_way = turn.begin();
        let compute = || {
            let mut inputs = self.inputs.iter();
            inputs.try_for_each(|input| input.array.copy_in(&input.range, &input.bytes))?;
            catch_panic(pass.name(), || Executor::again(devices, &plan).launch(pass))?;
            self.outputs(spec)
        };
        let outputs = compute();
        drop(under_way);
        let arrays = spec.bindings.iter().map(|binding| &binding.array);
        arrays.for_each(Handle::clear_shadow);
        outputs
    }

    /// What the part wrote, as this thread sees it.
    fn outputs(&self, spec: &LaunchSpec) -> Result<Vec<Copied>> {
        let written = spec.bindings.iter().filter(|b| b.access.writes());
        let outputs = written.map(|binding| Copied::of(binding, spec, &self.items));
        outputs.collect()
    }

    /// The same with the magnitudes of the inputs.
    fn of_magnitudes(&self) -> Self {
        let inputs = self.inputs.iter().map(|input| Copied {
            array: input.array.clone(),
            range: input.range.clone(),
            bytes: input.values().magnitudes(),
        });
        Self {
            device: self.device,
            items: self.items.clone(),
            other: self.other,
            inputs: inputs.collect(),
        }
    }
}

impl Recheck for Recomputation {
    fn items(&self) -> &Range<usize> {
        &self.items
    }

    fn verify(&self, pass: &dyn Pass, spec: &LaunchSpec, devices: &Devices) -> Result<bool> {
        let worst = match self.worst_difference(pass, spec, devices) {
            Ok(worst) => worst,
            Err(error) => {
                cannot_verify(pass.name(), &error);
                return Ok(false);
            }
        };
        let suspect = devices.managed_gpu(self.suspect())?;
        let Some((array, difference)) = worst else {
            suspect.agreed();
            return Ok(true);
        };
        let mismatch = Mismatch {
            kernel: pass.name().into(),
            range: self.items.clone(),
            device: described(self.device, devices),
            other: described(self.other, devices),
            array: array.to_string(),
            difference,
        };
        suspect.disagreed(&mismatch.to_string());
        Err(Error::Mismatch(mismatch.into()))
    }
}

fn cannot_verify(kernel: &str, error: &Error) {
    tracing::warn!(kernel, %error, "a part could not be verified");
}

/// A device for messages.
fn described(device: DeviceId, devices: &Devices) -> String {
    let name = device
        .gpu()
        .and_then(|index| devices.managed_gpu(index).ok());
    match name {
        Some(slot) => format!("{device} ({})", slot.info().name),
        None => device.to_string(),
    }
}
