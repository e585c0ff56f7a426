//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod dot;
pub mod extremum;
pub mod fold;
pub mod gemm;
pub mod gemv;
pub mod heat;
pub mod leapfrog;
pub mod nbody;
mod order;
mod panels;
mod scale;
mod simd;
pub mod sum;
mod tree;

pub use self::gemm::gemm;
pub use axpy::axpy;
pub use dot::dot;
pub use extremum::{argmax, argmin, max, min};
pub use gemv::gemv;
pub use heat::{Border, heat_step};
pub use leapfrog::leapfrog_step;
pub use nbody::{Energy, nbody_accelerations, nbody_energy};
pub use order::Ordered;
pub use sum::sum;
pub use tree::Addend;
