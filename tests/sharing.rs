//! What safe code can do with handles, guards and runtimes: share them, keep them, and never see a torn array.

mod support;

use divvy::prelude::*;
use divvy::{Error, Runtime};

/// y = x + y, then the sum of y, at a placement that differs from call to call; returns the sums' bits.
fn program(rt: &Runtime, shared: &Array<f32>, thread: usize) -> divvy::Result<Vec<u32>> {
    let placements = support::placements(rt);
    let mut own = rt.filled(shared.len(), thread as f32)?;
    let mut sums = Vec::new();
    for call in 0..40 {
        let placement =
            |offset: usize| placements[(thread + call + offset) % placements.len()].clone();
        rt.run(axpy(1.0, shared, &mut own).on(placement(0)))?;
        sums.push(rt.run(sum(&own).on(placement(1)))?.value.to_bits());
        if call % 7 == thread % 7 {
            own.write_range(0..10)?.fill(call as f32);
        }
    }
    Ok(sums)
}

#[test]
fn many_threads_get_what_each_would_get_alone() {
    let rt = support::runtime();
    let elements: Vec<f32> = (0..50_001).map(|i| (i % 97) as f32 - 48.0).collect();
    let shared = rt.array_from(&elements).expect("memory");
    let threads = 8;
    let together: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let shared = &shared;
                scope.spawn(move || program(rt, shared, thread).expect("no call fails"))
            })
            .collect();
        running
            .into_iter()
            .map(|t| t.join().expect("no panic"))
            .collect()
    });
    for (thread, sums) in together.iter().enumerate() {
        let alone = program(rt, &shared, thread).expect("no call fails");
        assert_eq!(*sums, alone, "thread {thread}");
    }
}

#[test]
fn arrays_outlive_the_runtime_with_work_in_flight() {
    let rt = support::build(Runtime::builder());
    if !support::has_gpu(&rt) {
        return;
    }
    let x = rt.filled(100_000, 2.0f32).expect("memory");
    let mut y = rt.filled(100_000, 1.0f32).expect("memory");
    for _ in 0..5 {
        rt.run(axpy(1.0, &x, &mut y).on(Placement::Gpu(0)))
            .expect("axpy");
    }
    drop(x);
    drop(rt);
    assert!(
        y.read()
            .expect("the GPU lives as long as its arrays")
            .iter()
            .all(|y| *y == 11.0)
    );
}

#[test]
fn a_runtime_uses_what_another_one_left_on_its_gpu() {
    let (first, second) = (support::runtime(), support::build(Runtime::builder()));
    if !support::has_gpu(first) {
        return;
    }
    let x = first.filled(1000, 3.0f32).expect("memory");
    let mut y = first.filled(1000, 1.0f32).expect("memory");
    first
        .run(axpy(1.0, &x, &mut y).on(Placement::Gpu(0)))
        .expect("axpy");
    second
        .run(axpy(1.0, &x, &mut y).on(Placement::Gpu(0)))
        .expect("axpy");
    first
        .run(axpy(1.0, &x, &mut y).on(Placement::Cpu))
        .expect("axpy");
    assert_eq!(y.to_vec().expect("y"), [10.0; 1000]);
}

#[test]
fn a_cloned_handle_cannot_clash_with_a_guard() {
    let rt = support::runtime();
    let y = rt.filled(1000, 1.0f32).expect("memory");
    let guard = y.read().expect("y");
    // The borrow checker knows nothing of a handle in a kernel of one's own.
    let call = divvy::kernel::Call::new(Scale(y.handle().clone()));
    let error = rt
        .run(call.on(Placement::Cpu))
        .expect_err("y is being read");
    assert!(matches!(&error, Error::Argument { .. }), "{error}");
    assert!(error.to_string().contains("another call"), "{error}");
    assert!(guard.iter().all(|y| *y == 1.0));
    drop(guard);
    let call = divvy::kernel::Call::new(Scale(y.handle().clone()));
    rt.run(call.on(Placement::Cpu)).expect("nobody reads y now");
    assert!(y.read().expect("y").iter().all(|y| *y == 2.0));
}

#[test]
fn a_cloned_kernel_cannot_write_on_a_gpu_what_a_guard_shows() {
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return;
    }
    let seven = WgslKernel::builder(
        "seven",
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = 7.0; }
         }",
    );
    let seven = seven.output("y").build().expect("valid");
    let mut y = rt.filled(1000, 1.0f32).expect("memory");
    let kept = seven.bind_mut("y", &mut y).kernel().clone();
    let guard = y.read().expect("y");
    let call = divvy::kernel::Call::new(kept.clone());
    let error = rt
        .run(call.on(Placement::Gpu(0)))
        .expect_err("y is being read");
    assert!(error.to_string().contains("another call"), "{error}");
    assert!(guard.iter().all(|y| *y == 1.0));
    drop(guard);
    let call = divvy::kernel::Call::new(kept);
    rt.run(call.on(Placement::Gpu(0)))
        .expect("nobody reads y now");
    assert!(y.read().expect("y").iter().all(|y| *y == 7.0));
}

/// A kernel that is planned without a grain, but whose pass needs one.
struct Careless(divvy::array::Handle, divvy::array::Handle);

impl divvy::kernel::Kernel for Careless {
    type Output = ();

    fn name(&self) -> &str {
        "careless"
    }

    fn spec(&self) -> divvy::Result<divvy::kernel::LaunchSpec> {
        use divvy::kernel::{Binding, LaunchSpec, Role};
        let bindings = [Binding::read(&self.0, Role::ITEM)];
        Ok(LaunchSpec::new(self.0.len(), bindings, 0.0))
    }

    fn execute(&self, cx: &mut divvy::kernel::Execution<'_>) -> divvy::Result<()> {
        cx.launch(&Blocks(self.0.clone(), self.1.clone()))
    }
}

/// One value for each 1024 items.
struct Blocks(divvy::array::Handle, divvy::array::Handle);

impl divvy::kernel::Pass for Blocks {
    fn name(&self) -> &str {
        "blocks"
    }

    fn spec(&self) -> divvy::Result<divvy::kernel::LaunchSpec> {
        use divvy::kernel::{Binding, LaunchSpec, Role};
        let blocks = Binding::write(&self.1, Role::per(1024));
        let bindings = [Binding::read(&self.0, Role::ITEM), blocks];
        Ok(LaunchSpec::new(self.0.len(), bindings, 0.0).grain(1024))
    }

    fn cpu(&self, part: &mut divvy::kernel::CpuPart<'_>) -> divvy::Result<()> {
        part.write::<f32>(1).fill(1.0);
        Ok(())
    }

    fn gpu(&self, _: &mut divvy::kernel::GpuPart<'_>) -> divvy::Result<()> {
        Ok(())
    }
}

#[test]
fn parts_that_would_share_a_block_are_refused() {
    let rt = support::runtime();
    if !support::has_gpu(rt) {
        return;
    }
    let (x, y) = (
        rt.filled(10_000, 1.0f32).expect("x"),
        rt.filled(10, 0.0f32).expect("y"),
    );
    let run = |placement| {
        let kernel = Careless(x.handle().clone(), y.handle().clone());
        rt.run(divvy::kernel::Call::new(kernel).on(placement))
    };
    let error = run(Placement::split(0.05)).expect_err("the border is no multiple of 1024");
    assert!(error.to_string().contains("grain"), "{error}");
    run(Placement::Cpu).expect("one part has no border");
}

/// A user's own pass: y = 2 * y, on the CPU only.
struct Scale(divvy::array::Handle);

impl divvy::kernel::Pass for Scale {
    fn name(&self) -> &str {
        "scale"
    }

    fn spec(&self) -> divvy::Result<divvy::kernel::LaunchSpec> {
        use divvy::kernel::{Binding, LaunchSpec, Role};
        let bindings = [Binding::update(&self.0, Role::ITEM)];
        let mut spec = LaunchSpec::new(self.0.len(), bindings, 0.0);
        spec.has_gpu = false;
        Ok(spec)
    }

    fn cpu(&self, part: &mut divvy::kernel::CpuPart<'_>) -> divvy::Result<()> {
        part.write::<f32>(0).iter_mut().for_each(|y| *y *= 2.0);
        Ok(())
    }

    fn gpu(&self, _: &mut divvy::kernel::GpuPart<'_>) -> divvy::Result<()> {
        unreachable!("its launch spec says that it has no GPU implementation")
    }
}

#[test]
fn adapters_that_were_not_asked_for_are_left_out_and_listed() {
    if !support::has_gpu(support::runtime()) {
        return;
    }
    let name = &support::runtime().gpus().next().expect("a GPU").name;
    let named = support::build(Runtime::builder().adapters_named(name.to_uppercase()));
    assert_eq!(&named.gpus().next().expect("the one asked for").name, name);
    let none = support::build(Runtime::builder().adapters_named("no such adapter"));
    assert_eq!(none.gpus().len(), 0);
    assert!(
        none.gpu_problems()
            .iter()
            .any(|problem| problem.contains(name))
    );
}

#[test]
fn a_whole_array_of_vectors_has_whole_vectors() {
    let rt = support::runtime();
    let kernel = WgslKernel::builder(
        "first",
        "@group(0) @binding(0) var<storage, read> table: array<vec4<f32>>;
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = table[0].x; }
         }",
    );
    let kernel = kernel
        .input_whole("table")
        .output("y")
        .build()
        .expect("valid");
    let mut y = rt.filled(10, 1.0f32).expect("memory");
    for len in [1, 3, 6] {
        let table = rt.filled(len, 2.0f32).expect("memory");
        let call = kernel.bind("table", &table).bind_mut("y", &mut y);
        let error = rt
            .run(call)
            .expect_err("vectors have four scalars")
            .to_string();
        assert!(
            error.contains("`table`") && error.contains("multiple of 4"),
            "{error}"
        );
    }
}
