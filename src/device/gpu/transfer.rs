//! Moving bytes between host memory and device buffers, and between device buffers.

use super::gpu::Gpu;
use super::memory::prev_power_of_two;
use super::pool::DeviceBuffer;
use super::recorder::Waiting;
use super::staging::{Direction, StagingBuffer};
use crate::error::{Error, Result};
use std::collections::VecDeque;

/// A piece of a download under way.
struct Download<'a> {
    staging: StagingBuffer,
    /// The number of the submission that fills it.
    submission: u64,
    target: &'a mut [u8],
}

impl Gpu {
    /// Copies `source` to a device buffer, in the order of the queue. The source may change as soon as this returns.
    ///
    /// # Errors
    /// [`Error::DeviceMemory`] if there is no room to stage even the smallest piece.
    pub(crate) fn upload(&self, target: &DeviceBuffer, offset: u64, source: &[u8]) -> Result<()> {
        let smallest = self.connection.tuning().smallest_piece;
        let mut at = offset;
        let mut rest = source;
        let mut most = self.staging.piece();
        let mut has_waited = false;
        while !rest.is_empty() {
            self.let_uploads_finish()?;
            let bytes = most.min(rest.len() as u64);
            let staging = match self.staging.take(Direction::ToDevice, bytes) {
                // What is recorded and not submitted holds some.
                Err(Error::DeviceMemory { .. }) if !has_waited => {
                    self.wait_for_all()?;
                    has_waited = true;
                    continue;
                }
                Err(Error::DeviceMemory { .. }) if bytes > smallest => {
                    most = prev_power_of_two(bytes / 2).max(smallest);
                    continue;
                }
                taken => taken?,
            };
            has_waited = false;
            let (piece, later) = rest.split_at(bytes as usize);
            self.staging.fill(&staging, piece)?;
            let mut recorder = self.recorder();
            recorder.copy((staging.raw(), 0), (target.raw(), at), bytes)?;
            recorder.recycle(staging);
            if source.len() as u64 > most {
                // Let the copy of this piece overlap with filling the next.
                recorder.flush(Waiting::NotYet)?;
            }
            at += bytes;
            rest = later;
        }
        self.connection.check()
    }

    /// Waits for submissions, the oldest first, while so much upload staging is in use that some must come back.
    fn let_uploads_finish(&self) -> Result<()> {
        while self.staging.is_exhausted() {
            self.flush()?;
            match self.connection.timeline().oldest() {
                Some((oldest, _)) => self.connection.wait(oldest)?,
                // All is done, though no thread may have looked since.
                None => return self.connection.poll(wgpu::PollType::Poll),
            }
        }
        Ok(())
    }

    /// Copies from a device buffer to `target`, after everything queued before it. Waits.
    pub(crate) fn download(
        &self,
        source: &DeviceBuffer,
        offset: u64,
        target: &mut [u8],
    ) -> Result<()> {
        let mut has_reserved = false;
        let done = self.download_with((source, offset), target, &mut has_reserved);
        if done.is_err() && has_reserved {
            self.staging.lose_reserved();
        }
        done
    }

    /// Downloads; says in `has_reserved` whether the staging buffer that is always there is in use for it.
    fn download_with(
        &self,
        (source, offset): (&DeviceBuffer, u64),
        target: &mut [u8],
        has_reserved: &mut bool,
    ) -> Result<()> {
        let most_under_way = self.connection.tuning().pieces_per_download;
        let mut at = offset;
        let mut rest = target;
        let mut most = self.staging.piece();
        let mut under_way: VecDeque<Download<'_>> = VecDeque::with_capacity(most_under_way);
        loop {
            while under_way.len() < most_under_way && !rest.is_empty() {
                let mut bytes = most.min(rest.len() as u64);
                let staging = match self.staging.take(Direction::ToHost, bytes) {
                    // What is under way will come back first.
                    Err(Error::DeviceMemory { .. }) if !under_way.is_empty() => break,
                    Err(error @ Error::DeviceMemory { .. }) => {
                        let reserved = self.staging.take_for_download().ok_or(error)?;
                        *has_reserved = true;
                        most = reserved.raw().size();
                        bytes = bytes.min(most);
                        reserved
                    }
                    taken => taken?,
                };
                let (piece, later) = rest.split_at_mut(bytes as usize);
                rest = later;
                under_way.push_back(self.begin_download(staging, (source, at), piece)?);
                at += bytes;
            }
            let Some(oldest) = under_way.pop_front() else {
                return Ok(());
            };
            let was_reserved = oldest.staging.is_reserved();
            self.finish_download(oldest)?;
            *has_reserved &= !was_reserved;
        }
    }

    fn begin_download<'a>(
        &self,
        staging: StagingBuffer,
        (source, offset): (&DeviceBuffer, u64),
        target: &'a mut [u8],
    ) -> Result<Download<'a>> {
        let bytes = target.len() as u64;
        let mut recorder = self.recorder();
        recorder.copy((source.raw(), offset), (staging.raw(), 0), bytes)?;
        let submission = recorder
            .flush(Waiting::Now)?
            .ok_or_else(|| self.connection.error("nothing was submitted".into()))?;
        drop(recorder);
        staging
            .raw()
            .map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        Ok(Download {
            staging,
            submission,
            target,
        })
    }

    fn finish_download(&self, download: Download<'_>) -> Result<()> {
        let connection = &self.connection;
        connection.wait(download.submission)?;
        connection.check()?;
        download.staging.read(connection, download.target)?;
        self.staging.give_back(download.staging);
        Ok(())
    }

    /// Copies between buffers of this GPU, in the order of the queue.
    pub(crate) fn copy(
        &self,
        source: (&DeviceBuffer, u64),
        target: (&DeviceBuffer, u64),
        bytes: u64,
    ) -> Result<()> {
        self.recorder().copy(
            (source.0.raw(), source.1),
            (target.0.raw(), target.1),
            bytes,
        )?;
        self.connection.check()
    }
}
