//! `gemm` and `gemv`: every transpose, scale, odd shape and placement against f64, and what is promised of NaNs,
//! empty matrices, operands larger than a binding, and mistakes.

mod support;

use divvy::array::{Matrix, MatrixMut};
use divvy::catalog::{Check, random_f32};
use divvy::kernel::{ErrorBound, Exact};
use divvy::prelude::*;
use divvy::{Error, Result};
use support::{build, has_gpu, placements, runtime};

/// Rows of C, columns of C, and the axis that is summed.
type Shape = (usize, usize, usize);

const SHAPES: &[Shape] = &[
    (1, 1, 1),
    (1, 70, 5),
    (70, 1, 64),
    (5, 3, 2),
    (17, 33, 65),
    (64, 64, 64),
    (65, 127, 129),
    (130, 260, 36),
];
/// Shapes for which GPUs choose larger tiles.
const LARGE_SHAPES: &[Shape] = &[(1100, 700, 24), (1500, 1600, 19)];
const SCALES: &[(f32, f32)] = &[
    (1.0, 0.0),
    (-0.5, 0.0),
    (1.0, 1.0),
    (2.5, -0.5),
    (0.0, 0.7),
    (0.0, 0.0),
    (0.0, 1.0),
];
const TRANSPOSES: [(bool, bool); 4] = [(false, false), (true, false), (false, true), (true, true)];

/// The same numbers every time, or those of `DIVVY_TEST_SEED`; failures print it.
fn seed() -> u64 {
    std::env::var("DIVVY_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..))
}

/// An array as a matrix of `rows` x `columns` of which it holds, or holds the transpose.
fn view(
    array: &Array<f32>,
    rows: usize,
    columns: usize,
    transposed: bool,
) -> Result<Matrix<'_, f32>> {
    if transposed {
        Ok(array.as_matrix(columns, rows)?.transposed())
    } else {
        array.as_matrix(rows, columns)
    }
}

/// A matrix that is stored as it is or transposed.
struct Stored {
    rows: usize,
    columns: usize,
    transposed: bool,
    elements: Vec<f32>,
    array: Array<f32>,
}

impl Stored {
    fn new(rows: usize, columns: usize, transposed: bool, elements: Vec<f32>) -> Result<Self> {
        let array = Array::from_slice(&elements)?;
        Ok(Self {
            rows,
            columns,
            transposed,
            elements,
            array,
        })
    }

    fn view(&self) -> Result<Matrix<'_, f32>> {
        view(&self.array, self.rows, self.columns, self.transposed)
    }

    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(
            self.elements[if self.transposed {
                column * self.rows + row
            } else {
                row * self.columns + column
            }],
        )
    }
}

/// A * B, and the same of magnitudes.
fn products(a: &Stored, b: &Stored) -> Vec<(f64, f64)> {
    let mut all = Vec::with_capacity(a.rows * b.columns);
    for i in 0..a.rows {
        for j in 0..b.columns {
            let terms = (0..a.columns).map(|q| a.at(i, q) * b.at(q, j));
            all.push(terms.fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs())));
        }
    }
    all
}

/// Holds `got` against `alpha * products + beta * before` under the bound for sums of `k` products.
fn check(
    got: &[f32],
    products: &[(f64, f64)],
    k: usize,
    (alpha, beta): (f32, f32),
    before: &[f32],
) -> Check {
    let (alpha, beta) = (f64::from(alpha), f64::from(beta));
    let want = products.iter().zip(before).map(|((sum, size), c)| {
        let c = beta * f64::from(*c);
        let terms = alpha.abs() * size + c.abs();
        Exact {
            terms,
            ..Exact::of(alpha * sum + c)
        }
    });
    let bound = ErrorBound::Roundings(k as f64 + 2.0);
    Check::elementwise(got, &want.collect::<Vec<_>>(), bound)
}

#[test]
fn gemm_is_right_for_every_transpose_scale_shape_and_placement() -> Result<()> {
    let rt = runtime();
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let small = SHAPES.iter().map(|shape| (*shape, SCALES));
    let large = LARGE_SHAPES.iter().map(|shape| (*shape, &SCALES[3..4]));
    for ((m, n, k), scales) in small.chain(large) {
        for (transposed_a, transposed_b) in TRANSPOSES {
            let a = Stored::new(m, k, transposed_a, random_f32(m * k, &mut rng))?;
            let b = Stored::new(k, n, transposed_b, random_f32(k * n, &mut rng))?;
            let products = products(&a, &b);
            let before = random_f32(m * n, &mut rng);
            for &(alpha, beta) in scales {
                for placement in placements(rt) {
                    let mut c = Array::from_slice(&before)?;
                    rt.run(
                        gemm(alpha, a.view()?, b.view()?, beta, c.as_matrix_mut(m, n)?)
                            .on(placement.clone()),
                    )?;
                    let check = check(&c.read()?, &products, k, (alpha, beta), &before);
                    assert!(
                        check.ok,
                        "{m}x{n}x{k} transposed {transposed_a} {transposed_b} scales {alpha} {beta} on {placement}: \
                         {check:?}, DIVVY_TEST_SEED={seed}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn gemv_is_right_for_every_transpose_scale_shape_and_placement() -> Result<()> {
    let rt = runtime();
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    let shapes = [
        (1, 1),
        (1, 300),
        (300, 1),
        (3, 2),
        (17, 33),
        (64, 64),
        (127, 129),
        (257, 1000),
        (4099, 52),
        (60, 4100),
    ];
    for (m, k) in shapes {
        for transposed in [false, true] {
            let a = Stored::new(m, k, transposed, random_f32(m * k, &mut rng))?;
            let x = Stored::new(k, 1, false, random_f32(k, &mut rng))?;
            let products = products(&a, &x);
            let before = random_f32(m, &mut rng);
            for &(alpha, beta) in SCALES {
                for placement in placements(rt) {
                    let mut y = Array::from_slice(&before)?;
                    rt.run(gemv(alpha, a.view()?, &x.array, beta, &mut y).on(placement.clone()))?;
                    let check = check(&y.read()?, &products, k, (alpha, beta), &before);
                    assert!(
                        check.ok,
                        "{m}x{k} transposed {transposed} scales {alpha} {beta} on {placement}: {check:?}, \
                         DIVVY_TEST_SEED={seed}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn operands_larger_than_a_binding_are_taken_a_window_at_a_time() -> Result<()> {
    const WINDOW: u64 = 256 << 10;
    let rt = build(Runtime::builder().max_binding_bytes(WINDOW));
    let seed = seed();
    let mut rng = fastrand::Rng::with_seed(seed);
    // Only in the last do single rows exceed a window.
    for (m, n, k) in [
        (130, 200, 900),
        (70, 333, 501),
        (300, 1, 700),
        (2, 1, 530_001),
    ] {
        for (transposed_a, transposed_b) in TRANSPOSES {
            let a = Stored::new(m, k, transposed_a, random_f32(m * k, &mut rng))?;
            let b = Stored::new(k, n, transposed_b, random_f32(k * n, &mut rng))?;
            assert!(4 * (m * k).max(k * n) as u64 > WINDOW);
            let products = products(&a, &b);
            let before = random_f32(m * n, &mut rng);
            for placement in placements(&rt).into_iter().take(3) {
                for beta in [0.0, -0.5] {
                    let at = format!(
                        "{m}x{n}x{k} transposed {transposed_a} {transposed_b} beta {beta} on {placement}, \
                         DIVVY_TEST_SEED={seed}"
                    );
                    let mut c = Array::from_slice(&before)?;
                    let c_view = c.as_matrix_mut(m, n)?;
                    rt.run(gemm(1.5, a.view()?, b.view()?, beta, c_view).on(placement.clone()))?;
                    let checked = check(&c.read()?, &products, k, (1.5, beta), &before);
                    assert!(checked.ok, "gemm {at}: {checked:?}");
                    if n == 1 {
                        let mut y = Array::from_slice(&before)?;
                        rt.run(gemv(1.5, a.view()?, &b.array, beta, &mut y).on(placement.clone()))?;
                        let checked = check(&y.read()?, &products, k, (1.5, beta), &before);
                        assert!(checked.ok, "gemv {at}: {checked:?}");
                    }
                }
            }
        }
    }
    Ok(())
}

#[test]
fn operands_past_the_adapters_own_limit_work() -> Result<()> {
    let rt = runtime();
    // Adapters with larger bindings would need many gigabytes; the small windows above stand for them.
    let limit = rt
        .gpus()
        .map(|gpu| gpu.limits.max_binding_bytes)
        .min()
        .unwrap_or(0);
    if !has_gpu(rt) || limit > 256 << 20 {
        return Ok(());
    }
    let (m, n) = (2, 4096);
    let k = limit as usize / 4 / n + 100;
    // Small integers that repeat after five rows and columns: every sum is exact, and quickly known.
    let number = |i: usize, j: usize| ((i * 7 + j * 3) % 5) as f32 - 2.0;
    let stored = |rows: usize, columns: usize, transposed: bool| {
        let (r, c) = if transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        let element = |i, j| {
            if transposed {
                number(j, i)
            } else {
                number(i, j)
            }
        };
        let five = (0..5).map(|i| (0..c).map(|j| element(i, j)).collect::<Vec<_>>());
        let five: Vec<_> = five.collect();
        let elements = (0..r).flat_map(|i| five[i % 5].iter().copied()).collect();
        Stored::new(rows, columns, transposed, elements)
    };
    let a = stored(m, k, false)?;
    for transposed_b in [false, true] {
        let b = stored(k, n, transposed_b)?;
        let mut c = Array::<f32>::filled(m * n, f32::NAN)?;
        let c_view = c.as_matrix_mut(m, n)?;
        rt.run(gemm(1.0, a.view()?, b.view()?, 0.0, c_view).on(Placement::Gpu(0)))?;
        for (i, got) in c.read()?.iter().enumerate() {
            let term = |q: usize| a.at(i / n, q) * b.at(q, i % n);
            let period: f64 = (0..5).map(term).sum();
            let want = period * (k / 5) as f64 + (0..k % 5).map(term).sum::<f64>();
            assert_eq!(
                f64::from(*got),
                want,
                "element {i}, transposed {transposed_b}"
            );
        }
    }
    Ok(())
}

/// Shapes that take different paths through the implementations.
const PATHS: &[Shape] = &[
    (1, 1, 1),
    (3, 300, 1),
    (17, 9, 2),
    (20, 30, 40),
    (200, 160, 33),
    (1, 50, 50),
    (50, 1, 50),
    (4, 4, 3000),
];

#[test]
fn what_is_multiplied_by_zero_is_not_read() -> Result<()> {
    let rt = runtime();
    for &(m, n, k) in PATHS {
        let (a, b, x) = (
            Array::filled(m * k, 0.5f32)?,
            Array::filled(k * n, 1.0f32)?,
            Array::filled(k, 1.0f32)?,
        );
        let nan = |len| Array::filled(len, f32::NAN);
        let (nan_a, nan_b, nan_x) = (nan(m * k)?, nan(k * n)?, nan(k)?);
        for placement in placements(rt) {
            for (transposed_a, transposed_b) in TRANSPOSES {
                let at =
                    format!("{m}x{n}x{k} transposed {transposed_a} {transposed_b} on {placement}");
                let va = |array| view(array, m, k, transposed_a);
                let vb = |array| view(array, k, n, transposed_b);
                let (mut c, mut y) = (nan(m * n)?, nan(m)?);
                rt.run(
                    gemm(2.0, va(&a)?, vb(&b)?, 0.0, c.as_matrix_mut(m, n)?).on(placement.clone()),
                )?;
                assert_eq!(c.to_vec()?, vec![k as f32; m * n], "beta = 0, gemm {at}");
                rt.run(gemv(2.0, va(&a)?, &x, 0.0, &mut y).on(placement.clone()))?;
                assert_eq!(y.to_vec()?, vec![k as f32; m], "beta = 0, gemv {at}");

                let (mut c, mut y) = (Array::filled(m * n, 3.0f32)?, Array::filled(m, 3.0f32)?);
                rt.run(
                    gemm(0.0, va(&nan_a)?, vb(&nan_b)?, -2.0, c.as_matrix_mut(m, n)?)
                        .on(placement.clone()),
                )?;
                assert_eq!(c.to_vec()?, vec![-6.0; m * n], "alpha = 0, gemm {at}");
                rt.run(gemv(0.0, va(&nan_a)?, &nan_x, -2.0, &mut y).on(placement.clone()))?;
                assert_eq!(y.to_vec()?, vec![-6.0; m], "alpha = 0, gemv {at}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_is_not_a_number_or_infinite_spreads_as_far_as_it_is_multiplied() -> Result<()> {
    let rt = runtime();
    for &(m, n, k) in PATHS {
        for placement in placements(rt) {
            for (transposed_a, transposed_b) in TRANSPOSES {
                // One row of A, one column of B and one element of C are odd.
                let (row, column, depth) = (m / 2, n / 3, k - 1);
                let mut a = Array::filled(m * k, 1.0f32)?;
                let mut b = Array::filled(k * n, 1.0f32)?;
                let mut c = Array::filled(m * n, 1.0f32)?;
                a.write()?[if transposed_a {
                    depth * m + row
                } else {
                    row * k + depth
                }] = f32::NAN;
                b.write()?[if transposed_b {
                    column * k + depth
                } else {
                    depth * n + column
                }] = f32::INFINITY;
                c.write()?[m * n - 1] = f32::NEG_INFINITY;
                let (va, vb) = (view(&a, m, k, transposed_a)?, view(&b, k, n, transposed_b)?);
                rt.run(gemm(1.0, va, vb, 1.0, c.as_matrix_mut(m, n)?).on(placement.clone()))?;
                for (i, got) in c.read()?.iter().enumerate() {
                    let last = i == m * n - 1;
                    let as_expected = if i / n == row || (i % n == column && last) {
                        got.is_nan()
                    } else if i % n == column {
                        *got == f32::INFINITY
                    } else if last {
                        *got == f32::NEG_INFINITY
                    } else {
                        *got == k as f32 + 1.0
                    };
                    assert!(
                        as_expected,
                        "{m}x{n}x{k} transposed {transposed_a} {transposed_b} on {placement}: element {i} is {got}"
                    );
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_matrix_times_its_own_transpose() -> Result<()> {
    let rt = runtime();
    let (m, k) = (70, 33);
    let seed = seed();
    let a = random_f32(m * k, &mut fastrand::Rng::with_seed(seed));
    let (a, other) = (
        Stored::new(m, k, false, a.clone())?,
        Stored::new(m, k, false, a)?,
    );
    let at = Stored {
        rows: k,
        columns: m,
        transposed: true,
        ..other
    };
    let products = products(&a, &at);
    for placement in placements(rt) {
        let mut c = Array::<f32>::filled(m * m, f32::NAN)?;
        let c_view = c.as_matrix_mut(m, m)?;
        rt.run(gemm(1.0, a.view()?, a.view()?.transposed(), 0.0, c_view).on(placement.clone()))?;
        let check = check(&c.read()?, &products, k, (1.0, 0.0), &vec![0.0; m * m]);
        assert!(
            check.ok,
            "on {placement}: {check:?}, DIVVY_TEST_SEED={seed}"
        );
    }
    Ok(())
}

#[test]
fn empty_matrices_work() -> Result<()> {
    let rt = runtime();
    for (m, n, k) in [
        (0, 0, 0),
        (0, 5, 3),
        (5, 0, 3),
        (0, 0, 3),
        (5, 3, 0),
        (0, 3, 0),
    ] {
        for (transposed_a, transposed_b) in TRANSPOSES {
            for placement in placements(rt) {
                for beta in [0.0, 1.0, -0.5] {
                    let (a, b) = (Array::filled(m * k, 1.0f32)?, Array::filled(k * n, 1.0f32)?);
                    let (va, vb) = (view(&a, m, k, transposed_a)?, view(&b, k, n, transposed_b)?);
                    let mut c = Array::filled(m * n, 2.0f32)?;
                    rt.run(gemm(1.0, va, vb, beta, c.as_matrix_mut(m, n)?).on(placement.clone()))?;
                    assert_eq!(
                        c.to_vec()?,
                        vec![2.0 * beta; m * n],
                        "{m}x{n}x{k} {beta} on {placement}"
                    );

                    let x = Array::filled(k, 1.0f32)?;
                    let mut y = Array::filled(m, 2.0f32)?;
                    rt.run(gemv(1.0, va, &x, beta, &mut y).on(placement.clone()))?;
                    let want = k as f32 + 2.0 * beta;
                    assert_eq!(y.to_vec()?, vec![want; m], "{m}x{k} {beta} on {placement}");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused_and_nothing_is_written() -> Result<()> {
    let a = Array::filled(12, 1.0f32)?;
    let mut c = Array::filled(9, 7.0f32)?;
    let says = |result: Result<()>, parts: &[&str]| {
        let text = result.expect_err("refused").to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    };
    fn multiply(a: Matrix<'_, f32>, b: Matrix<'_, f32>, c: MatrixMut<'_, f32>) -> Result<()> {
        runtime().run(gemm(1.0, a, b, 0.0, c)).map(|run| run.value)
    }
    fn apply(a: Matrix<'_, f32>, x: &Array<f32>, y: &mut Array<f32>) -> Result<()> {
        runtime().run(gemv(1.0, a, x, 0.0, y)).map(|run| run.value)
    }
    says(
        multiply(
            a.as_matrix(3, 4)?,
            a.as_matrix(3, 4)?,
            c.as_matrix_mut(3, 3)?,
        ),
        &[
            "gemm: A is 3 x 4 and B is 3 x 4",
            "as many columns as B has rows",
        ],
    );
    says(
        multiply(
            a.as_matrix(2, 6)?,
            a.as_matrix(2, 6)?.transposed(),
            c.as_matrix_mut(3, 3)?,
        ),
        &[
            "gemm: C is 3 x 3, expected 2 x 2",
            "B is 6 x 2 (the transpose of an array of 2 x 6)",
        ],
    );
    let (x, mut y) = (Array::filled(3, 1.0f32)?, Array::filled(3, 7.0f32)?);
    says(
        apply(a.as_matrix(3, 4)?, &x, &mut y),
        &["gemv: `x` has 3 elements, but 4 are needed (A is 3 x 4)"],
    );
    says(
        apply(a.as_matrix(3, 4)?.transposed(), &x, &mut y),
        &["gemv: `y` has 3 elements, but 4 are needed"],
    );
    assert_eq!((c.to_vec()?, y.to_vec()?), (vec![7.0; 9], vec![7.0; 3]));

    let refused = a.as_matrix(5, 3).expect_err("12 elements").to_string();
    assert!(
        refused.contains("has 12 elements, but 15 are needed (5 rows of 3)"),
        "{refused}"
    );
    assert!(matches!(
        a.as_matrix(usize::MAX, 3),
        Err(Error::TooLarge { .. })
    ));
    Ok(())
}
