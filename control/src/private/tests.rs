#![expect(clippy::unwrap_used, reason = "tests")]

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::*;

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn file(path: PathBuf, mode: u32) -> PathBuf {
    std::fs::write(&path, "x").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn a_folder_is_taken_away_from_others_with_all_that_lies_in_it() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("control");
    let inner = folder.join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    for it in [&folder, &folder.join("a"), &inner] {
        std::fs::set_permissions(it, Permissions::from_mode(0o755)).unwrap();
    }
    let secret = file(inner.join("publish.json"), 0o644);
    let blob = file(inner.join("blob"), 0o444);
    let elsewhere = file(temp.path().join("elsewhere"), 0o644);
    symlink(&elsewhere, inner.join("link")).unwrap();
    tighten_folder(&folder);
    assert_eq!((mode(&folder), mode(&inner)), (0o700, 0o700));
    assert_eq!(
        (mode(&secret), mode(&blob)),
        (0o600, 0o400),
        "what was read-only stays so"
    );
    assert_eq!(mode(&elsewhere), 0o644, "a link leads to what is not ours");
}

#[test]
fn what_is_not_there_is_no_error() {
    tighten_file(Path::new("/nonexistent/x"));
    tighten_folder(Path::new("/nonexistent"));
}
