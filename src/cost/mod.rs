//! What a call is predicted to cost on each device.
//!
//! The figures of a machine ([`Machine`]), how they are measured ([`calibrate`]) and kept ([`profile`]), and how
//! seconds follow from them ([`prior`]). It decides nothing: that is the planner's, in `dispatch`.

pub mod machine;
pub mod prior;

pub use machine::{Curve, DeviceKind, DeviceModel, Engine, Limits, Link, Machine};
pub use prior::Prediction;
