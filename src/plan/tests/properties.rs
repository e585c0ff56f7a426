//! Properties of every plan, for any machine, call and performance model.

use super::super::load;
use super::*;
use crate::cost::learned::{Learner, Sample};
use crate::plan::explain;
use proptest::prelude::*;

/// A positive number whose logarithm is uniform.
fn around(low: f64, high: f64) -> impl Strategy<Value = f64> {
    (low.ln()..high.ln()).prop_map(f64::exp)
}

prop_compose! {
    fn any_curve()(values in prop::collection::vec(around(1e9, 1e12), 1..5)) -> Curve {
        let sizes = [65536.0, 1048576.0, 16777216.0, 134217728.0];
        Curve::new(sizes.into_iter().zip(values).map(|(size, value)| [size, value]).collect()).expect("ascending")
    }
}

prop_compose! {
    fn any_engine(threads: usize)(launch in prop_oneof![Just(0.0), around(1e-7, 1e-3)],
                                  flops in around(1e9, 1e14), bandwidth in any_curve()) -> Engine {
        Engine { threads, launch_seconds: launch, flops_per_second: flops, bandwidth }
    }
}

prop_compose! {
    fn any_link()(latency_seconds in prop_oneof![Just(0.0), around(1e-7, 1e-3)],
                  bytes_per_second in around(1e8, 1e12)) -> Link {
        Link::from_rate(latency_seconds, bytes_per_second).expect("positive")
    }
}

prop_compose! {
    fn any_gpu()(engine in any_engine(1), upload in any_link(), download in any_link(),
                 software in prop::bool::weighted(0.2),
                 binding in prop::option::of(4u64..(1 << 28)), memory in prop::option::of(4u64..(1 << 30)),
                 budget in prop::option::of(4096u64..(1 << 30))) -> DeviceModel {
        DeviceModel {
            kind: if software { DeviceKind::Software } else { DeviceKind::Discrete },
            engines: vec![engine],
            upload: Some(upload),
            download: Some(download),
            limits: Limits {
                max_binding_bytes: binding, max_buffer_bytes: binding, memory_bytes: memory, budget_bytes: budget,
                ..Limits::default()
            },
            ..gpu(0, 1.0)
        }
    }
}

prop_compose! {
    fn any_machine()(one in any_engine(1), pool in any_engine(8), gpus in prop::collection::vec(any_gpu(), 0..4)) -> Machine {
        let gpus = gpus.into_iter().enumerate().map(|(index, gpu)| DeviceModel { id: DeviceId::Gpu(index), ..gpu });
        machine(std::iter::once(DeviceModel { engines: vec![one, pool], ..cpu() }).chain(gpus))
    }
}

fn any_role() -> impl Strategy<Value = Role> {
    prop_oneof![
        Just(Role::ITEM),
        (1usize..9).prop_map(Role::rows),
        (1usize..300).prop_map(Role::per),
        (1usize..4, 0usize..9).prop_map(|(width, halo)| Role::Halo { width, halo }),
        Just(Role::Whole),
        Just(Role::WholeWindowed),
    ]
}

prop_compose! {
    fn any_operand(items: usize)(role in any_role(), access in 0usize..3, cut in 0.0f64..1.0, holder in 0usize..4,
                                 twice in any::<bool>()) -> Operand {
        let len = match role {
            Role::Items { num, den } => (items * num).div_ceil(den),
            Role::Halo { width, .. } => items * width,
            Role::Whole | Role::WholeWindowed => items,
        };
        let border = (cut * len as f64) as usize;
        let host = if twice { 0..len } else { 0..border };
        operand(role, [Access::Read, Access::Write, Access::ReadWrite][access], len,
                &[(CPU, host), (DeviceId::Gpu(holder), border..len)])
    }
}

prop_compose! {
    fn any_request()(items in prop_oneof![0usize..300, 0usize..(1 << 24)], grain in prop_oneof![Just(64usize), 1usize..1000])
                    (operands in prop::collection::vec(any_operand(items), 0..5), items in Just(items), grain in Just(grain),
                     flops in around(1e-3, 1e6), bytes in around(1e-3, 1e3), returned in 0usize..100,
                     has_cpu in prop::bool::weighted(0.9), has_gpu in prop::bool::weighted(0.9)) -> Request<'static> {
        let n = items as f64;
        Request {
            kernel: KernelKey::named("random"),
            items,
            border_grain: grain,
                work: Work { flops: flops * n, bytes_read: bytes * n, bytes_written: bytes * n },
            has_cpu,
            has_gpu,
            returned_bytes: returned,
            uniform_bytes: 0,
            operands: operands.into(),
        }
    }
}

prop_compose! {
    fn linear_gpu()(gpu in any_gpu(), bandwidth in around(1e9, 1e12)) -> DeviceModel {
        let bandwidth = Curve::constant(bandwidth).expect("positive");
        DeviceModel {
            engines: vec![Engine { bandwidth, ..gpu.engines[0].clone() }],
            queued_seconds: 0.0,
            limits: Limits::default(),
            ..gpu
        }
    }
}

prop_compose! {
    /// Devices without caches and limits, on which the time is linear in the items.
    fn linear_machine()(cpu_speed in around(0.1, 10.0), gpus in prop::collection::vec(linear_gpu(), 0..4)) -> Machine {
        let gpus = gpus.into_iter().enumerate().map(|(index, gpu)| DeviceModel { id: DeviceId::Gpu(index), ..gpu });
        machine(std::iter::once(faster(&cpu(), cpu_speed)).chain(gpus))
    }
}

prop_compose! {
    /// A call whose cost is proportional to its items, with its data on the host.
    fn linear_request()(request in any_request(), width in 0usize..5) -> Request<'static> {
        let n = request.items * width;
        let operands = smallvec![operand(Role::rows(width), Access::ReadWrite, n, &[(CPU, 0..n)])];
        Request { operands, ..request }
    }
}

fn faster(device: &DeviceModel, times: f64) -> DeviceModel {
    let link = |link: Option<Link>| {
        link.map(|link| {
            Link::from_rate(
                link.latency_seconds() / times,
                link.bytes_per_second() * times,
            )
            .expect("positive")
        })
    };
    let engines = device.engines.iter().map(|engine| {
        let points = engine
            .bandwidth
            .points()
            .iter()
            .map(|[size, value]| [*size, value * times]);
        Engine {
            threads: engine.threads,
            launch_seconds: engine.launch_seconds / times,
            flops_per_second: engine.flops_per_second * times,
            bandwidth: Curve::new(points.collect()).expect("still ascending"),
        }
    });
    DeviceModel {
        engines: engines.collect(),
        queued_seconds: device.queued_seconds / times,
        upload: link(device.upload.clone()),
        download: link(device.download.clone()),
        ..device.clone()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_plan_covers_the_items_once_at_allowed_borders(request in any_request(), here in any_machine()) {
        let Ok(plan) = place(&request, &here, Placement::Auto) else { return Ok(()) };
        let mut at = 0;
        for part in &plan.parts {
            prop_assert_eq!(part.range.start, at);
            prop_assert!(!part.range.is_empty());
            prop_assert!(part.range.end == request.items || part.range.end % request.border_grain == 0);
            let predicted = part.predicted;
            for seconds in [predicted.launch, predicted.upload, predicted.compute, predicted.download] {
                prop_assert!(seconds.is_finite() && seconds >= 0.0, "{:?}", part);
            }
            at = part.range.end;
        }
        prop_assert_eq!(at, request.items);
        prop_assert!(plan.predicted_seconds.is_finite() && plan.predicted_seconds >= 0.0);
    }

    #[test]
    fn auto_is_never_worse_than_a_device_it_could_have_taken(request in any_request(), here in any_machine()) {
        let auto = place(&request, &here, Placement::Auto);
        let free = Policy { hysteresis: 0.0, ..Policy::default() };
        let unbound = plan(&request, &here, &PlannerInput::default(), &Placement::Auto, &free);
        for device in here.devices.iter().filter(|device| device.kind != DeviceKind::Software) {
            let Ok(alone) = place(&request, &here, device.id.into()) else { continue };
            let possible = "one device alone can run it";
            let (auto, unbound) = (auto.as_ref().expect(possible), unbound.as_ref().expect(possible));
            prop_assert!(unbound.predicted_seconds <= alone.predicted_seconds);
            prop_assert!(0.9 * auto.predicted_seconds <= alone.predicted_seconds * (1.0 + 1e-12));
        }
    }

    #[test]
    fn every_part_that_auto_plans_can_run(request in any_request(), here in any_machine()) {
        let Ok(auto) = place(&request, &here, Placement::Auto) else { return Ok(()) };
        for part in &auto.parts {
            let device = here.device(part.device).expect("parts run on devices of the machine");
            if auto.parts.len() == 1 {
                prop_assert!(place(&request, &here, part.device.into()).is_ok());
            }
            let bytes = |whole: bool| -> u64 {
                let operands = request.operands.iter().filter(|operand| !whole || operand.role == Role::Whole);
                operands.map(|o| o.role.elements(&part.range, request.items, o.len).len() as u64 * 4).sum()
            };
            let limits = &device.limits;
            prop_assert!(limits.budget_bytes.is_some() || limits.memory_bytes.is_none_or(|limit| bytes(false) <= limit));
            // An array that every tile reads whole fits.
            prop_assert!(limits.budget_bytes.is_none_or(|limit| bytes(true) <= limit));
            let largest = request.operands.iter().filter(|o| o.role == Role::Whole).map(|o| o.len as u64 * 4).max();
            prop_assert!(device.limits.max_binding_bytes.is_none_or(|limit| largest.unwrap_or(0) <= limit));
            let implemented = if part.device == CPU { request.has_cpu } else { request.has_gpu };
            prop_assert!(implemented);
            let cpu_could = request.has_cpu;
            prop_assert!(device.kind != DeviceKind::Software || (!cpu_could && auto.parts.len() == 1));
        }
    }

    #[test]
    fn a_device_that_becomes_faster_never_gets_less(request in linear_request(), here in linear_machine(),
                                                    which in 0usize..4, times in 1.0f64..20.0) {
        let which = which % here.devices.len();
        let id = here.devices[which].id;
        let mut later = here.clone();
        later.devices[which] = faster(&here.devices[which], times);
        let Ok(before) = place(&request, &here, Placement::Auto) else { return Ok(()) };
        let after = place(&request, &later, Placement::Auto).expect("it could before");
        let (before, after) = (share(&before, id), share(&after, id));
        // Each end of a part is rounded to a border, up or down.
        prop_assert!(after + 2 * request.border_grain >= before, "{} then {}", before, after);
    }

    #[test]
    fn of_two_devices_the_faster_one_never_gets_less(request in linear_request(), here in linear_machine(),
                                                     slow in linear_gpu(), swap in any::<bool>()) {
        let fast = DeviceModel { id: DeviceId::Gpu(usize::from(swap)), ..faster(&slow, 2.0) };
        let slow = DeviceModel { id: DeviceId::Gpu(usize::from(!swap)), ..slow };
        let (fast_id, slow_id) = (fast.id, slow.id);
        let here = machine([here.devices[0].clone(), fast, slow]);
        let Ok(plan) = place(&request, &here, Placement::Auto) else { return Ok(()) };
        prop_assert!(share(&plan, fast_id) + request.border_grain >= share(&plan, slow_id), "{:?}", plan);
    }

    #[test]
    fn an_explanation_agrees_with_the_plan(request in any_request(), here in any_machine(), which in 0usize..7) {
        let placement = match which {
            0..3 => Placement::Auto,
            3 => Placement::Cpu,
            4 => Placement::Gpu(0),
            5 => Placement::split(0.3),
            _ => Placement::Split(vec![(CPU, 0.5), (GPU1, 0.5)]),
        };
        let policy = Policy::default();
        let plan = plan(&request, &here, &PlannerInput::default(), &placement, &policy);
        let explanation = explain(&request, &here, &PlannerInput::default(), &placement, &policy);
        let (plan, explanation) = match (plan, explanation) {
            (Ok(plan), Ok(explanation)) => (plan, explanation),
            (Err(plan), Err(explanation)) => {
                prop_assert_eq!(plan.to_string(), explanation.to_string());
                return Ok(());
            }
            (plan, explanation) => panic!("{plan:?} but {explanation:?}"),
        };
        let chosen = &explanation.candidates[explanation.choice];
        prop_assert_eq!(chosen.predicted_seconds, plan.predicted_seconds);
        prop_assert_eq!(chosen.parts.len(), plan.parts.len());
        for (shown, part) in chosen.parts.iter().zip(&plan.parts) {
            prop_assert_eq!((shown.device, shown.threads, shown.range, shown.predicted),
                            (part.device, part.threads, [part.range.start, part.range.end], part.predicted));
        }
        let times: Vec<_> = explanation.candidates.iter().map(|c| c.predicted_seconds).collect();
        prop_assert!(times.is_sorted(), "{:?}", times);
        // Every device is either shown or ruled out.
        for device in here.devices.iter().filter(|_| request.items > 0 && placement == Placement::Auto) {
            let shown = explanation.candidates.iter().flat_map(|c| &c.parts).any(|p| p.device == device.id);
            prop_assert!(shown || explanation.ruled_out.iter().any(|e| e.device == device.id));
        }
    }
}

/// A measured variant.
#[derive(Clone, Debug)]
struct Run {
    device: usize,
    /// Whether all threads ran it.
    pool: bool,
    /// The devices beside it, as bits.
    beside: u8,
    moved: bool,
    /// Its size over that of the call, as log2.
    octaves: f64,
    log_factor: f64,
    /// Samples.
    times: usize,
}

fn any_run(octaves: Range<f64>, factor: f64) -> impl Strategy<Value = Run> {
    let octaves = prop_oneof![Just(0.0), octaves];
    let beside = prop_oneof![Just(0u8), any::<u8>()];
    (
        0usize..5,
        any::<bool>(),
        beside,
        any::<bool>(),
        octaves,
        -factor..factor,
        1usize..40,
    )
        .prop_map(
            |(device, pool, beside, moved, octaves, log_factor, times)| Run {
                device,
                pool,
                beside,
                moved,
                octaves,
                log_factor,
                times,
            },
        )
}

fn device_at(at: usize) -> DeviceId {
    at.checked_sub(1).map_or(CPU, DeviceId::Gpu)
}

/// The performance model after these runs.
fn perf_model(request: &Request<'_>, runs: &[Run]) -> PerfModel {
    let learner = Learner::new();
    let size = load::size(request, request.items);
    for run in runs {
        let threads = if run.device == 0 && run.pool { 8 } else { 1 };
        let beside = (0..5).filter(|at| run.beside >> at & 1 == 1 && *at != run.device);
        let sample = Sample {
            variant: Variant {
                device: device_at(run.device),
                threads,
                beside: beside.map(device_at).collect(),
                moved: run.moved,
            },
            size: size + run.octaves,
            prior_seconds: 1.0,
            seconds: run.log_factor.exp(),
        };
        (0..run.times).for_each(|_| learner.observe(&request.kernel, size, [sample]));
    }
    learner.perf_model(&request.kernel)
}

/// What the planner knows beyond the rates of the machine.
#[derive(Clone, Debug)]
struct Known {
    runs: Vec<Run>,
    backlog: Vec<Backlog>,
    /// Devices that compile, as bits.
    compiling: u8,
    exploration_budget: Option<ExplorationBudget>,
    corun: Vec<SlowDown>,
}

#[derive(Clone, Debug)]
struct Backlog {
    device: usize,
    seconds: f64,
}

/// How much two devices slow each other down.
#[derive(Clone, Debug)]
struct SlowDown {
    one: usize,
    other: usize,
    factors: [f64; 2],
}

prop_compose! {
    fn any_backlog()(device in 0usize..5, seconds in around(1e-7, 1e-1)) -> Backlog {
        Backlog { device, seconds }
    }
}

prop_compose! {
    fn any_budget()(seconds in around(1e-6, 1e3), price in prop_oneof![Just(0.0), around(1e-3, 1e3)]) -> ExplorationBudget {
        ExplorationBudget { seconds, price }
    }
}

prop_compose! {
    fn any_slow_down()(one in 0usize..5, other in 0usize..5, factors in [around(0.8, 4.0), around(0.8, 4.0)]) -> SlowDown {
        SlowDown { one, other, factors }
    }
}

prop_compose! {
    fn anything_known()(
        runs in prop::collection::vec(any_run(-4.0..2.0, 4.0), 0..12),
        backlog in prop::collection::vec(any_backlog(), 0..3),
        compiling in prop_oneof![2 => Just(0u8), 1 => any::<u8>()],
        exploration_budget in prop::option::of(any_budget()),
        corun in prop::collection::vec(any_slow_down(), 0..4),
    ) -> Known {
        Known { runs, backlog, compiling, exploration_budget, corun }
    }
}

impl Known {
    fn input(&self, request: &Request<'_>) -> PlannerInput {
        PlannerInput {
            perf_model: perf_model(request, &self.runs),
            exploration_budget: self.exploration_budget.unwrap_or_default(),
            backlog: self
                .backlog
                .iter()
                .map(|backlog| (device_at(backlog.device), backlog.seconds))
                .collect(),
            // The CPU compiles nothing.
            compiling: (1..5)
                .filter(|at| self.compiling >> at & 1 == 1)
                .map(device_at)
                .collect(),
            ..PlannerInput::default()
        }
    }

    fn slow_down(&self, here: &Machine) -> Machine {
        let mut here = here.clone();
        for pair in self.corun.iter().filter(|pair| pair.one != pair.other) {
            let devices = [device_at(pair.one), device_at(pair.other)];
            here.corun.push(CoRun {
                devices,
                compute: pair.factors,
                memory: pair.factors,
            });
        }
        here
    }
}

/// Whether a device alone may be chosen, given its forced plan.
fn may_be_chosen(alone: &Plan, request: &Request<'_>, here: &Machine) -> bool {
    let [part] = &alone.parts[..] else {
        return false;
    };
    let device = here.device(part.device).expect("it is of this machine");
    let measured = part.evidence.samples >= 3 && !part.evidence.extrapolated;
    device.kind != DeviceKind::Software || !request.has_cpu || measured
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn with_any_input_a_plan_is_possible_and_finite(request in any_request(), here in any_machine(),
                                                    known in anything_known()) {
        let (known, here) = (known.input(&request), known.slow_down(&here));
        let policy = Policy::default();
        let Ok(auto) = plan(&request, &here, &known, &Placement::Auto, &policy) else { return Ok(()) };
        prop_assert!(auto.predicted_seconds.is_finite() && auto.predicted_seconds >= 0.0);
        let mut at = 0;
        for part in &auto.parts {
            prop_assert_eq!(part.range.start, at);
            prop_assert!(!part.range.is_empty());
            prop_assert!(part.range.end == request.items || part.range.end % request.border_grain == 0);
            at = part.range.end;
            let p = part.predicted;
            for seconds in [p.wait, p.launch, p.upload, p.compute, p.download, part.evidence.uncertainty] {
                prop_assert!(seconds.is_finite() && seconds >= 0.0, "{:?}", part);
            }
            let device = here.device(part.device).expect("parts run on devices of the machine");
            let implemented = if part.device == CPU { request.has_cpu } else { request.has_gpu };
            prop_assert!(implemented);
            if let [only] = &auto.parts[..] {
                let alone = plan(&request, &here, &known, &only.device.into(), &policy);
                prop_assert!(may_be_chosen(&alone.expect("it was chosen"), &request, &here));
            } else {
                prop_assert!(device.kind != DeviceKind::Software);
            }
        }
        prop_assert_eq!(at, request.items);
        // A plan awaits only devices that compile, and runs on others.
        prop_assert!(auto.awaits.iter().all(|id| known.compiling.contains(id)));
        prop_assert!(auto.parts.iter().all(|part| !auto.awaits.contains(part.device)));
        let others = here.devices.iter().filter(|d| !known.compiling.contains(d.id));
        let ready = others.filter_map(|d| plan(&request, &here, &known, &d.id.into(), &policy).ok());
        if ready.into_iter().any(|alone| may_be_chosen(&alone, &request, &here)) {
            prop_assert!(auto.parts.iter().all(|part| !known.compiling.contains(part.device)));
        }
    }

    #[test]
    fn with_any_input_auto_is_never_worse_than_a_device_it_could_have_taken(
        request in any_request(), here in any_machine(), known in anything_known()) {
        let here = known.slow_down(&here);
        let known = PlannerInput { exploration_budget: ExplorationBudget::default(), ..known.input(&request) };
        let policy = Policy::default();
        let free = Policy { hysteresis: 0.0, ..policy };
        let auto = plan(&request, &here, &known, &Placement::Auto, &policy);
        let unbound = plan(&request, &here, &known, &Placement::Auto, &free);
        let may_be_ready = |alone: &Plan| alone.parts.iter().all(|part| !known.compiling.contains(part.device));
        let alone = here.devices.iter().filter_map(|d| plan(&request, &here, &known, &d.id.into(), &policy).ok());
        let alone: Vec<_> = alone.filter(|alone| may_be_chosen(alone, &request, &here)).collect();
        let any_ready = alone.iter().any(may_be_ready);
        for alone in alone.iter().filter(|alone| !any_ready || may_be_ready(alone)) {
            let possible = "one device alone can run it";
            let (auto, unbound) = (auto.as_ref().expect(possible), unbound.as_ref().expect(possible));
            prop_assert!(unbound.predicted_seconds <= alone.predicted_seconds * (1.0 + 1e-12));
            prop_assert!(0.9 * auto.predicted_seconds <= alone.predicted_seconds * (1.0 + 1e-12));
        }
    }

    #[test]
    fn exploration_stays_within_the_budget_and_three_times_the_best(
        request in any_request(), here in any_machine(), known in anything_known()) {
        let (known, here) = (known.input(&request), known.slow_down(&here));
        let policy = Policy::default();
        let Ok(auto) = plan(&request, &here, &known, &Placement::Auto, &policy) else { return Ok(()) };
        let thrifty = PlannerInput { exploration_budget: ExplorationBudget::default(), ..known.clone() };
        let best = plan(&request, &here, &thrifty, &Placement::Auto, &policy).expect("it is possible with a budget");
        prop_assert!(!best.exploring);
        if auto.exploring {
            prop_assert!(auto.predicted_seconds <= known.exploration_budget.seconds);
            prop_assert!(auto.predicted_seconds <= 3.0 * best.predicted_seconds);
            prop_assert!(auto.awaits.is_empty());
        }
    }

    /// Only without splits: in a split, factors learned at other sizes may favour another device.
    #[test]
    fn with_any_input_a_device_that_becomes_faster_keeps_the_call(
        request in linear_request(), here in linear_machine(), known in anything_known(), which in 0usize..4,
        times in 1.0f64..20.0) {
        let request = Request { border_grain: request.items.max(1), ..request };
        let known = PlannerInput { exploration_budget: ExplorationBudget::default(), ..known.input(&request) };
        let which = which % here.devices.len();
        let id = here.devices[which].id;
        let mut later = here.clone();
        later.devices[which] = faster(&here.devices[which], times);
        let placed = |here: &Machine| plan(&request, here, &known, &Placement::Auto, &Policy::default());
        let Ok(before) = placed(&here) else { return Ok(()) };
        prop_assert!(share(&placed(&later).expect("it could before"), id) >= share(&before, id));
    }

    /// Both have the same measurements and backlog, of one variant only: with several, the older one counts less.
    #[test]
    fn with_any_input_the_faster_of_two_devices_gets_the_call(
        request in linear_request(), slow in linear_gpu(), runs in prop::collection::vec(any_run(-4.0..2.0, 4.0), 0..2),
        busy in around(1e-7, 1e-1), swap in any::<bool>()) {
        let request = Request { border_grain: request.items.max(1), has_cpu: false, ..request };
        let fast = DeviceModel { id: DeviceId::Gpu(usize::from(swap)), ..faster(&slow, 2.0) };
        let slow = DeviceModel { id: DeviceId::Gpu(usize::from(!swap)), ..slow };
        let (fast_id, slow_id) = (fast.id, slow.id);
        let here = machine([fast, slow]);
        let both = runs.iter().flat_map(|run| [1, 2].map(|device| Run { device, beside: 0, ..run.clone() }));
        let known = PlannerInput {
            perf_model: perf_model(&request, &both.collect::<Vec<_>>()),
            backlog: smallvec![(GPU0, busy), (GPU1, busy)],
            ..PlannerInput::default()
        };
        let Ok(plan) = plan(&request, &here, &known, &Placement::Auto, &Policy::default()) else { return Ok(()) };
        prop_assert!(share(&plan, fast_id) >= share(&plan, slow_id), "{:?}", plan);
    }

    #[test]
    fn with_any_input_an_explanation_agrees_with_the_plan(
        request in any_request(), here in any_machine(), known in anything_known()) {
        let (known, here) = (known.input(&request), known.slow_down(&here));
        let policy = Policy::default();
        let Ok(plan) = plan(&request, &here, &known, &Placement::Auto, &policy) else { return Ok(()) };
        let explanation = explain(&request, &here, &known, &Placement::Auto, &policy).expect("it was planned");
        let chosen = &explanation.candidates[explanation.choice];
        prop_assert_eq!(chosen.predicted_seconds, plan.predicted_seconds);
        let shown: Vec<_> = chosen.parts.iter().map(|part| (part.device, part.threads, part.range)).collect();
        let planned: Vec<_> = plan.parts.iter().map(|p| (p.device, p.threads, [p.range.start, p.range.end])).collect();
        prop_assert_eq!(shown, planned);
        prop_assert_eq!(plan.exploring, explanation.reason.starts_with("it may be faster"));
    }

    #[test]
    fn absurd_measurements_give_a_finite_plan(
        request in any_request(), here in any_machine(), runs in prop::collection::vec(any_run(-60.0..60.0, 29.0), 0..12)) {
        let known = PlannerInput {
            perf_model: perf_model(&request, &runs),
            exploration_budget: ExplorationBudget { seconds: 1e9, price: 0.0 },
            ..PlannerInput::default()
        };
        let Ok(plan) = plan(&request, &here, &known, &Placement::Auto, &Policy::default()) else { return Ok(()) };
        prop_assert!(plan.predicted_seconds.is_finite() && plan.predicted_seconds >= 0.0, "{:?}", plan);
        let known: Vec<_> = plan.parts.iter().map(|part| part.evidence.uncertainty).collect();
        prop_assert!(known.iter().all(|uncertainty| uncertainty.is_finite()), "{:?}", plan);
    }
}
