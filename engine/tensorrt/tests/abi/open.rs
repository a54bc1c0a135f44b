//! Opening: each way not to find what is wanted has its own answer, in one line.

use std::fs;
use std::path::Path;

use sluice_tensorrt::{Library, OpenError, Version, find, header_version};

use crate::standin;

fn open(path: &Path) -> OpenError {
    Library::open(Some(path)).expect_err("not a library that can be used")
}

#[test]
fn the_stand_in_is_opened_and_says_what_it_is() {
    let path = standin::build("libnvinfer.so", &[]);
    let found = find(Some(&path)).unwrap();
    assert_eq!(found.version, header_version());
    assert_eq!(found.path, path);
    assert!(found.builder);
    let runtime_only = standin::build("libnvinfer_lean.so", &["STANDIN_WITHOUT_BUILDER"]);
    assert!(!find(Some(&runtime_only)).unwrap().builder);
}

#[test]
fn a_missing_file_is_named() {
    let error = open(Path::new("/nowhere/libnvinfer.so"));
    assert!(matches!(&error, OpenError::NotFound { tried } if tried.len() == 1));
    assert_eq!(
        error.to_string(),
        "TensorRT was not found (tried /nowhere/libnvinfer.so): install it, or name its libnvinfer.so in \
         SLUICE_TENSORRT"
    );
}

#[test]
fn a_file_that_is_no_library_is_refused_by_the_loader() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("libnvinfer.so");
    fs::write(&path, "not a library").unwrap();
    let error = open(&path);
    assert!(matches!(error, OpenError::Unloadable { .. }), "{error}");
    assert!(error.to_string().contains("could not be opened"), "{error}");
}

#[test]
fn a_library_without_a_symbol_is_named_with_it() {
    for (define, missing) in [
        ("STANDIN_WITHOUT_VERSION", "getInferLibVersion"),
        ("STANDIN_WITHOUT_RUNTIME", "createInferRuntime_INTERNAL"),
    ] {
        let path = standin::build("libnvinfer.so", &[define]);
        match open(&path) {
            OpenError::MissingSymbol { symbol, path: of } => {
                assert_eq!((symbol, of), (missing, path));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn another_version_is_refused_before_anything_of_it_is_called() {
    let built = header_version();
    let earlier = (built.major * 10_000 + built.minor * 100) - 100;
    for (number, words) in [
        (100_903, "10.9.3"),
        (earlier, "11.3.0"),
        (0, "of version 0"),
    ] {
        let path = standin::build("libnvinfer.so", &[&format!("STANDIN_VERSION={number}")]);
        match open(&path) {
            OpenError::WrongVersion {
                found, built: to, ..
            } => {
                assert_eq!((found.as_str(), to), (words, built));
            }
            other => panic!("{number}: {other}"),
        }
    }
}

#[test]
fn a_later_one_of_the_same_interface_is_taken() {
    let built = header_version();
    let later = built.major * 10_000 + (built.minor + 1) * 100 + 2;
    let path = standin::build("libnvinfer.so", &[&format!("STANDIN_VERSION={later}")]);
    let found = find(Some(&path)).unwrap();
    assert_eq!(found.version, Version::new(built.major, built.minor + 1, 2));
}
