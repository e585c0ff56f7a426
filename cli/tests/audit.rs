//! `divvy audit` as a process: what it finds, in which form, and what it refuses.

#[path = "support/command.rs"]
mod command;
#[path = "../../tests/support/mod.rs"]
mod support;

use command::{divvy, json, keys, number, refusal, stdout, without_vulkan};
use serde_json::Value;

/// One quick row.
const ONE: [&str; 7] = [
    "audit",
    "--kernels",
    "axpy",
    "--sizes",
    "1Ki",
    "--residency",
    "host",
];

fn is_time_or_null(value: &Value) -> bool {
    value.is_null() || number(value) > 0.0
}

/// That a row is of the documented form and says nothing impossible.
fn assert_form_of_row(row: &Value, kernel: &str, n: usize, residency: &str) {
    assert_eq!(row["kernel"], kernel);
    assert_eq!(row["n"], n);
    assert_eq!(row["residency"], residency);
    for field in ["cpu", "gpu", "split"] {
        assert!(is_time_or_null(&row[field]), "{field}: {row}");
    }
    let (oracle, chosen) = (number(&row["oracle"]), number(&row["chosen"]));
    assert!(oracle > 0.0 && chosen > 0.0, "{row}");
    assert!(
        (number(&row["ratio"]) - chosen / oracle).abs() < 1e-9,
        "{row}"
    );
    assert_eq!(row["split"].is_null(), row["split_fraction"].is_null());
    if !row["split_fraction"].is_null() {
        let share = number(&row["split_fraction"]);
        assert!(0.0 < share && share <= 1.0, "{row}");
    }
    let mut start = 0;
    let mut whole = 0.0;
    for part in row["chosen_parts"].as_array().expect("a list") {
        assert_eq!(keys(part), ["device", "fraction", "range", "threads"]);
        assert_eq!(part["range"][0], start, "{row}");
        start = part["range"][1].as_u64().expect("an index");
        whole += number(&part["fraction"]);
        assert!(part["threads"].as_u64().expect("a number") > 0);
    }
    assert!(start > 0 && (whole - 1.0).abs() < 1e-9, "{row}");
}

#[test]
fn the_document_is_as_described() {
    let document = json(divvy(&[&ONE[..], &["--json", "-"]].concat()));
    assert_eq!(keys(&document), ["failures", "meta", "rows", "summary"]);
    assert_eq!(
        keys(&document["summary"]),
        [
            "decision_ns",
            "exploration_share",
            "geomean_warm",
            "prediction_error_median",
            "regret_cold",
            "regret_warm",
            "within_5pct",
            "worst_warm",
        ]
    );
    let rows = document["rows"].as_array().expect("a list");
    assert_eq!(rows.len(), 1);
    assert_form_of_row(&rows[0], "axpy", 1024, "host");
    let summary = &document["summary"];
    assert_eq!(number(&summary["worst_warm"]), number(&rows[0]["ratio"]));
    assert!(number(&summary["decision_ns"]) > 0.0);
    assert!((0.0..=1.0).contains(&number(&summary["exploration_share"])));
    assert!(number(&summary["prediction_error_median"]) >= 0.0);
    let meta = &document["meta"];
    assert_eq!(number(&meta["auto_total"]), number(&rows[0]["chosen"]));
    assert_eq!(number(&meta["always_cpu_total"]), number(&rows[0]["cpu"]));
    assert!(number(&meta["date"]) > 1.7e9, "seconds since 1970");
    assert_eq!(document["failures"], Value::Array(Vec::new()));
    // Auto and the ways it is held against are among what was tried.
    let ways = rows[0]["variants"].as_array().expect("a list");
    let named = |name: &Value| ways.iter().any(|way| way["variant"] == *name);
    assert!(named(&rows[0]["oracle_variant"]), "{rows:?}");
    if support::has_gpu(support::runtime()) {
        assert!(!rows[0]["gpu"].is_null() && !rows[0]["split"].is_null());
        assert_eq!(meta["gpus"][0]["device"], "gpu0");
    }
}

#[test]
fn both_residencies_and_every_size_are_rows_of_the_table_and_of_the_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("text").to_owned();
    let (page, document) = (path("audit.html"), path("audit.json"));
    let args = ["audit", "--kernels", "sum,heat", "--sizes", "100,64"];
    let files = ["--html", &page, "--json", &document];
    let text = stdout(divvy(&[&args[..], &files].concat()));
    assert!(
        text.starts_with("kernel ") && text.contains("\nregret, warm"),
        "{text}"
    );
    let rows = |kernel: &str| text.lines().filter(|line| line.starts_with(kernel)).count();
    assert_eq!((rows("sum "), rows("heat ")), (4, 4), "{text}");

    let document = std::fs::read_to_string(document).expect("it was written");
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let found = document["rows"].as_array().expect("a list");
    let wanted = ["sum", "heat"].iter().flat_map(|kernel| {
        let both = ["host", "device"].iter();
        both.flat_map(move |residency| [100, 64].map(|n| (*kernel, n, *residency)))
    });
    assert_eq!(found.len(), 8);
    for (row, (kernel, n, residency)) in found.iter().zip(wanted) {
        assert_form_of_row(row, kernel, n, residency);
    }

    let page = std::fs::read_to_string(page).expect("it was written");
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!(page.matches("<figure>").count(), 4);
    assert!(!page.contains("http"), "it needs nothing else");
}

#[test]
fn without_a_gpu_the_cpu_is_all_there_is() {
    let more = ["--json", "-", "--threads", "2"];
    let row = &json(without_vulkan(&[&ONE[..], &more].concat()))["rows"][0];
    assert!(row["gpu"].is_null() && row["split"].is_null(), "{row}");
    assert!(!row["cpu"].is_null());
    let names: Vec<&Value> = row["variants"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|way| &way["variant"])
        .collect();
    assert_eq!(names, ["cpu, 1 thread", "cpu, 2 threads"]);
}

#[test]
fn nothing_to_compute_is_audited_too() {
    let args = ["audit", "--kernels", "axpy", "--sizes", "0", "--json", "-"];
    let rows = json(divvy(&args))["rows"].clone();
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    assert_eq!(rows[0]["chosen_parts"], Value::Array(Vec::new()));
}

#[test]
fn what_cannot_be_measured_does_not_stop_the_rest() {
    let args = ["audit", "--kernels", "axpy", "--residency", "device"];
    let output = divvy(&[&args[..], &["--sizes", "2^56,100", "--json", "-"]].concat())
        .output()
        .expect("it starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains("error: axpy n=72057594037927936: "),
        "{errors}"
    );
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(document["failures"][0]["n"], 1u64 << 56);
    assert!(document["failures"][0]["error"].is_string());
    assert_form_of_row(&document["rows"][0], "axpy", 100, "device");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_measured() {
    for args in [
        &["--kernels", "axpi"][..],
        &["--sizes", "many"],
        &["--residency", "moon"],
        &["--threads", "0"],
        &["--seed", "-1"],
        &["axpy"],
    ] {
        let (status, errors) = refusal(divvy(&[&["audit"], args].concat()));
        assert_eq!(status, 2, "{args:?}: {errors}");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("missing/audit");
    let path = path.to_str().expect("text");
    for option in ["--json", "--html"] {
        let (status, errors) = refusal(divvy(&["audit", option, path]));
        assert_eq!(status, 1, "{errors}");
        assert!(errors.contains(path), "{errors}");
    }
}
