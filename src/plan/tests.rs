//! The planner's behaviour on invented machines. Needs no device.

use super::*;
use crate::array::RangeSet;
use crate::cost::learned::{ExplorationBudget, KernelKey, PerfModel, Variant};
use crate::cost::{CoRun, Curve, DeviceModel, Engine, Limits, Link};
use crate::device::DeviceSet;
use crate::device::{DeviceId, DeviceKind};
use crate::error::Error;
use crate::kernel::{Access, Role, Work};
use smallvec::smallvec;
use std::ops::Range;

mod learned;
mod properties;

const CPU: DeviceId = DeviceId::Cpu;
const GPU0: DeviceId = DeviceId::Gpu(0);
const GPU1: DeviceId = DeviceId::Gpu(1);

fn engine(threads: usize, launch_seconds: f64, gflops: f64, gbytes: f64) -> Engine {
    Engine {
        threads,
        launch_seconds,
        flops_per_second: gflops * 1e9,
        bandwidth: Curve::constant(gbytes * 1e9).expect("positive"),
    }
}

/// Two cores: 100 GFLOP/s and 20 GB/s on one, twice that on both, which take 10 µs to launch.
fn cpu() -> DeviceModel {
    DeviceModel {
        id: CPU,
        kind: DeviceKind::Cpu,
        name: "two cores".into(),
        engines: vec![engine(1, 0.0, 100.0, 20.0), engine(2, 1e-5, 200.0, 40.0)],
        queued_seconds: 0.0,
        upload: None,
        download: None,
        limits: Limits::default(),
    }
}

/// A GPU `speed` times as fast as both cores, 20 µs to launch, 10 GB/s each way.
fn gpu(index: usize, speed: f64) -> DeviceModel {
    let link = Link::from_rate(5e-6, 1e10);
    DeviceModel {
        id: DeviceId::Gpu(index),
        kind: DeviceKind::Discrete,
        name: format!("card {index}"),
        engines: vec![engine(1, 2e-5, 200.0 * speed, 40.0 * speed)],
        queued_seconds: 2e-6,
        upload: link.clone(),
        download: link,
        limits: Limits::default(),
    }
}

fn machine(devices: impl IntoIterator<Item = DeviceModel>) -> Machine {
    Machine {
        corun: Vec::new(),
        devices: devices.into_iter().collect(),
    }
}

fn operand(role: Role, access: Access, len: usize, valid: &[(DeviceId, Range<usize>)]) -> Operand {
    let residency = valid
        .iter()
        .map(|(at, range)| (*at, RangeSet::from(range.clone())))
        .collect();
    Operand {
        role,
        access,
        len,
        element_bytes: 4,
        residency,
        read_back: 0.0,
    }
}

/// One array of `n` items, updated, valid in `places`, with `flops` operations for each item.
fn update(n: usize, flops: f64, places: &[DeviceId]) -> Request<'static> {
    let valid: Vec<_> = places.iter().map(|place| (*place, 0..n)).collect();
    let bytes = 4.0 * n as f64;
    Request {
        kernel: KernelKey::named("update"),
        items: n,
        border_grain: 64,
        work: Work {
            flops: flops * n as f64,
            bytes_read: bytes,
            bytes_written: bytes,
        },
        has_cpu: true,
        has_gpu: true,
        returned_bytes: 0,
        uniform_bytes: 0,
        operands: smallvec![operand(Role::ITEM, Access::ReadWrite, n, &valid)],
    }
}

/// A matrix of `rows` times `width` against a whole array of `whole` elements, all on the host.
fn rows_against(rows: usize, width: usize, whole: usize, role: Role) -> Request<'static> {
    let matrix = rows * width;
    Request {
        operands: smallvec![
            operand(Role::rows(width), Access::Read, matrix, &[(CPU, 0..matrix)]),
            operand(role, Access::Read, whole, &[(CPU, 0..whole)]),
        ],
        kernel: KernelKey::named("rows"),
        ..update(rows, 1e6, &[CPU])
    }
}

fn place(request: &Request<'_>, machine: &Machine, placement: Placement) -> Result<Plan> {
    plan(
        request,
        machine,
        &PlannerInput::default(),
        &placement,
        &Policy::default(),
    )
}

/// The plan, on a machine that can run the call.
#[track_caller]
fn planned(request: &Request<'_>, machine: &Machine, placement: Placement) -> Plan {
    place(request, machine, placement).expect("a device of the machine can run it")
}

fn devices(plan: &Plan) -> Vec<DeviceId> {
    plan.parts.iter().map(|part| part.device).collect()
}

/// Items that `device` gets.
fn share(plan: &Plan, device: DeviceId) -> usize {
    plan.parts
        .iter()
        .filter(|part| part.device == device)
        .map(|part| part.range.len())
        .sum()
}

#[track_caller]
fn near(got: f64, want: f64) {
    assert!(
        (got - want).abs() <= 1e-9 * want.abs(),
        "{got} is not {want}"
    );
}

#[test]
fn no_items_means_no_parts_and_no_time() {
    let here = machine([cpu(), gpu(0, 10.0)]);
    let placements = [
        Placement::Auto,
        Placement::Cpu,
        Placement::Gpu(0),
        Placement::split(0.5),
    ];
    for placement in placements {
        assert_eq!(
            planned(&update(0, 1.0, &[CPU]), &here, placement),
            Plan::default()
        );
    }
}

#[test]
fn the_cpu_uses_one_thread_until_the_pool_is_faster() {
    let here = machine([cpu()]);
    for placement in [Placement::Auto, Placement::Cpu] {
        let threads =
            |n| planned(&update(n, 0.0, &[CPU]), &here, placement.clone()).parts[0].threads;
        // 8 bytes an item: one thread takes as long as two and the 10 µs at 50,000.
        assert_eq!((threads(1), threads(49_000), threads(51_000)), (1, 1, 2));
    }
}

#[test]
fn a_prediction_is_launch_transfer_and_roofline() {
    let here = machine([cpu(), gpu(0, 10.0)]);
    let n = 1_000_000;
    let on_gpu = |flops, places: &[DeviceId]| {
        let plan = planned(&update(n, flops, places), &here, Placement::Gpu(0));
        near(plan.predicted_seconds, plan.parts[0].predicted.seconds());
        plan.parts[0].predicted
    };
    let memory_bound = on_gpu(1.0, &[CPU]);
    near(memory_bound.launch, 2e-5);
    near(memory_bound.upload, 5e-6 + 4e6 / 1e10);
    near(memory_bound.compute, 8e6 / 4e11);
    near(memory_bound.download, 0.0);
    near(on_gpu(1000.0, &[CPU]).compute, 1e9 / 2e12);
    near(on_gpu(1.0, &[CPU, GPU0]).upload, 0.0);
}

#[test]
fn a_transfer_counts_only_bytes_that_are_missing_and_read() {
    let here = machine([cpu(), gpu(0, 10.0), gpu(1, 10.0)]);
    let n = 1000;
    let predict = |access, valid: &[(DeviceId, Range<usize>)], placement| {
        let request = Request {
            operands: smallvec![operand(Role::ITEM, access, n, valid)],
            ..update(n, 1.0, &[])
        };
        planned(&request, &here, placement).parts[0].predicted
    };
    let moving = |elements: f64| 5e-6 + elements * 4.0 / 1e10;
    let partly = [(CPU, 0..n), (GPU0, 0..300)];
    near(
        predict(Access::Read, &partly, Placement::Gpu(0)).upload,
        moving(700.0),
    );
    near(
        predict(Access::Write, &partly, Placement::Gpu(0)).upload,
        0.0,
    );
    near(
        predict(Access::ReadWrite, &partly, Placement::Cpu).download,
        0.0,
    );
    let scattered = [(CPU, 0..400), (GPU0, 400..900), (GPU1, 900..n)];
    near(
        predict(Access::Read, &scattered, Placement::Cpu).download,
        moving(500.0) + moving(100.0),
    );
    // From one GPU to the other through the host.
    let across = predict(Access::Read, &[(GPU1, 0..n)], Placement::Gpu(0));
    near(across.upload, moving(1000.0));
    near(across.download, moving(1000.0));
}

#[test]
fn a_value_is_read_back_from_a_gpu_only() {
    let here = machine([cpu(), gpu(0, 10.0)]);
    let request = Request {
        returned_bytes: 4,
        ..update(1000, 1.0, &[CPU, GPU0])
    };
    let download = |placement| {
        planned(&request, &here, placement).parts[0]
            .predicted
            .download
    };
    // The launch already contains the wait.
    near(download(Placement::Gpu(0)), 4.0 / 1e10);
    near(download(Placement::Cpu), 0.0);
}

#[test]
fn a_part_larger_than_a_binding_takes_further_dispatches() {
    let mut small = gpu(0, 10.0);
    small.limits.max_binding_bytes = Some(1 << 20);
    let here = machine([small]);
    let launch = |n| {
        planned(&update(n, 1.0, &[GPU0]), &here, Placement::Gpu(0)).parts[0]
            .predicted
            .launch
    };
    // A window may begin up to 64 elements early.
    near(launch((1 << 18) - 64), 2e-5);
    near(launch((1 << 18) - 63), 2e-5 + 2e-6);
    near(launch(1 << 20), 2e-5 + 4.0 * 2e-6);
}

#[test]
fn the_error_names_a_missing_device() {
    let here = machine([gpu(0, 1.0), cpu()]);
    let split = Placement::Split(vec![(CPU, 0.5), (GPU1, 0.5)]);
    for placement in [Placement::Gpu(1), split] {
        let error = place(&update(100, 1.0, &[CPU]), &here, placement).unwrap_err();
        assert!(
            matches!(&error, Error::NoSuchDevice { wanted, available }
            if wanted == "gpu1" && available == "cpu, gpu0"),
            "{error}"
        );
    }
    let error = place(&update(100, 1.0, &[CPU]), &machine([]), Placement::Cpu).unwrap_err();
    assert!(
        matches!(&error, Error::NoSuchDevice { available, .. } if available == "none"),
        "{error}"
    );
}

#[test]
fn shares_that_do_not_sum_to_one_are_refused() {
    let shares = Placement::Split(vec![(CPU, 0.5), (GPU0, 0.6)]);
    let error = place(
        &update(100, 1.0, &[CPU]),
        &machine([cpu(), gpu(0, 1.0)]),
        shares,
    )
    .unwrap_err();
    assert!(error.to_string().contains("sum to 1.1"), "{error}");
}

#[test]
fn a_device_without_an_implementation_is_ruled_out() {
    let here = machine([cpu(), gpu(0, 1e3)]);
    let cpu_only = Request {
        has_gpu: false,
        ..update(1 << 24, 1e4, &[CPU])
    };
    assert_eq!(devices(&planned(&cpu_only, &here, Placement::Auto)), [CPU]);
    let error = place(&cpu_only, &here, Placement::split(0.5))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("update") && error.contains("gpu0: the kernel has no implementation"),
        "{error}"
    );

    let gpu_only = Request {
        has_cpu: false,
        ..update(10, 1.0, &[CPU])
    };
    assert_eq!(devices(&planned(&gpu_only, &here, Placement::Auto)), [GPU0]);
    let error = place(&gpu_only, &machine([cpu()]), Placement::Auto)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("cpu: the kernel has no implementation") && error.contains("no GPU"),
        "{error}"
    );
}

#[test]
fn an_array_read_whole_must_fit_a_binding_unless_it_is_windowed() {
    let mut small = gpu(0, 1e3);
    small.limits.max_binding_bytes = Some(1 << 20);
    let here = machine([cpu(), small]);
    let fits = rows_against(512, 16, 1 << 18, Role::Whole);
    assert_eq!(devices(&planned(&fits, &here, Placement::Auto)), [GPU0]);
    let larger = rows_against(512, 16, (1 << 18) + 1, Role::Whole);
    assert_eq!(devices(&planned(&larger, &here, Placement::Auto)), [CPU]);
    let error = place(&larger, &here, Placement::Gpu(0))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("array 1") && error.contains("1048580") && error.contains("1048576"),
        "{error}"
    );
    let windowed = rows_against(512, 16, (1 << 18) + 1, Role::WholeWindowed);
    assert_eq!(devices(&planned(&windowed, &here, Placement::Auto)), [GPU0]);
    // Rows so wide that 64 of them, the border grain, do not fit.
    let wide = rows_against(128, 1 << 13, 16, Role::Whole);
    assert!(
        place(&wide, &here, Placement::Gpu(0))
            .unwrap_err()
            .to_string()
            .contains("array 0")
    );
}

#[test]
fn arrays_must_fit_the_device() {
    let mut small = gpu(0, 1e3);
    small.limits = Limits {
        max_buffer_bytes: Some(1 << 20),
        memory_bytes: Some(4 << 20),
        ..Limits::default()
    };
    let here = machine([cpu(), small]);
    let error = place(
        &update((1 << 20) + 1, 1.0, &[CPU]),
        &here,
        Placement::Gpu(0),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("4194308 bytes; it has 4194304"),
        "{error}"
    );
    // Items may be spread over several buffers, but not an array that is bound whole.
    assert!(place(&update(1 << 20, 1.0, &[CPU]), &here, Placement::Gpu(0)).is_ok());
    let whole = |role| rows_against(64, 1, (1 << 18) + 1, role);
    let error = place(&whole(Role::Whole), &here, Placement::Gpu(0)).unwrap_err();
    assert!(
        error.to_string().contains("one buffer of 1048580"),
        "{error}"
    );
    assert!(place(&whole(Role::WholeWindowed), &here, Placement::Gpu(0)).is_ok());
}

/// A GPU that streams arrays of more than this many bytes.
fn with_budget(bytes: u64) -> Machine {
    let mut small = gpu(0, 1e3);
    small.limits = Limits {
        budget_bytes: Some(bytes),
        memory_bytes: Some(bytes / 2),
        ..Limits::default()
    };
    machine([cpu(), small])
}

#[test]
fn arrays_larger_than_the_budget_add_transfers() {
    let seconds = |request: &Request<'_>, bytes| {
        planned(request, &with_budget(bytes), Placement::Gpu(0)).parts[0].predicted
    };
    let n = 1 << 20;
    // 4 MiB on the GPU, of which 1 MiB fits in the second case.
    let here = update(n, 1.0, &[GPU0]);
    let (plenty, scarce) = (seconds(&here, 64 << 20), seconds(&here, 1 << 20));
    assert_eq!((plenty.upload, plenty.download), (0.0, 0.0));
    // 3 MiB at 1e10 bytes per second, and the link's latency, each way.
    let moving = 5e-6 + 3.0 * f64::from(1 << 20) / 1e10;
    assert!((scarce.upload - moving).abs() < 1e-9, "{scarce:?}");
    assert!(scarce.download >= moving, "{scarce:?}");
    assert!(scarce.launch > plenty.launch, "several dispatches");
}

#[test]
fn an_array_that_every_tile_reads_must_fit_the_budget_unless_it_is_windowed() {
    let rows = |role| rows_against(1 << 14, 64, 1 << 20, role);
    let error = place(&rows(Role::Whole), &with_budget(4 << 20), Placement::Gpu(0)).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("least piece") && text.contains("4194304"),
        "{text}"
    );
    let windowed = rows(Role::WholeWindowed);
    let pieces = planned(&windowed, &with_budget(4 << 20), Placement::Gpu(0));
    let plenty = planned(&windowed, &with_budget(64 << 20), Placement::Gpu(0));
    // It is read again for every tile.
    let [few, many] = [&plenty, &pieces].map(|plan| plan.parts[0].predicted.upload);
    assert!(many > 1.4 * few, "{many} {few}");
}

#[test]
fn more_arrays_and_larger_uniforms_than_can_be_bound_are_refused() {
    let mut small = gpu(0, 1e3);
    small.limits = Limits {
        max_arrays: Some(1),
        max_uniform_bytes: Some(256),
        ..Limits::default()
    };
    let here = machine([cpu(), small]);
    let two = rows_against(512, 16, 1 << 10, Role::Whole);
    assert_eq!(devices(&planned(&two, &here, Placement::Auto)), [CPU]);
    let refusal = |request: &Request<'_>| {
        let error = place(request, &here, Placement::Gpu(0)).unwrap_err();
        error.to_string()
    };
    assert!(
        refusal(&two).contains("binds 2 arrays"),
        "{}",
        refusal(&two)
    );
    let one = update(1 << 20, 1.0, &[CPU]);
    assert_eq!(devices(&planned(&one, &here, Placement::Gpu(0))), [GPU0]);
    let large = Request {
        uniform_bytes: 257,
        ..one
    };
    assert!(refusal(&large).contains("257 bytes"), "{}", refusal(&large));
}

#[test]
fn a_call_that_fits_no_device_alone_is_split_if_its_parts_fit() {
    let limited = |index| DeviceModel {
        limits: Limits {
            memory_bytes: Some(3 << 20),
            ..Limits::default()
        },
        ..gpu(index, 1.0)
    };
    let request = Request {
        has_cpu: false,
        ..update(1 << 20, 1.0, &[CPU])
    };
    let plan = planned(
        &request,
        &machine([limited(0), limited(1)]),
        Placement::Auto,
    );
    assert_eq!(devices(&plan), [GPU0, GPU1]);
    assert!(place(&request, &machine([limited(0)]), Placement::Auto).is_err());
}

#[test]
fn auto_uses_a_software_adapter_only_if_the_cpu_cannot_run_the_call() {
    let software = DeviceModel {
        kind: DeviceKind::Software,
        ..gpu(0, 100.0)
    };
    let here = machine([cpu(), software.clone()]);
    for places in [&[CPU][..], &[GPU0], &[CPU, GPU0]] {
        for n in [1, 1000, 1 << 24] {
            let request = update(n, 1e4, places);
            assert_eq!(devices(&planned(&request, &here, Placement::Auto)), [CPU]);
            assert_eq!(
                devices(&planned(&request, &here, Placement::Gpu(0))),
                [GPU0]
            );
        }
    }
    let gpu_only = Request {
        has_cpu: false,
        ..update(1000, 1.0, &[CPU])
    };
    assert_eq!(devices(&planned(&gpu_only, &here, Placement::Auto)), [GPU0]);
    // A runtime without a CPU has no other device either.
    let request = update(1000, 1.0, &[CPU]);
    assert_eq!(
        devices(&planned(&request, &machine([software]), Placement::Auto)),
        [GPU0]
    );
}

#[test]
fn software_adapters_never_share_work() {
    let software = DeviceModel {
        kind: DeviceKind::Software,
        ..gpu(0, 1.0)
    };
    let here = machine([
        software.clone(),
        DeviceModel {
            id: GPU1,
            ..software
        },
        cpu(),
    ]);
    let request = update(1 << 24, 1e4, &[CPU]);
    assert_eq!(devices(&planned(&request, &here, Placement::Auto)), [CPU]);
    let gpu_only = Request {
        has_cpu: false,
        ..request
    };
    assert_eq!(planned(&gpu_only, &here, Placement::Auto).parts.len(), 1);
}

#[test]
fn work_is_split_only_if_that_saves_enough() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let placed = |speed| planned(&request, &machine([cpu(), gpu(0, speed)]), Placement::Auto);
    let even = placed(1.0);
    assert_eq!(devices(&even), [GPU0, CPU]);
    assert!(
        share(&even, GPU0).abs_diff(share(&even, CPU)) < (1 << 24) / 100,
        "{even:?}"
    );
    // The GPU would do 7/8 and run 1.1 times slower: 3.75 % saved.
    assert_eq!(devices(&placed(7.0)), [GPU0]);
    assert_eq!(devices(&placed(1.0 / 7.0)), [CPU]);
    // Without slow-down and margin that would be a split, but 9:1 never is.
    let eager = Policy {
        split_gain: 0.0,
        corun_slowdown: 1.0,
        ..Policy::default()
    };
    for (speed, parts) in [(7.0, 2), (9.0, 1), (1.0 / 7.0, 2), (1.0 / 9.0, 1)] {
        let here = machine([cpu(), gpu(0, speed)]);
        let plan = plan(
            &request,
            &here,
            &PlannerInput::default(),
            &Placement::Auto,
            &eager,
        )
        .expect("a device of the machine can run it");
        assert_eq!(plan.parts.len(), parts, "speed {speed}: {plan:?}");
    }
}

#[test]
fn parts_slow_each_other_down() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let mut here = machine([cpu(), gpu(0, 1.0)]);
    let alone = |here: &Machine, at: DeviceId| {
        let split = Placement::Split(vec![(CPU, 0.5), (GPU0, 0.5)]);
        let plan = planned(&request, here, split);
        let part = plan
            .parts
            .iter()
            .find(|part| part.device == at)
            .expect("both have a part");
        assert_eq!(
            part.evidence.variant.beside,
            DeviceSet::EMPTY.with(CPU).with(GPU0).without(at)
        );
        near(
            plan.predicted_seconds,
            plan.parts
                .iter()
                .map(|part| part.predicted.seconds())
                .fold(0.0, f64::max),
        );
        part.predicted.seconds() / part.evidence.prior_seconds
    };
    near(alone(&here, CPU), 1.1);
    here.corun.push(CoRun {
        devices: [GPU0, CPU],
        compute: [1.3, 2.0],
        memory: [5.0, 6.0],
    });
    near(alone(&here, CPU), 2.0);
    near(alone(&here, GPU0), 1.3);
}

#[test]
fn an_array_read_whole_moves_to_each_device_of_a_split() {
    let here = machine([cpu(), gpu(0, 1.0), gpu(1, 1.0)]);
    let request = rows_against(1 << 12, 1, 1 << 20, Role::Whole);
    let both = Placement::Split(vec![(GPU0, 0.5), (GPU1, 0.5)]);
    for part in &planned(&request, &here, both).parts {
        let bytes = 4.0 * ((1 << 20) + (1 << 11)) as f64;
        near(part.predicted.upload, 1.1 * (5e-6 + bytes / 1e10));
    }
}

#[test]
fn a_forced_split_keeps_the_order_and_drops_what_is_empty() {
    let here = machine([cpu(), gpu(0, 1.0), gpu(1, 1.0)]);
    let ranges = |n, shares: &[(DeviceId, f64)]| {
        let plan = planned(
            &update(n, 1.0, &[CPU]),
            &here,
            Placement::Split(shares.to_vec()),
        );
        plan.parts
            .iter()
            .map(|part| (part.device, part.range.clone()))
            .collect::<Vec<_>>()
    };
    let thirds = [(GPU1, 0.25), (CPU, 0.5), (GPU0, 0.25)];
    assert_eq!(
        ranges(1000, &thirds),
        [(GPU1, 0..256), (CPU, 256..768), (GPU0, 768..1000)]
    );
    assert_eq!(ranges(64, &thirds), [(CPU, 0..64)]);
    assert_eq!(ranges(1, &thirds), [(GPU0, 0..1)]);
    assert_eq!(ranges(1000, &[(GPU0, 1.0), (CPU, 0.0)]), [(GPU0, 0..1000)]);
    assert_eq!(ranges(1000, &[(GPU0, 0.0), (CPU, 1.0)]), [(CPU, 0..1000)]);
}

#[test]
fn a_device_with_a_zero_share_need_not_be_able_to_run_the_call() {
    let here = machine([cpu(), gpu(0, 1.0)]);
    let cpu_only = Request {
        has_gpu: false,
        ..update(1000, 1.0, &[CPU])
    };
    assert_eq!(
        devices(&planned(&cpu_only, &here, Placement::split(0.0))),
        [CPU]
    );
}

#[test]
fn a_call_leaves_its_data_only_for_a_gain_of_a_tenth() {
    let quick = |speed| {
        let mut card = gpu(0, speed);
        card.upload = Link::from_rate(0.0, 1e15);
        card.engines[0].launch_seconds = 0.0;
        card
    };
    // No gain is large enough for a split here.
    let policy = Policy {
        split_gain: 1.0,
        ..Policy::default()
    };
    let chosen = |speed, places: &[DeviceId]| {
        let here = machine([cpu(), quick(speed)]);
        devices(
            &plan(
                &update(1 << 24, 1e4, places),
                &here,
                &PlannerInput::default(),
                &Placement::Auto,
                &policy,
            )
            .expect("a device of the machine can run it"),
        )
    };
    assert_eq!(chosen(1.05, &[CPU]), [CPU]);
    assert_eq!(chosen(1.15, &[CPU]), [GPU0]);
    assert_eq!(chosen(0.99, &[CPU, GPU0]), [CPU]);
    assert_eq!(chosen(1.05, &[CPU, GPU0]), [GPU0]);
    assert_eq!(chosen(0.95, &[GPU0]), [GPU0]);
    assert_eq!(chosen(0.1, &[GPU0]), [CPU]);
}

#[test]
fn absurd_work_gives_no_nan() {
    let here = machine([cpu(), gpu(0, 1.0)]);
    for flops in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, f64::MAX] {
        let work = Work {
            flops,
            bytes_read: flops,
            bytes_written: flops,
        };
        let request = Request {
            work,
            ..update(1 << 20, 1.0, &[CPU])
        };
        let plan = planned(&request, &here, Placement::Auto);
        assert!(
            plan.predicted_seconds.is_finite() && plan.predicted_seconds >= 0.0,
            "{plan:?}"
        );
    }
}
