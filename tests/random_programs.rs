//! Random sequences of kernel calls, host reads and host writes at random placements, against plain `Vec`s: whatever
//! the order and wherever the data happens to be, an array behaves like a vector.

mod support;

use divvy::Runtime;
use proptest::prelude::*;
use std::sync::OnceLock;
use support::programs::{run, step};

/// Windows and buffers are small, so that arrays of some ten thousand elements lie in several extents.
fn cut_runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        support::build(
            Runtime::builder()
                .max_binding_bytes(64 << 10)
                .max_buffer_bytes(100 << 10),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn arrays_behave_like_vectors(
        n in prop::sample::select(vec![0usize, 1, 63, 64, 65, 300, 5000, 70_001]),
        cut in any::<bool>(),
        steps in prop::collection::vec((step(), any::<u8>(), 0.0..=1.0f64), 1..40),
    ) {
        let rt = if cut { cut_runtime() } else { support::runtime() };
        run(rt, n, &steps, |_| ())?;
    }
}
