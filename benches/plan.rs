//! The time to plan a call and to learn from one. Both happen once per call on the caller's thread, so with two devices
//! planning must stay under a microsecond, and learning under half of one.

use criterion::{Criterion, criterion_group, criterion_main};
use divvy::Placement;
use divvy::array::{Array, Handle, RangeSet};
use divvy::cost::learned::Learner;
use divvy::cost::{Curve, DeviceModel, Engine, Link, Machine};
use divvy::device::DeviceId;
use divvy::device::DeviceKind;
use divvy::kernel::{Binding, LaunchSpec, Role};
use divvy::plan::{Measured, PlannerInput, Policy, Request, learn, plan};
use smallvec::smallvec;
use std::hint::black_box;

fn engine(threads: usize, launch_seconds: f64, speed: f64) -> Engine {
    let sizes = [65536.0, 1048576.0, 16777216.0, 134217728.0];
    let points = sizes
        .iter()
        .zip([8.0, 4.0, 2.0, 1.0])
        .map(|(size, cache)| [*size, cache * speed * 2e10]);
    let bandwidth = Curve::new(points.collect()).expect("ascending");
    Engine::new(threads, launch_seconds, speed * 1e11, bandwidth)
}

fn device(id: DeviceId, kind: DeviceKind, engines: Vec<Engine>) -> DeviceModel {
    let link = Link::from_rate(1e-5, 1e10).filter(|_| kind != DeviceKind::Cpu);
    let mut model = DeviceModel::new(id, kind, id.to_string(), engines);
    model.queued_seconds = 2e-6;
    model.upload = link.clone();
    model.download = link;
    model.limits.max_binding_bytes = Some(1 << 31);
    model.limits.max_buffer_bytes = Some(1 << 31);
    model.limits.budget_bytes = Some(8 << 30);
    model
}

/// A CPU and `gpus` GPUs of about its speed, so that the planner always searches for splits.
fn machine(gpus: usize, kind: DeviceKind) -> Machine {
    let cpu = device(
        DeviceId::Cpu,
        DeviceKind::Cpu,
        vec![engine(1, 0.0, 1.0), engine(16, 5e-6, 8.0)],
    );
    let gpu = |i| {
        device(
            DeviceId::Gpu(i),
            kind,
            vec![engine(1, 2e-5, 6.0 + i as f64)],
        )
    };
    let mut machine = Machine::default();
    machine.devices = std::iter::once(cpu).chain((0..gpus).map(gpu)).collect();
    machine
}

/// `axpy` with both arrays on the host, and their first half on the first GPU too.
fn axpy(n: usize) -> Request<'static> {
    let array = || Array::<f32>::uninit(n).expect("an array without a use takes no memory");
    let (x, y) = (array(), array());
    let bindings = [
        Binding::read(x.handle(), Role::ITEM),
        Binding::update(y.handle(), Role::ITEM),
    ];
    let residency = |_: &Handle| {
        smallvec![
            (DeviceId::Cpu, RangeSet::from(0..n)),
            (DeviceId::Gpu(0), RangeSet::from(0..n / 2))
        ]
    };
    let spec = LaunchSpec::new(n, bindings, 2.0 * n as f64);
    Request::new("axpy", 0, &spec, residency, |_| 0.0)
}

/// The planner's input after some calls that took as long as predicted.
fn learned(request: &Request<'_>, machine: &Machine) -> PlannerInput {
    let learner = Learner::new();
    let input = || {
        let mut input = PlannerInput::default();
        input.perf_model = learner.perf_model(&request.kernel);
        input
    };
    for _ in 0..40 {
        let planned = plan(
            request,
            machine,
            &input(),
            &Placement::Auto,
            &Policy::default(),
        );
        let planned = planned.expect("the machine can run it");
        let seconds = planned
            .parts
            .iter()
            .map(|part| Some(part.predicted.seconds()));
        let mut measured = Measured::default();
        measured.part_seconds = seconds.collect();
        measured.seconds = planned.predicted_seconds;
        learn(&learner, &request.kernel, &planned, &measured);
    }
    input()
}

fn planning(c: &mut Criterion) {
    let policy = Policy::default();
    let mut bench = |name: &str, n: usize, machine: Machine, placement: Placement| {
        let request = axpy(n);
        let mut time = |name: &str, input: PlannerInput| {
            c.bench_function(name, |b| {
                b.iter(|| {
                    plan(
                        black_box(&request),
                        black_box(&machine),
                        &input,
                        &placement,
                        &policy,
                    )
                });
            });
        };
        time(name, PlannerInput::default());
        if placement == Placement::Auto {
            time(&format!("{name}, learned"), learned(&request, &machine));
        }
    };
    for (size, n) in [("1 Ki items", 1 << 10), ("16 Mi items", 1 << 24)] {
        bench(
            &format!("cpu and software gpu, {size}"),
            n,
            machine(1, DeviceKind::Software),
            Placement::Auto,
        );
        bench(
            &format!("cpu and gpu, {size}"),
            n,
            machine(1, DeviceKind::Discrete),
            Placement::Auto,
        );
        bench(
            &format!("cpu and 7 gpus, {size}"),
            n,
            machine(7, DeviceKind::Discrete),
            Placement::Auto,
        );
    }
    bench(
        "placed on the cpu",
        1 << 20,
        machine(1, DeviceKind::Discrete),
        Placement::Cpu,
    );
    bench(
        "placed on a gpu",
        1 << 20,
        machine(1, DeviceKind::Discrete),
        Placement::Gpu(0),
    );
    bench(
        "split by the caller",
        1 << 20,
        machine(1, DeviceKind::Discrete),
        Placement::split(0.5),
    );
}

/// Recording the times of a call, which every call on the CPU does on its caller's thread.
fn learning(c: &mut Criterion) {
    let (request, machine) = (axpy(1 << 20), machine(1, DeviceKind::Discrete));
    let input = PlannerInput::default();
    let planned = plan(
        &request,
        &machine,
        &input,
        &Placement::Cpu,
        &Policy::default(),
    );
    let planned = planned.expect("the CPU can run it");
    let learner = Learner::new();
    let mut call = 0;
    c.bench_function("learning from a call", |b| {
        b.iter(|| {
            call += 1;
            let seconds = 1e-4 * (1.0 + 0.001 * f64::from(call % 97));
            let mut measured = Measured::default();
            measured.part_seconds = smallvec![Some(seconds)];
            measured.seconds = seconds;
            learn(&learner, &request.kernel, black_box(&planned), &measured);
        });
    });
}

criterion_group!(benches, planning, learning);
criterion_main!(benches);
