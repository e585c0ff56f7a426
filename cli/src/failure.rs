//! The failures of a command: their messages and exit statuses.

use divvy::{Error, Runtime};
use std::fmt;
use std::io;
use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug)]
pub enum Failure {
    /// An error of the library, with notes that may help.
    Library {
        /// The error.
        error: Error,
        /// Further lines.
        notes: Vec<String>,
    },
    /// A result is wrong.
    Check(String),
    /// Some of several tasks failed. Each was reported when it failed.
    Some(String),
    /// Standard output cannot be written.
    Output(io::Error),
}

impl Failure {
    /// An error of the library. If a GPU is missing, the notes say why.
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

    /// Prints the failure on standard error, and returns the exit status.
    pub fn report(&self) -> ExitCode {
        eprintln!("error: {self}");
        ExitCode::from(self.status())
    }

    /// 2 if the user must change arguments or settings, else 1.
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

/// Whether the error lies in the request, not in its execution.
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
    fn usage_errors_and_other_failures_have_different_statuses() {
        let placement = Error::Placement {
            problem: "is none".into(),
        };
        assert_eq!(Failure::from(placement).status(), 2);
        let memory = Error::HostMemory { bytes: 1 };
        assert_eq!(Failure::from(memory).status(), 1);
        assert_eq!(Failure::Check("wrong".into()).status(), 1);
    }
}
