//! What is known of the machine's devices and of the kernels that ran on them, kept in a JSON file that a person can
//! read.
//!
//! The file is only a memory of measurements: whatever is unknown, stale or corrupt in it is ignored with one warning
//! and measured again. `text` turns it into text and back, and lets nothing in that cannot be true; `file` finds it,
//! and merges what several processes write at the same time; `learned` is about kernels.

mod contents;
mod file;
mod learned;
mod text;

pub use contents::{CoRunEntry, DeviceEntry, DeviceKey, Merged, Profile, SCHEMA};
pub(crate) use contents::{Keyed, MeasurementConditions, agree};
pub use file::{Cleared, Location, read_from};
pub use learned::LearnedEntry;
pub use text::{Parsed, parse};

#[cfg(test)]
mod tests;
