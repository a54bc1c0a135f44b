//! Reading zip archives.

use std::io::{Read, Seek, SeekFrom};

use zip::ZipArchive;
use zip::result::ZipError;

use super::super::error::ArtifactError;
use super::super::path::{check_bytes, shown};
use super::archive::Output;

/// The end record, and the longest comment that may follow it.
const END: u64 = 22;
const MAX_COMMENT: u64 = 65_535;
const END_MARK: &[u8] = b"PK\x05\x06";
const END64_MARK: &[u8] = b"PK\x06\x06";
const LOCATOR64: usize = 20;

pub(super) fn unpack(mut file: impl Read + Seek, out: &mut Output) -> Result<(), ArtifactError> {
    // The library holds the whole directory, so its length is looked at before.
    let most = out.max_files.saturating_mul(2);
    if announced_entries(&mut file)?.is_some_and(|entries| entries > most) {
        return Err(ArtifactError::TooLarge {
            what: "the number of entries of the archive".into(),
            limit: out.max_files,
            setting: "import.max_files",
        });
    }
    let mut archive = ZipArchive::new(file).map_err(|error| unreadable("the archive", &error))?;
    if archive.has_duplicate_names() {
        return Err(ArtifactError::entry(
            "the archive",
            "has two entries of the same name",
        ));
    }
    for index in 0..archive.len() {
        out.entry()?;
        let entry = archive
            .by_index(index)
            .map_err(|error| unreadable(&format!("number {index}"), &error))?;
        let name = entry.name_raw().to_vec();
        let display = String::from_utf8_lossy(&name).into_owned();
        if entry.encrypted() {
            return Err(ArtifactError::entry(&display, "is encrypted"));
        }
        // The upper bits of a Unix mode say what it is; archives from elsewhere have none.
        match entry.unix_mode().map_or(0, |mode| mode & 0o170_000) {
            0 | 0o100_000 | 0o040_000 => {}
            0o120_000 => {
                return Err(ArtifactError::entry(
                    &display,
                    "is a symbolic link; only files and folders are taken",
                ));
            }
            _ => {
                return Err(ArtifactError::entry(
                    &display,
                    "is a device or a pipe; only files and folders are taken",
                ));
            }
        }
        if name.ends_with(b"/") {
            continue;
        }
        let path = check_bytes(&name)?;
        let announced = entry.size();
        out.file(path, entry, Some(announced))?;
    }
    Ok(())
}

fn unreadable(entry: &str, error: &ZipError) -> ArtifactError {
    ArtifactError::Entry {
        entry: shown(entry),
        problem: format!("cannot be read: {error}"),
    }
}

/// How many entries the end of the archive announces. `None` if there is no such end, which the library reports.
fn announced_entries(file: &mut (impl Read + Seek)) -> Result<Option<u64>, ArtifactError> {
    let length = file.seek(SeekFrom::End(0))?;
    let tail_at = length.saturating_sub(END + MAX_COMMENT + LOCATOR64 as u64);
    file.seek(SeekFrom::Start(tail_at))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let Some(end) = tail
        .windows(END_MARK.len())
        .rposition(|bytes| bytes == END_MARK)
    else {
        return Ok(None);
    };
    let Some(entries) = tail
        .get(end + 10..end + 12)
        .and_then(|bytes| bytes.try_into().ok())
    else {
        return Ok(None);
    };
    let entries = u16::from_le_bytes(entries);
    if entries != u16::MAX || end < LOCATOR64 {
        return Ok(Some(entries.into()));
    }
    let number = |bytes: &[u8], at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
    };
    let Some(end64_at) = number(&tail[end - LOCATOR64..], 8) else {
        return Ok(None);
    };
    let mut end64 = [0; 56];
    // The archive says where, and may lie.
    let read = file
        .seek(SeekFrom::Start(end64_at))
        .and_then(|_| file.read_exact(&mut end64));
    if read.is_err() || !end64.starts_with(END64_MARK) {
        return Ok(Some(entries.into()));
    }
    Ok(number(&end64, 32))
}
