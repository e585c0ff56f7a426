//! Verification: parts computed twice agree under each kernel's tolerance, and a device that computes wrongly is found.

mod support;

use divvy::Mismatch;
use divvy::catalog::{CATALOG, Entry, Size};
use divvy::device::FaultPoint;
use divvy::kernel::{Tolerance, WgslArgs};
use divvy::prelude::*;
use divvy::{DeviceId, Error, Policy, Report, Runtime, RuntimeBuilder};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A runtime that verifies a share of all parts; none without a GPU.
fn verifying(share: f64, builder: RuntimeBuilder) -> Option<Runtime> {
    let rt = support::build(builder.policy(Policy::default().verify(share)));
    support::has_gpu(&rt).then_some(rt)
}

/// One that verifies every part, for those tests that set no GPU aside.
fn verifying_all() -> Option<&'static Runtime> {
    static RUNTIME: OnceLock<Option<Runtime>> = OnceLock::new();
    let open = || verifying(1.0, Runtime::builder());
    RUNTIME.get_or_init(open).as_ref()
}

/// A seed, as the environment says or at random.
fn seed() -> u64 {
    let given = std::env::var("DIVVY_TEST_SEED").ok();
    let given = given.and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..))
}

#[test]
fn every_kernel_agrees_with_itself_on_every_device_and_split() {
    let Some(rt) = verifying_all() else { return };
    let sizes = |entry: &Entry| match entry.size {
        Size::Items => [1, 5000, 300_001],
        Size::Bodies => [1, 100, 700],
        Size::Side => [1, 33, 250],
    };
    for entry in CATALOG {
        for (dtype, n) in entry
            .element_types()
            .flat_map(|ty| sizes(entry).map(|n| (ty, n)))
        {
            let seed = seed();
            let mut case = entry.bind(n, dtype, seed).expect("a case");
            for placement in support::placements(rt) {
                let at = format!(
                    "{} {dtype} n={n} on {placement}, DIVVY_TEST_SEED={seed}",
                    entry.name
                );
                case.reset().expect("memory");
                let report = case
                    .run(rt, placement)
                    .unwrap_or_else(|e| panic!("{at}: {e}"));
                assert!(report.verified >= report.parts.len(), "{at}: {report:?}");
                // Nobody has seen the second results.
                let check = case.check().expect("a result");
                assert!(check.ok, "{at}: {check:?}");
            }
        }
    }
}

const N: usize = 10_000;

/// `y = x + 1` for every item, in place, on the CPU; the GPU adds what `wrong` is more to item 7,777.
fn increment(wrong: f32, tolerance: Option<Tolerance>) -> WgslKernel {
    let source = format!(
        "struct Part {{ first: u32, len: u32, total: u32, lead: u32 }}
         @group(0) @binding(0) var<uniform> part: Part;
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             if id.x < part.len {{
                 y[id.x] += select(1.0, 1.0 + f32({wrong:?}), part.first + id.x == 7777u);
             }}
         }}"
    );
    let mut builder = WgslKernel::builder("increment", source)
        .update("y")
        .part("part");
    if let Some(tolerance) = tolerance {
        builder = builder.tolerance("y", tolerance);
    }
    let cpu = |_, args: &WgslArgs<'_>| {
        args.output::<f32>("y")?.iter_mut().for_each(|y| *y += 1.0);
        Ok(())
    };
    builder.cpu(cpu).build().expect("it is valid")
}

/// Runs it on ones.
fn run(
    rt: &Runtime,
    kernel: &WgslKernel,
    placement: Placement,
) -> Result<(Report, Vec<f32>), Error> {
    let mut y = rt.filled(N, 1.0f32)?.named("ones");
    let report = rt.run(kernel.bind_mut("y", &mut y).on(placement))?.report;
    Ok((report, y.to_vec()?))
}

#[test]
fn a_wrong_element_is_an_error_that_says_which_and_how_wrong() {
    for placement in [
        Placement::Gpu(0),
        Placement::Cpu,
        Placement::Split(vec![(DeviceId::Cpu, 0.5), (DeviceId::Gpu(0), 0.5)]),
    ] {
        let Some(rt) = verifying(1.0, Runtime::builder()) else {
            return;
        };
        let mut y = rt.filled(N, 1.0f32).expect("memory").named("ones");
        let kernel = increment(0.25, None);
        let call = kernel.bind_mut("y", &mut y).on(placement.clone());
        let error = rt.run(call).expect_err("they disagree");
        let Error::Mismatch(mismatch) = &error else {
            panic!("{error}")
        };
        let Mismatch {
            kernel,
            range,
            device,
            other,
            array,
            difference,
            ..
        } = &**mismatch;
        assert_eq!(kernel, "increment");
        assert!(range.contains(&7777) && range.end == N, "{error}");
        let (gpu, cpu) = if placement == Placement::Cpu {
            (other, device)
        } else {
            (device, other)
        };
        assert!(gpu.starts_with("gpu0 (") && cpu == "cpu", "{error}");
        assert_eq!(array, "`ones` [f32; 10000]");
        assert_eq!((difference.at, difference.size), (7777, 0.25), "{error}");
        assert!(
            difference.allowed > 0.0 && difference.allowed < 1e-3,
            "{error}"
        );
        let on_gpu = if placement == Placement::Cpu {
            difference.theirs
        } else {
            difference.ours
        };
        assert_eq!(on_gpu, 2.25);
        // What was written must not be taken for a result.
        assert!(y.undefined().contains(range), "{:?}", y.undefined());
        y.write_all(&[5.0; N]).expect("memory");
        assert_eq!(y.to_vec().expect("written"), [5.0; N]);
    }
}

#[test]
fn right_results_of_updates_stay_as_they_are() {
    let Some(rt) = verifying_all() else { return };
    for placement in support::placements(rt) {
        let (report, y) = run(rt, &increment(0.0, None), placement).expect("they agree");
        assert_eq!(report.verified, report.parts.len());
        assert_eq!(y, [2.0; N]);
    }
}

#[test]
fn a_kernel_s_own_tolerance_is_used() {
    let Some(rt) = verifying_all() else { return };
    let differ = |tolerance| run(rt, &increment(1e-3, Some(tolerance)), Placement::Gpu(0)).err();
    assert!(differ(Tolerance::Relative(1e-3)).is_none());
    assert!(differ(Tolerance::OfLargest(1e-3)).is_none());
    assert!(differ(Tolerance::Relative(1e-4)).is_some());
    assert!(
        differ(Tolerance::Relative(1e-3)).is_none(),
        "so that none are three in a row"
    );
    assert!(differ(Tolerance::Bitwise).is_some());
    assert!(differ(Tolerance::Relative(1e-3)).is_none());
}

/// A `vec3` is followed by padding, in which devices leave what they like; sums of many items are of other roundings.
#[test]
fn padding_and_partial_sums_of_user_s_kernels_agree() {
    let Some(rt) = verifying_all() else { return };
    let kernel = WgslKernel::builder(
        "spread",
        "struct Part { first: u32, len: u32, total: u32, lead: u32 }
         @group(0) @binding(0) var<uniform> part: Part;
         @group(0) @binding(1) var<storage, read> x: array<f32>;
         @group(0) @binding(2) var<storage, read_write> y: array<vec3<f32>>;
         @group(0) @binding(3) var<storage, read_write> total: array<f32>;
         @compute @workgroup_size(1)
         fn main() {
             for (var i = 0u; i < part.len; i++) {
                 y[i] = vec3(x[i], 2.0 * x[i], 0.1 / x[i]);
                 total[0] += 0.3 * x[i];
             }
         }",
    );
    let kernel = kernel
        .input("x")
        .update("y")
        .partial("total", 1, Fold::Add)
        .part("part");
    let kernel = kernel.items_per_workgroup(N).cpu(|_, args| {
        let (x, y) = (args.input::<f32>("x")?, args.output::<f32>("y")?);
        let total = &mut args.output::<f32>("total")?[0];
        for (x, y) in x.iter().zip(y.as_chunks_mut::<4>().0) {
            *y = [*x, 2.0 * x, 0.1 / x, 123.0];
            *total += 0.3 * x;
        }
        Ok(())
    });
    let kernel = kernel.build().expect("it is valid");
    let x = rt
        .array_from(&(1..=5000).map(|i| i as f32).collect::<Vec<_>>())
        .expect("memory");
    for placement in support::placements(rt) {
        let mut y = rt.uninit::<f32>(20_000).expect("memory");
        let mut total = rt.uninit::<f32>(1).expect("memory");
        let call = kernel
            .bind("x", &x)
            .bind_mut("y", &mut y)
            .bind_mut("total", &mut total);
        let report = rt
            .run(call.on(placement.clone()))
            .expect("they agree")
            .report;
        assert!(
            report.verified > report.parts.len(),
            "{placement}: the sums are folded too"
        );
        let want = 0.3 * 5000.0 * 5001.0 / 2.0;
        let total = f64::from(total.to_vec().expect("a sum")[0]);
        assert!((total - want).abs() < 1e-5 * want, "{placement}: {total}");
    }
}

#[test]
fn a_gpu_that_is_wrong_three_times_in_a_row_is_set_aside() {
    let Some(rt) = verifying(1.0, Runtime::builder()) else {
        return;
    };
    let (right, wrong) = (increment(0.0, None), increment(4.0, None));
    let on_gpu = |kernel| run(&rt, kernel, Placement::Gpu(0));
    for _ in 0..2 {
        on_gpu(&wrong).expect_err("wrong");
        on_gpu(&wrong).expect_err("wrong again");
        on_gpu(&right).expect("right, and so not three in a row");
        assert_eq!(rt.gpus_set_aside(), []);
    }
    let x = rt.filled(N, 3.0f32).expect("memory");
    rt.prefetch(&x, DeviceId::Gpu(0)).expect("it still works");
    let mut y = rt.uninit(N).expect("memory");
    rt.run(transform(Unary::Square, &x, &mut y).on(Placement::Gpu(0)))
        .expect("right");
    for _ in 0..3 {
        on_gpu(&wrong).expect_err("wrong");
    }
    let aside = rt.gpus_set_aside();
    assert_eq!((aside.len(), aside[0].index), (1, 0));
    assert!(
        aside[0].reason.contains("increment") && aside[0].reason.contains("7777"),
        "{aside:?}"
    );
    assert_eq!(rt.lost_gpus(), [], "it is not lost");
    // Although it was asked for, and even from a thread that had planned so before.
    let (report, found) = on_gpu(&wrong).expect("on the CPU");
    assert_eq!(
        (report.parts[0].device, found),
        (DeviceId::Cpu, vec![2.0; N])
    );
    assert_eq!(report.verified, 0, "there is nobody left to verify it");
    let ruled_out = rt.explain(&sum(&x)).expect("the CPU is left").ruled_out;
    assert!(ruled_out[0].reason.contains("set aside"), "{ruled_out:?}");
    // What it holds can be read.
    assert_eq!(y.to_vec().expect("computed before"), [9.0; N]);
}

#[test]
fn what_only_a_gpu_set_aside_can_run_is_refused_with_the_reason() {
    let Some(rt) = verifying(1.0, Runtime::builder()) else {
        return;
    };
    for _ in 0..3 {
        run(&rt, &increment(4.0, None), Placement::Gpu(0)).expect_err("wrong");
    }
    let only_gpu = WgslKernel::builder(
        "only_gpu",
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = id.x; }
         }",
    );
    let only_gpu = only_gpu.output("y").build().expect("it is valid");
    let mut y = rt.uninit::<u32>(100).expect("memory");
    let error = rt
        .run(only_gpu.bind_mut("y", &mut y))
        .expect_err("nowhere to run");
    assert!(matches!(error, Error::Infeasible { .. }), "{error}");
    assert!(error.to_string().contains("set aside"), "{error}");
}

#[test]
fn the_share_that_was_asked_for_is_verified() {
    let Some(rt) = verifying(0.2, Runtime::builder()) else {
        return;
    };
    let kernel = increment(0.0, None);
    let verified = |_| {
        run(&rt, &kernel, Placement::Gpu(0))
            .expect("right")
            .0
            .verified
    };
    let verified: usize = (0..500).map(verified).sum();
    assert!((70..130).contains(&verified), "{verified} of 500");
}

#[test]
fn without_a_second_device_nothing_is_verified() {
    let builder = Runtime::builder()
        .cpu_only()
        .policy(Policy::default().verify(1.0));
    let rt = support::build(builder);
    let x = rt.filled(N, 1.0f32).expect("memory");
    let run = rt.run(sum(&x)).expect("a sum");
    assert_eq!((run.value, run.report.verified), (N as f32, 0));
}

#[test]
fn shares_that_are_none_are_refused() {
    for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        let builder = Runtime::builder().cpu_only().no_profile();
        let error = builder
            .policy(Policy::default().verify(share))
            .build()
            .expect_err("no share");
        assert!(matches!(error, Error::Setting { .. }), "{error}");
        assert!(error.to_string().contains(&share.to_string()), "{error}");
    }
}

#[test]
fn threads_that_verify_at_the_same_time_do_not_see_each_other() {
    let Some(rt) = verifying_all() else { return };
    let x = rt
        .array_from(&(0..N as u32).collect::<Vec<_>>())
        .expect("memory");
    let want: u32 = (0..N as u32).sum();
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (rt, x) = (&rt, &x);
            scope.spawn(move || {
                for call in 0..20 {
                    let placement = match (thread + call) % 3 {
                        0 => Placement::Cpu,
                        1 => Placement::Gpu(0),
                        _ => Placement::split(0.5),
                    };
                    assert_eq!(rt.run(sum(x).on(placement)).expect("a sum").value, want);
                }
            });
        }
    });
}

/// Sets a flag when it goes.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_gpu_that_is_lost_while_it_verifies_changes_nothing() {
    let Some(rt) = verifying(1.0, Runtime::builder()) else {
        return;
    };
    let x = rt
        .array_from(&(0..N as u32).collect::<Vec<_>>())
        .expect("memory");
    let want: u32 = (0..N as u32).sum();
    let (over, losses) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = fastrand::Rng::with_seed(seed());
            while !over.load(Ordering::Relaxed) {
                let points = [
                    FaultPoint::Device,
                    FaultPoint::Submission,
                    FaultPoint::Mapping,
                ];
                let point = points[rng.usize(..points.len())];
                rt.faults(0, |faults| faults.fail(point, rng.u64(..100)))
                    .expect("a GPU");
                std::thread::sleep(Duration::from_millis(rng.u64(..50)));
                losses.fetch_add(rt.lost_gpus().len(), Ordering::Relaxed);
                rt.reopen_gpus();
            }
        });
        // However this ends, the other thread must not go on for ever.
        let _end = SetAtEnd(&over);
        let (mut calls, mut verified) = (0, 0);
        let mut scanned = rt.uninit::<u32>(N).expect("memory");
        let (add, mut added) = (increment(0.0, None), rt.filled(N, 0.0f32).expect("memory"));
        while calls < 60 || verified == 0 || losses.load(Ordering::Relaxed) < 5 {
            let on = [Placement::Cpu, Placement::Gpu(0), Placement::split(0.5)][calls % 3].clone();
            let scan = inclusive_scan(&x, &mut scanned).on(on.clone());
            verified += rt.run(scan).expect("a scan").report.verified;
            let run = rt.run(max(&scanned).on(on)).expect("the last");
            verified += run.report.verified;
            assert_eq!(run.value, Some(want));
            // In place, and in parts of which only one may be lost.
            let call = add.bind_mut("y", &mut added).on(Placement::split(0.5));
            verified += rt.run(call).expect("one more").report.verified;
            calls += 1;
            if calls % 10 == 0 {
                assert_eq!(
                    *added.read().expect("it is brought back"),
                    [calls as f32; N]
                );
            }
            assert!(calls < 20_000, "{verified} verified, {losses:?} losses");
        }
    });
    rt.faults(0, |faults| faults.clear()).expect("a GPU");
    assert_eq!(rt.gpus_set_aside(), [], "it was lost, not wrong");
}
