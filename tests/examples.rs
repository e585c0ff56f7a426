//! The examples, run as processes.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// An example as a process.
fn example(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(support::example(name));
    command
        .args(args)
        .env("DIVVY_PROFILE", "off")
        .env_remove("DIVVY_DEVICES");
    command
}

fn run(name: &str, args: &[&str]) -> Output {
    example(name, args).output().expect("it starts")
}

/// What a run that must succeed prints. Nothing of a progress bar, since no terminal is there.
fn stdout(name: &str, args: &[&str]) -> String {
    let output = run(name, args);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} {args:?}: {errors}");
    assert!(
        !errors.contains("steps") && !errors.contains('\r'),
        "{errors}"
    );
    String::from_utf8(output.stdout).expect("text")
}

/// The rest of the line that begins with `key`.
fn line<'a>(text: &'a str, key: &str) -> &'a str {
    let found = text.lines().find_map(|line| line.strip_prefix(key));
    found
        .unwrap_or_else(|| panic!("no line `{key}` in:\n{text}"))
        .trim()
}

/// Where a simulation ran, and for how many steps there: the placement of a step may differ from that of the one before.
fn ran_on(text: &str) -> Vec<(&str, usize)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("ran on"));
    let read = |line| {
        let (place, steps) = str::rsplit_once(line, ": ").expect("a place and its steps");
        let steps = steps.strip_suffix(" steps").expect("a number of steps");
        (place.trim(), steps.parse().expect("a number"))
    };
    lines.map(read).collect()
}

/// The width and height of a picture, and how many different pixels it has.
fn picture(path: &Path) -> (u32, u32, usize) {
    let file = std::io::BufReader::new(std::fs::File::open(path).expect("the picture"));
    let mut reader = png::Decoder::new(file).read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a moderate size")];
    let info = reader.next_frame(&mut pixels).expect("a frame");
    let mut different: Vec<&[u8]> = pixels[..info.buffer_size()].chunks_exact(3).collect();
    different.sort_unstable();
    different.dedup();
    (info.width, info.height, different.len())
}

fn placements() -> &'static [&'static str] {
    let all = &["cpu", "auto", "gpu", "split:0.5"];
    if support::has_gpu(support::runtime()) {
        all
    } else {
        &all[..2]
    }
}

fn in_temporary(name: &str) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(name);
    (directory, path)
}

#[test]
fn nbody_reports_and_draws_at_every_placement() {
    let (_directory, path) = in_temporary("bodies.png");
    let png = path.to_str().expect("text");
    for placement in placements() {
        for start in ["galaxies", "plummer"] {
            let args = ["--bodies", "700", "--steps", "25", "--start", start];
            let more = ["--placement", placement, "--png", png];
            let text = stdout("nbody", &[&args[..], &more].concat());
            assert_eq!(line(&text, "bodies"), "700, seed 1");
            let drift = line(&text, "energy").rsplit(' ').next().expect("a number");
            let drift: f64 = drift.parse().expect("a number");
            assert!(drift.abs() < 5e-3, "{placement}: {text}");
            let places = ran_on(&text);
            for (place, _) in &places {
                match *placement {
                    "auto" => {}
                    "split:0.5" => {
                        assert!(place.contains("gpu0") && place.contains("cpu"), "{place}")
                    }
                    one => assert!(place.starts_with(one), "{place}"),
                }
            }
            let steps: usize = places.iter().map(|(_, steps)| steps).sum();
            assert!(steps == 25 && text.contains("GFLOP/s"), "{text}");
            let (width, height, different) = picture(&path);
            assert_eq!((width, height), (1200, 900));
            assert!(different > 100, "{different} different pixels");
        }
    }
}

#[test]
fn nbody_depends_on_its_seed_alone() {
    let energy = |seed: &str| {
        let args = [
            "--bodies",
            "100",
            "--steps",
            "3",
            "--placement",
            "cpu",
            "--seed",
            seed,
        ];
        line(&stdout("nbody", &args), "energy").to_owned()
    };
    assert_eq!(energy("5"), energy("5"));
    assert_ne!(energy("5"), energy("6"));
}

#[test]
fn nbody_takes_very_few_bodies_and_no_steps() {
    for bodies in ["1", "2", "3"] {
        let (_directory, path) = in_temporary("few.png");
        let png = path.to_str().expect("text");
        let args = [
            "--bodies",
            bodies,
            "--steps",
            "2",
            "--softening",
            "0",
            "--png",
            png,
        ];
        assert!(!stdout("nbody", &args).contains("NaN"), "{bodies}");
    }
    let text = stdout("nbody", &["--bodies", "10", "--steps", "0"]);
    assert!(line(&text, "energy").ends_with("0.00e0"), "{text}");
}

#[test]
fn heat_keeps_what_its_border_promises_and_draws() {
    let (_directory, path) = in_temporary("plate.png");
    let png = path.to_str().expect("text");
    for placement in placements() {
        let args = [
            "--size",
            "200x150",
            "--steps",
            "50",
            "--placement",
            placement,
            "--png",
            png,
        ];
        let text = stdout("heat", &args);
        let mean = |key| {
            line(&text, key)
                .rsplit(' ')
                .next()
                .expect("a number")
                .parse::<f64>()
        };
        let change = mean("after").expect("a number") - mean("before").expect("a number");
        assert!(change.abs() <= 2e-6, "{placement}: {text}");
        let (width, height, different) = picture(&path);
        assert_eq!((width, height), (150, 200));
        assert!(different > 100, "{different} different pixels");

        let text = stdout("heat", &[&args[..], &["--border", "fixed"]].concat());
        assert!(
            line(&text, "after").starts_with("0.0000 to 1.0000"),
            "{text}"
        );
    }
}

#[test]
fn mistakes_are_explained_without_a_panic() {
    for (name, args, expected) in [
        ("nbody", &["--bodies", "0"][..], "0 is not in 1.."),
        ("nbody", &["--dt", "nan", "--bodies", "9"], "`dt` is NaN"),
        ("nbody", &["--softening=-1"], "`softening` is -1"),
        ("nbody", &["--placement", "moon"], "moon"),
        (
            "nbody",
            &[
                "--bodies",
                "9",
                "--steps",
                "1",
                "--png",
                "no/such/place.png",
            ],
            "no/such/place",
        ),
        ("heat", &["--size", "0x5"], "ROWSxCOLUMNS"),
        ("heat", &["--size", "5y5"], "ROWSxCOLUMNS"),
        ("heat", &["--size", "2147483647"], "from 1 to 32768"),
        ("nbody", &["--bodies", "4000000000"], "not in 1.."),
        ("custom_kernel", &["several"], "ITEMS"),
        ("heat", &["--r", "0.3"], "0 < r <= 0.25"),
        ("heat", &["--placement", "gpu:99"], "gpu99"),
    ] {
        let output = run(name, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{name} {args:?}");
        assert!(
            errors.contains("error: ") && errors.contains(expected),
            "{name} {args:?}: {errors}"
        );
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let (_directory, path) = in_temporary("unread.png");
    let png = path.to_str().expect("text");
    for (name, args) in [
        ("nbody", ["--bodies", "50", "--steps", "1", "--png", png]),
        ("heat", ["--size", "20", "--steps", "1", "--png", png]),
        ("matmul", ["--n", "20", "--repeat", "1", "--seed", "2"]),
    ] {
        let mut command = example(name, &args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !errors.contains("panicked"),
            "{name}: {errors}"
        );
    }
}

#[test]
fn matmul_is_right_on_every_device() {
    let text = stdout("matmul", &["--n", "70", "--repeat", "2"]);
    let rows: Vec<&str> = text.lines().skip(1).collect();
    let devices = 1 + support::runtime().gpus().len();
    assert_eq!(rows.len(), devices + 1, "each device, and auto:\n{text}");
    assert!(
        rows[0].starts_with("cpu") && rows[devices].starts_with("auto"),
        "{text}"
    );
    stdout("matmul", &["--n", "0"]);
    let errors =
        String::from_utf8_lossy(&run("matmul", &["--n", "4000000000"]).stderr).into_owned();
    assert!(
        errors.contains("not in") && !errors.contains("panicked"),
        "{errors}"
    );
}

#[test]
fn a_custom_kernel_gives_the_same_everywhere() {
    for items in ["1", "1000", "100003"] {
        let text = stdout("custom_kernel", &[items]);
        let runs = text
            .lines()
            .filter(|line| line.contains("apart from"))
            .count();
        let expected = if support::has_gpu(support::runtime()) {
            4
        } else {
            1
        };
        assert_eq!(runs, expected, "{text}");
    }
}
