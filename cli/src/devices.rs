//! `divvy devices`: the devices that kernels can run on, and why others cannot be used.

use super::failure::Failure;
use super::output;
use divvy::Runtime;
use divvy::device::{DeviceKind, GpuInfo, GpuMemory};
use divvy::simd::InstructionSet;
use divvy::units::{bytes, count};
use serde::Serialize;
use std::fmt;

/// Lists the devices that kernels can run on, and why others cannot be used.
///
/// Software adapters are graphics drivers that compute on the CPU's cores: useful for tests, not for speed.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy devices
  divvy devices --json | jq '.gpus[].name'
  DIVVY_DEVICES=cpu divvy devices")]
pub struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints the list.
pub fn run(args: &Args) -> Result<(), Failure> {
    let rt = Runtime::new()?;
    let list = Devices::of(&rt);
    if args.json {
        output::finish(output::json(&list)?)
    } else {
        output::finish(list)
    }
}

/// The output: a JSON object with `--json`, else text.
#[derive(Serialize)]
struct Devices {
    cpu: Cpu,
    gpus: Vec<Gpu>,
    /// Why other GPUs cannot be used.
    problems: Vec<String>,
}

#[derive(Serialize)]
struct Cpu {
    device: String,
    name: String,
    threads: usize,
    /// The vector instructions of its loops.
    simd: InstructionSet,
    /// Whether kernels may run on it.
    used: bool,
}

#[derive(Serialize)]
struct Gpu {
    device: String,
    name: String,
    driver: String,
    backend: String,
    kind: DeviceKind,
    /// Whether it computes on the CPU's cores.
    software: bool,
    limits: Limits,
    /// The reason if the GPU is lost.
    lost: Option<String>,
}

#[derive(Serialize)]
struct Limits {
    max_binding_bytes: u64,
    max_buffer_bytes: u64,
    max_groups: u32,
    max_workgroup_bytes: u32,
    memory_bytes: Option<u64>,
    /// The most of it that arrays may use.
    budget_bytes: Option<u64>,
}

impl Devices {
    fn of(rt: &Runtime) -> Self {
        Self {
            cpu: Cpu {
                device: divvy::DeviceId::Cpu.to_string(),
                name: rt.cpu_name().into(),
                threads: rt.threads(),
                simd: rt.instruction_set(),
                used: rt.uses_cpu(),
            },
            gpus: Self::gpus(rt),
            problems: rt.gpu_problems().to_vec(),
        }
    }

    fn gpus(rt: &Runtime) -> Vec<Gpu> {
        let all = rt.gpus().zip(rt.gpu_memory()).enumerate();
        let mut gpus: Vec<Gpu> = all
            .map(|(index, (info, memory))| Gpu::new(index, info, memory))
            .collect();
        for lost in rt.lost_gpus() {
            if let Some(gpu) = gpus.get_mut(lost.index) {
                gpu.lost = Some(lost.reason);
            }
        }
        gpus
    }
}

impl Gpu {
    fn new(index: usize, info: &GpuInfo, memory: GpuMemory) -> Self {
        Self {
            device: divvy::DeviceId::Gpu(index).to_string(),
            name: info.name.clone(),
            driver: info.driver.clone(),
            backend: info.backend.clone(),
            kind: info.kind,
            software: info.kind == DeviceKind::Software,
            limits: Limits {
                max_binding_bytes: info.limits.max_binding_bytes,
                max_buffer_bytes: info.limits.max_buffer_bytes,
                max_groups: info.limits.max_groups,
                max_workgroup_bytes: info.limits.max_workgroup_bytes,
                memory_bytes: info.limits.memory_bytes,
                budget_bytes: memory.budget_bytes,
            },
            lost: None,
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cpu {
            device,
            name,
            threads,
            simd,
            used,
        } = &self.cpu;
        let plural = if *threads == 1 { "" } else { "s" };
        write!(
            f,
            "{device:<6}{name}\n      {threads} thread{plural}, vector code for {simd}"
        )?;
        if !used {
            write!(f, "; not used, since only GPUs are allowed")?;
        }
        for gpu in &self.gpus {
            let limits = &gpu.limits;
            write!(
                f,
                "\n{:<6}{}\n      {}, {}, driver {}\n      storage bindings up to {}, buffers up to {}, {} workgroups to \
                 a side, {} for each to share",
                gpu.device,
                gpu.name,
                kind(gpu.kind),
                gpu.backend,
                gpu.driver,
                bytes(limits.max_binding_bytes),
                bytes(limits.max_buffer_bytes),
                count(limits.max_groups as usize),
                bytes(limits.max_workgroup_bytes.into()),
            )?;
            if let Some(memory) = limits.memory_bytes {
                write!(f, ", {} of memory", bytes(memory))?;
            }
            if let Some(budget) = limits.budget_bytes {
                write!(f, ", at most {} used", bytes(budget))?;
            }
            if let Some(reason) = &gpu.lost {
                write!(f, "\n      lost for now: {reason}")?;
            }
        }
        if self.gpus.is_empty() {
            write!(f, "\nno GPU can be used")?;
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

fn kind(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Cpu => "CPU",
        DeviceKind::Discrete => "GPU with its own memory",
        DeviceKind::Integrated => "GPU that shares the host's memory",
        DeviceKind::Software => "SOFTWARE adapter: computes on the CPU's cores",
        _ => "GPU",
    }
}
