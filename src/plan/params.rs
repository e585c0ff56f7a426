//! The numbers that tune the planner, each with the reason for its value. None changes a result, only where and how fast
//! it is computed.
//!
//! The margins that a user may change are in [`Policy`](super::Policy). The exploration budget of 3 % belongs to the
//! learner.

/// The numbers that tune this room.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Params {
    /// Parts whose times differ by no more than this factor count as finishing together. The error of predictions hides a
    /// finer balance.
    pub finish_together: f64,
    /// How often the shares of a split are corrected at most. Bounds the time to plan a call.
    pub balancing_rounds: usize,
    /// A change of shares up to this, half a percent of the items, is not worth another round.
    pub share_tolerance: f64,
    /// A corrected share stays this part of the bracket away from its ends, so that every round narrows it.
    pub bracket_margin: f64,
    /// A split is also searched for while it may take this many times as long as the fastest device, so that it can be
    /// explored.
    pub split_exploration_ratio: f64,
    /// Exploration cuts the items between two devices at multiples of one over this.
    pub explored_shares: usize,
    /// Runs of a software adapter before its predictions count. A single one may be an outlier.
    pub software_samples: u64,
    /// A part that spends more than this share of its time on transfers is learned apart from those that move nothing.
    pub moved_share: f64,

    /// As many similar calls are expected to follow as there were, but at least this many: a new kernel has no history.
    pub least_following_calls: f64,
    /// The same, at most: later calls may be different.
    pub most_following_calls: f64,
    /// Standard errors that a split must win by once it and its rival are known as well as they will ever be. Noise
    /// alone rarely reaches three.
    pub standard_errors: f64,

    /// Plans that the cache keeps.
    pub cache_slots: usize,
    /// Measurements behind every part of a plan that the cache keeps.
    pub cached_samples: u64,
    /// Seconds to plan a call and to learn from it (`cargo bench --bench plan`).
    pub planning_seconds: f64,
    /// The share of the calls' time that planning may take.
    pub planning_share: f64,
    /// Calls that a cached plan serves at most: the planner notices a change that much later.
    pub cached_calls: f64,

    /// Arrays that every tile reads whole are held whole if they take at most one part in this of the memory, so that
    /// the tiles themselves keep at least as much.
    pub held_share: u64,
    /// Otherwise a window on such an array takes one part in this of the memory: small beside the tiles, since every
    /// tile reads the whole array again.
    pub window_share: u64,
    /// The smallest such window: a few rows, cut for one product.
    pub least_window: u64,
}

/// The numbers in use.
pub(super) const PARAMS: Params = Params {
    finish_together: 1.03,
    balancing_rounds: 5,
    share_tolerance: 0.005,
    bracket_margin: 0.05,
    split_exploration_ratio: 1.5,
    explored_shares: 8,
    software_samples: 3,
    moved_share: 0.05,
    least_following_calls: 20.0,
    most_following_calls: 1000.0,
    standard_errors: 3.0,
    cache_slots: 64,
    cached_samples: 16,
    planning_seconds: 1e-6,
    planning_share: 0.02,
    cached_calls: 100.0,
    held_share: 2,
    window_share: 8,
    least_window: 4 << 10,
};
