//! How long it takes to load a profile: once per program, before its first call, so it must stay under 5 ms for
//! forty kernels.

use criterion::{Criterion, criterion_group, criterion_main};
use divvy::DeviceId;
use divvy::cost::learned::{Learner, Record};
use divvy::cost::profile::{LearnedEntry, Location, SCHEMA};
use serde_json::{Value, json};
use std::hint::black_box;

const KERNELS: usize = 40;
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
        json!({"max_binding_bytes": 1 << 31, "max_buffer_bytes": null, "memory_bytes": null});
    json!({
        "label": label, "key": key, "measured": 1_700_000_000, "thoroughness": "full", "busy": false,
        "model": {
            "id": "cpu", "kind": kind, "name": label, "engines": engines, "queued_seconds": 1e-6, "upload": link,
            "download": link, "limits": limits
        }
    })
}

/// A CPU and two GPUs on which forty kernels ran in every way that a plan tries: what wins often, the rest a few times.
fn text() -> String {
    let gpu =
        |name: &str| json!({"gpu": {"adapter": name, "driver": "570.86", "backend": "vulkan"}});
    let cpu = json!({"cpu": {"model": "a processor", "threads": 16}});
    let devices = [
        device("cpu", &cpu, "cpu", &[engine(1), engine(16)]),
        device("one", &gpu("one"), "discrete", &[engine(1)]),
        device("two", &gpu("two"), "discrete", &[engine(1)]),
    ];
    let arms: [(&str, usize, &[&str], bool, usize); 11] = [
        ("cpu", 1, &[], false, 32),
        ("cpu", 16, &[], false, 32),
        ("one", 1, &[], false, 32),
        ("one", 1, &[], true, 8),
        ("two", 1, &[], false, 8),
        ("two", 1, &[], true, 8),
        ("cpu", 16, &["one"], false, 8),
        ("one", 1, &["cpu"], false, 8),
        ("one", 1, &["cpu"], true, 8),
        ("two", 1, &["one"], false, 8),
        ("one", 1, &["two"], false, 8),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    let mut learned = Vec::new();
    for kernel in 0..KERNELS {
        for (device, threads, beside, moved, recent) in &arms {
            let mut size = |i: usize| {
                let factor = |_| ((rng.f64() - 0.5) * 1e4).round() / 1e4;
                let factors: Vec<f64> = (0..*recent).map(factor).collect();
                json!({"size": 10.0 + 2.0 * i as f64, "samples": 10 * recent, "recent": factors})
            };
            let sizes: Vec<Value> = (0..SIZES).map(&mut size).collect();
            learned.push(json!({
                "kernel": format!("kernel-{kernel}"), "element_type": "f32", "implementation": format!("{kernel:016x}"),
                "device": device, "threads": threads, "beside": beside, "moved": moved, "sizes": sizes
            }));
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    json!({"schema": SCHEMA, "divvy": version, "devices": devices, "corun": [], "learned": learned})
        .to_string()
}

fn id(label: &str) -> DeviceId {
    match label {
        "cpu" => DeviceId::Cpu,
        "one" => DeviceId::Gpu(0),
        _ => DeviceId::Gpu(1),
    }
}

fn record(entry: &LearnedEntry) -> Record {
    Record {
        kernel: entry.kernel.clone(),
        element_type: entry.element_type,
        implementation: entry.implementation,
        device: id(&entry.device),
        threads: entry.threads,
        beside: entry.beside.iter().map(|label| id(label)).collect(),
        moved: entry.moved,
        classes: entry.sizes.clone(),
    }
}

fn loading(c: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("profile.json");
    std::fs::write(&path, text()).expect("writable");
    let location = Location::Named(path);
    let read = || location.read().expect("sound").expect("there").profile;
    // As a program writes it, with its lines.
    location
        .update(|profile| drop(profile.merge(read())))
        .expect("writable");
    let (profile, lines) = (read(), read().to_json());
    assert_eq!(profile.learned().len(), KERNELS * 11);
    eprintln!("{} kernels, {} bytes", KERNELS, lines.len());
    let restore = |profile: &divvy::cost::profile::Profile| {
        let records: Vec<Record> = profile.learned().iter().map(record).collect();
        let learner = Learner::new();
        learner.restore(&records);
        learner
    };
    c.bench_function("load the profile of 40 kernels", |b| {
        b.iter(|| restore(&black_box(read())));
    });
    c.bench_function("read it only", |b| b.iter(&read));
    c.bench_function("restore what was learned only", |b| {
        b.iter(|| restore(black_box(&profile)));
    });
    c.bench_function("merge into the file", |b| {
        b.iter(|| location.update(|kept| kept.merge(profile.clone())));
    });
}

criterion_group!(benches, loading);
criterion_main!(benches);
