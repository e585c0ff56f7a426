//! Kernels that users write: every role gives the same results on every device and for every split.

mod support;

use bytemuck::{Pod, Zeroable};
use divvy::Result;
use divvy::prelude::*;
use support::{has_gpu, placements, runtime};

const SIZES: [usize; 9] = [0, 1, 2, 63, 64, 65, 257, 1000, 70_001];

/// Whole numbers, so that sums are exact.
fn numbers(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..n).map(|_| rng.i32(-1000..1000) as f32).collect()
}

const POISON: f32 = 12345.678;

/// `z = a * x + y` and `y += 1`, with bindings in no order.
fn fma() -> Result<WgslKernel> {
    WgslKernel::builder(
        "fma",
        "@group(0) @binding(5) var<storage, read> x: array<f32>;
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
         @group(0) @binding(3) var<storage, read_write> z: array<f32>;
         @group(0) @binding(2) var<uniform> a: f32;

         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             let i = id.x;
             if i < arrayLength(&z) {
                 z[i] = a * x[i] + y[i];
                 y[i] += 1.0;
             }
         }",
    )
    .output("z")
    .update("y")
    .input("x")
    .cpu(|part, args| {
        let (x, y) = (args.input::<f32>("x")?, args.output::<f32>("y")?);
        let (z, a) = (args.output::<f32>("z")?, args.uniform::<f32>("a")?);
        assert_eq!([x.len(), y.len(), z.len()], [part.len; 3]);
        for i in 0..part.len {
            z[i] = a * x[i] + y[i];
            y[i] += 1.0;
        }
        Ok(())
    })
    .build()
}

#[test]
fn items_are_computed_once_everywhere() -> Result<()> {
    let kernel = fma()?;
    for n in SIZES {
        let (xs, ys) = (numbers(n, 1), numbers(n, 2));
        for placement in placements(runtime()) {
            let (x, mut y) = (Array::from_slice(&xs)?, Array::from_slice(&ys)?);
            let mut z = Array::filled(n, POISON)?;
            let call = kernel
                .bind("x", &x)
                .bind_mut("y", &mut y)
                .bind_mut("z", &mut z);
            runtime().run(call.uniform(&3.0f32).on(placement.clone()))?;
            let want: Vec<f32> = xs.iter().zip(&ys).map(|(x, y)| 3.0 * x + y).collect();
            assert_eq!(z.to_vec()?, want, "{n} items, {placement}");
            let want: Vec<f32> = ys.iter().map(|y| y + 1.0).collect();
            assert_eq!(y.to_vec()?, want, "{n} items, {placement}");
        }
    }
    Ok(())
}

/// Sums each item with the `k` before and after it, as far as there are any; two inputs with different halos.
fn window_sums(k: usize, width: usize) -> Result<WgslKernel> {
    WgslKernel::builder(
        "window_sums",
        format!(
            "struct Part {{ first: u32, len: u32, total: u32, lead: u32 }}
             @group(0) @binding(0) var<uniform> part: Part;
             @group(0) @binding(1) var<storage, read> src: array<f32>;
             @group(0) @binding(2) var<storage, read> near: array<f32>;
             @group(0) @binding(3) var<storage, read_write> dst: array<f32>;

             const K = {k}u;
             const W = {width}u;

             @compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 if id.x >= part.len {{ return; }}
                 let before = min(K, part.first + id.x);
                 let after = min(K, part.total - 1u - (part.first + id.x));
                 let own = part.lead + id.x;
                 for (var c = 0u; c < W; c++) {{
                     var sum = 0.0;
                     for (var j = own - before; j <= own + after; j++) {{ sum += src[j * W + c]; }}
                     let left = own - min(before, 1u);
                     dst[id.x * W + c] = sum + 0.5 * near[left];
                 }}
             }}"
        ),
    )
    .output("dst")
    .width("dst", width)
    .input_halo("src", k)
    .width("src", width)
    .input_halo("near", 1)
    .part("part")
    .cpu(move |part, args| {
        let (src, near) = (args.input::<f32>("src")?, args.input::<f32>("near")?);
        let dst = args.output::<f32>("dst")?;
        for i in 0..part.len {
            let (before, after) = (
                k.min(part.first + i),
                k.min(part.total - 1 - (part.first + i)),
            );
            let own = part.lead + i;
            for c in 0..width {
                let window = own - before..=own + after;
                let sum: f32 = window.map(|j| src[j * width + c]).sum();
                dst[i * width + c] = sum + 0.5 * near[own - before.min(1)];
            }
        }
        Ok(())
    })
    .build()
}

#[test]
fn halos_reach_over_the_borders_of_parts_and_stop_at_the_ends() -> Result<()> {
    for (k, width) in [(1, 1), (3, 1), (100, 1), (2, 3), (1, 96)] {
        let kernel = window_sums(k, width)?;
        for n in SIZES.into_iter().filter(|n| n * width * k < 2_000_000) {
            let (src, near) = (numbers(n * width, 3), numbers(n, 4));
            let want: Vec<f32> = (0..n * width)
                .map(|e| {
                    let (i, c) = (e / width, e % width);
                    let window = i.saturating_sub(k)..(i + k + 1).min(n);
                    let sum: f32 = window.map(|j| src[j * width + c]).sum();
                    sum + 0.5 * near[i.saturating_sub(1)]
                })
                .collect();
            let (src, near) = (Array::from_vec(src), Array::from_vec(near));
            for placement in placements(runtime()) {
                let mut dst = Array::filled(n * width, POISON)?;
                let call = kernel
                    .bind("src", &src)
                    .bind("near", &near)
                    .bind_mut("dst", &mut dst);
                runtime().run(call.on(placement.clone()))?;
                assert_eq!(
                    dst.to_vec()?,
                    want,
                    "{n} items of {width}, halo {k}, {placement}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn whole_arrays_are_seen_by_every_part_and_vectors_belong_to_one_item() -> Result<()> {
    let kernel = WgslKernel::builder(
        "palette",
        "@group(0) @binding(0) var<storage, read> index: array<u32>;
         @group(0) @binding(1) var<storage, read> palette: array<vec4<f32>>;
         @group(0) @binding(2) var<storage, read> offset: array<vec2<i32>>;
         @group(0) @binding(3) var<storage, read_write> colour: array<vec4<f32>>;

         @compute @workgroup_size(32)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&colour) {
                 let o = vec2<f32>(offset[id.x]);
                 colour[id.x] = palette[index[id.x] % arrayLength(&palette)] + o.xyxy;
             }
         }",
    )
    .input("index")
    .input_whole("palette")
    .input("offset")
    .output("colour")
    .cpu(|part, args| {
        let (index, palette) = (args.input::<u32>("index")?, args.input::<f32>("palette")?);
        let (offset, colour) = (args.input::<i32>("offset")?, args.output::<f32>("colour")?);
        assert_eq!([offset.len(), colour.len()], [2 * part.len, 4 * part.len]);
        for i in 0..part.len {
            let from = &palette[index[i] as usize % (palette.len() / 4) * 4..];
            for c in 0..4 {
                colour[4 * i + c] = from[c] + offset[2 * i + c % 2] as f32;
            }
        }
        Ok(())
    })
    .build()?;
    let palette = Array::from_vec(numbers(4 * 7, 5));
    let entries = palette.to_vec()?;
    for n in SIZES {
        let index: Vec<u32> = (0..n as u32)
            .map(|i| i.wrapping_mul(2_654_435_761))
            .collect();
        let offset: Vec<i32> = (0..2 * n as i32).map(|i| i % 11 - 5).collect();
        let want: Vec<f32> = (0..4 * n)
            .map(|e| {
                let (i, c) = (e / 4, e % 4);
                entries[index[i] as usize % 7 * 4 + c] + offset[2 * i + c % 2] as f32
            })
            .collect();
        let (index, offset) = (Array::from_vec(index), Array::from_vec(offset));
        for placement in placements(runtime()) {
            let mut colour = Array::filled(4 * n, POISON)?;
            let call = kernel.bind("index", &index).bind("offset", &offset);
            let call = call
                .bind("palette", &palette)
                .bind_mut("colour", &mut colour);
            runtime().run(call.on(placement.clone()))?;
            assert_eq!(colour.to_vec()?, want, "{n} items, {placement}");
        }
    }
    Ok(())
}

const HISTOGRAM: &str = "
    @group(0) @binding(0) var<storage, read> keys: array<u32>;
    @group(0) @binding(1) var<storage, read_write> bins: array<atomic<u32>>;
    @group(0) @binding(2) var<storage, read_write> least: array<atomic<i32>>;
    @group(0) @binding(3) var<storage, read_write> greatest: array<atomic<u32>>;
    @group(0) @binding(4) var<storage, read_write> highest: array<atomic<i32>>;

    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        if id.x < arrayLength(&keys) {
            let key = keys[id.x];
            atomicAdd(&bins[key % arrayLength(&bins)], 1u);
            atomicMin(&least[0], i32(key) - 500);
            atomicMax(&greatest[0], key);
            atomicMax(&highest[0], i32(key) - 5000);
        }
    }";

#[test]
fn partial_results_of_integers_fold_to_the_same_bits() -> Result<()> {
    let kernel = WgslKernel::builder("histogram", HISTOGRAM)
        .input("keys")
        .partial("bins", 37, Fold::Add)
        .partial("least", 1, Fold::Min)
        .partial("greatest", 1, Fold::Max)
        .partial("highest", 1, Fold::Max)
        .cpu(|_, args| {
            let bins = args.output::<u32>("bins")?;
            let least = &mut args.output::<i32>("least")?[0];
            let greatest = &mut args.output::<u32>("greatest")?[0];
            let highest = &mut args.output::<i32>("highest")?[0];
            for key in args.input::<u32>("keys")? {
                bins[*key as usize % 37] += 1;
                *least = (*least).min(*key as i32 - 500);
                *greatest = (*greatest).max(*key);
                *highest = (*highest).max(*key as i32 - 5000);
            }
            Ok(())
        })
        .build()?;
    for n in SIZES {
        let mut rng = fastrand::Rng::with_seed(6);
        let keys: Vec<u32> = (0..n).map(|_| rng.u32(0..1000)).collect();
        let mut want = vec![0u32; 37];
        keys.iter().for_each(|key| want[*key as usize % 37] += 1);
        let least = keys.iter().map(|key| *key as i32 - 500).min();
        let greatest = keys.iter().copied().max();
        let highest = keys.iter().map(|key| *key as i32 - 5000).max();
        let keys = Array::from_vec(keys);
        for placement in placements(runtime()) {
            let mut bins = Array::filled(37, 77u32)?;
            let mut low = Array::filled(1, 77i32)?;
            let mut great = Array::filled(1, 77u32)?;
            let mut high = Array::filled(1, 77i32)?;
            let call = kernel.bind("keys", &keys).bind_mut("bins", &mut bins);
            let call = call
                .bind_mut("least", &mut low)
                .bind_mut("greatest", &mut great);
            runtime().run(call.bind_mut("highest", &mut high).on(placement.clone()))?;
            assert_eq!(bins.to_vec()?, want, "{n} items, {placement}");
            assert_eq!(
                low.to_vec()?,
                [least.unwrap_or(i32::MAX)],
                "{n} items, {placement}"
            );
            assert_eq!(
                great.to_vec()?,
                [greatest.unwrap_or(0)],
                "{n} items, {placement}"
            );
            assert_eq!(
                high.to_vec()?,
                [highest.unwrap_or(i32::MIN)],
                "{n} items, {placement}"
            );
        }
    }
    Ok(())
}

/// Sums of fractions in a fixed order, which rounding makes depend on how they are grouped: of each item, and of the
/// one before it.
#[test]
fn partial_sums_of_floats_do_not_depend_on_the_split() -> Result<()> {
    // One invocation adds everything, so that the shader's order is that of the closure.
    let kernel = WgslKernel::builder(
        "sums",
        "struct Part { first: u32, len: u32, total: u32, lead: u32 }
         @group(0) @binding(9) var<uniform> part: Part;
         @group(0) @binding(0) var<storage, read> x: array<f32>;
         @group(0) @binding(1) var<storage, read_write> sums: array<vec2<f32>>;
         @group(0) @binding(2) var<storage, read_write> low: array<f32>;
         @group(0) @binding(3) var<storage, read_write> high: array<f32>;

         @compute @workgroup_size(1)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             for (var i = part.lead; i < part.lead + part.len; i++) {
                 sums[0] += vec2<f32>(x[i], x[i - min(i, 1u)]);
                 low[0] = min(low[0], x[i] + 1.0);
                 high[0] = max(high[0], x[i] - 1.0);
             }
         }",
    )
    .input_halo("x", 1)
    .part("part")
    .partial("sums", 1, Fold::Add)
    .partial("low", 1, Fold::Min)
    .partial("high", 1, Fold::Max)
    .items_per_workgroup(1 << 30)
    .cpu(|part, args| {
        let (x, sums) = (args.input::<f32>("x")?, args.output::<f32>("sums")?);
        let low = &mut args.output::<f32>("low")?[0];
        let high = &mut args.output::<f32>("high")?[0];
        for i in part.lead..part.lead + part.len {
            sums[0] += x[i];
            sums[1] += x[i.saturating_sub(1)];
            *low = low.min(x[i] + 1.0);
            *high = high.max(x[i] - 1.0);
        }
        Ok(())
    })
    .build()?;
    let mut rng = fastrand::Rng::with_seed(7);
    for n in [0, 1, 1000, 4096, 4097, 70_001] {
        let xs: Vec<f32> = (0..n).map(|_| rng.f32() - 0.3).collect();
        let exact: f64 = xs.iter().map(|x| f64::from(*x)).sum();
        let (first, last) = (xs.first().unwrap_or(&0.0), xs.last().unwrap_or(&0.0));
        let shifted = exact + f64::from(*first) - f64::from(*last);
        let least = xs.iter().map(|x| x + 1.0).fold(f32::INFINITY, f32::min);
        let greatest = xs.iter().map(|x| x - 1.0).fold(f32::NEG_INFINITY, f32::max);
        let bound =
            n as f64 * f64::from(f32::EPSILON) * xs.iter().map(|x| f64::from(x.abs())).sum::<f64>();
        let x = Array::from_vec(xs);
        let mut seen = None;
        for placement in placements(runtime()) {
            let mut sums = Array::filled(2, POISON)?;
            let (mut low, mut high) = (Array::filled(1, POISON)?, Array::filled(1, POISON)?);
            let call = kernel.bind("x", &x).bind_mut("sums", &mut sums);
            let call = call.bind_mut("low", &mut low).bind_mut("high", &mut high);
            runtime().run(call.on(placement.clone()))?;
            let sums = sums.to_vec()?;
            let errors = [f64::from(sums[0]) - exact, f64::from(sums[1]) - shifted];
            assert!(
                errors.iter().all(|e| e.abs() <= bound),
                "{n} items, {placement}: {errors:?}"
            );
            let first = seen.get_or_insert_with(|| sums.clone());
            assert_eq!(sums, *first, "{n} items, {placement}");
            let extremes = (low.to_vec()?[0], high.to_vec()?[0]);
            assert_eq!(extremes, (least, greatest), "{n} items, {placement}");
        }
    }
    Ok(())
}

/// A kernel none of whose arrays is split: the number of items is given, the part uniform tells the shader which.
#[test]
fn items_need_no_array_of_their_own() -> Result<()> {
    let kernel = WgslKernel::builder(
        "sum_of_squares",
        "struct Part { first: u32, len: u32, total: u32, lead: u32 }
         @group(0) @binding(0) var<uniform> part: Part;
         @group(0) @binding(1) var<storage, read_write> total: array<atomic<u32>>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             let i = part.first + id.x;
             if id.x < part.len { atomicAdd(&total[0], i * i); }
         }",
    )
    .part("part")
    .partial("total", 1, Fold::Add)
    .cpu(|part, args| {
        let total = &mut args.output::<u32>("total")?[0];
        for i in part.first as u32..(part.first + part.len) as u32 {
            *total = total.wrapping_add(i.wrapping_mul(i));
        }
        Ok(())
    })
    .build()?;
    let want = (0..100_000u32).fold(0u32, |sum, i| sum.wrapping_add(i.wrapping_mul(i)));
    for placement in placements(runtime()) {
        let mut total = Array::filled(1, 5u32)?;
        runtime().run(
            kernel
                .bind_mut("total", &mut total)
                .items(100_000)
                .on(placement.clone()),
        )?;
        assert_eq!(total.to_vec()?, [want], "{placement}");
    }
    Ok(())
}

#[test]
fn uniforms_of_nested_structs_arrive_as_they_lie_in_memory() -> Result<()> {
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Lamp {
        position: [f32; 3],
        power: f32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Pod, Zeroable)]
    struct Scene {
        ambient: f32,
        padding: [f32; 3],
        lamps: [Lamp; 2],
        tint: [f32; 2],
        end: [f32; 2],
    }
    let kernel = WgslKernel::builder(
        "scene",
        "struct Lamp { position: vec3<f32>, power: f32 }
         struct Scene { ambient: f32, lamps: array<Lamp, 2>, tint: vec2<f32> }
         struct Bias { by: i32 }
         @group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @group(0) @binding(7) var<uniform> bias: Bias;
         @group(0) @binding(4) var<uniform> scene: Scene;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) {
                 let a = scene.lamps[0];
                 let b = scene.lamps[1];
                 y[id.x] = scene.ambient + a.position.z * a.power + b.position.x * b.power
                     + scene.tint.y + f32(bias.by);
             }
         }",
    )
    .output("y")
    .cpu(|_, args| {
        let scene = args.uniform::<Scene>("scene")?;
        let bias = args.uniform::<i32>("bias")?;
        let [a, b] = scene.lamps;
        let value = scene.ambient + a.position[2] * a.power + b.position[0] * b.power;
        args.output::<f32>("y")?
            .fill(value + scene.tint[1] + bias as f32);
        Ok(())
    })
    .build()?;
    let lamp = |x: f32| Lamp {
        position: [x, x + 1.0, x + 2.0],
        power: x + 3.0,
    };
    let lamps = [lamp(10.0), lamp(20.0)];
    let scene = Scene {
        ambient: 0.5,
        padding: [0.0; 3],
        lamps,
        tint: [7.0, 8.0],
        end: [0.0; 2],
    };
    for placement in placements(runtime()) {
        let mut y = Array::filled(300, POISON)?;
        let call = kernel.bind_mut("y", &mut y);
        let call = call
            .uniform_named("scene", &scene)
            .uniform_named("bias", &-100i32);
        runtime().run(call.on(placement.clone()))?;
        let want = 0.5 + 12.0 * 13.0 + 20.0 * 23.0 + 8.0 - 100.0;
        assert_eq!(y.to_vec()?, [want; 300], "{placement}");
    }
    Ok(())
}

/// A dispatch has at most 65,535 workgroups along x; a call with more items takes several.
#[test]
fn calls_longer_than_a_dispatch_are_computed_entirely() -> Result<()> {
    let kernel = WgslKernel::builder(
        "numbers",
        "struct Part { first: u32, len: u32, total: u32, lead: u32 }
         @group(0) @binding(0) var<uniform> part: Part;
         @group(0) @binding(1) var<storage, read_write> y: array<u32>;
         @group(0) @binding(2) var<storage, read_write> evens: array<atomic<u32>>;
         @compute @workgroup_size(8)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < part.len {
                 let i = part.first + id.x;
                 y[id.x] = i * 7u;
                 if i % 2u == 0u { atomicAdd(&evens[0], 1u); }
             }
         }",
    )
    .output("y")
    .partial("evens", 1, Fold::Add)
    .part("part")
    .cpu(|part, args| {
        let evens = &mut args.output::<u32>("evens")?[0];
        for (y, i) in args.output::<u32>("y")?.iter_mut().zip(part.first as u32..) {
            *y = i.wrapping_mul(7);
            *evens += u32::from(i % 2 == 0);
        }
        Ok(())
    })
    .build()?;
    let n = 65_535 * 8 * 2 + 1001;
    for placement in placements(runtime()) {
        let mut y = Array::filled(n, u32::MAX)?;
        let mut evens = Array::filled(1, 0u32)?;
        let call = kernel.bind_mut("y", &mut y).bind_mut("evens", &mut evens);
        runtime().run(call.on(placement.clone()))?;
        let wrong = y
            .read()?
            .iter()
            .zip(0u32..)
            .position(|(y, i)| *y != i.wrapping_mul(7));
        assert_eq!(wrong, None, "{placement}");
        assert_eq!(evens.to_vec()?, [n.div_ceil(2) as u32], "{placement}");
    }
    Ok(())
}

/// Arrays larger than the adapter can bind are cut, with their halos.
#[test]
fn arrays_larger_than_a_binding_are_cut() -> Result<()> {
    if !has_gpu(runtime()) {
        return Ok(());
    }
    let small = Runtime::builder()
        .max_binding_bytes(16 << 10)
        .max_buffer_bytes(64 << 10);
    let rt = support::build(small);
    let kernel = window_sums(2, 1)?;
    let n = 50_021;
    let (src, near) = (
        Array::from_vec(numbers(n, 8)),
        Array::from_vec(numbers(n, 9)),
    );
    let mut want = Array::filled(n, POISON)?;
    let call = kernel
        .bind("src", &src)
        .bind("near", &near)
        .bind_mut("dst", &mut want);
    rt.run(call.on(Placement::Cpu))?;
    for placement in [Placement::Gpu(0), Placement::split(0.6)] {
        let mut dst = Array::filled(n, POISON)?;
        let call = kernel
            .bind("src", &src)
            .bind("near", &near)
            .bind_mut("dst", &mut dst);
        rt.run(call.on(placement.clone()))?;
        assert_eq!(dst.to_vec()?, want.to_vec()?, "{placement}");
    }
    Ok(())
}

/// A workgroup per row, several entry points, and a workgroup size from an override.
#[test]
fn workgroups_can_be_given_rows_and_overrides_their_size() -> Result<()> {
    let source = "
        override LANES: u32 = 4;
        override SCALE: f32;
        @group(0) @binding(0) var<storage, read> rows: array<f32>;
        @group(0) @binding(1) var<storage, read_write> sums: array<f32>;
        @group(0) @binding(2) var<storage, read_write> unused: array<f32>;
        var<workgroup> lanes: array<f32, 256>;

        @compute @workgroup_size(LANES)
        fn row_sums(
            @builtin(workgroup_id) group: vec3<u32>,
            @builtin(local_invocation_index) lane: u32,
        ) {
            var sum = 0.0;
            for (var c = lane; c < 100u; c += LANES) { sum += rows[group.x * 100u + c]; }
            lanes[lane] = sum * SCALE;
            workgroupBarrier();
            if lane == 0u {
                for (var l = 1u; l < LANES; l++) { sum += lanes[l] / SCALE; }
                sums[group.x] = sum;
            }
        }

        @compute @workgroup_size(64)
        fn times(@builtin(global_invocation_id) id: vec3<u32>) {
            for (var i = 3u * id.x; i < min(3u * id.x + 3u, arrayLength(&sums)); i++) {
                sums[i] *= f32(LANES);
            }
        }";
    let row_sums = WgslKernel::builder("row_sums", source)
        .entry_point("row_sums")
        .constant("LANES", 32.0)
        .constant("SCALE", 2.0)
        .input("rows")
        .width("rows", 100)
        .output("sums")
        .items_per_workgroup(1)
        .cpu(|_, args| {
            let rows = args.input::<f32>("rows")?.chunks(100);
            args.output::<f32>("sums")?
                .iter_mut()
                .zip(rows)
                .for_each(|(s, row)| *s = row.iter().sum());
            Ok(())
        })
        .build()?;
    let times = |factor: f32| {
        WgslKernel::builder("times", source)
            .entry_point("times")
            .constant("LANES", f64::from(factor))
            .update("sums")
            .items_per_invocation(3)
            .cpu(move |_, args| {
                args.output::<f32>("sums")?
                    .iter_mut()
                    .for_each(|s| *s *= factor);
                Ok(())
            })
            .build()
    };
    let (twice, thrice) = (times(2.0)?, times(3.0)?);
    for n in [1, 64, 1000] {
        let rows = numbers(n * 100, 10);
        let want: Vec<f32> = rows
            .chunks(100)
            .map(|row| 6.0 * row.iter().sum::<f32>())
            .collect();
        let rows = Array::from_vec(rows);
        for placement in placements(runtime()) {
            let mut sums = Array::filled(n, POISON)?;
            let call = row_sums.bind("rows", &rows).bind_mut("sums", &mut sums);
            runtime().run(call.on(placement.clone()))?;
            for kernel in [&twice, &thrice] {
                runtime().run(kernel.bind_mut("sums", &mut sums).on(placement.clone()))?;
            }
            assert_eq!(sums.to_vec()?, want, "{n} rows, {placement}");
        }
    }
    Ok(())
}

#[test]
fn kernels_and_their_calls_can_be_shared_between_threads() -> Result<()> {
    fn check<T: Send + Sync>(_: &T) {}
    let kernel = fma()?;
    check(&kernel);
    check(&kernel.call());
    let run = |n: usize| {
        let kernel = kernel.clone();
        move || -> Result<()> {
            let x = Array::from_vec(numbers(n, n as u64));
            let (mut y, mut z) = (Array::filled(n, 1.0f32)?, Array::filled(n, POISON)?);
            let call = kernel
                .bind("x", &x)
                .bind_mut("y", &mut y)
                .bind_mut("z", &mut z);
            runtime().run(call.uniform(&2.0f32))?;
            let want: Vec<f32> = x.to_vec()?.iter().map(|x| 2.0 * x + 1.0).collect();
            assert_eq!(z.to_vec()?, want);
            Ok(())
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1000..1004).map(|n| scope.spawn(run(n))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().expect("no panic"))
    })
}

/// A user's shader cannot reach past its arrays, and sees their exact lengths.
#[test]
fn shaders_of_users_are_checked() -> Result<()> {
    if !has_gpu(runtime()) {
        return Ok(());
    }
    let kernel = WgslKernel::builder(
        "astray",
        "@group(0) @binding(0) var<storage, read> src: array<f32>;
         @group(0) @binding(1) var<storage, read_write> dst: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&dst) { dst[id.x] = src[id.x * 1000000u] * 0.0 + f32(arrayLength(&src)); }
         }",
    )
    .input("src")
    .output("dst")
    .build()?;
    let src = Array::filled(301, 1.0f32)?;
    let mut dst = Array::filled(301, POISON)?;
    runtime().run(kernel.bind("src", &src).bind_mut("dst", &mut dst))?;
    assert_eq!(dst.to_vec()?, [301.0; 301]);
    Ok(())
}

#[test]
fn kernels_of_the_same_name_are_told_apart() {
    use divvy::kernel::Kernel;
    let source = |factor: f32| {
        format!(
            "override more: f32 = 1.0;
             @group(0) @binding(0) var<storage, read_write> y: array<f32>;
             @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
                 if id.x < arrayLength(&y) {{ y[id.x] *= {factor:?} * more; }}
             }}
             @compute @workgroup_size(64) fn other(@builtin(global_invocation_id) id: vec3<u32>) {{
                 if id.x < arrayLength(&y) {{ y[id.x] /= {factor:?} * more; }}
             }}"
        )
    };
    let builder = |factor, entry| {
        WgslKernel::builder("scale", source(factor))
            .entry_point(entry)
            .update("y")
    };
    let kernels = [
        builder(2.0, "main"),
        builder(3.0, "main"),
        builder(2.0, "other"),
        builder(2.0, "main").constant("more", 2.0),
        builder(2.0, "main").width("y", 2),
        builder(2.0, "main").items_per_invocation(4),
        builder(2.0, "main").cpu(|_, _| Ok(())),
    ];
    let hash = |kernel: &WgslKernel| kernel.call().kernel().implementation();
    let hashes = kernels.map(|builder| hash(&builder.build().expect("valid")));
    for (i, a) in hashes.iter().enumerate() {
        assert!(!hashes[..i].contains(a), "kernel {i} is taken for another");
    }
    let again = builder(2.0, "main").build().expect("valid");
    assert_eq!(hash(&again), hashes[0], "the same kernel, built anew");
}
