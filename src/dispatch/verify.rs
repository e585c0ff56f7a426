//! Verification: a sample of parts is computed a second time, on another device, and the results are compared.
//!
//! What a part reads is copied before it runs. Afterwards another device computes the same items from the copy, on
//! stand-ins of the arrays (see `array::replay`), so that nobody sees its results but the comparison. How far the two may
//! be apart is the pass's own [`Tolerance`](crate::kernel::Tolerance).

mod compare;

use super::Execution;
use super::recover::alone;
use crate::array::{Handle, ReplayTurn};
use crate::device::cpu::catch_panic;
use crate::device::{DeviceId, DeviceKind, Devices};
use crate::error::{Error, Result};
use crate::hash::mixed;
use crate::kernel::{Binding, Outline, Pass};
pub use compare::Difference;
use compare::{Compared, Values};
use smallvec::SmallVec;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Draws the parts that are verified: a fixed share of them in the long run, in no pattern that a program could have too.
#[derive(Debug)]
pub(crate) struct Draw {
    share: f64,
    drawn: AtomicU64,
}

impl Draw {
    /// Of all parts that share, from 0 to 1; nothing draws none.
    pub(crate) fn new(share: f64) -> Option<Self> {
        let drawn = AtomicU64::new(0);
        (share > 0.0).then_some(Self { share, drawn })
    }

    /// Whether the next part is verified.
    fn next(&self) -> bool {
        const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
        let number = self.drawn.fetch_add(1, Ordering::Relaxed);
        let drawn = mixed(SEED, number) as f64 / (u64::MAX as f64);
        self.share >= 1.0 || drawn < self.share
    }
}

/// What two devices computed of the same items, where that differs by more than the kernel's
/// [`Tolerance`](crate::kernel::Tolerance).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Mismatch {
    /// The kernel that was called.
    pub kernel: String,
    /// The items that were computed twice.
    pub range: Range<usize>,
    /// The device that computed the part.
    pub device: String,
    /// The device that computed it again.
    pub other: String,
    /// The array: its name, if it has one, its element type and its length.
    pub array: String,
    /// Where they are furthest apart, and how far.
    pub difference: Difference,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kernel,
            range,
            device,
            other,
            array,
            difference,
        } = self;
        write!(
            f,
            "{kernel}: {device} and {other} disagree on the items {range:?}: the largest difference in {array} is \
             {difference}; make the kernel compute the same on both, give it the `Tolerance` that it needs, or do \
             without the device that is wrong"
        )
    }
}

/// A part that is computed twice.
pub(super) struct Sample {
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
    fn of(binding: &Binding, outline: &Outline, items: &Range<usize>) -> Result<Self> {
        let range = binding.elements(items, outline.items);
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

impl Sample {
    /// Copies what items read before `device` computes them, if they are drawn and another device can compute them too.
    pub(super) fn draw(
        draw: &Draw,
        kernel: &str,
        outline: &Outline,
        (device, items): (DeviceId, &Range<usize>),
        devices: &Devices,
    ) -> Option<Self> {
        let other = other_device(outline, device, devices).filter(|_| draw.next())?;
        let read = outline.bindings.iter().filter(|b| b.access.reads());
        let inputs = read.map(|binding| Copied::of(binding, outline, items));
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

    /// The items that are computed twice.
    pub(super) fn items(&self) -> &Range<usize> {
        &self.items
    }

    /// Computes the items, which have been computed, again, and compares. Whether that could be done: if a device is lost
    /// meanwhile, or full, that is no reason for the call to fail.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the results are too far apart.
    pub(super) fn verify<P: Pass + ?Sized>(
        &self,
        pass: &P,
        outline: &Outline,
        devices: &Devices,
    ) -> Result<bool> {
        let worst = match self.worst_difference(pass, outline, devices) {
            Ok(worst) => worst,
            Err(error) => {
                cannot_verify(pass.name(), &error);
                return Ok(false);
            }
        };
        let suspect = devices.slot(self.suspect())?;
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

    /// The GPU that a mismatch speaks against: that which computed the part, unless the CPU did.
    fn suspect(&self) -> usize {
        let devices = [self.device, self.other];
        let gpus = devices.iter().find_map(DeviceId::gpu);
        gpus.expect("two different devices are compared")
    }

    /// The largest difference that is not allowed, if there is any, and in which array.
    fn worst_difference<P: Pass + ?Sized>(
        &self,
        pass: &P,
        outline: &Outline,
        devices: &Devices,
    ) -> Result<Option<(Handle, Difference)>> {
        let ours = self.outputs(outline)?;
        let theirs = self.compute_again(pass, outline, devices)?;
        let mut worst: Option<(Handle, Difference)> = None;
        let written = outline.bindings.iter().enumerate();
        let written = written.filter(|(_, binding)| binding.access.writes());
        for (at, (binding, _)) in written.enumerate() {
            let (ours, theirs) = (&ours[at], &theirs[at]);
            if ours.bytes == theirs.bytes {
                continue;
            }
            let tolerance = pass.tolerance(binding);
            let magnitudes = match tolerance.terms() {
                Some(pass) => Some(self.of_magnitudes().compute_again(pass, outline, devices)?),
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
    fn compute_again<P: Pass + ?Sized>(
        &self,
        pass: &P,
        outline: &Outline,
        devices: &Devices,
    ) -> Result<Vec<Copied>> {
        let plan = alone(self.other, self.items.clone(), devices);
        let turn = ReplayTurn::take();
        let under_way = turn.begin();
        let compute = || {
            let mut inputs = self.inputs.iter();
            inputs.try_for_each(|input| input.array.copy_in(&input.range, &input.bytes))?;
            catch_panic(pass.name(), || {
                Execution::again(devices, &plan).launch(pass)
            })?;
            self.outputs(outline)
        };
        let outputs = compute();
        drop(under_way);
        let arrays = outline.bindings.iter().map(|binding| &binding.array);
        arrays.for_each(Handle::clear_stand_in);
        outputs
    }

    /// What the part wrote, as this thread sees it.
    fn outputs(&self, outline: &Outline) -> Result<Vec<Copied>> {
        let written = outline.bindings.iter().filter(|b| b.access.writes());
        let outputs = written.map(|binding| Copied::of(binding, outline, &self.items));
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

fn cannot_verify(kernel: &str, error: &Error) {
    tracing::warn!(kernel, %error, "a part could not be verified");
}

/// A device that can compute what another one has: the CPU before GPUs, and real ones before software adapters.
fn other_device(outline: &Outline, first: DeviceId, devices: &Devices) -> Option<DeviceId> {
    if first != DeviceId::Cpu && outline.has_cpu {
        return Some(DeviceId::Cpu);
    }
    if !outline.has_gpu {
        return None;
    }
    let others = devices
        .trusted()
        .filter(|(index, _)| DeviceId::Gpu(*index) != first);
    let is_software = |kind: DeviceKind| kind == DeviceKind::Software;
    let best = others.min_by_key(|(_, gpu)| is_software(gpu.info().kind));
    best.map(|(index, _)| DeviceId::Gpu(index))
}

/// A device for messages.
fn described(device: DeviceId, devices: &Devices) -> String {
    let name = device.gpu().and_then(|index| devices.slot(index).ok());
    match name {
        Some(slot) => format!("{device} ({})", slot.info().name),
        None => device.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::Draw;

    #[test]
    fn so_many_are_drawn_as_were_asked_for() {
        for share in [0.01, 0.1, 0.5, 0.9] {
            let draw = Draw::new(share).expect("some");
            let drawn = (0..10_000).filter(|_| draw.next()).count() as f64 / 1e4;
            assert!((drawn - share).abs() < 0.02, "{share}: {drawn}");
        }
        let all = Draw::new(1.0).expect("all");
        assert!((0..1000).all(|_| all.next()));
        assert!(Draw::new(0.0).is_none());
    }

    #[test]
    fn no_regular_program_has_only_some_of_its_parts_drawn() {
        for period in 2..12 {
            let draw = Draw::new(0.1).expect("some");
            let mut drawn = vec![0; period];
            (0..1000 * period)
                .filter(|_| draw.next())
                .for_each(|at| drawn[at % period] += 1);
            assert!(
                drawn.iter().all(|count| (50..200).contains(count)),
                "{period}: {drawn:?}"
            );
        }
    }
}
