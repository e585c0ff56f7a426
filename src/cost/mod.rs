//! Predicts what a call costs on each device.
//!
//! This room holds the figures of a machine ([`Machine`]), measures them
//! ([`Runtime::calibrate`](crate::Runtime::calibrate)), saves them ([`profile`]), derives seconds from them ([`prior`]),
//! and learns corrections from runs ([`learned`]). It decides nothing: the planner does, in [`plan`](mod@crate::plan).

mod bounds;
mod calibrate;
mod calibrator;
pub mod learned;
pub mod machine;
mod params;
pub mod prior;
pub mod profile;

pub use calibrate::Thoroughness;
pub use calibrator::{Calibration, Step};
pub use machine::{Bound, CoRun, Curve, DeviceModel, Engine, Limits, Link, LinkLine, Machine};
pub use prior::Prediction;

pub(crate) use calibrate::SHADER as CALIBRATION_SHADER;
pub(crate) use calibrator::Calibrator;
