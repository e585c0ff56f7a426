//! Simulated machines, which are tables in a file, on a virtual clock. The best plan on such a machine is known, so the
//! planner's plans can be compared with it.

mod baselines;
mod calibrate;
mod file;
mod job;
mod machine;
mod options;
mod oracle;
mod params;
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
