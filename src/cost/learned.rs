//! Learns from runs of kernels: for each kernel and each variant, by how much the prior is wrong at which size, and with
//! which certainty.
//!
//! The learned quantity is the natural logarithm of a factor: measured seconds over the prior's. For each [`Variant`] of
//! a kernel and each class of sizes (half an octave), `class` keeps a robust summary of recent measurements. A Gaussian
//! process interpolates between classes (`process`). [`Learner`] stores the measurements; [`PerfModel`] is an immutable
//! snapshot of one kernel, for a plan. This module reads no clock and decides nothing.
//!
//! ```
//! use divvy::cost::learned::{Variant, RunConditions, KernelKey, Learner, Sample};
//! use divvy::DeviceId;
//!
//! let learner = Learner::new();
//! let blur = KernelKey::named("blur");
//! let variant = Variant::alone(DeviceId::Gpu(0), 1);
//! for _ in 0..10 {
//!     // A part of 2^24 operations and bytes took 3 ms, where the roofline predicted 1 ms.
//!     let sample = Sample { variant, size: 24.0, prior_seconds: 1e-3, seconds: 3e-3 };
//!     learner.observe(&blur, 24.0, [sample]);
//! }
//! let perf_model = learner.perf_model(&blur);
//! let alone = RunConditions { execution_share: 1.0, log_slowdown: 0.0 };
//! let there = perf_model.estimate(&variant, 24.0, &alone);
//! let far_off = perf_model.estimate(&variant, 12.0, &alone);
//! assert!((there.log_factor.exp() - 3.0).abs() < 0.1);
//! assert!(far_off.extrapolated && far_off.variance > there.variance);
//! ```

mod class;
mod perf_model;
mod process;
mod record;
mod store;
mod variant;

pub use perf_model::{PerfModel, RunConditions, Shares};
pub use process::LearnedFactor;
pub use record::{ClassRecord, Record};
pub use store::{ExplorationBudget, Learner};
pub use variant::{KernelKey, Sample, Variant};
