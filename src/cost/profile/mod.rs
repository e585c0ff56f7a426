//! The figures of the machine's devices and of the kernels that ran on them, in a JSON file that a person can read.
//!
//! The file only stores measurements: an unknown, stale or corrupt entry is ignored with one warning and measured again.
//! `text` reads and writes the JSON, and refuses impossible figures. `file` finds the file, and merges what several
//! processes write at the same time. `learned` holds the entries about kernels.

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
