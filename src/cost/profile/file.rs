//! Where the profile is, and how it is read and written.
//!
//! The file is replaced as a whole, by renaming, so that no reader ever sees half of one. A process that changes it
//! reads, merges and writes under a lock on a file beside it, so that nothing is lost that another process writes
//! meanwhile. The operating system's lock ends with the process that holds it. A process that does not get the lock in
//! time continues without it.

use super::contents::{Keyed, Profile};
use super::text::{Parsed, parse};
use crate::cost::params::PARAMS;
use crate::error::{Error, ProfileProblem, Result};
use crate::files::{self, io_error};
use std::fs::{self, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The largest profile.
const MOST_BYTES: u64 = PARAMS.profile.most_bytes;

/// Where the profile is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Location {
    /// Nowhere.
    Off,
    /// In the user's data directory.
    DataDir(PathBuf),
    /// In a file that the user named.
    Named(PathBuf),
}

/// What [`Location::clear`] removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Cleared {
    /// The number of devices.
    pub devices: usize,
    /// The number of entries about kernels.
    pub learned: usize,
}

impl Location {
    /// The location that `DIVVY_PROFILE` names: `off` or a path. Without it, a file in the user's data directory, if
    /// there is one.
    pub fn from_environment() -> Self {
        match std::env::var_os("DIVVY_PROFILE").filter(|value| !value.is_empty()) {
            Some(off) if off == "off" => Self::Off,
            Some(path) => Self::Named(path.into()),
            None => directories::ProjectDirs::from("", "", "divvy").map_or(Self::Off, |dirs| {
                Self::DataDir(dirs.data_dir().join("profile.json"))
            }),
        }
    }

    /// The file; `None` if the profile is off.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::DataDir(path) | Self::Named(path) => Some(path),
        }
    }

    /// The profile there; `None` if there is no file.
    ///
    /// # Errors
    /// [`Error::Io`] if the file exists and cannot be read, [`Error::Profile`] if it is no profile of this version.
    pub fn read(&self) -> Result<Option<Parsed>> {
        let Some(path) = self.path() else {
            return Ok(None);
        };
        match look(path) {
            Found::Nothing => Ok(None),
            Found::Profile(parsed) => Ok(Some(parsed)),
            Found::Unusable(problem) => Err(unusable(path, problem)),
            Found::Unreadable(source) => Err(io_error(path, source)),
        }
    }

    /// The profile there; an empty one if there is no usable profile. One warning says what is ignored.
    ///
    /// # Errors
    /// [`Error::Io`] if the user named a file that exists and cannot be read.
    pub(crate) fn load(&self, devices: &[Keyed]) -> Result<Profile> {
        let Some(path) = self.path() else {
            return Ok(Profile::default());
        };
        match look(path) {
            Found::Nothing => {}
            Found::Profile(Parsed {
                profile,
                mut ignored,
            }) => {
                let outdated = profile.outdated(devices);
                let driver = |label: &&str| format!("{label} has another driver now");
                ignored.extend(outdated.iter().map(driver));
                if profile.is_foreign(devices) {
                    ignored.push("it knows none of the devices that are here".into());
                }
                if let Some(first) = ignored.first() {
                    let more = ignored.len() - 1;
                    tracing::warn!(path = %path.display(), "ignoring some of the profile: {first}{}", and_more(more));
                }
                return Ok(profile);
            }
            Found::Unusable(problem) => {
                tracing::warn!(path = %path.display(), %problem, "ignoring the profile");
            }
            Found::Unreadable(source) if matches!(self, Self::Named(_)) => {
                return Err(io_error(path, source));
            }
            Found::Unreadable(error) => {
                tracing::warn!(path = %path.display(), %error, "the profile cannot be read");
            }
        }
        Ok(Profile::default())
    }

    /// Reads the profile there, changes it, and writes it back. What other processes write meanwhile is not lost.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read or written, [`Error::Profile`] if this version must not replace the file: a
    /// newer profile, or a file that the user named and that is not a profile.
    pub fn update<R>(&self, change: impl FnOnce(&mut Profile) -> R) -> Result<Option<R>> {
        let Some(path) = self.path() else {
            return Ok(None);
        };
        let _lock = lock(path);
        let mut profile = match look(path) {
            Found::Profile(parsed) => parsed.profile,
            Found::Nothing => Profile::default(),
            Found::Unusable(problem) if self.may_replace(&problem) => Profile::default(),
            Found::Unusable(problem) => return Err(unusable(path, problem)),
            Found::Unreadable(source) => return Err(io_error(path, source)),
        };
        let changed = change(&mut profile);
        let mut text = profile.to_json();
        while text.len() as u64 > MOST_BYTES && !profile.learned.is_empty() {
            profile.keep_learned(profile.learned.len() / 2);
            text = profile.to_json();
        }
        make_folder(path).map_err(|source| io_error(path, source))?;
        files::replace(path, |file| {
            file.write_all(text.as_bytes())
                .map_err(|source| io_error(path, source))
        })?;
        Ok(Some(changed))
    }

    /// Removes everything, or only the entries about kernels.
    ///
    /// # Errors
    /// As [`Location::update`].
    pub fn clear(&self, learned_only: bool) -> Result<Cleared> {
        let Some(path) = self.path() else {
            return Ok(Cleared::default());
        };
        let mut cleared = match look(path) {
            Found::Nothing => return Ok(Cleared::default()),
            Found::Profile(parsed) => Cleared {
                devices: parsed.profile.devices.len(),
                learned: parsed.profile.learned.len(),
            },
            Found::Unusable(problem) if self.may_replace(&problem) => Cleared::default(),
            Found::Unusable(problem) => return Err(unusable(path, problem)),
            Found::Unreadable(source) => return Err(io_error(path, source)),
        };
        if learned_only {
            cleared.devices = 0;
            self.update(|profile| profile.learned.clear())?;
        } else {
            let _lock = lock(path);
            fs::remove_file(path).map_err(|source| io_error(path, source))?;
        }
        Ok(cleared)
    }

    /// Whether a file with this problem may be overwritten. A newer version's profile may not, nor a file that the user
    /// named and that may not be a profile at all.
    fn may_replace(&self, problem: &ProfileProblem) -> bool {
        match problem {
            ProfileProblem::Schema { found, expected } => found < expected,
            ProfileProblem::Version { .. } => true,
            ProfileProblem::Shape(_) => matches!(self, Self::DataDir(_)),
        }
    }
}

/// Reads a profile from a stream.
///
/// # Errors
/// [`Error::Io`] if it cannot be read or is too large, [`Error::Profile`] if it is no profile of this version.
pub fn read_from(source: impl Read, name: &Path) -> Result<Parsed> {
    let text = read_text(source).map_err(|source| io_error(name, source))?;
    parse(&text).map_err(|problem| unusable(name, problem))
}

/// The end of a message that lists only the first of several things.
fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!(", and {more} more"),
    }
}

fn unusable(path: &Path, problem: ProfileProblem) -> Error {
    Error::Profile {
        path: path.into(),
        problem,
    }
}

/// What is at a path.
enum Found {
    Nothing,
    Profile(Parsed),
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

fn refuse<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

fn read(path: &Path) -> io::Result<String> {
    read_text(files::open_regular(path)?)
}

fn read_text(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    source.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return refuse("it is too large for a profile");
    }
    // Text that is not UTF-8 is no profile: `parse` reports that.
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(files::folder_of(path))
}

/// Keeps other processes and threads from changing the file at `path` until the result is dropped. `None` if the file
/// system cannot lock, or if another process does not release the lock in time. The change is made all the same then; at
/// worst, that of the other process is lost.
fn lock(path: &Path) -> Option<fs::File> {
    make_folder(path).ok()?;
    let file = files::open_lock(&files::beside(path, ".lock")).ok()?;
    let since = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < PARAMS.profile.lock_patience => {
                std::thread::sleep(PARAMS.profile.lock_interval);
            }
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the profile cannot be locked");
                return None;
            }
        }
    }
}
