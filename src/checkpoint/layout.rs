//! The layout of the file: the part before the elements, and the checks before any of it is used.

use crate::array::ElementType;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::io::Read;

/// Not valid UTF-8, and changed by a transfer that rewrites line ends.
const MAGIC: [u8; 8] = *b"\x89DIVVY\r\n";
const VERSION: u32 = 1;
/// The magic number, the version and the header's length.
const PREFIX_BYTES: u64 = 16;
/// The checksum, after the elements.
pub(super) const CHECKSUM_BYTES: u64 = 8;
/// The largest header: it is read as a whole.
const MOST_HEADER_BYTES: usize = 1 << 20;
/// The deepest nesting of a value: the JSON reader allows 128 levels, including the header's.
const DEEPEST: usize = 126;

/// The header.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) arrays: Vec<ArrayEntry>,
    /// The version of the crate that wrote it, for information only.
    pub(super) divvy: String,
    pub(super) value: Value,
}

/// An array in the header.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ArrayEntry {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) ty: ElementType,
    pub(super) len: u64,
}

/// The layout of a file that passed the checks.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) header: Header,
    /// The position of the first array's elements.
    pub(super) elements_start: u64,
}

impl ArrayEntry {
    /// Bytes of the elements; `None` if they exceed the address space.
    pub(super) fn bytes(&self) -> Option<u64> {
        let bytes = self.len.checked_mul(self.ty.size() as u64)?;
        isize::try_from(bytes).ok().map(|_| bytes)
    }
}

impl Header {
    /// The bytes before the elements.
    pub(super) fn encode(&self) -> Result<Vec<u8>, String> {
        self.check_names()?;
        if depth(&self.value) > DEEPEST {
            return Err(format!(
                "the value is nested more than {DEEPEST} levels deep, which could not be read; save a flatter one"
            ));
        }
        let json = serde_json::to_vec(self)
            .map_err(|e| format!("the value cannot be written as JSON: {e}; save another one"))?;
        if json.len() > MOST_HEADER_BYTES {
            return Err(format!(
                "the value and the names of the arrays take {} bytes as JSON, at most {MOST_HEADER_BYTES} were expected; \
                 put large data into arrays",
                json.len()
            ));
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend((json.len() as u32).to_le_bytes());
        bytes.extend(json);
        Ok(bytes)
    }

    fn check_names(&self) -> Result<(), String> {
        let mut names = HashSet::new();
        match self.arrays.iter().find(|array| !names.insert(&array.name)) {
            None => Ok(()),
            Some(array) => Err(format!(
                "it has two arrays called {:?}; give each a name of its own",
                array.name
            )),
        }
    }
}

impl Layout {
    /// Reads the part before the elements from a file of `file_bytes` bytes. Refuses a header that describes more than
    /// the file can hold.
    pub(super) fn read(source: &mut impl Read, file_bytes: u64) -> Result<Self, ReadProblem> {
        let mut prefix = [0; PREFIX_BYTES as usize];
        if file_bytes < PREFIX_BYTES {
            // Even such a short file may begin with the magic number.
            let start = &mut prefix[..MAGIC.len().min(file_bytes as usize)];
            source.read_exact(start)?;
            return Err(ReadProblem::Content(
                if MAGIC.starts_with(start) && !start.is_empty() {
                    cut_off(file_bytes, PREFIX_BYTES)
                } else {
                    not_one()
                },
            ));
        }
        source.read_exact(&mut prefix)?;
        let (magic, rest) = prefix.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(ReadProblem::Content(not_one()));
        }
        let [version, header_bytes] = [&rest[..4], &rest[4..]].map(little_endian);
        if version != VERSION {
            return Err(ReadProblem::Content(format!(
                "it is a checkpoint of version {version}, expected {VERSION}; read it with the version of Divvy that wrote it"
            )));
        }
        if header_bytes as usize > MOST_HEADER_BYTES {
            return Err(ReadProblem::Content(damaged(&format!(
                "its header is said to have {header_bytes} bytes, at most {MOST_HEADER_BYTES} were expected"
            ))));
        }
        let elements_start = PREFIX_BYTES + u64::from(header_bytes);
        if file_bytes < elements_start + CHECKSUM_BYTES {
            let needed = elements_start + CHECKSUM_BYTES;
            return Err(ReadProblem::Content(cut_off(file_bytes, needed)));
        }
        let mut json = vec![0; header_bytes as usize];
        source.read_exact(&mut json)?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|e| damaged(&format!("its header cannot be read: {e}")))?;
        header.check_names().map_err(|problem| damaged(&problem))?;
        check_length(&header, elements_start, file_bytes)?;
        Ok(Self {
            header,
            elements_start,
        })
    }
}

/// The number of nested levels of lists and objects.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Refuses a file whose length differs from that in its header.
fn check_length(header: &Header, elements_start: u64, file_bytes: u64) -> Result<(), String> {
    let expected = header
        .arrays
        .iter()
        .try_fold(elements_start + CHECKSUM_BYTES, |sum, array| {
            sum.checked_add(array.bytes()?)
        });
    match expected {
        Some(expected) if expected == file_bytes => Ok(()),
        Some(expected) if expected > file_bytes => Err(cut_off(file_bytes, expected)),
        Some(expected) => Err(damaged(&format!(
            "it has {file_bytes} bytes, expected {expected}"
        ))),
        None => Err(damaged("its header has more elements than memory can hold")),
    }
}

/// Why a file cannot be read.
#[derive(Debug)]
pub(super) enum ReadProblem {
    /// An error of the operating system.
    Io(std::io::Error),
    /// What is wrong with the contents.
    Content(String),
}

impl From<std::io::Error> for ReadProblem {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<String> for ReadProblem {
    fn from(problem: String) -> Self {
        Self::Content(problem)
    }
}

fn not_one() -> String {
    "it is no checkpoint of Divvy: expected a file that `Checkpoint::save` wrote".into()
}

/// The message for a file that changed since it was written.
pub(super) fn damaged(problem: &str) -> String {
    format!("{problem}; the file is damaged, go back to another checkpoint")
}

fn cut_off(given: u64, expected: u64) -> String {
    damaged(&format!(
        "it was cut off: it has {given} bytes, expected {expected}"
    ))
}

fn little_endian(bytes: &[u8]) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes);
    u32::from_le_bytes(word)
}

/// Converts elements of `size` bytes between this machine's byte order and the file's.
pub(super) fn swap_if_big_endian(bytes: &mut [u8], size: usize) {
    if cfg!(target_endian = "big") {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
}
