//! The record of a policy on a simulated machine, call by call.

use super::job::Parts;

/// The record of a policy: the true seconds of every call.
pub(super) struct Track {
    pub policy: &'static str,
    /// Indexed by job and call.
    pub seconds: Vec<Vec<f64>>,
    pub exploring_seconds: Vec<f64>,
    /// The last plan of each job.
    pub chosen: Vec<Parts>,
}

impl Track {
    pub fn new(policy: &'static str, jobs: usize) -> Self {
        Self {
            policy,
            seconds: vec![Vec::new(); jobs],
            exploring_seconds: vec![0.0; jobs],
            chosen: vec![Parts::new(); jobs],
        }
    }

    /// Adds a call of a job.
    pub fn add(&mut self, job: usize, seconds: f64, exploring: bool) {
        self.seconds[job].push(seconds);
        if exploring {
            self.exploring_seconds[job] += seconds;
        }
    }

    /// Sets the last plan of a job.
    pub fn chose(&mut self, job: usize, parts: Parts) {
        self.chosen[job] = parts;
    }
}
