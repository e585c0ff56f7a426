//! More than one GPU: every kernel of the catalog split over two of them and the CPU, and arrays that move between them.
//!
//! Two copies of the software driver's manifest make two adapters of one. On a machine without that driver, the GPUs
//! there are must be at least two, or the tests say that they were skipped.

#[path = "support/compare.rs"]
mod compare;
mod support;

use compare::compare;
use divvy::catalog::{CATALOG, Entry, Size};
use divvy::device::FaultPoint;
use divvy::kernels::Binary;
use divvy::prelude::*;
use divvy::{DeviceId, Policy, Runtime};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let manifests = tempfile::tempdir().expect("a temporary directory");
    offer_software_adapter_twice(manifests.path());
    let mut trials = Vec::new();
    for entry in CATALOG {
        let name = format!("{}_is_right_on_two_gpus", entry.name);
        trials.push(Trial::test(name, move || on_two_gpus(entry)));
    }
    trials.push(Trial::test(
        "an_array_moves_between_gpus",
        move_between_gpus,
    ));
    trials.push(Trial::test(
        "losses_of_either_gpu_change_no_bit",
        survive_losses,
    ));
    trials.push(Trial::test("gpus_verify_each_other", verify_each_other));
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn offer_software_adapter_twice(directory: &std::path::Path) {
    let Ok(installed) = std::fs::read_dir("/usr/share/vulkan/icd.d") else {
        return;
    };
    let software = installed.flatten().map(|file| file.path()).find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("lvp_icd"))
    });
    let Some(manifest) = software else { return };
    let copies = ["first.json", "second.json"].map(|name| directory.join(name));
    for copy in &copies {
        std::fs::copy(&manifest, copy).expect("a copy of the driver's manifest");
    }
    let list = std::env::join_paths(copies).expect("no separator in the path");
    // SAFETY: no other thread runs yet.
    unsafe {
        std::env::set_var("VK_DRIVER_FILES", &list);
        std::env::set_var("VK_ICD_FILENAMES", &list);
    }
}

fn has_two(rt: &Runtime) -> bool {
    let (found, offered) = (
        rt.gpus().len(),
        std::env::var_os("VK_DRIVER_FILES").is_some(),
    );
    let required = std::env::var_os("DIVVY_REQUIRE_GPU").is_some_and(|v| v == "1");
    assert!(
        found >= 2 || !(required && offered),
        "the software adapter was offered twice"
    );
    if found < 2 {
        support::skipped(&format!("{found} GPUs, two are needed"));
    }
    found >= 2
}

fn on_two_gpus(entry: &Entry) -> Result<(), Failed> {
    let rt = support::runtime();
    if !support::has_gpu(rt) || !has_two(rt) {
        return Ok(());
    }
    let n = match entry.size {
        Size::Items => 100_003,
        Size::Bodies => 500,
        Size::Side => 200,
    };
    let shares = |devices: [DeviceId; 3]| {
        Placement::Split(devices.into_iter().zip([0.25, 0.35, 0.4]).collect())
    };
    let (cpu, first, second) = (DeviceId::Cpu, DeviceId::Gpu(0), DeviceId::Gpu(1));
    let placements = [
        Placement::Cpu,
        Placement::Gpu(1),
        shares([first, second, cpu]),
        shares([second, cpu, first]),
        Placement::Split(vec![(second, 0.5), (first, 0.5)]),
    ];
    compare(rt, entry, entry.default_type(), n, &placements)
}

/// Either GPU is lost now and then, while results lie on both, on one of them, or on the other and the CPU.
fn survive_losses() -> Result<(), Failed> {
    let rt = support::build(Runtime::builder());
    if !support::has_gpu(&rt) || !has_two(&rt) {
        return Ok(());
    }
    let seed = fastrand::u64(..);
    let mut rng = fastrand::Rng::with_seed(seed);
    let (cpu, first, second) = (DeviceId::Cpu, DeviceId::Gpu(0), DeviceId::Gpu(1));
    let placements = [
        Placement::Gpu(0),
        Placement::Gpu(1),
        Placement::Split(vec![(first, 0.5), (second, 0.5)]),
        Placement::Split(vec![(second, 0.3), (cpu, 0.7)]),
        Placement::Split(vec![(first, 0.2), (cpu, 0.3), (second, 0.5)]),
    ];
    let points = [
        FaultPoint::Device,
        FaultPoint::Submission,
        FaultPoint::Allocation,
        FaultPoint::Mapping,
    ];
    const N: usize = 20_000;
    let numbers: Vec<u32> = (0..N).map(|_| rng.u32(..)).collect();
    let (mut x, mut y) = (rt.array_from(&numbers)?, rt.uninit::<u32>(N)?);
    let mut z = rt.uninit::<u32>(N)?;
    let (mut want, mut losses) = (numbers, 0);
    for step in 0..150 {
        if step % 3 == 0 {
            let (gpu, point) = (rng.usize(..2), points[rng.usize(..points.len())]);
            rt.faults(gpu, |faults| faults.fail(point, rng.u64(..6)))?;
        }
        let mut at = || placements[rng.usize(..placements.len())].clone();
        rt.run(inclusive_scan(&x, &mut y).on(at()))?;
        rt.run(zip(Binary::Sub, &y, &x, &mut z).on(at()))?;
        std::mem::swap(&mut x, &mut y);
        let mut sum_so_far = 0u32;
        for element in &mut want {
            sum_so_far = sum_so_far.wrapping_add(*element);
            *element = sum_so_far;
        }
        let total = want
            .iter()
            .fold(0u32, |sum, element| sum.wrapping_add(*element));
        let found = rt.run(sum(&x).on(at()))?.value;
        if found != total {
            return Err(format!("step {step}: {found} is not {total}; seed {seed}").into());
        }
        losses += rt.lost_gpus().len();
        if rng.u8(..4) == 0 {
            rt.reopen_gpus();
        }
    }
    // Before the last swap z became what the last scan added to each element but its own: the sums without it.
    let own = |at: usize| want[at].wrapping_sub(if at > 0 { want[at - 1] } else { 0 });
    let rest = z.read()?;
    if let Some(at) = (0..N).find(|at| rest[*at] != want[*at].wrapping_sub(own(*at))) {
        return Err(format!("the last difference is wrong at {at}; seed {seed}").into());
    }
    drop(rest);
    if *x.read()? != want[..] {
        return Err(format!("the last scan is wrong; seed {seed}").into());
    }
    if losses == 0 {
        return Err(format!("no GPU was ever lost; seed {seed}").into());
    }
    Ok(())
}

/// What only GPUs can run is verified by another GPU.
fn verify_each_other() -> Result<(), Failed> {
    let builder = Runtime::builder().policy(Policy::default().verify(1.0));
    let rt = support::build(builder);
    if !support::has_gpu(&rt) || !has_two(&rt) {
        return Ok(());
    }
    let numbers = WgslKernel::builder(
        "numbers",
        "@group(0) @binding(0) var<storage, read_write> y: array<u32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = id.x * 3u; }
         }",
    );
    let numbers = numbers.output("y").build()?;
    let mut y = rt.uninit::<u32>(5000)?;
    for gpu in 0..2 {
        let call = numbers.bind_mut("y", &mut y).on(Placement::Gpu(gpu));
        let verified = rt.run(call)?.report.verified;
        if verified != 1 || y.read()?.iter().zip(0..).any(|(y, i)| *y != 3 * i) {
            return Err(format!("on GPU {gpu}, {verified} verified").into());
        }
    }
    Ok(())
}

fn move_between_gpus() -> Result<(), Failed> {
    let rt = support::runtime();
    if !support::has_gpu(rt) || !has_two(rt) {
        return Ok(());
    }
    let x = rt.filled(1000, 1.0f32)?;
    let mut y = rt.filled(1000, 0.0f32)?;
    for step in 0..6 {
        let moved = rt
            .run(axpy(1.0, &x, &mut y).on(Placement::Gpu(step % 2)))?
            .report
            .moved;
        // From the second step on, y comes from the other GPU; x is on both after the first two.
        let expected = if step < 2 { 8000 } else { 4000 };
        if moved.to_device != expected {
            return Err(format!("step {step}: {moved:?}, expected {expected} bytes up").into());
        }
    }
    if y.to_vec()? != [6.0; 1000] {
        return Err("a step was lost on the way".into());
    }
    Ok(())
}
