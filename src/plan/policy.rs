//! The margins by which the planner prefers one way over another.

/// When the planner prefers what over what.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Policy {
    /// What is to be the least.
    pub objective: Objective,
    /// The share of the best single device's time that a split must save to be chosen. 10 %, because the
    /// equal-finish estimate flatters itself.
    pub split_gain: f64,
    /// How many times slower per item than the fastest a device may be and still get a part. 8: what such a device
    /// could save is less than the margin above.
    pub split_speed_ratio: f64,
    /// How many times longer a device takes while others of a split run too, if a pair was not measured: 1.1.
    pub corun_slowdown: f64,
    /// The share of the time that must be saved for a call to leave the device that holds its data: 10 %.
    pub hysteresis: f64,
    /// How many times as long as the fastest known way another may be predicted to take to be tried at all. How much time
    /// goes into trying is the learner's to say: [`Learner::exploration_budget`](crate::cost::learned::Learner::exploration_budget).
    pub exploration_limit: f64,
    /// The share of parts that are verified, from 0 to 1: see [`Policy::verify`]. If it is 0, `DIVVY_VERIFY` may say more.
    pub verified_share: f64,
}

/// What a plan is to make the least of.
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
    /// Has a share of the parts, from 0 to 1 and drawn at random, computed a second time on another device, and the results
    /// compared as the [`Tolerance`](crate::kernel::Tolerance) of each pass allows: of parts on GPUs by the CPU, if the
    /// kernel has an implementation for it, and of parts on the CPU by a GPU.
    ///
    /// A call whose results disagree fails with [`Error::Mismatch`](crate::Error::Mismatch). When three verifications in a
    /// row speak against a GPU, nothing is placed on it any more, and [`Runtime::gpus_set_aside`](crate::Runtime::gpus_set_aside) names it.
    ///
    /// A part that is verified is waited for, takes as long again as on the other device, and needs host memory for what it
    /// reads and writes. [`Report::verified`](crate::Report) counts them. `DIVVY_VERIFY=0.01` in the environment asks for the same.
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
