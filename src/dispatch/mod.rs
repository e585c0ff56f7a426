//! From a call to its results: decide what runs where ([`mod@plan`]), make it happen ([`Execution`]), say what happened
//! ([`Report`]), and let the next plan know ([`learn()`]).
//!
//! [`explain()`] tells a plan's reasons, [`replay`] lets plans be made and learned from on machines that exist only as files.

mod balance;
mod choice;
mod consider;
mod execute;
mod explain;
mod journal;
mod learn;
mod load;
mod outstanding;
mod pieces;
mod placement;
pub mod plan;
mod recall;
mod recover;
pub mod replay;
mod report;
mod snapshot;
mod split;
mod under_way;
mod verify;

pub use execute::Execution;
pub(crate) use execute::warm_up;
pub use explain::{Alternative, AlternativePart, Exclusion, Explanation, explain};
pub use journal::Durability;
pub(crate) use journal::{Bounds, Journal, Recording};
pub use learn::{Measured, learn};
pub(crate) use outstanding::{Lesson, Outstanding, teach};
pub use placement::Placement;
pub use plan::{Evidence, Knowledge, Objective, Plan, PlannedPart, Policy, plan};
pub(crate) use recall::{Recall, Situation};
pub(crate) use report::PartTiming;
pub use report::{PartReport, Report, Run};
pub(crate) use under_way::UnderWay;
pub(crate) use verify::Draw;
pub use verify::{Difference, Mismatch};
