//! `divvy simulate` as a process: what it prints, and what it says of files that cannot be used.

#[path = "support/command.rs"]
#[allow(dead_code, reason = "not every test file needs all helpers")]
mod command;

use command::{divvy, json, keys, number, refusal, stdout};
use serde_json::{Value, json as value};
use std::path::PathBuf;

fn shipped(name: &str) -> String {
    format!(
        "{}/../benches/machines/{name}.json",
        env!("CARGO_MANIFEST_DIR")
    )
}

/// A file in a folder that lasts as long as the test.
fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, text).expect("writable");
    path.to_str().expect("text").to_owned()
}

const POLICIES: [&str; 6] = [
    "auto",
    "always-cpu",
    "always-gpu",
    "threshold",
    "half",
    "try-twice",
];

/// That there is a row of the documented form for each policy.
fn assert_rows(rows: &Value, warm: bool) {
    let rows = rows.as_array().expect("a list");
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["policy"].as_str())
        .collect();
    assert_eq!(names, POLICIES);
    for row in rows {
        let mut expected = [
            "policy",
            "regret_cold",
            "regret_warm",
            "worst_warm",
            "exploration_share",
            "seconds",
            "oracle_seconds",
        ];
        expected.sort_unstable();
        assert_eq!(keys(row), expected);
        assert!(number(&row["regret_cold"]) >= 0.0, "{row}");
        assert_eq!(row["regret_warm"].is_number(), warm, "{row}");
        assert_eq!(row["worst_warm"].is_number(), warm, "{row}");
        assert!((0.0..=1.0).contains(&number(&row["exploration_share"])));
        assert!(number(&row["seconds"]) >= number(&row["oracle_seconds"]) * (1.0 - 1e-9));
    }
}

#[test]
fn json_has_every_machine_with_its_cases_and_the_fleet() {
    let files = [shipped("laptop-throttling"), shipped("desktop-two-gpus")];
    let args = ["simulate", &files[0], &files[1], "--calls", "120", "--json"];
    let object = json(divvy(&args));
    assert_eq!(keys(&object), ["fleet", "machines"]);
    assert_eq!(keys(&object["fleet"]), ["calls", "rows", "seed"]);
    assert_rows(&object["fleet"]["rows"], true);
    let machines = object["machines"].as_array().expect("a list");
    for (machine, (name, devices)) in machines.iter().zip([
        ("laptop-throttling", value!(["cpu", "gpu0"])),
        ("desktop-two-gpus", value!(["cpu", "gpu0", "gpu1"])),
    ]) {
        assert_eq!(
            keys(machine),
            ["cases", "devices", "name", "recovery", "rows"]
        );
        assert_eq!(
            (&machine["name"], &machine["devices"]),
            (&value!(name), &devices)
        );
        assert_rows(&machine["rows"], true);
        let cases = machine["cases"].as_array().expect("a list");
        assert_eq!(
            cases.len(),
            9 * 6 * 2,
            "nine kernels at six sizes, both ways"
        );
        for case in cases {
            let expected = [
                "chosen_parts",
                "kernel",
                "n",
                "oracle_parts",
                "oracle_seconds",
                "residency",
                "rows",
            ];
            assert_eq!(keys(case), expected);
            assert_rows(&case["rows"], true);
            assert_eq!(keys(&case["chosen_parts"][0]), ["device", "share"]);
        }
    }
    let recovery = &machines[0]["recovery"];
    assert_eq!(
        recovery.as_array().expect("a list").len(),
        1,
        "only what got slower within these calls"
    );
    assert_eq!(
        keys(&recovery[0]),
        ["after_call", "device", "factor", "regret"]
    );
    assert_eq!(
        (&recovery[0]["after_call"], &recovery[0]["device"]),
        (&value!(70), &value!("gpu0"))
    );
}

#[test]
fn arguments_narrow_what_is_replayed() {
    let file = shipped("laptop-m2");
    let args = [
        "simulate",
        &file,
        "--calls",
        "20",
        "--sizes",
        "64,1Ki",
        "--residency",
        "host",
        "--json",
    ];
    let object = json(divvy(&args));
    assert_rows(&object["fleet"]["rows"], false);
    let cases = object["machines"][0]["cases"].as_array().expect("a list");
    assert_eq!(cases.len(), 9 * 2);
    for case in cases {
        assert_eq!(case["residency"], "host");
        assert!(case["n"] == 64 || case["n"] == 1024);
    }
    let with_seed = |seed| stdout(divvy(&["simulate", &file, "--calls", "30", "--seed", seed]));
    assert_eq!(with_seed("5"), with_seed("5"));
    assert_ne!(with_seed("5"), with_seed("6"));
}

#[test]
fn the_table_has_a_line_for_each_policy_of_each_machine_and_of_all() {
    let files = [shipped("board-pi5"), shipped("laptop-throttling")];
    let text = stdout(divvy(&["simulate", &files[0], &files[1], "--calls", "100"]));
    for policy in POLICIES {
        let lines = text.lines().filter(|line| line.starts_with(policy));
        assert_eq!(lines.count(), 3, "{policy}: {text}");
    }
    assert!(
        text.contains("board-pi5 (cpu, gpu0)") && text.contains("all machines"),
        "{text}"
    );
    assert!(
        text.contains("from call 70 on gpu0 takes 3 times as long: regret "),
        "{text}"
    );
    let text = stdout(divvy(&["simulate", &files[0], "--calls", "10", "--cases"]));
    assert!(!text.contains("all machines"), "{text}");
    assert_eq!(
        text.lines().filter(|line| line.contains(" host ")).count(),
        8 * 6,
        "{text}"
    );
}

#[test]
fn a_file_that_cannot_be_used_is_refused_by_name_and_field_before_anything_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let good = shipped("lavapipe");
    let negative = r#"{"name": "x", "devices": [{"id": "cpu", "kind": "cpu", "launch_s": -1}], "kernels": {}}"#;
    let unknown = r#"{"name": "loom", "devices": [{"id": "cpu", "kind": "cpu"}], "kernels": {"weft": {"cpu": [[1, 1]]}}}"#;
    for (text, expected) in [
        ("", "no JSON"),
        ("{}", "devices: it is missing"),
        (
            negative,
            "devices[0].launch_s: expected a number from 0e0 to 1e12, it is -1",
        ),
        (
            unknown,
            "loom: kernels: expected kernels of the catalog, there is only weft",
        ),
    ] {
        let bad = file(&folder, "bad.json", text);
        let (status, message) = refusal(divvy(&["simulate", &bad]));
        assert!(
            status == 2 && message.contains(expected),
            "{status}: {message}"
        );
        if !expected.starts_with("loom") {
            let (status, message) = refusal(divvy(&["simulate", &good, &bad]));
            assert!(
                status == 2 && message.contains("bad.json: "),
                "{status}: {message}"
            );
        }
    }
    let (status, message) = refusal(divvy(&["simulate", "/nonexistent.json"]));
    assert!(
        status == 2 && message.contains("/nonexistent.json: it cannot be read"),
        "{message}"
    );
}

#[test]
fn a_kernel_that_is_unknown_is_passed_over_with_one_warning() {
    let folder = tempfile::tempdir().expect("a folder");
    let some = r#"{"name": "loom", "devices": [{"id": "cpu", "kind": "cpu"}],
                   "kernels": {"weft": {"cpu": [[1, 1]]}, "sum": {"cpu": [[1000, 1e-6]]}, "warp": {"cpu": [[1, 1]]}}}"#;
    let path = file(&folder, "some.json", some);
    let output = divvy(&["simulate", &path]).output().expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(errors.matches("WARN").count(), 1, "{errors}");
    assert!(errors.contains("warp, weft"), "{errors}");
}

#[test]
fn arguments_that_cannot_be_used_are_refused() {
    let file = shipped("lavapipe");
    let cases: &[(&[&str], &str)] = &[
        (&["--calls", "0"], "1..=10000"),
        (&["--calls", "10001"], "1..=10000"),
        (&["--calls", "-5"], "'-5'"),
        (&["--sizes", "0"], "at least 1"),
        (&["--sizes", "64,many"], "expected a number"),
        (&["--sizes", "2^62"], "too large"),
        (
            &["--residency", "moon"],
            "[possible values: host, device, both]",
        ),
        (&["--seed", "x"], "--seed"),
        (&["--json", "--cases"], "cannot be used with"),
    ];
    for (args, expected) in cases {
        let (status, message) = refusal(divvy(&[&["simulate", &file], *args].concat()));
        assert!(
            status == 2 && message.contains(expected),
            "{args:?}: {status}, {message}"
        );
    }
    let (status, message) = refusal(divvy(&["simulate"]));
    assert!(status == 2 && message.contains("MACHINE.json"), "{message}");
}
