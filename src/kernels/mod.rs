//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod gemm;
pub mod gemv;
pub mod heat;
pub mod leapfrog;
pub mod nbody;
mod panels;
mod scale;

pub use self::gemm::gemm;
pub use axpy::axpy;
pub use gemv::gemv;
pub use heat::{Border, heat_step};
pub use leapfrog::leapfrog_step;
pub use nbody::{Energy, nbody_accelerations, nbody_energy};
