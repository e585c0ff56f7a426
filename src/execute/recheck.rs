//! The interface of verification: picks parts of a launch and computes them a second time.

use crate::device::{DeviceId, Devices};
use crate::error::Result;
use crate::kernel::{LaunchSpec, Pass};
use std::ops::Range;

/// Picks parts to be computed a second time.
pub(crate) trait Verify: Sync {
    /// Called before `device` computes `items`: copies what they read, if this picks them.
    fn pick(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        device: DeviceId,
        items: &Range<usize>,
        devices: &Devices,
    ) -> Option<Box<dyn Recheck>>;
}

/// A part that is computed a second time.
pub(crate) trait Recheck {
    /// Its items.
    fn items(&self) -> &Range<usize>;

    /// Called after the part ran: computes it again and compares. Returns whether that was possible.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the results are too far apart.
    fn verify(&self, pass: &dyn Pass, spec: &LaunchSpec, devices: &Devices) -> Result<bool>;
}
