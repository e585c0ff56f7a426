//! `divvy calibrate`: measures the machine, and saves its figures.

use super::failure::Failure;
use super::progress::Progress;
use super::{figures, output};
use divvy::cost::{Calibration, Machine, Thoroughness};
use divvy::units::seconds;
use divvy::{DeviceId, Runtime};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Measures how fast each device is and how much any two slow each other down, and saves that in the profile.
///
/// Programs that use Divvy measure what they need at their first call, in a fraction of a second. This command takes
/// longer and measures better; nothing else should run meanwhile. What was learned of a kernel stays, unless the figures
/// of the device changed too much.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy calibrate
  divvy calibrate --quick --json | jq '.machine.corun'
  DIVVY_PROFILE=here.json divvy calibrate --quick

With --json one object is printed:
  {\"thoroughness\", \"seconds\", \"busy\", \"profile\", \"problems\": [{\"device\", \"problem\"}],
   \"machine\": {\"devices\": [{\"id\", \"kind\", \"name\", \"engines\": [{\"threads\", \"launch_seconds\",
       \"flops_per_second\", \"bandwidth\": [[bytes, bytes_per_second]]}], \"queued_seconds\",
       \"upload\": [[bytes, seconds]], \"download\": [[bytes, seconds]], \"limits\"}],
     \"corun\": [{\"devices\", \"compute\": [factor, factor], \"memory\": [factor, factor]}]}}
`busy` says whether other processes used the cores meanwhile. `profile` is the file of the saved figures (null if none).
`corun` says how many times longer each of two devices takes while the other works too. The exit status is 1 if a device
could not be measured.")]
pub struct Args {
    /// Take less than three seconds instead of less than a minute
    #[arg(long)]
    quick: bool,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub fn run(args: &Args) -> Result<(), Failure> {
    let rt = Runtime::new()?;
    let thoroughness = if args.quick {
        Thoroughness::Quick
    } else {
        Thoroughness::Full
    };
    let mut progress: Option<Progress> = None;
    let calibration = rt.calibrate(thoroughness, |step| {
        let bar = progress.get_or_insert_with(|| Progress::new(step.of as u64));
        if step.done > 0 {
            bar.step();
        }
        bar.doing(&*step.doing);
    })?;
    drop(progress);
    let (found, failure) = Measured::of(calibration, thoroughness);
    if args.json {
        output::finish(output::json(&found)?)?;
    } else {
        output::finish(&found)?;
    }
    match failure {
        Some(error) => Err(error.into()),
        None if found.problems.is_empty() => Ok(()),
        None => Err(Failure::Some("some devices could not be measured".into())),
    }
}

/// The output: a JSON object with `--json`, else text.
#[derive(Serialize)]
struct Measured {
    thoroughness: Thoroughness,
    seconds: f64,
    /// Other processes used the cores meanwhile.
    busy: bool,
    /// Where the figures are saved, if they are.
    profile: Option<PathBuf>,
    problems: Vec<Problem>,
    machine: Machine,
}

#[derive(Serialize)]
struct Problem {
    device: DeviceId,
    problem: String,
}

impl Measured {
    /// The figures, and the error if they could not be saved.
    fn of(calibration: Calibration, thoroughness: Thoroughness) -> (Self, Option<divvy::Error>) {
        let (profile, failure) = match calibration.kept {
            Ok(path) => (path, None),
            Err(error) => (None, Some(error)),
        };
        let problems = calibration.problems.into_iter();
        let found = Self {
            thoroughness,
            seconds: calibration.seconds,
            busy: calibration.busy,
            profile,
            problems: problems
                .map(|(device, problem)| Problem { device, problem })
                .collect(),
            machine: (*calibration.machine).clone(),
        };
        (found, failure)
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for model in &self.machine.devices {
            let problem = self
                .problems
                .iter()
                .find(|problem| problem.device == model.id);
            write!(f, "{:<6}{}", model.id.to_string(), model.name)?;
            match problem {
                Some(Problem { problem, .. }) => writeln!(f, "\n      {problem}")?,
                None => writeln!(f, "{}", figures::device(model))?,
            }
        }
        for pair in &self.machine.corun {
            let [one, other] = pair.devices.map(|device| device.to_string());
            writeln!(
                f,
                "{}",
                figures::corun([&one, &other], pair.compute, pair.memory)
            )?;
        }
        if self.busy {
            writeln!(
                f,
                "other processes used the cores meanwhile: these figures may be too low"
            )?;
        }
        write!(f, "measured in {}, ", seconds(self.seconds))?;
        match &self.profile {
            Some(path) => write!(f, "saved in {}", path.display()),
            None => write!(f, "not saved"),
        }
    }
}
