//! What happened in a run.

use crate::array::Moved;
use crate::device::DeviceId;
use smallvec::SmallVec;
use std::ops::Range;

/// The outcome of [`Runtime::run`](crate::Runtime::run).
#[derive(Clone, Debug)]
pub struct Run<T> {
    /// What the kernel returns: `()` for kernels that write arrays.
    pub value: T,
    /// What ran where.
    pub report: Report,
}

/// What ran where, how long it was predicted to take and how long it took.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kernel's name.
    pub kernel: String,
    /// The parts of its main pass, in ascending order of items.
    pub parts: SmallVec<[PartReport; 2]>,
    /// Seconds that the plan predicted until the results are complete.
    pub predicted_seconds: f64,
    /// Seconds that the call took on the caller's thread. Work on GPUs may go on after it unless the kernel returned
    /// a value.
    pub seconds: f64,
    /// Whether the plan was taken to find out how long it takes, not because it was taken to be the best.
    pub exploring: bool,
    /// Bytes that moved because of this call.
    pub moved: Moved,
}

/// A part of a run.
#[derive(Clone, Debug)]
pub struct PartReport {
    /// Where it ran.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that computed it; 1 on a GPU.
    pub threads: usize,
    /// Seconds that the plan predicted for it.
    pub predicted_seconds: f64,
}
