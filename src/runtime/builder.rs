//! The settings of a runtime, from the caller and from the environment, and its opening.

use super::{Defaults, Runtime, check_machine};
use crate::cost::learned::Learner;
use crate::cost::profile::Location;
use crate::cost::{Calibrator, Machine};
use crate::device::cpu::Cpu;
use crate::device::gpu::{Discovery, GpuOptions, LEAST_BUDGET, discover};
use crate::device::{Devices, Placement};
use crate::error::{Error, Result};
use crate::plan::Policy;
use crate::recovery::{Durability, Journal};
use crate::simd::{InstructionSet, Simd};
use crate::units;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The settings of a [`Runtime`].
#[derive(Clone, Debug, Default)]
pub struct RuntimeBuilder {
    threads: Option<usize>,
    simd: Option<InstructionSet>,
    devices: Option<Allowed>,
    adapter: Option<String>,
    profile: Option<Location>,
    machine: Option<Machine>,
    placement: Placement,
    policy: Policy,
    durability: Durability,
    recovery_limit: Option<Duration>,
    gpu: GpuOptions,
}

/// Which devices calls may be placed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Cpu,
    Gpu,
    All,
}

impl RuntimeBuilder {
    /// The CPU's pool has this many threads; otherwise `DIVVY_THREADS`, otherwise one per core.
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = Some(threads);
        self
    }

    /// The CPU's loops use no wider vector instruction set than this; otherwise `DIVVY_SIMD`, otherwise the widest of the
    /// processor. For comparing sets, and for results that do not change with the processor.
    pub fn simd(mut self, set: InstructionSet) -> Self {
        self.simd = Some(set);
        self
    }

    /// No GPUs, whatever `DIVVY_DEVICES` says.
    pub fn cpu_only(mut self) -> Self {
        self.devices = Some(Allowed::Cpu);
        self
    }

    /// Nothing is placed on the CPU, whatever `DIVVY_DEVICES` says.
    pub fn gpu_only(mut self) -> Self {
        self.devices = Some(Allowed::Gpu);
        self
    }

    /// Only the adapters whose name contains `part`, in upper or lower case.
    pub fn adapters_named(mut self, part: impl Into<String>) -> Self {
        self.adapter = Some(part.into().to_lowercase());
        self
    }

    /// Keeps the measured speeds of the machine, and what is learned from runs, in this file. Otherwise `DIVVY_PROFILE`,
    /// otherwise a file in the user's data directory.
    pub fn profile(mut self, path: impl Into<PathBuf>) -> Self {
        self.profile = Some(Location::Named(path.into()));
        self
    }

    /// Reads and keeps no profile.
    pub fn no_profile(mut self) -> Self {
        self.profile = Some(Location::Off);
        self
    }

    /// Uses these speeds of the devices instead of measuring them or reading them from the profile. Nothing is placed on a
    /// device that the machine does not list, and no profile is read or kept.
    pub fn machine(mut self, machine: Machine) -> Self {
        self.machine = Some(machine);
        self
    }

    /// The placement of calls that have none of their own; otherwise [`Placement::Auto`].
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = placement;
        self
    }

    /// The preferences of the planner.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// What happens to results that exist only on a GPU when that GPU is lost; otherwise [`Durability::Recoverable`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The most time that recovery from a lost GPU is predicted to take. Before it would take longer, results that only GPUs
    /// hold are saved on the host in the background. One second by default.
    pub fn recovery_limit(mut self, limit: Duration) -> Self {
        self.recovery_limit = Some(limit);
        self
    }

    /// The time after which a GPU whose work is not done counts as lost, unless the work was predicted to take at least a
    /// hundredth of this time. Two minutes by default.
    pub fn hang_limit(mut self, limit: Duration) -> Self {
        self.gpu.hang_limit = Some(limit);
        self
    }

    /// Compiles built-in shaders with bounds checks, bounded loops and zeroed workgroup memory, like users' shaders.
    /// Slower. For finding out whether a wrong result comes from a shader.
    pub fn checked_shaders(mut self) -> Self {
        self.gpu.checked_shaders = true;
        self
    }

    /// Binds no larger windows of buffers than this on any GPU, although the adapter allows more. For testing how large
    /// arrays are split, without large arrays.
    pub fn max_binding_bytes(mut self, bytes: u64) -> Self {
        self.gpu.max_binding_bytes = Some(bytes);
        self
    }

    /// Uses no larger buffers than this on any GPU, although the adapter allows larger ones. For testing arrays that exceed
    /// a buffer.
    pub fn max_buffer_bytes(mut self, bytes: u64) -> Self {
        self.gpu.max_buffer_bytes = Some(bytes);
        self
    }

    /// Binds no more arrays at once than this on any GPU, although the adapter allows more. For testing.
    pub fn max_arrays(mut self, arrays: u32) -> Self {
        self.gpu.max_arrays = Some(arrays);
        self
    }

    /// Uses no more than this many bytes of each GPU's memory: for arrays, buffers that are kept for reuse, and transfers.
    /// Otherwise `DIVVY_GPU_MEMORY`, otherwise the size that the driver reports, less a reserve. Without any of these, as
    /// much as the driver gives.
    ///
    /// Calls on arrays that need more still run. The arrays that have been unused for longest move to the host, and a call
    /// whose own arrays do not fit processes them piece by piece. Only what each piece reads whole, such as the bodies of
    /// `nbody_accelerations`, must fit.
    pub fn gpu_memory_budget(mut self, bytes: u64) -> Self {
        self.gpu.memory_budget = Some(bytes);
        self
    }

    /// Makes allocations on each GPU fail as with a driver that has this much memory and does not report it. For tests.
    #[doc(hidden)]
    pub fn gpu_driver_memory(mut self, bytes: u64) -> Self {
        self.gpu.driver_bytes = Some(bytes);
        self
    }

    /// Opens the devices.
    ///
    /// Settings that are not made here come from the environment:
    ///
    /// | variable | value |
    /// |---|---|
    /// | `DIVVY_DEVICES` | `cpu`, `gpu` or `all` |
    /// | `DIVVY_THREADS` | a number of threads |
    /// | `DIVVY_SIMD` | the name of an [`InstructionSet`] |
    /// | `DIVVY_GPU_MEMORY` | a number of bytes, as in `4 GiB` |
    /// | `DIVVY_PROFILE` | the path of the profile, or `off` |
    /// | `DIVVY_VERIFY` | the share of parts for [`Policy::verify`] |
    ///
    /// Without a GPU or a Vulkan loader, everything that has a CPU implementation works, and [`Runtime::gpu_problems`] says
    /// why there is no GPU.
    ///
    /// # Errors
    /// [`Error::Setting`] if a value cannot be used, or if only GPUs are allowed and there is none;
    /// [`Error::Placement`] if the default placement cannot be used; [`Error::NoSuchDevice`] and [`Error::Setting`] if
    /// the given machine has other devices.
    pub fn build(mut self) -> Result<Runtime> {
        let threads = match self.threads {
            Some(threads) => Some(threads),
            None => setting(
                "DIVVY_THREADS",
                &format!("a number of threads from 1 to {MAX_THREADS}"),
                |text| {
                    text.parse()
                        .ok()
                        .filter(|threads| ALLOWED_THREADS.contains(threads))
                },
            )?,
        };
        let threads = threads.unwrap_or_else(available_threads);
        if !ALLOWED_THREADS.contains(&threads) {
            return Err(Error::Setting {
                setting: "threads".into(),
                given: threads.to_string(),
                expected: format!("a number from 1 to {MAX_THREADS}"),
            });
        }
        let simd = match self.simd {
            Some(set) => Simd::new(set)?,
            None => Simd::from_environment()?,
        };
        let allowed = match self.devices {
            Some(allowed) => allowed,
            None => setting(
                "DIVVY_DEVICES",
                "`cpu`, `gpu` or `all`",
                |text| match text {
                    "cpu" => Some(Allowed::Cpu),
                    "gpu" => Some(Allowed::Gpu),
                    "all" => Some(Allowed::All),
                    _ => None,
                },
            )?
            .unwrap_or(Allowed::All),
        };
        self.gpu.memory_budget = self.checked_memory_budget()?;
        self.policy.verified_share = self.checked_share()?;
        let Discovery { gpus, problems } = if allowed == Allowed::Cpu {
            Discovery {
                gpus: Vec::new(),
                problems: vec!["only the CPU is allowed here".into()],
            }
        } else {
            let name = self.adapter.unwrap_or_default();
            discover(&self.gpu, |info| info.name.to_lowercase().contains(&name))
        };
        if allowed == Allowed::Gpu && gpus.is_empty() {
            return Err(Error::Setting {
                setting: "DIVVY_DEVICES, or the builder's choice,".into(),
                given: "gpu".into(),
                expected: format!(
                    "`cpu` or `all`, since there is no GPU: {}",
                    problems.join("; ")
                ),
            });
        }
        self.placement.check()?;
        let devices = Devices::new(Cpu::new(threads, simd)?, allowed != Allowed::Gpu, gpus);
        if let Some(machine) = &self.machine {
            check_machine(machine, &devices)?;
        }
        let devices = Arc::new(devices);
        let learner = Arc::new(Learner::new());
        let calibrator = match self.machine {
            Some(machine) => Calibrator::given(Arc::clone(&devices), machine, Arc::clone(&learner)),
            None => {
                let location = self.profile.unwrap_or_else(Location::from_environment);
                Calibrator::new(Arc::clone(&devices), location, Arc::clone(&learner))
            }
        };
        let defaults = Defaults {
            placement: self.placement,
            policy: self.policy,
        };
        let journal = Journal::new(&devices, self.durability, self.recovery_limit);
        Ok(Runtime::of(
            devices, journal, problems, calibrator, learner, defaults,
        ))
    }
}

impl RuntimeBuilder {
    /// The share of parts to verify, from the caller or the environment.
    fn checked_share(&self) -> Result<f64> {
        const EXPECTED: &str = "a share of parts to verify, from 0 to 1";
        let is_share = |share: &f64| (0.0..=1.0).contains(share);
        match self.policy.verified_share {
            0.0 => {
                let read = |text: &str| text.parse().ok().filter(is_share);
                Ok(setting("DIVVY_VERIFY", EXPECTED, read)?.unwrap_or(0.0))
            }
            share if is_share(&share) => Ok(share),
            share => Err(Error::Setting {
                setting: "verify".into(),
                given: share.to_string(),
                expected: EXPECTED.into(),
            }),
        }
    }

    /// The budget of each GPU's memory, from the caller or the environment.
    fn checked_memory_budget(&self) -> Result<Option<u64>> {
        let least = units::bytes(LEAST_BUDGET);
        let expected = format!("a number of bytes of at least {least}, such as `4 GiB`");
        let enough = |bytes: &u64| *bytes >= LEAST_BUDGET;
        match self.gpu.memory_budget {
            Some(bytes) if !enough(&bytes) => Err(Error::Setting {
                setting: "gpu_memory_budget".into(),
                given: format!("{bytes} bytes"),
                expected,
            }),
            Some(bytes) => Ok(Some(bytes)),
            None => setting("DIVVY_GPU_MEMORY", &expected, |text| {
                units::parse_bytes(text).ok().filter(enough)
            }),
        }
    }
}

/// No machine has more cores; a larger number is a mistake.
const MAX_THREADS: usize = 4096;
const ALLOWED_THREADS: std::ops::RangeInclusive<usize> = 1..=MAX_THREADS;

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// An environment variable, if it is set and not empty.
fn setting<T>(
    name: &str,
    expected: &str,
    read: impl FnOnce(&str) -> Option<T>,
) -> Result<Option<T>> {
    let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let given = value.to_string_lossy().into_owned();
    match read(given.trim()) {
        Some(value) => Ok(Some(value)),
        None => Err(Error::Setting {
            setting: name.into(),
            given,
            expected: expected.into(),
        }),
    }
}
