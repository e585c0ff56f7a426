//! Machines that exist only as files: what is refused, what holds for every replay, and how well the planner does.

#[path = "support/random_machine.rs"]
mod random_machine;

use divvy::Error;
use divvy::catalog;
use divvy::sim::SimulatedMachine;
use divvy::sim::{DataLocation, Options, Outcome, Row, Score, fleet, simulate};
use proptest::prelude::*;
use random_machine::{random_file, random_machine};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/machines");
    let entries = std::fs::read_dir(folder).expect("it is shipped");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "json")
    });
    files.sort();
    files
}

fn load(path: &Path) -> SimulatedMachine {
    SimulatedMachine::load(path).unwrap_or_else(|error| panic!("{error}"))
}

fn run(machine: &SimulatedMachine, options: &Options) -> divvy::Result<Outcome> {
    simulate(machine, &catalog::spec, options, || {})
}

fn few_calls(calls: usize) -> Options {
    let mut options = Options::default();
    options.calls = calls;
    options
}

fn auto(rows: &[Row]) -> &Score {
    &rows
        .iter()
        .find(|row| row.policy == "auto")
        .expect("the first")
        .score
}

/// That every number is one, no regret negative, and shares are shares.
fn assert_sound(outcome: &Outcome) {
    let text = serde_json::to_string(outcome).expect("it is written down");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    for case in value["cases"].as_array().expect("a list") {
        assert!(
            case["oracle_seconds"].as_f64().is_some_and(|s| s > 0.0),
            "{case}"
        );
        for parts in ["oracle_parts", "chosen_parts"] {
            let parts = case[parts].as_array().expect("a list");
            let sum: f64 = parts
                .iter()
                .map(|p| p["share"].as_f64().expect("a share"))
                .sum();
            assert!((sum - 1.0).abs() < 1e-9, "{case}");
        }
    }
    for case in &outcome.cases {
        assert!(case.oracle_seconds.is_finite());
        for row in &case.rows {
            let score = &row.score;
            assert!(
                score.seconds().is_finite() && score.seconds() > 0.0,
                "{case:?}"
            );
            for regret in [score.cold.regret(), score.warm.regret()]
                .into_iter()
                .flatten()
            {
                assert!(
                    regret >= -1e-9 && regret.is_finite(),
                    "{}: {case:?}",
                    row.policy
                );
            }
            assert!((0.0..=1.0).contains(&score.exploration_share()));
        }
    }
}

#[test]
fn every_shipped_machine_says_where_its_figures_come_from_and_is_noisy() {
    let files = shipped();
    assert!(files.len() >= 8, "{files:?}");
    for file in files {
        let machine = load(&file);
        assert_eq!(
            file.file_stem().and_then(|stem| stem.to_str()),
            Some(machine.name.as_str())
        );
        assert!(
            machine.source.len() > 100,
            "{}: {}",
            machine.name,
            machine.source
        );
        assert!(machine.kernels.len() >= 6, "{}", machine.name);
        for kernel in &machine.kernels {
            let entry = catalog::find(&kernel.name);
            assert!(entry.is_some(), "{}: {}", machine.name, kernel.name);
            for table in kernel.tables.iter().flatten() {
                assert!(
                    table.points().len() >= 6,
                    "{}: {}",
                    machine.name,
                    kernel.name
                );
            }
        }
        let noise = machine.noise;
        assert_eq!(
            (noise.sigma, noise.spike_probability, noise.spike_factor),
            (0.1, 0.01, 20.0)
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_replay_and_another_seed_another() {
    let machine = random_machine(5);
    let text = |seed| {
        let mut options = few_calls(30);
        options.seed = seed;
        serde_json::to_string(&run(&machine, &options).expect("it runs")).expect("JSON")
    };
    assert_eq!(text(1), text(1));
    assert_ne!(text(1), text(2));
}

#[test]
fn a_machine_of_nothing_but_the_basic_fields_is_replayed() -> divvy::Result<()> {
    let file = json!({
        "name": "plain",
        "devices": [{"id": "cpu", "kind": "cpu"}, {"id": "gpu0", "kind": "integrated"}],
        "kernels": {"axpy": {"cpu": [[1000, 1e-6]], "gpu0": [[1000, 2e-6], [100_000, 1e-5]]}},
    });
    let machine = SimulatedMachine::parse("plain", &file.to_string())?;
    let outcome = run(&machine, &few_calls(50))?;
    assert_sound(&outcome);
    assert_eq!(outcome.cases.len(), 2, "its one size, both residencies");
    assert_eq!(outcome.recovery.len(), 0);
    let mut one = few_calls(5);
    one.sizes = vec![64, 4096];
    one.residencies = vec![DataLocation::Device];
    let outcome = run(&machine, &one)?;
    assert_eq!(
        outcome.cases.iter().map(|case| case.n).collect::<Vec<_>>(),
        [64, 4096]
    );
    assert_eq!(
        auto(&outcome.rows).warm.regret(),
        None,
        "all calls are cold"
    );
    Ok(())
}

#[test]
fn one_device_leaves_nothing_to_regret() -> divvy::Result<()> {
    for (id, kind) in [("cpu", "cpu"), ("gpu0", "discrete"), ("gpu3", "software")] {
        let file = json!({
            "name": "alone", "devices": [{"id": id, "kind": kind, "launch_s": 1e-5}],
            "kernels": {"sum": {id: [[1000, 1e-6], [1_000_000, 1e-3]]}, "gemm": {id: [[64, 1e-5]]}},
        });
        let machine = SimulatedMachine::parse("alone", &file.to_string())?;
        let outcome = run(&machine, &few_calls(25))?;
        assert_sound(&outcome);
        for row in &outcome.rows {
            assert_eq!(row.score.warm.regret(), Some(0.0), "{}", row.policy);
        }
    }
    Ok(())
}

#[test]
fn kernels_that_are_unknown_are_passed_over_unless_there_is_no_other() -> divvy::Result<()> {
    let file = |known: bool| {
        let mut kernels = json!({"warp": {"cpu": [[10, 1e-6]]}, "weft": {"cpu": [[10, 1e-6]]}});
        if known {
            kernels["sum"] = json!({"cpu": [[1000, 1e-6]]});
        }
        let file =
            json!({"name": "loom", "devices": [{"id": "cpu", "kind": "cpu"}], "kernels": kernels});
        SimulatedMachine::parse("loom", &file.to_string())
    };
    let outcome = run(&file(true)?, &few_calls(3))?;
    assert!(outcome.cases.iter().all(|case| case.kernel == "sum"));
    let error = run(&file(false)?, &few_calls(3)).expect_err("nothing is left");
    let text = error.to_string();
    assert!(
        text.contains("loom") && text.contains("warp, weft"),
        "{text}"
    );
    Ok(())
}

#[test]
fn what_a_device_cannot_hold_is_not_asked_of_it() -> divvy::Result<()> {
    let file = json!({
        "name": "small",
        "devices": [{"id": "cpu", "kind": "cpu"},
                    {"id": "gpu0", "kind": "discrete", "memory_bytes": 4_000_000},
                    {"id": "gpu1", "kind": "discrete", "max_binding_bytes": 4096}],
        "kernels": {"nbody": {"cpu": [[1024, 1.0], [65536, 4000.0]], "gpu0": [[1024, 1e-5], [65536, 1e-2]],
                              "gpu1": [[1024, 1e-5], [65536, 1e-2]]},
                    "axpy": {"cpu": [[1, 1e-6], [1 << 20, 1.0]], "gpu0": [[1 << 20, 1e-5]]}},
    });
    let machine = SimulatedMachine::parse("small", &file.to_string())?;
    let outcome = run(&machine, &few_calls(25))?;
    assert_sound(&outcome);
    for case in &outcome.cases {
        let used = |id: &str| {
            case.oracle_parts
                .iter()
                .any(|part| part.device.to_string() == id)
        };
        assert!(!used("gpu1"), "{case:?}");
        if case.kernel == "axpy" && case.n > 1 {
            let on_gpu = case
                .oracle_parts
                .iter()
                .find(|p| p.device.to_string() == "gpu0");
            assert!(
                on_gpu.expect("as much as it holds").share <= 0.48,
                "{case:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn sizes_that_no_array_can_have_are_refused() {
    let machine = random_machine(1);
    let mut options = few_calls(1);
    options.sizes = vec![usize::MAX / 2];
    assert!(matches!(
        run(&machine, &options),
        Err(Error::TooLarge { .. })
    ));
}

/// Changes one value somewhere in a document.
fn mutate(value: &mut Value, rng: &mut fastrand::Rng) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.u32(..8) > 0 => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = &names[rng.usize(..names.len())];
            match rng.u32(..12) {
                0 => drop(fields.remove(name)),
                1 => {
                    let other = names[rng.usize(..names.len())].clone();
                    let field = fields[name].clone();
                    fields.insert(other, field);
                }
                _ => mutate(fields.get_mut(name).expect("it is one of them"), rng),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.u32(..8) > 0 => {
            let at = rng.usize(..items.len());
            match rng.u32(..12) {
                0 => drop(items.remove(at)),
                1 => {
                    let item = items[at].clone();
                    items.insert(rng.usize(..items.len()), item);
                }
                _ => mutate(&mut items[at], rng),
            }
        }
        Value::Number(number) if rng.bool() => {
            let factor = [0.0, -1.0, 1e-12, 0.1, 10.0, 1e12][rng.usize(..6)];
            *value = json!(number.as_f64().expect("finite") * factor);
        }
        _ => {
            let values = [
                json!(null),
                json!(true),
                json!(-1),
                json!(0),
                json!(1e308),
                json!(1e-308),
                json!(9007199254740992u64),
                json!("gpu0"),
                json!("cpu"),
                json!([]),
                json!({}),
                json!([[1, 1]]),
            ];
            *value = values[rng.usize(..values.len())].clone();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn mutated_files_are_refused_or_replayed_soundly(machine in 0u64..50, seed: u64, mutations in 1usize..6) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut file = random_file(machine);
        for _ in 0..mutations {
            mutate(&mut file, &mut rng);
        }
        match SimulatedMachine::parse("mutated", &file.to_string()) {
            Ok(machine) => match run(&machine, &few_calls(3)) {
                Ok(outcome) => assert_sound(&outcome),
                Err(error) => prop_assert!(
                    matches!(error, Error::MachineFile { .. } | Error::TooLarge { .. }), "{}", error
                ),
            },
            Err(error) => prop_assert!(error.to_string().starts_with("mutated: "), "{}", error),
        }
    }

    #[test]
    fn any_text_is_refused_or_a_machine(text in "\\PC{0,60}") {
        let _ = SimulatedMachine::parse("text", &text);
    }
}

/// What the planner reaches over the shipped machines. It aims at a warm regret of 0.03 and a worst ratio of 1.5, and
/// with some seeds just misses them: splits that save less than 10 % are left, and where a GPU is faster in a middle
/// band of sizes only, the best of several ways to share is found late.
#[test]
fn the_planner_is_nearly_as_good_as_trying_everything() -> divvy::Result<()> {
    let outcomes: Vec<Outcome> = shipped()
        .iter()
        .map(|file| run(&load(file), &Options::default()))
        .collect::<Result<_, _>>()?;
    for outcome in &outcomes {
        assert_sound(outcome);
        // Of four devices the best split saves too little over fewer for the planner to take it, so that what is reached
        // depends on the seed: 0.06 to 0.1.
        let limit = if outcome.devices.len() > 2 {
            0.12
        } else {
            0.05
        };
        for recovery in &outcome.recovery {
            assert!(recovery.regret <= limit, "{}: {recovery:?}", outcome.name);
        }
    }
    let rows = fleet(&outcomes);
    let score = auto(&rows);
    assert!(
        score.warm.regret().is_some_and(|regret| regret <= 0.033),
        "{rows:#?}"
    );
    assert!(
        score.cold.regret().is_some_and(|regret| regret <= 0.25),
        "{rows:#?}"
    );
    assert!(
        score.worst_warm.is_some_and(|worst| worst <= 2.0),
        "{rows:#?}"
    );
    assert!(score.exploration_share() <= 0.05, "{rows:#?}");
    for row in &rows {
        assert!(
            score.seconds() <= row.score.seconds(),
            "{}: {rows:#?}",
            row.policy
        );
    }
    Ok(())
}

/// Machines that nobody tuned anything for.
#[test]
fn unusual_machines_are_no_exception() -> divvy::Result<()> {
    let outcomes: Vec<Outcome> = (1000..1020)
        .map(|seed| run(&random_machine(seed), &Options::default()))
        .collect::<Result<_, _>>()?;
    let rows = fleet(&outcomes);
    let score = auto(&rows);
    assert!(
        score.warm.regret().is_some_and(|regret| regret <= 0.05),
        "{rows:#?}"
    );
    assert!(score.exploration_share() <= 0.05, "{rows:#?}");
    for row in &rows {
        assert!(
            score.seconds() <= row.score.seconds(),
            "{}: {rows:#?}",
            row.policy
        );
    }
    Ok(())
}

/// For tuning: `cargo test --release --test simulated_machines table -- --ignored --nocapture`, with
/// `DIVVY_MACHINES=100` for so many.
#[test]
#[ignore = "prints a table for people who tune the policy"]
fn table_of_random_machines() -> divvy::Result<()> {
    let count = std::env::var("DIVVY_MACHINES")
        .ok()
        .and_then(|n| n.parse().ok());
    let mut outcomes = Vec::new();
    println!(
        "{:>12}  devices    cold    warm   worst  exploring",
        "machine"
    );
    for seed in 0..count.unwrap_or(100) {
        let outcome = run(&random_machine(seed), &Options::default())?;
        line(
            &outcome.name,
            outcome.devices.len(),
            auto(&outcome.rows),
            &outcome,
        );
        outcomes.push(outcome);
    }
    for row in fleet(&outcomes) {
        println!(
            "{:>12}  {:.4} cold  {:.4} warm  {:.2} worst  {:.3} exploring",
            row.policy,
            row.score.cold.regret().unwrap_or(0.0),
            row.score.warm.regret().unwrap_or(0.0),
            row.score.worst_warm.unwrap_or(0.0),
            row.score.exploration_share(),
        );
    }
    Ok(())
}

fn line(name: &str, devices: usize, score: &Score, outcome: &Outcome) {
    let worst = outcome.cases.iter().max_by(|a, b| {
        let of = |case: &divvy::sim::SimulatedCase| auto(&case.rows).worst_warm.unwrap_or(0.0);
        of(a).total_cmp(&of(b))
    });
    let recovery: Vec<String> = outcome
        .recovery
        .iter()
        .map(|r| format!("recovery {:.3}", r.regret))
        .collect();
    println!(
        "{name:>12}  {devices:>7}  {:>6.3}  {:>6.3}  {:>6.2}  {:>9.3}  worst {} {} {:?}  {}",
        score.cold.regret().unwrap_or(0.0),
        score.warm.regret().unwrap_or(0.0),
        score.worst_warm.unwrap_or(0.0),
        score.exploration_share(),
        worst.map_or("", |case| &case.kernel),
        worst.map_or(0, |case| case.n),
        worst.map(|case| case.residency),
        recovery.join(", "),
    );
}
