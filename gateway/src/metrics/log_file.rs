//! The access log as a file that may be moved away: `logrotate` renames it and sends SIGHUP, and what comes after goes to a
//! new file of the old name.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Lets the file be opened again, from any thread.
#[derive(Debug, Clone, Default)]
pub struct Reopen(Arc<AtomicBool>);

impl Reopen {
    /// From the next line on, the file is the one that has the name then.
    pub fn ask(&self) {
        self.0.store(true, Relaxed);
    }
}

/// A file that is appended to by its name.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    reopen: Reopen,
}

impl LogFile {
    /// # Errors
    /// It cannot be opened or made.
    pub(crate) fn open(path: &Path, reopen: Reopen) -> io::Result<Self> {
        Ok(Self {
            file: append(path)?,
            path: path.to_owned(),
            reopen,
        })
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.reopen.0.swap(false, Relaxed) {
            match append(&self.path) {
                Ok(file) => self.file = file,
                // Better in the old file than nowhere.
                Err(error) => {
                    tracing::error!(%error, "the access log stays in the file that was moved away")
                }
            }
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn lines_after_it_was_moved_away_go_to_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("a.log"), folder.path().join("a.1"));
        let reopen = Reopen::default();
        let mut log = LogFile::open(&path, reopen.clone()).unwrap();
        log.write_all(b"one\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.write_all(b"two\n").unwrap();
        reopen.ask();
        log.write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        std::fs::remove_dir_all(folder.path()).unwrap();
        reopen.ask();
        log.write_all(b"four\n").unwrap();
    }
}
