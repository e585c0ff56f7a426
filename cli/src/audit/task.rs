//! What is audited: a kernel at a size, with its arrays somewhere.

use super::super::args::StartLocation;
use divvy::catalog::Entry;

/// What is to be audited.
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
