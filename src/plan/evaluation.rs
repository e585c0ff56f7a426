//! The choice among the candidates: the fastest, unless it moves data or splits work for too small a gain, or one that is
//! worth exploring.

use super::input::PlannerInput;
use super::params::PARAMS;
use super::planned::Plan;
use super::policy::Policy;
use super::ruled_out::RuledOut;
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;

/// The candidates of a call, and the choice.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// Never empty.
    pub candidates: SmallVec<[Candidate; 4]>,
    /// Index of the chosen candidate.
    pub choice: usize,
    pub reason: Reason,
    /// Devices that may not run the whole call alone.
    pub ruled_out: SmallVec<[(DeviceId, RuledOut); 2]>,
    /// Devices that would have been chosen or explored if their pipelines were compiled.
    pub awaits: DeviceSet,
}

/// A way to run a call.
#[derive(Debug)]
pub(super) struct Candidate {
    pub plan: Plan,
    /// Bytes of its inputs that must move first.
    pub missing_bytes: f64,
    /// Whether it may be chosen. A software adapter with too few samples is shown, but not chosen.
    pub eligible: bool,
    /// Whether it only appears in explanations: planning does not search for splits as slow as this.
    pub only_shown: bool,
    /// Its devices that must compile their pipelines first.
    pub compiling: DeviceSet,
    /// The variance of the logarithm of the predicted seconds.
    pub variance: f64,
    /// Of this, the variance that is noise of measurements.
    pub noise: f64,
    /// Whether all its parts have a full history of measurements at this size.
    pub settled: bool,
}

impl Default for Candidate {
    /// No parts.
    fn default() -> Self {
        Self {
            plan: Plan::default(),
            missing_bytes: 0.0,
            eligible: true,
            only_shown: false,
            compiling: DeviceSet::EMPTY,
            variance: 0.0,
            noise: 0.0,
            settled: true,
        }
    }
}

/// Why a candidate was chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reason {
    /// There are no items.
    #[default]
    NothingToDo,
    /// The caller asked for it.
    Asked,
    /// No other candidate exists.
    OnlyOne,
    /// It is predicted to be the fastest.
    Fastest,
    /// It holds the data, and the fastest one does not save enough to move them.
    HoldsData,
    /// It is the fastest single device. A split is faster, but not by enough.
    SplitSavesLittle,
    /// A faster one must compile its pipelines first.
    Compiling,
    /// It is explored: it may be faster than the fastest known.
    Exploring,
}

impl Candidate {
    pub fn seconds(&self) -> f64 {
        self.plan.predicted_seconds
    }

    fn is_split(&self) -> bool {
        self.plan.parts.len() > 1
    }

    /// Items of a device.
    pub fn items_of(&self, device: DeviceId) -> usize {
        let parts = self.plan.parts.iter();
        parts
            .filter(|part| part.device == device)
            .map(|part| part.range.len())
            .sum()
    }
}

impl Evaluation {
    /// The fastest eligible single device. The CPU is last and wins ties.
    pub fn fastest_alone(&self, allowed: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let alone = self.candidates.iter().enumerate().rev();
        alone
            .filter(|(_, c)| c.eligible && !c.is_split() && allowed(c))
            .min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()))
            .map(|(at, _)| at)
    }

    /// Chooses the fastest candidate, but prefers to leave data in place and work in one part. While its pipelines compile,
    /// a candidate that is ready runs instead.
    pub fn choose(&mut self, policy: &Policy) {
        (self.choice, self.reason) = self.best(policy, |_| true);
        let awaited = self.candidates[self.choice].compiling;
        let ready = |candidate: &Candidate| candidate.compiling.is_empty();
        let can_run =
            |candidate: &Candidate| candidate.eligible && !candidate.only_shown && ready(candidate);
        if !awaited.is_empty() && self.candidates.iter().any(can_run) {
            self.awaits = awaited;
            (self.choice, _) = self.best(policy, ready);
            self.reason = Reason::Compiling;
            let waiting = awaited.iter().map(|device| (device, RuledOut::Compiling));
            self.ruled_out.extend(waiting);
        }
    }

    /// The best of the eligible candidates that are `allowed`. There must be one.
    fn best(&self, policy: &Policy, allowed: impl Fn(&Candidate) -> bool) -> (usize, Reason) {
        let eligible = || {
            let candidates = self.candidates.iter().enumerate().rev();
            candidates.filter(|(_, c)| c.eligible && allowed(c))
        };
        let fastest_split = |shown_only_too: bool| {
            let splits =
                eligible().filter(|(_, c)| c.is_split() && (shown_only_too || !c.only_shown));
            splits.min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()))
        };
        let Some(fastest) = self.fastest_alone(&allowed) else {
            return (fastest_split(true).map_or(0, |(at, _)| at), Reason::OnlyOne);
        };
        let alone = &self.candidates[fastest];
        if let Some((at, split)) = fastest_split(false)
            && policy.is_worth_splitting(split, alone)
        {
            return (at, Reason::Fastest);
        }
        let holding = eligible()
            .filter(|(_, c)| !c.is_split())
            .min_by(|(_, a), (_, b)| {
                a.missing_bytes
                    .total_cmp(&b.missing_bytes)
                    .then(a.seconds().total_cmp(&b.seconds()))
            });
        if let Some((holder, holding)) = holding
            && alone.missing_bytes > holding.missing_bytes
            && alone.seconds() >= (1.0 - policy.hysteresis) * holding.seconds()
        {
            return (holder, Reason::HoldsData);
        }
        let reason = match fastest_split(true) {
            Some((_, split)) if split.seconds() < alone.seconds() => Reason::SplitSavesLittle,
            _ if eligible().nth(1).is_some() => Reason::Fastest,
            _ => Reason::OnlyOne,
        };
        (fastest, reason)
    }

    /// A candidate to explore instead of the choice: it may well be faster, and enough calls of this size are expected to
    /// follow. It must fit the exploration budget and must not take much longer than the choice.
    pub fn worth_exploring(
        &self,
        policy: &Policy,
        input: &PlannerInput,
        size: f64,
    ) -> Option<usize> {
        let exploration_budget = input.exploration_budget;
        if self.reason == Reason::Compiling || exploration_budget.seconds <= 0.0 {
            return None;
        }
        let chosen = &self.candidates[self.choice];
        let affordable = |candidate: &Candidate| {
            candidate.eligible
                && !candidate.only_shown
                && candidate.seconds() <= exploration_budget.seconds
                && candidate.seconds() <= policy.exploration_limit * chosen.seconds()
        };
        let visits = f64::from(input.perf_model.visits(size));
        let following = visits.clamp(PARAMS.least_following_calls, PARAMS.most_following_calls);
        self.candidates
            .iter()
            .enumerate()
            .filter(|(at, candidate)| *at != self.choice && affordable(candidate))
            .map(|(at, candidate)| (at, candidate.expected_profit(chosen, following)))
            .filter(|(at, profit)| {
                *profit > exploration_budget.price * self.candidates[*at].seconds()
            })
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(at, _)| at)
    }
}

impl Policy {
    /// Whether a split is faster than the fastest single device by the margin of the policy and, once both are settled, by
    /// more than noise explains. Until then the split runs, so that it is measured more.
    fn is_worth_splitting(&self, split: &Candidate, alone: &Candidate) -> bool {
        let error = if split.settled && alone.settled {
            (split.noise + alone.noise).sqrt()
        } else {
            0.0
        };
        let gain = f64::max(
            self.split_gain,
            1.0 - (-PARAMS.standard_errors * error).exp(),
        );
        split.seconds() < (1.0 - gain) * alone.seconds()
    }
}

impl Candidate {
    /// Seconds that exploring this candidate once is expected to save over the `following` calls, minus what it costs now.
    ///
    /// The expected improvement of Bayesian optimisation (D. Jones, M. Schonlau, W. Welch, "Efficient global
    /// optimization of expensive black-box functions", J. Global Optimization 13, 1998), with the logarithms of both
    /// times normally distributed.
    fn expected_profit(&self, chosen: &Self, following: f64) -> f64 {
        let deviation = (self.variance - self.noise).max(0.0).sqrt();
        if deviation == 0.0 || chosen.seconds() <= 0.0 || self.seconds() <= 0.0 {
            return 0.0;
        }
        let behind = (self.seconds() / chosen.seconds()).ln();
        let improvement = deviation * expected_excess(-behind / deviation);
        let loss = deviation * expected_excess(behind / deviation);
        chosen.seconds() * (following * improvement - loss)
    }
}

/// The mean of `max(x + z, 0)` for a standard normal `x`.
fn expected_excess(z: f64) -> f64 {
    let density = (-0.5 * z * z).exp() * 0.398_942_280_401_432_7;
    // The logistic approximation of the normal distribution function, good to 0.01 %.
    let below = 1.0 / (1.0 + (-z * (1.595_769_121_6 + 0.072_630_2 * z * z)).exp());
    (density + z * below).max(0.0)
}
