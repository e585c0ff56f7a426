//! Sources that were made to break what reads them: they are refused, or they work, but they never end the process.

mod support;

use divvy::prelude::*;

fn builder(source: &str) -> divvy::kernel::WgslKernelBuilder {
    WgslKernel::builder("hostile", source)
        .output("y")
        .entry_point("main")
}

/// A kernel with some statements.
fn with(statements: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read_write> y: array<f32>;
         @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {{
             {statements}
             if id.x < arrayLength(&y) {{ y[id.x] = 1.0; }}
         }}"
    )
}

/// What is nested or chained `n` times, in every way there is.
fn nested(n: usize) -> Vec<String> {
    let twice = |open: &str, close: &str| format!("{}1.0{}", open.repeat(n), close.repeat(n));
    let chain = |first: &str, last: &str| -> String {
        let each = (0..n).map(|i| format!("{first}{i} = {last}{} + 1;\n", i + 1));
        each.collect()
    };
    let fns: String = (0..n)
        .map(|i| format!("fn f{i}() -> u32 {{ return f{}() + 1; }}\n", i + 1))
        .collect();
    let structs: String = (0..n)
        .map(|i| format!("struct S{i} {{ s: S{} }}\n", i + 1))
        .collect();
    vec![
        with(&format!("let x = {};", twice("(", ")"))),
        with(&format!("let x = {};", twice("-(", ")"))),
        with(&format!("let x = {};", twice("- ", ""))),
        with(&format!("let x = {}true;", "!".repeat(n))),
        with(&format!("let x = {};", twice("abs(", ")"))),
        with(&format!("let x = {};", twice("1.0 + ", ""))),
        with(&format!("var x = id.x; x = {}x;", "x + ".repeat(n))),
        with(&format!("var x = id.x > 1; x = {}x;", "x && ".repeat(n))),
        with(&format!(
            "let x = y[{}0{}];",
            "u32(y[".repeat(n),
            "])".repeat(n)
        )),
        with(&"{".repeat(n)),
        with(&format!("{}{}", "{".repeat(n), "}".repeat(n))),
        with(&format!("{}{}", "if id.x > 1 {".repeat(n), "}".repeat(n))),
        with(&format!(
            "{}{}",
            "loop { if id.x > 1 { break; }".repeat(n),
            "break; }".repeat(n)
        )),
        with(&format!(
            "if id.x > 1 {{}} {}",
            "else if id.x > 2 {}".repeat(n)
        )),
        with(&format!(
            "if id.x > 1 {{}} {} {}",
            "else { if id.x > 2 {}".repeat(n),
            "}".repeat(n)
        )),
        with(&format!(
            "{}{}",
            "switch id.x { default: {".repeat(n),
            "}}".repeat(n)
        )),
        with(&format!(
            "let x = {}f32{}();",
            "array<".repeat(n),
            ", 1>".repeat(n)
        )),
        with(&format!("let x = id{};", ".xyz".repeat(n))),
        with(&format!("var v = 1; let x = {}v;", "*&".repeat(n))),
        with(&"/*".repeat(n)),
        with(&format!("{}{}", "/*".repeat(n), "*/".repeat(n))),
        chain("const c", "c") + &format!("const c{n} = 1;") + &with("let x = c0;"),
        chain("override c", "c") + &format!("const c{n} = 1;") + &with("let x = c0;"),
        fns + &format!("fn f{n}() -> u32 {{ return 1; }}") + &with("let x = f0();"),
        structs + &format!("struct S{n} {{ s: u32 }}") + &with("var x: S0;"),
        "@".repeat(n),
        "<".repeat(n),
        "fn f(".repeat(n),
    ]
}

#[test]
fn deep_and_long_sources_do_not_end_the_process() -> divvy::Result<()> {
    let rt = support::runtime();
    let has_gpu = support::has_gpu(rt);
    for n in [20, 126, 490, 1_900, 30_000, 300_000] {
        let mut compiled = 0;
        for source in nested(n) {
            let Ok(kernel) = builder(&source).build() else {
                continue;
            };
            compiled += 1;
            // The driver descends too. What takes it long is not tried.
            if has_gpu && n <= 126 {
                let mut y = rt.filled(10, 0.0f32)?;
                let call = kernel.bind_mut("y", &mut y).on(Placement::Gpu(0));
                if rt.run(call).is_ok() {
                    assert_eq!(y.to_vec()?, [1.0; 10], "{source}");
                }
            }
        }
        println!("{n}: {compiled} compiled");
        assert!(compiled > 0 || n > 490);
    }
    Ok(())
}

#[test]
fn values_too_large_to_compute_are_refused_or_left_alone() {
    for statements in [
        "const x = array<f32, 4000000000>();",
        "const x = array<array<f32, 65535>, 65535>(); y[0] = x[1][2];",
        "const x = array<array<array<f32, 1000>, 1000>, 1000>(); const z = x[0][1][2];",
        "var x: array<array<f32, 65535>, 65535>;",
        "const x = 1 << 100;",
        "const x = 9223372036854775807 * 9223372036854775807;",
        "const x = 1 / 0;",
        "const x = i32(-2147483648) / -1;",
        "const x = 1e400;",
        "const x = vec4(1, 2, 3, 4)[7];",
        "let x = extractBits(id.x, 40u, 40u);",
    ] {
        // That it ends is all.
        let _ = builder(&with(statements)).build();
    }
}

#[test]
fn a_uniform_of_very_many_members_is_told_in_few_lines() {
    let structs: String = (0..12)
        .map(|i| format!("struct S{i} {{ a: S{}, b: S{} }}\n", i + 1, i + 1))
        .collect();
    let source = structs
        + "struct S12 { a: vec4<f32> }
           @group(0) @binding(1) var<uniform> u: S0;"
        + &with("y[0] = u.a.a.a.a.a.a.a.a.a.a.a.a.a.x;");
    let kernel = builder(&source).build().expect("it is valid");
    let rt = support::runtime();
    let mut y = rt.filled(10, 0.0f32).expect("a small array");
    let call = kernel.bind_mut("y", &mut y).uniform(&[0u32; 3]);
    let text = rt.run(call).expect_err("another size").to_string();
    assert!(
        text.contains("65536") && text.lines().count() < 300,
        "{text}"
    );
}
