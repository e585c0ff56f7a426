//! How long parts take, and compiling without running, on real devices.

use super::{Executor, PartTiming, warm_up};
use crate::array::Array;
use crate::cost::Prediction;
use crate::cost::learned::Variant;
use crate::device::DeviceSet;
use crate::device::cpu::Cpu;
use crate::device::gpu::{Discovery, Gpu, GpuOptions, Readiness, Reading, discover};
use crate::device::{DeviceId, Devices};
use crate::error::Result;
use crate::kernel::{Execution, Kernel, LaunchSpec, Pass, identity};
use crate::kernels::{axpy, inclusive_scan, sum};
use crate::plan::{Evidence, Plan, PlannedPart};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The CPU with two threads and the first GPU; `None`, with a message, if there is no GPU.
fn devices() -> Option<Devices> {
    let Discovery { gpus, problems } = discover(&GpuOptions::default(), |_| true);
    let required = std::env::var_os("DIVVY_REQUIRE_GPU").is_some_and(|value| value == "1");
    assert!(
        !(gpus.is_empty() && required),
        "DIVVY_REQUIRE_GPU=1, but {problems:?}"
    );
    if gpus.is_empty() {
        eprintln!("SKIPPED: no GPU: {problems:?}");
        return None;
    }
    Some(Devices::new(
        Cpu::new(2, crate::simd::Simd::best()).expect("a pool"),
        true,
        gpus,
    ))
}

const GPU: DeviceId = DeviceId::Gpu(0);

/// A plan of these parts, each predicted to take a millisecond.
fn planned(parts: &[(DeviceId, Range<usize>)]) -> Plan {
    let part = |(device, range): &(DeviceId, Range<usize>)| {
        let threads = if *device == DeviceId::Cpu { 2 } else { 1 };
        PlannedPart {
            device: *device,
            range: range.clone(),
            threads,
            predicted: Prediction {
                compute: 1e-3,
                ..Prediction::default()
            },
            evidence: Evidence {
                variant: Variant {
                    device: *device,
                    threads,
                    beside: DeviceSet::EMPTY,
                    moved: false,
                },
                size: 0.0,
                prior_seconds: 1e-3,
                samples: 0,
                uncertainty: 1.0,
                extrapolated: false,
            },
        }
    };
    Plan {
        parts: parts.iter().map(part).collect(),
        ..Plan::default()
    }
}

fn run<K: Kernel>(devices: &Devices, plan: &Plan, kernel: &K) -> SmallVec<[PartTiming; 2]> {
    let mut executor = Executor::new(devices, plan);
    let outcome = kernel.execute(&mut Execution::through(&mut executor));
    outcome.map(drop).expect("it runs");
    executor.finish(identity(kernel))
}

/// Waits until a background thread has compiled a kernel for the GPU.
fn wait_until_ready(gpu: &Gpu, identity: u64) {
    while gpu.readiness(identity) != Readiness::Ready {
        std::thread::sleep(Duration::from_millis(1));
    }
}

const N: usize = 1 << 16;

#[test]
fn the_time_of_the_cpu_excludes_its_wait_for_data() {
    let Some(devices) = devices() else { return };
    let x = Array::filled(N, 1.0f32).expect("memory");
    let mut y = Array::filled(N, 1.0f32).expect("memory");
    let kernel = axpy(1.0, &x, &mut y).kernel;
    let on_cpu = planned(&[(DeviceId::Cpu, 0..N)]);
    let timings = run(&devices, &on_cpu, &kernel);
    assert!(timings[0].timing.seconds().expect("known at once") > 0.0);
    assert_eq!(timings[0].waited_seconds, 0.0);
    run(&devices, &planned(&[(GPU, 0..N)]), &kernel);
    let timings = run(&devices, &on_cpu, &kernel);
    assert!(timings[0].waited_seconds > 0.0, "y was on the GPU");
}

#[test]
fn both_parts_of_a_split_are_timed_without_waiting() {
    let Some(devices) = devices() else { return };
    let gpu = &devices.gpu(0).expect("it works");
    let x = Array::filled(N, 1.0f32).expect("memory");
    let mut y = Array::filled(N, 1.0f32).expect("memory");
    let kernel = axpy(1.0, &x, &mut y).kernel;
    let split = planned(&[(GPU, 0..N / 2), (DeviceId::Cpu, N / 2..N)]);
    run(&devices, &split, &kernel);
    for _ in 0..20 {
        let timings = run(&devices, &split, &kernel);
        std::thread::sleep(Duration::from_millis(20));
        gpu.look();
        assert_ne!(timings[0].timing.reading(), Reading::Pending);
        assert!(timings[1].timing.seconds().expect("the CPU's") > 0.0);
        if let Some(seconds) = timings[0].timing.seconds() {
            assert!(seconds > 0.0 && seconds < 20e-3, "{seconds}");
            return;
        }
    }
    panic!("the GPU's part was never timed");
}

#[test]
fn all_launches_of_a_kernel_are_one_part() {
    let Some(devices) = devices() else { return };
    let gpu = &devices.gpu(0).expect("it works");
    let x = Array::filled(N, 1u32).expect("memory");
    let mut out = Array::uninit(N).expect("memory");
    let kernel = inclusive_scan(&x, &mut out).kernel;
    let on_gpu = planned(&[(GPU, 0..N)]);
    let first = run(&devices, &on_gpu, &kernel);
    assert_eq!(gpu.readiness(identity(&kernel)), Readiness::Ready);
    gpu.wait_for_all().expect("done");
    assert_eq!(first[0].timing.reading(), Reading::Unknown, "it compiled");
    for _ in 0..20 {
        let timings = run(&devices, &on_gpu, &kernel);
        assert_eq!(timings.len(), 1);
        gpu.wait_for_all().expect("done");
        if let Reading::Took { seconds, calls, .. } = timings[0].timing.reading() {
            assert!(seconds > 0.0);
            assert_eq!(calls, 1, "three launches are one call");
            return;
        }
    }
    panic!("the kernel was never timed");
}

#[test]
fn a_kernel_is_compiled_without_touching_its_arrays_and_then_runs_without_compiling() {
    let Some(devices) = devices() else { return };
    let gpu = &devices.gpu(0).expect("it works");
    let x = Array::filled(N, 1u32).expect("memory");
    let mut out = Array::filled(N, 7u32).expect("memory");
    let kernel = Arc::new(inclusive_scan(&x, &mut out).kernel);
    let on_gpu = planned(&[(GPU, 0..N)]);
    let places = || format!("{:?} {:?}", x.handle(), out.handle());
    let before = places();
    assert_eq!(gpu.readiness(identity(&*kernel)), Readiness::Unknown);
    warm_up(Arc::clone(&kernel), 0..N, gpu);
    assert_ne!(gpu.readiness(identity(&*kernel)), Readiness::Unknown);
    wait_until_ready(gpu, identity(&*kernel));
    let compiled = gpu.compiled();
    assert!(
        compiled >= 3,
        "{compiled}: tile_totals, scan_tile, scan_tiles"
    );
    assert_eq!(places(), before);
    assert_eq!(gpu.backlog_seconds(), 0.0);
    assert!(out.read().expect("out").iter().all(|value| *value == 7));
    // A kernel that is ready is not compiled again.
    warm_up(Arc::clone(&kernel), 0..N, gpu);
    run(&devices, &on_gpu, &*kernel);
    assert_eq!(out.read().expect("out")[N - 1], N as u32);
    assert_eq!(gpu.compiled(), compiled);
}

#[test]
fn a_kernel_that_returns_a_value_is_compiled_ahead_too() {
    let Some(devices) = devices() else { return };
    let gpu = &devices.gpu(0).expect("it works");
    let x = Array::filled(N, 1u32).expect("memory");
    let kernel = Arc::new(sum(&x).kernel);
    warm_up(Arc::clone(&kernel), 0..N, gpu);
    wait_until_ready(gpu, identity(&*kernel));
    let compiled = gpu.compiled();
    run(&devices, &planned(&[(GPU, 0..N)]), &*kernel);
    assert_eq!(gpu.compiled(), compiled);
}

/// A kernel that misuses its array as a user's might.
struct Odd {
    name: &'static str,
    array: crate::array::Handle,
    what: fn(&Self, &mut Execution<'_>) -> Result<()>,
}

impl Kernel for Odd {
    type Output = ();

    fn name(&self) -> &str {
        self.name
    }

    fn spec(&self) -> Result<LaunchSpec> {
        Pass::spec(&self.pass())
    }

    fn execute(&self, cx: &mut Execution<'_>) -> Result<()> {
        (self.what)(self, cx)
    }
}

impl Odd {
    fn pass(&self) -> impl Pass + use<> {
        let mut array = Array::<f32>::uninit(self.array.len()).expect("memory");
        crate::kernels::fill(1.0, &mut array).kernel
    }
}

#[test]
fn kernels_that_cannot_be_compiled_ahead_change_nothing() {
    let Some(devices) = devices() else { return };
    let gpu = &devices.gpu(0).expect("it works");
    let mut array = Array::filled(N, 1.0f32).expect("memory");
    type Body = fn(&Odd, &mut Execution<'_>) -> Result<()>;
    let kernels: [(_, Body); 3] = [
        ("launches for ever", |odd, cx| {
            loop {
                cx.launch(&odd.pass())?;
            }
        }),
        ("reads its array", |odd, _| {
            assert!(odd.array.fetch().is_err(), "the caller may be writing it");
            odd.array.move_to_host()
        }),
        ("panics", |_, _| panic!("a panic that a test wants")),
    ];
    for (name, what) in kernels {
        let odd = Arc::new(Odd {
            name,
            array: array.handle().clone(),
            what,
        });
        let mut guard = array.write().expect("nobody else has it");
        guard[0] = 2.0;
        warm_up(Arc::clone(&odd), 0..N, gpu);
        wait_until_ready(gpu, identity(&*odd));
        drop(guard);
    }
    assert_eq!(array.read().expect("array")[0], 2.0);
    array.handle().fetch().expect("no dry run on this thread");
}

#[test]
fn dropping_devices_ends_their_compiling_threads() {
    let Some(devices) = devices() else { return };
    let x = Array::filled(N, 1u32).expect("memory");
    let kernel = Arc::new(sum(&x).kernel);
    warm_up(
        Arc::clone(&kernel),
        0..N,
        &devices.gpu(0).expect("it works"),
    );
    drop(devices);
    assert_eq!(Arc::strong_count(&kernel), 1, "its thread has ended");
}

/// A lost device takes megabytes. It is dropped once no elements are left that only it held.
#[test]
fn arrays_drop_lost_gpus() {
    let Some(devices) = devices() else { return };
    let x = Array::filled(1000, 1.0f32).expect("memory");
    let mut y = Array::filled(1000, 1.0f32).expect("memory");
    let plan = planned(&[(GPU, 0..1000)]);
    let run = |y: &mut Array<f32>| {
        let call = axpy(1.0, &x, y);
        let mut executor = Executor::new(&devices, &plan);
        call.kernel()
            .execute(&mut Execution::through(&mut executor))?;
        y.handle().fetch()
    };
    run(&mut y).expect("it works");
    let first = Arc::downgrade(&devices.gpu(0).expect("it works"));
    let gpu = devices.managed_gpu(0).expect("there is one");
    gpu.with_faults(|faults| faults.fail(crate::device::FaultPoint::Device, 0));
    run(&mut y).expect_err("it is destroyed");
    y.write_all(&[1.0; 1000])
        .expect("no lost elements are needed");
    devices.open_now(0).expect("it can be opened again");
    assert!(first.upgrade().is_some(), "x was read there");
    run(&mut y).expect("it works again");
    assert!(
        first.upgrade().is_none(),
        "what both arrays held is also on the host"
    );
}
