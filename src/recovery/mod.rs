//! Lost GPUs cost time, not data: what was run on them is recorded, saved now and then, and run again where need be.

mod journal;
mod recover;
mod snapshot;

pub use journal::Durability;
pub(crate) use journal::{Journal, JournalLimits, Recording};
