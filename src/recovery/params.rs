//! The numbers that tune this room. None changes a result; none was chosen by measurement unless its line says so.

use std::time::Duration;

/// What may be changed without changing any result.
#[derive(Clone, Copy, Debug)]
pub(super) struct Params {
    /// The most time that running all entries again is predicted to take, if the user does not choose: a pause that a
    /// program survives.
    pub(super) rerun_limit: Duration,
    /// The most entries. An entry takes some hundred bytes and its kernel, so all take a few megabytes.
    pub(super) entries: usize,
    /// The most bytes of images, and of arrays that the caller has dropped.
    pub(super) kept_bytes: usize,
    /// The number of entries at which the journal is first pruned. Later it is pruned whenever it has doubled, so that
    /// pruning costs each call a constant share.
    pub(super) first_prune: usize,
    /// The journal is pruned this many times while calls write `kept_bytes`: they replace images that could be freed.
    pub(super) prunes_per_kept_bytes: usize,
    /// A snapshot begins at this share of the limits on time and entries: it takes a while, and calls go on meanwhile.
    pub(super) snapshot_share: f64,
    /// A call waits for the running snapshot at this multiple of `entries`.
    pub(super) stall_factor: usize,
}

/// The values in use.
pub(super) const PARAMS: Params = Params {
    rerun_limit: Duration::from_secs(1),
    entries: 4096,
    kept_bytes: 1 << 30,
    first_prune: 64,
    prunes_per_kept_bytes: 4,
    snapshot_share: 0.5,
    stall_factor: 2,
};
