//! The driver's side of a GPU: its wgpu device and queue, and whether they still work.
//!
//! Everything above shares one connection. It owns none of them, so that it is closed when the last of them goes. wgpu
//! reports some errors out of band; they are kept here and returned by the next operation.

use super::faults::{FaultPoint, Faults};
use super::info::{GpuInfo, GpuOptions};
use super::timeline::Timeline;
use super::tuning::Tuning;
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A wgpu device and its queue.
pub(super) struct Connection {
    info: GpuInfo,
    tuning: Tuning,
    hang_limit: Duration,
    faults: Arc<Faults>,
    condition: Arc<Condition>,
    timeline: Arc<Timeline>,
    queue: wgpu::Queue,
    device: wgpu::Device,
}

/// Whether a GPU still works.
#[derive(Debug, Default)]
struct Condition {
    is_lost: AtomicBool,
    report: Mutex<Report>,
}

/// What wgpu reported out of band.
#[derive(Debug, Default)]
struct Report {
    lost: Option<String>,
    error: Option<String>,
}

impl Condition {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a loss, unless one is recorded; returns the first reason.
    fn lose(&self, reason: String) -> String {
        let mut report = self.report();
        let reason = report.lost.get_or_insert(reason).clone();
        self.is_lost.store(true, Ordering::Release);
        reason
    }
}

impl Connection {
    pub(super) fn new(
        device: wgpu::Device,
        queue: wgpu::Queue,
        info: GpuInfo,
        options: &GpuOptions,
        faults: &Arc<Faults>,
    ) -> Arc<Self> {
        let condition = Arc::new(Condition::default());
        let timeline = Arc::new(Timeline::new(&options.tuning));
        let (errors, timed) = (Arc::clone(&condition), Arc::clone(&timeline));
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            tracing::error!(%error, "wgpu");
            timed.spoil();
            errors.report().error.get_or_insert(error.to_string());
        }));
        let (losses, timed) = (Arc::clone(&condition), Arc::clone(&timeline));
        device.set_device_lost_callback(move |reason, message| {
            timed.give_up();
            losses.lose(format!("{reason:?}: {message}"));
        });
        Arc::new(Self {
            info,
            tuning: options.tuning,
            hang_limit: options.hang_limit.unwrap_or(options.tuning.hang_limit),
            faults: Arc::clone(faults),
            condition,
            timeline,
            queue,
            device,
        })
    }

    /// The adapter's name.
    pub(super) fn name(&self) -> &str {
        &self.info.name
    }

    /// What the adapter says of itself.
    pub(super) fn info(&self) -> &GpuInfo {
        &self.info
    }

    /// The numbers that tune it.
    pub(super) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// When its submissions begin and end.
    pub(super) fn timeline(&self) -> &Arc<Timeline> {
        &self.timeline
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.queue
    }

    pub(super) fn device(&self) -> &wgpu::Device {
        &self.device
    }

    /// Whether it is lost for good, as far as is known. What was put on it since it was last waited for may be lost
    /// without this being known yet.
    pub(super) fn is_lost(&self) -> bool {
        self.condition.is_lost.load(Ordering::Acquire)
    }

    /// Why it is lost, if it is.
    pub(super) fn loss(&self) -> Option<String> {
        self.condition.report().lost.clone()
    }

    /// Finds out whether it is lost. That is told only when nothing is under way any more, so this waits, though not for
    /// ever: for use after an error.
    pub(super) fn probe(&self) {
        for pause in self.tuning.probe_pauses {
            if self.is_lost() {
                return;
            }
            let _ = self.device.poll(wgpu::PollType::Wait {
                submission_index: None,
                timeout: Some(self.tuning.probe_limit),
            });
            // Another thread may have been told, and be about to record it.
            std::thread::sleep(pause);
        }
        if self.is_lost() {
            return;
        }
        // That thread may be held up for long. A device that is gone refuses even this.
        let submitted = self.catch(|| {
            let encoder = self.device.create_command_encoder(&Default::default());
            self.queue.submit([encoder.finish()])
        });
        if let Err(error) = submitted {
            self.lose(format_args!("it takes no more work: {error}"));
        }
    }

    /// Counts an operation, for tests that have one fail; destroys the device if one of them wants that now.
    pub(super) fn meets_fault(&self, point: FaultPoint) -> bool {
        let hit = self.faults.hits(point);
        if hit.device {
            self.device.destroy();
        }
        hit.fails
    }

    /// Calls wgpu and returns the error that it reports meanwhile, if any.
    pub(super) fn catch<T>(&self, work: impl FnOnce() -> T) -> Result<T, wgpu::Error> {
        use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
        let scopes =
            [OutOfMemory, Internal, Validation].map(|filter| self.device.push_error_scope(filter));
        let value = work();
        let mut errors = scopes
            .into_iter()
            .rev()
            .map(|scope| pollster::block_on(scope.pop()));
        // Every scope must be left, whatever the others caught.
        let first = errors
            .by_ref()
            .fold(None, |first: Option<wgpu::Error>, next| first.or(next));
        first.map_or(Ok(value), Err)
    }

    /// Gives this GPU up for good, because work was dropped that arrays count on or the driver no longer does what it is
    /// asked: better an error than stale elements.
    pub(super) fn give_up(&self, problem: impl std::fmt::Display) -> Error {
        // If it is lost already, that is the reason.
        self.probe();
        self.lose(problem)
    }

    /// Gives this GPU up because it does not get done. It is never closed: that would wait for it.
    fn abandon(&self) -> Error {
        std::mem::forget((self.queue.clone(), self.device.clone()));
        self.lose("its work hangs: it takes far longer than it should")
    }

    fn lose(&self, problem: impl std::fmt::Display) -> Error {
        self.timeline.give_up();
        let message = self.condition.lose(problem.to_string());
        tracing::error!(gpu = self.name(), message, "lost");
        Error::DeviceLost {
            device: self.name().into(),
            message,
        }
    }

    /// Sets the clocks of what is done, without waiting.
    pub(super) fn look(&self) {
        if self.timeline.latest().is_some() && self.timeline.since_look() > self.tuning.recent_look
        {
            // An error shows in the next operation.
            let _ = self.device.poll(wgpu::PollType::Poll);
            self.timeline.looked();
        }
    }

    /// Waits for a submission, and before it for each before it, so that it is known when each was done.
    pub(super) fn wait(&self, number: u64) -> Result<()> {
        // What is done already must not be taken for what ends just now.
        let mut looked = self.timeline.since_look() > self.tuning.recent_look;
        if looked {
            self.poll(wgpu::PollType::Poll)?;
            self.timeline.looked();
        }
        while let Some(watched) = self.timeline.watch(number) {
            looked = true;
            let likely = watched.predicted.saturating_mul(self.tuning.hang_factor);
            self.poll(wgpu::PollType::Wait {
                submission_index: Some(watched.index),
                timeout: Some(self.hang_limit.max(likely)),
            })?;
            self.timeline.watched(watched.number);
        }
        // Another thread may have seen the submission done before mappings were asked for that wait for it.
        if !looked {
            self.poll(wgpu::PollType::Poll)?;
        }
        Ok(())
    }

    pub(super) fn poll(&self, poll: wgpu::PollType) -> Result<()> {
        match self.device.poll(poll) {
            Ok(_) => Ok(()),
            Err(wgpu::PollError::Timeout) => Err(self.abandon()),
            // A submission that the driver knows nothing of: it was dropped.
            Err(error) => Err(self.give_up(error)),
        }
    }

    /// The error that wgpu reported out of band, if any. A loss is reported for good, other errors once.
    pub(super) fn check(&self) -> Result<()> {
        let mut report = self.condition.report();
        if report.lost.is_none() && report.error.is_some() {
            drop(report);
            // Using what went with a lost device is an error too, and may be reported first.
            self.probe();
            report = self.condition.report();
        }
        if let Some(message) = &report.lost {
            return Err(Error::DeviceLost {
                device: self.name().into(),
                message: message.clone(),
            });
        }
        let error = report.error.take();
        error.map_or(Ok(()), |message| Err(self.error(message)))
    }

    /// The error that there is no room for `bytes` bytes.
    pub(super) fn no_room(&self, bytes: u64) -> Error {
        Error::DeviceMemory {
            device: self.name().into(),
            bytes,
        }
    }

    pub(super) fn error(&self, message: String) -> Error {
        Error::Gpu {
            device: self.name().into(),
            message,
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("info", &self.info)
            .finish_non_exhaustive()
    }
}
