//! How much is measured of a device, which decides how long it takes.

use super::sampling::{Pair, decile, now, seconds_since};
use crate::device::DeviceKind;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// How thoroughly a machine is measured, which decides how long it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Thoroughness {
    /// About a tenth of a second per device: for a program whose first call waits for it.
    First,
    /// Less than three seconds altogether, including how much devices slow each other down.
    Quick,
    /// Less than a minute altogether, with more samples of everything, at more sizes.
    Full,
}

/// How much is measured of a device.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort {
    /// Samples, whose lowest decile counts.
    pub(super) samples: usize,
    /// Seconds after which no more samples are taken.
    pub(super) budget_seconds: f64,
    /// Seconds that a sample should last, so that the clock's resolution and a wake-up do not matter.
    pub(super) sample_seconds: f64,
    /// Footprints at which bandwidth is measured.
    pub(super) footprints: &'static [usize],
    /// Bytes of the transfers that are timed.
    pub(super) transfers: &'static [usize],
}

/// How long pairs of devices are measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct CoRunEffort {
    /// Seconds of all pairs together.
    pub(super) total_seconds: f64,
    /// Rounds of which the median counts.
    pub(super) rounds: usize,
    /// The longest window, in seconds: with few pairs, longer ones tell no more.
    pub(super) longest_window: f64,
}

impl CoRunEffort {
    pub(super) fn of(thoroughness: Thoroughness) -> Self {
        match thoroughness {
            Thoroughness::First | Thoroughness::Quick => Self {
                total_seconds: 0.5,
                rounds: 5,
                longest_window: 0.02,
            },
            Thoroughness::Full => Self {
                total_seconds: 12.0,
                rounds: 15,
                longest_window: 0.1,
            },
        }
    }
}

pub(super) const KI: usize = 1 << 10;

pub(super) const MI: usize = 1 << 20;

/// A few sizes; the largest transfers take several pieces of staging.
pub(super) const TRANSFERS: &[usize] = &[256, 4 * KI, 64 * KI, MI, 8 * MI, 32 * MI];

/// More sizes.
pub(super) const ALL_TRANSFERS: &[usize] = &[
    256,
    4 * KI,
    16 * KI,
    64 * KI,
    256 * KI,
    MI,
    4 * MI,
    8 * MI,
    32 * MI,
    64 * MI,
];

impl Effort {
    pub(super) fn of(kind: DeviceKind, thoroughness: Thoroughness) -> Self {
        match kind {
            DeviceKind::Cpu => Self::of_cpu(thoroughness),
            DeviceKind::Software => Self::of_software(thoroughness),
            DeviceKind::Discrete | DeviceKind::Integrated | DeviceKind::Other => {
                Self::of_hardware(thoroughness)
            }
        }
    }

    /// On the CPU: from inside the first-level cache to far outside the last.
    pub(super) fn of_cpu(thoroughness: Thoroughness) -> Self {
        /// About 100 ms on two cores.
        const FIRST: Effort = Effort {
            samples: 9,
            budget_seconds: 25e-3,
            sample_seconds: 2e-4,
            footprints: &[32 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 128 * MI],
            transfers: &[],
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 31,
                budget_seconds: 60e-3,
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 301,
                budget_seconds: 0.4,
                sample_seconds: 5e-4,
                footprints: &[
                    16 * KI,
                    64 * KI,
                    256 * KI,
                    MI,
                    2 * MI,
                    4 * MI,
                    8 * MI,
                    16 * MI,
                    32 * MI,
                    64 * MI,
                    128 * MI,
                    512 * MI,
                ],
                ..FIRST
            },
        }
    }

    /// On a hardware GPU, which is fast enough for large sizes.
    pub(super) fn of_hardware(thoroughness: Thoroughness) -> Self {
        const FIRST: Effort = Effort {
            samples: 5,
            budget_seconds: 8e-3,
            sample_seconds: 1e-3,
            footprints: &[64 * KI, MI, 16 * MI, 128 * MI],
            transfers: TRANSFERS,
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 25,
                budget_seconds: 25e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI, 256 * MI],
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 201,
                budget_seconds: 0.25,
                sample_seconds: 2e-3,
                footprints: &[
                    64 * KI,
                    256 * KI,
                    MI,
                    4 * MI,
                    16 * MI,
                    64 * MI,
                    256 * MI,
                    1024 * MI,
                ],
                transfers: ALL_TRANSFERS,
            },
        }
    }

    /// On a software adapter, which is slow and seldom chosen.
    pub(super) fn of_software(thoroughness: Thoroughness) -> Self {
        const FIRST: Effort = Effort {
            samples: 3,
            budget_seconds: 4e-3,
            sample_seconds: 1e-3,
            footprints: &[64 * KI, MI, 8 * MI],
            transfers: &[256, 4 * KI, 32 * KI, 256 * KI, MI, 4 * MI],
        };
        match thoroughness {
            Thoroughness::First => FIRST,
            Thoroughness::Quick => Effort {
                samples: 15,
                budget_seconds: 20e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI],
                transfers: TRANSFERS,
                ..FIRST
            },
            Thoroughness::Full => Effort {
                samples: 101,
                budget_seconds: 0.25,
                sample_seconds: 2e-3,
                footprints: &[64 * KI, 256 * KI, MI, 4 * MI, 16 * MI, 64 * MI, 128 * MI],
                transfers: ALL_TRANSFERS,
            },
        }
    }

    /// The same with a smaller budget if more than two devices share the time.
    pub(super) fn shared_by(self, devices: usize) -> Self {
        Self {
            budget_seconds: self.budget_seconds * (2.0 / devices.max(2) as f64),
            ..self
        }
    }

    /// The decile of `times` the usual number of samples.
    pub(super) fn measure(
        &self,
        times: usize,
        mut sample: impl FnMut() -> Result<f64>,
    ) -> Result<f64> {
        let deciles = self.compare(times, || {
            Ok(Pair {
                first: sample()?,
                second: 0.0,
            })
        })?;
        Ok(deciles.first)
    }

    /// The deciles of two quantities that are sampled in turn.
    pub(super) fn compare(
        &self,
        times: usize,
        mut sample: impl FnMut() -> Result<Pair>,
    ) -> Result<Pair> {
        const LEAST_SAMPLES: usize = 3;
        let started = now();
        let (mut firsts, mut seconds) = (Vec::new(), Vec::new());
        for taken in 0..times * self.samples {
            if taken >= LEAST_SAMPLES && seconds_since(started) > self.budget_seconds {
                break;
            }
            let Pair { first, second } = sample()?;
            firsts.push(first);
            seconds.push(second);
        }
        Ok(Pair {
            first: decile(firsts),
            second: decile(seconds),
        })
    }
}
