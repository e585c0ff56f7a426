//! Imaginary machines: files for the simulator with any number of devices, unusual tables and changes over time.

use divvy::catalog::{self, CATALOG, Size};
use divvy::kernel::Work;
use divvy::sim::SimulatedMachine;
use serde_json::{Map, Value, json};

/// The machine of a seed, always the same.
pub fn random_machine(seed: u64) -> SimulatedMachine {
    let name = format!("random {seed}");
    SimulatedMachine::parse(&name, &random_file(seed).to_string()).expect("a valid file")
}

/// Its file.
pub fn random_file(seed: u64) -> Value {
    let mut rng = Random(fastrand::Rng::with_seed(seed));
    let gpus = [1, 1, 1, 2, 2, 3][rng.0.usize(..6)];
    let cpu = Speed::cpu(&mut rng);
    let gpus: Vec<Gpu> = (0..gpus).map(|_| Gpu::new(&mut rng, &cpu)).collect();
    let mut devices = vec![json!({"id": "cpu", "kind": "cpu"})];
    for (index, gpu) in gpus.iter().enumerate() {
        devices.push(gpu.device(index));
    }
    let mut entries: Vec<_> = CATALOG.iter().collect();
    rng.0.shuffle(&mut entries);
    let kernels: Map<String, Value> = entries
        .iter()
        .take(rng.0.usize(4..9))
        .map(|entry| {
            let sizes = sizes(entry.size, &mut rng);
            let mut tables = Map::new();
            tables.insert("cpu".into(), cpu.table(entry.name, &sizes, &mut rng));
            for (index, gpu) in gpus.iter().enumerate() {
                let table = gpu.speed.table(entry.name, &sizes, &mut rng);
                if !rng.chance(0.04) {
                    tables.insert(format!("gpu{index}"), table);
                }
            }
            (entry.name.to_owned(), Value::Object(tables))
        })
        .collect();
    let names: Vec<String> = std::iter::once("cpu".to_owned())
        .chain((0..gpus.len()).map(|index| format!("gpu{index}")))
        .collect();
    let mut corun = Map::new();
    for (at, first) in names.iter().enumerate() {
        for second in &names[at + 1..] {
            if rng.chance(0.8) {
                let shared = rng.between(1.0, 1.9);
                corun.insert(
                    format!("{first}+{second}"),
                    json!({"compute": [rng.between(1.0, 1.2), rng.between(1.0, 1.1)],
                           "memory": [shared, rng.between(1.0, shared)]}),
                );
            }
        }
    }
    let changes: Vec<Value> = (0..rng.0.usize(0..3))
        .map(|_| {
            let device = &names[rng.0.usize(..names.len())];
            let factor = rng.log_between(0.4, 4.0);
            json!({"after_call": rng.0.usize(30..130), "device": device, "factor": factor})
        })
        .collect();
    json!({
        "name": format!("random {seed}"), "source": "drawn at random", "devices": devices, "kernels": kernels,
        "corun": corun, "changes": changes,
        "noise": {"sigma": 0.1, "spike_probability": 0.01, "spike_factor": 20},
    })
}

struct Random(fastrand::Rng);

impl Random {
    fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.0.f64()
    }

    fn log_between(&mut self, low: f64, high: f64) -> f64 {
        low * (high / low).powf(self.0.f64())
    }
}

/// The speed of a device, with its irregularities.
struct Speed {
    flops: f64,
    bytes: f64,
    /// The least time of any kernel, in seconds.
    floor: f64,
    /// The work at which half of the speed is reached.
    half: f64,
    cliffs: Vec<Cliff>,
}

/// A size beyond which memory is slower, such as that of a cache.
#[derive(Clone)]
struct Cliff {
    bytes: f64,
    factor: f64,
}

impl Speed {
    fn cpu(rng: &mut Random) -> Self {
        let cliffs = (0..rng.0.usize(0..3)).map(|_| Cliff {
            bytes: rng.log_between(1e5, 1e8),
            factor: rng.log_between(1.5, 12.0),
        });
        Self {
            cliffs: cliffs.collect(),
            flops: rng.log_between(2e10, 5e12),
            bytes: rng.log_between(1e10, 8e11),
            floor: rng.log_between(5e-8, 1e-5),
            half: rng.log_between(1e2, 1e6),
        }
    }

    fn table(&self, kernel: &str, sizes: &[usize], rng: &mut Random) -> Value {
        // Kernels reach very different shares of a device's peak.
        let (arithmetic, memory) = (rng.log_between(0.1, 0.9), rng.log_between(0.15, 0.95));
        let passes = rng.0.usize(1..4) as f64;
        let points: Vec<Value> = sizes
            .iter()
            .map(|n| {
                let (work, footprint) = demand(kernel, *n);
                let slower: f64 = self
                    .cliffs
                    .iter()
                    .filter(|cliff| footprint > cliff.bytes)
                    .map(|cliff| cliff.factor)
                    .product();
                let asked = work.flops + work.bytes();
                let ramp = (asked + self.half) / asked;
                let compute = work.flops / (self.flops * arithmetic);
                let traffic = slower * work.bytes() / (self.bytes * memory);
                let ripple = 1.0 + 0.1 * (rng.0.f64() - 0.5);
                let seconds = passes * self.floor + ramp * compute.hypot(traffic);
                json!([n, seconds * ripple])
            })
            .collect();
        Value::Array(points)
    }
}

struct Gpu {
    kind: &'static str,
    launch: f64,
    speed: Speed,
    links: Option<[Value; 2]>,
    memory: f64,
    binding: u64,
}

impl Gpu {
    fn new(rng: &mut Random, cpu: &Speed) -> Self {
        let kind = match rng.0.u32(..10) {
            0 => "software",
            1..=4 => "integrated",
            _ => "discrete",
        };
        let faster = match kind {
            "software" => rng.log_between(0.02, 0.6),
            "integrated" => rng.log_between(0.3, 5.0),
            _ => rng.log_between(0.8, 60.0),
        };
        if kind == "software" {
            // It computes on the same cores, behind the same caches.
            return Self::software(rng, cpu, faster);
        }
        let (floor, half) = (rng.log_between(4e-7, 2e-5), rng.log_between(1e5, 3e7));
        let mut cliffs = Vec::new();
        if rng.chance(0.4) {
            cliffs.push(Cliff {
                bytes: rng.log_between(1e6, 3e8),
                factor: rng.log_between(2.0, 30.0),
            });
        }
        let launch = if rng.chance(0.15) {
            0.0
        } else {
            rng.log_between(2e-6, 3e-4)
        };
        let free = kind == "integrated" && rng.chance(0.6);
        Self {
            kind,
            launch,
            speed: Speed {
                flops: cpu.flops * faster * rng.log_between(0.5, 2.0),
                bytes: cpu.bytes * faster.sqrt() * rng.log_between(0.7, 3.0),
                floor,
                half,
                cliffs,
            },
            links: (!free).then(|| [(); 2].map(|()| link(rng))),
            memory: rng.log_between(3e8, 1e11).round(),
            binding: 1 << rng.0.u32(27..32),
        }
    }

    fn software(rng: &mut Random, cpu: &Speed, slower: f64) -> Self {
        Self {
            kind: "software",
            launch: rng.log_between(2e-5, 2e-4),
            speed: Speed {
                flops: cpu.flops * slower,
                bytes: cpu.bytes * slower,
                floor: rng.log_between(4e-6, 2e-5),
                half: cpu.half,
                cliffs: cpu.cliffs.clone(),
            },
            links: Some([(); 2].map(|()| link(rng))),
            memory: 1e10,
            binding: 1 << 27,
        }
    }

    fn device(&self, index: usize) -> Value {
        let mut device = json!({
            "id": format!("gpu{index}"), "kind": self.kind, "launch_s": self.launch, "memory_bytes": self.memory,
            "max_binding_bytes": self.binding,
        });
        if let Some([up, down]) = &self.links {
            device["upload"] = up.clone();
            device["download"] = down.clone();
        }
        device
    }
}

/// A latency, a rate, and perhaps another rate for small transfers.
fn link(rng: &mut Random) -> Value {
    let (latency, rate) = (rng.log_between(5e-7, 5e-5), rng.log_between(5e8, 5e10));
    let small = rng.log_between(0.4, 1.0) * rate;
    let points = (4..=15).map(|power| {
        let bytes = 4f64.powi(power);
        let rate = if bytes < 3e5 { small } else { rate };
        json!([bytes, latency + bytes / rate])
    });
    Value::Array(points.collect())
}

fn sizes(size: Size, rng: &mut Random) -> Vec<usize> {
    let (first, factor, count) = match size {
        Size::Items => (256 << rng.0.u32(..4), 4, 8),
        Size::Side => (32, 2, 7),
        Size::Bodies => (64, 2, 8),
    };
    (0..count).map(|i| first * usize::pow(factor, i)).collect()
}

/// The abstract cost of a kernel, and the bytes it touches.
fn demand(kernel: &str, n: usize) -> (Work, f64) {
    let spec = catalog::spec(kernel, n)
        .expect("of the catalog")
        .expect("small enough");
    let bytes = spec
        .bindings
        .iter()
        .map(|binding| binding.array.len() as f64 * binding.array.element_type().size() as f64);
    (spec.work(), bytes.sum())
}
