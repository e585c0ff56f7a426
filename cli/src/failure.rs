//! Why a command fails, what it says then, and its exit status.

use divvy::{Error, Runtime};
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// The library refused or could not finish something; the notes say what else may help.
    Library {
        /// What it said.
        error: Error,
        /// Further lines.
        notes: Vec<String>,
    },
    /// A result is wrong.
    Check(String),
    /// Some of several things failed, each of which was reported at the time.
    Some(String),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// An error of the library, with why there is no GPU if that was the matter.
    pub fn with_gpus(error: Error, rt: &Runtime) -> Self {
        let notes = match &error {
            Error::NoSuchDevice { .. } if rt.gpus().len() == 0 => {
                let why = |problem| format!("there is no GPU: {problem}");
                rt.gpu_problems().iter().map(why).collect()
            }
            _ => Vec::new(),
        };
        Self::Library { error, notes }
    }

    /// Tells the user on standard error, and returns the exit status.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(self.status())
    }

    /// 2 if other arguments or settings are needed, else 1.
    fn status(&self) -> u8 {
        match self {
            Self::Library { error, .. } if is_usage(error) => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library { error, notes } => {
                write!(f, "{error}")?;
                notes.iter().try_for_each(|note| write!(f, "\n  {note}"))
            }
            Self::Check(text) | Self::Some(text) => f.write_str(text),
            Self::Output(error) => write!(f, "standard output: {error}"),
        }
    }
}

/// Whether the error lies in what the user asked for, not in carrying it out.
fn is_usage(error: &Error) -> bool {
    matches!(
        error,
        Error::Argument { .. }
            | Error::NoSuchDevice { .. }
            | Error::Placement { .. }
            | Error::TooLarge { .. }
            | Error::Setting { .. }
            | Error::Profile { .. }
            | Error::MachineFile { .. }
    )
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Library {
            error,
            notes: Vec::new(),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_must_change_is_told_from_what_went_wrong() {
        let placement = Error::Placement {
            problem: "is none".into(),
        };
        assert_eq!(Failure::from(placement).status(), 2);
        let memory = Error::HostMemory { bytes: 1 };
        assert_eq!(Failure::from(memory).status(), 1);
        assert_eq!(Failure::Check("wrong".into()).status(), 1);
    }
}
