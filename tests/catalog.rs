//! Every kernel of the catalog, at every placement, size and element type, against its f64 reference; and bit for bit
//! between placements where the kernel promises it. Stamped from the catalog: a new kernel needs no line here.

#[path = "support/compare.rs"]
mod compare;
mod support;

use compare::{compare, compare_runtimes};
use divvy::array::ElementType;
use divvy::catalog::{CATALOG, Entry, Size};
use divvy::simd::InstructionSet;
use divvy::{Placement, Runtime};
use libtest_mimic::{Arguments, Failed, Trial};
use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock};

/// Around the widths of vectors, workgroups and blocks, and a large prime.
const ITEMS: &[usize] = &[0, 1, 2, 3, 255, 256, 257, 1000, 4097, 1_000_003];
const BODIES: &[usize] = &[0, 1, 2, 255, 256, 257, 1000, 1511];
const SIDES: &[usize] = &[0, 1, 2, 3, 63, 64, 65, 130, 255, 256, 257, 1000];
/// For kernels that do little per element.
const LARGE_SIDE: usize = 2003;
/// Small enough that kernels at the sizes above are cut into many pieces.
const SMALL_BINDING: u64 = 256 << 10;

/// So little that a call's arrays, of a size that takes no time, need several times as much.
const LITTLE_MEMORY: u64 = 512 << 10;

fn main() {
    let mut trials = Vec::new();
    for entry in CATALOG {
        for dtype in entry.element_types() {
            let mut add = |what: &str, test: fn(&Entry, ElementType) -> Result<(), Failed>| {
                let name = format!("{}_{dtype}::{what}", entry.name);
                trials.push(Trial::test(name, move || test(entry, dtype)));
            };
            add("is_right_and_the_same_everywhere", everywhere);
            add("is_right_in_small_windows", in_small_windows);
            add("is_right_with_checked_shaders", with_checked_shaders);
            add("is_right_in_little_memory", in_little_memory);
            add(
                "is_right_where_the_driver_runs_out_of_memory",
                out_of_memory,
            );
            if entry.size == Size::Items {
                add("is_right_past_the_binding_limit", past_the_binding_limit);
            }
            for set in InstructionSet::ALL {
                let name = format!("{}_{dtype}::is_right_with_{set}", entry.name);
                let test = move || with_instruction_set(*set, entry, dtype);
                // What this processor lacks cannot be tested here, and the list of tests says so.
                let lacking = !InstructionSet::available().contains(set);
                trials.push(Trial::test(name, test).with_ignored_flag(lacking));
            }
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn sizes(entry: &Entry) -> &'static [usize] {
    match entry.size {
        Size::Items => ITEMS,
        Size::Bodies => BODIES,
        Size::Side => SIDES,
    }
}

fn everywhere(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    let rt = support::runtime();
    for &n in sizes(entry) {
        compare(rt, entry, dtype, n, &support::placements(rt))?;
    }
    let affordable = entry
        .bench_sizes
        .last()
        .is_some_and(|most| *most > LARGE_SIDE * 2);
    if entry.size == Size::Side && affordable {
        compare(rt, entry, dtype, LARGE_SIDE, &support::placements(rt))?;
    }
    Ok(())
}

/// Compares with the reference, and bit for bit with the widest instruction set where the kernel promises bits.
fn with_instruction_set(
    set: InstructionSet,
    entry: &Entry,
    dtype: ElementType,
) -> Result<(), Failed> {
    static RUNTIMES: Mutex<BTreeMap<InstructionSet, Runtime>> = Mutex::new(BTreeMap::new());
    let on = |set: InstructionSet| {
        let mut runtimes = RUNTIMES.lock().expect("nothing panics with it");
        let build = || support::build(Runtime::builder().cpu_only().simd(set));
        runtimes.entry(set).or_insert_with(build).clone()
    };
    let (rt, best) = (on(set), on(InstructionSet::best()));
    assert_eq!(rt.instruction_set(), set);
    for &n in sizes(entry) {
        compare_runtimes(&[&best, &rt], entry, dtype, n)?;
    }
    Ok(())
}

fn in_small_windows(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let small = || Runtime::builder().max_binding_bytes(SMALL_BINDING);
    let rt = RUNTIME.get_or_init(|| support::build(small()));
    // Whole arrays that cannot be windowed still have to fit.
    let n = match entry.size {
        Size::Items => 300_007,
        Size::Bodies => 2003,
        Size::Side => 400,
    };
    let placements = support::placements(rt);
    compare(rt, entry, dtype, n, &placements[..placements.len().min(3)])?;

    // Buffers as small as that too: arrays are held in several extents.
    static EXTENTS: OnceLock<Runtime> = OnceLock::new();
    if entry.size == Size::Items {
        let rt =
            EXTENTS.get_or_init(|| support::build(small().max_buffer_bytes(SMALL_BINDING * 2)));
        compare(rt, entry, dtype, n, &support::placements(rt))?;
    }
    Ok(())
}

/// A size at which the arrays have several times as many bytes as [`LITTLE_MEMORY`].
fn several_times(entry: &Entry) -> usize {
    match entry.size {
        Size::Items => 400_007,
        // All bodies must fit; their accelerations do not beside them.
        Size::Bodies => 13_001,
        Size::Side => 401,
    }
}

/// Compares with the CPU, then again and again: what a call left on the GPU is in the way of the next.
fn compare_scarce(rt: &Runtime, entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    let n = several_times(entry);
    let placements = support::placements(rt);
    compare(rt, entry, dtype, n, &placements)?;
    let again = [Placement::Gpu(0), Placement::Gpu(0)];
    compare(rt, entry, dtype, n, &again)
}

fn in_little_memory(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let scarce = || Runtime::builder().gpu_memory_budget(LITTLE_MEMORY);
    let rt = RUNTIME.get_or_init(|| support::build(scarce()));
    if !support::has_gpu(rt) {
        return Ok(());
    }
    compare_scarce(rt, entry, dtype)?;
    let memory = rt.gpu_memory().next().ok_or("there is a GPU")?;
    if memory.peak_bytes > LITTLE_MEMORY {
        return Err(format!("{memory:?}").into());
    }
    Ok(())
}

fn out_of_memory(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let scarce = || Runtime::builder().gpu_driver_memory(LITTLE_MEMORY);
    let rt = RUNTIME.get_or_init(|| support::build(scarce()));
    if !support::has_gpu(rt) {
        return Ok(());
    }
    compare_scarce(rt, entry, dtype)
}

fn with_checked_shaders(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let rt = RUNTIME.get_or_init(|| support::build(Runtime::builder().checked_shaders()));
    if !support::has_gpu(rt) {
        return Ok(());
    }
    let n = match entry.size {
        Size::Items => 100_003,
        Size::Bodies => 700,
        Size::Side => 131,
    };
    compare(rt, entry, dtype, n, &[Placement::Cpu, Placement::Gpu(0)])
}

fn past_the_binding_limit(entry: &Entry, dtype: ElementType) -> Result<(), Failed> {
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return Ok(());
    }
    let Some(gpu) = rt.gpus().next() else {
        return Ok(());
    };
    // On adapters with larger bindings this would need many gigabytes; the small windows above stand for them.
    let limit = gpu.limits.max_binding_bytes.min(256 << 20);
    let n = limit as usize / dtype.size() + 1;
    let placements = [Placement::Cpu, Placement::Gpu(0), Placement::split(0.5)];
    compare(rt, entry, dtype, n, &placements)
}
