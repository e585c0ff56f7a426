//! Faults: a GPU that is lost, full or refuses a submission or a mapping costs time, and never an element.
//!
//! Devices are really destroyed, through wgpu, at operations that the tests choose.

mod support;

use divvy::device::FaultPoint;
use divvy::kernels::Binary;
use divvy::prelude::*;
use divvy::{Durability, Error, Runtime, RuntimeBuilder};
use proptest::prelude::*;
use std::time::{Duration, Instant};
use support::programs::{run, step};

const POINTS: [FaultPoint; 4] = [
    FaultPoint::Device,
    FaultPoint::Allocation,
    FaultPoint::Submission,
    FaultPoint::Mapping,
];

/// A runtime whose calls go to the first GPU unless they say otherwise; none if there is no GPU.
fn on_gpu() -> Option<Runtime> {
    on_gpu_with(Runtime::builder())
}

/// The same with further choices.
fn on_gpu_with(builder: RuntimeBuilder) -> Option<Runtime> {
    let rt = support::build(builder.placement(Placement::Gpu(0)));
    support::has_gpu(&rt).then_some(rt)
}

/// Has a fault happen on the first GPU.
fn fail(rt: &Runtime, point: FaultPoint, in_operations: u64) {
    rt.faults(0, |faults| faults.fail(point, in_operations))
        .expect("a GPU");
}

/// How many operations of a sort there have been on the first GPU.
fn count(rt: &Runtime, point: FaultPoint) -> u64 {
    rt.faults(0, |faults| faults.count(point)).expect("a GPU")
}

/// No more faults, and the GPU is there.
fn repair(rt: &Runtime) {
    rt.faults(0, |faults| faults.clear()).expect("a GPU");
    rt.reopen_gpus();
    assert_eq!(rt.lost_gpus(), []);
}

const STEPS: usize = 200;
const N: usize = 5000;

/// The arrays of a program of mixed kernels, all of which compute the same bits everywhere.
struct Program {
    x: Array<u32>,
    y: Array<u32>,
    z: Array<u32>,
    addend: Array<f32>,
    floats: Array<f32>,
    sums: Array<f32>,
    least: Array<f32>,
    values: Vec<u32>,
}

impl Program {
    fn new(rt: &Runtime) -> divvy::Result<Self> {
        let words = |seed: u32| {
            let word = |i: u32| (i ^ seed).wrapping_mul(2_654_435_761);
            rt.array_from(&(0..N as u32).map(word).collect::<Vec<_>>())
        };
        let floats: Vec<f32> = (0..N).map(|i| (i % 173) as f32 - 86.0).collect();
        Ok(Self {
            x: words(1)?,
            y: words(2)?,
            z: words(3)?,
            addend: rt.array_from(&floats)?,
            floats: rt.uninit(N)?,
            sums: rt.uninit(N)?,
            least: rt.uninit(N)?,
            values: Vec::new(),
        })
    }

    fn step(&mut self, rt: &Runtime, number: usize) -> divvy::Result<()> {
        let Self { x, y, z, .. } = self;
        match number % 10 {
            0 => drop(rt.run(zip(Binary::Add, x, y, z))?),
            1 => drop(rt.run(inclusive_scan(z, x))?),
            2 => drop(rt.run(axpy(1.0, &self.addend, &mut self.floats))?),
            3 => drop(rt.run(zip(Binary::Mul, x, z, y))?),
            4 => drop(rt.run(exclusive_scan(&self.floats, &mut self.sums))?),
            5 => self.values.push(rt.run(sum(y))?.value),
            6 => drop(rt.run(zip(Binary::Sub, y, x, z))?),
            7 => drop(rt.run(zip(Binary::Min, &self.floats, &self.sums, &mut self.least))?),
            8 => self.values.push(rt.run(sum(&self.least))?.value.to_bits()),
            _ => drop(rt.run(fill(number as u32, x))?),
        }
        Ok(())
    }

    /// All that it computed, as bits.
    fn results(&self) -> divvy::Result<Vec<Vec<u32>>> {
        let mut results = vec![self.values.clone()];
        for array in [&self.x, &self.y, &self.z] {
            results.push(array.to_vec()?);
        }
        for array in [&self.floats, &self.sums, &self.least] {
            results.push(array.to_vec()?.iter().map(|x| x.to_bits()).collect());
        }
        Ok(results)
    }
}

/// Runs the program; before each step, `before` is called with its number.
fn program(rt: &Runtime, mut before: impl FnMut(usize)) -> divvy::Result<Vec<Vec<u32>>> {
    let mut program = Program::new(rt)?;
    for number in 0..STEPS {
        before(number);
        program.step(rt, number)?;
    }
    before(STEPS);
    program.results()
}

#[test]
fn a_device_destroyed_at_any_step_changes_no_bit_of_a_program() {
    let Some(rt) = on_gpu() else { return };
    let mut operations = Vec::new();
    let undisturbed =
        program(&rt, |_| operations.push(count(&rt, FaultPoint::Device))).expect("it runs");
    for step in 0..=STEPS {
        // Somewhere within the step: the first operation, the last, or one between.
        let within = operations
            .get(step + 1)
            .map_or(2, |next| next - operations[step]);
        let at = [0, within / 2, within.saturating_sub(1)][step % 3];
        let arm_fault = |number| {
            if number == step {
                fail(&rt, FaultPoint::Device, at);
            }
        };
        let disturbed = program(&rt, arm_fault);
        let disturbed = disturbed.unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert!(
            disturbed == undisturbed,
            "destroyed at operation {at} of step {step}"
        );
        assert_eq!(
            rt.lost_gpus().len(),
            1,
            "destroyed at operation {at} of step {step}"
        );
        repair(&rt);
    }
}

#[test]
fn whatever_fails_at_any_step_changes_no_bit_of_a_program() {
    let Some(rt) = on_gpu() else { return };
    let undisturbed = program(&rt, |_| ()).expect("it runs");
    for step in 0..=STEPS {
        let point = POINTS[1 + step % 3];
        let arm_fault = |number| {
            if number == step {
                fail(&rt, point, 0);
            }
        };
        let disturbed = program(&rt, arm_fault);
        let disturbed = disturbed.unwrap_or_else(|error| panic!("{point:?}, step {step}: {error}"));
        assert!(disturbed == undisturbed, "{point:?} at step {step}");
        repair(&rt);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn random_programs_with_random_faults_lose_nothing(
        n in prop::sample::select(vec![1usize, 65, 300, 5000, 70_001]),
        steps in prop::collection::vec((step(), any::<u8>(), 0.0..=1.0f64), 1..40),
        faults in prop::collection::vec((0usize..40, 0..POINTS.len(), 0u64..12), 0..4),
    ) {
        let Some(rt) = shared() else { return Ok(()) };
        let outcome = run(rt, n, &steps, |number| {
            for (at, point, in_operations) in &faults {
                if *at == number {
                    fail(rt, POINTS[*point], *in_operations);
                }
            }
        });
        repair(rt);
        outcome?;
    }
}

/// How many random programs are run: `DIVVY_FAULT_CASES`, or a number that takes seconds.
fn cases() -> u32 {
    let wanted = std::env::var("DIVVY_FAULT_CASES").ok();
    wanted.map_or(200, |cases| cases.parse().expect("a number of cases"))
}

fn shared() -> Option<&'static Runtime> {
    let rt = support::runtime();
    support::has_gpu(rt).then_some(rt)
}

/// Loses the first GPU by what comes next.
fn lose(rt: &Runtime) {
    fail(rt, FaultPoint::Device, 0);
}

/// y = x + y on the first GPU, so that only that has y.
fn only_on_gpu(rt: &Runtime, n: usize) -> Array<f32> {
    let x = rt.filled(n, 2.0f32).expect("memory");
    let mut y = rt.filled(n, 1.0f32).expect("memory").named("y");
    rt.run(axpy(1.0, &x, &mut y)).expect("axpy");
    rt.synchronize().expect("done");
    y
}

#[test]
fn volatile_results_are_lost_by_name_and_range_until_they_are_written() {
    let Some(rt) = on_gpu_with(Runtime::builder().durability(Durability::Volatile)) else {
        return;
    };
    assert_eq!(rt.durability(), Durability::Volatile);
    let mut y = only_on_gpu(&rt, 1000);
    assert_eq!(rt.journal_len(), 0, "no calls are kept");
    assert_eq!(rt.journal_bytes(), 0, "nothing is kept");
    y.write_range(100..300).expect("y is there").fill(7.0);
    lose(&rt);
    for _ in 0..2 {
        let error = y.read().expect_err("what the GPU had is lost");
        let Error::DataLost { array, ranges, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (array.as_str(), ranges.as_slice()),
            ("`y` [f32; 1000]", &[0..100, 300..1000][..])
        );
        assert!(error.to_string().contains("0..100, 300..1000"), "{error}");
    }
    assert_eq!(
        *y.read_range(100..300).expect("never on the GPU alone"),
        [7.0; 200]
    );
    let error = rt.run(sum(&y)).expect_err("it reads what is lost");
    assert!(matches!(&error, Error::DataLost { .. }), "{error}");
    y.write_all(&[3.0; 1000]).expect("whatever it was");
    assert_eq!(rt.run(sum(&y)).expect("it is defined again").value, 3000.0);
}

#[test]
fn a_lost_gpu_is_told_ruled_out_and_opened_again_after_a_while() {
    let Some(rt) = on_gpu() else { return };
    let mut y = only_on_gpu(&rt, 1000);
    lose(&rt);
    assert_eq!(*y.read().expect("computed again"), [3.0; 1000]);
    let lost = rt.lost_gpus();
    assert_eq!((lost.len(), lost[0].index), (1, 0));
    assert!(lost[0].reason.contains("Destroyed"), "{lost:?}");
    let explanation = rt.explain(&sum(&y)).expect("the CPU is left");
    let excluded = &explanation.ruled_out[0];
    assert!(
        excluded.reason.contains("lost") && excluded.reason.contains("Destroyed"),
        "{excluded:?}"
    );
    let x = rt.filled(1000, 1.0f32).expect("memory");
    let since = Instant::now();
    let mut calls = 0.0;
    // It was asked for, and is used again once it is there.
    loop {
        calls += 1.0;
        let report = rt
            .run(axpy(1.0, &x, &mut y))
            .expect("elsewhere, or there")
            .report;
        if report.parts[0].device == divvy::DeviceId::Gpu(0) {
            break;
        }
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "it never came back"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(calls > 1.0, "it is left alone for a while");
    assert_eq!(rt.lost_gpus(), []);
    assert_eq!(*y.read().expect("y"), [3.0 + calls; 1000]);
}

#[test]
fn what_only_gpus_can_run_opens_a_lost_one_again_at_once() {
    let Some(rt) = on_gpu() else { return };
    let triple = WgslKernel::builder(
        "triple",
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = 3.0 * y[id.x]; }
         }",
    );
    let triple = triple.update("y").build().expect("valid");
    let mut y = only_on_gpu(&rt, 1000);
    rt.run(triple.bind_mut("y", &mut y)).expect("on the GPU");
    lose(&rt);
    assert_eq!(*y.read().expect("run again on the GPU"), [9.0; 1000]);
    lose(&rt);
    rt.run(triple.bind_mut("y", &mut y))
        .expect("on the GPU that is opened again");
    assert_eq!(*y.read().expect("y"), [27.0; 1000]);
}

#[test]
fn a_split_program_of_several_passes_is_run_again_from_the_state_before_it() {
    let Some(rt) = on_gpu() else { return };
    let n = 512;
    let mut rng = fastrand::Rng::with_seed(7);
    let start: Vec<f32> = (0..4 * n).map(|_| rng.f32()).collect();
    let simulate = |fault: Option<u64>| {
        let mut bodies = rt.array_from(&start).expect("memory");
        let mut velocities = rt.filled(4 * n, 0.0f32).expect("memory");
        let mut accelerations = rt.filled(4 * n, 0.0f32).expect("memory");
        if let Some(at) = fault {
            fail(&rt, FaultPoint::Device, at);
        }
        for _ in 0..4 {
            let step = leapfrog_step(1e-4, 0.1, &mut bodies, &mut velocities, &mut accelerations);
            rt.run(step.on(Placement::split(0.5))).expect("it is run");
        }
        (
            bodies.to_vec().expect("bodies"),
            velocities.to_vec().expect("velocities"),
        )
    };
    let before = count(&rt, FaultPoint::Device);
    let (bodies, velocities) = simulate(None);
    let operations = count(&rt, FaultPoint::Device) - before;
    assert!(operations > 20, "{operations}");
    for at in 0..operations {
        let (disturbed, disturbed_velocities) = simulate(Some(at));
        // n-body is the same within 1e-5, not bitwise; a step that ran twice or not at all shows in the velocities.
        for (a, b) in bodies.iter().zip(&disturbed) {
            assert!(
                (a - b).abs() <= 1e-6 * a.abs().max(1.0),
                "operation {at}: {a} {b}"
            );
        }
        let speed = velocities.iter().fold(0.0f32, |most, v| most.max(v.abs()));
        for (a, b) in velocities.iter().zip(&disturbed_velocities) {
            assert!(
                (a - b).abs() <= 1e-4 * speed,
                "operation {at}: {a} {b} of {speed}"
            );
        }
        repair(&rt);
    }
}

#[test]
fn faults_under_many_threads_lose_nothing() {
    let Some(rt) = on_gpu() else { return };
    let undisturbed = program(&rt, |_| ()).expect("it runs");
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..4)
            .map(|thread| {
                let (rt, undisturbed) = (&rt, &undisturbed);
                scope.spawn(move || {
                    for round in 0..3 {
                        let disturb = |number| {
                            if (number + 37 * round) % 61 == 15 * thread {
                                let point = POINTS[(number + thread) % POINTS.len()];
                                fail(rt, point, 3);
                            }
                            if number % 50 == 10 {
                                rt.reopen_gpus();
                            }
                        };
                        let results = program(rt, disturb).expect("it runs");
                        assert!(results == *undisturbed, "thread {thread}, round {round}");
                    }
                })
            })
            .collect();
        for thread in running {
            thread.join().expect("no thread fails");
        }
    });
}

#[test]
fn a_long_program_keeps_a_bounded_record() {
    let Some(rt) = on_gpu() else { return };
    let x = rt.filled(1000, 1.0f32).expect("memory");
    let mut y = rt.filled(1000, 0.0f32).expect("memory");
    let calls = 20_000;
    let mut most = 0;
    for call in 0..calls {
        // An array that is dropped while what depends on it is needed.
        let mut next = rt.uninit(1000).expect("memory");
        rt.run(zip(Binary::Max, &x, &y, &mut next)).expect("zip");
        rt.run(axpy(1.0, &next, &mut y)).expect("axpy");
        if call % 4096 == 4095 {
            rt.run(fill(1.0, &mut y)).expect("fill");
        }
        most = most.max(rt.journal_len());
    }
    assert!(most <= 2 * 4096 + 2, "{most}");
    lose(&rt);
    // From the last fill on, y doubles; before it is large all are exact.
    let (mut want, mut since) = (0.0f32, 0);
    for call in 0..calls {
        want += want.max(1.0);
        since += 1;
        if call % 4096 == 4095 {
            (want, since) = (1.0, 0);
        }
    }
    assert!(since > 100, "infinite, by then");
    assert_eq!(*y.read().expect("computed again"), [want; 1000]);
}

#[test]
fn results_that_are_read_or_overwritten_are_forgotten() {
    let Some(rt) = on_gpu() else { return };
    let x = rt.filled(1000, 1.0f32).expect("memory");
    let mut y = rt.filled(1000, 0.0f32).expect("memory");
    for call in 1..=500 {
        rt.run(axpy(1.0, &x, &mut y)).expect("axpy");
        assert_eq!(y.read().expect("y")[0], call as f32);
        assert!(rt.journal_len() <= 64);
    }
    for value in 0..500 {
        rt.run(fill(value as f32, &mut y)).expect("fill");
        assert!(rt.journal_len() <= 64);
    }
}

#[test]
fn what_would_take_too_long_to_run_again_is_saved_in_the_background() {
    let Some(rt) = on_gpu_with(Runtime::builder().recovery_limit(Duration::from_millis(1))) else {
        return;
    };
    rt.measured_machine().expect("it can be measured");
    let n = 50_000;
    let x = rt.filled(n, 1.0f32).expect("memory");
    let mut y = rt.filled(n, 0.0f32).expect("memory");
    let since = Instant::now();
    let mut calls = 0;
    // Each call is predicted to take some time, so that soon there are more than may be run again; then fewer are left
    // than there were calls since y was last on the host, which is never.
    while calls < 200 || rt.journal_len() as u32 >= calls / 2 {
        rt.run(axpy(1.0, &x, &mut y)).expect("axpy");
        calls += 1;
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "{} calls are kept",
            rt.journal_len()
        );
    }
    lose(&rt);
    assert_eq!(*y.read().expect("computed again"), vec![calls as f32; n]);
}

#[test]
fn work_that_hangs_counts_as_a_lost_gpu() {
    let builder = Runtime::builder().hang_limit(Duration::from_millis(300));
    let Some(rt) = on_gpu_with(builder) else {
        return;
    };
    // What is predicted of a device that is not measured is far too long.
    rt.measured_machine().expect("it can be measured");
    let slow = WgslKernel::builder(
        "slow",
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x >= arrayLength(&y) { return; }
             var word = y[id.x];
             for (var i = 0u; i < 60000u; i++) { word = word * 1664525u + (i ^ 1013904223u); }
             y[id.x] = word;
         }",
    );
    let slow = slow
        .update("y")
        .cpu(|_, args| {
            args.output::<u32>("y")?.fill(5);
            Ok(())
        })
        .build()
        .expect("valid");
    // Lavapipe ends loops early, so that it takes many items to keep it busy for seconds.
    let n = 1 << 18;
    let mut y = rt.filled(n, 1u32).expect("memory");
    rt.run(slow.bind_mut("y", &mut y)).expect("queued");
    assert_eq!(*y.read().expect("the CPU's"), vec![5; n]);
    let lost = rt.lost_gpus();
    assert!(
        lost.iter().any(|gpu| gpu.reason.contains("hangs")),
        "{lost:?}"
    );
}
