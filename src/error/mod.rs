//! The one error type. Every variant says what was expected, what was given and what to do.

mod mismatch;
mod profile;

pub use mismatch::{Difference, Mismatch};
pub use profile::ProfileProblem;

use std::path::PathBuf;

/// The result of everything in Divvy that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused or could not be finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Two arguments of a kernel do not fit together, or one does not fit the shape given with it.
    #[error(
        "{kernel}: `{argument}` has {given} elements, but {expected} are needed ({because}); pass an array of that length"
    )]
    Length {
        /// The kernel that was called.
        kernel: String,
        /// Which argument is wrong.
        argument: String,
        /// How many elements it must have.
        expected: usize,
        /// How many it has.
        given: usize,
        /// What the expectation follows from.
        because: String,
    },

    /// An argument has a value that the kernel cannot work with.
    #[error("{kernel}: {problem}")]
    Argument {
        /// The kernel, or the function, that was called.
        kernel: String,
        /// What is wrong with it, what was given and what to pass instead.
        problem: String,
    },

    /// A placement names a device that this runtime does not have.
    #[error("there is no device {wanted}: this runtime has {available}; see `divvy devices`")]
    NoSuchDevice {
        /// The device asked for.
        wanted: String,
        /// The devices there are.
        available: String,
    },

    /// A placement cannot be read as shares of the work.
    #[error("placement: {problem}")]
    Placement {
        /// What is wrong with it and what to pass instead.
        problem: String,
    },

    /// No device of this runtime can run the kernel as asked.
    #[error("{kernel} can run on no device allowed here: {reasons}")]
    Infeasible {
        /// The kernel that was called.
        kernel: String,
        /// One reason per device.
        reasons: String,
    },

    /// A WGSL source does not parse or validate. The message shows the source line.
    #[error("kernel `{kernel}`: the WGSL source is not valid\n{message}")]
    Wgsl {
        /// The kernel that was built.
        kernel: String,
        /// The parser's or validator's message, with the line it points at.
        message: String,
    },

    /// A binding of a user's kernel is missing, unknown, of the wrong type, or used against its role.
    #[error("kernel `{kernel}`, binding `{binding}`: {problem}")]
    Binding {
        /// The kernel that was built or called.
        kernel: String,
        /// The binding's name in the WGSL source.
        binding: String,
        /// What is wrong with it and what to do.
        problem: String,
    },

    /// A size does not fit into memory addresses, or into what the shaders can index.
    #[error("{what}: {given} is too large; the limit is {limit}")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The size asked for.
        given: String,
        /// The largest size possible.
        limit: String,
    },

    /// The host has no memory left for an array.
    #[error(
        "the host cannot provide {bytes} bytes for an array; free memory or use smaller arrays"
    )]
    HostMemory {
        /// How many bytes were asked for.
        bytes: usize,
    },

    /// A device has no memory left for an array.
    #[error(
        "{device} cannot provide {bytes} bytes for an array; free arrays or place the call elsewhere"
    )]
    DeviceMemory {
        /// The device.
        device: String,
        /// How many bytes were asked for.
        bytes: u64,
    },

    /// The GPU's driver or wgpu refused an operation.
    #[error("{device}: {message}")]
    Gpu {
        /// The device.
        device: String,
        /// What wgpu said.
        message: String,
    },

    /// The GPU is gone: reset, unplugged, or its driver stopped.
    #[error("{device} was lost: {message}")]
    DeviceLost {
        /// The device.
        device: String,
        /// What the driver said.
        message: String,
    },

    /// Elements that only a lost GPU held could not be computed again. They are undefined until they are written.
    #[error(
        "{array}: the elements {} were lost with {device} ({reason}); write them again, or let a runtime with \
         `Durability::Recoverable` compute what must not be lost",
        list(ranges)
    )]
    DataLost {
        /// The array: its name, if it has one, its element type and its length.
        array: String,
        /// The elements that are lost, in ascending order.
        ranges: Vec<std::ops::Range<usize>>,
        /// The GPU that held them.
        device: String,
        /// Why it was lost.
        reason: String,
    },

    /// A part was verified (see [`Policy::verify`](crate::Policy::verify)), and two devices disagree. Its outputs hold
    /// unspecified values until written again.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),

    /// The CPU closure of a kernel panicked. Its outputs hold unspecified values until written again.
    #[error("{kernel}: its CPU implementation panicked: {message}")]
    Panicked {
        /// The kernel that was called.
        kernel: String,
        /// The panic's message.
        message: String,
    },

    /// An environment variable or a setting has a value that cannot be used.
    #[error("{setting} is {given:?}, expected {expected}")]
    Setting {
        /// The variable or setting.
        setting: String,
        /// Its value.
        given: String,
        /// The values that can be used.
        expected: String,
    },

    /// The file of a simulated machine cannot be used.
    #[error("{file}: {problem}")]
    MachineFile {
        /// The file.
        file: String,
        /// The field, what was expected there and what was given.
        problem: String,
    },

    /// A checkpoint cannot be used as it was asked for, or what was to be saved cannot be.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, what was expected, and what to do.
        problem: String,
    },

    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },

    /// A file is no profile that this version can use.
    #[error("{}: {problem}; name another file, or remove this one", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        problem: ProfileProblem,
    },
}

impl Error {
    /// An [`Error::Argument`].
    pub(crate) fn argument(kernel: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Argument {
            kernel: kernel.into(),
            problem: problem.into(),
        }
    }

    /// An [`Error::Length`] unless `given == expected`.
    pub(crate) fn check_length(
        kernel: &str,
        argument: &str,
        given: usize,
        expected: usize,
        because: impl FnOnce() -> String,
    ) -> Result<()> {
        if given == expected {
            return Ok(());
        }
        Err(Self::Length {
            kernel: kernel.into(),
            argument: argument.into(),
            expected,
            given,
            because: because(),
        })
    }
}

/// Ranges for people.
fn list(ranges: &[std::ops::Range<usize>]) -> String {
    let ranges: Vec<String> = ranges.iter().map(|range| format!("{range:?}")).collect();
    ranges.join(", ")
}
