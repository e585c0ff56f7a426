//! Machines that exist only as files of tables, on a clock that is not real: what the planner does there is held
//! against what would have been best, which is known exactly.

mod baselines;
mod calibrate;
mod file;
mod job;
mod machine;
mod options;
mod oracle;
mod score;
mod simulation;
mod table;
#[cfg(test)]
mod tests;
mod track;

pub use calibrate::calibrate_simulated;
pub use machine::{
    Calibration, Change, Noise, SimulatedDevice, SimulatedKernel, SimulatedMachine, SimulatedPair,
};
pub use options::{COLD_CALLS, DataLocation, LaunchSpecs, Options};
pub use score::{Outcome, PartShare, Recovery, Row, Score, SimulatedCase, Sums, fleet};
pub use simulation::simulate;
pub use table::Table;
