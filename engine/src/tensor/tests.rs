//! Real graphs through the whole of [`super::TensorModel`]; the queue, batches and
//! failures on a graph that the test holds and lets go.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::{Path, PathBuf};

use half::f16;

use super::*;
use crate::LoadCanceller;

mod checks;
mod owner;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/tensor")
        .join(name)
}

fn load(name: &str) -> TensorModel {
    let options = TensorOptions {
        threads: 1,
        ..TensorOptions::default()
    };
    TensorModel::load(name, &fixture(&format!("{name}.onnx")), &options).unwrap()
}

fn tensor(name: &str, shape: &[i64], data: TensorData) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        shape: shape.to_vec(),
        data,
    }
}

fn affine_inputs() -> Vec<NamedTensor> {
    let x = TensorData::Fp32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let y = TensorData::Fp32(vec![0.5; 6]);
    // Not in the graph's order: names decide.
    vec![tensor("y", &[2, 3], y), tensor("x", &[2, 3], x)]
}

fn affine_outputs() -> Vec<NamedTensor> {
    let sum = TensorData::Fp32(vec![1.5, 2.5, 3.5, 4.5, 5.5, 6.5]);
    let product = TensorData::Fp32(vec![14.0, 140.0, 32.0, 320.0]);
    vec![
        tensor("sum", &[2, 3], sum),
        tensor("product", &[2, 2], product),
    ]
}

#[tokio::test]
async fn a_request_is_answered_with_all_outputs_in_the_graphs_order() {
    let model = load("affine");
    let answer = model.infer(affine_inputs(), None, None).await.unwrap();
    assert_eq!(answer, affine_outputs());
    let stats = model.stats();
    assert_eq!(stats.success.count(), 1);
    assert_eq!(stats.inferences(), 2, "two rows");
    assert_eq!(stats.executions(), 1);
    assert_eq!(stats.queue.count(), 1);
    assert!(stats.compute_infer.nanos() > 0 && stats.last_inference_ms() > 0);
}

#[tokio::test]
async fn outputs_are_chosen_by_name_and_come_in_the_order_asked_for() {
    let model = load("affine");
    let [sum, product] = <[NamedTensor; 2]>::try_from(affine_outputs()).unwrap();
    let only = ["product".to_owned()];
    let answer = model
        .infer(affine_inputs(), Some(&only), None)
        .await
        .unwrap();
    assert_eq!(answer, std::slice::from_ref(&product));
    let turned = ["product".to_owned(), "sum".to_owned()];
    let answer = model
        .infer(affine_inputs(), Some(&turned), None)
        .await
        .unwrap();
    assert_eq!(answer, [product, sum]);
}

#[tokio::test]
async fn every_datatype_comes_through_unchanged() {
    let model = load("echo");
    let data = [
        TensorData::Bool(vec![true, false]),
        TensorData::Uint8(vec![0, u8::MAX]),
        TensorData::Uint16(vec![0, u16::MAX]),
        TensorData::Uint32(vec![0, u32::MAX]),
        TensorData::Uint64(vec![0, u64::MAX]),
        TensorData::Int8(vec![i8::MIN, i8::MAX]),
        TensorData::Int16(vec![i16::MIN, i16::MAX]),
        TensorData::Int32(vec![i32::MIN, i32::MAX]),
        TensorData::Int64(vec![i64::MIN, i64::MAX]),
        TensorData::Fp16(vec![f16::MIN, f16::from_f32(0.1)]),
        TensorData::Fp32(vec![f32::MIN, f32::INFINITY]),
        TensorData::Fp64(vec![f64::MIN_POSITIVE, -0.1]),
        TensorData::Bytes(vec!["héllo 你好".to_owned(), String::new()]),
    ];
    let named = |suffix: &str| -> Vec<_> {
        let named = |data: &TensorData| {
            let name = format!("{}{suffix}", data.datatype().name());
            tensor(&name, &[1, 2], data.clone())
        };
        data.iter().map(named).collect()
    };
    let answer = model.infer(named(""), None, None).await.unwrap();
    assert_eq!(answer, named("_out"));
}

#[tokio::test]
async fn an_empty_batch_is_an_answer_too() {
    let model = load("strings");
    let none = || TensorData::Bytes(Vec::new());
    let answer = model
        .infer(vec![tensor("text", &[0], none())], None, None)
        .await
        .unwrap();
    assert_eq!(answer, [tensor("same", &[0], none())]);
}

#[tokio::test]
async fn a_scalar_has_an_empty_shape() {
    let model = load("scalar");
    let x = |value| TensorData::Fp64(vec![value]);
    let answer = model
        .infer(vec![tensor("x", &[], x(2.5))], None, None)
        .await
        .unwrap();
    assert_eq!(answer, [tensor("minus_x", &[], x(-2.5))]);
}

#[tokio::test]
async fn a_native_error_is_an_answer_and_the_model_goes_on() {
    let model = load("lookup");
    let index = |at| vec![tensor("index", &[1], TensorData::Int64(vec![at]))];
    let error = model.infer(index(4), None, None).await.unwrap_err();
    assert!(
        matches!(&error, InferError::Failed(text) if text.contains("idx=4")),
        "{error}"
    );
    assert!(model.healthy());
    let answer = model.infer(index(3), None, None).await.unwrap();
    assert_eq!(
        answer,
        [tensor("found", &[1], TensorData::Fp32(vec![13.0]))]
    );
    assert_eq!(model.stats().failures(FailureReason::Backend), 1);
    assert_eq!(model.stats().success.count(), 1);
}

/// It computes what it was warmed up by: nothing is wrong with it.
#[tokio::test]
async fn a_model_is_not_lost_to_clients_that_ask_wrongly() {
    let options = TensorOptions {
        failed_runs: 3,
        ..TensorOptions::default()
    };
    let model = TensorModel::load("m", &fixture("lookup.onnx"), &options).unwrap();
    let index = |at| vec![tensor("index", &[1], TensorData::Int64(vec![at]))];
    for _ in 0..20 {
        let error = model.infer(index(4), None, None).await.unwrap_err();
        assert!(matches!(error, InferError::Failed(_)), "{error}");
    }
    assert!(model.healthy());
    model.infer(index(3), None, None).await.unwrap();
}

#[test]
fn the_signature_is_the_graphs() {
    let model = load("affine");
    let signature = model.signature();
    let x = signature.input("x").unwrap();
    assert_eq!((x.datatype, x.dims()), (Datatype::Fp32, vec![-1, 3]));
    assert_eq!(x.shape[0], Dimension::Free("batch".to_owned()));
    assert_eq!(signature.output("product").unwrap().dims(), [-1, 2]);
    assert!(signature.has_batch_dimension());
    assert!(
        !load("echo").signature().has_batch_dimension(),
        "its first dimensions differ"
    );
    assert!(!load("scalar").signature().has_batch_dimension());
}

#[test]
fn what_requests_cannot_carry_is_refused_at_load() {
    let options = TensorOptions::default();
    let error = TensorModel::load("m", &fixture("bfloat16.onnx"), &options).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("output `y`") && text.contains("bfloat16"),
        "{text}"
    );
}

#[test]
fn a_folder_is_searched_for_its_graph() {
    let folder = tempfile::tempdir().unwrap();
    let load = || TensorModel::load("m", folder.path(), &TensorOptions::default());
    let text = load().unwrap_err().to_string();
    assert!(text.contains("it holds no model"), "{text}");
    let copy = |from: &str, to: &str| std::fs::copy(fixture(from), folder.path().join(to)).unwrap();
    copy("strings.onnx", "only.onnx");
    assert_eq!(load().unwrap().signature().inputs[0].name, "text");
    copy("scalar.onnx", "other.onnx");
    let text = load().unwrap_err().to_string();
    assert!(
        text.contains("it holds 2 .onnx files and none is model.onnx"),
        "{text}"
    );
    copy("lookup.onnx", "model.onnx");
    assert_eq!(load().unwrap().signature().inputs[0].name, "index");
    let nowhere = folder.path().join("nowhere");
    let text = TensorModel::load("m", &nowhere, &TensorOptions::default())
        .unwrap_err()
        .to_string();
    assert!(text.contains("nowhere"), "{text}");
}

/// Shapes and addresses change from request to request; a graph would not notice.
#[test]
fn a_load_ends_when_it_is_cancelled() {
    let canceller = LoadCanceller::default();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let load = {
        let canceller = canceller.clone();
        std::thread::spawn(move || {
            begun.send(()).unwrap();
            canceller.during(|| {
                let options = TensorOptions::default();
                TensorModel::load("endless", &fixture("endless.onnx"), &options)
            })
        })
    };
    has_begun.recv().unwrap();
    // Mostly in the middle of its first run, which would take centuries; wherever it is, it ends.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!load.is_finished());
    canceller.cancel();
    let loaded = load.join().unwrap();
    assert!(matches!(loaded, Err(LoadError::Cancelled)), "{loaded:?}");
}

#[test]
fn runs_are_never_captured() {
    let options = TensorOptions {
        gpu: GpuOptions {
            cuda_graphs: true,
            tf32: true,
            ..GpuOptions::default()
        },
        ..TensorOptions::default()
    };
    let session = options.session();
    assert!(!session.gpu.cuda_graphs && session.gpu.tf32);
}
