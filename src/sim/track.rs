//! What a policy did on a simulated machine, call by call.

use super::job::Parts;

/// What a policy did: the true seconds of every call.
pub(super) struct Track {
    pub policy: &'static str,
    /// For each job and call.
    pub seconds: Vec<Vec<f64>>,
    pub exploring_seconds: Vec<f64>,
    /// The last choice of each job.
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

    /// Another call of a job.
    pub fn add(&mut self, job: usize, seconds: f64, exploring: bool) {
        self.seconds[job].push(seconds);
        if exploring {
            self.exploring_seconds[job] += seconds;
        }
    }

    /// What was chosen for a job.
    pub fn chose(&mut self, job: usize, parts: Parts) {
        self.chosen[job] = parts;
    }
}
