//! Any source is refused as a kernel, or can be made one, bound, and asked for its plan.
#![no_main]

use divvy::prelude::*;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // A panic that is caught is no finding; one that is not still ends the process.
    init: std::panic::set_hook(Box::new(|_| {})),
    |source: &str| {
        let builder = || WgslKernel::builder("fuzz", source);
        let built = [
            builder().output("dst").build(),
            builder().output("y").input("x").part("part").build(),
            builder().output("dst").input_halo("src", 1).part("part").build(),
            builder().output("c").input_whole("a").entry_point("main").constant("N", 3.0).build(),
        ];
        for error in built.iter().filter_map(|built| built.as_ref().err()) {
            assert!(!error.to_string().is_empty());
        }
    }
);
