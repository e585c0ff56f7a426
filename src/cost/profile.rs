//! What was measured of the machine's devices, kept in a JSON file that a person can read.
//!
//! The file is only a memory of measurements: whatever is unknown, stale or corrupt in it is ignored with one warning
//! and measured again. It is replaced as a whole, by renaming, so that processes that use it at the same time
//! never see half of one; a figure that one of them loses is measured again by the next.

use super::machine::{DeviceModel, Engine, Link};
use crate::device::DeviceKind;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The layout of the file and the meaning of its figures. Goes up whenever either changes.
pub const SCHEMA: u32 = 2;
/// What was measured on a busy machine holds for so long, then it is worth another try.
const BUSY_HOLDS: Duration = Duration::from_secs(60);
/// A profile larger than this is none.
const MOST_BYTES: u64 = 16 << 20;

/// What is known of devices, of this machine and of others that share the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    schema: u32,
    /// The version of the crate that measured it, since a kernel of calibration may change with any.
    divvy: String,
    devices: Vec<Entry>,
}

/// What is known of one device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    key: DeviceKey,
    /// Other processes held the cores while it was measured, so it should be measured again when they may have gone.
    busy: bool,
    model: DeviceModel,
}

/// What must be the same for a measurement to hold again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKey {
    /// The CPU.
    Cpu {
        /// The processor's name.
        model: String,
        /// Threads of the pool.
        threads: usize,
    },
    /// A GPU.
    Gpu {
        /// The adapter's name.
        adapter: String,
        /// The driver and its version.
        driver: String,
        /// The API it is reached through.
        backend: String,
    },
}

impl DeviceKey {
    /// Whether a measurement under `newer` takes the place of one under this key: a driver was updated.
    fn is_replaced_by(&self, newer: &Self) -> bool {
        match (self, newer) {
            (
                Self::Gpu {
                    adapter, backend, ..
                },
                Self::Gpu {
                    adapter: newer_adapter,
                    backend: newer_backend,
                    ..
                },
            ) => adapter == newer_adapter && backend == newer_backend,
            _ => self == newer,
        }
    }
}

/// Why a text is not a profile that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileProblem {
    /// It is no JSON, or not of this shape.
    #[error("it is not a profile: {0}")]
    Shape(#[from] serde_json::Error),
    /// It was written by a version that has another layout.
    #[error("it has the schema version {found}, this version of Divvy uses {SCHEMA}")]
    Schema {
        /// The version it has.
        found: u32,
    },
    /// It was measured by another version.
    #[error("it was measured by Divvy {found}, this is {}", env!("CARGO_PKG_VERSION"))]
    Version {
        /// The version that measured it.
        found: String,
    },
    /// A figure cannot be true.
    #[error("{what} of {device} is out of range")]
    Figure {
        /// The device.
        device: String,
        /// Which figure.
        what: &'static str,
    },
}

/// Reads a profile.
///
/// # Errors
/// If the text is no profile of this version, or a figure in it cannot be true: not finite, negative, or so large or
/// small that no machine has it.
pub fn parse(text: &str) -> Result<Profile, ProfileProblem> {
    #[derive(Deserialize)]
    struct Head {
        schema: u32,
        divvy: String,
    }
    // The versions first, since the rest of another version may have any shape.
    let head: Head = serde_json::from_str(text)?;
    if head.schema != SCHEMA {
        return Err(ProfileProblem::Schema { found: head.schema });
    }
    if head.divvy != env!("CARGO_PKG_VERSION") {
        return Err(ProfileProblem::Version { found: head.divvy });
    }
    let profile: Profile = serde_json::from_str(text)?;
    for entry in &profile.devices {
        entry.check().map_err(|what| ProfileProblem::Figure {
            device: entry.model.name.clone(),
            what,
        })?;
    }
    Ok(profile)
}

impl Entry {
    /// Which figure cannot be true, if any.
    fn check(&self) -> Result<(), &'static str> {
        /// Seconds that something fixed may take.
        const SECONDS: RangeInclusive<f64> = 0.0..=1e3;
        /// Operations or bytes per second.
        const RATE: RangeInclusive<f64> = 1.0..=1e18;
        const BYTES: RangeInclusive<f64> = 1.0..=1e18;
        let is = |ok: bool, what| if ok { Ok(()) } else { Err(what) };
        let model = &self.model;
        let on_cpu = matches!(self.key, DeviceKey::Cpu { .. });
        is(on_cpu == (model.kind == DeviceKind::Cpu), "the kind")?;
        is(
            SECONDS.contains(&model.queued_seconds),
            "the queued dispatch",
        )?;
        for link in [&model.upload, &model.download] {
            is(link.is_some() != on_cpu, "the link")?;
            let sound = |link: &Link| {
                let points = link.points();
                points
                    .iter()
                    .all(|[bytes, seconds]| *bytes <= *BYTES.end() && SECONDS.contains(seconds))
            };
            is(link.as_ref().is_none_or(sound), "the link")?;
        }
        let sound = |engine: &Engine| {
            engine.threads > 0
                && SECONDS.contains(&engine.launch_seconds)
                && RATE.contains(&engine.flops_per_second)
                && engine
                    .bandwidth
                    .points()
                    .iter()
                    .all(|[bytes, rate]| BYTES.contains(bytes) && RATE.contains(rate))
        };
        is(model.engines.iter().all(sound), "a speed")?;
        let threads: Vec<usize> = model.engines.iter().map(|engine| engine.threads).collect();
        is(
            match self.key {
                DeviceKey::Cpu { threads: 1, .. } => threads == [1],
                DeviceKey::Cpu { threads: all, .. } => threads == [1, all],
                DeviceKey::Gpu { .. } => threads == [1],
            },
            "the number of threads",
        )
    }
}

impl Default for Profile {
    /// Nothing is known.
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            divvy: env!("CARGO_PKG_VERSION").into(),
            devices: Vec::new(),
        }
    }
}

impl Profile {
    /// What is known of a device.
    pub fn find(&self, key: &DeviceKey) -> Option<&DeviceModel> {
        self.devices
            .iter()
            .find(|entry| entry.key == *key)
            .map(|entry| &entry.model)
    }

    /// Notes what is known of a device, in place of what was known before. `busy` if other processes held the cores
    /// while it was measured.
    pub fn insert(&mut self, key: DeviceKey, busy: bool, model: DeviceModel) {
        self.devices.retain(|entry| !entry.key.is_replaced_by(&key));
        self.devices.push(Entry { key, busy, model });
    }

    /// The text of the file.
    pub fn to_json(&self) -> String {
        let mut text =
            serde_json::to_string_pretty(self).expect("no map in it has keys that JSON cannot");
        text.push('\n');
        text
    }
}

/// Where the profile is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// Nowhere.
    Off,
    /// In the user's data directory.
    DataDir(PathBuf),
    /// In a file that the user named.
    Named(PathBuf),
}

impl Location {
    /// `DIVVY_PROFILE`, which is `off` or a path; otherwise a file in the user's data directory, if there is one.
    pub(crate) fn from_environment() -> Self {
        match std::env::var_os("DIVVY_PROFILE").filter(|value| !value.is_empty()) {
            Some(off) if off == "off" => Self::Off,
            Some(path) => Self::Named(path.into()),
            None => directories::ProjectDirs::from("", "", "divvy").map_or(Self::Off, |dirs| {
                Self::DataDir(dirs.data_dir().join("profile.json"))
            }),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::DataDir(path) | Self::Named(path) => Some(path),
        }
    }

    /// The profile that is kept there; an empty one if there is none that can be used, with a warning if there is
    /// something else. Without what was measured on a busy machine, if that was a while ago.
    ///
    /// # Errors
    /// [`Error::Io`] if the user named a file that is there and cannot be read.
    pub(crate) fn load(&self) -> Result<Profile> {
        let Some(path) = self.path() else {
            return Ok(Profile::default());
        };
        match look(path) {
            Found::Nothing => {}
            Found::Profile(mut profile) => {
                if age(path).is_none_or(|age| age > BUSY_HOLDS) {
                    profile.devices.retain(|entry| !entry.busy);
                }
                return Ok(profile);
            }
            Found::Unusable(problem) => {
                tracing::warn!(path = %path.display(), %problem, "ignoring the profile");
            }
            Found::Unreadable(source) if matches!(self, Self::Named(_)) => {
                return Err(Error::Io {
                    path: path.into(),
                    source,
                });
            }
            Found::Unreadable(error) => {
                tracing::warn!(path = %path.display(), %error, "the profile cannot be read");
            }
        }
        Ok(Profile::default())
    }

    /// Adds measurements to the profile that is kept there now; `busy` if other processes held the cores meanwhile.
    /// That they cannot be kept is worth a warning only.
    pub(crate) fn keep(&self, measured: Vec<(DeviceKey, DeviceModel)>, busy: bool) {
        let Some(path) = self.path().filter(|_| !measured.is_empty()) else {
            return;
        };
        let mut profile = match look(path) {
            Found::Profile(profile) => profile,
            Found::Nothing => Profile::default(),
            Found::Unusable(problem) if self.may_replace(&problem) => Profile::default(),
            Found::Unusable(_) | Found::Unreadable(_) => return,
        };
        for (key, model) in measured {
            profile.insert(key, busy, model);
        }
        if let Err(error) = replace(path, &profile.to_json()) {
            tracing::warn!(path = %path.display(), %error, "the profile cannot be kept");
        }
    }

    /// Whether a file with this problem may be overwritten: not one that a newer version will want back, nor one that
    /// the user named and that may be something else altogether.
    fn may_replace(&self, problem: &ProfileProblem) -> bool {
        match problem {
            ProfileProblem::Schema { found } => *found < SCHEMA,
            ProfileProblem::Version { .. } | ProfileProblem::Figure { .. } => true,
            ProfileProblem::Shape(_) => matches!(self, Self::DataDir(_)),
        }
    }
}

/// What there is at a path.
enum Found {
    Nothing,
    Profile(Profile),
    Unusable(ProfileProblem),
    Unreadable(io::Error),
}

fn look(path: &Path) -> Found {
    match read(path) {
        Ok(text) => parse(&text).map_or_else(Found::Unusable, Found::Profile),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Found::Nothing,
        Err(error) => Found::Unreadable(error),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let refuse = |what| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    // Opening a pipe would wait for a writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return refuse("a profile must be a regular file");
    }
    if metadata.len() > MOST_BYTES {
        return refuse("it is too large for a profile");
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MOST_BYTES)
        .read_to_end(&mut bytes)?;
    // What is not UTF-8 is no profile either, which is for `parse` to say.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long ago a file was written, if that can be told.
fn age(path: &Path) -> Option<Duration> {
    fs::metadata(path).ok()?.modified().ok()?.elapsed().ok()
}

/// Puts a file in the place of another, or of none, in one step.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // A relative path may have an empty parent, which stands for the current directory.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    if let Some(folder) = folder {
        fs::create_dir_all(folder)?;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{count}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create_new(&temporary).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    let result = written.and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Best effort: what matters is reported already.
        let _ = fs::remove_file(&temporary);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::machine::{Curve, Limits};
    use crate::device::DeviceId;
    use proptest::prelude::*;

    fn cpu_key(threads: usize) -> DeviceKey {
        DeviceKey::Cpu {
            model: "a processor".into(),
            threads,
        }
    }

    fn gpu_key(driver: &str) -> DeviceKey {
        DeviceKey::Gpu {
            adapter: "a card".into(),
            driver: driver.into(),
            backend: "vulkan".into(),
        }
    }

    fn engine(threads: usize) -> Engine {
        let points = vec![[65536.0, 1.5e11], [16777216.0, 3e10]];
        Engine {
            threads,
            launch_seconds: 3.25e-6,
            flops_per_second: 1.172e11,
            bandwidth: Curve::new(points).expect("ascending"),
        }
    }

    fn cpu(threads: usize) -> DeviceModel {
        DeviceModel {
            id: DeviceId::Cpu,
            kind: DeviceKind::Cpu,
            name: "a processor".into(),
            engines: if threads > 1 {
                vec![engine(1), engine(threads)]
            } else {
                vec![engine(1)]
            },
            queued_seconds: 0.0,
            upload: None,
            download: None,
            limits: Limits::default(),
        }
    }

    fn gpu() -> DeviceModel {
        let link = Link::new(vec![[0.0, 1e-5], [1.2e10, 1.00001]]);
        DeviceModel {
            id: DeviceId::Gpu(0),
            kind: DeviceKind::Discrete,
            name: "a card".into(),
            engines: vec![engine(1)],
            queued_seconds: 1e-6,
            upload: link.clone(),
            download: link,
            limits: Limits {
                max_binding_bytes: Some(1 << 27),
                ..Limits::default()
            },
        }
    }

    fn profile() -> Profile {
        let mut profile = Profile::default();
        profile.insert(cpu_key(1), false, cpu(1));
        profile.insert(cpu_key(8), false, cpu(8));
        profile.insert(gpu_key("1.0"), false, gpu());
        profile
    }

    #[test]
    fn what_is_written_can_be_read_back() {
        let text = profile().to_json();
        assert_eq!(parse(&text).expect("it was just written"), profile());
    }

    #[test]
    fn only_the_same_device_is_found_and_a_new_driver_replaces_the_old() {
        let mut profile = profile();
        assert!(profile.find(&cpu_key(8)).is_some() && profile.find(&cpu_key(4)).is_none());
        assert!(profile.find(&gpu_key("1.1")).is_none());
        profile.insert(gpu_key("1.1"), false, gpu());
        assert!(profile.find(&gpu_key("1.0")).is_none() && profile.find(&gpu_key("1.1")).is_some());
        assert_eq!(profile.devices.len(), 3);
    }

    #[test]
    fn what_is_not_a_profile_is_refused_with_the_reason() {
        let good = profile().to_json();
        let schema = format!("\"schema\": {SCHEMA}");
        let head = format!("{{{schema}}}");
        let version = format!("\"divvy\": \"{}\"", env!("CARGO_PKG_VERSION"));
        for (from, to, says) in [
            (good.as_str(), "", "not a profile"),
            (&good, "[]", "not a profile"),
            (&good, &head, "missing field `divvy`"),
            (&schema, "\"schema\": 1", "schema version 1"),
            (&schema, "\"schema\": 999", "schema version 999"),
            ("\"busy\"", "\"lazy\"", "missing field `busy`"),
            (&version, "\"divvy\": \"0.0.9\"", "by Divvy 0.0.9"),
            ("12000000000.0", "\"fast\"", "not a profile"),
            ("12000000000.0", "-1.0", "the link of a card"),
            ("12000000000.0", "1e300", "the link of a card"),
            ("3.25e-6", "-0.1", "a speed of a processor"),
            ("3.25e-6", "1e9", "a speed of a processor"),
            ("117200000000.0", "0.0", "a speed of a processor"),
            ("117200000000.0", "1e-300", "a speed of a processor"),
            ("30000000000.0", "-1.0", "a curve needs positive numbers"),
            ("65536.0", "99999999.0", "a curve needs positive numbers"),
            (
                "\"threads\": 8",
                "\"threads\": 9",
                "the number of threads of a processor",
            ),
            ("\"discrete\"", "\"cpu\"", "the kind of a card"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from} is in the file");
            let error = parse(&text).expect_err(to).to_string();
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn a_file_is_kept_read_again_and_added_to() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Named(folder.path().join("new/profile.json"));
        assert_eq!(
            location.load().expect("nothing there yet"),
            Profile::default()
        );
        location.keep(vec![(cpu_key(1), cpu(1)), (cpu_key(8), cpu(8))], false);
        location.keep(vec![(gpu_key("1.0"), gpu())], false);
        assert_eq!(location.load().expect("it was kept"), profile());
        let files = fs::read_dir(folder.path().join("new"))
            .expect("it was made")
            .count();
        assert_eq!(files, 1, "no temporary file is left");
    }

    #[test]
    fn what_was_measured_on_a_busy_machine_holds_for_a_while_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("profile.json");
        let location = Location::DataDir(path.clone());
        location.keep(vec![(cpu_key(1), cpu(1))], false);
        location.keep(vec![(cpu_key(8), cpu(8))], true);
        let known = || location.load().expect("readable").devices.len();
        assert_eq!(known(), 2);
        let file = fs::File::options()
            .write(true)
            .open(&path)
            .expect("writable");
        let past = std::time::SystemTime::now() - 2 * BUSY_HOLDS;
        file.set_modified(past).expect("it is ours");
        assert_eq!(known(), 1);
        location.keep(vec![(cpu_key(8), cpu(8))], false);
        assert_eq!(known(), 2);
    }

    #[test]
    fn a_named_file_that_cannot_be_read_is_an_error_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::Named(folder.path().into());
        let error = location
            .load()
            .expect_err("a folder is no file")
            .to_string();
        assert!(
            error.contains(&*folder.path().to_string_lossy()) && error.contains("regular file"),
            "{error}"
        );
        location.keep(vec![(cpu_key(1), cpu(1))], false);
        assert!(folder.path().is_dir());
        // In the data directory the same is no reason to stop.
        assert!(Location::DataDir(folder.path().into()).load().is_ok());
    }

    #[test]
    fn a_named_file_that_is_something_else_is_ignored_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("letter.txt");
        fs::write(&path, "Dear Ada,").expect("writable");
        let named = Location::Named(path.clone());
        assert_eq!(named.load().expect("only a warning"), Profile::default());
        named.keep(vec![(cpu_key(1), cpu(1))], false);
        assert_eq!(fs::read_to_string(&path).expect("readable"), "Dear Ada,");
        // What is broken in the data directory can only be a profile.
        let own = Location::DataDir(path);
        own.keep(vec![(cpu_key(1), cpu(1))], false);
        assert_eq!(own.load().expect("readable").devices.len(), 1);
    }

    #[test]
    fn a_newer_profile_is_left_to_the_newer_version() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("profile.json");
        let newer = "{\"schema\": 999, \"divvy\": \"9.0.0\", \"moons\": []}";
        fs::write(&path, newer).expect("writable");
        let location = Location::DataDir(path.clone());
        assert_eq!(location.load().expect("only a warning"), Profile::default());
        location.keep(vec![(cpu_key(1), cpu(1))], false);
        assert_eq!(fs::read_to_string(&path).expect("readable"), newer);
    }

    #[test]
    fn concurrent_writers_never_leave_half_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let location = Location::DataDir(folder.path().join("profile.json"));
        std::thread::scope(|scope| {
            for threads in 1..5 {
                let location = &location;
                scope.spawn(move || {
                    for _ in 0..10 {
                        location.keep(vec![(cpu_key(threads), cpu(threads))], false);
                        let Found::Profile(profile) = look(location.path().expect("a file")) else {
                            panic!("half a file")
                        };
                        assert!(!profile.devices.is_empty());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
    }

    /// Whether every number that the planner will see is usable.
    fn is_sound(profile: &Profile) -> bool {
        profile.devices.iter().all(|entry| entry.check().is_ok())
    }

    proptest! {
        #[test]
        fn any_text_is_refused_without_panic(text in ".{0,200}") {
            prop_assert!(parse(&text).is_err());
        }

        #[test]
        fn a_corrupted_profile_is_refused_or_sound(at in 0usize..4000, with in prop::collection::vec(any::<u8>(), 0..4), cut in any::<bool>()) {
            let mut bytes = profile().to_json().into_bytes();
            let at = at % bytes.len();
            let end = if cut { bytes.len() } else { (at + with.len()).min(bytes.len()) };
            bytes.splice(at..end, with);
            if let Ok(profile) = parse(&String::from_utf8_lossy(&bytes)) {
                prop_assert!(is_sound(&profile));
            }
        }

        #[test]
        fn no_figure_enters_unless_it_can_be_true(which in 0usize..64, value in prop_oneof![
            Just("null".to_owned()), Just("NaN".to_owned()), Just("1e999".to_owned()), Just("-0.5".to_owned()),
            Just("0".to_owned()), Just("true".to_owned()), any::<f64>().prop_map(|x| format!("{x:e}")), any::<i64>().prop_map(|x| x.to_string())
        ]) {
            // Puts the value in the place of one number of the file.
            let text = profile().to_json();
            let starts: Vec<usize> = text.match_indices(|c: char| c.is_ascii_digit())
                .map(|(at, _)| at)
                .filter(|at| !text[..*at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-'))
                .collect();
            let start = starts[which % starts.len()];
            let length = text[start..].find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-')).expect("it goes on");
            let text = format!("{}{}{}", &text[..start], value, &text[start + length..]);
            if let Ok(profile) = parse(&text) {
                prop_assert!(is_sound(&profile), "{}", text);
            }
        }
    }
}
