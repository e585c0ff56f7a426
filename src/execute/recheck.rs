//! How a part of a launch is computed a second time, by whoever is asked to.

use crate::device::{DeviceId, Devices};
use crate::error::Result;
use crate::kernel::{LaunchSpec, Pass};
use std::ops::Range;

/// Picks parts to be computed a second time.
pub(crate) trait Verify: Sync {
    /// Called before a part runs: copies what it reads if it is to be computed again afterwards.
    fn pick(
        &self,
        pass: &dyn Pass,
        spec: &LaunchSpec,
        part: (DeviceId, &Range<usize>),
        devices: &Devices,
    ) -> Option<Box<dyn Recheck>>;
}

/// A part that is computed a second time.
pub(crate) trait Recheck {
    /// Its items.
    fn items(&self) -> &Range<usize>;

    /// Called after the part ran: computes it again and compares. Whether that could be done.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the results are too far apart.
    fn verify(&self, pass: &dyn Pass, spec: &LaunchSpec, devices: &Devices) -> Result<bool>;
}
