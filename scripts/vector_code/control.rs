//! What `check.py` is tried on first: loops of which it is known whether they are vector code.
//!
//! They have the names that Divvy's loops have, and are compiled as those are, by `vector_code.sh`.

pub mod simd {
    /// As Divvy's.
    pub struct Compiled<L, B>(pub L, pub B);
}

pub struct V3;
pub struct V4;

/// What Divvy calls a `VectorLoop`.
pub trait Loop {
    fn run(self);
}

pub struct Sound<'a>(pub &'a [f32], pub &'a mut [f32]);
pub struct Outlined<'a>(pub &'a [f32], pub &'a mut [f32]);
pub struct Serial<'a>(pub &'a [f32], pub &'a mut [f32]);

/// A loop as it should be.
impl Loop for Sound<'_> {
    #[inline(always)]
    fn run(self) {
        scale(self.0, self.1);
    }
}

/// The fault that the check was made for: the loop stays a function of its own and is compiled for the baseline.
impl Loop for Outlined<'_> {
    #[inline(always)]
    fn run(self) {
        outlined(self.0, self.1);
    }
}

/// A loop that no compiler makes vector code of, since each element needs the one before.
impl Loop for Serial<'_> {
    #[inline(always)]
    fn run(self) {
        let mut last = 1.0;
        for (x, y) in self.0.iter().zip(self.1) {
            last = last * 0.5 + x;
            *y = last;
        }
    }
}

#[inline(always)]
fn scale(x: &[f32], y: &mut [f32]) {
    for (x, y) in x.iter().zip(y) {
        *y = 2.5 * x;
    }
}

#[inline(never)]
fn outlined(x: &[f32], y: &mut [f32]) {
    scale(x, y);
}

pub mod vectorize {
    use super::Loop;
    use super::simd::Compiled;

    #[target_feature(enable = "avx2,fma")]
    #[inline]
    pub unsafe fn imp<C: Copied>(copy: C) {
        copy.call();
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
    #[inline]
    pub unsafe fn imp_512<C: Copied>(copy: C) {
        copy.call();
    }

    pub trait Copied {
        fn call(self);
    }

    impl<L, B: Loop> Copied for Compiled<L, B> {
        #[inline(always)]
        fn call(self) {
            self.1.run();
        }
    }
}

/// Makes all copies exist.
///
/// # Safety
/// The processor has AVX-512.
pub unsafe fn all(x: &[f32], y: &mut [f32]) {
    use simd::Compiled;
    use vectorize::{imp, imp_512};
    unsafe {
        imp(Compiled(V3, Sound(x, y)));
        imp(Compiled(V3, Outlined(x, y)));
        imp(Compiled(V3, Serial(x, y)));
        imp_512(Compiled(V4, Sound(x, y)));
        imp_512(Compiled(V4, Outlined(x, y)));
        imp_512(Compiled(V4, Serial(x, y)));
    }
}
