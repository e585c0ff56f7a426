//! Runs the planner on a simulated machine, call after call, and compares its plans with the best ones.
//!
//! The planner, the policy and the learner run as in a runtime and see only what they would see there: the figures of a
//! calibration, and the noisy time of each part that ran. The scores use the true times: for every call the noise-free
//! time of the chosen plan, `T`, and of the best plan, `O`, with the machine in its state at that call. So the regret
//! `Σ(T − O) / ΣO` is a pseudo-regret: it excludes what the noise adds.
//!
//! - **A part** of a kernel on a device takes the sum of its launch, the upload of the input bytes that are missing there,
//!   the seconds of the kernel's table at the size whose whole work equals the part's (for kernels over items, the number
//!   of items), and the download of what it wrote if the host wants it. Values that a call returns are always downloaded.
//! - **Devices of a split** run at the same time. The computation of each takes longer by the product of its co-run factors
//!   with all others: the factors for arithmetic if the kernel has more operations per byte than the CPU can compute in
//!   the time that it moves a byte, else those for memory. The call takes as long as the longest part.
//! - **The best plan** is the fastest of each device alone and of the splits over each subset of the devices without software
//!   adapters, with borders where the planner may put them and the shares that minimise the longest part.
//! - **Noise** depends on the seed, the kernel, the size, the residency, the call and the device, not on earlier choices, so
//!   that all policies meet the same noise.
//! - **Calls** come in rounds: the first call of every kernel, size and residency, then the second of each, and so on,
//!   with one learner, so that time passes equally for all.

use super::job::{PartItems, Parts, World};
use super::machine::SimulatedMachine;
use super::options::{LaunchSpecs, Options};
use super::score::{Outcome, outcome};
use super::track::Track;
use super::{baselines, oracle};
use crate::cost::learned::Learner;
use crate::device::Placement;
use crate::error::Result;
use crate::plan::{Measured, PlannerInput, learn, plan};

/// Simulates calls on a machine under the planner and under simple rules. Calls `round` after each round of calls.
///
/// Skips kernels of the machine that `specs` does not know, with a warning. The first row of the outcome is the
/// planner's, `auto`.
///
/// # Errors
/// [`Error::MachineFile`](crate::Error::MachineFile) if no kernel is left, [`Error::TooLarge`](crate::Error::TooLarge) for
/// sizes that no array can have, and the errors of [`plan`](crate::plan::plan).
///
/// ```
/// # fn main() -> divvy::Result<()> {
/// use divvy::sim::{Options, SimulatedMachine, simulate};
/// use divvy::catalog;
///
/// let machine = SimulatedMachine::parse("small.json", r#"{
///     "name": "small",
///     "devices": [{"id": "cpu", "kind": "cpu"}, {"id": "gpu0", "kind": "discrete", "launch_s": 2e-5}],
///     "kernels": {"axpy": {"cpu": [[1024, 1e-7], [1048576, 1e-4]], "gpu0": [[1024, 1e-6], [1048576, 5e-6]]}}
/// }"#)?;
/// let mut options = Options::default();
/// options.calls = 40;
/// let outcome = simulate(&machine, &catalog::spec, &options, || ())?;
/// let [auto, always_cpu, ..] = &outcome.rows[..] else { panic!("there are always these") };
/// assert_eq!((auto.policy, always_cpu.policy), ("auto", "always-cpu"));
/// assert!(auto.score.warm.regret() < always_cpu.score.warm.regret());
/// # Ok(())
/// # }
/// ```
pub fn simulate(
    machine: &SimulatedMachine,
    specs: LaunchSpecs<'_>,
    options: &Options,
    mut round: impl FnMut(),
) -> Result<Outcome> {
    let world = World::new(machine, specs)?;
    let jobs = world.jobs(specs, options)?;
    let epochs = machine.epochs();
    let mut truth = oracle::Best::new(&world, &jobs, &epochs);
    let mut auto = Track::new("auto", jobs.len());
    let learner = Learner::new();
    for call in 0..options.calls {
        let slowness = world.slowness(call);
        for (at, job) in jobs.iter().enumerate() {
            let input = PlannerInput {
                perf_model: learner.perf_model(&job.request.kernel),
                exploration_budget: learner.exploration_budget(),
                ..PlannerInput::default()
            };
            let plan = plan(
                &job.request,
                world.planner(job),
                &input,
                &Placement::Auto,
                &options.policy,
            )?;
            let parts: Parts = plan
                .parts
                .iter()
                .map(|part| PartItems {
                    device: world.position(part.device),
                    items: part.range.len(),
                })
                .collect();
            let mut measured = Measured::default();
            let all_seconds = job.parts(&world, &parts, &slowness);
            for (part, seconds) in parts.iter().zip(all_seconds) {
                let factor = job.noise(&world, part.device, call, options.seed);
                measured.part_seconds.push(Some(factor * seconds.run));
                measured.seconds = measured.seconds.max(factor * seconds.seconds());
            }
            learn(&learner, &job.request.kernel, &plan, &measured);
            let seconds = job.seconds(&world, &parts, &slowness);
            auto.add(at, seconds, plan.exploring);
            auto.chose(at, parts);
        }
        round();
    }
    let mut tracks = vec![auto];
    tracks.extend(baselines::tracks(&world, &jobs, options));
    truth.include(&tracks);
    Ok(outcome(&world, &jobs, &truth, &tracks, options))
}
