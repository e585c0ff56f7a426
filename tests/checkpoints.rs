//! Long runs that are killed and go on, as processes; and checkpoints of arrays wherever they are.

mod support;

use divvy::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A run of an example that saves its state into `file` as often as it can.
struct Simulation {
    name: &'static str,
    args: Vec<String>,
    folder: tempfile::TempDir,
}

impl Simulation {
    fn new(name: &'static str, args: &[&str], placement: &str) -> Self {
        let mut args: Vec<String> = args.iter().map(ToString::to_string).collect();
        args.extend(["--placement".into(), placement.into()]);
        let folder = tempfile::tempdir().expect("a folder");
        Self { name, args, folder }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn command(&self, file: &str, resume: bool) -> Command {
        let file = self.path(file);
        let mut command = Command::new(support::example(self.name));
        command
            .args(&self.args)
            .args(["--every", "1", "--checkpoint"])
            .arg(&file);
        command.arg("--png").arg(self.path("picture.png"));
        if resume {
            command.arg("--resume").arg(&file);
        }
        command
            .env("DIVVY_PROFILE", "off")
            .env("DIVVY_THREADS", "2");
        command.env_remove("DIVVY_DEVICES");
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// The file that a run leaves which nobody disturbs, and how long that takes.
    fn undisturbed(&self) -> (Vec<u8>, Duration) {
        let started = Instant::now();
        finish(self.command("whole", false).spawn().expect("it starts"));
        (
            std::fs::read(self.path("whole")).expect("a checkpoint"),
            started.elapsed(),
        )
    }

    /// The file that a run leaves which is killed so many times, after random times up to `longest`, and how often it
    /// really was.
    fn killed(&self, kills: usize, longest: Duration, rng: &mut fastrand::Rng) -> (Vec<u8>, usize) {
        let path = self.path("killed");
        let _ = std::fs::remove_file(&path);
        let mut killed = 0;
        for _ in 0..kills {
            let mut child = self
                .command("killed", path.exists())
                .spawn()
                .expect("it starts");
            std::thread::sleep(longest.mul_f64(rng.f64()));
            if child.try_wait().expect("it can be asked").is_none() {
                // SIGKILL on Unix: it cannot be caught.
                child.kill().expect("it is there");
                killed += 1;
            }
            child.wait().expect("it ends");
            if path.exists() {
                Checkpoint::open(&path).expect("it is whole at any moment");
            }
        }
        finish(
            self.command("killed", path.exists())
                .spawn()
                .expect("it starts"),
        );
        (std::fs::read(&path).expect("a checkpoint"), killed)
    }

    /// What lies beside the files that a run is to leave.
    fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path())
            .expect("a folder")
            .flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains(".tmp")).collect()
    }
}

fn finish(child: Child) {
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
}

/// Runs that are killed each end like one that is not. `DIVVY_KILLS` says how often to kill.
#[test]
fn killed_at_any_moment_and_resumed_a_run_ends_with_the_same_bits() {
    let kills = std::env::var("DIVVY_KILLS").map_or(10, |n| n.parse().expect("a number"));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let nbody = ["--bodies", "300", "--steps", "80"];
    let heat = ["--size", "90x120", "--steps", "80"];
    let mut simulations = vec![
        Simulation::new("nbody", &nbody, "cpu"),
        Simulation::new("heat", &heat, "cpu"),
    ];
    if support::has_gpu(support::runtime()) {
        simulations.push(Simulation::new("nbody", &nbody, "split:0.5"));
        simulations.push(Simulation::new(
            "heat",
            &[&heat[..], &["--border", "fixed"]].concat(),
            "gpu",
        ));
    }
    let each = usize::div_ceil(kills, simulations.len());
    let mut all = 0;
    for simulation in &simulations {
        let (expected, takes) = simulation.undisturbed();
        let mut killed = 0;
        while killed < each {
            // Twice in a row at most, so that it is also killed near its end.
            let (file, times) = simulation.killed(2.min(each - killed), takes, &mut rng);
            let (name, args) = (simulation.name, &simulation.args);
            assert!(file == expected, "{name} {args:?}: other bits, seed {seed}");
            assert_eq!(simulation.leftovers(), [""; 0]);
            killed += times;
        }
        all += killed;
    }
    println!("killed and resumed {all} times");
}

#[test]
fn a_run_goes_on_only_as_it_was_begun() {
    let cpu = |args: &[&str]| Simulation::new("nbody", args, "cpu");
    let begun = cpu(&["--bodies", "50", "--steps", "4"]);
    finish(begun.command("whole", false).spawn().expect("it starts"));
    let refusal = |args: &[&str], name: &'static str| {
        let mut other = Simulation::new(name, args, "cpu").command("none", false);
        other.arg("--resume").arg(begun.path("whole"));
        let output = other.output().expect("it starts");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && !errors.contains("panicked"),
            "{errors}"
        );
        errors
    };
    for (args, fragments) in [
        (
            &["--bodies", "51", "--steps", "4"][..],
            ["bodies: 50", "bodies: 51"],
        ),
        (
            &["--bodies", "50", "--steps", "4", "--dt", "0.01"],
            ["dt: 0.02", "dt: 0.01"],
        ),
        (
            &["--bodies", "50", "--steps", "4", "--seed", "9"],
            ["seed: 1", "seed: 9"],
        ),
        (
            &["--bodies", "50", "--steps", "3"],
            ["after 4 steps", "--steps"],
        ),
    ] {
        let errors = refusal(args, "nbody");
        assert!(
            fragments.iter().all(|f| errors.contains(f)),
            "{args:?}: {errors}"
        );
    }
    assert!(refusal(&["--size", "50"], "heat").contains("its value is no"));
    let more = cpu(&["--bodies", "50", "--steps", "9"]);
    std::fs::copy(begun.path("whole"), more.path("more")).expect("writable");
    finish(more.command("more", true).spawn().expect("it starts"));
    assert_eq!(
        more.undisturbed().0,
        std::fs::read(more.path("more")).expect("a checkpoint")
    );

    let text = std::fs::read(begun.path("whole")).expect("a checkpoint");
    std::fs::write(begun.path("whole"), &text[..text.len() / 2]).expect("writable");
    assert!(refusal(&["--bodies", "50", "--steps", "4"], "nbody").contains("cut off"));
}

#[test]
fn arrays_are_saved_from_and_restored_to_wherever_they_are() -> divvy::Result<()> {
    let rt = support::runtime();
    let folder = tempfile::tempdir().expect("a folder");
    let path: &Path = &folder.path().join("arrays");
    // More than is moved at once, and not a multiple of it.
    let n = (1 << 20) + 77;
    let values: Vec<u32> = (0..n).map(|_| fastrand::u32(..)).collect();
    for placement in support::placements(rt) {
        let x = rt.array_from(&values)?;
        let mut y = rt.uninit::<u32>(n)?;
        rt.run(zip(Binary::Add, &x, &x, &mut y).on(placement.clone()))?;
        Checkpoint::new(&())
            .array("x", &x)
            .array("y", &y)
            .save(path)?;
        let expected = y.to_vec()?;
        rt.run(fill(7, &mut y).on(placement.clone()))?;
        let saved = Checkpoint::open(path)?;
        saved.restore("y", &mut y)?;
        assert!(y.to_vec()? == expected, "{placement}");
        let mut sums = rt.uninit::<u32>(n)?;
        let x = saved.array("x")?;
        rt.run(zip(Binary::Add, &x, &y, &mut sums).on(placement.clone()))?;
        let wanted = values.iter().map(|value| value.wrapping_mul(3));
        assert!(sums.read()?.iter().copied().eq(wanted), "{placement}");
    }
    Ok(())
}
