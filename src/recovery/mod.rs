//! A lost GPU costs time, not data: the journal records the calls on GPUs, snapshots save their results, and recovery runs
//! calls again.
//!
//! This room owns the journal and its snapshots. It never runs a kernel or moves a byte itself: it asks `execute` and
//! `array` to. `README.md` beside this file explains the whole mechanism, with a picture.

mod journal;
mod params;
mod recover;
mod snapshot;

pub use journal::Durability;
pub(crate) use journal::{Journal, Recording};
