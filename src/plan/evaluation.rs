//! The choice among the ways in which a call could run: the fastest, unless that moves data or cuts work for too little,
//! or another one that is worth trying.

use super::input::PlannerInput;
use super::planned::Plan;
use super::policy::Policy;
use super::ruled_out::RuledOut;
use crate::device::DeviceId;
use crate::device::DeviceSet;
use smallvec::SmallVec;

/// The ways to run a call, and the one to take.
#[derive(Debug, Default)]
pub(super) struct Evaluation {
    /// Never empty.
    pub candidates: SmallVec<[Candidate; 4]>,
    /// Index of the candidate to take.
    pub choice: usize,
    pub why: Reason,
    /// Devices that may not run the whole call alone.
    pub ruled_out: SmallVec<[(DeviceId, RuledOut); 2]>,
    /// Devices that would have been chosen or tried, were their pipelines compiled.
    pub awaits: DeviceSet,
}

/// A way to run a call.
#[derive(Debug)]
pub(super) struct Candidate {
    pub plan: Plan,
    /// Bytes of its inputs that must move before it can compute.
    pub missing_bytes: f64,
    /// Whether it may be chosen. A software adapter that was never measured is shown, but not chosen.
    pub eligible: bool,
    /// Whether it is only there to compare with: planning does not look for what takes that long.
    pub only_shown: bool,
    /// Its devices that must compile their pipelines first.
    pub compiling: DeviceSet,
    /// The variance of the logarithm of the predicted seconds.
    pub variance: f64,
    /// The part of it that is noise of measurements.
    pub noise: f64,
    /// Whether all its parts were measured as often as counts.
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

/// Why a candidate was taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reason {
    /// There are no items.
    #[default]
    NothingToDo,
    /// The caller asked for it.
    Asked,
    /// There is no other.
    OnlyOne,
    /// It is predicted to be the fastest.
    Fastest,
    /// It holds the data, and the fastest one does not save enough to take them away.
    HoldsData,
    /// It is the fastest single device; a split would be faster, but not by enough.
    SplitSavesLittle,
    /// A faster one must compile its pipelines first.
    Compiling,
    /// To find out whether it is faster than what is known.
    Exploring,
}

impl Candidate {
    pub fn seconds(&self) -> f64 {
        self.plan.predicted_seconds
    }

    fn is_split(&self) -> bool {
        self.plan.parts.len() > 1
    }

    /// How many items a device gets.
    pub fn items_of(&self, device: DeviceId) -> usize {
        let parts = self.plan.parts.iter();
        parts
            .filter(|part| part.device == device)
            .map(|part| part.range.len())
            .sum()
    }
}

/// The choice among the candidates.
impl Evaluation {
    /// The fastest single device of those that may be chosen. The CPU is last and wins ties.
    pub fn fastest_alone(&self, allowed: impl Fn(&Candidate) -> bool) -> Option<usize> {
        let alone = self.candidates.iter().enumerate().rev();
        alone
            .filter(|(_, c)| c.eligible && !c.is_split() && allowed(c))
            .min_by(|(_, a), (_, b)| a.seconds().total_cmp(&b.seconds()))
            .map(|(at, _)| at)
    }

    /// Chooses the fastest, but leaves data where they are and work in one piece unless that costs enough.
    pub fn choose(&mut self, policy: &Policy) {
        (self.choice, self.why) = self.best(policy, |_| true);
        let awaited = self.candidates[self.choice].compiling;
        let ready = |candidate: &Candidate| candidate.compiling.is_empty();
        let can_run =
            |candidate: &Candidate| candidate.eligible && !candidate.only_shown && ready(candidate);
        if !awaited.is_empty() && self.candidates.iter().any(can_run) {
            self.awaits = awaited;
            (self.choice, _) = self.best(policy, ready);
            self.why = Reason::Compiling;
            let waiting = awaited.iter().map(|device| (device, RuledOut::Compiling));
            self.ruled_out.extend(waiting);
        }
    }

    /// The best of the candidates that may be chosen and are `allowed`. There must be one that may be chosen.
    fn best(&self, policy: &Policy, allowed: impl Fn(&Candidate) -> bool) -> (usize, Reason) {
        let eligible = || {
            let candidates = self.candidates.iter().enumerate().rev();
            candidates.filter(|(_, c)| c.eligible && allowed(c))
        };
        let fastest_split = |shown_too: bool| {
            let splits = eligible().filter(|(_, c)| c.is_split() && (shown_too || !c.only_shown));
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
        let why = match fastest_split(true) {
            Some((_, split)) if split.seconds() < alone.seconds() => Reason::SplitSavesLittle,
            _ if eligible().nth(1).is_some() => Reason::Fastest,
            _ => Reason::OnlyOne,
        };
        (fastest, why)
    }

    /// A candidate to try instead of the choice, because it may well be faster and enough calls of that size will follow
    /// to profit.
    pub fn worth_trying(&self, policy: &Policy, input: &PlannerInput, size: f64) -> Option<usize> {
        let exploration_budget = input.exploration_budget;
        if self.why == Reason::Compiling || exploration_budget.seconds <= 0.0 {
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
        let follow = visits.clamp(LEAST_CALLS, MOST_CALLS);
        self.candidates
            .iter()
            .enumerate()
            .filter(|(at, candidate)| *at != self.choice && affordable(candidate))
            .map(|(at, candidate)| (at, candidate.profit_of_trying(chosen, follow)))
            .filter(|(at, profit)| {
                *profit > exploration_budget.price * self.candidates[*at].seconds()
            })
            .max_by(|(_, a), (_, b)| a.total_cmp(b))
            .map(|(at, _)| at)
    }
}

/// As many calls like this one are expected to follow as there were, but at least and at most so many.
const LEAST_CALLS: f64 = 20.0;
const MOST_CALLS: f64 = 1000.0;

impl Policy {
    /// Whether a split is enough faster than the fastest single device: by more than the estimate flatters itself and,
    /// once both are known as well as they will ever be, by more than noise explains. Before that it is measured more.
    fn is_worth_splitting(&self, split: &Candidate, alone: &Candidate) -> bool {
        const STANDARD_ERRORS: f64 = 3.0;
        let error = if split.settled && alone.settled {
            (split.noise + alone.noise).sqrt()
        } else {
            0.0
        };
        let gain = f64::max(self.split_gain, 1.0 - (-STANDARD_ERRORS * error).exp());
        split.seconds() < (1.0 - gain) * alone.seconds()
    }
}

impl Candidate {
    /// Seconds that trying this once is expected to save over `follow` further calls, less what it costs now.
    ///
    /// The expected improvement of Bayesian optimisation (D. Jones, M. Schonlau, W. Welch, "Efficient global
    /// optimization of expensive black-box functions", J. Global Optimization 13, 1998), with the logarithms of both
    /// times normally distributed.
    fn profit_of_trying(&self, chosen: &Self, follow: f64) -> f64 {
        let deviation = (self.variance - self.noise).max(0.0).sqrt();
        if deviation == 0.0 || chosen.seconds() <= 0.0 || self.seconds() <= 0.0 {
            return 0.0;
        }
        let behind = (self.seconds() / chosen.seconds()).ln();
        let improvement = deviation * expected_excess(-behind / deviation);
        let loss = deviation * expected_excess(behind / deviation);
        chosen.seconds() * (follow * improvement - loss)
    }
}

/// The mean of what a standard normal variable exceeds `-z` by, or 0 where it does not.
fn expected_excess(z: f64) -> f64 {
    let density = (-0.5 * z * z).exp() * 0.398_942_280_401_432_7;
    // The logistic approximation of the normal distribution function, good to 0.01 %.
    let below = 1.0 / (1.0 + (-z * (1.595_769_121_6 + 0.072_630_2 * z * z)).exp());
    (density + z * below).max(0.0)
}
