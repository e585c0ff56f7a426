//! The true times of parts, computed by hand, and the best plan.

use super::job::{Job, PartItems, Parts, World};
use super::{DataLocation, Options, SimulatedMachine, oracle};
use crate::catalog;
use crate::device::DeviceKind;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn machine(file: &Value) -> SimulatedMachine {
    SimulatedMachine::parse("machine", &file.to_string()).expect("a valid file")
}

fn options(sizes: &[usize], residency: DataLocation) -> Options {
    Options {
        sizes: sizes.to_vec(),
        residencies: vec![residency],
        ..Options::default()
    }
}

/// Calls `check` with the only job of a machine with one kernel.
fn with_job(
    file: &Value,
    n: usize,
    residency: DataLocation,
    check: impl FnOnce(&World<'_>, &Job<'_>),
) {
    let machine = machine(file);
    let world = World::new(&machine, &catalog::spec).expect("known kernels");
    let jobs = world
        .jobs(&catalog::spec, &options(&[n], residency))
        .expect("possible");
    check(&world, &jobs[0]);
}

/// A CPU and a GPU with round figures: the GPU launches in 10 s, moves 1000 bytes in 1 s and computes ten times as fast.
fn round_figures(kernel: &str) -> Value {
    json!({
        "name": "round",
        "devices": [
            {"id": "cpu", "kind": "cpu"},
            {"id": "gpu0", "kind": "discrete", "launch_s": 10.0, "upload": [[1000, 1.0], [1_000_000, 1000.0]],
             "download": [[1000, 2.0], [1_000_000, 2000.0]]}],
        "kernels": {kernel: {"cpu": [[1024, 1000.0], [4096, 4000.0]], "gpu0": [[1024, 100.0], [4096, 400.0]]}},
        "corun": {"cpu+gpu0": {"compute": [1.5, 1.25], "memory": [2.0, 3.0]}},
        "changes": [{"after_call": 7, "device": "gpu0", "factor": 4}],
    })
}

/// A part of these items on the CPU.
fn cpu(items: usize) -> PartItems {
    PartItems { device: 0, items }
}

/// A part of these items on the GPU.
fn gpu(items: usize) -> PartItems {
    PartItems { device: 1, items }
}

fn assert_near(got: f64, want: f64) {
    assert!((got / want - 1.0).abs() < 1e-9, "{got} for {want}");
}

#[test]
fn a_part_takes_its_launch_its_transfers_and_the_table_at_its_share_of_the_work() {
    // axpy reads 8 bytes and writes 4 for each item.
    with_job(
        &round_figures("axpy"),
        4096,
        DataLocation::Host,
        |world, job| {
            let seconds =
                |parts: &[PartItems], call| job.seconds(world, parts, &world.slowness(call));
            assert_near(seconds(&[cpu(4096)], 0), 4000.0);
            assert_near(
                seconds(&[gpu(4096)], 0),
                10.0 + 400.0 + 32.768 + 2.0 * 16.384,
            );
            assert_near(
                seconds(&[gpu(4096)], 7),
                4.0 * 410.0 + 32.768 + 2.0 * 16.384,
            );
            // Together each is slower, by the factors for memory.
            assert_near(seconds(&[gpu(3072), cpu(1024)], 0), 2.0 * 1000.0);
            assert_near(
                seconds(&[gpu(4032), cpu(64)], 0),
                10.0 + 3.0 * 400.0 * 4032.0 / 4096.0 + 32.256 + 2.0 * 16.128,
            );
        },
    );
    with_job(
        &round_figures("axpy"),
        4096,
        DataLocation::Device,
        |world, job| {
            let slowness = world.slowness(0);
            assert_near(job.seconds(world, &[gpu(4096)], &slowness), 410.0);
        },
    );
    // A product of n rows has n^3 work: an eighth of the rows takes as long as a product of half the side.
    let mut file = round_figures("gemm");
    file["devices"][0]["calibration"] = json!({"flops_per_second": 1e9, "bandwidth": [[1, 1e9]]});
    with_job(&file, 4096, DataLocation::Device, |world, job| {
        let slowness = world.slowness(0);
        assert_near(job.seconds(world, &[cpu(512)], &slowness), 2000.0);
        let both = job.seconds(world, &[gpu(3584), cpu(512)], &slowness);
        assert_near(both, 1.5 * 2000.0);
    });
    // A sum returns four bytes for each block of 4096 items, wherever the array is.
    with_job(
        &round_figures("sum"),
        1 << 20,
        DataLocation::Device,
        |world, job| {
            let slowness = world.slowness(0);
            let want = 10.0 + 100.0 * 1024.0 + 2.0 * 1.024;
            assert_near(job.seconds(world, &[gpu(1 << 20)], &slowness), want);
        },
    );
}

#[test]
fn in_the_best_split_all_finish_together() {
    let mut file = round_figures("axpy");
    file["corun"] = json!({});
    with_job(&file, 1 << 20, DataLocation::Device, |world, job| {
        let best = oracle::best(world, job, &world.slowness(0));
        let (seconds, parts) = (best.seconds, best.parts);
        // The GPU is ten times as fast: 10/11 of the items, less what its launch takes.
        let whole = 1000.0 * 1024.0;
        let want = (10.0 + whole / 10.0) * 10.0 / 11.0 + 10.0 / 11.0 / 10.0;
        assert!((seconds / want - 1.0).abs() < 1e-3, "{seconds} for {want}");
        assert_eq!(parts.len(), 2);
        let items: usize = parts.iter().map(|part| part.items).sum();
        assert_eq!(items, 1 << 20);
    });
}

/// A random machine of several devices whose tables rise.
fn rising_machine(kernel: &'static str) -> impl Strategy<Value = Value> {
    let table = prop::collection::vec((0.5f64..3.0, 0.0f64..4.0), 1..6);
    let device = (
        table,
        0usize..4,
        0.0f64..1e-4,
        -11.0f64..-8.0,
        1.0f64..2.0,
        prop::option::of(1e5f64..1e8),
    );
    prop::collection::vec(device, 1..5).prop_map(move |drawn| {
        let (mut devices, mut tables, mut corun) = (Vec::new(), Map::new(), Map::new());
        for (at, (steps, kind, launch, rate, slowed, memory)) in drawn.into_iter().enumerate() {
            let id = match at {
                0 => "cpu".to_owned(),
                at => format!("gpu{}", at - 1),
            };
            let kind = ["discrete", "integrated", "software", "discrete"][kind];
            let kind = if at == 0 { "cpu" } else { kind };
            let mut device = json!({"id": id, "kind": kind, "launch_s": launch});
            if at > 0 {
                let link = json!([[256, 1e-6], [1e9, 1e-6 + 1e9 * 10f64.powf(rate)]]);
                (device["upload"], device["download"]) = (link.clone(), link);
                device["memory_bytes"] = memory.map(f64::round).into();
                corun.insert(
                    format!("cpu+{id}"),
                    json!({"compute": [slowed, 1.1], "memory": [slowed, slowed]}),
                );
            }
            devices.push(device);
            let (mut n, mut seconds) = (64.0f64, 1e-6);
            let points = steps.iter().map(|(size, time)| {
                (n, seconds) = ((n * size.exp()).ceil() + 1.0, seconds * time.exp());
                json!([n, seconds])
            });
            tables.insert(id, points.collect());
        }
        json!({"name": "rising", "devices": devices, "kernels": {kernel: tables}, "corun": corun})
    })
}

/// Random parts for some of the devices that can hold them, cut where the planner may cut.
fn random_parts(world: &World<'_>, job: &Job<'_>, rng: &mut fastrand::Rng) -> Option<Parts> {
    let mut devices: Vec<usize> = (0..world.machine.devices.len()).collect();
    rng.shuffle(&mut devices);
    let kind = |device: &usize| world.machine.devices[*device].kind;
    if rng.bool() {
        devices.retain(|device| kind(device) != DeviceKind::Software);
        devices.truncate(rng.usize(2..5));
    } else {
        devices.truncate(1);
    }
    let mut left = job.borders();
    let mut parts = Parts::new();
    for (at, device) in devices.iter().enumerate() {
        let borders = if at + 1 == devices.len() {
            left
        } else {
            rng.usize(..=left)
        };
        let before = job.items(left);
        left -= borders;
        let items = before - job.items(left);
        if items > 0 {
            parts.push(PartItems {
                device: *device,
                items,
            });
        }
    }
    let fits = |part: &PartItems| job.fits(world, part.device, part.items);
    parts
        .iter()
        .all(fits)
        .then_some(parts)
        .filter(|parts| !parts.is_empty())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_beats_the_best_plan(
        file in prop_oneof![rising_machine("axpy"), rising_machine("sum"), rising_machine("nbody"), rising_machine("gemm")],
        n in 1usize..4000, device: bool, seed: u64,
    ) {
        let machine = machine(&file);
        let world = World::new(&machine, &catalog::spec).expect("known kernels");
        let residency = if device { DataLocation::Device } else { DataLocation::Host };
        let jobs = world.jobs(&catalog::spec, &options(&[n], residency)).expect("possible");
        let mut rng = fastrand::Rng::with_seed(seed);
        for job in &jobs {
            let slowness = world.slowness(0);
            let oracle::BestPlan { seconds: best, parts } = oracle::best(&world, job, &slowness);
            prop_assert!((job.seconds(&world, &parts, &slowness) / best - 1.0).abs() < 1e-12);
            prop_assert_eq!(parts.iter().map(|part| part.items).sum::<usize>(), job.request.items);
            for _ in 0..100 {
                let Some(parts) = random_parts(&world, job, &mut rng) else { continue };
                let seconds = job.seconds(&world, &parts, &slowness);
                prop_assert!(best <= seconds * (1.0 + 1e-4), "{} with {:?} beats {}", seconds, parts, best);
            }
        }
    }
}
