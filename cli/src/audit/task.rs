//! One task of an audit: a kernel at a size, with its arrays on the host or on a device.

use super::super::args::StartLocation;
use divvy::catalog::Entry;

/// A task of an audit.
#[derive(Clone, Copy)]
pub struct AuditTask {
    /// The kernel.
    pub entry: &'static Entry,
    /// Its size.
    pub n: usize,
    /// Where its arrays are.
    pub residency: StartLocation,
    /// Seed of its arguments.
    pub seed: u64,
}
