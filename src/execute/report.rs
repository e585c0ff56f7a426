//! Reports: what a run did, and how long it took.

use crate::array::TransferBytes;
use crate::device::{Clock, DeviceId, Reading};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// The outcome of [`Runtime::run`](crate::Runtime::run).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Run<T> {
    /// The kernel's value: `()` for kernels that write arrays.
    pub value: T,
    /// What ran where.
    pub report: Report,
}

/// What ran where, with the predicted and the measured times.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The kernel's name.
    pub kernel: String,
    /// The parts of its main pass, in ascending order of items.
    pub parts: SmallVec<[PartReport; 2]>,
    /// Seconds that the plan predicted until the results are complete.
    pub predicted_seconds: f64,
    /// Seconds that the call took on the caller's thread. Work on GPUs may continue after it, unless the kernel returned
    /// a value.
    pub seconds: f64,
    /// Whether the planner took this plan to measure it, not because it is predicted to be the fastest.
    pub exploring: bool,
    /// Bytes that moved because of this call.
    pub moved: TransferBytes,
    /// The number of parts that were computed again on another device and compared: see
    /// [`Policy::verify`](crate::Policy::verify).
    pub verified: usize,
}

impl Report {
    /// Seconds until the results were complete, without the earlier work of a GPU: the time on the caller's thread, or that
    /// of the slowest part if it is longer. `None` until every part is known to be done, and if the time of a part cannot
    /// be known.
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
    /// The device that ran it.
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
    /// Seconds that it took. On the CPU this includes the wait for data; on a GPU it is the time from recording to
    /// completion, without the earlier work of the GPU.
    ///
    /// This never waits. It is `None` until a later operation, such as reading a result, has seen that the GPU is done. It
    /// stays `None` if the time cannot be known, as when a pipeline was used for the first time.
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
    /// Seconds before its own work in which the CPU waited for other devices' data to be computed and moved. 0 on a GPU,
    /// whose own work includes this.
    pub(crate) waited_seconds: f64,
}

/// The time of some work, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) enum Timing {
    /// A measured number of seconds.
    Seconds(f64),
    /// The time on this clock, which may become known later.
    Clock(Arc<Clock>),
}

impl Timing {
    /// The seconds, if they are known yet.
    pub(crate) fn seconds(&self) -> Option<f64> {
        match self {
            Self::Seconds(seconds) => Some(*seconds),
            Self::Clock(clock) => clock.seconds(),
        }
    }

    /// The seconds, or whether they may become known later.
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
