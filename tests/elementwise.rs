//! Every operation of `transform` and `zip` on the CPU, the GPU and split, against exact results, and at the values
//! where implementations differ: zeros, infinities, NaN, wrapping, division by 0. And what the reductions and scans
//! make of such values.

mod support;

use divvy::prelude::*;

const N: usize = 10_007;

/// Calls `test` at every placement, with the seed that it prints if it fails.
fn everywhere(test: impl Fn(&Runtime, Placement, &mut fastrand::Rng)) {
    let rt = support::runtime();
    let seed = fastrand::u64(..);
    for placement in support::placements(rt) {
        println!("{placement}, seed {seed}");
        test(rt, placement, &mut fastrand::Rng::with_seed(seed));
    }
}

/// Values of every magnitude that is normal and has a normal square and reciprocal.
fn floats(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    (0..n)
        .map(|_| {
            let mantissa = 1.0 + rng.f32();
            let x = mantissa * 2f32.powi(rng.i32(-60..60));
            if rng.bool() { x } else { -x }
        })
        .collect()
}

fn ulp(x: f64) -> f64 {
    let exponent = x.abs().max(f64::from(f32::MIN_POSITIVE)).log2().floor();
    (exponent - 23.0).exp2()
}

fn exact(op: Unary, x: f64) -> f64 {
    match op {
        Unary::Neg => -x,
        Unary::Abs => x.abs(),
        Unary::Sqrt => x.sqrt(),
        Unary::Exp => x.exp(),
        Unary::Ln => x.ln(),
        Unary::Sin => x.sin(),
        Unary::Cos => x.cos(),
        Unary::Tanh => x.tanh(),
        Unary::Square => x * x,
        Unary::Reciprocal => x.recip(),
        _ => panic!("{op:?} needs its exact values here"),
    }
}

fn transformed(rt: &Runtime, op: Unary, xs: &[f32], placement: Placement) -> Vec<f32> {
    let x = rt.array_from(xs).unwrap();
    let mut y = rt.filled(xs.len(), f32::from_bits(0x7fc0_dead)).unwrap();
    rt.run(transform(op, &x, &mut y).on(placement)).unwrap();
    y.to_vec().unwrap()
}

fn zipped<T: Arithmetic>(rt: &Runtime, op: Binary, a: &[T], b: &[T], at: Placement) -> Vec<T> {
    let (x, y) = (rt.array_from(a).unwrap(), rt.array_from(b).unwrap());
    let mut out = rt.uninit(a.len()).unwrap();
    rt.run(zip(op, &x, &y, &mut out).on(at)).unwrap();
    out.to_vec().unwrap()
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn functions_are_within_their_documented_error() {
    everywhere(|rt, placement, rng| {
        for &op in Unary::ALL {
            let mut xs = floats(N, rng);
            match op {
                Unary::Sqrt | Unary::Ln => xs.iter_mut().for_each(|x| *x = x.abs()),
                Unary::Exp => xs.iter_mut().for_each(|x| *x %= 87.0),
                _ => {}
            }
            let ys = transformed(rt, op, &xs, placement.clone());
            for (x, y) in xs.iter().zip(ys) {
                let want = exact(op, f64::from(*x));
                let error = (f64::from(y) - want).abs() / ulp(want);
                // Rounding correctly is to be within half a unit.
                let most = op.max_ulps().max(0.5);
                assert!(
                    error <= most,
                    "{op:?}({x:e}) = {y:e}, want {want:e}: {error} ULP"
                );
            }
        }
    });
}

#[test]
fn sines_are_right_near_multiples_of_a_quarter_turn_and_for_the_largest_angles() {
    everywhere(|rt, placement, rng| {
        let mut xs: Vec<f32> = (0..N)
            .map(|i| (i as f64 * std::f64::consts::FRAC_PI_2) as f32)
            .collect();
        xs.extend((0..N).map(|_| f32::from_bits(rng.u32(0x4500_0000..0x7f80_0000))));
        xs.extend([f32::MAX, -f32::MAX, 8192.0, 8192.001, -8192.001]);
        for op in [Unary::Sin, Unary::Cos] {
            let ys = transformed(rt, op, &xs, placement.clone());
            for (x, y) in xs.iter().zip(ys) {
                let want = exact(op, f64::from(*x));
                let error = (f64::from(y) - want).abs() / ulp(want);
                assert!(
                    error <= op.max_ulps(),
                    "{op:?}({x:e}) = {y:e}, want {want:e}: {error}"
                );
            }
        }
    });
}

#[test]
fn functions_follow_ieee_at_zeros_infinities_and_nan() {
    const INF: f32 = f32::INFINITY;
    const NAN: f32 = f32::NAN;
    let xs = [
        0.0,
        -0.0,
        INF,
        -INF,
        NAN,
        -NAN,
        -1.0,
        200.0,
        -200.0,
        88.8,
        f32::MAX,
    ];
    let want = |op: Unary| -> [f32; 11] {
        match op {
            Unary::Neg => [
                -0.0,
                0.0,
                -INF,
                INF,
                NAN,
                NAN,
                1.0,
                -200.0,
                200.0,
                -88.8,
                -f32::MAX,
            ],
            Unary::Abs => [
                0.0,
                0.0,
                INF,
                INF,
                NAN,
                NAN,
                1.0,
                200.0,
                200.0,
                88.8,
                f32::MAX,
            ],
            Unary::Exp => [
                1.0,
                1.0,
                INF,
                0.0,
                NAN,
                NAN,
                (-1f32).exp(),
                INF,
                0.0,
                INF,
                INF,
            ],
            Unary::Square => [
                0.0,
                0.0,
                INF,
                INF,
                NAN,
                NAN,
                1.0,
                4e4,
                4e4,
                88.8f32 * 88.8,
                INF,
            ],
            Unary::Tanh => [
                0.0,
                -0.0,
                1.0,
                -1.0,
                NAN,
                NAN,
                (-1f32).tanh(),
                1.0,
                -1.0,
                1.0,
                1.0,
            ],
            _ => xs.map(|x| match op {
                Unary::Sqrt => x.sqrt(),
                Unary::Ln => x.ln(),
                Unary::Sin => x.sin(),
                Unary::Cos => x.cos(),
                _ => x.recip(),
            }),
        }
    };
    everywhere(|rt, placement, _| {
        for &op in Unary::ALL {
            let ys = transformed(rt, op, &xs, placement.clone());
            for ((x, y), want) in xs.iter().zip(ys).zip(want(op)) {
                let near = |y: f32| {
                    (f64::from(y) - f64::from(want)).abs()
                        <= op.max_ulps() * ulp(want.into()) + f64::from(f32::MIN_POSITIVE)
                };
                let same = match (want.is_nan(), want == 0.0 || want.is_infinite()) {
                    (true, _) => y.is_nan(),
                    (_, true) => y.to_bits() == want.to_bits(),
                    _ => near(y),
                };
                // The reciprocal of the greatest floats is subnormal.
                let flushed = op == Unary::Reciprocal && want.is_subnormal() && y == 0.0;
                assert!(same || flushed, "{op:?}({x}) = {y:?}, want {want:?}");
            }
        }
    });
}

#[test]
fn integer_operations_wrap_and_divide_the_same_everywhere() {
    everywhere(|rt, placement, rng| {
        let odd = [0, 1, -1, 2, i32::MIN, i32::MAX, i32::MIN + 1, 7, -7];
        let mut a: Vec<i32> = odd.iter().flat_map(|a| odd.map(|_| *a)).collect();
        let mut b: Vec<i32> = odd.iter().flat_map(|_| odd).collect();
        a.extend((0..N).map(|_| rng.i32(..)));
        b.extend((0..N).map(|_| rng.i32(..) >> rng.u32(0..31)));
        let (c, d): (Vec<u32>, Vec<u32>) = (
            bytemuck::cast_slice(&a).to_vec(),
            bytemuck::cast_slice(&b).to_vec(),
        );
        for &op in Binary::ALL {
            let signed = zipped(rt, op, &a, &b, placement.clone());
            let unsigned = zipped(rt, op, &c, &d, placement.clone());
            for i in 0..a.len() {
                let (a, b, c, d) = (a[i], b[i], c[i], d[i]);
                let want = match op {
                    Binary::Add => (a.wrapping_add(b), c.wrapping_add(d)),
                    Binary::Sub => (a.wrapping_sub(b), c.wrapping_sub(d)),
                    Binary::Mul => (a.wrapping_mul(b), c.wrapping_mul(d)),
                    Binary::Div => (
                        if b == 0 { a } else { a.wrapping_div(b) },
                        c.checked_div(d).unwrap_or(c),
                    ),
                    Binary::Min => (a.min(b), c.min(d)),
                    Binary::Max => (a.max(b), c.max(d)),
                    _ => panic!("{op:?} needs its exact values here"),
                };
                assert_eq!(
                    (signed[i], unsigned[i]),
                    want,
                    "{op:?} of {a} {b} and of {c} {d}"
                );
            }
        }
    });
}

#[test]
fn float_operations_are_rounded_once_and_prefer_numbers_to_nan() {
    let odd = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
        -f32::NAN,
    ];
    everywhere(|rt, placement, rng| {
        let (a, b) = (floats(N, rng), floats(N, rng));
        for &op in Binary::ALL {
            let got = zipped(rt, op, &a, &b, placement.clone());
            for i in 0..N {
                let (a, b) = (a[i], b[i]);
                if op == Binary::Div {
                    let want = f64::from(a) / f64::from(b);
                    let error = (f64::from(got[i]) - want).abs() / ulp(want);
                    assert!(error <= 2.5, "{a:e} / {b:e} = {:e}: {error} ULP", got[i]);
                    continue;
                }
                let want = match op {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Min => a.min(b),
                    _ => a.max(b),
                };
                assert_eq!(
                    got[i].to_bits(),
                    want.to_bits(),
                    "{op:?} of {a:e} and {b:e}"
                );
            }
        }
        let a: Vec<f32> = odd.iter().flat_map(|a| odd.map(|_| *a)).collect();
        let b: Vec<f32> = odd.iter().flat_map(|_| odd).collect();
        for op in [Binary::Min, Binary::Max] {
            let got = zipped(rt, op, &a, &b, placement.clone());
            for i in 0..a.len() {
                let (a, b) = (a[i], b[i]);
                let first = match (op, a.is_nan(), b.is_nan()) {
                    (_, false, true) => true,
                    (_, true, false) => false,
                    (Binary::Min, ..) => a.total_cmp(&b).is_le(),
                    _ => a.total_cmp(&b).is_ge(),
                };
                if a.is_nan() && b.is_nan() {
                    assert!(got[i].is_nan(), "{op:?} of two NaN is {}", got[i]);
                } else {
                    let want = if first { a } else { b };
                    assert_eq!(got[i].to_bits(), want.to_bits(), "{op:?} of {a} and {b}");
                }
            }
        }
    });
}

#[test]
fn fill_writes_every_bit() {
    everywhere(|rt, placement, _| {
        let odd_nan = f32::from_bits(0xffc1_2345);
        let mut x = rt.filled(N, 0.0f32).unwrap();
        rt.run(fill(odd_nan, &mut x).on(placement.clone())).unwrap();
        assert!(
            bits(&x.to_vec().unwrap())
                .iter()
                .all(|b| *b == odd_nan.to_bits())
        );
    });
}

#[test]
fn extrema_pass_over_nan_and_ties_go_to_the_lowest_index() {
    everywhere(|rt, placement, rng| {
        let run = |xs: &[f32]| {
            let x = rt.array_from(xs).unwrap();
            (
                rt.run(min(&x).on(placement.clone()))
                    .unwrap()
                    .value
                    .map(f32::to_bits),
                rt.run(max(&x).on(placement.clone()))
                    .unwrap()
                    .value
                    .map(f32::to_bits),
                rt.run(argmin(&x).on(placement.clone())).unwrap().value,
                rt.run(argmax(&x).on(placement.clone())).unwrap().value,
            )
        };
        assert_eq!(run(&[]), (None, None, None, None));
        assert_eq!(run(&vec![f32::NAN; 5000]), (None, None, None, None));
        assert_eq!(run(&[-f32::NAN]), (None, None, None, None));

        let mut xs = vec![f32::NAN; 20_000];
        let some = |x: f32| Some(x.to_bits());
        xs[12_345] = 2.0;
        assert_eq!(run(&xs), (some(2.0), some(2.0), Some(12_345), Some(12_345)));
        xs[17_000] = 2.0;
        xs[9_999] = f32::INFINITY;
        xs[10_000] = f32::INFINITY;
        let infinite = some(f32::INFINITY);
        assert_eq!(run(&xs), (some(2.0), infinite, Some(12_345), Some(9_999)));
        xs[19_999] = f32::NEG_INFINITY;
        xs[3] = -f32::NAN;
        let negative = some(f32::NEG_INFINITY);
        assert_eq!(run(&xs), (negative, infinite, Some(19_999), Some(9_999)));

        // Zeros of both signs are equal where places are asked for, and ordered where values are.
        let zeros: Vec<f32> = (0..9000)
            .map(|_| if rng.bool() { 0.0 } else { -0.0 })
            .collect();
        assert_eq!(run(&zeros), (some(-0.0), some(0.0), Some(0), Some(0)));

        // Many ties, in every position within a block.
        let few: Vec<f32> = (0..N).map(|_| rng.i32(-3..4) as f32).collect();
        let first = |x: f32| few.iter().position(|y| *y == x);
        assert_eq!(run(&few), (some(-3.0), some(3.0), first(-3.0), first(3.0)));
    });
}

#[test]
fn integer_extrema_reach_the_ends_of_their_types() {
    everywhere(|rt, placement, _| {
        let x = rt.array_from(&[u32::MAX; 5]).unwrap();
        assert_eq!(
            rt.run(min(&x).on(placement.clone())).unwrap().value,
            Some(u32::MAX)
        );
        let x = rt.array_from(&[0u32; 5]).unwrap();
        assert_eq!(
            rt.run(max(&x).on(placement.clone())).unwrap().value,
            Some(0)
        );
        let x = rt.array_from(&[i32::MAX, i32::MIN, 3]).unwrap();
        assert_eq!(
            rt.run(min(&x).on(placement.clone())).unwrap().value,
            Some(i32::MIN)
        );
        assert_eq!(
            rt.run(max(&x).on(placement.clone())).unwrap().value,
            Some(i32::MAX)
        );
        let x = rt.array_from::<i32>(&[]).unwrap();
        assert_eq!(rt.run(max(&x).on(placement)).unwrap().value, None);
    });
}

#[test]
fn sums_and_scans_have_one_zero_and_pass_on_nan_and_infinity() {
    everywhere(|rt, placement, _| {
        let sum_of = |xs: &[f32]| {
            let x = rt.array_from(xs).unwrap();
            rt.run(sum(&x).on(placement.clone())).unwrap().value
        };
        assert_eq!(sum_of(&[-0.0; 9000]).to_bits(), 0);
        assert_eq!(sum_of(&[]).to_bits(), 0);
        assert_eq!(sum_of(&[f32::INFINITY; 9000]), f32::INFINITY);
        let mut xs = vec![1.0; 9000];
        xs[8000] = f32::NAN;
        assert_eq!(sum_of(&xs).to_bits(), f32::NAN.to_bits());

        for n in [7, 2048, 9000] {
            let x = rt.array_from(&vec![-0.0f32; n]).unwrap();
            let mut out = rt.uninit(n).unwrap();
            rt.run(inclusive_scan(&x, &mut out).on(placement.clone()))
                .unwrap();
            assert!(bits(&out.to_vec().unwrap()).iter().all(|b| *b == 0));
            rt.run(exclusive_scan(&x, &mut out).on(placement.clone()))
                .unwrap();
            assert!(bits(&out.to_vec().unwrap()).iter().all(|b| *b == 0));
        }
    });
}

#[test]
fn exclusive_sums_are_inclusive_sums_one_place_later() {
    everywhere(|rt, placement, rng| {
        for n in [1, 16, 17, 2048, 2049, 40_001] {
            let x = rt.array_from(&floats(n, rng)).unwrap();
            let (mut with, mut without) = (rt.uninit(n).unwrap(), rt.uninit(n).unwrap());
            rt.run(inclusive_scan(&x, &mut with).on(placement.clone()))
                .unwrap();
            rt.run(exclusive_scan(&x, &mut without).on(placement.clone()))
                .unwrap();
            let (with, without) = (with.to_vec().unwrap(), without.to_vec().unwrap());
            assert_eq!(without[0], 0.0);
            assert_eq!(bits(&without[1..]), bits(&with[..n - 1]), "n={n}");
        }
    });
}

#[test]
fn lengths_that_differ_are_errors_that_say_which() {
    let rt = support::runtime();
    let (a, b) = (rt.filled(3, 1.0f32).unwrap(), rt.filled(4, 1.0f32).unwrap());
    let mut out = rt.filled(3, 9.0f32).unwrap();
    let refused = |error: divvy::Error, argument: &str| {
        let message = error.to_string();
        assert!(
            message.contains(&format!("`{argument}` has 4 elements, but 3")),
            "{message}"
        );
    };
    refused(
        rt.run(transform(Unary::Exp, &b, &mut out)).unwrap_err(),
        "x",
    );
    refused(rt.run(zip(Binary::Add, &a, &b, &mut out)).unwrap_err(), "b");
    refused(rt.run(dot(&a, &b)).unwrap_err(), "y");
    refused(rt.run(inclusive_scan(&b, &mut out)).unwrap_err(), "x");
    assert_eq!(out.to_vec().unwrap(), [9.0; 3], "nothing is half-written");
}

#[test]
fn each_function_is_an_implementation_of_its_own() {
    use divvy::kernel::Kernel;
    let (x, mut y) = (
        divvy::Array::<f32>::uninit(1).expect("x"),
        divvy::Array::<f32>::uninit(1).expect("y"),
    );
    let mut hashes: Vec<u64> = Unary::ALL
        .iter()
        .map(|op| transform(*op, &x, &mut y).kernel().implementation())
        .collect();
    let ops = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div];
    hashes.extend(ops.map(|op| zip(op, &x, &x, &mut y).kernel().implementation()));
    hashes.push(axpy(1.0, &x, &mut y).kernel().implementation());
    hashes.push(fill(1.0, &mut y).kernel().implementation());
    assert!(hashes.iter().all(|hash| *hash != 0));
    let all = hashes.len();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), all);
    assert_eq!(
        axpy(1.0, &x, &mut y).kernel().implementation(),
        axpy(2.0, &x, &mut y).kernel().implementation(),
        "a scalar argument is no other implementation"
    );
}
