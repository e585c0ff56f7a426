//! What is known of a machine: for each device how fast it computes, how fast bytes reach it, what it can hold.
//!
//! Plain numbers that can be written down, read back and made up: calibration measures them, a profile keeps
//! them, a test invents them, and the planner sees nothing else of a device. No wgpu type comes here.

use crate::device::DeviceId;
use serde::{Deserialize, Serialize};

/// The devices that calls may be placed on. At most one of them is the CPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// In any order; each [`DeviceId`] at most once.
    pub devices: Vec<DeviceModel>,
}

impl Machine {
    /// The model of a device, if the machine has it.
    pub fn device(&self, id: DeviceId) -> Option<&DeviceModel> {
        self.devices.iter().find(|device| device.id == id)
    }
}

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceModel {
    /// Its name within the runtime.
    pub id: DeviceId,
    /// What sort of device it is.
    pub kind: DeviceKind,
    /// Its name for people: the processor's or the adapter's.
    pub name: String,
    /// The ways in which it can run a kernel. A GPU has one; the CPU has one thread and, if there are more, the
    /// whole pool, in this order.
    pub engines: Vec<Engine>,
    /// Seconds that each further dispatch of a call adds to the first. 0 on the CPU.
    pub queued_seconds: f64,
    /// From host memory to the device's, along the real staging path. `None` on the CPU.
    pub upload: Option<Link>,
    /// From the device's memory to the host's. `None` on the CPU.
    pub download: Option<Link>,
    /// What it can hold.
    pub limits: Limits,
}

/// What sort of device it is, which decides whether it may share work with others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// The CPU and its rayon pool.
    Cpu,
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the host's memory.
    Integrated,
    /// A graphics driver that computes on the CPU's cores.
    Software,
    /// A GPU of which the driver does not say what it is.
    Other,
}

/// One way in which a device runs a kernel, and how fast it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engine {
    /// CPU threads that compute; 1 on a GPU.
    pub threads: usize,
    /// Seconds from the call to its completion when there is nothing to compute: for a GPU to submit an empty
    /// dispatch and wait for it, for a pool to enter and leave a parallel region.
    pub launch_seconds: f64,
    /// The most f32 operations per second.
    pub flops_per_second: f64,
    /// Bytes per second through memory, by how many bytes a kernel touches.
    pub bandwidth: Curve,
}

/// A transfer takes `latency_seconds + bytes / bytes_per_second`, on top of the launch of what waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Seconds that a transfer takes however small it is.
    pub latency_seconds: f64,
    /// How fast a long one runs.
    pub bytes_per_second: f64,
}

impl Link {
    /// Seconds to move `bytes`; nothing takes no time.
    pub fn seconds(&self, bytes: f64) -> f64 {
        if bytes > 0.0 {
            self.latency_seconds + bytes / self.bytes_per_second
        } else {
            0.0
        }
    }
}

/// What a device can hold. `None` where it is unknown or unlimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The largest range of an array that one dispatch can see.
    pub max_binding_bytes: Option<u64>,
    /// The largest single allocation.
    pub max_buffer_bytes: Option<u64>,
    /// All of its memory.
    pub memory_bytes: Option<u64>,
}

/// A quantity against a size in bytes, measured at a few sizes: `[bytes, value]`, ascending in bytes.
///
/// Between two sizes it is linear in the logarithm of the size; outside it stays at the nearest measured value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "Vec<[f64; 2]>", try_from = "Vec<[f64; 2]>")]
pub struct Curve {
    points: Vec<[f64; 2]>,
}

impl Curve {
    /// A curve through `points`, which are `[bytes, value]`. `None` unless there is at least one, the sizes are
    /// positive and strictly ascending, and the values are positive and finite.
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

    /// The value at `bytes`.
    pub fn at(&self, bytes: f64) -> f64 {
        let above = self.points.partition_point(|[size, _]| *size <= bytes);
        match (
            above
                .checked_sub(1)
                .and_then(|below| self.points.get(below)),
            self.points.get(above),
        ) {
            (Some(&[x0, y0]), Some(&[x1, y1])) => {
                y0 + (y1 - y0) * ((bytes / x0).ln() / (x1 / x0).ln())
            }
            (Some(&[_, y]), None) | (None, Some(&[_, y])) => y,
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
