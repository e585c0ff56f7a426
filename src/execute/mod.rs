//! Making a plan happen: the only place that moves bytes and changes residency on behalf of kernels.
//!
//! The [`Executor`] runs the passes that a kernel launches. Who keeps a record of what they touch ([`PartAccess`]) and who
//! has some computed a second time ([`Verify`]) is handed in, so that this room knows neither recovery nor
//! verification.

mod executor;
mod part_access;
mod pending;
mod recheck;
mod report;
#[cfg(test)]
mod tests;
mod tiles;

pub(crate) use executor::{Executor, warm_up};
pub(crate) use part_access::PartAccess;
pub(crate) use pending::{Observation, PendingSamples, record};
pub(crate) use recheck::{Recheck, Verify};
pub(crate) use report::PartTiming;
pub use report::{PartReport, Report, Run};
