//! The check can fail: shaders that spill or use scratch memory on purpose are refused, in every family that CI looks at.
//!
//! These tests need Mesa's RADV; `scripts/gpu_static.sh` runs them where it is.

use std::process::{Command, Output};

const FAMILIES: [&str; 2] = ["navi21", "gfx1100"];

fn look_at(family: &str, file: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gpu-static"))
        .args(["--family", family, "--wgsl"])
        .arg(format!("{}/tests/{file}", env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("the tool starts")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_shader_that_needs_scratch_memory_is_refused_by_name() {
    for family in FAMILIES {
        let output = look_at(family, "scratch.wgsl");
        let told = told(&output);
        assert!(!output.status.success(), "{family}: {told}");
        assert!(
            told.contains("scratch: spills 0 registers and uses "),
            "{told}"
        );
    }
}

#[test]
fn a_shader_that_spills_registers_is_refused_by_name() {
    for family in FAMILIES {
        let output = look_at(family, "spills.wgsl");
        let told = told(&output);
        assert!(!output.status.success(), "{family}: {told}");
        assert!(told.contains("spills: spills "), "{told}");
        assert!(!told.contains("spills 0 registers"), "{told}");
    }
}

#[test]
fn a_shader_that_does_neither_is_not() {
    for family in FAMILIES {
        let output = look_at(family, "good.wgsl");
        assert!(output.status.success(), "{family}: {}", told(&output));
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(table.contains("\n| good | "), "{table}");
    }
}

#[test]
fn a_family_that_the_driver_does_not_know_is_refused() {
    let output = look_at("navi99", "good.wgsl");
    assert!(!output.status.success());
    let told = told(&output);
    assert!(told.contains("family `navi99`"), "{told}");
}
