//! Engines that are kept, and those that are not used although they are there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sluice_tensorrt::{BuildOptions, EngineStore, Library, Specification, Stored, Wanted, digest};

use crate::build::{library, rows};

const MODEL: &[u8] = b"input x -1 4\nscale 5\n";

struct Shelf {
    library: Arc<Library>,
    folder: tempfile::TempDir,
}

impl Shelf {
    fn new() -> Self {
        Self {
            library: library(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> EngineStore {
        // One that is not there yet.
        EngineStore::new(&self.folder.path().join("engines"))
    }

    fn take(&self, specification: &Specification, device: &str) -> Stored {
        self.take_from(&self.store(), specification, device)
    }

    fn take_from(
        &self,
        store: &EngineStore,
        specification: &Specification,
        device: &str,
    ) -> Stored {
        let digest = digest(MODEL);
        let wanted = Wanted {
            model: MODEL,
            digest: &digest,
            specification,
            device,
        };
        store
            .engine(&self.library, &wanted, &BuildOptions::default())
            .unwrap()
    }

    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let folder = self.folder.path().join("engines");
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == ending))
            .collect()
    }
}

fn timing(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn an_engine_is_built_once_for_each_origin() {
    let shelf = Shelf::new();
    let first = shelf.take(&rows(), "H200 (9.0)");
    assert!(first.built);
    let again = shelf.take(&rows(), "H200 (9.0)");
    assert!(!again.built);
    assert_eq!(again.engine, first.engine);
    let mut level = rows();
    level.level = Some(1);
    assert!(shelf.take(&level, "H200 (9.0)").built);
    assert!(shelf.take(&rows(), "A100 (8.0)").built);
    assert_eq!(shelf.files("plan").len(), 3);
    assert!(shelf.files("partial").is_empty());
}

#[test]
fn those_used_longest_ago_go_when_there_are_too_many() {
    let shelf = Shelf::new();
    let store = EngineStore::keeping(&shelf.folder.path().join("engines"), 2);
    let built = |device: &str| shelf.take_from(&store, &rows(), device).built;
    let long_ago = |path: &Path| {
        let file = fs::File::options().append(true).open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    assert!(built("first"));
    let first = shelf.files("plan").swap_remove(0);
    assert!(built("second"));
    long_ago(&first);
    // Used again, it is not the oldest any more.
    assert!(!built("first"));
    for path in shelf.files("plan").iter().filter(|path| **path != first) {
        long_ago(path);
    }
    assert!(built("third"));
    assert_eq!(shelf.files("plan").len(), 2);
    assert!(!built("first") && !built("third") && built("second"));
}

#[test]
fn what_was_measured_is_kept_for_each_device() {
    let shelf = Shelf::new();
    let mut level = rows();
    level.level = Some(1);
    shelf.take(&rows(), "H200 (9.0)");
    shelf.take(&level, "H200 (9.0)");
    shelf.take(&rows(), "A100 (8.0)");
    let mut counts: Vec<String> = shelf.files("timing").iter().map(|p| timing(p)).collect();
    counts.sort();
    assert_eq!(counts, ["timing 1", "timing 2"]);
}

#[test]
fn a_damaged_or_foreign_file_costs_a_build_and_is_replaced() {
    let shelf = Shelf::new();
    let good = shelf.take(&rows(), "H200 (9.0)");
    let path = shelf.files("plan").remove(0);
    let bytes = fs::read(&path).unwrap();
    // Another device's engine under this one's name.
    shelf.take(&rows(), "A100 (8.0)");
    let other = shelf
        .files("plan")
        .into_iter()
        .find(|p| *p != path)
        .unwrap();
    let foreign = fs::read(other).unwrap();
    for bad in [&bytes[..bytes.len() - 1], b"", &foreign] {
        fs::write(&path, bad).unwrap();
        let again = shelf.take(&rows(), "H200 (9.0)");
        assert!(again.built);
        assert_eq!(again.engine, good.engine);
        assert!(!shelf.take(&rows(), "H200 (9.0)").built);
    }
}

#[test]
fn a_build_that_fails_and_a_folder_that_cannot_be_made_leave_nothing() {
    let shelf = Shelf::new();
    let wanted = Wanted {
        model: b"op Frobnicate\n",
        digest: "",
        specification: &rows(),
        device: "",
    };
    let failed = shelf
        .store()
        .engine(&shelf.library, &wanted, &BuildOptions::default());
    assert!(failed.is_err());
    assert!(shelf.files("plan").is_empty());
    let file = shelf.folder.path().join("file");
    fs::write(&file, "").unwrap();
    let wanted = Wanted {
        model: MODEL,
        ..wanted
    };
    let error = EngineStore::new(&file.join("engines"))
        .engine(&shelf.library, &wanted, &BuildOptions::default())
        .unwrap_err();
    assert!(error.to_string().contains("cannot be"), "{error}");
}
