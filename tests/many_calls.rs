//! Memory over many calls. Alone in its program, since what others take would count.

mod support;

use divvy::prelude::*;
use divvy::{Array, Runtime};

const GPU: Placement = Placement::Gpu(0);

/// Bytes of this process that are in memory, where that can be told.
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn memory_does_not_grow_over_many_calls_of_mixed_sizes() {
    const BUDGET: u64 = 8 << 20;
    let rt = support::build(Runtime::builder().gpu_memory_budget(BUDGET));
    if !support::has_gpu(&rt) {
        return;
    }
    let calls = std::env::var("DIVVY_TEST_CALLS").ok();
    let calls: usize = calls.and_then(|n| n.parse().ok()).unwrap_or(8_000);
    let mut rng = fastrand::Rng::with_seed(7);
    let mut kept: Vec<Array<f32>> = Vec::new();
    let mut half_way = None;
    for call in 0..calls {
        if call == calls / 2 {
            half_way = resident_bytes();
        }
        let n = 1 << rng.u32(0..14);
        let n = n + rng.usize(0..n);
        let x = rt.filled(n, 1.0f32).expect("memory");
        let mut y = rt.uninit(n).expect("memory");
        let placement = [GPU, GPU, Placement::Cpu, Placement::split(0.5)][rng.usize(0..4)].clone();
        rt.run(fill(2.0, &mut y).on(placement.clone()))
            .expect("fill");
        rt.run(axpy(1.0, &x, &mut y).on(placement.clone()))
            .expect("axpy");
        if call % 8 == 0 {
            let total = rt.run(sum(&y).on(placement)).expect("sum").value;
            assert_eq!(total, 3.0 * n as f32);
        }
        if kept.len() >= 100 {
            kept.swap_remove(rng.usize(0..kept.len()));
        }
        kept.push(y);
    }
    let memory = rt.gpu_memory().next().expect("a GPU");
    assert!(memory.peak_bytes <= BUDGET, "{memory:?}");
    if let (Some(before), Some(after)) = (half_way, resident_bytes()) {
        eprintln!("{calls} calls: {before} bytes half way, {after} at the end");
        assert!(
            after < before + (48 << 20),
            "{before} half way, {after} at the end"
        );
    }
}
