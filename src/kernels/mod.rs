//! The built-in kernels: one file each, with a shader of the same name.

pub mod axpy;
pub mod catalog;
pub mod gemm;
pub mod gemv;
mod panels;
mod scale;

pub use axpy::axpy;
pub use self::gemm::gemm;
pub use gemv::gemv;
