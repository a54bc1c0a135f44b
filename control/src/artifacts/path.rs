//! Names of files inside an artifact. A name is checked once, where it comes in, against everything
//! that some file system somewhere would take for another place or another file; past that it is safe to join to
//! a folder.

use std::collections::HashMap;

use unicode_normalization::UnicodeNormalization as _;

/// Bytes of a whole path.
pub const MAX_PATH_BYTES: usize = 1024;
/// Bytes of one name in it: what common file systems take.
pub const MAX_NAME_BYTES: usize = 255;
/// Folders a file may lie in, one in another.
pub const MAX_DEPTH: usize = 32;

/// Why a path is refused. The path is shown with its odd characters escaped, cut to a readable length.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path \"{path}\" {problem}")]
pub struct PathError {
    pub path: String,
    pub problem: String,
}

impl PathError {
    pub(super) fn new(path: &str, problem: impl Into<String>) -> Self {
        Self {
            path: shown(path),
            problem: problem.into(),
        }
    }
}

/// What came in, fit to be shown in a message or a log.
pub(super) fn shown(path: &str) -> String {
    let escaped: String = path
        .chars()
        .take(200)
        .flat_map(char::escape_debug)
        .collect();
    if path.chars().count() > 200 {
        escaped + "…"
    } else {
        escaped
    }
}

/// Checks the raw bytes of a name in an archive.
///
/// # Errors
/// [`PathError`], also if they are not UTF-8.
pub(super) fn check_bytes(path: &[u8]) -> Result<&str, PathError> {
    let Ok(text) = std::str::from_utf8(path) else {
        return Err(PathError::new(
            &String::from_utf8_lossy(path),
            "is not UTF-8",
        ));
    };
    check(text)?;
    Ok(text)
}

/// Checks a path: relative, forward slashes, and no name that would lead elsewhere on any system.
///
/// # Errors
/// [`PathError`] names what is wrong.
pub fn check(path: &str) -> Result<(), PathError> {
    let refuse = |problem: String| Err(PathError::new(path, problem));
    if path.is_empty() {
        return refuse("is empty".into());
    }
    if path.len() > MAX_PATH_BYTES {
        return refuse(format!("is longer than {MAX_PATH_BYTES} bytes"));
    }
    if path.starts_with('/') {
        return refuse("is absolute; it should be relative".into());
    }
    if path.contains('\\') {
        return refuse("has a backslash; folders are parted by /".into());
    }
    if let Some(odd) = path.chars().find(|&letter| is_odd(letter)) {
        return refuse(format!("has the character U+{:04X}", odd as u32));
    }
    if path.split('/').count() > MAX_DEPTH {
        return refuse(format!("is more than {MAX_DEPTH} folders deep"));
    }
    match path.split('/').find_map(wrong_name) {
        Some(problem) => refuse(problem.into()),
        None => Ok(()),
    }
}

/// Control characters, a colon (a drive or a stream of a file on Windows), and characters that make a
/// name read differently from what it is (overrides of the writing direction, invisible ones).
fn is_odd(letter: char) -> bool {
    letter.is_control()
        || letter == ':'
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn wrong_name(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        return Some("has an empty name between its slashes or ends in a slash");
    }
    if name == "." || name == ".." {
        return Some("has . or .. in it");
    }
    if name.len() > MAX_NAME_BYTES {
        return Some("has a name that is longer than 255 bytes");
    }
    if name.ends_with(['.', ' ']) {
        return Some("has a name that ends in a dot or a space, which some systems drop");
    }
    is_device(name).then_some("has a name that is a device on Windows")
}

fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end();
    let stem = stem.to_ascii_uppercase();
    matches!(
        stem.as_str(),
        "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$"
    ) || ["COM", "LPT"].iter().any(|port| {
        stem.strip_prefix(port).is_some_and(|digit| {
            matches!(
                digit,
                "0" | "1" | "2" | "3" | "4" | "5" | "6" | "7" | "8" | "9" | "¹" | "²" | "³"
            )
        })
    })
}

/// The paths of one artifact: no two may be one file on a system that ignores case or composes
/// characters, and none may be a file in one and a folder in the other.
#[derive(Debug, Default)]
pub struct PathSet {
    /// The folded path, whether it is a file, and the path as it came first.
    seen: HashMap<String, (bool, String)>,
}

impl PathSet {
    /// Checks and adds a file's path.
    ///
    /// # Errors
    /// [`PathError`] names both paths if two collide.
    pub fn add(&mut self, path: &str) -> Result<(), PathError> {
        check(path)?;
        let ends = path.match_indices('/').map(|(end, _)| end);
        for end in ends.collect::<Vec<_>>() {
            let folder = &path[..end];
            let seen = self
                .seen
                .entry(fold(folder))
                .or_insert_with(|| (false, folder.to_owned()));
            if seen.0 {
                let problem = format!("has the file \"{}\" as a folder", shown(&seen.1));
                return Err(PathError::new(path, problem));
            }
            if seen.1 != folder {
                return Err(collision(path, &seen.1));
            }
        }
        match self.seen.insert(fold(path), (true, path.to_owned())) {
            None => Ok(()),
            Some((true, other)) if other == path => Err(PathError::new(path, "comes twice")),
            Some((true, other)) => Err(collision(path, &other)),
            Some((false, _)) => Err(PathError::new(path, "is a file and a folder")),
        }
    }
}

fn collision(path: &str, other: &str) -> PathError {
    PathError::new(
        path,
        format!(
            "is the same as \"{}\" where case or composed characters do not count",
            shown(other)
        ),
    )
}

fn fold(path: &str) -> String {
    path.nfkc().flat_map(char::to_lowercase).nfkc().collect()
}

#[cfg(test)]
mod tests;
