//! Panics in CPU closures, and arrays and runtimes that go in any order.

mod support;

use divvy::array::RangeSet;
use divvy::kernel::{PartItems, WgslArgs};
use divvy::prelude::*;
use divvy::{DeviceId, Error, Result, Runtime};
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

const N: usize = 200_000;

const DOUBLE: &str = "
    struct Part { first: u32, len: u32, total: u32, lead: u32 }
    @group(0) @binding(0) var<uniform> part: Part;
    @group(0) @binding(1) var<storage, read> x: array<f32>;
    @group(0) @binding(2) var<storage, read_write> y: array<f32>;
    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        if id.x < part.len { y[id.x] = 2.0 * x[id.x]; }
    }";

/// What a CPU closure does before it computes its items.
type Closure = fn(&PartItems) -> Result<()>;

/// Doubles each item, after `before` has had its way.
fn double(before: impl Fn(&PartItems) -> Result<()> + Send + Sync + 'static) -> Result<WgslKernel> {
    WgslKernel::builder("double", DOUBLE)
        .input("x")
        .output("y")
        .part("part")
        .cpu(move |part: PartItems, args: &WgslArgs<'_>| {
            before(&part)?;
            let (x, y) = (args.input::<f32>("x")?, args.output::<f32>("y")?);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = 2.0 * x);
            Ok(())
        })
        .build()
}

fn on_pool() -> bool {
    std::thread::current()
        .name()
        .is_some_and(|name| name.starts_with("divvy-"))
}

/// A runtime that knows nothing of using one thread only.
fn on_pool_only() -> Result<Runtime> {
    let rt = support::build(Runtime::builder().cpu_only());
    let mut machine = (*rt.measured_machine()?).clone();
    for device in &mut machine.devices {
        device
            .engines
            .retain(|engine| engine.threads == rt.threads());
    }
    rt.with_machine(machine)
}

/// Waits for what other threads must do; longer than any of them is held up.
fn wait_until(done: impl Fn() -> bool) {
    let since = Instant::now();
    while !done() {
        assert!(
            since.elapsed() < Duration::from_secs(120),
            "a thread is missing"
        );
        std::thread::yield_now();
    }
}

/// A value that panics when it is dropped.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("a panic that a test wants, on drop");
    }
}

/// The ranges of a split's parts on the CPU.
fn cpu_parts(rt: &Runtime, kernel: &WgslKernel, placement: &Placement) -> Result<RangeSet> {
    let (x, mut y) = (rt.filled(N, 0.0f32)?, rt.uninit::<f32>(N)?);
    let plan = rt.plan(
        &kernel
            .bind("x", &x)
            .bind_mut("y", &mut y)
            .on(placement.clone()),
    )?;
    let mut set = RangeSet::new();
    let on_cpu = plan
        .parts
        .iter()
        .filter(|part| part.device == DeviceId::Cpu);
    on_cpu.for_each(|part| set.insert(part.range.clone()));
    Ok(set)
}

#[test]
fn a_panic_costs_the_call_and_leaves_arrays_and_runtime_usable() -> Result<()> {
    let rt = support::runtime();
    let sane = double(|_| Ok(()))?;
    let failures: [(&str, Closure); 4] = [
        ("at once", |_| panic!("as wanted")),
        ("in one range", |part| {
            assert!(
                !(part.first..part.first + part.len).contains(&(N - 1)),
                "as wanted"
            );
            Ok(())
        }),
        ("a bomb", |_| std::panic::panic_any(Bomb)),
        ("an error", |_| {
            Err(Error::Argument {
                kernel: "double".into(),
                problem: "as wanted".into(),
            })
        }),
    ];
    for placement in support::placements(rt) {
        if placement == Placement::Gpu(0) {
            continue;
        }
        for (how, closure) in failures {
            let context = format!("{how} on {placement}");
            let odd = double(closure)?;
            let x = rt.filled(N, 1.5f32)?;
            let mut y = rt.filled(N, 7.0f32)?;
            let touched = cpu_parts(rt, &odd, &placement)?;
            if how == "in one range" && !touched.contains(&(N - 1..N)) {
                continue;
            }
            let call = odd.bind("x", &x).bind_mut("y", &mut y);
            let error = rt.run(call.on(placement.clone())).expect_err(&context);
            let text = error.to_string();
            assert!(text.contains("double"), "{context}: {text}");
            match how {
                "an error" => assert!(matches!(error, Error::Argument { .. }), "{text}"),
                "a bomb" => assert!(text.contains("no message"), "{text}"),
                _ => assert!(
                    matches!(error, Error::Panicked { .. }) && text.contains("as wanted"),
                    "{text}"
                ),
            }
            // What was touched is marked and readable, the rest is as it was or as the GPU computed it.
            assert_eq!(y.undefined(), touched, "{context}");
            assert!(x.undefined().is_empty());
            let values = y.to_vec()?;
            let all_touched = touched.contains(&(0..N));
            for range in touched.missing(0..N) {
                assert!(values[range].iter().all(|y| *y == 3.0), "{context}");
            }
            assert!(all_touched || placement != Placement::Cpu);
            // Writing defines again: on the host a part, and everywhere by a kernel.
            y.write_range(0..10)?.fill(0.0);
            assert!(y.undefined().overlap(0..10).next().is_none());
            rt.run(
                sane.bind("x", &x)
                    .bind_mut("y", &mut y)
                    .on(placement.clone()),
            )?;
            assert!(y.undefined().is_empty(), "{context}");
            assert!(y.read()?.iter().all(|y| *y == 3.0), "{context}");
        }
    }
    Ok(())
}

#[test]
fn a_panic_on_the_caller_s_thread_or_on_the_pool_s_loses_no_thread() -> Result<()> {
    let rt = on_pool_only()?;
    let x = rt.filled(N, 1.5f32)?;
    let mut y = rt.uninit::<f32>(N)?;
    for on_pool_s in [true, false] {
        for _ in 0..20 {
            let panicked = Arc::new(AtomicUsize::new(0));
            let odd = double({
                let panicked = Arc::clone(&panicked);
                move |_| {
                    if on_pool() == on_pool_s {
                        panicked.fetch_add(1, Ordering::Relaxed);
                        panic!("as wanted");
                    }
                    // Whoever is not to panic leaves work for who is.
                    wait_until(|| panicked.load(Ordering::Relaxed) > 0);
                    Ok(())
                }
            })?;
            let call = odd.bind("x", &x).bind_mut("y", &mut y);
            let error = rt.run(call.on(Placement::Cpu)).expect_err("it panics");
            assert!(matches!(error, Error::Panicked { .. }), "{error}");
        }
    }
    let threads = Arc::new(Mutex::new(HashSet::<ThreadId>::new()));
    let all = rt.threads();
    let together = double({
        let threads = Arc::clone(&threads);
        move |_| {
            let count = || threads.lock().expect("nobody panics with it").len();
            threads
                .lock()
                .expect("nobody panics with it")
                .insert(std::thread::current().id());
            wait_until(|| count() >= all);
            Ok(())
        }
    })?;
    rt.run(
        together
            .bind("x", &x)
            .bind_mut("y", &mut y)
            .on(Placement::Cpu),
    )?;
    // The caller computes too, besides whoever of the pool is there.
    let computed = threads.lock().expect("nobody panicked with it").len();
    assert!(computed >= all, "{computed} of {all}");
    assert!(y.read()?.iter().all(|y| *y == 3.0));
    Ok(())
}

#[test]
fn one_thread_s_panic_is_nobody_else_s() -> Result<()> {
    let rt = support::runtime();
    let (odd, sane) = (double(|_| panic!("as wanted"))?, double(|_| Ok(()))?);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let (odd, sane) = (&odd, &sane);
                scope.spawn(move || -> Result<()> {
                    let x = rt.filled(N, thread as f32)?;
                    let mut y = rt.uninit::<f32>(N)?;
                    for _ in 0..25 {
                        let call = odd.bind("x", &x).bind_mut("y", &mut y);
                        assert!(rt.run(call.on(Placement::Cpu)).is_err());
                        let call = sane.bind("x", &x).bind_mut("y", &mut y);
                        rt.run(call.on(Placement::Cpu))?;
                        assert!(y.read()?.iter().all(|y| *y == 2.0 * thread as f32));
                    }
                    Ok(())
                })
            })
            .collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic gets out"))
    })
}

#[test]
fn arrays_and_runtimes_go_in_any_order_with_work_in_flight() -> Result<()> {
    if !support::has_gpu(support::runtime()) {
        return Ok(());
    }
    for order in 0..4 {
        let rt = support::build(Runtime::builder());
        let x = rt.filled(1 << 20, 1.0f32)?;
        let mut y = rt.filled(1 << 20, 0.0f32)?;
        for _ in 0..8 {
            rt.run(axpy(0.5, &x, &mut y).on(Placement::Gpu(0)))?;
        }
        match order {
            0 => {
                drop((x, y));
                drop(rt);
            }
            1 => {
                // What is under way is still read.
                drop((rt, x));
                assert!(y.read()?.iter().all(|y| *y == 4.0));
            }
            2 => {
                let other = rt.clone();
                std::thread::scope(|scope| {
                    scope.spawn(move || drop(rt));
                    scope.spawn(move || drop(y));
                    scope.spawn(move || drop(x));
                });
                let z = other.filled(1000, 2.0f32)?;
                assert_eq!(other.run(sum(&z).on(Placement::Gpu(0)))?.value, 2000.0);
            }
            _ => {
                let guard = y.read()?;
                drop((rt, x));
                assert!(guard.iter().all(|y| *y == 4.0));
            }
        }
    }
    Ok(())
}

#[test]
fn what_threads_share_may_be_shared() {
    fn assert_send_sync<T: Send + Sync>() {}
    assert_send_sync::<Runtime>();
    assert_send_sync::<Array<f32>>();
    assert_send_sync::<divvy::array::Handle>();
    assert_send_sync::<divvy::array::ReadGuard<'_, f32>>();
    assert_send_sync::<WgslKernel>();
    assert_send_sync::<divvy::Report>();
    assert_send_sync::<Error>();
    assert_send_sync::<Checkpoint<'_>>();
    assert_send_sync::<divvy::checkpoint::SavedCheckpoint>();
}
