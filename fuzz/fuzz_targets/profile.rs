//! Any text is refused as a profile, or what is kept of it can be written and read again.
#![no_main]

use divvy::cost::profile::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match parse(text) {
        Ok(parsed) => {
            let again = parse(&parsed.profile.to_json()).expect("what was written can be read");
            assert_eq!(again.profile, parsed.profile);
            assert!(again.ignored.is_empty(), "{:?}", again.ignored);
        }
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
});
