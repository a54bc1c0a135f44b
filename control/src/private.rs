//! Files for the owner of the process alone: all that holds hashes of keys, records, or content. New ones are made so by
//! the process's mask; those that an earlier version left open to others are tightened when a process starts.

use std::fs::{Metadata, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// What others may do with a file or folder that this process makes from now on: nothing.
const MASK: u32 = 0o077;

/// Makes all files and folders of this process from now on, and those of its children, their owner's alone.
pub fn by_default() {
    _ = rustix::process::umask(rustix::fs::Mode::from_raw_mode(MASK));
}

/// Takes a file away from others. One that is not there, or is somebody else's, stays as it is.
pub fn tighten_file(path: &Path) {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        tighten(path, &found);
    }
}

/// Takes a folder and all that lies in it away from others, without following links. Blocks; what cannot be changed is
/// said once.
pub fn tighten_folder(folder: &Path) {
    let refused = walk(folder);
    if refused > 0 {
        tracing::warn!(
            folder = %folder.display(),
            refused,
            "files here are open to other users of this machine, and belong to somebody else: chmod them"
        );
    }
}

fn walk(folder: &Path) -> usize {
    let Ok(found) = std::fs::symlink_metadata(folder) else {
        return 0;
    };
    if !found.is_dir() {
        return 0;
    }
    let mut refused = usize::from(!tighten(folder, &found));
    let Ok(entries) = std::fs::read_dir(folder) else {
        return refused;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(found) if found.is_dir() => refused += walk(&path),
            Ok(found) => refused += usize::from(!tighten(&path, &found)),
            Err(_) => {}
        }
    }
    refused
}

/// `false` where it has to be done and cannot.
fn tighten(path: &Path, found: &Metadata) -> bool {
    let mode = found.permissions().mode() & 0o7777;
    if found.is_symlink() || mode & MASK == 0 {
        return true;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode & !MASK)).is_ok()
}

#[cfg(test)]
mod tests;
