//! Reading checkpoints.

use super::layout::{ArrayEntry, CHECKSUM_BYTES, Layout, ReadProblem, damaged, swap_if_big_endian};
use crate::array::{Array, Element, ElementType, Handle};
use crate::error::{Error, Result};
use crate::files::{io_error, open_regular};
use serde::de::DeserializeOwned;
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use xxhash_rust::xxh3::Xxh3;

/// What a checkpoint is read from.
trait Source: Read + Seek + Send {}

impl<S: Read + Seek + Send> Source for S {}

/// A checkpoint that was opened: all of it is there and as it was written.
///
/// The elements stay in the file until they are asked for. What happens to the path meanwhile does not matter.
pub struct SavedCheckpoint {
    path: PathBuf,
    layout: Layout,
    source: Mutex<Box<dyn Source>>,
}

/// An array in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SavedArray<'a> {
    /// Its name.
    pub name: &'a str,
    /// The type of its elements.
    pub element_type: ElementType,
    /// How many elements it has.
    pub len: usize,
}

impl SavedCheckpoint {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path).map_err(|source| io_error(path, source))?;
        Self::read_from(file, path)
    }

    /// Opens a checkpoint in a stream from its current position to its end; in messages it has the name `name`.
    ///
    /// # Errors
    /// As [`Checkpoint::open`](super::Checkpoint::open).
    pub fn read_from(
        mut source: impl Read + Seek + Send + 'static,
        name: impl AsRef<Path>,
    ) -> Result<Self> {
        let path = name.as_ref().to_path_buf();
        match check(&mut source) {
            Ok(layout) => Ok(Self {
                path,
                layout,
                source: Mutex::new(Box::new(source)),
            }),
            Err(ReadProblem::Io(source)) => Err(io_error(&path, source)),
            Err(ReadProblem::Content(problem)) => Err(Error::Checkpoint { path, problem }),
        }
    }

    /// The arrays, in the order in which they were added.
    pub fn arrays(&self) -> impl ExactSizeIterator<Item = SavedArray<'_>> {
        self.entries().iter().map(|entry| SavedArray {
            name: &entry.name,
            element_type: entry.ty,
            len: entry.len as usize,
        })
    }

    /// The value.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it is no `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.layout.header.value).map_err(|e| {
            let kind = std::any::type_name::<T>();
            self.refuse(format!(
                "its value is no {kind}: {e}; read it as the type that was saved"
            ))
        })
    }

    /// A new array with the elements of the one called `name`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is none, or its elements are no `T`; [`Error::Io`] if it cannot be read;
    /// [`Error::HostMemory`].
    pub fn array<T: Element>(&self, name: &str) -> Result<Array<T>> {
        let (entry, start) = self.find::<T>(name)?;
        // The file is as long as that, or it would not have been opened.
        let array = Array::uninit(entry.len as usize)?;
        self.fill(array.handle(), start)?;
        Ok(array)
    }

    /// Overwrites an array with the elements of the one called `name`.
    ///
    /// # Errors
    /// As [`SavedCheckpoint::array`], and [`Error::Checkpoint`] if the lengths differ: the array is untouched then. If
    /// the file cannot be read any more, all of it is [undefined](Array::undefined).
    pub fn restore<T: Element>(&self, name: &str, array: &mut Array<T>) -> Result<()> {
        let (entry, start) = self.find::<T>(name)?;
        if entry.len != array.len() as u64 {
            return Err(self.refuse(format!(
                "its array {name:?} has {} elements, expected {} as in the array to restore; resume with the sizes that \
                 were saved",
                entry.len,
                array.len()
            )));
        }
        self.fill(array.handle(), start)
    }

    /// Reads elements that start at byte `start` into an array that is exactly as long.
    fn fill(&self, array: &Handle, start: u64) -> Result<()> {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let io = |source| io_error(&self.path, source);
        source.seek(SeekFrom::Start(start)).map_err(io)?;
        let filled = array.fill_windows(|bytes| {
            source.read_exact(bytes).map_err(io)?;
            swap_if_big_endian(bytes, array.element_type().size());
            Ok(())
        });
        filled.inspect_err(|_| array.residency().undefine(0..array.len()))
    }

    /// The array called `name`, and where its elements start.
    fn find<T: Element>(&self, name: &str) -> Result<(&ArrayEntry, u64)> {
        let mut start = self.layout.elements_start;
        for entry in self.entries() {
            if entry.name != name {
                start += entry.bytes().unwrap_or(0);
                continue;
            }
            if entry.ty == T::TYPE {
                return Ok((entry, start));
            }
            return Err(self.refuse(format!(
                "its array {name:?} has elements of {}, expected {}; restore it as the type that was saved",
                entry.ty,
                T::TYPE
            )));
        }
        let names: Vec<_> = self
            .arrays()
            .map(|array| format!("{:?}", array.name))
            .collect();
        let names = match names.as_slice() {
            [] => "none".into(),
            some => some.join(", "),
        };
        Err(self.refuse(format!("it has no array {name:?}; it has {names}")))
    }

    fn entries(&self) -> &[ArrayEntry] {
        &self.layout.header.arrays
    }

    fn refuse(&self, problem: String) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            problem,
        }
    }
}

impl fmt::Debug for SavedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedCheckpoint")
            .field("path", &self.path)
            .field("header", &self.layout.header)
            .finish_non_exhaustive()
    }
}

/// Makes sure that all of a file is there and as it was written.
fn check(source: &mut (impl Read + Seek)) -> Result<Layout, ReadProblem> {
    let start = source.stream_position()?;
    let bytes = source.seek(SeekFrom::End(0))?.saturating_sub(start);
    source.seek(SeekFrom::Start(start))?;
    let mut layout = Layout::read(source, bytes)?;
    source.seek(SeekFrom::Start(start))?;
    let computed = checksum(&mut source.take(bytes - CHECKSUM_BYTES))?;
    let mut written = [0; CHECKSUM_BYTES as usize];
    source.read_exact(&mut written)?;
    if computed != u64::from_le_bytes(written) {
        return Err(damaged("its checksum does not fit what is in it").into());
    }
    layout.elements_start += start;
    Ok(layout)
}

/// The checksum of all that can be read.
fn checksum(source: &mut impl Read) -> std::io::Result<u64> {
    let mut hasher = Xxh3::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match source.read(&mut buffer) {
            Ok(0) => return Ok(hasher.digest()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
