//! The items of a part.

/// The items that one call of a CPU closure computes. The part uniform gives a shader the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartItems {
    /// The index, among all items of the call, of the first one to compute.
    pub first: usize,
    /// The number of items to compute.
    pub len: usize,
    /// The number of items of the whole call.
    pub total: usize,
    /// The number of items before the first own one in every `input_halo` slice: the first own item is at this index.
    /// At least the smaller of `first` and the requested halo; it may be more.
    pub lead: usize,
}
