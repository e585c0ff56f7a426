//! What a report says of how long a run took.

mod support;

use divvy::prelude::*;
use std::sync::{Mutex, MutexGuard, PoisonError};
use support::{has_gpu, runtime};

const N: usize = 1 << 16;

/// One test at a time: what several threads record at once is not timed.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn what_the_cpu_took_is_known_at_once() {
    let rt = runtime();
    let x = rt.filled(N, 1.0f32).expect("memory");
    let mut y = rt.filled(N, 1.0f32).expect("memory");
    let call = axpy(1.0, &x, &mut y).on(Placement::Cpu);
    let report = rt.run(call).expect("axpy").report;
    let part = report.parts[0].actual_seconds().expect("it is done");
    let whole = report.actual_seconds().expect("it is done");
    assert!(part > 0.0 && part <= whole, "{part} {whole}");
    assert_eq!(whole, report.seconds);
}

#[test]
fn what_a_gpu_took_is_known_once_a_result_was_read() {
    let rt = runtime();
    if !has_gpu(rt) {
        return;
    }
    let _alone = alone();
    let x = rt.filled(N, 1.0f32).expect("memory");
    let mut y = rt.filled(N, 1.0f32).expect("memory");
    let mut known = 0;
    for _ in 0..20 {
        let started = std::time::Instant::now();
        let call = axpy(1.0, &x, &mut y).on(Placement::Gpu(0));
        let report = rt.run(call).expect("axpy").report;
        y.read().expect("y");
        let elapsed = started.elapsed().as_secs_f64();
        if let Some(seconds) = report.actual_seconds() {
            assert!(seconds > 0.0 && seconds <= elapsed, "{seconds} {elapsed}");
            known += 1;
        }
    }
    assert!(known > 0, "not one of 20 runs was timed");
}

#[test]
fn a_split_is_known_when_both_parts_are() {
    let rt = runtime();
    if !has_gpu(rt) {
        return;
    }
    let _alone = alone();
    let x = rt.filled(N, 1.0f32).expect("memory");
    let mut y = rt.filled(N, 1.0f32).expect("memory");
    let mut known = 0;
    for _ in 0..20 {
        let call = axpy(1.0, &x, &mut y).on(Placement::split(0.5));
        let report = rt.run(call).expect("axpy").report;
        assert_eq!(report.parts.len(), 2);
        rt.synchronize().expect("done");
        let parts: Vec<_> = report
            .parts
            .iter()
            .map(|part| part.actual_seconds())
            .collect();
        let whole = report.actual_seconds();
        assert_eq!(whole.is_some(), parts.iter().all(Option::is_some));
        if let Some(whole) = whole {
            assert!(
                parts
                    .iter()
                    .flatten()
                    .all(|part| *part > 0.0 && *part <= whole)
            );
            known += 1;
        }
    }
    assert!(known > 0, "not one of 20 splits was timed");
}

#[test]
fn a_value_from_a_gpu_comes_with_its_time() {
    let rt = runtime();
    if !has_gpu(rt) {
        return;
    }
    let _alone = alone();
    let x = rt.filled(N, 1.0f32).expect("memory");
    let times = (0..20).filter_map(|_| {
        let run = rt.run(sum(&x).on(Placement::Gpu(0))).expect("sum");
        assert_eq!(run.value, N as f32);
        run.report.actual_seconds()
    });
    assert!(times.count() > 0, "not one of 20 sums was timed");
}
