//! What a call is predicted to cost on each device.
//!
//! The figures of a machine ([`Machine`]), how they are measured ([`Runtime::calibrate`](crate::Runtime::calibrate)) and
//! kept ([`profile`]), how seconds follow from them ([`prior`]), and what runs teach on top of that ([`learned`]). It
//! decides nothing: that is the planner's, in [`plan`](mod@crate::plan).

mod bounds;
mod calibrate;
mod calibrator;
pub mod learned;
pub mod machine;
pub mod prior;
pub mod profile;

pub use calibrate::Thoroughness;
pub use calibrator::{Calibration, Step};
pub use machine::{Bound, CoRun, Curve, DeviceModel, Engine, Limits, Link, LinkLine, Machine};
pub use prior::Prediction;

pub(crate) use calibrate::SHADER as CALIBRATION_SHADER;
pub(crate) use calibrator::Calibrator;
