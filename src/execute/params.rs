//! The numbers that tune this room. None changes a result; none was chosen by measurement unless its line says so.

/// What may be changed without changing any result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params {
    /// The most calls whose times are awaited. Beyond it the oldest is dropped and teaches nothing, so memory stays bounded.
    pub(super) pending: usize,
    /// Pending calls that one call may give to the learner: more than one, so that the list shrinks, and few, so that the
    /// cost for the call stays bounded.
    pub(super) recorded_per_call: usize,
    /// Passes that a kernel may launch in a dry run. A kernel that launches until its values suit it would never end, since
    /// a dry run computes no values.
    pub(super) dry_run_passes: usize,
    /// Tiles smaller than the planned ones by more than this factor are too slow: the pass's own arrays are evicted first.
    pub(super) smallest_tile_divisor: usize,
}

/// The values in use.
pub(super) const PARAMS: Params = Params {
    pending: 4096,
    recorded_per_call: 4,
    dry_run_passes: 64,
    smallest_tile_divisor: 8,
};
