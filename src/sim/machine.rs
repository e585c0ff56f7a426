//! A simulated machine: tables of the seconds of each kernel at a few sizes on each device and of transfers, the factors
//! by which devices slow each other down, the noise, and changes over time.
//!
//! A machine is the truth that a planner is compared with. So it contains none of the cost model's formulas: times between
//! two points of a table are interpolated in log-log for every kernel. It knows no kernel by name, has no clock and
//! decides nothing. [`simulate`](super::simulate()) runs calls on it.
//!
//! # The file
//!
//! ```json
//! {"name": "...", "source": "where the figures come from",
//!  "devices": [{"id": "cpu", "kind": "cpu"},
//!              {"id": "gpu0", "kind": "discrete", "launch_s": 2e-5, "upload": [[4096, 1e-5], [1048576, 6e-5]],
//!               "download": [[4096, 1e-5], [1048576, 6e-5]], "memory_bytes": 8e9, "max_binding_bytes": 2147483648}],
//!  "kernels": {"axpy": {"cpu": [[1024, 1e-7], [1048576, 9e-5]], "gpu0": [[1024, 4e-6], [1048576, 2e-5]]}},
//!  "corun": {"cpu+gpu0": {"compute": [1.02, 1.0], "memory": [1.1, 1.05]}},
//!  "noise": {"sigma": 0.1, "spike_probability": 0.01, "spike_factor": 20},
//!  "changes": [{"after_call": 100, "device": "gpu0", "factor": 3}]}
//! ```
//!
//! - `kind` is `cpu`, `discrete`, `integrated`, `software` or `other`; the CPU is called `cpu` and GPUs `gpu0`, `gpu1`, …
//! - Tables are `[size, seconds]`, sizes strictly ascending. A kernel's sizes are those of `--n` on the command line.
//!   Its seconds are those of the computation alone, without launch and transfers. Below the first and above the last
//!   point of a kernel's table the time continues along the nearest segment, but never falls as the size grows. A table
//!   of one point is constant.
//! - A device without a table for a kernel cannot run that kernel.
//! - A transfer smaller than the first point takes as long as the first point. The time of one larger than the last point
//!   continues along the last segment (with a single point, in proportion).
//! - Defaults: `launch_s` is 0, transfers are free, memory and bindings unlimited, `corun` factors 1, no noise, no changes.
//!   A device may have `"calibration": {"flops_per_second", "bandwidth": [[bytes, bytes_per_second]]}`: the rates that
//!   calibration would measure, in place of the best rates of its tables.
//! - `changes`: from call `after_call` on (counted from 0 for each kernel and size), the device takes `factor` times as
//!   long to launch and to compute as its tables say. A later change of the same device replaces the earlier
//!   one.
//! - Other fields are ignored.

use super::file;
use super::table::Table;
use crate::device::{DeviceId, DeviceKind};
use crate::error::{Error, Result};
use crate::files::open_regular;
use std::io::Read;
use std::path::Path;

/// The largest file that is read.
pub(super) const MOST_BYTES: u64 = 4 << 20;
/// The most devices: the search for the best plan tries every subset.
pub(super) const MOST_DEVICES: usize = 8;

/// A machine of tables.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedMachine {
    /// Its name.
    pub name: String,
    /// Where its figures come from.
    pub source: String,
    /// Its devices; at least one, each [`DeviceId`] once.
    pub devices: Vec<SimulatedDevice>,
    /// Its kernels, by ascending name.
    pub kernels: Vec<SimulatedKernel>,
    /// The factors by which its devices slow each other down; each pair at most once.
    pub corun: Vec<SimulatedPair>,
    /// The noise of its times.
    pub noise: Noise,
    /// Devices that become slower or faster, by ascending call.
    pub changes: Vec<Change>,
}

/// A device of a simulated machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedDevice {
    /// Its name.
    pub id: DeviceId,
    /// Its kind.
    pub kind: DeviceKind,
    /// Seconds that every part takes in addition to its transfers and its computation.
    pub launch_seconds: f64,
    /// Seconds of a transfer to it by bytes; `None` if transfers are free.
    pub upload: Option<Table>,
    /// Seconds of a transfer from it by bytes; `None` if transfers are free.
    pub download: Option<Table>,
    /// The most bytes that a part's arrays may have.
    pub memory_bytes: Option<u64>,
    /// The most bytes of an array that one dispatch can see.
    pub max_binding_bytes: Option<u64>,
    /// The rates that calibration measures, where the file gives them.
    pub calibration: Calibration,
}

/// The rates that calibration measures, where a machine file gives them, in place of those that follow from the tables.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Calibration {
    /// The peak rate.
    pub flops_per_second: Option<f64>,
    /// `[bytes, bytes per second]`.
    pub bandwidth: Option<Vec<[f64; 2]>>,
}

/// A kernel of a simulated machine.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedKernel {
    /// Its name, which need not be that of a kernel in the catalog.
    pub name: String,
    /// Seconds against its size for each device, in the order of the machine's devices; `None` where it cannot run.
    pub tables: Vec<Option<Table>>,
}

/// The factors by which two devices slow each other down while both compute.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedPair {
    /// The pair.
    pub devices: [DeviceId; 2],
    /// The factors of each for kernels that arithmetic limits.
    pub compute: [f64; 2],
    /// The factors of each for kernels that memory limits.
    pub memory: [f64; 2],
}

/// The noise of times: each is multiplied by `exp(sigma * N(0, 1))`, and sometimes by a spike.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Noise {
    /// The standard deviation of the logarithm.
    pub sigma: f64,
    /// The probability of a spike, from 0 to 1.
    pub spike_probability: f64,
    /// The factor of a spike.
    pub spike_factor: f64,
}

/// A device that becomes slower or faster.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The first call of each kernel and size that it affects, from 0.
    pub after_call: usize,
    /// The device.
    pub device: DeviceId,
    /// The factor over the times of the tables from then on.
    pub factor: f64,
}

impl SimulatedMachine {
    /// Reads a machine file.
    ///
    /// # Errors
    /// [`Error::MachineFile`] that names the file, the field, what was expected and what was given.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let refuse = |problem: String| Error::MachineFile {
            file: name.clone(),
            problem,
        };
        let unreadable = |error: std::io::Error| refuse(format!("it cannot be read: {error}"));
        let mut bytes = Vec::new();
        let file = open_regular(path).map_err(unreadable)?;
        file.take(MOST_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(unreadable)?;
        if bytes.len() as u64 > MOST_BYTES {
            let most = MOST_BYTES >> 20;
            return Err(refuse(format!(
                "it is larger than {most} MiB; machine files are tables of a few points"
            )));
        }
        let text =
            String::from_utf8(bytes).map_err(|_| refuse("it is no text in UTF-8".to_owned()))?;
        Self::parse(&name, &text)
    }

    /// Reads a machine from the text of a file called `name`.
    ///
    /// # Errors
    /// As [`SimulatedMachine::load`].
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        file::machine(text).map_err(|problem| Error::MachineFile {
            file: name.to_owned(),
            problem,
        })
    }

    /// The position of a device in [`SimulatedMachine::devices`].
    pub fn position(&self, id: DeviceId) -> Option<usize> {
        self.devices.iter().position(|device| device.id == id)
    }

    /// How many times slower than in its tables the device at this position is at a call.
    pub fn slowness(&self, device: usize, call: usize) -> f64 {
        let id = self.devices[device].id;
        let changes = self.changes.iter().rev();
        let mut past = changes.filter(|change| change.device == id && change.after_call <= call);
        past.next().map_or(1.0, |change| change.factor)
    }

    /// The calls at which the machine changes, ascending; the first is 0.
    pub fn epochs(&self) -> Vec<usize> {
        let mut calls: Vec<usize> = self.changes.iter().map(|c| c.after_call).collect();
        calls.push(0);
        calls.sort_unstable();
        calls.dedup();
        calls
    }
}

impl SimulatedDevice {
    /// Seconds to move this many bytes to the device.
    pub fn upload_seconds(&self, bytes: f64) -> f64 {
        transfer_seconds(self.upload.as_ref(), bytes)
    }

    /// Seconds to move this many bytes from the device.
    pub fn download_seconds(&self, bytes: f64) -> f64 {
        transfer_seconds(self.download.as_ref(), bytes)
    }
}

fn transfer_seconds(table: Option<&Table>, bytes: f64) -> f64 {
    table
        .filter(|_| bytes > 0.0)
        .map_or(0.0, |table| table.transfer(bytes))
}

impl Noise {
    /// No noise.
    pub const NONE: Self = Self {
        sigma: 0.0,
        spike_probability: 0.0,
        spike_factor: 1.0,
    };

    /// The factor of a time; the same for the same state of the generator.
    pub fn factor(&self, rng: &mut fastrand::Rng) -> f64 {
        // Box and Muller; the first number is never 0.
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
        let spike = rng.f64() < self.spike_probability;
        let spike = if spike { self.spike_factor } else { 1.0 };
        (self.sigma * normal).exp() * spike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noise_is_log_normal_with_spikes_and_repeats() {
        let noise = Noise {
            sigma: 0.1,
            spike_probability: 0.01,
            spike_factor: 20.0,
        };
        let mut rng = fastrand::Rng::with_seed(3);
        let mut drawn: Vec<f64> = (0..20_000).map(|_| noise.factor(&mut rng)).collect();
        drawn.sort_by(f64::total_cmp);
        let quantile = |share: f64| drawn[(share * drawn.len() as f64) as usize];
        assert!((quantile(0.5) - 1.0).abs() < 0.01, "{}", quantile(0.5));
        assert!(
            (quantile(0.16).ln() + 0.1).abs() < 0.01,
            "{}",
            quantile(0.16)
        );
        let spikes = drawn.iter().filter(|factor| **factor > 10.0).count();
        assert!((120..280).contains(&spikes), "{spikes}");
        let again = || noise.factor(&mut fastrand::Rng::with_seed(9));
        assert_eq!(again(), again());
        assert_eq!(Noise::NONE.factor(&mut rng), 1.0);
    }
}
