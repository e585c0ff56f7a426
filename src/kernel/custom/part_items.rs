//! Which items a part has.

/// Which items one call of a CPU closure computes: what the part uniform tells a shader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartItems {
    /// The index, among all items of the call, of the first one to compute.
    pub first: usize,
    /// How many to compute.
    pub len: usize,
    /// How many items the call has in all.
    pub total: usize,
    /// How many items precede the first one in every `input_halo` slice: the first own item is at this index.
    /// At least the smaller of `first` and the halo asked for; it may be more.
    pub lead: usize,
}
