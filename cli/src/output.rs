//! Standard output. Its reader may close the pipe at any time, which is not an error.

use super::failure::Failure;
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

/// The reader of standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a command should stop when its output has no reader"]
pub enum Reader {
    /// The pipe was open at the last write.
    Listening,
    /// The pipe is closed.
    Gone,
}

/// Prints `text` and a line's end.
pub fn print(text: impl Display) -> Result<Reader, Failure> {
    match writeln!(io::stdout(), "{text}") {
        Ok(()) => Ok(Reader::Listening),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Prints the last, or only, output of a command.
pub fn finish(text: impl Display) -> Result<(), Failure> {
    print(text).map(drop)
}

/// A value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(value).map_err(io::Error::from)?)
}

/// Rows of a table as text: columns separated by two blanks, the first left-aligned and the others to the right.
pub fn aligned<const N: usize>(widths: [usize; N], cells: &[String; N]) -> String {
    let mut row = format!("{:<1$}", cells[0], widths[0]);
    for (cell, width) in cells.iter().zip(widths).skip(1) {
        row.push_str(&format!("  {cell:>width$}"));
    }
    row.truncate(row.trim_end().len());
    row
}
