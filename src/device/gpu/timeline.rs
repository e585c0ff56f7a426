//! When submissions began and ended, as far as that can be known without waiting for it, and what that says about the
//! calls in them.
//!
//! A GPU works through its submissions one after the other. A submission begins when the one before it ends, or when
//! the recording of its calls began, whichever is later; recording counts without what passed between calls. That it
//! has ended, wgpu says when a thread looks. Hence three ways to know when:
//!
//! 1. A thread was waiting: then it ended just now. Waiting goes through submissions one by one, so that one wait tells
//!    the end of each.
//! 2. The GPU took the time itself (`stamps`), from the first command to the last. To that comes what else a call takes
//!    until its end is seen: its recording, and the latency of launching and of seeing the end, which is learned from
//!    submissions that were both waited for and timed by the GPU. Of this lead, what passed while the GPU was still
//!    at earlier work counts for nothing.
//! 3. Otherwise its end was no later than when it was seen. That is worth knowing if it is less than was predicted.
//!
//! Transfers that belong to no call, such as those for a caller who reads a result, may share a submission with calls.
//! Their time is taken off, at the rate at which submissions of nothing else were done.
//!
//! The calls of a submission share its time in proportion to their predictions. A lone call is so timed from end to
//! end, as the model predicts it: launch, upload and computation.

use super::clock::{Claim, Clock};
use super::tuning::Tuning;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A prediction that is longer counts as this, so that sums of them stay numbers.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// The submissions of a GPU that are not known to be done.
#[derive(Debug)]
pub(super) struct Timeline {
    backlog: Arc<Backlog>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tuning: Tuning,
    next: u64,
    in_flight: VecDeque<Submission>,
    /// The submissions for whose end a thread waits right now.
    watched: Vec<u64>,
    last: End,
    /// Seconds of a submission that the GPU does not see: from handing it over to its first command, and from its last
    /// one to the moment when a thread sees that it is done.
    latency: Estimate,
    /// Seconds to transfer a byte.
    copying: Estimate,
    spare: Vec<Vec<Call>>,
    /// When wgpu last looked for what is done.
    looked: Instant,
    is_lost: bool,
}

/// A submission under way.
#[derive(Debug)]
struct Submission {
    number: u64,
    index: wgpu::SubmissionIndex,
    batch: Batch,
    /// When it was handed to the driver.
    submitted: Instant,
    /// When the GPU began and ended it, in nanoseconds of its own clock.
    stamps: Option<[u64; 2]>,
}

/// A submission that is waited for.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) number: u64,
    pub(super) index: wgpu::SubmissionIndex,
    /// What its calls are predicted to take.
    pub(super) predicted: Duration,
}

/// The end of a submission.
#[derive(Clone, Copy, Debug)]
struct End {
    /// When it was seen to be done.
    seen: Instant,
    /// Whether it ended just then, and not some time before.
    exact: bool,
    /// On the GPU's own clock.
    stamp: Option<u64>,
}

/// The calls of a submission, from their recording until their time is known.
#[derive(Debug)]
pub(super) struct Batch {
    calls: Vec<Call>,
    /// What the calls' recording took.
    host: Duration,
    /// What they were predicted to take on the GPU, counted into the backlog.
    predicted: Duration,
    submitted: bool,
    spoiled: bool,
    /// Bytes of transfers that belong to no call.
    unclaimed_bytes: u64,
    backlog: Arc<Backlog>,
}

#[derive(Debug)]
struct Call {
    claim: Claim,
    predicted: Duration,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// What its calls are predicted to take.
    pub(super) fn predicted(&self) -> Duration {
        self.predicted
    }

    /// Adds what has been recorded of a call. Pieces of one call count as one.
    pub(super) fn add(&mut self, clock: &Arc<Clock>, predicted: Duration, host: Duration) {
        self.host += host;
        self.predicted += predicted;
        self.backlog.count(&self.backlog.recorded, predicted);
        match self.calls.last_mut() {
            Some(last) if last.claim.is_of(clock) => last.predicted += predicted,
            _ => self.calls.push(Call {
                claim: Claim::new(Arc::clone(clock)),
                predicted,
            }),
        }
    }

    /// The time of this submission will say nothing about its calls.
    pub(super) fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// Counts a transfer that belongs to no call.
    pub(super) fn add_unclaimed(&mut self, bytes: u64) {
        self.unclaimed_bytes += bytes;
    }

    /// Tells every call its share of `seconds`.
    fn settle(&mut self, seconds: f64) {
        if self.spoiled || !(seconds > 0.0 && seconds.is_finite()) {
            return;
        }
        let count = self.calls.len();
        let predicted = self.predicted.as_secs_f64();
        let mean = predicted / count as f64;
        // To the nearest nanosecond, which is what they are kept in.
        let like_the_mean =
            |call: &Call| (call.predicted.as_secs_f64() - mean).abs() <= 1e-3 * mean + 1e-9;
        let mixed = !self.calls.iter().all(like_the_mean);
        for call in self.calls.drain(..) {
            let share = if mixed {
                call.predicted.as_secs_f64() / predicted
            } else {
                1.0 / count as f64
            };
            let calls = u32::try_from(count).unwrap_or(u32::MAX);
            call.claim.settle(seconds * share, calls, mixed);
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let stage = if self.submitted {
            &self.backlog.submitted
        } else {
            &self.backlog.recorded
        };
        self.backlog.discount(stage, self.predicted);
    }
}

/// What a GPU has still to do, as far as it was predicted.
#[derive(Debug)]
struct Backlog {
    /// Nanoseconds of work that is recorded and not submitted.
    recorded: AtomicU64,
    /// Nanoseconds of work that is submitted and not known to be done.
    submitted: AtomicU64,
    /// When the first submission that is not known to be done began, in nanoseconds since `origin`.
    began: AtomicU64,
    origin: Instant,
}

impl Backlog {
    fn count(&self, stage: &AtomicU64, work: Duration) {
        stage.fetch_add(nanoseconds(work), Ordering::Relaxed);
    }

    fn discount(&self, stage: &AtomicU64, work: Duration) {
        stage.fetch_sub(nanoseconds(work), Ordering::Relaxed);
    }

    fn begin(&self, now: Instant) {
        let since = nanoseconds(now.saturating_duration_since(self.origin));
        self.began.store(since, Ordering::Relaxed);
    }

    fn seconds(&self) -> f64 {
        let recorded = self.recorded.load(Ordering::Relaxed);
        let mut submitted = self.submitted.load(Ordering::Relaxed);
        if submitted > 0 {
            // Work goes on while no thread looks.
            let now = nanoseconds(self.origin.elapsed());
            let elapsed = now.saturating_sub(self.began.load(Ordering::Relaxed));
            submitted = submitted.saturating_sub(elapsed);
        }
        (recorded + submitted) as f64 * 1e-9
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    let whole = duration.as_secs().saturating_mul(1_000_000_000);
    whole.saturating_add(u64::from(duration.subsec_nanos()))
}

/// A prediction as a duration; what is no time counts as none.
pub(super) fn duration(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds)
        .unwrap_or_default()
        .min(LONGEST)
}

/// An undisturbed time, estimated from measured ones.
#[derive(Debug, Default)]
struct Estimate {
    seconds: f64,
    samples: u32,
}

impl Estimate {
    /// Follows a sample: at once where it is shorter, at `rate` where it is longer.
    fn learn(&mut self, sample: f64, rate: f64) {
        let sample = sample.max(0.0);
        if self.samples == 0 || sample < self.seconds {
            self.seconds = sample;
        } else {
            self.seconds += (sample - self.seconds) * rate;
        }
        self.samples = self.samples.saturating_add(1);
    }
}

impl Timeline {
    pub(super) fn new(tuning: &Tuning) -> Self {
        let now = Instant::now();
        let backlog = Backlog {
            recorded: AtomicU64::new(0),
            submitted: AtomicU64::new(0),
            began: AtomicU64::new(0),
            origin: now,
        };
        let state = State {
            tuning: *tuning,
            next: 0,
            in_flight: VecDeque::new(),
            watched: Vec::new(),
            last: End {
                seen: now,
                exact: true,
                stamp: None,
            },
            latency: Estimate::default(),
            copying: Estimate::default(),
            spare: Vec::new(),
            looked: now,
            is_lost: false,
        };
        Self {
            backlog: Arc::new(backlog),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch of calls to be recorded.
    pub(super) fn batch(&self) -> Batch {
        Batch {
            calls: self.state().spare.pop().unwrap_or_default(),
            host: Duration::ZERO,
            predicted: Duration::ZERO,
            submitted: false,
            spoiled: false,
            unclaimed_bytes: 0,
            backlog: Arc::clone(&self.backlog),
        }
    }

    /// Predicted seconds of the work that is recorded or under way.
    pub(super) fn backlog_seconds(&self) -> f64 {
        self.backlog.seconds()
    }

    /// Whether the latency must still be learned, from a submission that is waited for.
    pub(super) fn wants_latency(&self) -> bool {
        let state = self.state();
        state.latency.samples < state.tuning.latency_samples
    }

    /// Whether it is known how long transfers take.
    pub(super) fn knows_copies(&self) -> bool {
        self.state().copying.samples > 0
    }

    /// A batch has been submitted; returns the submission's number, to tell [`Timeline::end`].
    pub(super) fn submit(
        &self,
        mut batch: Batch,
        index: wgpu::SubmissionIndex,
        submitted: Instant,
    ) -> u64 {
        self.backlog.count(&self.backlog.submitted, batch.predicted);
        self.backlog
            .discount(&self.backlog.recorded, batch.predicted);
        batch.submitted = true;
        let mut state = self.state();
        // `submit` looks too.
        state.looked = Instant::now();
        let number = state.next;
        state.next += 1;
        if state.is_lost {
            return number;
        }
        if state.in_flight.is_empty() {
            self.backlog.begin(submitted);
        }
        state.in_flight.push_back(Submission {
            number,
            index,
            batch,
            submitted,
            stamps: None,
        });
        number
    }

    /// The latest submission that is not known to be done.
    pub(super) fn latest(&self) -> Option<u64> {
        self.state().in_flight.back().map(|latest| latest.number)
    }

    /// The oldest submission that is not known to be done, and how many there are.
    pub(super) fn oldest(&self) -> Option<(u64, usize)> {
        let state = self.state();
        let oldest = state.in_flight.front()?.number;
        Some((oldest, state.in_flight.len()))
    }

    /// How long ago a thread last looked for what is done.
    pub(super) fn since_look(&self) -> Duration {
        self.state().looked.elapsed()
    }

    /// Records that a thread has just looked.
    pub(super) fn looked(&self) {
        self.state().looked = Instant::now();
    }

    /// The oldest submission that is not known to be done, if it is no later than `number`. The caller will wait for
    /// it, and then say that it has ended.
    pub(super) fn watch(&self, number: u64) -> Option<Watched> {
        let mut state = self.state();
        let oldest = state.in_flight.front()?;
        if oldest.number > number {
            return None;
        }
        let watched = Watched {
            number: oldest.number,
            index: oldest.index.clone(),
            predicted: oldest.batch.predicted,
        };
        state.watched.push(watched.number);
        Some(watched)
    }

    /// A wait that [`Timeline::watch`] announced is over, and the submission is done.
    pub(super) fn watched(&self, number: u64) {
        let mut state = self.state();
        state.looked = Instant::now();
        self.end_in(&mut state, number);
        if let Some(at) = state.watched.iter().position(|watched| *watched == number) {
            state.watched.swap_remove(at);
        }
    }

    /// A submission is seen to be done, and with it all before.
    pub(super) fn end(&self, number: u64) {
        self.end_in(&mut self.state(), number);
    }

    fn end_in(&self, state: &mut State, number: u64) {
        let now = Instant::now();
        while state
            .in_flight
            .front()
            .is_some_and(|oldest| oldest.number <= number)
        {
            let Some(submission) = state.in_flight.pop_front() else {
                return;
            };
            let exact = submission.number == number && state.watched.contains(&number);
            state.settle(submission, now, exact);
            self.backlog.begin(now);
        }
    }

    /// The GPU's own times of a submission, in nanoseconds of its clock.
    pub(super) fn stamp(&self, number: u64, stamps: [u64; 2]) {
        let mut state = self.state();
        let mut in_flight = state.in_flight.iter_mut();
        if let Some(submission) = in_flight.find(|submission| submission.number == number) {
            submission.stamps = Some(stamps).filter(|[begin, end]| begin < end);
        }
    }

    /// Something went wrong: what is under way may have done less than it should, and its time says nothing.
    pub(super) fn spoil(&self) {
        for submission in &mut self.state().in_flight {
            submission.batch.spoil();
        }
    }

    /// Nothing will be known of what is under way, nor of what comes: the GPU is lost.
    pub(super) fn give_up(&self) {
        let mut state = self.state();
        state.is_lost = true;
        state.in_flight.clear();
        state.watched.clear();
    }
}

impl State {
    /// A submission is done, and was seen to be so at `now`; if `exact`, it ended just then.
    fn settle(&mut self, mut submission: Submission, now: Instant, exact: bool) {
        let last = self.last;
        let stamps = submission.stamps;
        self.last = End {
            seen: now,
            exact,
            stamp: stamps.map(|[_, end]| end),
        };
        let seconds = self.seconds(&submission, last, now, exact);
        let batch = &mut submission.batch;
        if let Some(seconds) = seconds {
            batch.settle(seconds);
        }
        batch.calls.clear();
        if self.spare.len() < self.tuning.spare_lists {
            self.spare.push(std::mem::take(&mut batch.calls));
        }
    }

    /// How long the calls of a submission took, if that can be told.
    fn seconds(
        &mut self,
        submission: &Submission,
        last: End,
        now: Instant,
        exact: bool,
    ) -> Option<f64> {
        let batch = &submission.batch;
        let since = |then: Instant| now.saturating_duration_since(then).as_secs_f64();
        let span = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1e-9;
        let recorded = submission
            .submitted
            .checked_sub(batch.host)
            .unwrap_or(submission.submitted);
        // It began so long ago at the most, and at the least.
        let latest = since(recorded.max(last.seen));
        let earliest = if last.exact { latest } else { since(recorded) };
        let is_idle_before = last.seen <= recorded;
        if exact && is_idle_before {
            self.learn(submission, since(submission.submitted));
        }
        let copies = batch.unclaimed_bytes as f64 * self.copying.seconds;
        let seconds = if exact && earliest - latest <= self.tuning.uncertainty * earliest {
            (earliest + latest) / 2.0
        } else if let Some([begin, end]) = submission.stamps {
            let mut lead = batch.host.as_secs_f64() + self.latency.seconds;
            if let Some(last) = last.stamp {
                lead = lead.min(span(last, begin));
            } else if last.exact {
                let overlap = last.seen.saturating_duration_since(recorded);
                lead = (lead - overlap.as_secs_f64()).max(0.0);
            }
            (lead + span(begin, end)).min(earliest)
        } else if earliest < batch.predicted.as_secs_f64() {
            earliest
        } else {
            return None;
        };
        // What is mostly a difference of larger numbers says nothing.
        Some(seconds - copies).filter(|calls| *calls >= seconds / 4.0)
    }

    /// Learns from a submission that nothing delayed and that took `seconds` from being handed over.
    fn learn(&mut self, submission: &Submission, seconds: f64) {
        let batch = &submission.batch;
        if batch.spoiled {
            return;
        }
        if let Some([begin, end]) = submission.stamps {
            let unseen = seconds - end.saturating_sub(begin) as f64 * 1e-9;
            self.latency.learn(unseen, self.tuning.follow_rate);
        }
        if batch.is_empty() && batch.unclaimed_bytes >= self.tuning.telling_copy_bytes {
            let transfer = (seconds - self.latency.seconds).max(0.0);
            let per_byte = transfer / batch.unclaimed_bytes as f64;
            self.copying.learn(per_byte, self.tuning.follow_rate);
        }
    }
}
