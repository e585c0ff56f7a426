//! Arrays: one-dimensional data that lives where it is used.
//!
//! An [`Array`] owns its elements. Each range of them is valid on the host, on some GPUs, or in several places at once
//! (`residency`), and moves only when it is needed in another place. The invariant of this room: every element is always
//! valid in at least one place.

mod dry_run;
mod handle;
mod host;
mod matrix;
mod range_set;
mod read_back;
mod residency;
mod shadow;
mod typed;
mod usage;

pub use crate::element::{Element, ElementType};
pub(crate) use dry_run::DryRun;
pub use handle::Handle;
pub(crate) use handle::WeakHandle;
pub(crate) use host::HostBuffer;
pub(crate) use matrix::MatrixOperand;
pub use matrix::{Matrix, MatrixMut};
pub use range_set::RangeSet;
pub use residency::TransferBytes;
pub(crate) use residency::{
    AccessSet, Coverage, DeviceCopy, DeviceView, Rescue, Segment, Version, VersionedRange,
};
pub(crate) use shadow::ShadowTurn;
pub use typed::{Array, ReadGuard, WriteGuard};
pub(crate) use usage::Usage;

/// ```compile_fail
/// let a = divvy::Array::from_slice(&[1.0f64]); // error[E0277]: arrays hold f32, u32 or i32
/// ```
#[doc(hidden)]
pub struct UnsupportedElementsDoNotCompile;
