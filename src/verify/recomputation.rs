//! A part that is computed a second time on another device.
//!
//! What the part reads is copied before it runs. Afterwards the other device computes the same items from the copy, on the
//! shadow residencies of the arrays (see `array::shadow`). So only the comparison sees the second results. The allowed
//! difference is the pass's own [`Tolerance`](crate::kernel::Tolerance).

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
    pair: Pair,
    items: Range<usize>,
    /// The elements that it reads.
    inputs: SmallVec<[Copied; 4]>,
}

/// The two devices that compute a part.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    /// The device of the plan.
    pub(super) device: DeviceId,
    /// The device that computes the part again.
    pub(super) other: DeviceId,
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
    /// The device that computes again what `first` computes: preferably the CPU, then a GPU, then a software adapter.
    pub(super) fn other_device(
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

    /// Copies what the items read, before they are computed; `None` if they cannot be copied.
    pub(super) fn new(
        kernel: &str,
        spec: &LaunchSpec,
        pair: Pair,
        items: &Range<usize>,
    ) -> Option<Self> {
        let read = spec.bindings.iter().filter(|b| b.access.reads());
        let inputs = read.map(|binding| Copied::of(binding, spec, items));
        match inputs.collect() {
            Ok(inputs) => Some(Self {
                pair,
                items: items.clone(),
                inputs,
            }),
            Err(error) => {
                warn_unverified(kernel, &error);
                None
            }
        }
    }

    /// The GPU that a mismatch counts against: the one that computed the part, or the other one if the CPU did.
    fn suspect(&self) -> usize {
        let devices = [self.pair.device, self.pair.other];
        let gpus = devices.iter().find_map(DeviceId::gpu);
        gpus.expect("two different devices are compared")
    }

    /// The largest difference that is not allowed, and its array.
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
                Some(pass) => Some(self.with_magnitudes().compute_again(pass, spec, devices)?),
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

    /// The outputs that the other device computes from the inputs.
    fn compute_again(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        devices: &Devices,
    ) -> Result<Vec<Copied>> {
        let other = self.pair.other;
        let plan = Plan::alone(other, self.items.clone(), devices.threads_of(other));
        let turn = ShadowTurn::take();
        let scope = turn.begin();
        let compute = || {
            let mut inputs = self.inputs.iter();
            inputs.try_for_each(|input| input.array.copy_in(&input.range, &input.bytes))?;
            catch_panic(pass.name(), || Executor::again(devices, &plan).launch(pass))?;
            self.outputs(spec)
        };
        let outputs = compute();
        drop(scope);
        let arrays = spec.bindings.iter().map(|binding| &binding.array);
        arrays.for_each(Handle::clear_shadow);
        outputs
    }

    /// The outputs of the part; in a shadow scope, those of the shadows.
    fn outputs(&self, spec: &LaunchSpec) -> Result<Vec<Copied>> {
        let written = spec.bindings.iter().filter(|b| b.access.writes());
        let outputs = written.map(|binding| Copied::of(binding, spec, &self.items));
        outputs.collect()
    }

    /// The same part with the magnitudes of its inputs.
    fn with_magnitudes(&self) -> Self {
        let inputs = self.inputs.iter().map(|input| Copied {
            array: input.array.clone(),
            range: input.range.clone(),
            bytes: input.values().magnitudes(),
        });
        Self {
            pair: self.pair,
            items: self.items.clone(),
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
                warn_unverified(pass.name(), &error);
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
            device: described(self.pair.device, devices),
            other: described(self.pair.other, devices),
            array: array.to_string(),
            difference,
        };
        suspect.disagreed(&mismatch.to_string());
        Err(Error::Mismatch(mismatch.into()))
    }
}

fn warn_unverified(kernel: &str, error: &Error) {
    tracing::warn!(kernel, %error, "a part could not be verified");
}

/// The name of a device in messages.
fn described(device: DeviceId, devices: &Devices) -> String {
    let name = device
        .gpu()
        .and_then(|index| devices.managed_gpu(index).ok());
    match name {
        Some(gpu) => format!("{device} ({})", gpu.info().name),
        None => device.to_string(),
    }
}
