//! Arrays: one-dimensional data that lives where it is used.
//!
//! An [`Array`] owns its elements; where they are is not the caller's concern. Each range of them is valid on the
//! host, on some GPUs, or on several places at once (`residency`), and moves only when somebody needs it where it
//! is not. The invariant that everything here keeps: every element is always valid somewhere.

mod dry_run;
mod handle;
mod host;
mod matrix;
mod range_set;
mod read_back;
mod residency;
mod shadow;
mod typed;

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
    AccessSet, Coverage, DeviceCopy, DeviceView, Rescue, Version, VersionedRange,
};
pub(crate) use shadow::ShadowTurn;
pub use typed::{Array, ReadGuard, WriteGuard};

/// ```compile_fail
/// let a = divvy::Array::from_slice(&[1.0f64]); // error[E0277]: arrays hold f32, u32 or i32
/// ```
#[doc(hidden)]
pub struct UnsupportedElementsDoNotCompile;
