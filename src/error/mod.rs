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
    /// Two arguments of a kernel have lengths that do not match, or one does not match the shape given with it.
    #[error(
        "{kernel}: `{argument}` has {given} elements, but {expected} are needed ({because}); pass an array of that length"
    )]
    Length {
        /// The kernel that was called.
        kernel: String,
        /// The argument with the wrong length.
        argument: String,
        /// The number of elements it must have.
        expected: usize,
        /// The number of elements it has.
        given: usize,
        /// The reason for the expected length.
        because: String,
    },

    /// An argument has a value that the kernel does not accept.
    #[error("{kernel}: {problem}")]
    Argument {
        /// The kernel, or the function, that was called.
        kernel: String,
        /// What is wrong, what was given and what to pass instead.
        problem: String,
    },

    /// A placement names a device that this runtime does not have.
    #[error("there is no device {wanted}: this runtime has {available}; see `divvy devices`")]
    NoSuchDevice {
        /// The device asked for.
        wanted: String,
        /// The devices of the runtime.
        available: String,
    },

    /// A placement does not give valid shares of the work.
    #[error("placement: {problem}")]
    Placement {
        /// What is wrong and what to pass instead.
        problem: String,
    },

    /// No device of this runtime can run the call as placed.
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
        /// The parser's or validator's message, with the source line.
        message: String,
    },

    /// A binding of a user's kernel is missing, unknown, of the wrong type, or used against its role.
    #[error("kernel `{kernel}`, binding `{binding}`: {problem}")]
    Binding {
        /// The kernel that was built or called.
        kernel: String,
        /// The binding's name in the WGSL source.
        binding: String,
        /// What is wrong and what to do.
        problem: String,
    },

    /// A size exceeds the address space, or the range that shaders can index.
    #[error("{what}: {given} is too large; the limit is {limit}")]
    TooLarge {
        /// The quantity that is too large.
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
        /// The number of bytes asked for.
        bytes: usize,
    },

    /// A device has no memory left for an array.
    #[error(
        "{device} cannot provide {bytes} bytes for an array; free arrays or place the call elsewhere"
    )]
    DeviceMemory {
        /// The device.
        device: String,
        /// The number of bytes asked for.
        bytes: u64,
    },

    /// The GPU's driver or wgpu refused an operation.
    #[error("{device}: {message}")]
    Gpu {
        /// The device.
        device: String,
        /// The message of wgpu.
        message: String,
    },

    /// The GPU is lost: it was reset or unplugged, or its driver stopped.
    #[error("{device} was lost: {message}")]
    DeviceLost {
        /// The device.
        device: String,
        /// The driver's message.
        message: String,
    },

    /// Elements that were valid only on a lost GPU could not be computed again. They are undefined until written.
    #[error(
        "{array}: the elements {} were lost with {device} ({reason}); write them again, or let a runtime with \
         `Durability::Recoverable` compute what must not be lost",
        list(ranges)
    )]
    DataLost {
        /// The array: its name, if it has one, its element type and its length.
        array: String,
        /// The lost elements, in ascending order.
        ranges: Vec<std::ops::Range<usize>>,
        /// The GPU that held them.
        device: String,
        /// Why the GPU was lost.
        reason: String,
    },

    /// A part was verified (see [`Policy::verify`](crate::Policy::verify)), and two devices disagree. The outputs hold
    /// unspecified values until written again.
    #[error("{0}")]
    Mismatch(Box<Mismatch>),

    /// The CPU closure of a kernel panicked. The outputs hold unspecified values until written again.
    #[error("{kernel}: its CPU implementation panicked: {message}")]
    Panicked {
        /// The kernel that was called.
        kernel: String,
        /// The panic's message.
        message: String,
    },

    /// An environment variable or a setting has an invalid value.
    #[error("{setting} is {given:?}, expected {expected}")]
    Setting {
        /// The variable or setting.
        setting: String,
        /// Its value.
        given: String,
        /// The valid values.
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

    /// A checkpoint cannot be read as asked, or cannot be saved.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong, what was expected, and what to do.
        problem: String,
    },

    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },

    /// A file is not a profile of this version.
    #[error("{}: {problem}; name another file, or remove this one", path.display())]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
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

/// Ranges as text, separated by commas.
fn list(ranges: &[std::ops::Range<usize>]) -> String {
    let ranges: Vec<String> = ranges.iter().map(|range| format!("{range:?}")).collect();
    ranges.join(", ")
}
