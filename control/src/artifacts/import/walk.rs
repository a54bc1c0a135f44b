//! The files of a folder of this machine, if it is one that the configuration lets be imported.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::super::error::ArtifactError;
use super::super::path::{PathError, check};

pub(super) enum Found {
    File(LocalFile),
    Folder(Vec<LocalFile>),
}

pub(super) struct LocalFile {
    /// Its path in the artifact.
    pub(super) path: String,
    pub(super) bytes: u64,
    place: PathBuf,
}

impl LocalFile {
    pub(super) fn open(&self) -> io::Result<fs::File> {
        fs::File::open(&self.place)
    }
}

/// Finds what is at `path`. Links to files are followed as long as they stay in the allowed folders, which is how
/// caches of model hubs look; links to folders are refused.
pub(super) fn walk(path: &Path, allowed: &[PathBuf], most: u64) -> Result<Found, ArtifactError> {
    let place = path
        .canonicalize()
        .map_err(|error| unreadable(path, &error))?;
    let allowed: Vec<PathBuf> = allowed
        .iter()
        .filter_map(|folder| folder.canonicalize().ok())
        .collect();
    let walk = Walk { allowed, most };
    walk.admit(&place, path)?;
    let data = fs::metadata(&place).map_err(|error| unreadable(path, &error))?;
    if data.is_dir() {
        let mut files = Vec::new();
        walk.folder(&place, "", &mut files)?;
        return Ok(Found::Folder(files));
    }
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    check(name)?;
    Ok(Found::File(regular(&data, place, name.to_owned())?))
}

struct Walk {
    allowed: Vec<PathBuf>,
    most: u64,
}

impl Walk {
    fn admit(&self, place: &Path, shown: &Path) -> Result<(), ArtifactError> {
        if self.allowed.iter().any(|folder| place.starts_with(folder)) {
            return Ok(());
        }
        Err(ArtifactError::Forbidden(format!(
            "{} lies in none of the folders that may be imported from (import.folders)",
            shown.display()
        )))
    }

    fn folder(
        &self,
        folder: &Path,
        prefix: &str,
        files: &mut Vec<LocalFile>,
    ) -> Result<(), ArtifactError> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                return Err(PathError::new(&name.to_string_lossy(), "is not UTF-8").into());
            };
            let path = if prefix.is_empty() {
                name.to_owned()
            } else {
                format!("{prefix}/{name}")
            };
            check(&path)?;
            if files.len() as u64 >= self.most {
                return Err(ArtifactError::TooLarge {
                    what: format!("the number of files in {}", folder.display()),
                    limit: self.most,
                    setting: "import.max_files",
                });
            }
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.folder(&entry.path(), &path, files)?;
            } else if kind.is_symlink() {
                files.push(self.follow(&entry.path(), path)?);
            } else {
                files.push(regular(&entry.metadata()?, entry.path(), path)?);
            }
        }
        Ok(())
    }

    fn follow(&self, link: &Path, path: String) -> Result<LocalFile, ArtifactError> {
        let place = link
            .canonicalize()
            .map_err(|error| unreadable(link, &error))?;
        self.admit(&place, link)?;
        let data = fs::metadata(&place)?;
        if data.is_dir() {
            return Err(ArtifactError::entry(
                &path,
                "is a link to a folder; links to files only are followed",
            ));
        }
        regular(&data, place, path)
    }
}

fn regular(data: &fs::Metadata, place: PathBuf, path: String) -> Result<LocalFile, ArtifactError> {
    if !data.is_file() {
        return Err(ArtifactError::entry(
            &path,
            "is neither a file nor a folder",
        ));
    }
    Ok(LocalFile {
        bytes: data.len(),
        place,
        path,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> ArtifactError {
    ArtifactError::Source {
        place: path.display().to_string(),
        problem: error.to_string(),
    }
}
