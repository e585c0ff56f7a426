//! The built-in kernels, one file or a small family of kernels each, with shaders of the same name. Several share fixed
//! trees (`tree`, `prefix`), orders (`order`), functions (`math`) or windows of matrices (`panels`).

pub mod axpy;
pub mod dot;
pub mod extremum;
pub mod fill;
pub mod fold;
pub mod gemm;
pub mod gemv;
pub mod heat;
pub mod leapfrog;
mod math;
pub mod nbody;
mod order;
mod panels;
mod prefix;
mod run_prefix;
pub(crate) mod scale;
pub mod scan;
pub mod sum;
pub mod transform;
mod tree;
pub mod zip;

pub use self::gemm::gemm;
pub use axpy::axpy;
pub use dot::dot;
pub use extremum::{argmax, argmin, max, min};
pub use fill::fill;
pub use gemv::gemv;
pub use heat::{Border, heat_step};
pub use leapfrog::leapfrog_step;
pub use nbody::{Energy, nbody_accelerations, nbody_energy};
pub use order::Ordered;
pub use scan::{exclusive_scan, inclusive_scan};
pub use sum::sum;
pub use transform::{Unary, transform};
pub use tree::Addend;
pub use zip::{Arithmetic, Binary, zip};
