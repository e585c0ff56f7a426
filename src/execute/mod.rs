//! Making a plan happen: the only place that moves bytes and changes residency on behalf of kernels.
//!
//! The [`Executor`] runs the passes that a kernel launches. Who keeps a record of what they touch ([`PartUses`]) and who
//! has some computed a second time ([`Verify`]) is handed in, so that this room knows neither recovery nor
//! verification.

mod cutting;
mod executor;
mod pending;
mod recorder;
mod report;
mod second_opinion;
#[cfg(test)]
mod tests;

pub(crate) use executor::{Executor, warm_up};
pub(crate) use pending::{Lesson, Outstanding, teach};
pub(crate) use recorder::PartUses;
pub(crate) use report::PartTiming;
pub use report::{PartReport, Report, Run};
pub(crate) use second_opinion::{SecondOpinion, Verify};
