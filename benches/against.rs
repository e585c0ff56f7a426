//! Divvy against the same work written directly: the bare loop, the library called directly, raw wgpu.
//!
//! `cargo bench --bench against [-- NAME...]`. A and B run in turn within one process and the medians are compared, so
//! that a machine whose speed drifts treats both alike. Each line is `divvy / direct`: 1.00 means no overhead.
//! The processor's name stands above them: figures of two processors cannot be compared.
//!
//! `DIVVY_BENCH_STEPS=200` has the leapfrog of 16,384 bodies take so many steps on a software adapter too.

mod support;

use divvy::device::DeviceKind;
use divvy::kernel::Call;
use divvy::prelude::*;
use divvy::simd::InstructionSet;
use divvy::{Durability, RuntimeBuilder};
use support::raw_wgpu::{Array as RawArray, RawGpu};
use support::{Pair, compare};
use support::{heat_avx2, nbody_avx512};

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let rt = Runtime::builder().no_profile().build().expect("a runtime");
    rt.measured_machine().expect("calibration");
    println!("{}, {}", rt.cpu_name(), rt.instruction_set());
    println!(
        "{:<38}{:>12}{:>12}{:>8}   quartiles",
        "", "divvy", "direct", "ratio"
    );
    for (name, pair) in PAIRS {
        if wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str())) {
            match pair(&rt) {
                Some(pair) => compare(name, pair),
                None => println!("{name:<38} skipped: no GPU, or not these instructions"),
            }
        }
    }
}

type MakePair = for<'r> fn(&'r Runtime) -> Option<Pair<'r>>;

const PAIRS: &[(&str, MakePair)] = &[
    ("cpu axpy 2^10, bare loop", |rt| Some(cpu_axpy(rt, 1 << 10))),
    ("cpu axpy 2^16, bare loop", |rt| Some(cpu_axpy(rt, 1 << 16))),
    ("cpu axpy 2^20, bare loop", |rt| Some(cpu_axpy(rt, 1 << 20))),
    ("gpu axpy 2^20, raw wgpu", |rt| gpu_axpy(rt, 1 << 20, 1)),
    ("gpu 1000 x axpy 2^16, raw wgpu", |rt| {
        gpu_axpy(rt, 1 << 16, 1000)
    }),
    ("cpu gemm 256, gemm crate", |rt| Some(cpu_gemm(rt, 256))),
    ("cpu gemm 512, gemm crate", |rt| Some(cpu_gemm(rt, 512))),
    ("cpu gemm 1024, gemm crate", |rt| Some(cpu_gemm(rt, 1024))),
    ("cpu gemm 2048, gemm crate", |rt| Some(cpu_gemm(rt, 2048))),
    ("gpu gemm 512, raw wgpu", |rt| gpu_gemm(rt, 512)),
    ("cpu nbody 4096, hand AVX-512", |rt| cpu_nbody(rt, 4096)),
    ("cpu nbody 16384, hand AVX-512", |rt| cpu_nbody(rt, 16_384)),
    ("gpu nbody 4096, raw wgpu", |rt| gpu_nbody(rt, 4096)),
    ("cpu heat 128^2, 1 thread, hand, call", |_| {
        cpu_heat_calls(128, Some(1))
    }),
    ("cpu heat 1024^2, 1 thread, hand, call", |_| {
        cpu_heat_calls(1024, Some(1))
    }),
    ("cpu heat 1024^2, hand AVX2, call", |_| {
        cpu_heat_calls(1024, None)
    }),
    ("cpu heat 128^2, 1 thread, hand AVX2", |_| {
        cpu_heat(128, Some(1))
    }),
    ("cpu heat 1024^2, 1 thread, hand AVX2", |_| {
        cpu_heat(1024, Some(1))
    }),
    ("cpu heat 1024^2, hand AVX2", |_| cpu_heat(1024, None)),
    ("gpu heat 1024^2, raw wgpu", |rt| gpu_heat(rt, 1024)),
    ("gpu leapfrog 4096 x 50, volatile", |_| {
        gpu_leapfrog(4096, 50)
    }),
    ("gpu leapfrog 16384, volatile", |rt| {
        // A software adapter takes minutes for 200, so that only who asks gets them.
        let is_software = rt.gpus().next()?.kind == DeviceKind::Software;
        let few = if is_software { 10 } else { 200 };
        gpu_leapfrog(16_384, steps_asked_for().unwrap_or(few))
    }),
    ("gpu axpy 2^8, volatile", |_| gpu_small_call(1 << 8)),
];

/// How many steps of a simulation `DIVVY_BENCH_STEPS` asks for.
fn steps_asked_for() -> Option<usize> {
    let steps = std::env::var("DIVVY_BENCH_STEPS").ok()?;
    Some(steps.parse().expect("DIVVY_BENCH_STEPS is a number"))
}

/// The same calls by runtimes that could bring their results back, and that could not.
fn with_and_without_record(work: impl Fn(Runtime) -> Box<dyn FnMut()>) -> Option<Pair<'static>> {
    let [divvy, direct] = [Durability::Recoverable, Durability::Volatile].map(|durability| {
        let builder = Runtime::builder().no_profile().durability(durability);
        builder.build().expect("a runtime")
    });
    divvy.gpus().next()?;
    Some(Pair {
        divvy: work(divvy),
        direct: work(direct),
    })
}

fn gpu_leapfrog(n: usize, steps: usize) -> Option<Pair<'static>> {
    with_and_without_record(|rt| {
        let mut bodies = Array::from_slice(&bodies(n)).expect("memory");
        let [mut velocities, mut accelerations] =
            [(); 2].map(|()| Array::filled(4 * n, 0.0f32).expect("memory"));
        Box::new(move || {
            for _ in 0..steps {
                let step = leapfrog_step(
                    1e-4,
                    SOFTENING,
                    &mut bodies,
                    &mut velocities,
                    &mut accelerations,
                );
                rt.run(step.on(Placement::Gpu(0))).expect("leapfrog");
            }
            rt.synchronize().expect("done");
        })
    })
}

fn gpu_small_call(n: usize) -> Option<Pair<'static>> {
    with_and_without_record(|rt| {
        let x = Array::filled(n, 1.0f32).expect("memory");
        let mut y = Array::filled(n, 1.0f32).expect("memory");
        Box::new(move || {
            rt.run(axpy(1e-9, &x, &mut y).on(Placement::Gpu(0)))
                .expect("axpy");
        })
    })
}

fn cpu_axpy(rt: &Runtime, n: usize) -> Pair<'_> {
    let x = Array::filled(n, 1.0f32).expect("memory");
    let mut y = Array::filled(n, 1.0f32).expect("memory");
    let (bare_x, mut bare_y) = (vec![1.0f32; n], vec![1.0f32; n]);
    Pair {
        divvy: Box::new(move || {
            rt.run(axpy(1e-9, &x, &mut y)).expect("axpy");
        }),
        direct: Box::new(move || {
            let (x, y) = (
                std::hint::black_box(&bare_x),
                std::hint::black_box(&mut bare_y),
            );
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || y.iter_mut().zip(x).for_each(|(y, x)| *y += 1e-9 * *x),
            );
        }),
    }
}

fn gpu_axpy(rt: &Runtime, n: usize, chain: usize) -> Option<Pair<'_>> {
    rt.gpus().next()?;
    let x = Array::filled(n, 1.0f32).expect("memory");
    let mut y = Array::filled(n, 1.0f32).expect("memory");
    let raw = RawGpu::open();
    let axpy_pipeline = raw.pipeline(include_str!("../shaders/axpy.wgsl"));
    let (raw_x, raw_y) = (raw.array(&vec![1.0; n]), raw.array(&vec![1.0; n]));
    let params = [(n as u32).div_ceil(4), 1e-9f32.to_bits()];
    let uniform = raw.uniform(bytemuck::cast_slice(&params));
    Some(Pair {
        divvy: Box::new(move || {
            for _ in 0..chain {
                rt.run(axpy(1e-9, &x, &mut y).on(Placement::Gpu(0)))
                    .expect("axpy");
            }
            rt.synchronize().expect("done");
        }),
        direct: Box::new(move || {
            let args: [&RawArray; 2] = [&raw_x, &raw_y];
            raw.run(
                &axpy_pipeline,
                &uniform,
                &args,
                [(n as u32 / 4).div_ceil(64), 1, 1],
                chain,
            );
        }),
    })
}

/// The elements of a matrix of n x n.
fn elements(n: usize) -> Vec<f32> {
    (0..n * n).map(|i| (i % 17) as f32 - 8.0).collect()
}

fn cpu_gemm(rt: &Runtime, n: usize) -> Pair<'_> {
    let a = Array::from_slice(&elements(n)).expect("memory");
    let b = Array::from_slice(&elements(n)).expect("memory");
    let mut c = Array::filled(n * n, 0.0f32).expect("memory");
    let (bare_a, bare_b, mut bare_c) = (elements(n), elements(n), vec![0.0f32; n * n]);
    Pair {
        divvy: Box::new(move || {
            let shape = "n x n";
            let (a, b) = (
                a.as_matrix(n, n).expect(shape),
                b.as_matrix(n, n).expect(shape),
            );
            let c = c.as_matrix_mut(n, n).expect(shape);
            rt.run(gemm(1.0, a, b, 0.0, c).on(Placement::Cpu))
                .expect("gemm");
        }),
        direct: Box::new(move || {
            let (rows, threads) = (n as isize, ::gemm::Parallelism::Rayon(0));
            let (a, b, c) = (bare_a.as_ptr(), bare_b.as_ptr(), bare_c.as_mut_ptr());
            // SAFETY: three separate matrices of n x n, with rows of n elements.
            unsafe {
                ::gemm::gemm(
                    n, n, n, c, 1, rows, false, a, 1, rows, b, 1, rows, 0.0, 1.0, false, false,
                    false, threads,
                );
            }
        }),
    }
}

fn gpu_gemm(rt: &Runtime, n: usize) -> Option<Pair<'_>> {
    rt.gpus().next()?;
    let a = Array::from_slice(&elements(n)).expect("memory");
    let b = Array::from_slice(&elements(n)).expect("memory");
    let mut c = Array::filled(n * n, 0.0f32).expect("memory");
    let raw = RawGpu::open();
    // The shader as it stands: tiles of 128 x 128, nothing transposed, rows of whole vectors.
    let pipeline = raw.pipeline(include_str!("../shaders/gemm.wgsl"));
    let (raw_a, raw_b) = (raw.array(&elements(n)), raw.array(&elements(n)));
    let raw_c = raw.array(&vec![0.0; n * n]);
    let n32 = n as u32;
    let params = [
        n32,
        n32,
        n32,
        n32,
        n32,
        n32,
        0,
        0,
        0,
        1f32.to_bits(),
        0f32.to_bits(),
    ];
    let uniform = raw.uniform(bytemuck::cast_slice(&params));
    Some(Pair {
        divvy: Box::new(move || {
            let shape = "n x n";
            let (a, b) = (
                a.as_matrix(n, n).expect(shape),
                b.as_matrix(n, n).expect(shape),
            );
            let c = c.as_matrix_mut(n, n).expect(shape);
            rt.run(gemm(1.0, a, b, 0.0, c).on(Placement::Gpu(0)))
                .expect("gemm");
            rt.synchronize().expect("done");
        }),
        direct: Box::new(move || {
            let args: [&RawArray; 3] = [&raw_a, &raw_b, &raw_c];
            raw.run(
                &pipeline,
                &uniform,
                &args,
                [n32.div_ceil(128).pow(2), 1, 1],
                1,
            );
        }),
    })
}

const SOFTENING: f32 = 0.01;

/// Bodies in the unit cube, of mass 1.
fn bodies(n: usize) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut body = || [rng.f32(), rng.f32(), rng.f32(), 1.0];
    (0..n).flat_map(|_| body()).collect()
}

fn cpu_nbody(rt: &Runtime, n: usize) -> Option<Pair<'_>> {
    let rows = bodies(n);
    let columns = nbody_avx512::Bodies::new(&rows)?;
    let mut room = columns.room();
    let bodies = Array::from_slice(&rows).expect("memory");
    let mut accelerations = Array::uninit(4 * n).expect("memory");
    Some(Pair {
        divvy: Box::new(move || {
            let call = nbody_accelerations(SOFTENING, &bodies, &mut accelerations);
            rt.run(call.on(Placement::Cpu)).expect("nbody");
        }),
        direct: Box::new(move || columns.attract(SOFTENING * SOFTENING, &mut room)),
    })
}

fn gpu_nbody(rt: &Runtime, n: usize) -> Option<Pair<'_>> {
    rt.gpus().next()?;
    let rows = bodies(n);
    let bodies = Array::from_slice(&rows).expect("memory");
    let mut accelerations = Array::uninit(4 * n).expect("memory");
    let raw = RawGpu::open();
    let pipeline = raw.pipeline(include_str!("../shaders/nbody.wgsl"));
    let (raw_bodies, raw_accelerations) = (raw.array(&rows), raw.array(&rows));
    let (all, softening2) = (n as u32, (SOFTENING * SOFTENING).to_bits());
    let params = [all, 0, all, softening2, 0, all];
    let uniform = raw.uniform(bytemuck::cast_slice(&params));
    Some(Pair {
        divvy: Box::new(move || {
            let call = nbody_accelerations(SOFTENING, &bodies, &mut accelerations);
            rt.run(call.on(Placement::Gpu(0))).expect("nbody");
            rt.synchronize().expect("done");
        }),
        direct: Box::new(move || {
            let args = [&raw_bodies, &raw_accelerations];
            let groups = [(n as u32).div_ceil(512), 1, 1];
            raw.run(&pipeline, &uniform, &args, groups, 1);
        }),
    })
}

/// α·Δt/Δx² of the heat steps.
const R: f32 = 0.2;

/// A runtime that is held to AVX2, as the loop written by hand.
fn avx2_runtime(threads: Option<usize>) -> Runtime {
    let builder = Runtime::builder().cpu_only().no_profile();
    let builder = builder.simd(InstructionSet::Avx2);
    let builder = threads.into_iter().fold(builder, RuntimeBuilder::threads);
    let rt = builder.build().expect("a runtime");
    rt.measured_machine().expect("calibration");
    rt
}

/// Both loops as kernels on the same arrays: what is compared is the loops, not what a call takes besides.
fn cpu_heat_calls(side: usize, threads: Option<usize>) -> Option<Pair<'static>> {
    let grid = heat_avx2::Grid::new(side, R)?;
    let rt = avx2_runtime(threads);
    let cells: Vec<f32> = (0..side * side).map(|i| (i % 17) as f32).collect();
    let u: &'static Array<f32> = Box::leak(Box::new(Array::from_slice(&cells).expect("memory")));
    let mut next = Array::filled(side * side, 0.0f32).expect("memory");
    let by_hand = heat_avx2::HandStep {
        grid,
        u: u.handle().clone(),
        next: next.handle().clone(),
    };
    let again = rt.clone();
    Some(Pair {
        divvy: Box::new(move || {
            let call = heat_step(side, side, R, Border::Insulated, u, &mut next);
            rt.run(call).expect("heat");
        }),
        direct: Box::new(move || {
            again.run(Call::new(by_hand.clone())).expect("heat");
        }),
    })
}

/// The loop written by hand without a call around it, which takes most of a microsecond.
fn cpu_heat(side: usize, threads: Option<usize>) -> Option<Pair<'static>> {
    let grid = heat_avx2::Grid::new(side, R)?;
    let rt = avx2_runtime(threads);
    let cells: Vec<f32> = (0..side * side).map(|i| (i % 17) as f32).collect();
    let u = Array::from_slice(&cells).expect("memory");
    let mut next = Array::uninit(side * side).expect("memory");
    // In memory of the same kind, since where arrays lie makes a difference of up to a third.
    let bare_u: &'static Array<f32> =
        Box::leak(Box::new(Array::from_slice(&cells).expect("memory")));
    let bare_next = Box::leak(Box::new(
        Array::filled(side * side, 0.0f32).expect("memory"),
    ));
    let (bare_u, mut bare_next) = (
        bare_u.read().expect("memory"),
        bare_next.write().expect("memory"),
    );
    Some(Pair {
        divvy: Box::new(move || {
            let call = heat_step(side, side, R, Border::Insulated, &u, &mut next);
            rt.run(call).expect("heat");
        }),
        direct: Box::new(move || {
            let (u, next) = (
                std::hint::black_box(&*bare_u),
                std::hint::black_box(&mut *bare_next),
            );
            match threads {
                Some(1) => grid.step(u, next),
                _ => grid.par_step(u, next),
            }
        }),
    })
}

fn gpu_heat(rt: &Runtime, side: usize) -> Option<Pair<'_>> {
    rt.gpus().next()?;
    let cells = vec![1.0f32; side * side];
    let u = Array::from_slice(&cells).expect("memory");
    let mut next = Array::uninit(side * side).expect("memory");
    let raw = RawGpu::open();
    let pipeline = raw.pipeline_of(include_str!("../shaders/heat.wgsl"), "by_four");
    let (raw_u, raw_next) = (raw.array(&cells), raw.array(&cells));
    const STRIP: u32 = 4;
    let (rows, vectors) = (side as u32, side as u32 / 4);
    let params = [vectors, rows, 0, 0, 0, 0, STRIP, 0.2f32.to_bits()];
    let uniform = raw.uniform(bytemuck::cast_slice(&params));
    Some(Pair {
        divvy: Box::new(move || {
            let call = heat_step(side, side, 0.2, Border::Insulated, &u, &mut next);
            rt.run(call.on(Placement::Gpu(0))).expect("heat");
            rt.synchronize().expect("done");
        }),
        direct: Box::new(move || {
            let groups = [vectors.div_ceil(64), rows.div_ceil(STRIP), 1];
            raw.run(&pipeline, &uniform, &[&raw_u, &raw_next], groups, 1);
        }),
    })
}
