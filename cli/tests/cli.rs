//! The command as a process: what it prints, where, and its exit status.

#[path = "support/command.rs"]
mod command;
#[path = "../../tests/support/mod.rs"]
mod support;

use command::{DIVVY, divvy, json, keys, number, process, refusal, stdout, without_vulkan};
use divvy::catalog::{CATALOG, Entry, Size};
use divvy::device::DeviceKind;
use divvy::simd::InstructionSet;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

fn has_gpu() -> bool {
    support::has_gpu(support::runtime())
}

/// Small, but of several blocks, so that a split has something to divide.
fn small(entry: &Entry) -> usize {
    match entry.size {
        Size::Items => 100_003,
        Size::Bodies => 300,
        Size::Side => 130,
    }
}

/// That the object is of the documented form, with parts that follow each other from 0 on.
fn assert_form_of_run(object: &Value, entry: &Entry, n: usize) {
    let mut found = keys(object);
    let mut expected = vec![
        "kernel",
        "n",
        "dtype",
        "residency",
        "repeat",
        "parts",
        "seconds",
        "predicted_seconds",
        "gflops",
        "gbytes_per_s",
        "check",
    ];
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(object["kernel"], entry.name);
    assert_eq!(object["n"], n);
    assert_eq!(object["dtype"], entry.default_type().name());
    let mut start = 0;
    for part in object["parts"].as_array().expect("a list") {
        assert_eq!(keys(part), ["device", "range"]);
        let range = part["range"].as_array().expect("a list");
        assert_eq!(
            (range.len(), &range[0]),
            (2, &Value::from(start)),
            "{object}"
        );
        start = range[1].as_u64().expect("an index");
    }
    assert_eq!(start == 0, n == 0, "{object}");
    let seconds = |which: &str| number(&object["seconds"][which]);
    assert!(seconds("min") > 0.0, "{object}");
    assert!(seconds("min") <= seconds("median") && seconds("median") <= seconds("max"));
    assert!(number(&object["predicted_seconds"]) >= 0.0);
    assert!(number(&object["gflops"]) >= 0.0 && number(&object["gbytes_per_s"]) >= 0.0);
}

fn assert_check_passed(object: &Value) {
    let check = &object["check"];
    assert_eq!(keys(check), ["max_error", "ok", "tolerance"], "{object}");
    assert_eq!(check["ok"], true, "{object}");
    assert!(
        number(&check["max_error"]) <= number(&check["tolerance"]),
        "{object}"
    );
}

fn devices(object: &Value) -> Vec<&str> {
    let parts = object["parts"].as_array().expect("a list");
    parts
        .iter()
        .filter_map(|part| part["device"].as_str())
        .collect()
}

/// Runs every kernel at `placement`, checks the results, and returns the devices of each.
fn run_all(placement: &str, residency: &str, expected: &[&str]) {
    for entry in CATALOG {
        let n = small(entry);
        let size = n.to_string();
        let args = [
            "run",
            entry.name,
            "--n",
            &size,
            "--placement",
            placement,
            "--check",
        ];
        let more = ["--residency", residency, "--repeat", "3", "--json"];
        let object = json(divvy(&[&args[..], &more].concat()));
        assert_form_of_run(&object, entry, n);
        assert_check_passed(&object);
        assert_eq!(object["repeat"], 3);
        assert_eq!(object["residency"], residency);
        assert_eq!(devices(&object), expected, "{object}");
    }
}

#[test]
fn every_kernel_runs_on_the_cpu_and_is_right() {
    run_all("cpu", "host", &["cpu"]);
}

#[test]
fn every_kernel_runs_on_the_gpu_and_is_right() {
    if has_gpu() {
        run_all("gpu", "device", &["gpu0"]);
    }
}

#[test]
fn every_kernel_runs_split_and_is_right() {
    if has_gpu() {
        run_all("split:0.5", "host", &["gpu0", "cpu"]);
    }
}

#[test]
fn every_element_type_runs() {
    for entry in CATALOG {
        for dtype in entry.element_types() {
            let args = [
                "run",
                entry.name,
                "--n",
                "70",
                "--dtype",
                dtype.name(),
                "--check",
                "--json",
            ];
            let object = json(divvy(&args));
            assert_eq!(object["dtype"], dtype.name());
            assert_check_passed(&object);
        }
    }
}

#[test]
fn nothing_at_all_is_a_size() {
    for entry in CATALOG {
        let object = json(divvy(&["run", entry.name, "--n", "0", "--check", "--json"]));
        assert_form_of_run(&object, entry, 0);
        assert_check_passed(&object);
        assert_eq!(object["parts"], Value::Array(Vec::new()));
    }
}

#[test]
fn the_check_is_null_unless_asked_for() {
    let object = json(divvy(&["run", CATALOG[0].name, "--n", "64Ki", "--json"]));
    assert_form_of_run(&object, &CATALOG[0], 65536);
    assert_eq!(object["check"], Value::Null);
    assert_eq!(object["repeat"], 10);
    assert_eq!(object["residency"], "host");
}

#[test]
fn repeats_long_enough_to_drift_keep_every_value_finite() {
    for entry in CATALOG {
        let args = [
            "run",
            entry.name,
            "--n",
            "64",
            "--repeat",
            "300",
            "--residency",
            "device",
        ];
        let object = json(divvy(&[&args[..], &["--check", "--json"]].concat()));
        assert_check_passed(&object);
        assert_eq!(object["repeat"], 300);
    }
}

#[test]
fn text_says_what_ran_where_and_how_fast() {
    let args = [
        "run",
        "axpy",
        "--n",
        "1000",
        "--placement",
        "cpu",
        "--threads",
        "1",
    ];
    let text = stdout(divvy(&[&args[..], &["--check"]].concat()));
    for line in [
        "axpy, f32, 1,000 items, arrays on the host, transfers counted",
        "where      cpu, 1 thread: 0..1,000",
        "median     ",
        "predicted  ",
        "rate       ",
        "check      ok",
    ] {
        assert!(
            text.lines().any(|l| l.starts_with(line)),
            "{line:?} not in\n{text}"
        );
    }
}

#[test]
fn the_seed_decides_the_input() {
    let error = |seed: &str| {
        let args = [
            "run",
            "axpy",
            "--n",
            "5000",
            "--placement",
            "cpu",
            "--seed",
            seed,
        ];
        number(&json(divvy(&[&args[..], &["--check", "--json"]].concat()))["check"]["max_error"])
    };
    assert_eq!(error("7"), error("7"));
    assert_ne!(error("7"), error("8"));
}

#[test]
fn an_unknown_kernel_is_refused_with_those_there_are() {
    for command in ["run", "explain"] {
        let (status, message) = refusal(divvy(&[command, "axpi"]));
        assert_eq!(status, 2);
        let names = |entry: &&Entry| message.contains(entry.name);
        assert_eq!(
            CATALOG.iter().filter(names).count(),
            CATALOG.len(),
            "{message}"
        );
        assert!(
            message.contains("a similar value exists: 'axpy'"),
            "{message}"
        );
    }
    let (status, message) = refusal(divvy(&["bench", "--kernels", "axpy,nothing"]));
    assert!(status == 2 && message.contains("'nothing'"), "{message}");
}

#[test]
fn arguments_that_cannot_be_used_are_refused_by_name() {
    let cases: &[(&[&str], &str)] = &[
        (&["--placement", "gpu:9"], "no device gpu9"),
        (&["--placement", "split:1.5"], "\"1.5\""),
        (&["--placement", "split:-0.5"], "\"-0.5\""),
        (&["--placement", "split:NaN"], "\"NaN\""),
        (&["--placement", "split:gpu0=0.5,cpu=0.4"], "sum to 0.9"),
        (&["--placement", "moon"], "\"moon\""),
        (&["--n", "many"], "expected a number"),
        (&["--n", "-1"], "'-1'"),
        (&["--n", "2^70"], "too large"),
        (&["--n", "2^62"], "too large"),
        (&["--repeat", "0"], "--repeat"),
        (&["--threads", "0"], "threads is \"0\""),
        (&["--threads", "1000000"], "from 1 to 4096"),
        (&["--seed", "x"], "--seed"),
        (&["--dtype", "f128"], "--dtype"),
        (&["--residency", "moon"], "[possible values: host, device]"),
    ];
    for (args, expected) in cases {
        let (status, message) = refusal(divvy(&[&["run", "axpy"], *args].concat()));
        assert!(
            status == 2 && message.contains(expected),
            "{args:?}: {status}, {message}"
        );
    }
}

#[test]
fn sizes_that_no_host_holds_are_refused_before_anything_is_drawn() {
    for entry in CATALOG {
        // Half the bits for a side, whose square counts. More than a processor can address, not more than a number can say.
        let n = if entry.size == Size::Side {
            "2^28"
        } else {
            "2^56"
        };
        let (status, message) = refusal(divvy(&["run", entry.name, "--n", n]));
        assert!(
            status == 1 && message.contains("the host cannot provide"),
            "{message}"
        );
        let (status, message) = refusal(divvy(&["run", entry.name, "--n", "2^63"]));
        assert!(
            status == 2 && message.contains("is too large; the limit is"),
            "{message}"
        );
    }
}

#[test]
fn an_element_type_that_a_kernel_lacks_is_refused_with_those_it_has() {
    let all = || CATALOG.iter().flat_map(Entry::element_types);
    let lacking = CATALOG.iter().find_map(|entry| {
        let missing = all().find(|dtype| entry.element_types().all(|own| own != *dtype))?;
        Some((entry, missing))
    });
    let (entry, dtype) = lacking.expect("not every kernel has every type");
    let (status, message) = refusal(divvy(&["run", entry.name, "--dtype", dtype.name()]));
    assert_eq!(status, 2);
    let expected = format!(
        "{}: there is none for {dtype}, only for {}",
        entry.name,
        entry.default_type()
    );
    assert!(message.contains(&expected), "{message}");
}

#[test]
fn settings_that_cannot_be_used_are_refused_by_name() {
    let available = InstructionSet::available();
    let mut all = InstructionSet::ALL.iter();
    // No processor has both AVX2 and NEON.
    let lacking = all.find(|set| !available.contains(set)).expect("one");
    for (name, value) in [
        ("DIVVY_THREADS", "0"),
        ("DIVVY_THREADS", "several"),
        ("DIVVY_DEVICES", "moon"),
        ("DIVVY_SIMD", "sse9"),
        ("DIVVY_SIMD", lacking.name()),
    ] {
        for args in [
            &["devices"][..],
            &["run", "axpy"],
            &["bench"],
            &["explain", "axpy"],
        ] {
            let mut command = divvy(args);
            command.env(name, value);
            let (status, message) = refusal(command);
            assert_eq!(status, 2, "{message}");
            assert!(
                message.contains(&format!("{name} is {value:?}")),
                "{message}"
            );
            if name == "DIVVY_SIMD" {
                let said = |set: &InstructionSet| message.contains(&format!("`{set}`"));
                assert!(available.iter().all(said), "{message}");
            }
        }
    }
}

#[test]
fn the_instruction_set_can_be_held_down() {
    for set in InstructionSet::available() {
        let mut command = divvy(&["devices", "--json"]);
        command.env("DIVVY_SIMD", set.name());
        assert_eq!(json(command)["cpu"]["simd"], set.name());
        let mut command = divvy(&["devices"]);
        command.env("DIVVY_SIMD", format!(" {set} "));
        let text = stdout(command);
        assert!(text.contains(&format!(", vector code for {set}")), "{text}");
        let mut command = divvy(&["run", "heat", "--n", "100", "--check", "--placement", "cpu"]);
        command.env("DIVVY_SIMD", set.name());
        stdout(command);
    }
}

#[test]
fn devices_lists_what_there_is() {
    let mut command = divvy(&["devices", "--json"]);
    command.env("DIVVY_THREADS", "3");
    let object = json(command);
    assert_eq!(keys(&object), ["cpu", "gpus", "problems"]);
    assert_eq!(object["cpu"]["device"], "cpu");
    assert_eq!(object["cpu"]["threads"], 3);
    assert_eq!(object["cpu"]["simd"], InstructionSet::best().name());
    assert!(!object["cpu"]["name"].as_str().expect("a name").is_empty());
    let gpus = object["gpus"].as_array().expect("a list");
    assert_eq!(gpus.len(), support::runtime().gpus().len());
    let text = stdout(divvy(&["devices"]));
    assert!(text.starts_with("cpu "), "{text}");
    for (index, gpu) in gpus.iter().enumerate() {
        assert_eq!(gpu["device"], format!("gpu{index}"));
        assert_eq!(gpu["software"], gpu["kind"] == "software");
        assert!(number(&gpu["limits"]["max_binding_bytes"]) >= f64::from(128 << 20));
        for field in ["name", "backend", "driver"] {
            let value = gpu[field].as_str().expect("text");
            assert!(
                !value.is_empty() && text.contains(value),
                "{value:?} not in\n{text}"
            );
        }
        assert_eq!(
            text.contains("SOFTWARE"),
            gpus.iter().any(|gpu| gpu["software"] == true)
        );
    }
}

#[test]
fn without_vulkan_the_cpu_works_and_devices_says_what_is_missing() {
    let text = stdout(without_vulkan(&["devices"]));
    assert!(
        text.contains("no GPU can be used\n  ") && text.contains("install"),
        "{text}"
    );
    let object = json(without_vulkan(&["devices", "--json"]));
    assert_eq!(object["gpus"], Value::Array(Vec::new()));
    assert_eq!(object["problems"].as_array().map(Vec::len), Some(1));

    let object = json(without_vulkan(&[
        "run", "axpy", "--n", "1000", "--check", "--json",
    ]));
    assert_check_passed(&object);
    assert_eq!(devices(&object), ["cpu"]);
    stdout(without_vulkan(&["explain", "axpy"]));

    for placement in ["gpu", "split:0.5"] {
        let (status, message) = refusal(without_vulkan(&["run", "axpy", "--placement", placement]));
        assert_eq!(status, 2);
        assert!(message.contains("no device gpu0"), "{message}");
        assert!(
            message.contains("there is no GPU: ") && message.contains("install"),
            "{message}"
        );
    }
    let mut command = without_vulkan(&["devices"]);
    command.env("DIVVY_DEVICES", "gpu");
    let (status, message) = refusal(command);
    assert!(
        status == 2 && message.contains("there is no GPU"),
        "{message}"
    );
}

#[test]
fn explain_gives_every_candidate_and_the_choice() {
    let text = stdout(divvy(&["explain", "axpy", "--n", "64Ki"]));
    assert!(
        text.starts_with("axpy, 65,536 items, placement auto"),
        "{text}"
    );
    assert!(
        text.contains("\n* ") && text.contains("\nchosen: "),
        "{text}"
    );
    for entry in CATALOG {
        let size = small(entry).to_string();
        let object = json(divvy(&["explain", entry.name, "--n", &size, "--json"]));
        assert_form_of_explanation(&object);
        let choice = object["choice"].as_u64().expect("an index") as usize;
        let chosen = &object["candidates"][choice];
        assert_eq!(chosen["eligible"], true, "{object}");
        assert!(number(&chosen["predicted_seconds"]) > 0.0, "{object}");
    }
}

/// That an explanation is of the documented form.
fn assert_form_of_explanation(object: &Value) {
    let has = |object: &Value, wanted: &[&str]| {
        let found = keys(object);
        for key in wanted {
            assert!(found.contains(key), "{key}: {object}");
        }
    };
    let whole = ["kernel", "items", "placement", "candidates", "choice"];
    has(
        object,
        &[&whole[..], &["reason", "advantage", "ruled_out"]].concat(),
    );
    for candidate in object["candidates"].as_array().expect("a list") {
        let times = ["name", "predicted_seconds", "combine_seconds"];
        let trust = ["samples", "uncertainty", "eligible", "parts"];
        has(candidate, &[&times[..], &trust[..]].concat());
        for part in candidate["parts"].as_array().expect("a list") {
            let what = ["device", "threads", "range", "predicted"];
            let trust = ["samples", "uncertainty", "extrapolated"];
            has(part, &[&what[..], &trust[..]].concat());
            has(
                &part["predicted"],
                &["wait", "launch", "upload", "compute", "download"],
            );
        }
    }
    for excluded in object["ruled_out"].as_array().expect("a list") {
        has(excluded, &["device", "name", "reason"]);
    }
}

#[test]
fn explain_sees_where_arrays_are() {
    if !has_gpu() {
        return;
    }
    let upload = |residency: &str| {
        let args = [
            "explain",
            "axpy",
            "--n",
            "1Mi",
            "--placement",
            "gpu",
            "--json",
        ];
        let object = json(divvy(&[&args[..], &["--residency", residency]].concat()));
        let candidates = object["candidates"].as_array().expect("a list").clone();
        let gpu = candidates
            .iter()
            .find(|c| c["name"] == "gpu0")
            .expect("it can run there");
        number(&gpu["parts"][0]["predicted"]["upload"])
    };
    assert!(upload("host") > 0.0);
    assert_eq!(upload("device"), 0.0);
}

#[test]
fn bench_gives_a_row_per_kernel_size_and_device() {
    let args = [
        "bench",
        "--kernels",
        "axpy",
        "--n",
        "100,2000",
        "--repeat",
        "3",
    ];
    let kinds: Vec<_> = support::runtime().gpus().map(|gpu| gpu.kind).collect();
    let gpus = kinds.len();
    let rows = json(divvy(&[&args[..], &["--json"]].concat()));
    let rows = rows.as_array().expect("a list");
    assert_eq!(rows.len(), 2 * (1 + gpus));
    for (at, row) in rows.iter().enumerate() {
        assert_eq!(row["kernel"], "axpy");
        assert_eq!(row["n"], if at < 1 + gpus { 100 } else { 2000 });
        assert_eq!(row["repeat"], 3);
        let software = at % (1 + gpus) > 0 && kinds[at % (1 + gpus) - 1] == DeviceKind::Software;
        assert_eq!(row["software"], software, "{row}");
        let ideal = number(&row["roofline_seconds"]);
        let median = number(&row["seconds"]["median"]);
        assert!(ideal > 0.0 && number(&row["gflops"]) > 0.0 && number(&row["gbytes_per_s"]) > 0.0);
        let fraction = number(&row["roofline_fraction"]);
        assert!(
            (fraction - ideal / median).abs() <= 1e-9 * fraction,
            "{row}"
        );
    }
    let chosen = |rows: &[Value]| rows.iter().any(|row| row["chosen"] == true);
    assert!(chosen(&rows[..1 + gpus]) && chosen(&rows[1 + gpus..]));

    let text = stdout(divvy(&args));
    assert_eq!(text.lines().count(), 1 + rows.len(), "{text}");
    assert!(
        text.starts_with("kernel ") && text.contains("roofline"),
        "{text}"
    );
}

#[test]
fn what_bench_cannot_measure_does_not_stop_the_rest() {
    let output = divvy(&[
        "bench",
        "--kernels",
        "axpy",
        "--n",
        "2^56,100",
        "--repeat",
        "1",
        "--json",
    ])
    .output()
    .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("axpy n=72057594037927936: the host cannot provide"),
        "{errors}"
    );
    let rows: Value = serde_json::from_slice(&output.stdout).expect("still one array");
    assert!(!rows.as_array().expect("a list").is_empty());
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    for args in [
        "bench --kernels axpy --n 100,200,300 --repeat 1",
        "bench --kernels axpy --n 100,200,300 --repeat 1 --json",
        "completions bash",
        "run --help",
    ] {
        let words: Vec<&str> = args.split(' ').collect();
        let mut child = process(DIVVY, &words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut pipe = BufReader::with_capacity(1, child.stdout.take().expect("a pipe"));
        pipe.read_line(&mut line).expect("text");
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        assert!(!line.is_empty());
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

/// Long enough that a progress bar would be shown.
const LONG: [&str; 7] = [
    "run",
    "axpy",
    "--n",
    "16Mi",
    "--repeat",
    "500",
    "--placement=cpu",
];

#[test]
fn a_pipe_gets_no_progress_bar() {
    let text = stdout(divvy(&LONG));
    assert!(!text.contains("/501"), "{text}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_terminal_gets_a_progress_bar() {
    let command = format!("{DIVVY} {}", LONG.join(" "));
    let output = process("script", &["-qec", &command, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .expect("`script` (util-linux) gives the command a terminal");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("/501"), "{text}");
    assert!(text.contains("median     "), "{text}");
}

#[test]
fn shells_complete_subcommands_and_kernels() {
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(divvy(&["completions", shell]));
        for word in ["explain", "--placement", CATALOG[0].name] {
            // fish writes long options without the dashes.
            assert!(
                script.contains(word.trim_start_matches('-')),
                "{shell}: {word}"
            );
        }
    }
    assert_eq!(refusal(divvy(&["completions", "moon"])).0, 2);
}

#[test]
fn help_explains_with_examples() {
    for args in [
        &["--help"][..],
        &["devices", "--help"],
        &["run", "--help"],
        &["bench", "--help"],
        &["explain", "--help"],
        &["audit", "--help"],
        &["completions", "--help"],
    ] {
        let text = stdout(divvy(args));
        assert!(text.contains("Examples:\n  divvy "), "{text}");
    }
    let text = stdout(divvy(&["run", "--help"]));
    for entry in CATALOG {
        assert!(text.contains(&format!("- {}: ", entry.name)), "{text}");
    }
    assert!(stdout(divvy(&["--version"])).starts_with("divvy "));
    assert_eq!(
        divvy(&[]).output().expect("it starts").status.code(),
        Some(2)
    );
}
