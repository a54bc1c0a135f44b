//! What the tests of this module share: the library and the model folders made by
//! `engine/tests/fixtures/make.py`.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use super::lm::OnnxLm;
use super::{Load, OnnxOptions, init_runtime};
use crate::error::LoadError;

/// Loads ONNX Runtime, also from the checkout's `data/`.
pub(super) fn ready() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lib/libonnxruntime.so");
    let info = init_runtime(None).or_else(|_| init_runtime(Some(&checkout)));
    info.expect("these tests run real models: `make setup` fetches ONNX Runtime");
}

/// The folder of a model.
pub(super) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// A copy of a folder, to be falsified.
pub(super) fn copy(name: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    dir
}

/// Loads a model on this thread.
pub(super) fn load(dir: &Path, options: &OnnxOptions) -> Result<OnnxLm, LoadError> {
    ready();
    Load::prepare(dir, "test", options)?.run()
}
