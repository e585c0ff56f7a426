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

/// The stream of a checkpoint.
trait Source: Read + Seek + Send {}

impl<S: Read + Seek + Send> Source for S {}

/// An opened checkpoint, which is complete and undamaged.
///
/// The elements stay in the file until they are read. Changes to the path do not matter: the file stays open.
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
    /// The number of its elements.
    pub len: usize,
}

impl SavedCheckpoint {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = open_regular(path).map_err(|source| io_error(path, source))?;
        Self::read_from(file, path)
    }

    /// Opens a checkpoint in a stream, from its current position to its end. Messages call it `name`.
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
    /// [`Error::Checkpoint`] if it is not a `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(&self.layout.header.value).map_err(|e| {
            let kind = std::any::type_name::<T>();
            self.refuse(format!(
                "its value is no {kind}: {e}; read it as the type that was saved"
            ))
        })
    }

    /// A new array with the elements of the saved array `name`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if there is no such array, or its elements are not `T`; [`Error::Io`] if it cannot be read;
    /// [`Error::HostMemory`].
    pub fn array<T: Element>(&self, name: &str) -> Result<Array<T>> {
        let found = self.find::<T>(name)?;
        // `open` checked that the file has this length.
        let array = Array::uninit(found.entry.len as usize)?;
        self.fill(array.handle(), found.start)?;
        Ok(array)
    }

    /// Overwrites an array with the elements of the saved array `name`.
    ///
    /// # Errors
    /// As [`SavedCheckpoint::array`], and [`Error::Checkpoint`] if the lengths differ: the array is untouched then. If
    /// the file can no longer be read, the whole array is [undefined](Array::undefined).
    pub fn restore<T: Element>(&self, name: &str, array: &mut Array<T>) -> Result<()> {
        let SavedElements { entry, start } = self.find::<T>(name)?;
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

    /// Reads the elements at byte `start` into an array of the same length.
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

    /// The saved array `name`.
    fn find<T: Element>(&self, name: &str) -> Result<SavedElements<'_>> {
        let mut start = self.layout.elements_start;
        for entry in self.entries() {
            if entry.name != name {
                start += entry.bytes().unwrap_or(0);
                continue;
            }
            if entry.ty == T::TYPE {
                return Ok(SavedElements { entry, start });
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

/// The elements of a saved array.
struct SavedElements<'a> {
    entry: &'a ArrayEntry,
    /// The position of the first element.
    start: u64,
}

impl fmt::Debug for SavedCheckpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedCheckpoint")
            .field("path", &self.path)
            .field("header", &self.layout.header)
            .finish_non_exhaustive()
    }
}

/// Checks that a file is complete and undamaged.
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
        return Err(damaged("its checksum does not match its contents").into());
    }
    layout.elements_start += start;
    Ok(layout)
}

/// The checksum of all bytes up to the end.
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
