//! The figures of a machine: for each device its speed, its transfer times, and its limits.
//!
//! Plain numbers: calibration measures them, a profile saves them, a test invents them, and the planner sees nothing
//! else of a device. This module uses no wgpu type.

use crate::device::{DeviceId, DeviceKind};
use serde::{Deserialize, Serialize};

/// The devices that calls may be placed on. At most one of them is the CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// In any order; each [`DeviceId`] at most once.
    pub devices: Vec<DeviceModel>,
    /// How much pairs of devices slow each other down. Each pair at most once; a missing pair is unmeasured.
    pub corun: Vec<CoRun>,
}

impl Machine {
    /// The model of a device, if the machine has the device.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceModel> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// How many times longer `device` takes while `other` computes too, if that was measured.
    pub fn corun_slowdown(&self, device: DeviceId, other: DeviceId, bound: Bound) -> Option<f64> {
        self.corun.iter().find_map(|pair| {
            let at = pair.devices.iter().position(|id| *id == device)?;
            let factors = match bound {
                Bound::Compute => pair.compute,
                Bound::Memory => pair.memory,
            };
            (pair.devices[1 - at] == other).then_some(factors[at])
        })
    }
}

/// How many times longer each of two devices takes while the other computes too.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CoRun {
    /// The pair.
    pub devices: [DeviceId; 2],
    /// The slow-down of each when arithmetic limits both, in the order of the pair; 1 if there is none.
    pub compute: [f64; 2],
    /// The slow-down of each when memory limits both, likewise.
    pub memory: [f64; 2],
}

impl CoRun {
    /// Two devices that do not slow each other down.
    pub fn new(devices: [DeviceId; 2]) -> Self {
        Self {
            devices,
            compute: [1.0; 2],
            memory: [1.0; 2],
        }
    }
}

/// What limits the speed of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Memory bandwidth.
    Memory,
}

/// The figures of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeviceModel {
    /// Its name within the runtime.
    pub id: DeviceId,
    /// The kind of device.
    pub kind: DeviceKind,
    /// Its name for people: the processor's or the adapter's.
    pub name: String,
    /// The ways in which it can run a kernel. A GPU has one; the CPU has one thread and, if there are more, the
    /// whole pool, in this order.
    pub engines: Vec<Engine>,
    /// Seconds that each further dispatch of a call adds. 0 on the CPU.
    pub queued_seconds: f64,
    /// From host memory to the device's, along the real staging path. `None` on the CPU.
    pub upload: Option<Link>,
    /// From the device's memory to the host's. `None` on the CPU.
    pub download: Option<Link>,
    /// The limits of its memory and of its dispatches.
    pub limits: Limits,
}

impl DeviceModel {
    /// A device without limits and without transfer times, which can be set in the fields.
    pub fn new(id: DeviceId, kind: DeviceKind, name: String, engines: Vec<Engine>) -> Self {
        Self {
            id,
            kind,
            name,
            engines,
            queued_seconds: 0.0,
            upload: None,
            download: None,
            limits: Limits::default(),
        }
    }

    /// An unmeasured GPU: figures so low that the planner never chooses it.
    pub(crate) fn unmeasured(id: DeviceId, kind: DeviceKind, name: String) -> Self {
        let link = Link::from_rate(1.0, 1e6);
        Self {
            id,
            kind,
            name,
            engines: vec![Engine::guessed(1, 1.0, 1e6, 1e6)],
            queued_seconds: 0.0,
            upload: link.clone(),
            download: link,
            limits: Limits::default(),
        }
    }

    /// An unmeasured CPU: figures that any CPU reaches, so that programs can run meanwhile.
    pub(crate) fn unmeasured_cpu(name: String, threads: usize) -> Self {
        let one = Engine::guessed(1, 0.0, 5e9, 5e9);
        let pool = Engine::guessed(threads, 2e-5, 5e9 * threads as f64, 1e10);
        Self {
            id: DeviceId::Cpu,
            kind: DeviceKind::Cpu,
            name,
            engines: if threads > 1 {
                vec![one, pool]
            } else {
                vec![one]
            },
            queued_seconds: 0.0,
            upload: None,
            download: None,
            limits: Limits::default(),
        }
    }
}

/// One way in which a device runs a kernel, and how fast it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Engine {
    /// CPU threads that compute; 1 on a GPU.
    pub threads: usize,
    /// Seconds from the call to its completion when there is nothing to compute: for a GPU to submit an empty
    /// dispatch and wait for it, for a pool to enter and leave a parallel region.
    pub launch_seconds: f64,
    /// The most f32 operations per second.
    pub flops_per_second: f64,
    /// Bytes per second through memory, by the bytes that a kernel touches.
    pub bandwidth: Curve,
}

impl Engine {
    /// An engine from its threads, seconds to launch, f32 operations per second and bytes per second.
    pub fn new(
        threads: usize,
        launch_seconds: f64,
        flops_per_second: f64,
        bandwidth: Curve,
    ) -> Self {
        Self {
            threads,
            launch_seconds,
            flops_per_second,
            bandwidth,
        }
    }

    /// An unmeasured engine.
    fn guessed(threads: usize, launch_seconds: f64, flops: f64, bytes_per_second: f64) -> Self {
        Self {
            threads,
            launch_seconds,
            flops_per_second: flops,
            bandwidth: Curve {
                points: vec![[1.0, bytes_per_second]],
            },
        }
    }
}

/// How long transfers take: `[bytes, seconds]` at a few sizes, with strictly ascending bytes.
///
/// Between two sizes the time is linear in the bytes. Below the first size it is constant, above the last it continues as
/// between the last two. An upload shares the submission of the call that needs it, so its times are what it adds to that
/// call's launch. A download is waited for, so its times are those of a separate one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<[f64; 2]>", try_from = "Vec<[f64; 2]>")]
pub struct Link {
    points: Vec<[f64; 2]>,
}

/// A transfer's time near some size: `fixed + bytes * per_byte` seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinkLine {
    /// Seconds that do not depend on the bytes. At least 0.
    pub fixed: f64,
    /// Seconds for each byte. At least 0.
    pub per_byte: f64,
}

impl Link {
    /// A link through `points`. `None` unless there is at least one, sizes and seconds are finite and at least 0, and
    /// the sizes strictly ascend.
    pub fn new(points: Vec<[f64; 2]>) -> Option<Self> {
        let usable = !points.is_empty()
            && points.iter().flatten().all(|x| x.is_finite() && *x >= 0.0)
            && points.windows(2).all(|pair| pair[0][0] < pair[1][0]);
        usable.then_some(Self { points })
    }

    /// A link that takes `latency_seconds + bytes / bytes_per_second`. `None` unless both are finite, the first is at
    /// least 0 and the second positive.
    pub fn from_rate(latency_seconds: f64, bytes_per_second: f64) -> Option<Self> {
        const FAR: f64 = 1e9;
        let rate = bytes_per_second > 0.0 && bytes_per_second.is_finite();
        let far = latency_seconds + FAR / bytes_per_second;
        Self::new(vec![[0.0, latency_seconds], [FAR, far]]).filter(|_| rate)
    }

    /// The measured points.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Seconds to move `bytes`; 0 for none.
    pub fn seconds(&self, bytes: f64) -> f64 {
        if bytes > 0.0 {
            let line = self.line(bytes);
            line.fixed + bytes * line.per_byte
        } else {
            0.0
        }
    }

    /// The straight line that a transfer of `bytes` lies on.
    pub fn line(&self, bytes: f64) -> LinkLine {
        let points = &self.points;
        let above = points.partition_point(|[size, _]| *size <= bytes);
        let constant = |seconds: f64| LinkLine {
            fixed: seconds,
            per_byte: 0.0,
        };
        if above == 0 || points.len() == 1 {
            return constant(points[0][1]);
        }
        let [low, high] = [
            points[above.min(points.len() - 1) - 1],
            points[above.min(points.len() - 1)],
        ];
        let per_byte = (high[1] - low[1]) / (high[0] - low[0]);
        let fixed = low[1] - low[0] * per_byte;
        if per_byte >= 0.0 && fixed >= 0.0 {
            LinkLine { fixed, per_byte }
        } else if per_byte < 0.0 {
            // Noise, or a driver that treats larger transfers differently: a split cannot use this slope.
            constant(low[1].max(high[1]))
        } else {
            LinkLine {
                fixed: 0.0,
                per_byte: (low[1] + (bytes - low[0]) * per_byte) / bytes,
            }
        }
    }

    /// Bytes per second of long transfers; infinite if they take no time.
    pub fn bytes_per_second(&self) -> f64 {
        let [bytes, _] = self.points[self.points.len() - 1];
        1.0 / self.line(bytes).per_byte
    }

    /// The least seconds that a transfer takes, however small it is.
    pub fn latency_seconds(&self) -> f64 {
        self.points[0][1]
    }
}

impl From<Link> for Vec<[f64; 2]> {
    fn from(link: Link) -> Self {
        link.points
    }
}

impl TryFrom<Vec<[f64; 2]>> for Link {
    type Error = &'static str;

    fn try_from(points: Vec<[f64; 2]>) -> Result<Self, Self::Error> {
        Self::new(points).ok_or("a link needs numbers of at least 0, and sizes that ascend")
    }
}

/// The limits of a device. `None` where a limit is unknown or absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Limits {
    /// The largest range of an array that one dispatch can see.
    pub max_binding_bytes: Option<u64>,
    /// The largest single allocation.
    pub max_buffer_bytes: Option<u64>,
    /// All of its memory.
    pub memory_bytes: Option<u64>,
    /// The part of the memory that arrays may use at a time, on a device that works through larger calls piece by piece
    /// and moves arrays in and out. A device without this limit runs nothing that exceeds its memory.
    pub budget_bytes: Option<u64>,
    /// The most arrays that one dispatch can see.
    pub max_arrays: Option<u32>,
    /// The largest uniform, in bytes.
    pub max_uniform_bytes: Option<u64>,
}

/// Bandwidth by touched bytes: `[bytes, bytes per second]` at a few sizes, ascending.
///
/// Between two sizes the time of one pass over the bytes is linear, as if all bytes beyond a cache came from the next
/// level. Outside them the bandwidth is that of the nearest size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<[f64; 2]>", try_from = "Vec<[f64; 2]>")]
pub struct Curve {
    points: Vec<[f64; 2]>,
}

impl Curve {
    /// A curve through `points`. `None` unless there is at least one, all numbers are positive and finite, and the
    /// sizes strictly ascend.
    pub fn new(points: Vec<[f64; 2]>) -> Option<Self> {
        let positive = |x: &f64| x.is_finite() && *x > 0.0;
        let usable = !points.is_empty()
            && points.iter().flatten().all(positive)
            && points.windows(2).all(|pair| pair[0][0] < pair[1][0]);
        usable.then_some(Self { points })
    }

    /// The same value everywhere. `None` unless it is positive and finite.
    pub fn constant(value: f64) -> Option<Self> {
        Self::new(vec![[1.0, value]])
    }

    /// The measured points.
    pub fn points(&self) -> &[[f64; 2]] {
        &self.points
    }

    /// Bytes per second for a kernel that touches `bytes`.
    pub fn at(&self, bytes: f64) -> f64 {
        let above = self.points.partition_point(|[size, _]| *size <= bytes);
        match (
            above
                .checked_sub(1)
                .and_then(|below| self.points.get(below)),
            self.points.get(above),
        ) {
            (Some(&[size, rate]), Some(&[next_size, next_rate])) => {
                let (pass, next_pass) = (size / rate, next_size / next_rate);
                let slope = (next_pass - pass) / (next_size - size);
                bytes / (pass + (bytes - size) * slope)
            }
            (Some(&[_, rate]), None) | (None, Some(&[_, rate])) => rate,
            (None, None) => unreachable!("a curve has at least one point"),
        }
    }
}

impl From<Curve> for Vec<[f64; 2]> {
    fn from(curve: Curve) -> Self {
        curve.points
    }
}

impl TryFrom<Vec<[f64; 2]>> for Curve {
    type Error = &'static str;

    fn try_from(points: Vec<[f64; 2]>) -> Result<Self, Self::Error> {
        Self::new(points).ok_or("a curve needs positive numbers, and sizes that ascend")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_curve_holds_its_points_and_bytes_beyond_one_run_at_the_slower_rate() {
        let curve = Curve::new(vec![[100.0, 10.0], [300.0, 6.0]]).expect("ascending");
        // 100 bytes take 10 s, 300 take 50: each byte past 100 takes 0.2.
        for (bytes, rate) in [
            (0.0, 10.0),
            (99.0, 10.0),
            (100.0, 10.0),
            (200.0, 200.0 / 30.0),
            (300.0, 6.0),
            (1e9, 6.0),
        ] {
            assert_eq!(curve.at(bytes), rate, "{bytes} bytes");
        }
    }

    #[test]
    fn a_curve_of_other_numbers_is_refused() {
        for points in [
            vec![],
            vec![[0.0, 1.0]],
            vec![[1.0, 0.0]],
            vec![[1.0, -1.0]],
            vec![[1.0, f64::NAN]],
            vec![[f64::INFINITY, 1.0]],
            vec![[2.0, 1.0], [1.0, 1.0]],
            vec![[1.0, 1.0], [1.0, 2.0]],
        ] {
            assert_eq!(Curve::new(points.clone()), None, "{points:?}");
        }
        assert!(serde_json::from_str::<Curve>("[[2,1],[1,1]]").is_err());
    }

    proptest! {
        #[test]
        fn a_curve_stays_between_its_rates(rates in prop::collection::vec(1e6f64..1e12, 1..5), bytes in 0.0f64..1e9) {
            let points = rates.iter().enumerate().map(|(i, rate)| [4096.0 * 16f64.powi(i as i32), *rate]);
            let curve = Curve::new(points.collect()).expect("ascending");
            let rate = curve.at(bytes);
            let (least, most) = rates.iter().fold((f64::MAX, 0.0f64), |(l, m), r| (l.min(*r), m.max(*r)));
            prop_assert!(rate >= least * (1.0 - 1e-9) && rate <= most * (1.0 + 1e-9), "{} at {}", rate, bytes);
        }
    }
}
