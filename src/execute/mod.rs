//! Execution of plans: the only room that moves bytes and changes residency on behalf of kernels.
//!
//! The [`Executor`] runs the passes that a kernel launches. The access sets that record what they touch ([`PartAccess`]) and
//! the verifier that computes some parts a second time ([`Verify`]) are arguments. So this room knows neither recovery nor
//! verification.

mod executor;
mod params;
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
