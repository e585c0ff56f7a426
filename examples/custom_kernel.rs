//! A custom kernel: a three-point blur, written once in WGSL for GPUs and once in Rust for the CPU. It runs on every
//! device and split over both.
//!
//! ```sh
//! cargo run --release --example custom_kernel [ITEMS]
//! ```

use bytemuck::{Pod, Zeroable};
use divvy::prelude::*;
use std::io::Write;
use std::process::ExitCode;

/// Each item becomes a weighted mean of itself and its two neighbours; the ends repeat.
const BLUR: &str = "
    // Divvy cuts a call into parts and tells the shader which items are this part's.
    struct Part {
        first: u32, // index of the part's first item among all
        len: u32,   // items of this part
        total: u32, // items in all
        lead: u32,  // items that precede the first own one in `src`
    }
    struct Params { centre: f32, side: f32 }

    @group(0) @binding(0) var<uniform> part: Part;
    @group(0) @binding(1) var<uniform> params: Params;
    @group(0) @binding(2) var<storage, read> src: array<f32>;
    @group(0) @binding(3) var<storage, read_write> dst: array<f32>;

    @compute @workgroup_size(64)
    fn main(@builtin(global_invocation_id) id: vec3<u32>) {
        // The last workgroup has invocations without an item.
        if id.x >= part.len { return; }
        let i = part.first + id.x; // the item's index among all
        let own = part.lead + id.x; // where it is in `src`
        let left = src[select(own - 1u, own, i == 0u)];
        let right = src[select(own + 1u, own, i == part.total - 1u)];
        dst[id.x] = params.centre * src[own] + params.side * (left + right);
    }
";

/// The memory layout is that of the WGSL struct; Divvy compares their sizes.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    centre: f32,
    side: f32,
}

fn main() -> ExitCode {
    let items = std::env::args().nth(1).unwrap_or("1000000".into());
    let outcome = match items.parse::<u32>() {
        Ok(items) if items <= MOST_ITEMS => run(items as usize),
        _ => Err(format!("ITEMS is {items:?}, expected a number up to {MOST_ITEMS}").into()),
    };
    if let Err(error) = outcome {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// An array of 1 GiB.
const MOST_ITEMS: u32 = 1 << 28;

fn run(n: usize) -> Result<(), Box<dyn std::error::Error>> {
    // The roles say which elements of each array belong to a range of items. From them Divvy knows which data to move,
    // and how to split a call.
    let blur = WgslKernel::builder("blur", BLUR)
        .output("dst") // one element per item, all written
        .input_halo("src", 1) // one element per item, and those of 1 item past both ends of a part
        .part("part") // the uniform from which the shader reads its part
        .cpu(|part, args| {
            let (src, dst) = (args.input::<f32>("src")?, args.output::<f32>("dst")?);
            let Params { centre, side } = args.uniform("params")?;
            for (i, dst) in dst.iter_mut().enumerate() {
                let own = part.lead + i;
                let left = src[own.saturating_sub(1)];
                let right = src[(own + 1).min(src.len() - 1)];
                *dst = centre * src[own] + side * (left + right);
            }
            Ok(())
        })
        .build()?; // parses and checks the WGSL; a mistake is an error that shows the line

    let rt = Runtime::new()?;
    let mut out = std::io::stdout().lock();
    let signal: Vec<f32> = (0..n)
        .map(|i| (i as f32 * 0.01).sin() + (i % 7) as f32 * 0.1)
        .collect();
    let src = rt.array_from(&signal)?;
    let params = Params {
        centre: 0.5,
        side: 0.25,
    };

    let mut placements = vec![Placement::Cpu];
    if rt.gpus().len() > 0 {
        placements.extend([Placement::Gpu(0), Placement::split(0.5), Placement::Auto]);
    } else {
        writeln!(out, "no GPU: {}", rt.gpu_problems().join("; "))?;
    }
    let mut expected: Option<Vec<f32>> = None;
    for placement in placements {
        let mut dst = rt.uninit::<f32>(n)?;
        let call = blur
            .bind("src", &src)
            .bind_mut("dst", &mut dst)
            .uniform(&params);
        let report = rt.run(call.on(placement.clone()))?.report;
        let blurred = dst.to_vec()?;
        let expected = expected.get_or_insert_with(|| blurred.clone());
        let apart = expected
            .iter()
            .zip(&blurred)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        let parts: Vec<String> = report
            .parts
            .iter()
            .map(|part| format!("{} {:?}", part.device, part.range))
            .collect();
        writeln!(
            out,
            "{placement}: {}; apart from the CPU's result by {apart:e}",
            parts.join(", ")
        )?;
        if apart > 1e-6 {
            return Err("the devices disagree".into());
        }
    }
    Ok(())
}
