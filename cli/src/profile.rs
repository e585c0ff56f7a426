//! `divvy profile`: the saved figures of the machine and of kernels on it.

use super::failure::Failure;
use super::{figures, output};
use clap::Subcommand;
use divvy::Error;
use divvy::cost::Thoroughness;
use divvy::cost::profile::{
    DeviceEntry, DeviceKey, LearnedEntry, Location, Parsed, Profile, read_from,
};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Shows, clears, exports or imports the profile of this machine: the figures of its devices, and what was learned of
/// kernels.
///
/// The profile is one JSON file, in the user's data directory or at the path in DIVVY_PROFILE. Programs that use Divvy read
/// it when they first need it, and write to it every minute and when they end.
#[derive(clap::Args)]
#[command(after_long_help = "\
Examples:
  divvy profile show
  divvy profile clear --learned
  divvy profile show --json | jq '.profile.learned[].kernel'
  divvy profile export - | ssh other divvy profile import -

With --json, `show` prints one object:
  {\"path\", \"profile\": {\"schema\", \"divvy\", \"devices\", \"corun\", \"learned\"}, \"ignored\"}
`path` is null if no profile is kept, `profile` if there is none yet; `ignored` lists the unusable entries. `learned`
holds, for each kernel and way to run it, the measured `sizes`: `size` is log2 of the sum of operations, bytes and items,
`samples` the number of measurements, `recent` natural logarithms of measured seconds over the roofline's.")]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Prints the figures of devices, and of kernels on them
    Show {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Forgets everything, so that it is measured anew
    Clear {
        /// Only what was learned of kernels: the figures of devices stay
        #[arg(long)]
        learned: bool,
    },
    /// Writes all of it to a file
    Export {
        /// The file, or - for standard output
        file: PathBuf,
    },
    /// Merges another profile: takes newer figures of devices, and more samples of kernels
    Import {
        /// The file, or - for standard input
        file: PathBuf,
    },
}

/// Runs the action.
pub fn run(args: &Args) -> Result<(), Failure> {
    let location = Location::from_environment();
    match &args.action {
        Action::Show { json } => show(&location, *json),
        Action::Clear { learned } => clear(&location, *learned),
        Action::Export { file } => export(&location, file),
        Action::Import { file } => import(&location, file),
    }
}

/// The failure if the profile is off.
fn off() -> Failure {
    let error = Error::Setting {
        setting: "DIVVY_PROFILE".into(),
        given: "off".into(),
        expected: "the path of a file: without one, there is no profile".into(),
    };
    error.into()
}

fn show(location: &Location, json: bool) -> Result<(), Failure> {
    let shown = Shown {
        path: location.path().map(Path::to_owned),
        kept: location.read()?,
    };
    if json {
        let parsed = shown.kept.as_ref();
        output::finish(output::json(&ShownJson {
            path: shown.path.as_deref(),
            profile: parsed.map(|parsed| &parsed.profile),
            ignored: parsed.map_or(&[], |parsed| &parsed.ignored),
        })?)
    } else {
        output::finish(shown)
    }
}

fn clear(location: &Location, learned: bool) -> Result<(), Failure> {
    let Some(path) = location.path() else {
        return output::finish("nothing to clear: DIVVY_PROFILE is off, so no profile is kept");
    };
    let cleared = location.clear(learned)?;
    let mut what = vec![count(
        cleared.learned,
        "entry about kernels",
        "entries about kernels",
    )];
    if !learned {
        what.insert(0, count(cleared.devices, "device", "devices"));
    }
    output::finish(format!(
        "removed {} from {}",
        what.join(" and "),
        path.display()
    ))
}

fn export(location: &Location, file: &Path) -> Result<(), Failure> {
    let Some(path) = location.path() else {
        return Err(off());
    };
    let Some(parsed) = location.read()? else {
        let nothing = format!(
            "{} is not there yet; `divvy calibrate` makes it",
            path.display()
        );
        return Err(Failure::Some(nothing));
    };
    let text = parsed.profile.to_json();
    if file == Path::new("-") {
        return output::finish(text.trim_end());
    }
    fs::write(file, text).map_err(|source| Error::Io {
        path: file.into(),
        source,
    })?;
    Ok(())
}

fn import(location: &Location, file: &Path) -> Result<(), Failure> {
    let Some(path) = location.path() else {
        return Err(off());
    };
    let parsed = if file == Path::new("-") {
        read_from(io::stdin().lock(), Path::new("standard input"))?
    } else {
        let opened = fs::File::open(file).map_err(|source| Error::Io {
            path: file.into(),
            source,
        })?;
        read_from(opened, file)?
    };
    let merged = location
        .update(|profile| profile.merge(parsed.profile))?
        .unwrap_or_default();
    let devices = match merged.devices.as_slice() {
        [] => "no devices".to_owned(),
        labels => format!(
            "{} ({})",
            count(labels.len(), "device", "devices"),
            labels.join(", ")
        ),
    };
    let entries = count(
        merged.learned,
        "entry about kernels",
        "entries about kernels",
    );
    let mut text = format!("took {devices} and {entries} into {}", path.display());
    for reason in parsed.ignored.iter().chain(&merged.ignored) {
        text.push_str(&format!("\n  ignored: {reason}"));
    }
    output::finish(text)
}

fn count(number: usize, one: &str, many: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    }
}

#[derive(Serialize)]
struct ShownJson<'a> {
    /// `null` if no profile is kept.
    path: Option<&'a Path>,
    /// `null` if there is none yet.
    profile: Option<&'a Profile>,
    /// Why entries of the file are unusable.
    ignored: &'a [String],
}

/// A profile as text.
struct Shown {
    path: Option<PathBuf>,
    kept: Option<Parsed>,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(path) = &self.path else {
            return write!(f, "DIVVY_PROFILE is off: no profile is kept");
        };
        let Some(Parsed {
            profile, ignored, ..
        }) = &self.kept
        else {
            return write!(
                f,
                "{} is not there yet; `divvy calibrate` makes it",
                path.display()
            );
        };
        write!(f, "{}", path.display())?;
        for entry in profile.devices() {
            write!(f, "\n\n{}", device(entry))?;
        }
        if !profile.corun().is_empty() {
            writeln!(f)?;
        }
        for pair in profile.corun() {
            let [one, other] = &pair.devices;
            write!(
                f,
                "\n{}",
                figures::corun([one, other], pair.compute, pair.memory)
            )?;
        }
        if profile.learned().is_empty() {
            write!(f, "\n\nnothing was learned of kernels yet")?;
        }
        let mut before: Option<&LearnedEntry> = None;
        for entry in profile.learned() {
            let kernel = |entry: &LearnedEntry| {
                let element_type = entry.element_type.map_or("-", |ty| ty.name());
                format!("{} {element_type}", entry.kernel)
            };
            if before.is_none_or(|before| kernel(before) != kernel(entry)) {
                write!(f, "\n\n{}", kernel(entry))?;
            }
            write!(f, "\n  {}", learned(entry))?;
            before = Some(entry);
        }
        for reason in ignored {
            write!(f, "\nignored: {reason}")?;
        }
        Ok(())
    }
}

/// A device, the conditions of its measurement, and its figures.
fn device(entry: &DeviceEntry) -> String {
    let driver = match &entry.key {
        DeviceKey::Cpu { simd, .. } => format!("\n      loops use {simd}"),
        DeviceKey::Gpu {
            driver, backend, ..
        } => format!("\n      {backend}, driver {driver}"),
        _ => String::new(),
    };
    let busy = if entry.busy {
        ", while other processes used the cores"
    } else {
        ""
    };
    let thoroughness = match entry.thoroughness {
        Thoroughness::Quick => "by `divvy calibrate --quick`",
        Thoroughness::Full => "by `divvy calibrate`",
        _ => "by a program that needed it",
    };
    format!(
        "{}: {}{driver}\n      measured {} {thoroughness}{busy}{}",
        entry.label,
        entry.model.name,
        ago(entry.age()),
        figures::device(&entry.model)
    )
}

/// One variant of a kernel: its sizes and samples, and how its times compare with the prediction.
fn learned(entry: &LearnedEntry) -> String {
    let mut variant = entry.device.clone();
    if entry.threads > 1 {
        variant.push_str(&format!(", {} threads", entry.threads));
    } else if entry.device.starts_with("cpu") {
        variant.push_str(", 1 thread");
    }
    if entry.moved {
        variant.push_str(", data moved");
    }
    if !entry.beside.is_empty() {
        variant.push_str(&format!(", beside {}", entry.beside.join(" and ")));
    }
    let mut factors: Vec<f64> = Vec::new();
    for size in &entry.sizes {
        let mut recent = size.recent.clone();
        recent.sort_by(f64::total_cmp);
        factors.extend(
            recent
                .get(recent.len().saturating_sub(1) / 2)
                .map(|log| log.exp()),
        );
    }
    let least = factors.iter().copied().fold(f64::INFINITY, f64::min);
    let most = factors.iter().copied().fold(0.0, f64::max);
    let work = |size: Option<f64>| format!("2^{:.0}", size.unwrap_or_default());
    let first = entry.sizes.first().map(|size| size.size);
    let last = entry.sizes.last().map(|size| size.size);
    format!(
        "{variant:<44} {}, {} from {} to {} operations and bytes, {least:.2} to {most:.2} times the prediction",
        count(
            usize::try_from(entry.samples()).unwrap_or(usize::MAX),
            "sample",
            "samples"
        ),
        count(entry.sizes.len(), "size", "sizes"),
        work(first),
        work(last),
    )
}

/// An age as text.
fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    let (number, unit) = match seconds {
        0..60 => return "just now".into(),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {unit}{plural} ago")
}
