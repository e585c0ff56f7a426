//! How long it takes to load a profile: once per program, before its first call, so it must stay under 5 ms for
//! forty kernels.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use divvy::Runtime;
use divvy::cost::profile::{Location, SCHEMA};
use serde_json::{Value, json};
use std::path::Path;

const KERNELS: usize = 40;
/// Ways to run each: alone and beside others, with data moved and without, by one thread and by all.
const ARMS: usize = 8;
/// Of these, the ones that are run often.
const WINNERS: usize = 3;
const SIZES: usize = 12;

fn engine(threads: usize) -> Value {
    let rate = |i: i32| [16384.0 * 4f64.powi(i), 2.345e11 / f64::from(i + 1)];
    let rates: Vec<[f64; 2]> = (0..8).map(rate).collect();
    json!({"threads": threads, "launch_seconds": 3.25e-6, "flops_per_second": 1.172e11, "bandwidth": rates})
}

fn device(label: &str, key: &Value, kind: &str, engines: &[Value]) -> Value {
    let link: Vec<[f64; 2]> = (0..10)
        .map(|i| [256.0 * 4f64.powi(i), 1.234e-5 * 2f64.powi(i)])
        .collect();
    let link = if kind == "cpu" {
        Value::Null
    } else {
        json!(link)
    };
    let limits =
        json!({"max_binding_bytes": 1u64 << 31, "max_buffer_bytes": null, "memory_bytes": null});
    json!({
        "label": label, "key": key, "measured": 1_700_000_000, "thoroughness": "full", "busy": false,
        "model": {
            "id": "cpu", "kind": kind, "name": label, "engines": engines, "queued_seconds": 1e-6, "upload": link,
            "download": link, "limits": limits
        }
    })
}

/// This CPU and two GPUs on which forty kernels ran in every way that a plan tries: what wins often, the rest a few
/// times. All are told to be the CPU's, so that all are taken in.
fn text(cpu_name: &str) -> String {
    let gpu =
        |name: &str| json!({"gpu": {"adapter": name, "driver": "570.86", "backend": "vulkan"}});
    let cpu = json!({"cpu": {"model": cpu_name, "threads": 2}});
    let devices = [
        device("cpu", &cpu, "cpu", &[engine(1), engine(2)]),
        device("one", &gpu("one"), "discrete", &[engine(1)]),
        device("two", &gpu("two"), "discrete", &[engine(1)]),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut learned = Vec::new();
    for kernel in 0..KERNELS {
        for variant in 0..ARMS {
            let recent = if variant < WINNERS { 8 } else { 4 };
            let mut size = |i: usize| {
                let factor = |_| ((rng.f64() - 0.5) * 1e4).round() / 1e4;
                let factors: Vec<f64> = (0..recent).map(factor).collect();
                json!({"size": 10.0 + 2.0 * i as f64, "samples": 10 * recent, "recent": factors})
            };
            let sizes: Vec<Value> = (0..SIZES).map(&mut size).collect();
            learned.push(json!({
                "kernel": format!("kernel-{kernel}"), "element_type": "f32", "implementation": format!("{kernel:016x}"),
                "device": "cpu", "threads": 1 + variant, "beside": [], "moved": false, "sizes": sizes
            }));
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    json!({"schema": SCHEMA, "divvy": version, "devices": devices, "corun": [], "learned": learned})
        .to_string()
}

fn runtime(path: &Path) -> Runtime {
    let builder = Runtime::builder().cpu_only().threads(2).profile(path);
    builder.build().expect("two threads")
}

fn loading(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    std::fs::write(&path, text(runtime(&path).cpu_name())).expect("writable");
    let location = Location::Named(path.clone());
    // As a program writes it, with its lines.
    location.update(|_| ()).expect("writable");
    let read = || location.read().expect("sound").expect("there");
    let parsed = read();
    assert_eq!(
        (parsed.profile.learned().len(), parsed.ignored.len()),
        (KERNELS * ARMS, 0)
    );
    let bytes = parsed.profile.to_json().len();
    c.bench_function(
        &format!("load the profile of {KERNELS} kernels, {bytes} bytes"),
        |b| {
            let load = |rt: Runtime| {
                rt.machine().expect("all is known");
                rt
            };
            b.iter_batched(|| runtime(&path), load, BatchSize::PerIteration);
        },
    );
    c.bench_function("read and check the file", |b| b.iter(&read));
    c.bench_function("merge what was learned into the file", |b| {
        b.iter(|| location.update(|kept| kept.merge(parsed.profile.clone())));
    });
}

criterion_group!(benches, loading);
criterion_main!(benches);
