//! The GPU's own clock: timestamps at the begin and the end of submissions, read back when these are done.
//!
//! Only for submissions that no thread waits for, whose end would otherwise be known only as having been before a thread
//! looked. Others go without, for it costs: on lavapipe each timestamp takes longer than a small dispatch. Adapters that
//! cannot write timestamps between passes have none.

use super::connection::Connection;
use super::timeline::Timeline;
use std::sync::{Arc, Mutex, PoisonError};

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
#[derive(Debug)]
pub(super) struct Stamps {
    free: Arc<Mutex<Free>>,
    connection: Arc<Connection>,
}

#[derive(Debug, Default)]
struct Free {
    sets: Vec<StampSet>,
    made: usize,
}

impl Stamps {
    pub(super) fn new(connection: &Arc<Connection>) -> Self {
        Self {
            free: Arc::default(),
            connection: Arc::clone(connection),
        }
    }

    /// A set for the next submission, if the adapter has timestamps and one is free.
    pub(super) fn take(&self) -> Option<StampSet> {
        let (connection, device) = (&self.connection, self.connection.device());
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = free.sets.pop() {
            return Some(set);
        }
        let most = connection.tuning().stamp_sets;
        if free.made >= most || !device.features().contains(FEATURES) {
            return None;
        }
        // Whether or not it can be made: what fails is not tried again for ever.
        free.made += 1;
        drop(free);
        let made = connection.catch(|| {
            let buffer = |usage| {
                device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("divvy timestamps"),
                    size: BYTES,
                    usage,
                    mapped_at_creation: false,
                })
            };
            StampSet {
                queries: device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("divvy timestamps"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: buffer(wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC),
                readable: buffer(wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST),
            }
        });
        made.inspect_err(|error| tracing::warn!(gpu = connection.name(), %error, "no timestamps"))
            .ok()
    }

    /// Reads a set, once the submission that it was resolved in is done, and frees it.
    pub(super) fn read(&self, set: StampSet, number: u64) {
        let free = Arc::clone(&self.free);
        let timeline = Arc::clone(self.connection.timeline());
        let period = f64::from(self.connection.queue().get_timestamp_period());
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
    pub(super) fn begin(&self, connection: &Connection) -> wgpu::CommandBuffer {
        let descriptor = wgpu::CommandEncoderDescriptor::default();
        let mut encoder = connection.device().create_command_encoder(&descriptor);
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
