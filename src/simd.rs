//! Loops compiled for the widest vectors that the processor at hand has.

use pulp::{Arch, Simd, WithSimd};

/// Runs `body` compiled for AVX-512, AVX2, NEON or the baseline, whichever is the best there is.
///
/// Only what is inlined into `body` is compiled so: mark the closure and what it calls `#[inline(always)]`. It is
/// `FnMut` although it is called once, because the compiler calls an `FnOnce` closure through a function of its own,
/// which it may leave out of line and then compiles for the baseline.
pub(crate) fn vectorised<R>(body: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Body(body))
}

struct Body<F>(F);

impl<R, F: FnMut() -> R> WithSimd for Body<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}
