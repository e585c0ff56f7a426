//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod dot;
pub mod extremum;
pub mod fill;
pub mod fold;
mod math;
mod order;
mod prefix;
mod run_prefix;
pub mod scan;
mod simd;
pub mod sum;
pub mod transform;
mod tree;
pub mod zip;

pub use axpy::axpy;
pub use dot::dot;
pub use extremum::{argmax, argmin, max, min};
pub use fill::fill;
pub use order::Ordered;
pub use scan::{exclusive_scan, inclusive_scan};
pub use sum::sum;
pub use transform::{Unary, transform};
pub use tree::Addend;
pub use zip::{Arithmetic, Binary, zip};
