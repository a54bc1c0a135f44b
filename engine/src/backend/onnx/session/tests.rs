#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use half::f16;

use super::super::testing::{one_node, ready};
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

fn open(op: &str, element: u64) -> OnnxSession {
    ready();
    let model = one_node(op, element);
    let source = ModelSource::Bytes {
        model: &model,
        folder: None,
    };
    let options = SessionOptions {
        threads: 1,
        ..SessionOptions::default()
    };
    OnnxSession::open("m", source, &options).unwrap()
}

/// What `Identity` gives back for a tensor of that type.
fn echo(data: &TensorData, element: u64) -> Tensor {
    let mut session = open("Identity", element);
    let shape = [i64::try_from(data.len()).unwrap()];
    let view = TensorView {
        shape: &shape,
        data: data.as_slice(),
    };
    session.run(&[("x", view)], &[]).unwrap().remove(0)
}

#[test]
fn every_datatype_goes_in_and_comes_out() {
    let tensors = [
        (TensorData::Fp32(vec![1.5, -2.0]), 1),
        (TensorData::Uint8(vec![0, 255]), 2),
        (TensorData::Int8(vec![-128, 127]), 3),
        (TensorData::Uint16(vec![65535]), 4),
        (TensorData::Int16(vec![-32768]), 5),
        (TensorData::Int32(vec![i32::MIN]), 6),
        (TensorData::Int64(vec![i64::MIN, 3]), 7),
        (
            TensorData::Bytes(vec!["a".to_owned(), String::new(), "中文".to_owned()]),
            8,
        ),
        (TensorData::Bool(vec![true, false]), 9),
        (TensorData::Fp16(vec![f16::from_f32(0.5)]), 10),
        (TensorData::Fp64(vec![1e300]), 11),
        (TensorData::Uint32(vec![u32::MAX]), 12),
        (TensorData::Uint64(vec![u64::MAX]), 13),
    ];
    for (data, element) in tensors {
        let datatype = data.datatype();
        assert_eq!(Datatype::from_name(datatype.name()), Some(datatype));
        let echoed = echo(&data, element);
        assert_eq!(echoed.shape, [i64::try_from(data.len()).unwrap()]);
        assert_eq!(echoed.data, data, "{}", datatype.name());
    }
    assert_eq!(
        echo(&TensorData::Int32(Vec::new()), 6).data,
        TensorData::Int32(Vec::new())
    );
}

#[test]
fn inputs_and_outputs_are_described() {
    let session = open("Relu", 1);
    let info = &session.inputs()[0];
    assert_eq!(
        (info.name.as_str(), info.datatype),
        ("x", Some(Datatype::Fp32))
    );
    assert_eq!(info.shape, [Dimension::Free("n".to_owned())]);
    assert_eq!(info.dims(), [-1]);
    assert_eq!(session.outputs()[0].name, "y");
}

#[test]
fn a_wrong_run_is_refused_and_the_session_lives_on() {
    let mut session = open("Relu", 1);
    let data = [1.0, -1.0];
    let view = |shape: &'static [i64]| TensorView {
        shape,
        data: TensorSlice::Fp32(&data),
    };
    let ints = TensorView {
        shape: &[2],
        data: TensorSlice::Int64(&[1, 2]),
    };
    let wrong: [(&str, TensorView<'_>, &[&str]); 7] = [
        ("z", view(&[2]), &[]),
        ("x", view(&[2]), &["z"]),
        ("x", view(&[3]), &[]),
        ("x", view(&[-2]), &[]),
        ("x", view(&[1, 2]), &[]),
        ("x\0", view(&[2]), &[]),
        ("x", ints, &[]),
    ];
    for (name, view, wanted) in wrong {
        let error = session.run(&[(name, view)], wanted).unwrap_err();
        assert!(matches!(error, BackendError::Step(_)), "{error}");
    }
    assert!(session.run(&[], &[]).is_err());
    let right = session.run(&[("x", view(&[2]))], &["y"]).unwrap();
    assert_eq!(right[0].data, TensorData::Fp32(vec![1.0, 0.0]));
}

#[test]
fn a_cancelled_session_refuses_until_it_is_resumed() {
    let mut session = open("Relu", 1);
    let view = TensorView {
        shape: &[1],
        data: TensorSlice::Fp32(&[-1.0]),
    };
    session.canceller().cancel();
    assert!(session.run(&[("x", view)], &[]).is_err());
    session.resume();
    assert!(session.run(&[("x", view)], &[]).is_ok());
}

#[test]
fn shared_handles_run_at_once_and_are_cancelled_apart() {
    let mut first = open("Relu", 1);
    let mut second = first.share().unwrap();
    first.canceller().cancel();
    let run = |session: &mut OnnxSession, value: f32| {
        let view = TensorView {
            shape: &[1],
            data: TensorSlice::Fp32(&[value]),
        };
        let outputs = session.run(&[("x", view)], &[]);
        outputs.map(|outputs| outputs[0].data.clone())
    };
    assert!(run(&mut first, 1.0).is_err());
    assert_eq!(run(&mut second, 2.0).unwrap(), TensorData::Fp32(vec![2.0]));
    first.resume();
    std::thread::scope(|scope| {
        for session in [&mut first, &mut second] {
            scope.spawn(move || {
                for value in 0..200u8 {
                    let value = f32::from(value);
                    assert_eq!(run(session, value).unwrap(), TensorData::Fp32(vec![value]));
                }
            });
        }
    });
}

#[test]
fn a_missing_library_is_named_in_one_line() {
    let words = "/src/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library \
                 /lib/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object \
                 file: No such file or directory\n";
    let short = in_short(words);
    assert!(short.starts_with("libcublasLt.so.13: cannot open") && short.contains("sluice doctor"));
    assert!(!short.contains('\n') && !short.contains("provider_bridge"));
    assert_eq!(in_short("anything else\n"), "anything else");
}
