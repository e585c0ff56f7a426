//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod dot;
pub mod extremum;
pub mod fold;
mod order;
mod simd;
pub mod sum;
mod tree;

pub use axpy::axpy;
pub use dot::dot;
pub use extremum::{argmax, argmin, max, min};
pub use order::Ordered;
pub use sum::sum;
pub use tree::Addend;
