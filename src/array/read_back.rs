//! Whether the host is wont to read what kernels write to an array: what a plan goes by when it weighs what it costs to
//! have results on a GPU.

/// How fast a habit is given up for another.
const WEIGHT: f32 = 0.5;

/// What became of the results of kernels in an array.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadBack {
    /// Whether a kernel wrote to it, and nobody used that yet.
    unused: bool,
    /// The share of such results that the host read, the recent ones counting most.
    habit: Option<f32>,
}

impl ReadBack {
    /// The share of what a kernel writes now that the host is expected to read before it is written again. All of it if
    /// nothing is known: most results are wanted sooner or later, and most arrays are used once.
    pub(crate) fn expected(&self) -> f64 {
        f64::from(self.habit.unwrap_or(1.0))
    }

    /// A kernel reads it, writes it or both.
    pub(crate) fn used_by_kernel(&mut self, writes: bool) {
        if self.unused {
            self.note(0.0);
        }
        self.unused = writes;
    }

    /// A further pass of the same call reads it, writes it or both: what the call itself does with its results tells
    /// nothing of what becomes of them.
    pub(crate) fn used_again(&mut self, writes: bool) {
        self.unused |= writes;
    }

    /// The host reads that share of it.
    pub(crate) fn read_by_host(&mut self, share: f32) {
        if self.unused {
            self.note(share);
            self.unused = false;
        }
    }

    /// The host writes it, without having read it.
    pub(crate) fn written_by_host(&mut self) {
        if self.unused {
            self.note(0.0);
            self.unused = false;
        }
    }

    fn note(&mut self, share: f32) {
        self.habit = Some(match self.habit {
            Some(habit) => habit + WEIGHT * (share - habit),
            None => share,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_expected_to_be_read_until_they_are_not() {
        let mut array = ReadBack::default();
        assert_eq!(array.expected(), 1.0);
        for _ in 0..10 {
            array.used_by_kernel(true);
        }
        assert_eq!(array.expected(), 0.0);
        for _ in 0..10 {
            array.used_by_kernel(true);
            array.read_by_host(1.0);
            array.read_by_host(1.0);
        }
        assert!(array.expected() > 0.99);
        array.used_by_kernel(true);
        array.read_by_host(0.5);
        assert!((0.7..0.8).contains(&array.expected()));
    }

    #[test]
    fn the_passes_of_a_call_count_once() {
        let mut array = ReadBack::default();
        for _ in 0..3 {
            array.used_by_kernel(false);
            array.used_again(true);
            array.used_again(false);
            array.read_by_host(1.0);
            assert_eq!(array.expected(), 1.0);
        }
        array.used_by_kernel(true);
        array.used_again(true);
        array.written_by_host();
        assert_eq!(array.expected(), 0.5);
    }

    #[test]
    fn what_is_read_without_a_kernel_s_result_tells_nothing() {
        let mut array = ReadBack::default();
        array.read_by_host(1.0);
        array.written_by_host();
        array.used_by_kernel(false);
        array.read_by_host(1.0);
        assert_eq!(array.expected(), 1.0);
        array.used_by_kernel(true);
        array.written_by_host();
        assert_eq!(array.expected(), 0.0);
    }
}
