//! Plans from measurements, backlogs and pipelines that are not compiled: one test for each rule of the cost model.

use super::super::load;
use super::*;
use crate::cost::learned::{Learner, Sample};
use crate::plan::explain;

/// Samples after which a variant is settled.
const SETTLED: usize = 32;
/// More than any call here costs.
const PLENTY: ExplorationBudget = ExplorationBudget {
    seconds: 1e6,
    price: 0.0,
};

fn alone(device: DeviceId, threads: usize) -> Variant {
    Variant {
        device,
        threads,
        beside: DeviceSet::EMPTY,
        moved: false,
    }
}

fn beside(device: DeviceId, threads: usize, other: DeviceId) -> Variant {
    Variant {
        beside: DeviceSet::EMPTY.with(other),
        ..alone(device, threads)
    }
}

/// One core alone, both cores, and the first GPU without transfers.
const ONE: Threads = Threads::new(CPU, 1);
const POOL: Threads = Threads::new(CPU, 2);
const CARD: Threads = Threads::new(GPU0, 1);

/// A device with a number of its threads.
#[derive(Clone, Copy)]
struct Threads {
    device: DeviceId,
    threads: usize,
}

impl Threads {
    const fn new(device: DeviceId, threads: usize) -> Self {
        Self { device, threads }
    }
}

/// Measurements of a request: variants, the share of its items, and factors over the prior.
struct History<'a> {
    request: &'a Request<'a>,
    learner: Learner,
}

impl<'a> History<'a> {
    fn of(request: &'a Request<'a>) -> Self {
        Self {
            request,
            learner: Learner::new(),
        }
    }

    fn add(self, variant: Variant, share: f64, factors: impl IntoIterator<Item = f64>) -> Self {
        let items = (share * self.request.items as f64) as usize;
        for factor in factors {
            let sample = Sample {
                variant,
                size: load::size(self.request, items),
                prior_seconds: 1.0,
                seconds: factor,
            };
            let size = load::size(self.request, self.request.items);
            self.learner.observe(&self.request.kernel, size, [sample]);
        }
        self
    }

    /// Adds the same factor `times` times, for all items.
    fn took(self, way: Threads, factor: f64, times: usize) -> Self {
        self.add(alone(way.device, way.threads), 1.0, vec![factor; times])
    }

    fn input(&self) -> PlannerInput {
        PlannerInput {
            perf_model: self.learner.perf_model(&self.request.kernel),
            ..PlannerInput::default()
        }
    }
}

#[track_caller]
fn auto(request: &Request<'_>, machine: &Machine, input: &PlannerInput) -> Plan {
    let policy = Policy::default();
    plan(request, machine, input, &Placement::Auto, &policy)
        .expect("a device of the machine can run it")
}

fn software(index: usize, speed: f64) -> DeviceModel {
    DeviceModel {
        kind: DeviceKind::Software,
        ..gpu(index, speed)
    }
}

#[test]
fn a_software_adapter_is_chosen_once_it_was_measured_faster_and_never_explored() {
    let request = update(1 << 22, 1e3, &[CPU, GPU0]);
    let here = machine([cpu(), software(0, 1.0)]);
    let after = |samples: usize, factor: f64| {
        let history = History::of(&request).took(POOL, 1.0, SETTLED);
        let input = PlannerInput {
            exploration_budget: if samples < 3 {
                PLENTY
            } else {
                ExplorationBudget::default()
            },
            ..history.took(CARD, factor, samples).input()
        };
        let plan = auto(&request, &here, &input);
        assert!(!plan.exploring || plan.parts[0].device == CPU, "{plan:?}");
        devices(&plan)
    };
    assert_eq!(after(0, 0.1), [CPU]);
    assert_eq!(after(2, 0.1), [CPU]);
    assert_eq!(after(3, 0.1), [GPU0]);
    assert_eq!(after(3, 2.0), [CPU]);
}

#[test]
fn measurements_of_other_sizes_do_not_make_a_software_adapter_eligible() {
    let request = update(1 << 22, 1e3, &[CPU, GPU0]);
    let here = machine([cpu(), software(0, 1.0)]);
    let smaller = History::of(&request).add(alone(GPU0, 1), 1e-3, [0.1; SETTLED]);
    assert_eq!(devices(&auto(&request, &here, &smaller.input())), [CPU]);
}

#[test]
fn a_software_adapter_never_joins_a_split_however_fast_it_was() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0, GPU1]);
    let here = machine([cpu(), software(0, 1.0), software(1, 1.0)]);
    let fast = History::of(&request)
        .took(CARD, 0.9, SETTLED)
        .took(Threads::new(GPU1, 1), 0.9, SETTLED)
        .add(beside(GPU0, 1, CPU), 0.5, [0.1; SETTLED])
        .add(beside(CPU, 2, GPU0), 0.5, [0.1; SETTLED]);
    for exploration_budget in [ExplorationBudget::default(), PLENTY] {
        let input = PlannerInput {
            exploration_budget,
            ..fast.input()
        };
        assert_eq!(auto(&request, &here, &input).parts.len(), 1);
    }
}

#[test]
fn a_software_adapter_and_the_cpu_share_one_backlog() {
    let request = update(1 << 20, 1.0, &[CPU, GPU0]);
    let wait = |here: &Machine, busy, placement| {
        let input = PlannerInput {
            backlog: smallvec![(busy, 0.25)],
            ..PlannerInput::default()
        };
        let plan = plan(&request, here, &input, &placement, &Policy::default())
            .expect("a device of the machine can run it");
        plan.parts[0].predicted.wait
    };
    let shared = machine([cpu(), software(0, 1.0)]);
    let apart = machine([cpu(), gpu(0, 1.0)]);
    for (busy, placement) in [(CPU, Placement::Gpu(0)), (GPU0, Placement::Cpu)] {
        assert_eq!(wait(&shared, busy, placement.clone()), 0.25);
        assert_eq!(wait(&apart, busy, placement), 0.0);
    }
    assert_eq!(wait(&apart, GPU0, Placement::Gpu(0)), 0.25);
}

#[test]
fn a_device_waits_for_those_that_hold_its_data() {
    let request = update(1 << 20, 1.0, &[GPU0]);
    let here = machine([cpu(), gpu(0, 1.0), gpu(1, 1.0)]);
    let input = PlannerInput {
        backlog: smallvec![(GPU0, 0.25)],
        ..PlannerInput::default()
    };
    for placement in [Placement::Cpu, Placement::Gpu(0), Placement::Gpu(1)] {
        let plan = plan(&request, &here, &input, &placement, &Policy::default())
            .expect("a device of the machine can run it");
        assert_eq!(plan.parts[0].predicted.wait, 0.25, "{placement}");
    }
}

#[test]
fn a_busy_device_is_chosen_only_if_waiting_for_it_is_faster() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let here = machine([cpu(), gpu(0, 20.0)]);
    let chosen = |seconds| {
        let input = PlannerInput {
            backlog: smallvec![(GPU0, seconds)],
            ..PlannerInput::default()
        };
        devices(&auto(&request, &here, &input))
    };
    // The GPU takes 42 ms, the CPU 20 times as long.
    assert_eq!(chosen(0.5), [GPU0]);
    assert_eq!(chosen(5.0), [CPU]);
}

/// The same request, which cannot be split.
fn whole(request: Request<'static>) -> Request<'static> {
    Request {
        border_grain: request.items,
        ..request
    }
}

/// The plan of a call for which the CPU and the GPU are equally fast, and `together` times as fast when each computes
/// half. Single measurements are off by a factor of up to `noise`.
fn plan_of_noisy_split(together: f64, noise: f64, samples: usize) -> Plan {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let noisy = |factor: f64| {
        (0..samples).map(move |i| {
            let off = 2.0 * (i as f64 / (samples - 1) as f64) - 1.0;
            factor * noise.powf(off)
        })
    };
    let slower = 2.0 / together;
    let history = History::of(&request)
        .add(alone(CPU, 2), 1.0, noisy(1.0))
        .add(alone(GPU0, 1), 1.0, noisy(1.0))
        .add(beside(CPU, 2, GPU0), 0.5, noisy(slower))
        .add(beside(GPU0, 1, CPU), 0.5, noisy(slower));
    auto(&request, &machine([cpu(), gpu(0, 1.0)]), &history.input())
}

#[test]
fn a_split_must_save_a_tenth() {
    assert_eq!(plan_of_noisy_split(1.08, 1.0, SETTLED).parts.len(), 1);
    assert_eq!(plan_of_noisy_split(1.15, 1.0, SETTLED).parts.len(), 2);
}

#[test]
fn a_settled_split_must_save_more_than_noise_explains() {
    // The standard error of each median is about 10 %; of the difference 14 %.
    assert_eq!(plan_of_noisy_split(1.3, 1.8, SETTLED).parts.len(), 1);
    assert_eq!(plan_of_noisy_split(1.3, 1.1, SETTLED).parts.len(), 2);
    assert_eq!(plan_of_noisy_split(1.8, 1.8, SETTLED).parts.len(), 2);
    // Until it is settled, the split runs to be measured.
    assert_eq!(plan_of_noisy_split(1.3, 1.8, SETTLED - 1).parts.len(), 2);
}

#[test]
fn beyond_eight_to_one_nothing_is_split_whatever_the_rates_promise() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let here = machine([cpu(), gpu(0, 1.0)]);
    let eager = Policy {
        split_gain: 0.0,
        corun_slowdown: 1.0,
        ..Policy::default()
    };
    for (slower, parts) in [(6.5, 2), (10.0, 1)] {
        let history = [1.0, 0.5, 0.125]
            .into_iter()
            .fold(History::of(&request), |h, share| {
                h.add(alone(CPU, 2), share, [1.0; SETTLED]).add(
                    alone(GPU0, 1),
                    share,
                    [slower; SETTLED],
                )
            });
        let plan = plan(&request, &here, &history.input(), &Placement::Auto, &eager)
            .expect("a device of the machine can run it");
        assert_eq!(plan.parts.len(), parts, "{slower}: {plan:?}");
    }
}

#[test]
fn measurements_beside_another_device_replace_the_slow_down_of_the_pair() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let mut here = machine([cpu(), gpu(0, 1.0)]);
    here.corun.push(CoRun {
        devices: [CPU, GPU0],
        compute: [5.0, 5.0],
        memory: [5.0, 5.0],
    });
    assert_eq!(
        devices(&auto(&request, &here, &PlannerInput::default())).len(),
        1
    );
    let history = History::of(&request)
        .took(POOL, 1.0, SETTLED)
        .took(CARD, 1.0, SETTLED)
        .add(beside(CPU, 2, GPU0), 0.5, [1.05; SETTLED])
        .add(beside(GPU0, 1, CPU), 0.5, [1.05; SETTLED]);
    let both = auto(&request, &here, &history.input());
    assert_eq!(devices(&both), [GPU0, CPU]);
    assert!(
        both.parts
            .iter()
            .all(|part| part.evidence.samples == SETTLED as u64)
    );
}

/// Two plans of the same call.
#[derive(Debug, PartialEq)]
struct Explored {
    /// With the exploration budget.
    with_budget: Plan,
    /// Without one.
    without: Plan,
}

/// Plans a call that is well known on the CPU, beside a GPU of this speed with `measured` samples.
fn explored(speed: f64, measured: usize, exploration_budget: ExplorationBudget) -> Explored {
    let request = whole(update(1 << 22, 1e3, &[CPU, GPU0]));
    // Old measurements would be doubted, so the CPU has many recent ones.
    let history = History::of(&request)
        .took(POOL, 1.0, 20 * SETTLED)
        .took(ONE, 1.0, SETTLED)
        .took(CARD, 1.0, measured);
    let here = machine([cpu(), gpu(0, speed)]);
    let planned = |exploration_budget| {
        let input = PlannerInput {
            exploration_budget,
            ..history.input()
        };
        auto(&request, &here, &input)
    };
    Explored {
        with_budget: planned(exploration_budget),
        without: planned(ExplorationBudget::default()),
    }
}

#[test]
fn a_candidate_that_may_be_faster_is_explored_if_the_budget_covers_it() {
    let plans = explored(0.7, 0, PLENTY);
    assert!(plans.with_budget.exploring && !plans.without.exploring);
    assert_eq!(devices(&plans.with_budget), [GPU0]);
    assert_eq!(devices(&plans.without), [CPU]);
    let seconds = plans.with_budget.predicted_seconds;
    let exactly = ExplorationBudget {
        seconds,
        price: 0.0,
    };
    assert!(explored(0.7, 0, exactly).with_budget.exploring);
    let less = ExplorationBudget {
        seconds: 0.999 * seconds,
        price: 0.0,
    };
    let neither = explored(0.7, 0, less);
    assert_eq!(neither.with_budget, plans.without);
    assert_eq!(neither.without, plans.without);
}

#[test]
fn a_candidate_predicted_to_take_three_times_as_long_is_not_explored() {
    assert!(explored(0.36, 0, PLENTY).with_budget.exploring);
    let plans = explored(0.32, 0, PLENTY);
    assert!(!plans.with_budget.exploring);
    assert_eq!(plans.with_budget, plans.without);
}

#[test]
fn exploration_must_be_worth_its_price() {
    let at = |price| {
        let seconds = PLENTY.seconds;
        explored(0.7, 0, ExplorationBudget { seconds, price })
            .with_budget
            .exploring
    };
    assert!(at(1.0));
    assert!(!at(1e6));
}

#[test]
fn a_settled_variant_is_not_explored_again() {
    assert!(!explored(0.7, SETTLED, PLENTY).with_budget.exploring);
}

#[test]
fn an_unmeasured_variant_uses_the_prior_and_the_evidence_shows_it() {
    let request = update(1 << 22, 1e3, &[CPU, GPU0]);
    let here = machine([cpu(), gpu(0, 1.0)]);
    let nothing = auto(&request, &here, &PlannerInput::default());
    for part in &nothing.parts {
        assert_eq!(part.evidence.samples, 0);
        assert!(part.evidence.uncertainty > 0.5 && part.evidence.extrapolated);
    }
    // Samples of another kernel, type or implementation do not change the plan.
    let mut others = [request.kernel; 3];
    others[0].name = "updale";
    others[1].implementation = 1;
    others[2].element_type = Some(crate::array::ElementType::F32);
    let learner = Learner::new();
    let size = load::size(&request, request.items);
    for other in &others {
        for Threads { device, threads } in [ONE, POOL, CARD] {
            let sample = Sample {
                variant: alone(device, threads),
                size,
                prior_seconds: 1.0,
                seconds: 50.0,
            };
            (0..SETTLED).for_each(|_| learner.observe(other, size, [sample]));
        }
    }
    let input = PlannerInput {
        perf_model: learner.perf_model(&request.kernel),
        ..PlannerInput::default()
    };
    assert_eq!(auto(&request, &here, &input), nothing);
}

#[test]
fn data_stay_in_place_unless_the_learned_times_save_a_tenth() {
    let mut card = gpu(0, 1.0);
    card.upload = Link::from_rate(0.0, 1e15);
    let here = machine([cpu(), card]);
    let policy = Policy {
        split_gain: 1.0,
        ..Policy::default()
    };
    let chosen = |of_card: f64, places: &[DeviceId]| {
        let request = update(1 << 24, 1e4, places);
        let history = History::of(&request)
            .took(ONE, 3.0, SETTLED)
            .took(POOL, 3.0, SETTLED)
            .took(CARD, 3.0 * of_card, SETTLED);
        let input = history.input();
        let plan = plan(&request, &here, &input, &Placement::Auto, &policy)
            .expect("a device of the machine can run it");
        devices(&plan)
    };
    assert_eq!(chosen(0.95, &[CPU]), [CPU]);
    assert_eq!(chosen(0.85, &[CPU]), [GPU0]);
    assert_eq!(chosen(0.95, &[CPU, GPU0]), [GPU0]);
}

#[test]
fn while_pipelines_compile_the_cpu_runs_the_call() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    let here = machine([cpu(), gpu(0, 50.0)]);
    let compiling = PlannerInput {
        compiling: DeviceSet::EMPTY.with(GPU0),
        exploration_budget: PLENTY,
        ..PlannerInput::default()
    };
    let meanwhile = auto(&request, &here, &compiling);
    assert_eq!(devices(&meanwhile), [CPU]);
    assert_eq!(meanwhile.awaits, DeviceSet::EMPTY.with(GPU0));
    assert!(!meanwhile.exploring);
    let ready = auto(&request, &here, &PlannerInput::default());
    assert_eq!(
        (devices(&ready), ready.awaits),
        (vec![GPU0], DeviceSet::EMPTY)
    );
    // If no other device can run it, or the caller asks for it, it compiles first.
    let gpu_only = Request {
        has_cpu: false,
        ..request.clone()
    };
    let plan_only = auto(&gpu_only, &here, &compiling);
    assert_eq!(
        (devices(&plan_only), plan_only.awaits),
        (vec![GPU0], DeviceSet::EMPTY)
    );
    let policy = Policy::default();
    let asked = plan(&request, &here, &compiling, &Placement::Gpu(0), &policy)
        .expect("a device of the machine can run it");
    assert_eq!(
        (devices(&asked), asked.awaits),
        (vec![GPU0], DeviceSet::EMPTY)
    );
}

#[test]
fn one_thread_and_the_pool_are_learned_apart() {
    let request = update(10_000, 0.0, &[CPU]);
    let here = machine([cpu()]);
    let threads = |history: &History<'_>| {
        let plan = auto(&request, &here, &history.input());
        (plan.parts[0].threads, plan.parts[0].evidence.samples)
    };
    assert_eq!(threads(&History::of(&request)), (1, 0));
    let slow = History::of(&request).took(ONE, 10.0, SETTLED);
    assert_eq!(threads(&slow), (2, 0));
    let both = slow.took(POOL, 10.0, SETTLED);
    assert_eq!(threads(&both), (1, SETTLED as u64));
}

#[test]
fn reading_back_counts_for_the_share_that_the_host_reads() {
    let here = machine([cpu(), gpu(0, 1.0)]);
    let n = 1_000_000;
    let download = |access, share, placement, factor| {
        let places = [(CPU, 0..n), (GPU0, 0..n)];
        let mut array = operand(Role::ITEM, access, n, &places);
        array.read_back = share;
        let request = Request {
            operands: smallvec![array],
            ..update(n, 1.0, &[])
        };
        let history = History::of(&request)
            .took(CARD, factor, SETTLED)
            .took(ONE, factor, SETTLED);
        let policy = Policy::default();
        let plan = plan(&request, &here, &history.input(), &placement, &policy)
            .expect("a device of the machine can run it");
        plan.parts[0].predicted.download
    };
    let moving = |bytes: f64| 5e-6 + bytes / 1e10;
    for factor in [1.0, 30.0] {
        // A slow kernel does not slow the copy.
        let on_gpu = |access, share| download(access, share, Placement::Gpu(0), factor);
        near(on_gpu(Access::Write, 1.0), moving(4e6));
        near(on_gpu(Access::ReadWrite, 0.25), moving(1e6));
        near(on_gpu(Access::Write, 0.0), 0.0);
        near(on_gpu(Access::Read, 1.0), 0.0);
        near(download(Access::Write, 1.0, Placement::Cpu, factor), 0.0);
        near(on_gpu(Access::Write, f64::NAN), 0.0);
        near(on_gpu(Access::Write, 1e300), moving(4e6));
    }
}

#[test]
fn expected_reading_back_can_keep_a_call_on_the_cpu() {
    let here = machine([cpu(), gpu(0, 4.0)]);
    let chosen = |share| {
        let mut request = whole(update(1 << 22, 0.0, &[CPU, GPU0]));
        request.operands[0].read_back = share;
        devices(&auto(&request, &here, &PlannerInput::default()))
    };
    assert_eq!((chosen(0.0), chosen(1.0)), (vec![GPU0], vec![CPU]));
}

#[test]
fn absurd_factors_and_calls_without_cost_give_no_nan() {
    let absurd = [1e-300, 1e-12, 1e12, 1e300, 0.0, f64::NAN, f64::INFINITY];
    let mut idle = machine([cpu(), gpu(0, 1.0)]);
    for device in &mut idle.devices {
        device.queued_seconds = 0.0;
        let engines = device.engines.iter_mut();
        engines.for_each(|engine| engine.launch_seconds = 0.0);
    }
    let free = Request {
        work: Work {
            flops: 0.0,
            bytes_read: 0.0,
            bytes_written: 0.0,
        },
        ..update(1 << 20, 0.0, &[CPU, GPU0])
    };
    let huge = update(1 << 40, 1e300, &[CPU]);
    for here in [machine([cpu(), gpu(0, 1.0)]), idle] {
        for request in [&free, &huge, &update(1, 1.0, &[GPU0])] {
            for (of_cpu, of_gpu) in absurd.into_iter().zip(absurd.into_iter().rev()) {
                let history = History::of(request)
                    .took(ONE, of_cpu, 6)
                    .took(POOL, of_gpu, 6)
                    .took(CARD, of_gpu, 6)
                    .add(beside(GPU0, 1, CPU), 0.5, [of_cpu; 6]);
                for exploration_budget in [ExplorationBudget::default(), PLENTY] {
                    let input = PlannerInput {
                        exploration_budget,
                        ..history.input()
                    };
                    let plan = auto(request, &here, &input);
                    let seconds = plan.predicted_seconds;
                    assert!(seconds.is_finite() && seconds >= 0.0, "{plan:?}");
                    for part in &plan.parts {
                        assert!(part.evidence.uncertainty.is_finite(), "{plan:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn absurd_backlogs_slow_downs_and_policies_give_no_nan() {
    let request = update(1 << 24, 1e4, &[CPU, GPU0]);
    for absurd in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MAX, 1e-300] {
        let mut here = machine([cpu(), gpu(0, 1.0), gpu(1, 1.0)]);
        here.corun.push(CoRun {
            devices: [CPU, GPU0],
            compute: [absurd; 2],
            memory: [absurd; 2],
        });
        let input = PlannerInput {
            backlog: smallvec![(GPU0, absurd), (CPU, absurd)],
            ..PlannerInput::default()
        };
        let policy = Policy {
            corun_slowdown: absurd,
            ..Policy::default()
        };
        for placement in [Placement::Auto, Placement::split(0.5)] {
            let plan = plan(&request, &here, &input, &placement, &policy)
                .expect("a device of the machine can run it");
            let seconds = plan.predicted_seconds;
            assert!(seconds.is_finite() && seconds >= 0.0, "{absurd}: {plan:?}");
        }
    }
}

#[test]
fn a_candidate_worth_exploring_is_compiled_first() {
    let request = whole(update(1 << 22, 1e3, &[CPU, GPU0]));
    let here = machine([cpu(), gpu(0, 0.7)]);
    let history = History::of(&request)
        .took(ONE, 1.0, SETTLED)
        .took(POOL, 1.0, SETTLED);
    let compiling = PlannerInput {
        compiling: DeviceSet::EMPTY.with(GPU0),
        exploration_budget: PLENTY,
        ..history.input()
    };
    let meanwhile = auto(&request, &here, &compiling);
    assert_eq!(devices(&meanwhile), [CPU]);
    assert!(!meanwhile.exploring && meanwhile.awaits.contains(GPU0));
    let ready = PlannerInput {
        compiling: DeviceSet::EMPTY,
        ..compiling
    };
    assert!(auto(&request, &here, &ready).exploring);
}

#[test]
fn a_software_adapter_runs_a_call_that_is_too_large_for_the_cpu() {
    let mut small = cpu();
    small.limits.memory_bytes = Some(1 << 20);
    let here = machine([small, software(0, 1.0)]);
    let request = update(1 << 20, 1.0, &[CPU]);
    let plan = auto(&request, &here, &PlannerInput::default());
    assert_eq!(devices(&plan), [GPU0]);
}

/// `Placement::Cpu` leaves the number of threads to the planner, and one disturbed run must not decide it for ever.
#[test]
fn an_engine_of_the_cpu_that_was_slow_once_is_explored_under_placement_cpu() {
    let request = update(1 << 22, 1e3, &[CPU]);
    let here = machine([cpu()]);
    let after = |exploration_budget: ExplorationBudget, samples: usize| {
        let history = History::of(&request).took(ONE, 1.0, SETTLED);
        let input = PlannerInput {
            exploration_budget,
            ..history.took(POOL, 3.0, samples).input()
        };
        let policy = Policy::default();
        let asked = |placement| plan(&request, &here, &input, &placement, &policy);
        let asked = asked(Placement::Cpu).expect("a CPU");
        let shown = explain(&request, &here, &input, &Placement::Cpu, &policy);
        let shown = shown.expect("a CPU");
        let chosen = &shown.candidates[shown.choice].parts[0];
        assert_eq!(chosen.threads, asked.parts[0].threads);
        assert_eq!(shown.reason.contains("worth exploring"), asked.exploring);
        (asked.parts[0].threads, asked.exploring)
    };
    assert_eq!(after(PLENTY, 1), (2, true));
    assert_eq!(after(ExplorationBudget::default(), 1), (1, false));
    assert_eq!(after(PLENTY, SETTLED), (1, false), "it is slow indeed");
}
