//! Any text is refused as a machine, or calls can be placed on that machine and take finite times.
#![no_main]

use divvy::sim::SimulatedMachine;
use divvy::sim::{Options, DataLocation, simulate};
use divvy::catalog;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let machine = match SimulatedMachine::parse("fuzz", text) {
        Ok(machine) => machine,
        Err(error) => return assert!(error.to_string().starts_with("fuzz: ")),
    };
    // Finding the best shares takes long with more devices.
    if machine.devices.len() > 2 || machine.kernels.len() > 2 {
        return;
    }
    let mut options = Options::default();
    options.calls = 3;
    options.sizes = vec![1000, 1 << 20];
    options.residencies = vec![DataLocation::Host, DataLocation::Device];
    if let Ok(outcome) = simulate(&machine, &catalog::spec, &options, || {}) {
        for row in outcome.rows {
            assert!(
                row.score.seconds().is_finite() && row.score.seconds() >= 0.0,
                "{row:?}"
            );
        }
    }
});
