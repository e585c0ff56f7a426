//! The profile on disk as processes see it: `divvy calibrate`, `divvy profile`, and several of them at once.

#[path = "support/command.rs"]
mod command;
#[path = "../../tests/support/mod.rs"]
mod support;

use assert_cmd::Command;
use command::{divvy, json, keys, number, refusal, stdout};
use divvy::cost::profile::SCHEMA;
use divvy::simd::InstructionSet;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The command with a profile of its own.
fn with(profile: &Path, args: &[&str]) -> Command {
    let mut command = divvy(args);
    command.env("DIVVY_PROFILE", profile);
    command
}

/// The same where there are no GPUs, which is quicker.
fn on_cpu(profile: &Path, args: &[&str]) -> Command {
    let mut command = with(profile, args);
    command
        .env("DIVVY_DEVICES", "cpu")
        .env("DIVVY_THREADS", "2");
    command
}

/// The one line that a command which must succeed prints as a warning.
fn only_warning(mut command: Command) -> String {
    let output = command.output().expect("it starts");
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {warnings}");
    assert_eq!(warnings.lines().count(), 1, "{command:?}: {warnings}");
    warnings
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).expect("it is there");
    serde_json::from_str(&text).expect("JSON")
}

/// A profile that knows a CPU of two threads, and a folder for more.
fn measured() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    stdout(on_cpu(&path, &["calibrate", "--quick"]));
    (folder, path)
}

fn learned(kernel: &str, device: &Value, samples: u64) -> Value {
    let size = json!({"size": 20.0, "samples": samples, "recent": [0.5, 0.25]});
    json!({
        "kernel": kernel, "element_type": "f32", "implementation": "00000000000000ff", "device": device, "threads": 2, "beside": [],
        "moved": false, "sizes": [size]
    })
}

/// Writes a copy of a profile with these kernels learned.
fn copy_with(profile: &Path, name: &str, kernels: &[(&str, u64)]) -> PathBuf {
    let mut content = read(profile);
    let device = content["devices"][0]["label"].clone();
    let entries = kernels
        .iter()
        .map(|(kernel, samples)| learned(kernel, &device, *samples));
    content["learned"] = entries.collect();
    let path = profile.with_file_name(name);
    std::fs::write(&path, content.to_string()).expect("writable");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[test]
fn calibrate_measures_all_and_keeps_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let found = json(with(&path, &["calibrate", "--quick", "--json"]));
    let expected = [
        "busy",
        "machine",
        "problems",
        "profile",
        "seconds",
        "thoroughness",
    ];
    assert_eq!(keys(&found), expected);
    assert_eq!(found["thoroughness"], "quick");
    assert_eq!(found["profile"], text(&path));
    assert_eq!(found["problems"], json!([]));
    let devices = found["machine"]["devices"].as_array().expect("a list");
    assert_eq!(devices.len(), 1 + support::runtime().gpus().len());
    for device in devices {
        for engine in device["engines"].as_array().expect("a list") {
            assert!(number(&engine["flops_per_second"]) > 0.0);
            assert!(
                engine["bandwidth"]
                    .as_array()
                    .is_some_and(|points| points.len() >= 6)
            );
        }
        for link in ["upload", "download"] {
            let points = device[link].as_array();
            assert_eq!(points.is_none(), device["kind"] == "cpu");
            assert!(points.is_none_or(|points| points.len() >= 6), "{device}");
        }
    }
    let pairs = found["machine"]["corun"].as_array().expect("a list");
    assert_eq!(pairs.len(), devices.len() * (devices.len() - 1) / 2);
    let kept = read(&path);
    assert_eq!(
        keys(&kept),
        ["corun", "devices", "divvy", "learned", "schema"]
    );
    assert_eq!(kept["corun"].as_array().map(Vec::len), Some(pairs.len()));
    let shown = stdout(with(&path, &["profile", "show"]));
    for device in kept["devices"].as_array().expect("a list") {
        let label = device["label"].as_str().expect("text");
        assert!(
            shown.contains(&format!("\n{label}: ")),
            "{label} in\n{shown}"
        );
    }
    assert!(
        shown.contains("nothing was learned of kernels yet"),
        "{shown}"
    );
}

#[test]
fn calibrate_says_in_text_what_it_found() {
    let (_folder, path) = measured();
    let text = stdout(on_cpu(&path, &["calibrate", "--quick"]));
    for part in [
        "cpu   ",
        "      1 thread: ",
        "      2 threads: ",
        "     memory     1 thread    2 threads",
        "saved in ",
    ] {
        assert!(text.contains(part), "{part:?} in\n{text}");
    }
    let text = stdout(on_cpu(Path::new("off"), &["calibrate", "--quick"]));
    assert!(text.ends_with(", not saved\n"), "{text}");
}

#[test]
fn what_is_measured_with_one_instruction_set_is_not_believed_with_another() {
    let (_folder, path) = measured();
    let best = InstructionSet::best();
    let cpus = || {
        let devices = read(&path)["devices"].clone();
        let devices = devices.as_array().expect("a list").clone();
        let sets = devices
            .iter()
            .map(|device| device["key"]["cpu"]["simd"].clone());
        sets.collect::<Vec<_>>()
    };
    assert_eq!(cpus(), [json!(best)]);
    let explain = |simd: &str| {
        let mut command = on_cpu(&path, &["explain", "axpy", "--n", "1Ki"]);
        command.env("DIVVY_SIMD", simd);
        stdout(command);
    };
    // Known already.
    explain(best.name());
    assert_eq!(cpus(), [json!(best)]);
    if best == InstructionSet::Baseline {
        return;
    }
    explain("baseline");
    assert_eq!(cpus(), [json!(best), json!("baseline")]);
    let flops = |device: usize| {
        let profile = read(&path);
        number(&profile["devices"][device]["model"]["engines"][0]["flops_per_second"])
    };
    // Registers at least twice as wide, and multiplications fused with additions.
    assert!(flops(0) > 1.5 * flops(1), "{} and {}", flops(0), flops(1));
}

#[test]
fn a_profile_of_the_schema_before_is_ignored_with_one_warning_and_replaced() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    let old = json!({"schema": SCHEMA - 1, "divvy": env!("CARGO_PKG_VERSION"), "devices": [{"key": 7}, {"key": 8}]});
    std::fs::write(&path, old.to_string()).expect("writable");
    let run = ["run", "axpy", "--n", "1000", "--repeat", "1"];
    let warning = only_warning(on_cpu(&path, &run));
    assert!(
        warning.contains("WARN") && warning.contains("schema version 3"),
        "{warning}"
    );
    assert_eq!(read(&path)["schema"], SCHEMA);
    stdout(on_cpu(&path, &run));
}

#[test]
fn entries_that_cannot_be_true_give_one_warning_and_do_not_spoil_the_rest() {
    let (_folder, path) = measured();
    let spoilt = copy_with(
        &path,
        "spoilt.json",
        &[("good", 3), ("bad", 3), ("worse", 3)],
    );
    let mut content = read(&spoilt);
    content["learned"][1]["sizes"][0]["recent"][0] = json!(1e9);
    content["learned"][2] = json!("nonsense");
    std::fs::write(&spoilt, content.to_string()).expect("writable");
    let warning = only_warning(on_cpu(&spoilt, &["explain", "axpy"]));
    assert!(
        warning.contains("ignoring some of the profile") && warning.contains("and 1 more"),
        "{warning}"
    );
    let shown = json(on_cpu(&spoilt, &["profile", "show", "--json"]));
    assert_eq!(keys(&shown), ["ignored", "path", "profile"]);
    assert_eq!(shown["ignored"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["profile"]["learned"][0]["kernel"], "good");
}

#[test]
fn several_processes_at_once_lose_nothing() {
    const PROCESSES: usize = 6;
    let (_folder, path) = measured();
    let files: Vec<PathBuf> = (0..PROCESSES)
        .map(|i| {
            let (own, shared) = (format!("kernel-{i}"), "shared");
            copy_with(
                &path,
                &format!("{i}.json"),
                &[(&own, 5), (shared, 10 + i as u64)],
            )
        })
        .collect();
    std::thread::scope(|scope| {
        for file in &files {
            let path = &path;
            scope.spawn(move || {
                let said = stdout(on_cpu(path, &["profile", "import", text(file)]));
                assert!(said.starts_with("took no devices and "), "{said}");
            });
        }
        // Others that read meanwhile see a whole file.
        for _ in 0..PROCESSES {
            stdout(on_cpu(&path, &["explain", "axpy"]));
        }
    });
    let content = read(&path);
    let entries = content["learned"].as_array().expect("a list");
    assert_eq!(entries.len(), PROCESSES + 1, "{content}");
    let shared = entries
        .iter()
        .find(|entry| entry["kernel"] == "shared")
        .expect("it is there");
    assert_eq!(shared["sizes"][0]["samples"], 10 + PROCESSES - 1);
}

#[test]
fn show_tells_what_was_learned_and_clear_removes_it() {
    let (_folder, path) = measured();
    let filled = copy_with(&path, "filled.json", &[("axpy", 3), ("gemm", 7)]);
    let shown = stdout(on_cpu(&filled, &["profile", "show"]));
    for part in [
        "\naxpy f32\n  cpu-2-threads, 2 threads",
        "3 samples, 1 size from 2^20",
        "1.28 to 1.28 times",
    ] {
        assert!(shown.contains(part), "{part:?} in\n{shown}");
    }
    let said = stdout(on_cpu(&filled, &["profile", "clear", "--learned"]));
    assert_eq!(
        said,
        format!("removed 2 entries about kernels from {}\n", text(&filled))
    );
    assert_eq!(read(&filled)["devices"].as_array().map(Vec::len), Some(1));
    let said = stdout(on_cpu(&filled, &["profile", "clear"]));
    assert_eq!(
        said,
        format!(
            "removed 1 device and 0 entries about kernels from {}\n",
            text(&filled)
        )
    );
    assert!(!filled.exists());
    let shown = stdout(on_cpu(&filled, &["profile", "show"]));
    assert!(
        shown.ends_with("is not there yet; `divvy calibrate` makes it\n"),
        "{shown}"
    );
    let (status, message) = refusal(on_cpu(&filled, &["profile", "export", "-"]));
    assert!(
        status == 1 && message.contains("is not there yet"),
        "{message}"
    );
}

#[test]
fn what_is_exported_can_be_imported() {
    let (folder, path) = measured();
    let filled = copy_with(&path, "filled.json", &[("axpy", 3)]);
    let exported = folder.path().join("exported.json");
    stdout(on_cpu(&filled, &["profile", "export", text(&exported)]));
    assert_eq!(read(&exported), read(&filled));
    let printed = stdout(on_cpu(&filled, &["profile", "export", "-"]));
    assert_eq!(
        printed,
        std::fs::read_to_string(&exported).expect("it is there")
    );
    let new = folder.path().join("new/profile.json");
    let said = stdout(on_cpu(&new, &["profile", "import", text(&exported)]));
    let expected = "took 1 device (cpu-2-threads) and 1 entry about kernels into ";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(read(&new), read(&filled));
    let mut from_pipe = on_cpu(&new, &["profile", "import", "-"]);
    from_pipe.write_stdin(printed);
    assert!(stdout(from_pipe).starts_with("took no devices and 0 entries"));
}

#[test]
fn what_is_no_profile_is_refused_with_the_reason() {
    let (folder, path) = measured();
    let before = read(&path);
    for (content, says) in [
        ("Dear Ada,", "it is not a profile"),
        (
            "{\"schema\": 999, \"divvy\": \"9.0.0\"}",
            "schema version 999",
        ),
        (
            "{\"schema\": 4, \"divvy\": \"0.0.9\", \"devices\": []}",
            "measured by Divvy 0.0.9",
        ),
        ("", "it is not a profile"),
    ] {
        let file = folder.path().join("file");
        std::fs::write(&file, content).expect("writable");
        let (status, message) = refusal(on_cpu(&path, &["profile", "import", text(&file)]));
        assert!(
            status == 2 && message.contains(says) && message.contains(text(&file)),
            "{message}"
        );
        let (status, message) = refusal(on_cpu(&file, &["profile", "show"]));
        assert!(status == 2 && message.contains(says), "{message}");
    }
    let (status, message) = refusal(on_cpu(&path, &["profile", "import", "/nonexistent/file"]));
    assert!(
        status == 1 && message.contains("/nonexistent/file"),
        "{message}"
    );
    assert_eq!(read(&path), before);
}

#[test]
fn off_is_said_clearly() {
    let off = Path::new("off");
    assert_eq!(
        stdout(on_cpu(off, &["profile", "show"])),
        "DIVVY_PROFILE is off: no profile is kept\n"
    );
    let shown = json(on_cpu(off, &["profile", "show", "--json"]));
    assert_eq!(shown, json!({"path": null, "profile": null, "ignored": []}));
    let said = stdout(on_cpu(off, &["profile", "clear"]));
    assert!(said.contains("DIVVY_PROFILE is off"), "{said}");
    for args in [["profile", "export", "-"], ["profile", "import", "-"]] {
        let (status, message) = refusal(on_cpu(off, &args));
        assert!(
            status == 2 && message.contains("DIVVY_PROFILE is \"off\""),
            "{message}"
        );
    }
}

#[test]
fn help_explains_with_examples() {
    for command in ["calibrate", "profile"] {
        let text = stdout(divvy(&[command, "--help"]));
        assert!(text.contains("Examples:\n  divvy "), "{text}");
    }
}
