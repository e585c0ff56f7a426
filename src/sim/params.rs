//! The numbers that tune the simulation, each with the reason for its value.

/// The numbers that tune this room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Params {
    /// Sizes at which a kernel is simulated, if none are given: enough to cover its table, few enough to be quick.
    pub own_sizes: usize,
    /// Calls for which the rule `try-twice` runs each of its ways. One may meet a spike of the noise.
    pub tries: usize,
    /// Times closer than this share of each other count as equal in the search for the best plan: far below any regret
    /// that matters.
    pub precision: f64,
    /// The search for the best plan also cuts every pair at multiples of one over this, for tables that do not rise with
    /// the size.
    pub grid: usize,
    /// Calls after a change before its recovery is judged: the learner needs some to notice it.
    pub recovery_begin: usize,
    /// Calls after a change until its recovery is judged.
    pub recovery_end: usize,
    /// The peak rate of a device without tables: modest, so that the planner avoids it.
    pub unknown_flops_per_second: f64,
    /// The bandwidth of a device without tables.
    pub unknown_bytes_per_second: f64,
}

/// The numbers in use.
pub(super) const PARAMS: Params = Params {
    own_sizes: 6,
    tries: 2,
    precision: 1e-5,
    grid: 20,
    recovery_begin: 20,
    recovery_end: 40,
    unknown_flops_per_second: 1e9,
    unknown_bytes_per_second: 1e9,
};
