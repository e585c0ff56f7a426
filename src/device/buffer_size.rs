//! The sizes of device buffers. This is plain arithmetic, which the planner uses too, without a device or an array.

/// Buffers are a multiple of this: the coarsest binding alignment, so that vec4 tails stay inside.
pub(crate) const BUFFER_GRAIN: u64 = 256;
/// Offsets of bindings are multiples of this number of bytes: the most that any adapter requires.
pub(crate) const OFFSET_ALIGN: u64 = 256;

/// The buffer size for an array of `bytes`: the next of 256 * {4, 5, 6, 7} * 2^k, so that at most a quarter is wasted.
pub(crate) fn buffer_class(bytes: u64) -> u64 {
    let grains = bytes.div_ceil(BUFFER_GRAIN).max(4);
    let step = 1u64 << (grains.ilog2() - 2);
    grains.next_multiple_of(step).saturating_mul(BUFFER_GRAIN)
}

/// The buffer size in which any window of `window_bytes` fits, at any border of elements.
pub(crate) fn window_buffer(window_bytes: u64) -> u64 {
    window_bytes.saturating_add(OFFSET_ALIGN)
}

#[cfg(test)]
mod tests {
    use super::buffer_class;

    #[test]
    fn sizes_suffice_and_waste_at_most_a_quarter() {
        for bytes in (0..100_000)
            .step_by(7)
            .chain([1 << 20, (1 << 30) + 4, u64::from(u32::MAX)])
        {
            let class = buffer_class(bytes);
            assert!(
                class >= bytes && class.is_multiple_of(256),
                "{bytes} in {class}"
            );
            assert!(
                bytes < 1024 || class as f64 <= bytes as f64 * 1.25 + 256.0,
                "{bytes} in {class}"
            );
            assert_eq!(buffer_class(class), class);
        }
    }
}
