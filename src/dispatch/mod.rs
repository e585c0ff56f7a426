//! From a call to its results: decide what runs where ([`mod@plan`]), make it happen ([`Execution`]), say what happened
//! ([`Report`]).

mod consider;
mod execute;
mod explain;
mod load;
mod placement;
pub mod plan;
mod report;
mod split;

pub use execute::Execution;
pub(crate) use execute::warm_up;
pub use explain::{Explanation, explain};
pub use placement::Placement;
pub use plan::{Plan, PlannedPart, Policy, plan};
pub use report::{PartReport, Report, Run};
pub(crate) use report::{PartTiming, Timing};
