//! Lines of the ledger on their way to the database, in files that survive the process.
//!
//! A segment is a file of JSON lines, `00000000000000000017.jsonl`. One is appended to; the others are sealed, and go in the
//! order of their numbers. A line that was torn by a crash is no JSON object and is passed over.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use crate::store::UsageEntry;

/// Bytes at which a segment is sealed: what one transaction sends at most.
const SEGMENT: u64 = 1 << 20;

/// The files, and how much lies in them.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    max_bytes: u64,
    current: Option<Segment>,
    sealed: VecDeque<Segment>,
    next: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    bytes: u64,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub struct Lines {
    pub entries: Vec<UsageEntry>,
    /// Lines that cannot be read.
    pub torn: usize,
}

impl Journal {
    /// Takes up what an earlier process left.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: impl Into<PathBuf>, max_bytes: u64) -> io::Result<Self> {
        let folder = folder.into();
        std::fs::create_dir_all(&folder)?;
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if let Some(number) = number_of(&entry.path()) {
                found.push((number, entry.path(), entry.metadata()?.len()));
            }
        }
        found.sort();
        Ok(Self {
            folder,
            max_bytes,
            current: None,
            next: found.last().map_or(0, |(number, ..)| number + 1),
            sealed: found
                .into_iter()
                .map(|(_, path, bytes)| Segment { path, bytes })
                .collect(),
        })
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.sealed
            .iter()
            .chain(&self.current)
            .map(|segment| segment.bytes)
            .sum()
    }

    /// Appends the lines and waits for the disk. Returns how many had no room.
    ///
    /// # Errors
    /// The disk's. None of the lines counts as written then, and the same ones may be appended again.
    pub fn append(&mut self, entries: &[UsageEntry]) -> io::Result<usize> {
        let mut lines = Vec::new();
        let mut dropped = 0;
        let room = self.max_bytes.saturating_sub(self.bytes());
        for entry in entries {
            let before = lines.len();
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
            if lines.len() as u64 > room {
                lines.truncate(before);
                dropped += 1;
            }
        }
        if lines.is_empty() {
            return Ok(dropped);
        }
        let mut segment = match self.current.take() {
            Some(segment) => segment,
            None => self.begin()?,
        };
        let written = append(&segment.path, segment.bytes, &lines);
        if written.is_ok() {
            segment.bytes += lines.len() as u64;
        }
        if segment.bytes >= SEGMENT {
            self.sealed.push_back(segment);
        } else {
            self.current = Some(segment);
        }
        written.map(|()| dropped)
    }

    fn begin(&mut self) -> io::Result<Segment> {
        let path = self.folder.join(format!("{:020}.jsonl", self.next));
        // Also where it fails: a file that was made and not used is in the way of the next try.
        self.next += 1;
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        // The file's name must be as durable as its lines.
        File::open(&self.folder)?.sync_all()?;
        Ok(Segment { path, bytes: 0 })
    }

    /// The oldest segment that nothing is appended to any more; the current one if there is no other.
    pub fn oldest(&mut self) -> Option<PathBuf> {
        if self.sealed.is_empty() {
            self.sealed.extend(self.current.take());
        }
        self.sealed.front().map(|segment| segment.path.clone())
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// The disk's.
    pub fn read(path: &Path) -> io::Result<Lines> {
        let bytes = std::fs::read(path)?;
        let mut lines = Lines::default();
        for line in bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
        {
            match serde_json::from_slice(line) {
                Ok(entry) => lines.entries.push(entry),
                Err(_) => lines.torn += 1,
            }
        }
        Ok(lines)
    }

    /// Forgets the oldest segment, which is in the database now.
    ///
    /// # Errors
    /// The disk's; it is sent again later, then, and recognised.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)?;
        self.sealed.retain(|segment| segment.path != path);
        Ok(())
    }
}

/// Writes behind `at`, whatever an earlier failed write left there.
fn append(path: &Path, at: u64, lines: &[u8]) -> io::Result<()> {
    use std::io::Seek as _;
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    file.set_len(at)?;
    file.seek(io::SeekFrom::Start(at))?;
    file.write_all(lines)?;
    file.sync_data()
}

fn number_of(path: &Path) -> Option<u64> {
    if path.extension()? != "jsonl" {
        return None;
    }
    path.file_stem()?.to_str()?.parse().ok()
}
