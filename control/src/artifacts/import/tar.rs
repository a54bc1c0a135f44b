//! Reading tar archives, header by header. The `tar` crate decodes a header; the walk over them is our own, because
//! the crate's holds extended headers whole whatever their size, and follows what we refuse.

use std::borrow::Cow;
use std::io::Read;

use tar::{EntryType, Header, PaxExtensions};

use super::super::error::ArtifactError;
use super::super::path::{MAX_PATH_BYTES, check_bytes};
use super::archive::Output;

const BLOCK: u64 = 512;
/// An extended header: names, times, attributes.
const MAX_EXTENSION: u64 = 64 << 10;

/// What extended headers said about the entry that comes next.
#[derive(Default)]
struct Said {
    path: Option<Vec<u8>>,
    bytes: Option<u64>,
}

pub(super) fn unpack(mut archive: impl Read, out: &mut Output) -> Result<(), ArtifactError> {
    let mut said = Said::default();
    while let Some(header) = next_header(&mut archive)? {
        out.entry()?;
        let path = path_of(&header, &mut said);
        let shown = String::from_utf8_lossy(&path).into_owned();
        let bytes = match said.bytes {
            Some(bytes) => bytes,
            None => header
                .entry_size()
                .map_err(|error| ArtifactError::entry(&shown, error.to_string()))?,
        };
        match header.entry_type() {
            EntryType::GNULongName => {
                let name = extension(&mut archive, bytes, MAX_PATH_BYTES as u64 + 1, &shown)?;
                let end = name
                    .iter()
                    .position(|&byte| byte == 0)
                    .unwrap_or(name.len());
                said.path = Some(name[..end].to_vec());
                continue;
            }
            EntryType::XHeader => {
                let records = extension(&mut archive, bytes, MAX_EXTENSION, &shown)?;
                said.read(&records, &shown)?;
                continue;
            }
            EntryType::XGlobalHeader => {
                let records = extension(&mut archive, bytes, MAX_EXTENSION, &shown)?;
                let mut for_all = Said::default();
                for_all.read(&records, &shown)?;
                if for_all.path.is_some() || for_all.bytes.is_some() {
                    return Err(ArtifactError::entry(
                        &shown,
                        "gives one name or size to all entries",
                    ));
                }
                continue;
            }
            EntryType::Directory => skip(&mut archive, bytes, &shown, out)?,
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => {
                skip(&mut archive, bytes, &shown, out)?;
            }
            EntryType::Regular | EntryType::Continuous => {
                let path = check_bytes(without_dot(&path))?;
                out.file(path, (&mut archive).take(bytes), Some(bytes))?;
                pad(&mut archive, bytes, path)?;
            }
            other => return Err(ArtifactError::entry(&shown, refusal(other))),
        }
        said = Said::default();
    }
    Ok(())
}

/// The next header; `None` at the mark of the end.
fn next_header(archive: &mut impl Read) -> Result<Option<Header>, ArtifactError> {
    let mut header = Header::new_old();
    let broken = |problem: String| ArtifactError::entry("the archive", problem);
    archive.read_exact(header.as_mut_bytes()).map_err(|error| {
        broken(format!(
            "ends without the mark of its end, or is damaged: {error}"
        ))
    })?;
    if header.as_bytes().iter().all(|&byte| byte == 0) {
        return Ok(None);
    }
    let sum = header.as_bytes().iter().zip(0..).map(|(&byte, at)| {
        // The sum counts its own place as spaces.
        u32::from(if (148..156).contains(&at) { b' ' } else { byte })
    });
    match header.cksum() {
        Ok(said) if said == sum.sum::<u32>() => Ok(Some(header)),
        _ => Err(broken(
            "is no tar archive, or a header of it is damaged".into(),
        )),
    }
}

fn path_of<'a>(header: &'a Header, said: &mut Said) -> Cow<'a, [u8]> {
    match said.path.take() {
        Some(path) => Cow::Owned(path),
        None => header.path_bytes(),
    }
}

impl Said {
    fn read(&mut self, records: &[u8], shown: &str) -> Result<(), ArtifactError> {
        let malformed =
            || ArtifactError::entry(shown, "has an extended header that cannot be read");
        for record in PaxExtensions::new(records) {
            let record = record.map_err(|_| malformed())?;
            match record.key_bytes() {
                b"path" => self.path = Some(record.value_bytes().to_vec()),
                b"size" => {
                    let bytes = record.value().ok().and_then(|text| text.parse().ok());
                    self.bytes = Some(bytes.ok_or_else(malformed)?);
                }
                key if key.starts_with(b"GNU.sparse") => {
                    return Err(ArtifactError::entry(shown, refusal(EntryType::GNUSparse)));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn refusal(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Symlink => "is a symbolic link; only files and folders are taken",
        EntryType::Link => "is a hard link; only files and folders are taken",
        EntryType::GNULongLink => "is a link with a long target; only files and folders are taken",
        EntryType::GNUSparse => "is a sparse file; write it out in full",
        EntryType::Char | EntryType::Block => "is a device; only files and folders are taken",
        EntryType::Fifo => "is a pipe; only files and folders are taken",
        _ => "is of an unknown kind; only files and folders are taken",
    }
}

/// Archives of a folder often name everything `./…`.
fn without_dot(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"./") {
        path = rest;
    }
    path
}

fn extension(
    archive: &mut impl Read,
    bytes: u64,
    most: u64,
    shown: &str,
) -> Result<Vec<u8>, ArtifactError> {
    if bytes > most {
        let problem = format!("has an extended header of {bytes} bytes; {most} are taken at most");
        return Err(ArtifactError::entry(shown, problem));
    }
    let mut content = Vec::new();
    let read = (&mut *archive).take(bytes).read_to_end(&mut content);
    read.map_err(|error| ArtifactError::entry(shown, format!("is damaged: {error}")))?;
    if content.len() as u64 != bytes {
        return Err(ArtifactError::entry(shown, "ends early"));
    }
    pad(archive, bytes, shown)?;
    Ok(content)
}

fn skip(
    archive: &mut impl Read,
    bytes: u64,
    shown: &str,
    out: &mut Output,
) -> Result<(), ArtifactError> {
    out.spend(bytes, shown)?;
    pass(archive, bytes, shown)?;
    pad(archive, bytes, shown)
}

/// Contents fill whole blocks.
fn pad(archive: &mut impl Read, bytes: u64, shown: &str) -> Result<(), ArtifactError> {
    pass(archive, bytes.next_multiple_of(BLOCK) - bytes, shown)
}

fn pass(archive: &mut impl Read, bytes: u64, shown: &str) -> Result<(), ArtifactError> {
    let passed = std::io::copy(&mut archive.take(bytes), &mut std::io::sink());
    match passed {
        Ok(passed) if passed == bytes => Ok(()),
        _ => Err(ArtifactError::entry(shown, "ends early")),
    }
}
