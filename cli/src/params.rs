//! The numbers that tune the command, in one place, each with the reason for its value.

use std::time::Duration;

/// The numbers in use.
pub const PARAMS: Params = Params {
    audit: AuditParams {
        shares: [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95],
        least_rounds: 6,
        rounds_time: Duration::from_millis(300),
        most_rounds: 300,
        close: 1.25,
        most_contenders: 3,
        tried_seconds: 5e-3,
        tried_samples: 4,
        feeble: 3.0,
        hopeless_at_once: 10.0,
        hopeless: 3.0,
        cold_calls: 20,
        cold_turn: 5,
        least_turns: 8,
        turns_time: Duration::from_millis(600),
        most_turns: 500,
        rest: Duration::from_micros(150),
        settling: Duration::from_micros(100),
        settled_seconds: 5e-3,
        runs_between_resets: 64,
        decision_batches: 41,
        decision_batch: 16,
        right: 1.05,
        marked: 1.25,
    },
    timing: TimingParams {
        enough_seconds: 0.3,
        least_repeats: 3,
        most_seconds: 2.0,
        most_repeats: 1000,
        runs_between_resets: 16,
        progress_delay: Duration::from_millis(400),
    },
};

/// What may be changed without changing any result of a kernel.
pub struct Params {
    pub audit: AuditParams,
    pub timing: TimingParams,
}

/// How `divvy audit` measures.
pub struct AuditParams {
    /// The shares of a GPU in its splits with the CPU.
    pub shares: [f64; 7],
    /// The least samples of a variant that is not given up: half choose the best one, half give its time.
    pub least_rounds: usize,
    /// The least time of all variants together, ...
    pub rounds_time: Duration,
    /// ... unless each has this many samples.
    pub most_rounds: usize,
    /// A variant is close to the best up to this ratio. A slower one is not mistaken for the best.
    pub close: f64,
    /// The most variants that are measured against Auto: mistakes among close ones are small.
    pub most_contenders: usize,
    /// A variant is not given up before it ran for this long in sum, ...
    pub tried_seconds: f64,
    /// ... or has this many samples.
    pub tried_samples: usize,
    /// Splits with a software adapter that takes at least this many times as long as the CPU are timed only once.
    pub feeble: f64,
    /// A variant that takes this many times as long as the best is given up after one sample, ...
    pub hopeless_at_once: f64,
    /// ... and after two at this ratio.
    pub hopeless: f64,
    /// The first calls of Auto, in which the runtime may still have to learn.
    pub cold_calls: usize,
    /// Cold calls in one turn.
    pub cold_turn: usize,
    /// The least warm turns of each contender.
    pub least_turns: usize,
    /// The least time of all warm turns together, ...
    pub turns_time: Duration,
    /// ... unless there are this many.
    pub most_turns: usize,
    /// The pause after which the threads of an idle pool sleep. They stand by for 60 µs.
    pub rest: Duration,
    /// How long a variant runs untimed before it is timed: its data are in the caches then, and the threads of the pool
    /// that worked before no longer stand by, which they do for 60 µs.
    pub settling: Duration,
    /// After a run that takes longer than this, what ran before no longer matters.
    pub settled_seconds: f64,
    /// A kernel that updates an array in place drifts from its input, which is restored after this many runs.
    pub runs_between_resets: usize,
    /// Batches; their median is the time of a decision.
    pub decision_batches: usize,
    /// Decisions in a batch: one takes too little time for the clock.
    pub decision_batch: usize,
    /// Rows up to this ratio to the best variant count as right.
    pub right: f64,
    /// Ratios above this are marked on the page.
    pub marked: f64,
}

/// How kernels are timed.
pub struct TimingParams {
    /// Benchmarks time a kernel for this long in sum, ...
    pub enough_seconds: f64,
    /// ... at least this often, ...
    pub least_repeats: usize,
    /// ... unless that takes longer than this, ...
    pub most_seconds: f64,
    /// ... and at most this often.
    pub most_repeats: usize,
    /// A kernel that updates an array in place drifts from its input, which is restored after this many runs, long before
    /// values leave the range of f32.
    pub runs_between_resets: usize,
    /// Work that is done sooner shows no progress bar.
    pub progress_delay: Duration,
}
