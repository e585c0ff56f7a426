//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;

pub use axpy::axpy;
