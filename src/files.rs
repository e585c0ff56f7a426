//! Reads files that other programs may have placed, and replaces files as a whole.
//!
//! Only regular files are opened for reading, since opening a pipe waits for its other end. A write goes to a temporary
//! file in the same folder, which is then renamed: no reader ever sees half a file, and neither a crash nor a loss of
//! power leaves one. Links at the path are replaced or refused, never followed.

use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The suffix of temporary files.
const TEMPORARY: &str = ".tmp";

/// The error for a refusal of the operating system.
pub(crate) fn io_error(path: &Path, source: io::Error) -> Error {
    Error::Io {
        path: path.into(),
        source,
    }
}

/// Opens a file for reading.
///
/// # Errors
/// The system's error, or that it is not a regular file.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file; name one that is",
        ));
    }
    File::open(path)
}

/// A path beside another, in the same folder.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

/// Opens a file to lock it, and creates an empty one if there is none. A link or a pipe in its place is refused.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    options.open(path)
}

/// Creates or replaces a file in one step: after a crash, either the old file or the new one is there. Removes the
/// temporary files of processes that died while they replaced the same file.
///
/// # Errors
/// Those of `write`, and [`Error::Io`]. The old file is untouched then.
pub(crate) fn replace(path: &Path, write: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    if path.file_name().is_none() {
        let problem = "it names no file; give a path that ends with a file's name";
        let source = io::Error::new(io::ErrorKind::InvalidInput, problem);
        return Err(io_error(path, source));
    }
    remove_leftovers(path);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let temporary = beside(path, &format!(".{}.{count}{TEMPORARY}", std::process::id()));
    let replaced = written(path, &temporary, write).and_then(|_locked| {
        fs::rename(&temporary, path)
            .and_then(|()| sync_folder(path))
            .map_err(|source| io_error(path, source))
    });
    if replaced.is_err() {
        // Best effort: the error itself is reported.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

/// A new file at `temporary`, synced to the disk. It is locked until it is dropped.
fn written(
    path: &Path,
    temporary: &Path,
    write: impl FnOnce(&mut File) -> Result<()>,
) -> Result<File> {
    // Never opens an existing file, which may be a link to elsewhere.
    let mut file = File::create_new(temporary).map_err(|source| io_error(path, source))?;
    // The lock marks a file in use. Where files cannot be locked, leftovers are not recognized and stay.
    let _ = file.try_lock();
    write(&mut file)?;
    file.sync_all().map_err(|source| io_error(path, source))?;
    Ok(file)
}

/// The folder of a path: the current one for a bare name.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Syncs the renaming of a file in the folder to the disk.
#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

/// On other systems folders cannot be opened, and the system orders renames itself.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes the temporary files of processes that died while they replaced the file at `path`: those without a lock. Best
/// effort.
fn remove_leftovers(path: &Path) {
    let (Some(name), Ok(entries)) = (path.file_name(), fs::read_dir(folder_of(path))) else {
        return;
    };
    for entry in entries.flatten() {
        if !is_temporary(&entry.file_name(), name)
            || !entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            continue;
        }
        if let Ok(file) = open_lock(&entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether `candidate` is the name of a temporary file of [`replace`] for the file `name`.
fn is_temporary(candidate: &OsStr, name: &OsStr) -> bool {
    let numbers = candidate
        .as_encoded_bytes()
        .strip_prefix(name.as_encoded_bytes())
        .and_then(|rest| rest.strip_prefix(b"."))
        .and_then(|rest| rest.strip_suffix(TEMPORARY.as_bytes()));
    let digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    numbers.is_some_and(|numbers| {
        let mut parts = numbers.split(|byte| *byte == b'.');
        let (process, count) = (parts.next(), parts.next());
        process.is_some_and(digits) && count.is_some_and(digits) && parts.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn put(path: &Path, text: &str) -> Result<()> {
        replace(path, |file| {
            file.write_all(text.as_bytes())
                .map_err(|source| io_error(path, source))
        })
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("a folder").flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn only_leftovers_of_dead_processes_are_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let kept = [
            "a.1.tmp",
            "a.b.2.tmp",
            "a.1.2.3.tmp",
            "ab.1.2.tmp",
            "a..2.tmp",
        ];
        for name in kept {
            fs::write(at(name), "mine").expect("writable");
        }
        let busy = at("a.4000000000.1.tmp");
        let writer = File::create_new(&busy).expect("writable");
        writer.try_lock().expect("no other lock");
        fs::write(at("a.4000000000.0.tmp"), "half").expect("writable");
        put(&at("a"), "whole").expect("writable");
        let mut expected: Vec<_> = kept.map(String::from).to_vec();
        expected.extend(["a".into(), "a.4000000000.1.tmp".into()]);
        expected.sort();
        assert_eq!(names(folder.path()), expected);
        drop(writer);
        put(&at("a"), "again").expect("writable");
        assert!(!busy.exists());
        assert_eq!(fs::read_to_string(at("a")).expect("readable"), "again");
    }

    #[test]
    fn what_fails_leaves_the_old_file_and_no_temporary_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a");
        put(&path, "old").expect("writable");
        let refused = replace(&path, |file| {
            file.write_all(b"half").expect("writable");
            Err(Error::argument("test", "it fails"))
        });
        assert!(matches!(refused, Err(Error::Argument { .. })));
        assert_eq!(fs::read_to_string(&path).expect("readable"), "old");
        assert_eq!(names(folder.path()), ["a"]);
        let text = put(&folder.path().join("no/such/a"), "")
            .expect_err("no folder")
            .to_string();
        assert!(text.contains("no/such/a: "), "{text}");
        assert!(put(Path::new("/"), "").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_are_replaced_or_refused_and_never_followed() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("elsewhere"), "theirs").expect("writable");
        symlink(at("elsewhere"), at("a")).expect("links");
        symlink(at("missing"), at("a.lock")).expect("links");
        symlink(at("elsewhere"), at("a.1.2.tmp")).expect("links");
        assert!(open_lock(&at("a.lock")).is_err());
        put(&at("a"), "mine").expect("writable");
        assert_eq!(
            fs::read_to_string(at("elsewhere")).expect("readable"),
            "theirs"
        );
        assert_eq!(fs::read_to_string(at("a")).expect("readable"), "mine");
        assert!(!at("missing").exists() && !at("a").is_symlink());
    }
}
