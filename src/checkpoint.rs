//! Checkpoints: the state of a long run in a file, from which another process can resume.
//!
//! A [`Checkpoint`] holds any set of arrays, each under a name, and a small value of any type that serde can write as
//! JSON, such as the step of a simulation and its arguments.
//!
//! ```
//! # fn main() -> divvy::Result<()> {
//! use divvy::prelude::*;
//! # let folder = tempfile::tempdir().expect("a folder");
//! # let path = folder.path().join("run.divvy");
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct State {
//!     step: u32,
//!     seed: u64,
//! }
//!
//! let rt = Runtime::new()?;
//! let x = rt.array_from(&[1.0f32, 2.0, 3.0])?;
//! let mut y = rt.filled(3, 0.0f32)?;
//! rt.run(axpy(2.0, &x, &mut y))?;
//!
//! // The file at `path` is replaced in one step: it is whole even if the process is killed.
//! let state = State { step: 1, seed: 7 };
//! Checkpoint::new(&state).array("x", &x).array("y", &y).save(&path)?;
//!
//! let saved = Checkpoint::open(&path)?;
//! let state: State = saved.value()?;
//! assert_eq!((state.step, state.seed), (1, 7));
//! saved.restore("y", &mut y)?; // into an existing array
//! let x: Array<f32> = saved.array("x")?; // or as a new one
//! assert_eq!((x.to_vec()?, y.to_vec()?), (vec![1.0, 2.0, 3.0], vec![2.0, 4.0, 6.0]));
//! # Ok(())
//! # }
//! ```
//!
//! A resumed run ends with the same bits under two conditions. It must save everything that its further steps depend on.
//! And kernels that do not promise the same bits on every device must be placed as before.
//!
//! # The file
//!
//! | bytes | contents |
//! |---|---|
//! | 8 | the magic number `89 44 49 56 56 59 0d 0a` |
//! | 4 | the version of this layout, 1 |
//! | 4 | the length of the header |
//! | that length | the header in JSON: `{"arrays":[{"name":"x","type":"f32","len":3}],"divvy":"0.1.0","value":{}}` |
//! | 4 for each element | the elements of the arrays, in the order of the header |
//! | 8 | the XXH3 (64 bits, no seed) of everything before it |
//!
//! All numbers are little-endian. The checksum detects damage by a disk or a copy, not forgery. A forged file can hold
//! any values, but reading it neither panics nor takes more memory than the file is long.

mod layout;
mod saved;

pub use saved::{SavedArray, SavedCheckpoint};

use crate::array::{Array, Element, Handle};
use crate::error::{Error, Result};
use crate::files::{io_error, replace};
use layout::{ArrayEntry, Header};
use serde::Serialize;
use serde_json::Value;
use std::io::{BufWriter, Write};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

/// A value and arrays by name, to be saved. See the [module](self).
#[derive(Debug)]
#[must_use = "nothing is saved before `save` is called"]
pub struct Checkpoint<'a> {
    /// As JSON, or why it cannot be written as JSON.
    value: serde_json::Result<Value>,
    arrays: Vec<NamedArray<'a>>,
}

#[derive(Debug)]
struct NamedArray<'a> {
    name: String,
    handle: &'a Handle,
}

impl<'a> Checkpoint<'a> {
    /// A checkpoint of `value`, which must fit into JSON: numbers that are not finite come back as `null`, and keys of
    /// maps must be texts or whole numbers. Large data belongs into arrays.
    pub fn new(value: &impl Serialize) -> Self {
        Self {
            value: serde_json::to_value(value),
            arrays: Vec::new(),
        }
    }

    /// Adds an array under a unique name.
    pub fn array<T: Element>(mut self, name: impl Into<String>, array: &'a Array<T>) -> Self {
        self.arrays.push(NamedArray {
            name: name.into(),
            handle: array.handle(),
        });
        self
    }

    /// Writes the checkpoint to a file, and replaces a file that is there. Writes a temporary file beside it, syncs it to
    /// the disk and then renames it: the path always names a whole checkpoint, the old one or the new one. Waits for the
    /// work that produces the arrays and copies them to the host; the copies on devices stay valid.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written, [`Error::Checkpoint`] if two arrays have the same name or the value
    /// cannot be saved, and errors of devices. The old file is untouched then.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let header = self.header(path)?;
        replace(path, |file| self.write(&header, file, path))
    }

    /// Writes the checkpoint to a stream, which messages call `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::save`].
    pub fn write_to(&self, target: impl Write, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        self.write(&self.header(name)?, target, name)
    }

    /// Opens a checkpoint and checks all of it.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, [`Error::Checkpoint`] if it is not a checkpoint of this version, or is
    /// incomplete or damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<SavedCheckpoint> {
        SavedCheckpoint::open(path.as_ref())
    }

    fn header(&self, path: &Path) -> Result<Vec<u8>> {
        let refuse = |problem: String| Error::Checkpoint {
            path: path.into(),
            problem,
        };
        let value = self.value.as_ref().map_err(|e| {
            refuse(format!(
                "the value cannot be written as JSON: {e}; save another one"
            ))
        })?;
        let entry = |NamedArray { name, handle }: &NamedArray<'_>| ArrayEntry {
            name: name.clone(),
            ty: handle.element_type(),
            len: handle.len() as u64,
        };
        let header = Header {
            arrays: self.arrays.iter().map(entry).collect(),
            divvy: env!("CARGO_PKG_VERSION").into(),
            value: value.clone(),
        };
        header.encode().map_err(refuse)
    }

    fn write(&self, header: &[u8], target: impl Write, path: &Path) -> Result<()> {
        let mut hasher = Xxh3::new();
        let mut target = BufWriter::new(target);
        let mut put = |bytes: &[u8]| {
            hasher.update(bytes);
            target
                .write_all(bytes)
                .map_err(|source| io_error(path, source))
        };
        put(header)?;
        for NamedArray { handle, .. } in &self.arrays {
            let size = handle.element_type().size();
            handle.take_windows(|bytes| {
                if cfg!(target_endian = "little") {
                    put(bytes)
                } else {
                    let mut bytes = bytes.to_vec();
                    layout::swap_if_big_endian(&mut bytes, size);
                    put(&bytes)
                }
            })?;
        }
        let checksum = hasher.digest().to_le_bytes();
        let end = target.write_all(&checksum).and_then(|()| target.flush());
        end.map_err(|source| io_error(path, source))
    }
}

#[cfg(test)]
mod tests;
