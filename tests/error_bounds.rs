//! Error bounds: what each kernel promises, as the documents state it, and that a comparison accepts that and no more.

use divvy::catalog::{Check, Sample};
use divvy::kernel::{Call, ErrorBound, Exact, Kernel};
use divvy::kernels::{Binary, Border, Unary};
use divvy::prelude::*;

fn array(n: usize) -> Array<f32> {
    Array::uninit(n).expect("no memory")
}

fn bound<K: Kernel>(call: Call<'_, K>, binding: usize) -> ErrorBound {
    call.kernel().error_bound(binding)
}

#[test]
fn kernels_promise_what_is_written_of_them() {
    let (x, y, mut out) = (array(1 << 16), array(1 << 16), array(1 << 16));
    // 2u(|αx| + |y|).
    let found = bound(axpy(2.0, &x, &mut out), 1);
    assert_eq!(found, ErrorBound::Roundings(2.0));
    for &op in Unary::ALL {
        let found = bound(transform(op, &x, &mut out), 1);
        let want = match op.max_ulps() {
            0.0 => ErrorBound::Exact,
            ulps => ErrorBound::Ulps(ulps),
        };
        assert_eq!(found, want, "{op:?}");
    }
    for &op in Binary::ALL {
        let found = bound(zip(op, &x, &y, &mut out), 2);
        let want = match op {
            Binary::Div => ErrorBound::Ulps(2.5),
            _ => ErrorBound::Exact,
        };
        assert_eq!(found, want, "{op:?}");
    }
    assert_eq!(bound(fill(1.0, &mut out), 0), ErrorBound::Exact);
    // (k + L + 2)·u·Σ|terms|: two levels of 16 + 8, and of 11 + 2, and three of these.
    let of_value = |bound: ErrorBound, roundings: f64| {
        assert_eq!(bound, ErrorBound::Roundings(roundings));
    };
    of_value(sum(&x).kernel().value_error_bound(), 50.0);
    of_value(dot(&x, &y).kernel().value_error_bound(), 50.0);
    of_value(sum(&array(4096)).kernel().value_error_bound(), 26.0);
    of_value(bound(inclusive_scan(&x, &mut out), 1), 28.0);
    of_value(bound(exclusive_scan(&x, &mut out), 1), 28.0);
    assert_eq!(argmin(&x).kernel().value_error_bound(), ErrorBound::Exact);
    assert_eq!(max(&x).kernel().value_error_bound(), ErrorBound::Exact);
    // (K + 2)·u·Σ|terms|.
    let (a, b) = (x.as_matrix(256, 256), y.as_matrix(256, 256));
    let (a, b) = (a.expect("it fits"), b.expect("it fits"));
    let c = out.as_matrix_mut(256, 256).expect("it fits");
    of_value(bound(gemm(1.0, a, b, 0.5, c), 0), 258.0);
    let (v, mut w) = (array(256), array(256));
    of_value(bound(gemv(1.0, a, &v, 0.5, &mut w), 0), 258.0);
    // Five taps: 7u of the warmest cell.
    let step = heat_step(256, 256, 0.1, Border::Fixed, &x, &mut out);
    let share = 7.0 * f64::from(f32::EPSILON) / 2.0;
    assert_eq!(bound(step, 1), ErrorBound::OfLargest(share));
    let found = bound(nbody_accelerations(0.1, &x, &mut out), 1);
    let (width, relative) = (4, 1e-5);
    assert_eq!(found, ErrorBound::Vectors { width, relative });
}

#[test]
fn each_bound_accepts_what_it_says_and_no_more() {
    const EPSILON: f64 = f32::EPSILON as f64;
    let exact = Exact {
        terms: 100.0,
        ..Exact::of(1.0)
    };
    let vectors = ErrorBound::Vectors {
        width: 1,
        relative: 1e-3,
    };
    for (bound, most) in [
        (ErrorBound::Exact, 0.0),
        (ErrorBound::Ulps(2.0), 2.0 * EPSILON),
        (ErrorBound::Relative(1e-3), 1e-3),
        (ErrorBound::OfLargest(1e-5), 1e-3),
        (ErrorBound::Roundings(4.0), 200.0 * EPSILON),
        (vectors, 1e-3),
    ] {
        let is_within = |off: f64| {
            let got = [1.0, (1.0 + off) as f32, 1.0];
            Check::elementwise(&got, &[exact; 3], bound).ok
        };
        for sign in [-1.0, 1.0] {
            assert!(is_within(sign * most * 0.999), "{bound:?}");
            assert!(!is_within(sign * (most * 1.001 + EPSILON)), "{bound:?}");
        }
        for off in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(!is_within(off), "{bound:?} {off}");
        }
        let got = Check::elementwise(&[1.0f32], &[exact; 2], bound);
        assert!(!got.ok, "{bound:?}: one is missing");
    }
}

#[test]
fn special_values_agree_with_themselves_and_subnormals_may_be_flushed() {
    let ok = |got: f32, want: f64| {
        Check::elementwise(&[got], &[Exact::of(want)], ErrorBound::Ulps(1.0)).ok
    };
    assert!(ok(f32::NAN, f64::NAN) && ok(f32::INFINITY, f64::INFINITY));
    assert!(!ok(f32::NEG_INFINITY, f64::INFINITY) && !ok(1.0, f64::NAN));
    assert!(!ok(f32::MAX, f64::INFINITY) && !ok(f32::INFINITY, f32::MAX.into()));
    assert!(ok(0.0, f64::from(f32::MIN_POSITIVE) / 2.0));
    assert!(!ok(0.0, f64::from(f32::MIN_POSITIVE) * 1.5));
}

#[test]
fn integers_are_exact_whatever_the_bound() {
    let bound = ErrorBound::Roundings(1e9);
    let wraps = (u32::MAX.exact() + u32::MAX.exact()) * 3u32.exact();
    assert!(Check::elementwise(&[u32::MAX - 5], &[wraps], bound).ok);
    assert!(!Check::elementwise(&[u32::MAX - 4], &[wraps], bound).ok);
    let negative = (-7i32).exact() * 3i32.exact();
    assert!(Check::elementwise(&[-21i32], &[negative], bound).ok);
    assert!(!Check::elementwise(&[21i32], &[negative], bound).ok);
}
