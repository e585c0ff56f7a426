//! What happened in a run.

use crate::array::TransferBytes;
use crate::device::{Clock, DeviceId, Reading};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// The outcome of [`Runtime::run`](crate::Runtime::run).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// What the kernel returns: `()` for kernels that write arrays.
    pub value: T,
    /// What ran where.
    pub report: Report,
}

/// What ran where, how long it was predicted to take and how long it took.
#[derive(Clone, Debug)]
#[non_exhaustive]
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
    pub moved: TransferBytes,
    /// Parts of its passes that were computed again on another device and compared: see
    /// [`Policy::verify`](crate::Policy::verify).
    pub verified: usize,
}

impl Report {
    /// Seconds until the results were complete, without what a GPU had to finish before: those on the caller's thread,
    /// or those of the slowest part if they are more. `None` until every part is known to be done, and if for one of
    /// them it cannot be known.
    pub fn actual_seconds(&self) -> Option<f64> {
        let mut parts = self.parts.iter();
        parts.try_fold(self.seconds, |most, part| {
            Some(most.max(part.actual_seconds()?))
        })
    }
}

/// A part of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartReport {
    /// Where it ran.
    pub device: DeviceId,
    /// Its items.
    pub range: Range<usize>,
    /// CPU threads that computed it; 1 on a GPU.
    pub threads: usize,
    /// Seconds that the plan predicted for it.
    pub predicted_seconds: f64,
    pub(crate) timing: PartTiming,
}

impl PartReport {
    /// Seconds that it took: on the CPU with what it waited for data, on a GPU from recording to completion without
    /// what the GPU had to finish before.
    ///
    /// Nobody waits to find that out: it is `None` while no later operation has seen that a GPU is done, as reading a
    /// result does, and if it cannot be known, as when a pipeline was used for the first time.
    pub fn actual_seconds(&self) -> Option<f64> {
        let seconds = self.timing.timing.seconds()?;
        Some(seconds + self.timing.waited_seconds)
    }
}

/// How long a part of a run took.
#[derive(Clone, Debug)]
pub(crate) struct PartTiming {
    /// Its own work.
    pub(crate) timing: Timing,
    /// Seconds that it waited before for other devices' data, and for these to be moved. Only on the CPU, where this is
    /// no part of its own work; on a GPU it is.
    pub(crate) waited_seconds: f64,
}

/// What is known of how long some work took.
#[derive(Clone, Debug)]
pub(crate) enum Timing {
    /// So many seconds.
    Seconds(f64),
    /// What this clock shows, now or later.
    Clock(Arc<Clock>),
}

impl Timing {
    /// How long it took, if that is known yet.
    pub(crate) fn seconds(&self) -> Option<f64> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Clock(clock) => clock.seconds(),
        }
    }

    /// What is known of it: the seconds, that they cannot be known, or that they may be later.
    pub(crate) fn reading(&self) -> Reading {
        match self {
            Self::Seconds(seconds) => Reading::Took {
                seconds: *seconds,
                calls: 1,
                mixed: false,
            },
            Self::Clock(clock) => clock.reading(),
        }
    }
}
