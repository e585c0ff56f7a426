//! What is audited: a kernel at a size, with its arrays somewhere.

use super::super::args::Residency;
use divvy::kernels::catalog::Entry;

/// What is to be audited.
#[derive(Clone, Copy)]
pub struct Task {
    /// The kernel.
    pub entry: &'static Entry,
    /// Its size.
    pub n: usize,
    /// Where its arrays are.
    pub residency: Residency,
    /// Seed of its arguments.
    pub seed: u64,
}
