//! The read-back share of an array: how much of what kernels write there the host reads. The planner uses it to weigh the
//! cost of leaving results on a GPU.

/// The weight of the newest result in the average: the share follows a change within a few calls.
const WEIGHT: f32 = 0.5;

/// How the results of kernels in an array were used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ReadBack {
    /// Whether a kernel wrote to it and nothing has used the result yet.
    unused: bool,
    /// The share of results that the host read: a moving average.
    average: Option<f32>,
}

impl ReadBack {
    /// The share of a kernel's result that the host is expected to read before it is written again. 1 if nothing is known:
    /// most results are read sooner or later, and most arrays are used once.
    pub(crate) fn expected(&self) -> f64 {
        f64::from(self.average.unwrap_or(1.0))
    }

    /// Records that a kernel reads it, writes it or both.
    pub(crate) fn used_by_kernel(&mut self, writes: bool) {
        if self.unused {
            self.observe(0.0);
        }
        self.unused = writes;
    }

    /// Records that a further pass of the same call uses it. A call's own use of its results says nothing about the host.
    pub(crate) fn used_again(&mut self, writes: bool) {
        self.unused |= writes;
    }

    /// Records that the host reads that share of it.
    pub(crate) fn read_by_host(&mut self, share: f32) {
        if self.unused {
            self.observe(share);
            self.unused = false;
        }
    }

    /// Records that the host overwrites it without reading it.
    pub(crate) fn written_by_host(&mut self) {
        if self.unused {
            self.observe(0.0);
            self.unused = false;
        }
    }

    fn observe(&mut self, share: f32) {
        self.average = Some(match self.average {
            Some(average) => average + WEIGHT * (share - average),
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
    fn a_read_without_a_kernel_s_result_changes_nothing() {
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
