//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod heat;
pub mod leapfrog;
pub mod nbody;

pub use axpy::axpy;
pub use heat::{Border, heat_step};
pub use leapfrog::leapfrog_step;
pub use nbody::{Energy, nbody_accelerations, nbody_energy};
