//! The access log's file, which may be moved away while it is written.
//!
//! Who rotates logs renames the file and expects new lines in a new one of the old name. So before
//! each batch of lines the name is looked at, and when somebody asks for it: where it leads elsewhere
//! or nowhere, it is opened again. That needs no signal, and happens on the log's own thread.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A file that is appended to, under whatever file its name leads to.
#[derive(Debug)]
pub(crate) struct LogFile {
    path: PathBuf,
    file: File,
    /// Device and number of what is open.
    identity: (u64, u64),
}

impl LogFile {
    /// Opens a file to append to, and makes it if there is none.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self {
            path: path.to_owned(),
            identity: identity(&file.metadata()?),
            file,
        })
    }

    /// Opens it again if its name leads elsewhere by now. Where that fails, what is open goes on.
    fn follow(&mut self) {
        let is_same = std::fs::metadata(&self.path).is_ok_and(|it| identity(&it) == self.identity);
        if is_same {
            return;
        }
        match Self::open(&self.path) {
            Ok(new) => *self = new,
            Err(error) => tracing::warn!(%error, "the access log's file cannot be opened again"),
        }
    }
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.follow();
        self.file.write(bytes)
    }

    /// Also looks for the file, so that one that was moved away is let go of without a line to write.
    fn flush(&mut self) -> io::Result<()> {
        self.follow();
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn lines_go_to_the_file_of_that_name_whichever_it_is_by_now() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access"), folder.path().join("access.1"));
        let mut log = LogFile::open(&path).unwrap();
        log.write_all(b"first\n").unwrap();
        std::fs::rename(&path, &moved).unwrap();
        log.write_all(b"second\n").unwrap();
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(
            (read(&moved), read(&path)),
            ("first\n".into(), "second\n".into())
        );
        // Moved away once more, with nothing to write.
        std::fs::rename(&path, folder.path().join("access.2")).unwrap();
        log.flush().unwrap();
        assert_eq!(read(&path), "");
        // Emptied in place, it is the same file.
        File::create(&path).unwrap();
        log.write_all(b"third\n").unwrap();
        assert_eq!(read(&path), "third\n");
        // Where the name can't be had, what is open is written to.
        std::fs::remove_dir_all(folder.path()).unwrap();
        assert!(log.write_all(b"fourth\n").is_ok());
    }
}
