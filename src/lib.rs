//! Divvy runs data-parallel kernels on arrays on the best available device: the CPU (rayon), a GPU (WGSL through
//! wgpu), or several at once. A cost model chooses per call, learns from every run, and can explain its choice.
//!
//! ```
//! # fn main() -> divvy::Result<()> {
//! use divvy::prelude::*;
//!
//! let rt = Runtime::new()?; // the CPU and every usable GPU
//! let x = rt.array_from(&[1.0f32, 2.0, 3.0])?;
//! let mut y = rt.array_from(&[0.5f32, 0.5, 0.5])?;
//! rt.run(axpy(2.0, &x, &mut y))?; // placed by the cost model
//! assert_eq!(*y.read()?, [2.5, 4.5, 6.5]);
//! println!("{}", rt.explain(&sum(&y))?); // every way to run it, its predicted time, and why one is chosen
//! # Ok(())
//! # }
//! ```
//!
//! | to | see |
//! |---|---|
//! | open devices and run calls | [`Runtime`], [`RuntimeBuilder`] |
//! | hold data on the host and on devices | [`Array`], [`array`](mod@array) |
//! | find a kernel, or write one | [`kernels`], [`kernel::WgslKernel`] |
//! | say where a call runs | [`Placement`], [`kernel::Call::on`] |
//! | know why it runs there | [`Runtime::explain`], [`plan`](mod@plan) |
//! | see what ran where and for how long | [`Report`] |
//! | choose the vector instructions, or use them | [`simd`], [`RuntimeBuilder::simd`] |
//! | know what is measured, learned and saved | [`cost`], [`cost::learned`], [`cost::profile`], [`Runtime::calibrate`] |
//! | resume a long run after it was killed | [`Checkpoint`] |
//! | print readable numbers | [`units`] |
//! | try placement on simulated machines | [`sim`] |
// The compiler checks whether an array is `Send` through all of wgpu's types, which nest deeply.
#![recursion_limit = "256"]

pub mod array;
pub mod catalog;
pub mod checkpoint;
pub mod cost;
pub mod device;
mod element;
mod error;
mod execute;
mod files;
mod hash;
pub mod kernel;
pub mod kernels;
mod panics;
pub mod plan;
mod recovery;
mod runtime;
pub mod sim;
pub mod simd;
pub mod units;
mod verify;

pub use array::Array;
pub use checkpoint::Checkpoint;
pub use device::{DeviceId, Placement};
pub use element::{Element, ElementType};
pub use error::{Difference, Error, Mismatch, ProfileProblem, Result};
pub use execute::{PartReport, Report, Run};
pub use plan::Policy;
pub use recovery::Durability;
pub use runtime::{Runtime, RuntimeBuilder};

/// The items that most programs use.
pub mod prelude {
    pub use crate::array::Array;
    pub use crate::checkpoint::Checkpoint;
    pub use crate::device::Placement;
    pub use crate::kernel::{Fold, WgslKernel};
    pub use crate::kernels::*;
    pub use crate::runtime::Runtime;
}

/// Compiles the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
