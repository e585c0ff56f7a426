//! Mistakes in kernels that users write: every one is an error that says which binding is wrong and, where it is about
//! the WGSL source, shows the line.

mod support;

use divvy::kernel::{BoundWgsl, PartItems, Tolerance, WgslArgs, WgslKernelBuilder};
use divvy::prelude::*;
use divvy::{DeviceId, Error, Result};
use support::{has_gpu, placements, runtime};

type Call<'a> = divvy::kernel::Call<'a, BoundWgsl>;

const POISON: f32 = 12345.678;

const COPY: &str = "\
@group(0) @binding(0) var<storage, read> src: array<f32>;
@group(0) @binding(1) var<storage, read_write> dst: array<f32>;
@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x < arrayLength(&dst) { dst[id.x] = src[id.x]; }
}";

fn copy() -> WgslKernelBuilder {
    WgslKernel::builder("copy", COPY).input("src").output("dst")
}

/// The message of the error in `result`, in which every fragment must be.
fn expect<T>(result: Result<T>, fragments: &[&str]) -> String {
    let text = match result {
        Ok(_) => panic!("no error, expected one with {fragments:?}"),
        Err(error) => error.to_string(),
    };
    for fragment in fragments {
        assert!(
            text.contains(fragment),
            "{fragment:?} is not in the message:\n{text}"
        );
    }
    text
}

#[test]
fn a_kernel_without_cpu_code_runs_on_gpus_only() -> Result<()> {
    let kernel = copy().build()?;
    let src = Array::from_slice(&[1.0f32, 2.0, 3.0])?;
    let mut dst = Array::filled(3, POISON)?;
    let alone = support::build(Runtime::builder().cpu_only());
    let call = kernel.bind("src", &src).bind_mut("dst", &mut dst);
    expect(alone.run(call), &["copy", "no implementation"]);
    let call = kernel.bind("src", &src).bind_mut("dst", &mut dst);
    expect(
        runtime().run(call.on(Placement::Cpu)),
        &["copy", "no implementation"],
    );
    if has_gpu(runtime()) {
        let placed = runtime().run(kernel.bind("src", &src).bind_mut("dst", &mut dst))?;
        assert_eq!(placed.report.parts[0].device, DeviceId::Gpu(0));
        assert_eq!(dst.to_vec()?, [1.0, 2.0, 3.0]);
    }
    Ok(())
}

type Describe = fn(WgslKernelBuilder) -> WgslKernelBuilder;

/// Declares `a` and `b` as given, around a shader that does `does` with them.
fn source(a: &str, b: &str, does: &str) -> String {
    format!(
        "struct Part {{ first: u32, len: u32, total: u32, lead: u32 }}\n\
         struct Mixed {{ first: u32, total: u32, len: u32, lead: u32 }}\n\
         @group(0) @binding(0) {a};\n\
         @group(0) @binding(1) {b};\n\
         @compute @workgroup_size(64)\n\
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ let i = id.x; {does} }}"
    )
}

#[test]
fn mistakes_in_a_source_show_its_line() {
    let read = "var<storage, read> a: array<f32>";
    let write = "var<storage, read_write> b: array<f32>";
    let cases: &[(String, Describe, &[&str])] = &[
        // What does not parse, and what does not validate.
        (
            COPY.replace("id.x] = src", "id.x = src"),
            |k| k,
            &["not valid", "wgsl:5:", "dst[id.x = src"],
        ),
        (
            COPY.replace("= src[id.x]", "= 1u"),
            |k| k,
            &["not valid", "wgsl:5:", "dst[id.x] = 1u"],
        ),
        (
            COPY.replace("= src[id.x]", "= scr[id.x]"),
            |k| k,
            &["wgsl:5:", "scr"],
        ),
        ("fn\u{80} é(".into(), |k| k, &["wgsl:1:"]),
        // Entry points.
        (String::new(), |k| k, &["no compute entry point"]),
        (
            "@fragment fn main() {}".into(),
            |k| k,
            &["no compute entry point"],
        ),
        (
            format!("{COPY}\n@compute @workgroup_size(1) fn other() {{}}"),
            |k| k,
            &["several", "`main`", "`other`", ".entry_point"],
        ),
        (
            COPY.into(),
            |k| k.entry_point("mian"),
            &["no compute entry point `mian`", "`main`"],
        ),
        (
            COPY.replace("(64)", "(8, 8)"),
            |k| k.input("src").output("dst"),
            &["8×8×1", ".items_per_workgroup"],
        ),
        // Overrides.
        (
            format!("override N: u32;\n{}", COPY.replace("(64)", "(N)")),
            |k| k.input("src").output("dst"),
            &["override `N`", ".constant(\"N\", value)"],
        ),
        (COPY.into(), |k| k.constant("N", 1.0), &["no override `N`"]),
        (
            format!("override N: u32;\n{}", COPY.replace("(64)", "(N)")),
            |k| k.constant("M", 1.0),
            &["no override `M`", "`N`"],
        ),
        (
            format!("override N: u32;\n{}", COPY.replace("(64)", "(N)")),
            |k| k.constant("N", 0.0),
            &["workgroup"],
        ),
        (
            format!("override N: u32;\n{}", COPY.replace("(64)", "(N)")),
            |k| k.constant("N", f64::NAN),
            &["finite"],
        ),
        // Roles: unknown, unused, missing, twice.
        (
            COPY.into(),
            |k| k.input("scr"),
            &["binding `scr`", "`src`, `dst`"],
        ),
        (
            COPY.replace("src[id.x]", "1.0"),
            |k| k.input("src").output("dst"),
            &["binding `src`", "`main` does not use it"],
        ),
        (
            COPY.into(),
            |k| k.input("src"),
            &[
                "binding `dst`",
                "no role",
                "wgsl:2:",
                "var<storage, read_write> dst: array<f32>",
            ],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").input("src"),
            &["binding `src`", "two roles, `input` and `input`"],
        ),
        (
            source("var<uniform> a: f32", write, "b[i] = a;"),
            |k| k.output("b").input("a"),
            &["binding `a`", "is a uniform", "wgsl:3:"],
        ),
        // Roles that contradict the access.
        (
            COPY.into(),
            |k| k.output("src").output("dst"),
            &[
                "binding `src`",
                "`output`",
                "declared read-only",
                "wgsl:1:",
                "var<storage, read> src",
            ],
        ),
        (
            COPY.into(),
            |k| k.input("src").input("dst"),
            &[
                "binding `dst`",
                "`input`",
                "the shader writes it",
                "wgsl:2:",
            ],
        ),
        (
            COPY.replace("read> src", "read_write> src"),
            |k| k.input("src").output("dst"),
            &[
                "binding `src`",
                "declared read_write",
                "var<storage, read>",
                "wgsl:1:",
            ],
        ),
        (
            COPY.replace("dst[id.x] =", "dst[id.x] +="),
            |k| k.input("src").output("dst"),
            &["binding `dst`", "the shader reads it", "`update`"],
        ),
        (
            source(
                "var<storage, read_write> a: array<f32>",
                write,
                "b[i] = a[i];",
            ),
            |k| k.update("a").output("b"),
            &["binding `a`", "`update`", "never writes it"],
        ),
        (
            source(
                read,
                "var<storage, read_write> b: array<vec3<f32>>",
                "b[i] = vec3(a[i]);",
            ),
            |k| k.input("a").output("b"),
            &["binding `b`", "vec3", "padding", "wgsl:4:"],
        ),
        (COPY.into(), |k| k.input("src"), &["binding `dst`"]),
        (
            source(read, "var<storage> b: array<f32>", "_ = a[i] + b[i];"),
            |k| k.input("a").input("b"),
            &["writes nothing"],
        ),
        // Types that cannot be bound.
        (
            source("var<storage, read> a: array<f32, 4>", write, "b[i] = a[i];"),
            |k| k.input("a").output("b"),
            &["binding `a`", "array<f32, 4>", "runtime-sized", "wgsl:3:"],
        ),
        (
            source(
                "var<storage, read> a: array<mat2x2<f32>>",
                write,
                "b[i] = a[i][0][0];",
            ),
            |k| k.input("a").output("b"),
            &["binding `a`", "array<mat2x2<f32>>", "wgsl:3:"],
        ),
        (
            source(
                "var<storage, read> a: array<Part>",
                write,
                "b[i] = f32(a[i].len);",
            ),
            |k| k.input("a").output("b"),
            &["binding `a`", "array<Part>"],
        ),
        (
            source(
                "var a: texture_2d<f32>",
                write,
                "b[i] = textureLoad(a, vec2(i), 0).x;",
            ),
            |k| k.output("b"),
            &["binding `a`", "textures and samplers", "wgsl:3:"],
        ),
        (
            COPY.replace("@group(0) @binding(0)", "@group(1) @binding(0)"),
            |k| k.input("src").output("dst"),
            &["binding `src`", "bind group 1", "@group(0)", "wgsl:1:"],
        ),
        // The part uniform, and what needs one.
        (
            COPY.into(),
            |k| k.input_halo("src", 1).output("dst"),
            &[
                "binding `src`",
                "input_halo",
                ".part(",
                "struct Part { first: u32",
            ],
        ),
        (
            source("var<uniform> a: f32", write, "b[i] = a;"),
            |k| k.output("b").part("a"),
            &[
                "binding `a`",
                "part uniform",
                "struct Part { first: u32",
                "wgsl:3:",
            ],
        ),
        (
            source("var<uniform> a: Mixed", write, "b[i] = f32(a.len);"),
            |k| k.output("b").part("a"),
            &[
                "binding `a`",
                "struct Part { first: u32, len: u32, total: u32, lead: u32 }",
            ],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").part("src"),
            &["binding `src`", "part uniform"],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").part("part"),
            &["binding `part`", "no such"],
        ),
        (
            source(
                read,
                "var<storage, read_write> b: array<atomic<u32>>",
                "atomicAdd(&b[0], u32(a[i]));",
            ),
            |k| k.input_whole("a").partial("b", 1, Fold::Add),
            &["no array is split by item", ".part("],
        ),
        // Numbers.
        (
            COPY.into(),
            |k| k.input_halo("src", 0).output("dst"),
            &["binding `src`", "`input`"],
        ),
        (
            COPY.into(),
            |k| k.input("src").partial("dst", 0, Fold::Add),
            &["binding `dst`", "at least 1"],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").width("dst", 0),
            &["binding `dst`", "width of 0"],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").width("dst", 2).width("dst", 2),
            &["binding `dst`", "two widths"],
        ),
        (
            COPY.into(),
            |k| {
                k.input("src")
                    .output("dst")
                    .tolerance("src", Tolerance::Bitwise)
            },
            &["binding `src`", "leave `.tolerance` out"],
        ),
        (
            COPY.into(),
            |k| {
                k.input("src")
                    .output("dst")
                    .tolerance("dest", Tolerance::Bitwise)
            },
            &["binding `dest`", "no such binding", "`dst`"],
        ),
        (
            COPY.into(),
            |k| {
                let k = k
                    .input("src")
                    .output("dst")
                    .tolerance("dst", Tolerance::Bitwise);
                k.tolerance("dst", Tolerance::default())
            },
            &["binding `dst`", "two tolerances"],
        ),
        (
            COPY.into(),
            |k| k.input_whole("src").output("dst").width("src", 2),
            &["binding `src`", "split by item"],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").width("dst", usize::MAX),
            &["binding `dst`", "limit is 2^32"],
        ),
        (
            COPY.into(),
            |k| k.input("src").output("dst").items_per_invocation(0),
            &["at least 1"],
        ),
    ];
    for (source, describe, fragments) in cases {
        let text = expect(
            describe(WgslKernel::builder("mistaken", source.as_str())).build(),
            fragments,
        );
        assert!(
            text.contains("kernel `mistaken`"),
            "the kernel is not named:\n{text}"
        );
    }
}

#[test]
fn mistakes_in_binding_name_the_binding() -> Result<()> {
    let kernel = copy().cpu(|_, _| Ok(())).build()?;
    let four = Array::filled(4, 0.0f32)?;
    let mut out = Array::filled(4, POISON)?;
    fn run(call: Call<'_>) -> Result<()> {
        runtime().run(call).map(drop)
    }
    let all = &["kernel `copy`", "binding `dst`"][..];
    expect(
        run(kernel.bind("src", &four)),
        &[all, &["not bound", ".bind_mut(\"dst\""]].concat(),
    );
    expect(
        run(kernel.bind("scr", &four)),
        &["binding `scr`", "`src`, `dst`"],
    );
    expect(
        run(kernel.bind("dst", &four)),
        &[all, &["`output`", ".bind_mut"]].concat(),
    );
    expect(
        run(kernel.bind_mut("src", &mut out)),
        &["binding `src`", "only read", ".bind`"],
    );
    expect(
        run(kernel.bind("src", &four).bind("src", &four)),
        &["binding `src`", "twice"],
    );
    let mut wrong = Array::filled(4, 0u32)?;
    let fragments = [all, &["Array<u32>", "array<f32>", "Array<f32>"]].concat();
    expect(
        run(kernel.bind_mut("dst", &mut wrong).bind("src", &four)),
        &fragments,
    );
    let mut five = Array::filled(5, POISON)?;
    let call = kernel.bind("src", &four).bind_mut("dst", &mut five);
    expect(
        run(call),
        &["`dst` has 5 elements", "4 are needed", "`src`"],
    );
    let call = kernel.bind("src", &four).bind_mut("dst", &mut out).items(3);
    expect(
        run(call),
        &["`src` has 4 elements", "3 are needed", "3 items"],
    );
    let call = kernel
        .bind("src", &four)
        .bind_mut("dst", &mut out)
        .uniform(&1u32);
    expect(run(call), &["no uniform"]);
    // The first mistake is the one reported, and nothing was written.
    let call = kernel
        .bind("first", &four)
        .bind("second", &four)
        .bind_mut("dst", &mut out);
    expect(run(call), &["binding `first`"]);
    assert_eq!(out.to_vec()?, [POISON; 4]);
    Ok(())
}

#[test]
fn lengths_are_in_elements_of_the_array() -> Result<()> {
    let kernel = WgslKernel::builder(
        "lengths",
        "@group(0) @binding(0) var<storage, read> p: array<vec3<f32>>;
         @group(0) @binding(1) var<storage, read> table: array<f32>;
         @group(0) @binding(2) var<storage, read_write> q: array<f32>;
         @group(0) @binding(3) var<storage, read_write> count: array<atomic<u32>>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&p) {
                 q[2u * id.x] = p[id.x].z + table[0];
                 q[2u * id.x + 1u] = p[id.x].x;
                 atomicAdd(&count[1], 1u);
             }
         }",
    )
    .input("p")
    .output("q")
    .width("q", 2)
    .input_whole("table")
    .partial("count", 2, Fold::Add)
    .cpu(|_, args| {
        let (p, q) = (
            args.input::<f32>("p")?.chunks(4),
            args.output::<f32>("q")?.chunks_mut(2),
        );
        let (table, count) = (args.input::<f32>("table")?, args.output::<u32>("count")?);
        for (p, q) in p.zip(q) {
            q.copy_from_slice(&[p[2] + table[0], p[0]]);
            count[1] += 1;
        }
        Ok(())
    })
    .build()?;
    let run = |p: usize, q: usize, table: usize, count: usize, placement: Placement| -> Result<_> {
        let (p, table) = (
            Array::from_vec((0..p).map(|i| i as f32).collect()),
            Array::filled(table, 0.5f32)?,
        );
        let (mut q, mut count) = (Array::filled(q, POISON)?, Array::filled(count, 9u32)?);
        let call = kernel
            .bind("p", &p)
            .bind_mut("q", &mut q)
            .bind("table", &table);
        runtime().run(call.bind_mut("count", &mut count).on(placement))?;
        Ok((p.to_vec()?, q.to_vec()?, count.to_vec()?))
    };
    for placement in placements(runtime()) {
        let (p, q, count) = run(4 * 1000, 2 * 1000, 1, 2, placement)?;
        let want: Vec<f32> = p.chunks(4).flat_map(|p| [p[2] + 0.5, p[0]]).collect();
        assert_eq!((q, count), (want, vec![0, 1000]));
    }
    let cpu = || Placement::Cpu;
    expect(
        run(4001, 2000, 1, 2, cpu()),
        &[
            "binding `p`",
            "4001",
            "multiple of 4",
            "vec3 take 4 scalars",
        ],
    );
    expect(
        run(4000, 1999, 1, 2, cpu()),
        &[
            "`q` has 1999",
            "2000 are needed",
            "as `p` has",
            "2 of array<f32>",
        ],
    );
    expect(run(4000, 2000, 0, 2, cpu()), &["binding `table`", "empty"]);
    expect(
        run(4000, 2000, 1, 3, cpu()),
        &["`count` has 3", "2 are needed", "partial result"],
    );
    assert_eq!(run(0, 0, 0, 2, cpu())?.2, [0, 0]);
    Ok(())
}

#[test]
fn the_number_of_items_must_be_known_and_countable() -> Result<()> {
    let kernel = WgslKernel::builder(
        "count",
        "struct Part { first: u32, len: u32, total: u32, lead: u32 }
         @group(0) @binding(0) var<uniform> part: Part;
         @group(0) @binding(1) var<storage, read_write> n: array<atomic<u32>>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < part.len { atomicAdd(&n[0], 1u); }
         }",
    )
    .part("part")
    .partial("n", 1, Fold::Add)
    .cpu(|_, _| Ok(()))
    .build()?;
    let mut n = Array::filled(1, 0u32)?;
    expect(
        runtime().run(kernel.bind_mut("n", &mut n)),
        &["kernel `count`", "not known", ".items(n)"],
    );
    expect(
        runtime().run(kernel.bind_mut("n", &mut n).items(1 << 32)),
        &["kernel `count`", "4294967296 is too large", "4294967295"],
    );
    Ok(())
}

#[test]
fn a_uniform_of_the_wrong_size_is_answered_with_the_layout() -> Result<()> {
    let kernel = WgslKernel::builder(
        "light",
        "struct Inner { b: vec3<f32>, c: f32 }
         struct Params { a: f32, inner: Inner, d: u32 }
         @group(0) @binding(0) var<uniform> params: Params;
         @group(0) @binding(1) var<uniform> scale: f32;
         @group(0) @binding(2) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] = (params.a + params.inner.c) * scale; }
         }",
    )
    .output("y")
    .cpu(|_, _| Ok(()))
    .build()?;
    let mut y = Array::filled(1, 0.0f32)?;
    let text = expect(
        runtime().run(
            kernel
                .bind_mut("y", &mut y)
                .uniform_named("params", &[0.0f32; 6]),
        ),
        &[
            "binding `params`",
            "[f32; 6] of 24 bytes",
            "Params has 48 bytes",
            "#[repr(C)]",
        ],
    );
    let table: Vec<&str> = text.lines().skip(1).map(str::trim).collect();
    let want = [
        "offset   0,   4 bytes: a: f32",
        "offset   4,  12 bytes: padding",
        "offset  16,  12 bytes: inner.b: vec3<f32>",
        "offset  28,   4 bytes: inner.c: f32",
        "offset  32,   4 bytes: d: u32",
        "offset  36,  12 bytes: padding",
    ];
    assert_eq!(table, want, "{text}");
    let params = [0.0f32; 12];
    let mut run = |call: for<'a> fn(Call<'a>, &[f32; 12]) -> Call<'a>, fragments: &[&str]| {
        expect(
            runtime().run(call(kernel.bind_mut("y", &mut y), &params)),
            fragments,
        )
    };
    run(
        |call, p| call.uniform(p),
        &["several", "`params`, `scale`", ".uniform_named"],
    );
    run(
        |call, p| call.uniform_named("pa", p),
        &["binding `pa`", "`params`, `scale`"],
    );
    run(
        |call, p| call.uniform_named("y", p),
        &["binding `y`", "is an array"],
    );
    run(
        |call, p| call.uniform_named("params", p),
        &["binding `scale`", "has no value"],
    );
    run(
        |call, p| {
            call.uniform_named("params", p)
                .uniform_named("scale", &1u32)
        },
        &["binding `scale`", "a u32 was given", "f32 in WGSL"],
    );
    run(
        |call, p| call.uniform_named("params", p).uniform_named("params", p),
        &["binding `params`", "twice"],
    );
    Ok(())
}

#[test]
fn mistakes_in_a_closure_are_errors_of_the_run() -> Result<()> {
    type Closure = fn(PartItems, &WgslArgs<'_>) -> Result<()>;
    let cases: &[(Closure, &[&str])] = &[
        (
            |_, args| args.input::<f32>("scr").map(drop),
            &["binding `scr`", "`src`, `dst`"],
        ),
        (
            |_, args| args.input::<u32>("src").map(drop),
            &["binding `src`", "asks for u32", "array<f32>"],
        ),
        (
            |_, args| args.input::<f32>("dst").map(drop),
            &["binding `dst`", "`output`", "args.output"],
        ),
        (
            |_, args| args.output::<f32>("src").map(drop),
            &["binding `src`", "`input`", "args.input"],
        ),
        (
            |_, args| {
                args.output::<f32>("dst")?;
                args.output::<f32>("dst").map(drop)
            },
            &["binding `dst`", "twice"],
        ),
        (
            |_, args| args.uniform::<u32>("src").map(drop),
            &["binding `src`", "none"],
        ),
        (
            |part, _| panic!("at item {}", part.first),
            &["panicked", "at item 0"],
        ),
    ];
    for (closure, fragments) in cases {
        let kernel = copy().cpu(*closure).build()?;
        let src = Array::filled(1, 0.0f32)?;
        let mut dst = Array::filled(1, 0.0f32)?;
        let call = kernel
            .bind("src", &src)
            .bind_mut("dst", &mut dst)
            .on(Placement::Cpu);
        let text = expect(runtime().run(call), fragments);
        assert!(text.contains("copy"), "the kernel is not named: {text}");
    }
    let kernel = WgslKernel::builder(
        "shift",
        "@group(0) @binding(0) var<uniform> by: f32;
         @group(0) @binding(1) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>) {
             if id.x < arrayLength(&y) { y[id.x] += by; }
         }",
    )
    .update("y")
    .cpu(|_, args| args.uniform::<[f32; 2]>("by").map(drop))
    .build()?;
    let mut y = Array::filled(1, 0.0f32)?;
    let result = runtime().run(
        kernel
            .bind_mut("y", &mut y)
            .uniform(&1.0f32)
            .on(Placement::Cpu),
    );
    assert!(matches!(result, Err(Error::Binding { .. })));
    expect(result, &["binding `by`", "8 bytes", "has 4"]);
    Ok(())
}
