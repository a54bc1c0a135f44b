//! Taking archives apart, on a thread of their own, into a stream of names and bytes. Nothing is unpacked to disk
//! here, so no name in an archive is ever a path of this machine.

use std::fs::File;
use std::io::{self, BufReader, Read};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::super::error::ArtifactError;
use super::super::settings::ImportSettings;
use super::super::spool::{Limit, Spooled};

/// Bytes of one piece, and pieces on their way.
const PIECE: usize = 256 << 10;
const PIECES: usize = 3;
/// What an archive may unpack to whatever its ratio: small ones of text or zeros are no bombs.
const ALWAYS: u64 = 64 << 20;

/// What an archive is, by its name. By its first bytes alone a checkpoint of PyTorch would be one: it is a zip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Tar,
    TarGz,
    Zip,
}

impl Form {
    pub(super) fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let ends = |end: &str| name.ends_with(end);
        match () {
            () if ends(".tar") => Some(Self::Tar),
            () if ends(".tar.gz") || ends(".tgz") => Some(Self::TarGz),
            () if ends(".zip") => Some(Self::Zip),
            () => None,
        }
    }
}

/// What comes out of an archive, in order.
#[derive(Debug)]
pub(super) enum Piece {
    File(String),
    Bytes(Bytes),
    EndOfFile,
    EndOfArchive,
}

pub(super) type Pieces = Receiver<Result<Piece, ArtifactError>>;

/// Takes an archive apart; it stops when the receiver is dropped. `limit` is what may come out of it. The archive
/// stays the caller's, whose end it does not outlive: the thread may notice that end later.
pub(super) fn unpack(
    form: Form,
    archive: &Spooled,
    limit: Limit,
    settings: &ImportSettings,
) -> io::Result<Pieces> {
    let file = archive.file.reopen()?;
    let (sender, receiver) = channel(PIECES);
    let by_ratio = Limit {
        bytes: archive.bytes.saturating_mul(settings.max_ratio).max(ALWAYS),
        setting: "import.max_ratio times the archive's size",
    };
    let mut out = Output {
        sender,
        limit: if by_ratio.bytes < limit.bytes {
            by_ratio
        } else {
            limit
        },
        left: by_ratio.bytes.min(limit.bytes),
        entries: settings.max_files.saturating_mul(ENTRIES_A_FILE),
        max_files: settings.max_files,
    };
    tokio::task::spawn_blocking(move || {
        let done = take_apart(form, file, &mut out).and_then(|()| out.send(Piece::EndOfArchive));
        if let Err(error) = done {
            // Nobody listens any more if the import was cancelled.
            let _ = out.sender.blocking_send(Err(error));
        }
    });
    Ok(receiver)
}

/// Headers that a file may come with: its folders, its long name, its extended attributes.
const ENTRIES_A_FILE: u64 = 4;

fn take_apart(form: Form, file: File, out: &mut Output) -> Result<(), ArtifactError> {
    let file = BufReader::with_capacity(PIECE, file);
    match form {
        Form::Tar => super::tar::unpack(file, out),
        Form::TarGz => super::tar::unpack(BufReader::with_capacity(PIECE, gunzip(file)), out),
        Form::Zip => super::zip::unpack(file, out),
    }
}

fn gunzip(file: BufReader<File>) -> impl Read {
    flate2::bufread::MultiGzDecoder::new(file)
}

/// Where pieces go, and what may still come.
pub(super) struct Output {
    sender: Sender<Result<Piece, ArtifactError>>,
    limit: Limit,
    left: u64,
    entries: u64,
    pub(super) max_files: u64,
}

impl Output {
    fn send(&self, piece: Piece) -> Result<(), ArtifactError> {
        self.sender
            .blocking_send(Ok(piece))
            .map_err(|_| ArtifactError::Interrupted("the import was cancelled".into()))
    }

    /// Counts a header, of whatever kind.
    pub(super) fn entry(&mut self) -> Result<(), ArtifactError> {
        self.entries = self.entries.checked_sub(1).ok_or(ArtifactError::TooLarge {
            what: "the number of entries of the archive".into(),
            limit: self.max_files,
            setting: "import.max_files",
        })?;
        Ok(())
    }

    /// Counts bytes that come out, also those that are not kept.
    pub(super) fn spend(&mut self, bytes: u64, entry: &str) -> Result<(), ArtifactError> {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self
                .limit
                .exceeded(&format!("entry \"{}\"", super::super::path::shown(entry)))),
        }
    }

    /// Sends one file. `announced` is its size by the archive's word, `None` to go by what comes.
    pub(super) fn file(
        &mut self,
        path: &str,
        mut bytes: impl Read,
        announced: Option<u64>,
    ) -> Result<(), ArtifactError> {
        // Refused by its word, before it costs anything.
        if announced.is_some_and(|bytes| bytes > self.left) {
            return self.spend(announced.unwrap_or_default(), path);
        }
        self.send(Piece::File(path.to_owned()))?;
        let mut came = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut bytes).take(PIECE as u64).read_to_end(&mut piece);
            read.map_err(|error| ArtifactError::entry(path, format!("is damaged: {error}")))?;
            if piece.is_empty() {
                break;
            }
            came += piece.len() as u64;
            self.spend(piece.len() as u64, path)?;
            self.send(Piece::Bytes(piece.into()))?;
        }
        if let Some(announced) = announced.filter(|&announced| announced != came) {
            return Err(ArtifactError::entry(
                path,
                format!("has {came} bytes, its header says {announced}"),
            ));
        }
        self.send(Piece::EndOfFile)
    }
}
