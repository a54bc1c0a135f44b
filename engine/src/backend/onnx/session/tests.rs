#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use super::super::testing::ready;
use super::*;

#[test]
fn a_missing_file_is_refused_by_name() {
    ready();
    let error = OnnxSession::open(
        "m",
        ModelSource::File(Path::new("/nowhere/model.onnx")),
        &SessionOptions::default(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("/nowhere/model.onnx"), "{error}");
}

#[test]
fn bytes_that_are_no_model_are_refused() {
    ready();
    let source = ModelSource::Bytes {
        model: b"not a model",
        folder: None,
    };
    let error = OnnxSession::open("m", source, &SessionOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Unsupported { .. }), "{error}");
}
