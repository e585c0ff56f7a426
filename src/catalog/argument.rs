//! The arrays that a case owns, and how they are drawn.

use super::{Exact, POISON, Sample};
use crate::array::Array;
use crate::error::Result;

/// Draws the arguments of a case.
#[derive(Debug)]
pub struct Generator {
    pub(super) rng: fastrand::Rng,
    /// Whether elements are drawn. If not, arrays take no memory, and only their lengths are meaningful.
    draws: bool,
}

impl Generator {
    pub(super) fn new(seed: u64, draws: bool) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        Self { rng, draws }
    }

    /// An array of `n` random elements.
    pub(super) fn input<T: Sample>(&mut self, n: usize) -> Result<Argument<T>> {
        self.input_with(n, T::random)
    }

    /// An array of the `n` elements from `draw`.
    pub(super) fn input_with<T: Sample>(
        &mut self,
        n: usize,
        draw: impl FnOnce(usize, &mut fastrand::Rng) -> Vec<T>,
    ) -> Result<Argument<T>> {
        if !self.draws {
            return self.output(n);
        }
        let drawn = draw(n, &mut self.rng);
        let array = Array::from_slice(&drawn)?;
        Ok(Argument { array, drawn })
    }

    /// An array of `n` elements that the kernel writes.
    pub(super) fn output<T: Sample>(&mut self, n: usize) -> Result<Argument<T>> {
        let (array, drawn) = (Array::uninit(n)?, Vec::new());
        Ok(Argument { array, drawn })
    }

    /// All rows if `n` is at most 512, else a random one from each of `bands` equal bands.
    pub(super) fn rows(&mut self, n: usize, bands: usize) -> Vec<usize> {
        if n <= 512 {
            return (0..n).collect();
        }
        let border = |band: usize| (band as u128 * n as u128 / bands as u128) as usize;
        let bands = (0..bands).map(|band| border(band)..border(band + 1));
        bands.map(|band| self.rng.usize(band)).collect()
    }
}

/// An array that a case owns.
pub(super) struct Argument<T: Sample> {
    /// The array that the kernel is bound to.
    pub(super) array: Array<T>,
    /// Its drawn elements; empty if the kernel overwrites it unread.
    pub(super) drawn: Vec<T>,
}

impl<T: Sample> Argument<T> {
    /// A drawn element.
    pub(super) fn at(&self, index: usize) -> Exact {
        self.drawn[index].exact()
    }
}

/// The arrays that a case owns.
pub(super) trait Arguments: Send + 'static {
    /// Restores their drawn elements, or poisons them. Afterwards they are valid on the host only.
    fn reset(&mut self) -> Result<()>;
}

impl<T: Sample> Arguments for Argument<T> {
    fn reset(&mut self) -> Result<()> {
        if !self.drawn.is_empty() {
            return self.array.write_all(&self.drawn);
        }
        self.array.handle().fill_windows(|bytes| {
            let pairs = bytes.chunks_mut(POISON.len());
            pairs.for_each(|pair| pair.copy_from_slice(&POISON[..pair.len()]));
            Ok(())
        })
    }
}

impl<A: Arguments, B: Arguments> Arguments for (A, B) {
    fn reset(&mut self) -> Result<()> {
        self.0.reset()?;
        self.1.reset()
    }
}

impl<A: Arguments, B: Arguments, C: Arguments> Arguments for (A, B, C) {
    fn reset(&mut self) -> Result<()> {
        self.0.reset()?;
        self.1.reset()?;
        self.2.reset()
    }
}
