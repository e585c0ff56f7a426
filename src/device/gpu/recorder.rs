//! Recording: consecutive GPU calls share a command encoder, one compute pass for as long as only dispatches follow
//! each other, and one submission, so that a chain of small kernels costs what raw wgpu costs.
//!
//! Uniform parameters of all dispatches of a submission lie in one arena buffer, addressed by dynamic offsets, and
//! reach the GPU in a copy ahead of the recorded commands.

use super::Gpu;
use super::pipelines::{Pipeline, Window};
use super::transfer::{Direction, StagingBuffer};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;

/// Bytes of the parameter arena.
pub(super) const ARENA_BYTES: usize = 64 << 10;
/// Alignment of parameters in the arena: the largest that any adapter asks of dynamic uniform offsets.
const SLOT: usize = 256;
/// A submission is flushed after this many dispatches: long enough to share its cost, short enough that the GPU
/// begins early.
const DISPATCHES: u32 = 200;
/// It is flushed also once this many seconds of work are predicted to be recorded.
const SECONDS: f64 = 20e-3;
/// Submissions that may be under way before recording waits for the oldest.
const IN_FLIGHT: usize = 4;

/// Commands that are recorded and not yet submitted, and the submissions that are under way.
#[derive(Default)]
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
    /// What the recorded dispatches are predicted to take, as far as it was announced.
    seconds: f64,
    /// Staging buffers to hand back after the next submission.
    staging: Vec<StagingBuffer>,
    in_flight: VecDeque<wgpu::SubmissionIndex>,
}

/// How many workgroups to dispatch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Groups(pub(super) [u32; 3]);

impl Recorder {
    /// Records a dispatch.
    pub(super) fn dispatch(
        &mut self,
        gpu: &Gpu,
        pipeline: &Arc<Pipeline>,
        uniforms: &[&[u8]],
        windows: &[Window],
        groups: Groups,
    ) -> Result<()> {
        let room = uniforms
            .iter()
            .map(|u| u.len().next_multiple_of(SLOT))
            .sum::<usize>();
        if room > ARENA_BYTES {
            return Err(Error::TooLarge {
                what: "the uniforms of a dispatch".into(),
                given: format!("{room} bytes"),
                limit: format!("{ARENA_BYTES} bytes"),
            });
        }
        if self.parameters.len() + room > ARENA_BYTES || self.dispatches >= DISPATCHES {
            self.flush(gpu)?;
        }
        let mut offsets = smallvec::SmallVec::<[u32; 2]>::new();
        for uniform in uniforms {
            offsets.push(self.place(uniform));
        }
        let group = gpu.pipelines.bind_group(gpu, pipeline, windows)?;
        let pass = match &mut self.pass {
            Some(pass) => pass,
            None => {
                let encoder = Self::encoder(&mut self.encoder, gpu);
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
        let [x, y, z] = groups.0;
        pass.dispatch_workgroups(x, y, z);
        self.dispatches += 1;
        Ok(())
    }

    /// Takes note that the dispatches recorded last are predicted to take so long, and submits what is recorded if that
    /// is enough for the GPU to begin with.
    pub(super) fn announce(&mut self, gpu: &Gpu, seconds: f64) -> Result<()> {
        self.seconds += seconds;
        if self.seconds >= SECONDS {
            self.flush(gpu)?;
        }
        Ok(())
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
        gpu: &Gpu,
        source: (&wgpu::Buffer, u64),
        target: (&wgpu::Buffer, u64),
        bytes: u64,
    ) {
        self.end_pass();
        let encoder = Self::encoder(&mut self.encoder, gpu);
        encoder.copy_buffer_to_buffer(source.0, source.1, target.0, target.1, bytes);
    }

    /// Hands a staging buffer back once the commands recorded so far are done.
    pub(super) fn recycle(&mut self, staging: StagingBuffer) {
        self.staging.push(staging);
    }

    /// Submits what is recorded, if anything, and returns the index of the latest submission.
    pub(super) fn flush(&mut self, gpu: &Gpu) -> Result<Option<wgpu::SubmissionIndex>> {
        self.end_pass();
        if self.encoder.is_some() {
            // Before anything is given up: if it fails, the flush can be tried again.
            let prologue = self.upload_parameters(gpu)?;
            let submitted = gpu.catch(|| {
                let commands = self.encoder.take().map(wgpu::CommandEncoder::finish);
                gpu.queue.submit(prologue.into_iter().chain(commands))
            });
            let index = submitted.map_err(|error| gpu.give_up(&error))?;
            self.dispatches = 0;
            self.seconds = 0.0;
            for staging in self.staging.drain(..) {
                gpu.staging.give_back(staging);
            }
            self.in_flight.push_back(index);
            while self.in_flight.len() > IN_FLIGHT {
                if let Some(oldest) = self.in_flight.pop_front() {
                    gpu.wait(oldest)?;
                }
            }
        }
        gpu.check()?;
        Ok(self.in_flight.back().cloned())
    }

    /// The command that copies the parameters recorded so far into the arena, unless it holds them already, as in a
    /// loop of equal calls.
    fn upload_parameters(&mut self, gpu: &Gpu) -> Result<Option<wgpu::CommandBuffer>> {
        if self.uploaded.starts_with(&self.parameters) {
            self.parameters.clear();
            return Ok(None);
        }
        let bytes = self.parameters.len() as u64;
        let staging = gpu.staging.take(gpu, Direction::ToDevice, bytes)?;
        gpu.staging.fill(&staging, &self.parameters)?;
        let mut encoder = gpu
            .device
            .create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encoder.copy_buffer_to_buffer(staging.raw(), 0, &gpu.arena, 0, bytes);
        self.staging.push(staging);
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
        gpu: &Gpu,
    ) -> &'e mut wgpu::CommandEncoder {
        slot.get_or_insert_with(|| {
            gpu.device
                .create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
        })
    }
}
