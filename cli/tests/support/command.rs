//! Running the command as a process, in settings of its own.

use assert_cmd::Command;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// What these tests measure of the machine: measured once per test run, and apart from the user's.
static PROFILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli-profile.json");
    let _ = std::fs::remove_file(&path);
    path
});

/// The command.
pub const DIVVY: &str = env!("CARGO_BIN_EXE_divvy");

/// Settings that would change what the command does.
const SETTINGS: [&str; 5] = [
    "DIVVY_DEVICES",
    "DIVVY_THREADS",
    "DIVVY_SIMD",
    "DIVVY_GPU_MEMORY",
    "DIVVY_VERIFY",
];

/// A program in the settings of these tests.
pub fn process(program: &str, args: &[&str]) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    for name in SETTINGS {
        command.env_remove(name);
    }
    command.args(args).env("DIVVY_PROFILE", &*PROFILE);
    command
}

/// The command, which is stopped should it hang.
pub fn divvy(args: &[&str]) -> Command {
    let mut command = Command::from_std(process(DIVVY, args));
    command.timeout(Duration::from_secs(300));
    command
}

#[allow(dead_code, reason = "not every test file needs all helpers")]
/// The command where no Vulkan driver can be found.
pub fn without_vulkan(args: &[&str]) -> Command {
    let mut command = divvy(args);
    for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        command.env(name, "/nonexistent");
    }
    command
}

/// What a command that must succeed prints, which must be all it has to say.
pub fn stdout(mut command: Command) -> String {
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    assert_eq!(errors, "", "{command:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The JSON document that a command which must succeed prints.
pub fn json(command: Command) -> Value {
    let text = stdout(command);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// The exit status and the message of a command that must fail, without having printed anything.
pub fn refusal(mut command: Command) -> (i32, String) {
    let output = command.output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let status = output.status.code().expect("it ends by itself");
    assert_ne!(status, 0, "{command:?}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "",
        "{command:?}: {errors}"
    );
    assert!(
        errors.starts_with("error: ") && !errors.contains("panicked"),
        "{errors}"
    );
    (status, errors)
}

/// The keys of a JSON object, in ascending order.
pub fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}

/// A JSON number.
pub fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}
