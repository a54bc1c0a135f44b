//! The files of this machine that make an artifact.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use sluice_control::artifacts::{Digest, PathSet};

/// A file and its path in the artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LocalFile {
    pub place: PathBuf,
    pub path: String,
    pub bytes: u64,
}

/// What lies at `places`.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub files: Vec<LocalFile>,
    /// Left out because their names begin with a dot.
    pub hidden: usize,
}

/// All files at `places`: a folder's with their paths below it, a file by its name.
///
/// # Errors
/// One that no artifact can hold: names that are unsafe elsewhere, what is neither a file nor a folder.
pub(super) fn found(places: &[PathBuf], hidden: bool) -> Result<Found> {
    let mut found = Found::default();
    for place in places {
        let data = place
            .metadata()
            .with_context(|| place.display().to_string())?;
        if data.is_dir() {
            walk(place, "", hidden, &mut found)?;
        } else {
            let name = place.file_name().and_then(|name| name.to_str());
            let name =
                name.with_context(|| format!("{}: has no name in UTF-8", place.display()))?;
            add(place, name.to_owned(), &mut found)?;
        }
    }
    let mut paths = PathSet::default();
    for file in &found.files {
        paths.add(&file.path)?;
    }
    if found.files.is_empty() {
        bail!("there is no file to send");
    }
    Ok(found)
}

fn walk(folder: &Path, prefix: &str, hidden: bool, found: &mut Found) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let place = entry.path();
        let name = name
            .to_str()
            .with_context(|| format!("{}: is not UTF-8", place.display()))?;
        if name.starts_with('.') && !hidden {
            found.hidden += 1;
            continue;
        }
        let path = format!("{prefix}{name}");
        // A link to a folder could lead around in a circle; one to a file is what hubs' caches are made of.
        if entry.file_type()?.is_dir() {
            walk(&place, &format!("{path}/"), hidden, found)?;
        } else {
            add(&place, path, found)?;
        }
    }
    Ok(())
}

fn add(place: &Path, path: String, found: &mut Found) -> Result<()> {
    let data = place
        .metadata()
        .with_context(|| place.display().to_string())?;
    if !data.is_file() {
        bail!("{}: is neither a file nor a folder", place.display());
    }
    found.files.push(LocalFile {
        place: place.to_owned(),
        path,
        bytes: data.len(),
    });
    Ok(())
}

/// The digest of a file, read on a thread that may wait.
pub(super) async fn digest(place: PathBuf) -> Result<Digest> {
    let digested = tokio::task::spawn_blocking(move || -> Result<Digest> {
        let mut file = File::open(&place).with_context(|| place.display().to_string())?;
        let mut hasher = Sha256::new();
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece)? {
                0 => return Ok(Digest::from_bytes(hasher.finalize().into())),
                read => hasher.update(&piece[..read]),
            }
        }
    });
    digested.await?
}

/// `length` bytes of a file from `start`, with their digest.
pub(super) async fn part(place: PathBuf, start: u64, length: usize) -> Result<(Bytes, Digest)> {
    let read = tokio::task::spawn_blocking(move || -> Result<(Bytes, Digest)> {
        let file = File::open(&place).with_context(|| place.display().to_string())?;
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, start)
            .with_context(|| format!("{}: became shorter", place.display()))?;
        let digest = Digest::of(&bytes);
        Ok((bytes.into(), digest))
    });
    read.await?
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn folders_are_walked_and_hidden_files_left_out() {
        let folder = std::env::temp_dir().join(format!("sluice-files-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("a/.git")).unwrap();
        for name in ["a/x", "a/.git/config", "b", ".env"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("b", folder.join("link")).unwrap();
        let paths = |found: &Found| {
            found
                .files
                .iter()
                .map(|it| it.path.clone())
                .collect::<Vec<_>>()
        };
        let plain = found(std::slice::from_ref(&folder), false).unwrap();
        assert_eq!(
            (paths(&plain), plain.hidden),
            (vec!["a/x".into(), "b".into(), "link".into()], 2)
        );
        let all = found(std::slice::from_ref(&folder), true).unwrap();
        assert_eq!((all.files.len(), all.hidden), (5, 0));
        // The same name twice, and nothing at all.
        let twice = [folder.join("b"), folder.clone()];
        assert!(
            found(&twice, false)
                .unwrap_err()
                .to_string()
                .contains("twice")
        );
        assert!(found(&[folder.join("a/.git")], false).is_ok());
        std::os::unix::fs::symlink("..", folder.join("a/up")).unwrap();
        let round = found(std::slice::from_ref(&folder), false).unwrap_err();
        assert!(round.to_string().contains("neither"), "{round}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
