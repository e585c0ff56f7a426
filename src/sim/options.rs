//! The options of a simulation: the number of calls, the sizes, and where the arrays are.

use crate::error::Result;
use crate::kernel::LaunchSpec;
use crate::plan::Policy;

/// Calls of each kernel and size that count as cold.
pub const COLD_CALLS: usize = 20;

/// Returns the launch spec of a kernel at a size, or `None` if there is no kernel of that name.
pub type LaunchSpecs<'a> = &'a dyn Fn(&str, usize) -> Option<Result<LaunchSpec>>;

/// The options of a simulation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Calls of each kernel, size and residency.
    pub calls: usize,
    /// Sizes; empty for up to six of each kernel's own table.
    pub sizes: Vec<usize>,
    /// Where the arrays are; each is simulated.
    pub residencies: Vec<DataLocation>,
    /// Seed of the noise.
    pub seed: u64,
    /// The planner's policy.
    pub policy: Policy,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            calls: 200,
            sizes: Vec::new(),
            residencies: vec![DataLocation::Host, DataLocation::Device],
            seed: 1,
            policy: Policy::default(),
        }
    }
}

/// Where the arrays of a simulated call are before it, and whether the host reads its results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DataLocation {
    /// Inputs are on the host only, and the host reads the outputs.
    Host,
    /// All arrays are valid on every device, and the host reads nothing.
    Device,
}

impl DataLocation {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}
