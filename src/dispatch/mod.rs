//! From a call to its results: decide what runs where ([`mod@plan`]), make it happen ([`Execution`]), say what happened
//! ([`Report`]).

mod consider;
mod execute;
mod explain;
mod learn;
mod load;
mod placement;
pub mod plan;
pub mod replay;
mod report;
mod split;

pub use execute::Execution;
pub use explain::{Alternative, AlternativePart, Exclusion, Explanation, explain};
pub use learn::{Measured, learn};
pub use placement::Placement;
pub use plan::{Evidence, Knowledge, Objective, Plan, PlannedPart, Policy, plan};
pub use report::{PartReport, Report, Run};
