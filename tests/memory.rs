//! GPUs with less memory than the arrays need: results are right, nothing is lost, no more memory is taken than may be,
//! and no more is moved than must be.

#[path = "support/memory.rs"]
mod scarce;
mod support;

use divvy::prelude::*;
use divvy::{DeviceId, Error, Runtime};
use scarce::watched;

const GPU: Placement = Placement::Gpu(0);

/// A runtime whose GPU has so much memory; `None`, said aloud, if there is no GPU.
fn with_budget(bytes: u64) -> Option<Runtime> {
    let rt = support::build(Runtime::builder().gpu_memory_budget(bytes));
    support::has_gpu(&rt).then_some(rt)
}

/// Small whole numbers, of which sums and products are exact.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i % 61) as f32 - 30.0).collect()
}

fn check_budget(rt: &Runtime) {
    let memory = rt.gpu_memory().next().expect("a GPU");
    let budget = memory.budget_bytes.expect("it was given");
    assert!(memory.peak_bytes <= budget, "{memory:?}");
}

#[test]
fn a_pass_over_more_than_fits_moves_every_byte_once_each_way() {
    let Some(rt) = with_budget(1 << 20) else {
        return;
    };
    // Before the first call measures the machine, and so takes memory.
    rt.measured_machine().expect("it can be measured");
    let (n, bytes) = (1 << 20, 4 << 20);
    let x = rt.array_from(&numbers(n)).expect("x");
    let mut y = rt.array_from(&numbers(n)).expect("y");
    let moved = rt
        .run(axpy(2.0, &x, &mut y).on(GPU))
        .expect("axpy")
        .report
        .moved;
    assert_eq!(moved.to_device, 2 * bytes);
    assert!(
        moved.to_host > bytes / 2 && moved.to_host < bytes,
        "{moved:?}"
    );
    let want: Vec<f32> = numbers(n).iter().map(|x| 3.0 * x).collect();
    assert_eq!(y.to_vec().expect("y"), want);
    // What nobody changes need not come back.
    let moved = rt.run(sum(&x).on(GPU)).expect("sum").report.moved;
    assert!(
        moved.to_device <= bytes && moved.to_host < 1 << 16,
        "{moved:?}"
    );
    check_budget(&rt);
}

#[test]
fn what_was_not_used_for_longest_gives_way_and_is_not_lost() {
    let Some(rt) = with_budget(1 << 20) else {
        return;
    };
    rt.measured_machine().expect("it can be measured");
    // Three have room, four have not.
    let n = 40_000;
    let mut arrays: Vec<_> = (0..4)
        .map(|_| rt.filled(n, 0.0f32).expect("memory"))
        .collect();
    for (value, array) in (1u8..).zip(&mut arrays) {
        rt.run(fill(value.into(), array).on(GPU)).expect("fill");
    }
    let moved = |at: usize| {
        let run = rt.run(sum(&arrays[at]).on(GPU)).expect("sum");
        assert_eq!(run.value, (at + 1) as f32 * n as f32);
        run.report.moved.to_device
    };
    assert_eq!(moved(3), 0);
    assert_eq!(moved(2), 0);
    assert_eq!(moved(1), 0);
    assert_eq!(moved(0), 4 * n as u64, "it had to make way");
    assert_eq!(moved(3), 4 * n as u64, "it was not used for longest then");
    // What was moved there is on the host too, and makes way before what is only there.
    assert_eq!(moved(2), 0);
    assert_eq!(moved(1), 0);
    assert_eq!(moved(0), 4 * n as u64);
    check_budget(&rt);
}

#[test]
fn an_array_that_is_held_whole_makes_room_for_pieces_of_itself() {
    let Some(rt) = with_budget(1 << 20) else {
        return;
    };
    // Each has room alone.
    let n = 150_000;
    let [mut x, mut y] = [(); 2].map(|()| rt.array_from(&numbers(n)).expect("memory"));
    let mut want = numbers(n);
    for _ in 0..3 {
        rt.run(fill(1.0, &mut x).on(GPU)).expect("fill");
        rt.run(axpy(1.0, &x, &mut y).on(GPU)).expect("axpy");
        rt.run(axpy(1.0, &x, &mut y).on(Placement::split(0.5)))
            .expect("axpy");
        want.iter_mut().for_each(|y| *y += 2.0);
    }
    assert_eq!(y.to_vec().expect("y"), want);
    check_budget(&rt);
}

#[test]
fn halves_of_a_pair_that_are_read_and_written_in_turn_stay_right() {
    let Some(rt) = with_budget(512 << 10) else {
        return;
    };
    let (rows, cols) = (301, 402);
    let start = numbers(rows * cols);
    let run = |placement: &Placement| {
        let mut u = rt.array_from(&start).expect("u");
        let mut next = rt.uninit(start.len()).expect("next");
        for _ in 0..5 {
            let step = heat_step(rows, cols, 0.125, Border::Insulated, &u, &mut next);
            rt.run(step.on(placement.clone())).expect("a step");
            std::mem::swap(&mut u, &mut next);
        }
        u.to_vec().expect("u")
    };
    let (there, here) = (run(&GPU), run(&Placement::Cpu));
    let worst = there.iter().zip(&here).map(|(a, b)| (a - b).abs());
    assert!(worst.fold(0.0, f32::max) < 1e-4);
    check_budget(&rt);
}

#[test]
fn what_has_no_room_is_refused_with_the_reason_and_runs_elsewhere() {
    let Some(rt) = with_budget(1 << 20) else {
        return;
    };
    // Every part reads all bodies.
    let n = 60_000;
    let bodies = rt.filled(4 * n, 1.0f32).expect("bodies");
    let mut accelerations = rt.uninit(4 * n).expect("accelerations");
    let error = rt
        .run(nbody_accelerations(0.1, &bodies, &mut accelerations).on(GPU))
        .expect_err("960 kB do not fit");
    let text = error.to_string();
    assert!(matches!(error, Error::Infeasible { .. }), "{text}");
    assert!(
        text.contains("least piece") && text.contains("it has"),
        "{text}"
    );
    let call = nbody_accelerations(0.1, &bodies, &mut accelerations);
    let explained = rt.explain(&call).expect("the CPU can");
    assert!(
        explained
            .ruled_out
            .iter()
            .any(|out| out.device == DeviceId::Gpu(0)),
        "{explained}"
    );
    let plan = rt.plan(&call).expect("the CPU can");
    assert_eq!(plan.parts[0].device, DeviceId::Cpu);
    // Nor can it be fetched ahead; it is none the worse for that.
    let error = rt.prefetch(&bodies, DeviceId::Gpu(0)).expect_err("no room");
    assert!(matches!(error, Error::DeviceMemory { .. }), "{error}");
    assert!(bodies.read().expect("bodies").iter().all(|x| *x == 1.0));
    check_budget(&rt);
}

#[test]
fn an_explanation_says_how_arrays_go_through_too_little_memory() {
    let Some(rt) = with_budget(1 << 20) else {
        return;
    };
    let x = rt.filled(1 << 20, 1.0f32).expect("x");
    let mut y = rt.filled(1 << 20, 1.0f32).expect("y");
    let text = |n: usize| {
        let [x, mut y] = [(); 2].map(|()| rt.filled(n, 1.0f32).expect("memory"));
        let explained = rt.explain(&axpy(1.0, &x, &mut y).on(GPU));
        explained.expect("it can run").to_string()
    };
    assert!(!text(1000).contains("pieces"));
    let long = text(1 << 20);
    assert!(long.contains("pieces, and results make way"), "{long}");
    rt.run(axpy(1.0, &x, &mut y).on(GPU)).expect("it runs so");
}

#[test]
fn a_budget_that_is_too_small_is_refused() {
    let error = Runtime::builder().gpu_memory_budget(1000).build();
    let text = error.expect_err("too small").to_string();
    assert!(
        text.contains("1000 bytes") && text.contains("256 KiB"),
        "{text}"
    );
}

/// Adds to own arrays what all share, sums, writes on the host in between; returns the sums' bits.
fn program(rt: &Runtime, shared: &Array<f32>, thread: usize) -> divvy::Result<Vec<u32>> {
    let mut rng = fastrand::Rng::with_seed(thread as u64);
    let mut own: Vec<Array<f32>> = Vec::new();
    let mut sums = Vec::new();
    for call in 0..60 {
        if own.len() < 3 || rng.u8(..) < 16 {
            own.truncate(4);
            own.insert(0, rt.filled(shared.len(), call as f32)?);
        }
        let at = rng.usize(0..own.len());
        let placement = match rng.u8(0..6) {
            0 => Placement::Cpu,
            1 => Placement::split(0.5),
            _ => GPU,
        };
        match rng.u8(0..4) {
            0 => own[at].write_range(0..100)?.fill(call as f32),
            1 => drop(rt.run(axpy(1.0, shared, &mut own[at]).on(placement))?),
            2 => drop(rt.run(fill(call as f32, &mut own[at]).on(placement))?),
            _ => sums.push(rt.run(sum(&own[at]).on(placement))?.value.to_bits()),
        }
    }
    Ok(sums)
}

#[test]
fn threads_that_take_memory_from_each_other_get_what_each_would_get_alone() {
    let Some(rt) = with_budget(512 << 10) else {
        return;
    };
    watched("threads that evict from each other", move || {
        // One has room, or a few pieces.
        let shared = rt.array_from(&numbers(60_001)).expect("memory");
        let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
            let start = |thread| {
                let (rt, shared) = (&rt, &shared);
                scope.spawn(move || program(rt, shared, thread).expect("no call fails"))
            };
            let running: Vec<_> = (0..4).map(start).collect();
            let results = running.into_iter().map(|t| t.join().expect("no panic"));
            results.collect()
        });
        let plenty = support::runtime();
        for (thread, sums) in together.iter().enumerate() {
            let alone = program(plenty, &shared, thread).expect("no call fails");
            assert_eq!(*sums, alone, "thread {thread}");
        }
        // Each thread may be staging a piece beyond the share.
        let memory = rt.gpu_memory().next().expect("a GPU");
        assert!(
            memory.peak_bytes <= (512 << 10) + 4 * (64 << 10),
            "{memory:?}"
        );
    });
}

#[test]
fn more_arrays_than_the_adapter_binds_run_on_the_cpu() {
    let rt = support::build(Runtime::builder().max_arrays(2));
    if !support::has_gpu(&rt) {
        return;
    }
    let [a, b] = [(); 2].map(|()| rt.array_from(&numbers(1000)).expect("memory"));
    let mut c = rt.uninit(1000).expect("memory");
    let error = rt.run(zip(Binary::Add, &a, &b, &mut c).on(GPU));
    let text = error.expect_err("it binds three").to_string();
    assert!(
        text.contains("3 arrays") && text.contains("at most 2"),
        "{text}"
    );
    rt.run(zip(Binary::Add, &a, &b, &mut c))
        .expect("on the CPU");
    let two: Vec<f32> = numbers(1000).iter().map(|x| 2.0 * x).collect();
    assert_eq!(c.to_vec().expect("c"), two);
    // A pass that its kernel's launch spec does not show is refused before the driver sees it.
    let error = rt.run(dot(&a, &b).on(GPU)).expect_err("two and the sums");
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    let total = rt.run(sum(&a).on(GPU)).expect("two").value;
    assert_eq!(total, numbers(1000).iter().sum::<f32>());
}

#[test]
fn a_uniform_that_is_too_large_runs_on_the_cpu() {
    const SOURCE: &str = "
        struct Table { rows: array<vec4<f32>, 5000> }
        @group(0) @binding(0) var<uniform> table: Table;
        @group(0) @binding(1) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            if id.x < arrayLength(&y) { y[id.x] = table.rows[id.x % 5000u].x; }
        }";
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return;
    }
    let kernel = WgslKernel::builder("table", SOURCE)
        .output("y")
        .cpu(|_, args| {
            args.output::<f32>("y")?.fill(1.0);
            Ok(())
        })
        .build()
        .expect("valid");
    let table = vec![[1.0f32; 4]; 5000];
    let table: &[[f32; 4]; 5000] = table.as_slice().try_into().expect("as many");
    let mut y = rt.uninit::<f32>(1000).expect("memory");
    let mut run = |placement| {
        let call = kernel.bind_mut("y", &mut y).uniform(table);
        rt.run(call.on(placement))
    };
    let text = run(GPU).expect_err("80 kB").to_string();
    assert!(text.contains("uniform of 80000 bytes"), "{text}");
    run(Placement::Auto).expect("on the CPU");
    assert_eq!(y.to_vec().expect("y"), [1.0; 1000]);
}
