//! The simple rules that the planner is compared with. Some know more than it can: which GPU or which threshold is best
//! over all calls.

use super::job::{Job, PartItems, Parts, World};
use super::options::Options;
use super::params::PARAMS;
use super::track::Track;
use crate::device::DeviceId;

/// The record of every rule.
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
    /// The slowness of each device, by call.
    slowness: Vec<Vec<f64>>,
}

impl Rules<'_> {
    /// All items on a device, or on the fastest that can run them if it cannot.
    fn on(&self, job: &Job<'_>, device: Option<usize>) -> Parts {
        let items = job.request.items;
        let able = |device: &usize| job.fits(self.world, *device, items);
        let all = |device| Parts::from_slice(&[PartItems { device, items }]);
        if let Some(device) = device.filter(able) {
            return all(device);
        }
        let fresh = self.world.slowness(0);
        let seconds = |device: &usize| job.seconds(self.world, &all(*device), &fresh);
        let devices = (0..self.world.machine.devices.len()).filter(able);
        let fastest = devices.min_by(|a, b| seconds(a).total_cmp(&seconds(b)));
        match fastest {
            Some(device) => all(device),
            None => super::oracle::best(self.world, job, &fresh).parts,
        }
    }

    /// Even shares for all devices that have a table for the kernel. A call for which that does not fit runs on the fastest
    /// device.
    fn half(&self, job: &Job<'_>) -> Parts {
        let devices: Vec<usize> = (0..self.world.machine.devices.len())
            .filter(|device| job.kernel.tables[*device].is_some())
            .collect();
        let borders = job.borders();
        let share = |at: usize| job.items(borders * at / devices.len());
        let parts: Parts = devices
            .iter()
            .enumerate()
            .map(|(at, device)| PartItems {
                device: *device,
                items: share(at + 1) - share(at),
            })
            .filter(|part| part.items > 0)
            .collect();
        if parts
            .iter()
            .all(|part| job.fits(self.world, part.device, part.items))
        {
            parts
        } else {
            self.on(job, None)
        }
    }

    /// The CPU below some number of bytes, else the GPU, with the number that minimises the total.
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

    /// Runs every device alone and the even split twice, then keeps the fastest.
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
                let trying = call < PARAMS.tries * ways.len();
                let way = if trying {
                    call / PARAMS.tries
                } else {
                    let least =
                        (0..ways.len()).min_by(|a, b| measured[*a].total_cmp(&measured[*b]));
                    least.unwrap_or(0)
                };
                let slowness = &self.slowness[call];
                if trying {
                    let seconds = job.parts(self.world, &ways[way], slowness);
                    let noisy = seconds.zip(&ways[way]).map(|(seconds, part)| {
                        let noise = job.noise(self.world, part.device, call, options.seed);
                        seconds.seconds() * noise
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
