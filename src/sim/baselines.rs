//! The simple rules that the planner is compared with. Some know more than it can: which GPU or which threshold turns
//! out best over all calls.

use super::job::{Job, Parts, World};
use super::options::Options;
use super::track::Track;
use crate::device::DeviceId;

/// How often each way is tried before one is kept.
const TRIES: usize = 2;

/// What every rule does.
pub(super) fn tracks(world: &World<'_>, jobs: &[Job<'_>], options: &Options) -> Vec<Track> {
    let rules = Rules {
        world,
        jobs,
        calls: options.calls,
        slowness: (0..options.calls)
            .map(|call| world.slowness(call))
            .collect(),
    };
    let devices = 0..world.machine.devices.len();
    let cpu = devices
        .clone()
        .find(|device| world.machine.devices[*device].id == DeviceId::Cpu);
    let always = |device: Option<usize>| -> Vec<Parts> {
        jobs.iter().map(|job| rules.on(job, device)).collect()
    };
    let gpus = devices.filter(|device| Some(*device) != cpu);
    let gpu = gpus.min_by(|a, b| {
        let total = |device: &usize| rules.total(&always(Some(*device)));
        total(a).total_cmp(&total(b))
    });
    vec![
        rules.track("always-cpu", &always(cpu)),
        rules.track("always-gpu", &always(gpu)),
        rules.track("threshold", &rules.threshold(&always(cpu), &always(gpu))),
        rules.track(
            "half",
            &jobs.iter().map(|job| rules.half(job)).collect::<Vec<_>>(),
        ),
        rules.try_and_keep(options),
    ]
}

struct Rules<'a> {
    world: &'a World<'a>,
    jobs: &'a [Job<'a>],
    calls: usize,
    /// For each call, by how much each device is slower.
    slowness: Vec<Vec<f64>>,
}

impl Rules<'_> {
    /// All on a device, or if that cannot run it on the fastest that can.
    fn on(&self, job: &Job<'_>, device: Option<usize>) -> Parts {
        let items = job.request.items;
        let able = |device: &usize| job.fits(self.world, *device, items);
        let all = |device| Parts::from_slice(&[(device, items)]);
        if let Some(device) = device.filter(able) {
            return all(device);
        }
        let fresh = self.world.slowness(0);
        let seconds = |device: &usize| job.seconds(self.world, &all(*device), &fresh);
        let devices = (0..self.world.machine.devices.len()).filter(able);
        let fastest = devices.min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        match fastest {
            Some(device) => all(device),
            None => super::oracle::best(self.world, job, &fresh).1,
        }
    }

    /// Even shares for the CPU and the first GPU, or for all devices if there are more than two; what cannot be shared
    /// so runs on the fastest device.
    fn half(&self, job: &Job<'_>) -> Parts {
        let devices: Vec<usize> = (0..self.world.machine.devices.len())
            .filter(|device| job.kernel.tables[*device].is_some())
            .collect();
        let borders = job.borders();
        let share = |at: usize| job.items(borders * at / devices.len());
        let parts: Parts = devices
            .iter()
            .enumerate()
            .map(|(at, device)| (*device, share(at + 1) - share(at)))
            .filter(|(_, items)| *items > 0)
            .collect();
        if parts
            .iter()
            .all(|(device, items)| job.fits(self.world, *device, *items))
        {
            parts
        } else {
            self.on(job, None)
        }
    }

    /// The CPU below some number of bytes, else the GPU: the number with which the total is least.
    fn threshold(&self, cpu: &[Parts], gpu: &[Parts]) -> Vec<Parts> {
        let mut borders: Vec<f64> = self.jobs.iter().map(|job| job.footprint_bytes).collect();
        borders.push(f64::INFINITY);
        borders.sort_by(f64::total_cmp);
        borders.dedup();
        let choices = borders.iter().map(|border| -> Vec<Parts> {
            let jobs = self.jobs.iter().zip(cpu.iter().zip(gpu));
            jobs.map(|(job, (cpu, gpu))| {
                let below = job.footprint_bytes < *border;
                if below { cpu } else { gpu }.clone()
            })
            .collect()
        });
        choices
            .min_by(|a, b| self.total(a).total_cmp(&self.total(b)))
            .unwrap_or_default()
    }

    /// Every device alone and the even split are tried twice, then what took least is kept.
    fn try_and_keep(&self, options: &Options) -> Track {
        let mut track = Track::new("try-twice", self.jobs.len());
        for (at, job) in self.jobs.iter().enumerate() {
            let mut ways: Vec<Parts> = (0..self.world.machine.devices.len())
                .filter(|device| job.fits(self.world, *device, job.request.items))
                .map(|device| self.on(job, Some(device)))
                .collect();
            ways.push(self.half(job));
            let mut measured = vec![0.0f64; ways.len()];
            for call in 0..self.calls {
                let trying = call < TRIES * ways.len();
                let way = if trying {
                    call / TRIES
                } else {
                    let least =
                        (0..ways.len()).min_by(|a, b| measured[*a].total_cmp(&measured[*b]));
                    least.unwrap_or(0)
                };
                let slowness = &self.slowness[call];
                if trying {
                    let parts = job.parts(self.world, &ways[way], slowness);
                    let noisy = parts.zip(&ways[way]).map(|(part, (device, _))| {
                        part.seconds() * job.noise(self.world, *device, call, options.seed)
                    });
                    measured[way] += noisy.fold(0.0, f64::max);
                }
                let seconds = job.seconds(self.world, &ways[way], slowness);
                track.add(at, seconds, trying);
            }
        }
        track
    }

    fn total(&self, choices: &[Parts]) -> f64 {
        self.track("", choices).seconds.iter().flatten().sum()
    }

    /// Always the same parts for each job.
    fn track(&self, policy: &'static str, choices: &[Parts]) -> Track {
        let mut track = Track::new(policy, self.jobs.len());
        let epochs = self.world.machine.epochs();
        for (at, (job, parts)) in self.jobs.iter().zip(choices).enumerate() {
            let mut seconds = 0.0;
            for (call, slowness) in self.slowness.iter().enumerate() {
                if epochs.contains(&call) {
                    seconds = job.seconds(self.world, parts, slowness);
                }
                track.add(at, seconds, false);
            }
        }
        track
    }
}
