//! Compares a kernel of the catalog with its reference, and its placements with each other.

use divvy::array::{ElementType, Handle};
use divvy::catalog::Entry;
use divvy::kernel::LaunchSpec;
use divvy::{DeviceId, Error, Placement, Runtime};
use libtest_mimic::Failed;

/// Runs the kernel at each placement on the same arguments, checks each result, and compares bits where the catalog
/// promises equality.
pub fn compare(
    rt: &Runtime,
    entry: &Entry,
    dtype: ElementType,
    n: usize,
    placements: &[Placement],
) -> Result<(), Failed> {
    let runs: Vec<_> = placements.iter().map(|p| (rt, p.clone())).collect();
    compare_runs(&runs, entry, dtype, n)
}

/// The same on the CPU of each runtime.
#[allow(dead_code, reason = "not every test file needs all helpers")]
pub fn compare_runtimes(
    runtimes: &[&Runtime],
    entry: &Entry,
    dtype: ElementType,
    n: usize,
) -> Result<(), Failed> {
    let runs: Vec<_> = runtimes.iter().map(|rt| (*rt, Placement::Cpu)).collect();
    compare_runs(&runs, entry, dtype, n)
}

fn compare_runs(
    runs: &[(&Runtime, Placement)],
    entry: &Entry,
    dtype: ElementType,
    n: usize,
) -> Result<(), Failed> {
    let seed = std::env::var("DIVVY_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let mut case = entry.bind(n, dtype, seed)?;
    let mut first: Option<(String, Vec<u8>)> = None;
    for (rt, placement) in runs {
        let at = || {
            format!(
                "{} {dtype} n={n} on {placement} with {}, DIVVY_TEST_SEED={seed}",
                entry.name,
                rt.instruction_set()
            )
        };
        case.reset().map_err(|e| format!("{}: {e}", at()))?;
        poison_on_gpus(rt, case.spec(), placement).map_err(|e| format!("{}: {e}", at()))?;
        case.run(rt, placement.clone())
            .map_err(|e| format!("{}: {e}", at()))?;
        let check = case.check().map_err(|e| format!("{}: {e}", at()))?;
        if !check.ok {
            return Err(format!("{}: {check:?}", at()).into());
        }
        if entry.bitwise {
            let bits = case.bytes()?;
            match &first {
                None => {
                    let ran = format!("{placement} with {}", rt.instruction_set());
                    first = Some((ran, bits));
                }
                Some((other, expected)) if *expected != bits => {
                    let i = expected.iter().zip(&bits).position(|(a, b)| a != b);
                    return Err(format!("{}: differs from {other}, first at {i:?}", at()).into());
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// Copies the poison that `reset` left on the host to the GPUs of a placement. Otherwise the result of an earlier run
/// there might pass for that of this one. Arrays that exceed a buffer, or the memory, use other buffers each time and
/// need no poison.
fn poison_on_gpus(rt: &Runtime, spec: &LaunchSpec, placement: &Placement) -> divvy::Result<()> {
    let gpus = match placement {
        Placement::Gpu(index) => vec![DeviceId::Gpu(*index)],
        Placement::Split(shares) => shares.iter().map(|(device, _)| *device).collect(),
        _ => Vec::new(),
    };
    for gpu in gpus.into_iter().filter(|device| *device != DeviceId::Cpu) {
        let most = rt
            .gpus()
            .next()
            .map_or(0, |info| info.limits.max_buffer_bytes);
        let fits = |array: &&Handle| (array.len() * array.element_type().size()) as u64 <= most;
        for output in spec.written().filter(fits) {
            match rt.prefetch_handle(output, gpu) {
                Err(Error::DeviceMemory { .. }) => {}
                poisoned => poisoned?,
            }
        }
    }
    Ok(())
}
