//! What the tests of this module share: the library and the model folders made by
//! `engine/tests/fixtures/make.py`.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use super::lm::OnnxLm;
use super::proto::{Dim, ValueInfo, put_bytes, put_integer};
use super::{Load, OnnxOptions, init_runtime};
use crate::error::LoadError;

/// Loads ONNX Runtime, also from the checkout's `data/`.
pub(super) fn ready() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/lib/libonnxruntime.so");
    let info = init_runtime(None).or_else(|_| init_runtime(Some(&checkout)));
    info.expect("these tests run real models: `make models` fetches ONNX Runtime");
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

/// A model of one node of the default domain, `y = op(x)`, on vectors of `element`
/// (ONNX's code for the type).
pub(super) fn one_node(op: &str, element: u64) -> Vec<u8> {
    const IR_VERSION: u64 = 10;
    const OPSET: u64 = 21;
    let mut node = Vec::new();
    for (number, text) in [(1, "x"), (2, "y"), (3, "node"), (4, op)] {
        put_bytes(&mut node, number, text.as_bytes());
    }
    let mut graph = Vec::new();
    put_bytes(&mut graph, 1, &node);
    put_bytes(&mut graph, 2, b"graph");
    for (number, name) in [(11, "x"), (12, "y")] {
        let info = ValueInfo::new(name, element, vec![Dim::Free("n")]);
        put_bytes(&mut graph, number, info.encoded());
    }
    let mut opset = Vec::new();
    put_bytes(&mut opset, 1, b"");
    put_integer(&mut opset, 2, OPSET);
    let mut model = Vec::new();
    put_integer(&mut model, 1, IR_VERSION);
    put_bytes(&mut model, 7, &graph);
    put_bytes(&mut model, 8, &opset);
    model
}
