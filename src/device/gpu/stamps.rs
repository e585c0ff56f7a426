//! The GPU's own clock: timestamps at the begin and the end of submissions, read back when these are done.
//!
//! For submissions that nobody waits for, whose end would otherwise be known only as having been before somebody
//! looked; not for others, for it costs: on lavapipe each timestamp takes longer than a small dispatch. Adapters that
//! cannot write timestamps between passes have none.

use super::Gpu;
use super::timeline::Timeline;
use std::sync::{Arc, Mutex, PoisonError};

/// Sets of timestamps that may be in use at once; a submission that finds none free goes without.
const SETS: usize = 8;
const BYTES: u64 = 2 * size_of::<u64>() as u64;

/// What an adapter must offer for it.
pub(super) const FEATURES: wgpu::Features =
    wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::TIMESTAMP_QUERY_INSIDE_ENCODERS);

/// Room for the timestamps of one submission.
#[derive(Debug)]
pub(super) struct StampSet {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    readable: wgpu::Buffer,
}

/// The sets of a GPU.
#[derive(Debug, Default)]
pub(super) struct Stamps {
    free: Arc<Mutex<Free>>,
}

#[derive(Debug, Default)]
struct Free {
    sets: Vec<StampSet>,
    made: usize,
}

impl Stamps {
    /// A set for the next submission, if the adapter has timestamps and one is free.
    pub(super) fn take(&self, gpu: &Gpu) -> Option<StampSet> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = free.sets.pop() {
            return Some(set);
        }
        if free.made >= SETS || !gpu.device.features().contains(FEATURES) {
            return None;
        }
        // Whether or not it can be made: what fails is not tried again for ever.
        free.made += 1;
        drop(free);
        let made = gpu.catch(|| {
            let buffer = |usage| {
                gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("divvy timestamps"),
                    size: BYTES,
                    usage,
                    mapped_at_creation: false,
                })
            };
            StampSet {
                queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("divvy timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            }
        });
        made.inspect_err(|error| tracing::warn!(gpu = gpu.name(), %error, "no timestamps"))
            .ok()
    }

    /// Reads a set, once the submission that it was resolved in is done, and frees it.
    pub(super) fn read(&self, gpu: &Gpu, set: StampSet, number: u64) {
        let (free, timeline) = (Arc::clone(&self.free), Arc::clone(&gpu.timeline));
        let period = f64::from(gpu.queue.get_timestamp_period());
        let readable = set.readable.clone();
        readable.map_async(wgpu::MapMode::Read, .., move |outcome| {
            if outcome.is_err() || set.report(&timeline, number, period).is_none() {
                return;
            }
            set.readable.unmap();
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            free.sets.push(set);
        });
    }
}

impl StampSet {
    /// The command that writes the first timestamp. By itself, since only when a submission is made it is known whether
    /// it must be timed.
    pub(super) fn begin(&self, gpu: &Gpu) -> wgpu::CommandBuffer {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        let mut encoder = gpu.device.create_command_encoder(&descriptor);
        encoder.write_timestamp(&self.queries, 0);
        encoder.finish()
    }

    /// Records the last timestamp, and the copies that let the host read both.
    pub(super) fn end(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.write_timestamp(&self.queries, 1);
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.readable, 0, BYTES);
    }

    /// Tells the timeline what the GPU wrote.
    fn report(&self, timeline: &Timeline, number: u64, period: f64) -> Option<()> {
        let view = self.readable.slice(..).get_mapped_range().ok()?;
        let ticks: &[[u64; 2]] = bytemuck::try_cast_slice(&view).ok()?;
        let stamps = ticks
            .first()?
            .map(|ticks| (ticks as f64 * period).round() as u64);
        drop(view);
        timeline.stamp(number, stamps);
        Some(())
    }
}
