//! What several test files share: runtimes, placements, and the report that a GPU is missing.

#[allow(dead_code, reason = "not every test file needs all helpers")]
pub mod programs;

use divvy::{DeviceId, Placement, Runtime, RuntimeBuilder};
use std::path::PathBuf;
use std::sync::OnceLock;

/// A runtime with all devices, shared by the tests of a file.
#[allow(dead_code, reason = "not every test file needs all helpers")]
pub fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| build(Runtime::builder()))
}

/// A runtime with three CPU threads and no profile on disk, from a builder with further choices.
pub fn build(builder: RuntimeBuilder) -> Runtime {
    builder.threads(3).no_profile().build().expect("a runtime")
}

/// Whether GPU tests can run. Says so when they cannot, and fails under `DIVVY_REQUIRE_GPU=1`.
pub fn has_gpu(rt: &Runtime) -> bool {
    let there = rt.gpus().len() > 0;
    let required = std::env::var_os("DIVVY_REQUIRE_GPU").is_some_and(|v| v == "1");
    assert!(
        there || !required,
        "DIVVY_REQUIRE_GPU=1, but {:?}",
        rt.gpu_problems()
    );
    if !there {
        skipped(&format!("no GPU: {:?}", rt.gpu_problems()));
    }
    there
}

/// The program of an example, which `cargo test` has built.
#[allow(dead_code, reason = "not every test file needs all helpers")]
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test's path");
    let profile = test
        .ancestors()
        .nth(2)
        .expect("tests are in target/PROFILE/deps");
    let program = profile
        .join("examples")
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    assert!(
        program.exists(),
        "build it first: cargo build --example {name}"
    );
    program
}

/// Reports that a test did not run, past the capture of the test harness.
pub fn skipped(why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Placements to compare: the CPU, and if there is a GPU also that, and splits in both orders.
#[allow(dead_code, reason = "not every test file needs all helpers")]
pub fn placements(rt: &Runtime) -> Vec<Placement> {
    let mut all = vec![Placement::Cpu];
    if has_gpu(rt) {
        let shares = |cpu_first: bool, gpu: f64| {
            let mut shares = vec![(DeviceId::Gpu(0), gpu), (DeviceId::Cpu, 1.0 - gpu)];
            if cpu_first {
                shares.reverse();
            }
            Placement::Split(shares)
        };
        all.extend([
            Placement::Gpu(0),
            shares(false, 0.5),
            shares(true, 0.5),
            shares(false, 0.1),
            shares(true, 0.97),
        ]);
    }
    all
}
