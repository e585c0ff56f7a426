//! Recording: consecutive GPU calls share a command encoder, one compute pass for as long as only dispatches follow
//! each other, and one submission, so that a chain of small kernels costs what raw wgpu costs.
//!
//! Uniform parameters of all dispatches of a submission lie in one arena buffer, addressed by dynamic offsets, and
//! reach the GPU in a copy ahead of the recorded commands.

use super::allocation::Allocation;
use super::clock::Clock;
use super::connection::Connection;
use super::dispatch::Dispatch;
use super::faults::FaultPoint;
use super::pipelines::{Pipeline, Pipelines};
use super::staging::{Staging, StagingBuffer};
use super::stamps::{StampSet, Stamps};
use super::timeline::{Batch, duration};
use crate::error::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Alignment of parameters in the arena: the largest that any adapter asks of dynamic uniform offsets.
const SLOT: usize = 256;
/// Commands that are recorded and not yet submitted.
pub(super) struct Recorder {
    /// Declared before the encoder: an open pass must end first.
    pass: Option<wgpu::ComputePass<'static>>,
    encoder: Option<wgpu::CommandEncoder>,
    /// The pipeline set in the open pass.
    bound: Option<Arc<Pipeline>>,
    parameters: Vec<u8>,
    /// What the arena holds once all submissions so far are done.
    uploaded: Vec<u8>,
    dispatches: u32,
    /// Staging buffers to hand back after the next submission.
    used: Vec<StagingBuffer>,
    /// The calls whose work is recorded.
    batch: Batch,
    /// The call that is being recorded.
    call: Option<OpenCall>,
    stamps: Stamps,
    pipelines: Arc<Pipelines>,
    arena: Arc<Allocation>,
    staging: Arc<Staging>,
    // Declared last: what is recorded goes before what it is recorded for.
    connection: Arc<Connection>,
}

/// A call that is being recorded.
struct OpenCall {
    clock: Arc<Clock>,
    /// What is predicted of it and not yet counted in a batch.
    predicted: Duration,
    /// Since when its recording has not been counted in a batch.
    since: Instant,
    /// Whether any of it is recorded in the open batch.
    has_begun: bool,
}

/// Whether a submission is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The thread that submits it waits next.
    Now,
    /// No thread waits yet, and perhaps none ever does.
    NotYet,
}

impl Recorder {
    pub(super) fn new(
        connection: &Arc<Connection>,
        arena: &Arc<Allocation>,
        pipelines: &Arc<Pipelines>,
        staging: &Arc<Staging>,
    ) -> Self {
        Self {
            pass: None,
            encoder: None,
            bound: None,
            parameters: Vec::new(),
            uploaded: Vec::new(),
            dispatches: 0,
            used: Vec::new(),
            batch: connection.timeline().batch(),
            call: None,
            stamps: Stamps::new(connection),
            pipelines: Arc::clone(pipelines),
            arena: Arc::clone(arena),
            staging: Arc::clone(staging),
            connection: Arc::clone(connection),
        }
    }

    /// The sets of timestamps, for tests that leave none free.
    #[cfg(test)]
    pub(super) fn stamps(&self) -> &Stamps {
        &self.stamps
    }

    /// Records a dispatch.
    pub(super) fn dispatch(
        &mut self,
        pipeline: &Arc<Pipeline>,
        dispatch: &Dispatch<'_>,
    ) -> Result<()> {
        let Dispatch {
            uniforms,
            windows,
            grid,
            ..
        } = *dispatch;
        self.connection.meets_fault(FaultPoint::Device);
        let room = uniforms
            .iter()
            .map(|u| u.len().next_multiple_of(SLOT))
            .sum::<usize>();
        let arena = self.arena.raw.size() as usize;
        if room > arena {
            return Err(Error::TooLarge {
                what: "the uniforms of a dispatch".into(),
                given: format!("{room} bytes"),
                limit: format!("{arena} bytes on {}", self.connection.name()),
            });
        }
        let most = self.connection.tuning().dispatches_per_submission;
        if self.parameters.len() + room > arena || self.dispatches >= most {
            self.flush(Waiting::NotYet)?;
        }
        if pipeline.is_new() {
            self.spoil();
        }
        match &mut self.call {
            Some(call) => call.has_begun = true,
            // It belongs to no call, so how long it takes is not predicted.
            None => self.batch.spoil(),
        }
        let mut offsets = smallvec::SmallVec::<[u32; 2]>::new();
        for uniform in uniforms {
            offsets.push(self.place(uniform));
        }
        let group = self.pipelines.bind_group(pipeline, windows)?;
        let pass = match &mut self.pass {
            Some(pass) => pass,
            None => {
                let encoder = Self::encoder(&mut self.encoder, &self.connection);
                let pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                self.pass.insert(pass.forget_lifetime())
            }
        };
        if !self
            .bound
            .as_ref()
            .is_some_and(|bound| Arc::ptr_eq(bound, pipeline))
        {
            pass.set_pipeline(&pipeline.raw);
            self.bound = Some(Arc::clone(pipeline));
        }
        pass.set_bind_group(0, &group, &offsets);
        let [x, y, z] = grid;
        pass.dispatch_workgroups(x, y, z);
        self.dispatches += 1;
        Ok(())
    }

    /// What is recorded until [`Recorder::announce`] belongs to a call that is predicted to take `seconds`.
    pub(super) fn begin(&mut self, clock: &Arc<Clock>, seconds: f64) {
        let since = Instant::now();
        if let Some(other) = self.call.take() {
            // Another thread is recording too; whose work is whose cannot be told.
            other.clock.spoil();
            clock.spoil();
            let host = since.saturating_duration_since(other.since);
            self.batch.add(&other.clock, other.predicted, host);
        }
        self.call = Some(OpenCall {
            clock: Arc::clone(clock),
            predicted: duration(seconds),
            since,
            has_begun: false,
        });
    }

    /// The call that [`Recorder::begin`] began is recorded. Submits what is recorded if that is enough for the GPU to
    /// begin with.
    pub(super) fn announce(&mut self, clock: &Arc<Clock>) -> Result<()> {
        match self.call.take() {
            Some(call) if Arc::ptr_eq(&call.clock, clock) => {
                if call.has_begun {
                    self.batch.add(clock, call.predicted, call.since.elapsed());
                }
            }
            other => {
                // Another thread's call took its place.
                clock.spoil();
                if let Some(other) = &other {
                    other.clock.spoil();
                }
                self.call = other;
            }
        }
        if self.batch.predicted() >= self.connection.tuning().work_per_submission {
            self.flush(Waiting::NotYet)?;
        }
        Ok(())
    }

    /// The call that is being recorded uses a pipeline for the first time, which drivers may still compile then: its
    /// time, and that of the calls it shares a submission with, say nothing.
    fn spoil(&mut self) {
        self.batch.spoil();
        if let Some(call) = &self.call {
            call.clock.spoil();
        }
    }

    /// Puts a uniform block into the arena. The block placed last is used again if it is the same, as in a chain of
    /// equal calls.
    fn place(&mut self, uniform: &[u8]) -> u32 {
        let last = self.parameters.len().saturating_sub(SLOT);
        let padded = uniform.len().next_multiple_of(SLOT);
        if padded == SLOT
            && self.parameters[last..].get(..uniform.len()) == Some(uniform)
            && !uniform.is_empty()
        {
            return last as u32;
        }
        let at = self.parameters.len();
        self.parameters.extend_from_slice(uniform);
        self.parameters.resize(at + padded, 0);
        at as u32
    }

    /// Records a copy between device buffers, or between one and a staging buffer.
    pub(super) fn copy(
        &mut self,
        source: (&wgpu::Buffer, u64),
        target: (&wgpu::Buffer, u64),
        bytes: u64,
    ) -> Result<()> {
        self.connection.meets_fault(FaultPoint::Device);
        if let Some(call) = &mut self.call {
            call.has_begun = true;
        } else {
            let is_noticeable = bytes >= self.connection.tuning().noticeable_copy_bytes;
            let knows_copies = || self.connection.timeline().knows_copies();
            if is_noticeable && !self.batch.is_empty() && !knows_copies() {
                self.flush(Waiting::NotYet)?;
            }
            self.batch.add_unclaimed(bytes);
        }
        self.end_pass();
        let encoder = Self::encoder(&mut self.encoder, &self.connection);
        encoder.copy_buffer_to_buffer(source.0, source.1, target.0, target.1, bytes);
        Ok(())
    }

    /// Hands a staging buffer back once the commands recorded so far are done.
    pub(super) fn recycle(&mut self, staging: StagingBuffer) {
        self.used.push(staging);
    }

    /// Submits what is recorded, if anything, and returns the number of the latest submission that is under way.
    pub(super) fn flush(&mut self, waiting: Waiting) -> Result<Option<u64>> {
        self.end_pass();
        let mut latest = self.connection.timeline().latest();
        if self.encoder.is_some() {
            // Before anything is given up: if it fails, the flush can be tried again.
            let prologue = self.upload_parameters()?;
            let stamps = self.take_stamps(waiting);
            let begin = stamps.as_ref().map(|stamps| stamps.begin(&self.connection));
            let now = Instant::now();
            let batch = self.take_batch(now);
            let connection = &self.connection;
            if connection.meets_fault(FaultPoint::Submission) {
                self.encoder = None;
                return Err(connection.give_up(not_submitted(&"a test wants it to fail")));
            }
            let submitted = connection.catch(|| {
                let commands = self.encoder.take().map(wgpu::CommandEncoder::finish);
                connection
                    .queue()
                    .submit(begin.into_iter().chain(prologue).chain(commands))
            });
            let index = submitted.map_err(|error| connection.give_up(not_submitted(&error)))?;
            let timeline = connection.timeline();
            let number = timeline.submit(batch, index, now);
            if let Some(stamps) = stamps {
                self.stamps.read(stamps, number);
            }
            let timed = Arc::clone(timeline);
            connection
                .queue()
                .on_submitted_work_done(move || timed.end(number));
            self.dispatches = 0;
            for staging in self.used.drain(..) {
                self.staging.give_back(staging);
            }
            latest = Some(number);
            while let Some((oldest, under_way)) = timeline.oldest()
                && under_way > connection.tuning().submissions_in_flight
            {
                connection.wait(oldest)?;
            }
        }
        self.connection.check()?;
        Ok(latest)
    }

    /// The calls of the submission that is about to be made. One that is still being recorded goes on in the next.
    fn take_batch(&mut self, now: Instant) -> Batch {
        if let Some(call) = &mut self.call
            && call.has_begun
        {
            let predicted = std::mem::take(&mut call.predicted);
            let host = now.saturating_duration_since(call.since);
            self.batch.add(&call.clock, predicted, host);
            call.since = now;
            call.has_begun = false;
        }
        std::mem::replace(&mut self.batch, self.connection.timeline().batch())
    }

    /// Room for timestamps of the submission that is about to be made, if they will tell what waiting for it does not.
    fn take_stamps(&mut self, waiting: Waiting) -> Option<StampSet> {
        let has_begun = self.call.as_ref().is_some_and(|call| call.has_begun);
        let has_calls = has_begun || !self.batch.is_empty();
        let useful = waiting == Waiting::NotYet || self.connection.timeline().wants_latency();
        if !(has_calls && useful) {
            return None;
        }
        let stamps = self.stamps.take()?;
        stamps.end(self.encoder.as_mut()?);
        Some(stamps)
    }

    /// The command that copies the parameters recorded so far into the arena, unless it holds them already, as in a
    /// loop of equal calls.
    fn upload_parameters(&mut self) -> Result<Option<wgpu::CommandBuffer>> {
        if self.uploaded.starts_with(&self.parameters) {
            self.parameters.clear();
            return Ok(None);
        }
        let bytes = self.parameters.len() as u64;
        let staging = self.staging.take_for_parameters(bytes)?;
        self.staging.fill(&staging, &self.parameters)?;
        let mut encoder = self
            .connection
            .device()
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(staging.raw(), 0, &self.arena.raw, 0, bytes);
        self.used.push(staging);
        std::mem::swap(&mut self.parameters, &mut self.uploaded);
        self.parameters.clear();
        Ok(Some(encoder.finish()))
    }

    fn end_pass(&mut self) {
        self.pass = None;
        self.bound = None;
    }

    fn encoder<'e>(
        slot: &'e mut Option<wgpu::CommandEncoder>,
        connection: &Connection,
    ) -> &'e mut wgpu::CommandEncoder {
        slot.get_or_insert_with(|| {
            connection
                .device()
                .create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
        })
    }
}

fn not_submitted(error: &dyn std::fmt::Display) -> String {
    format!("work that was recorded could not be submitted: {error}")
}
