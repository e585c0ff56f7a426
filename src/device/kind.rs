//! The kinds of devices.

use serde::{Deserialize, Serialize};

/// The kind of a device, which decides whether it may share work with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// The CPU and its rayon pool.
    Cpu,
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A graphics driver that computes on the CPU's cores.
    Software,
    /// A GPU whose kind the driver does not report.
    Other,
}
