//! Any source is refused as a kernel, with a message, or can be made one.
#![no_main]

use divvy::Error;
use divvy::prelude::*;
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    // A panic that is caught is no finding; one that is not still ends the process.
    init: std::panic::set_hook(Box::new(|_| {})),
    |source: &str| {
        let builder = || WgslKernel::builder("fuzz", source);
        let first = builder().output("dst").build();
        // What is no WGSL is none whatever its bindings are to be.
        if let Err(Error::Wgsl { message, .. }) = first {
            return assert!(!message.is_empty());
        }
        let others = [
            builder().output("y").input("x").part("part").build(),
            builder().output("dst").input_halo("src", 1).part("part").build(),
            builder().output("c").input_whole("a").entry_point("main").constant("N", 3.0).build(),
        ];
        for error in others.iter().filter_map(|built| built.as_ref().err()) {
            assert!(!error.to_string().is_empty());
        }
    }
);
