//! The planner's margins that users may set.

/// The planner's margins and limits.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// What a plan minimises.
    pub objective: Objective,
    /// The share of the best single device's time that a split must save to be chosen: 10 %. The shares are the ones with
    /// the best prediction, so the prediction tends to be too good.
    pub split_gain: f64,
    /// How many times slower per item than the fastest device a member of a split may be: 8. At 8:1 it
    /// saves a ninth at best, and less than the margin above once the devices slow each other down.
    pub split_speed_ratio: f64,
    /// How many times longer a device takes beside the others of a split, for pairs that were not measured: 1.1.
    pub corun_slowdown: f64,
    /// The share of the time that a call must save to leave the device that holds its data: 10 %.
    pub hysteresis: f64,
    /// Exploration only runs candidates that are predicted to take at most this many times as long as the choice: 3. The
    /// learner limits the time it takes overall:
    /// [`Learner::exploration_budget`](crate::cost::learned::Learner::exploration_budget).
    pub exploration_limit: f64,
    /// The share of parts that are verified, from 0 to 1: see [`Policy::verify`]. If it is 0, `DIVVY_VERIFY` may set it.
    pub verified_share: f64,
}

/// What a plan minimises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Objective {
    /// The time until the results are complete.
    #[default]
    Time,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            objective: Objective::Time,
            split_gain: 0.1,
            split_speed_ratio: 8.0,
            corun_slowdown: 1.1,
            hysteresis: 0.1,
            exploration_limit: 3.0,
            verified_share: 0.0,
        }
    }
}

impl Policy {
    /// Verifies a share of the parts, from 0 to 1, drawn at random: another device computes the part again, and the results
    /// must agree within the [`Tolerance`](crate::kernel::Tolerance) of each pass. The CPU verifies parts of GPUs, if the
    /// kernel has a CPU implementation, and a GPU verifies parts of the CPU.
    ///
    /// A call whose results disagree fails with [`Error::Mismatch`](crate::Error::Mismatch). After three verifications
    /// in a row that speak against a GPU, the runtime places nothing on it any more, and
    /// [`Runtime::gpus_set_aside`](crate::Runtime::gpus_set_aside) names it.
    ///
    /// The call waits for a verified part and for the other device to compute it, and needs host memory for what the part
    /// reads and writes. [`Report::verified`](crate::Report) counts verified parts. `DIVVY_VERIFY=0.01` in the environment
    /// asks for the same.
    ///
    /// ```
    /// # fn main() -> divvy::Result<()> {
    /// use divvy::{Policy, prelude::*};
    ///
    /// let rt = Runtime::builder().policy(Policy::default().verify(0.01)).build()?;
    /// let x = rt.filled(1000, 1.0f32)?;
    /// assert_eq!(rt.run(sum(&x))?.value, 1000.0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(self, fraction: f64) -> Self {
        Self {
            verified_share: fraction,
            ..self
        }
    }
}
