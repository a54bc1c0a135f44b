//! Bodies to tensors and back, for every datatype.

use half::f16;
use proptest::prelude::*;
use serde_json::value::RawValue;
use sluice_engine::tensor::{Datatype, NamedTensor, TensorData};

use super::*;

fn parse(json: &str) -> Result<InferRequest, String> {
    let body = Bytes::from(json.to_owned());
    InferRequest::parse(&body, None).map_err(|error| error.message().to_owned())
}

/// A request of one input of that datatype, shape and data.
fn one(datatype: &str, shape: &str, data: &str) -> Result<TensorData, String> {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#
    );
    parse(&json).map(|request| request.inputs[0].data.clone())
}

#[test]
fn every_datatype_is_read_from_json() {
    let strings =
        |all: &[&str]| TensorData::Bytes(all.iter().map(|&each| each.to_owned()).collect());
    for (datatype, data, right) in [
        ("BOOL", "[true, 0]", TensorData::Bool(vec![true, false])),
        ("UINT8", "[0, 255]", TensorData::Uint8(vec![0, 255])),
        ("UINT16", "[0, 65535]", TensorData::Uint16(vec![0, 65535])),
        (
            "UINT32",
            "[0, 4294967295]",
            TensorData::Uint32(vec![0, u32::MAX]),
        ),
        (
            "UINT64",
            "[0, 18446744073709551615]",
            TensorData::Uint64(vec![0, u64::MAX]),
        ),
        ("INT8", "[-128, 127]", TensorData::Int8(vec![-128, 127])),
        (
            "INT16",
            "[-32768, 32767]",
            TensorData::Int16(vec![i16::MIN, i16::MAX]),
        ),
        (
            "INT32",
            "[-2147483648, 1]",
            TensorData::Int32(vec![i32::MIN, 1]),
        ),
        (
            "INT64",
            "[-9223372036854775808, 9007199254740993]",
            TensorData::Int64(vec![i64::MIN, 9_007_199_254_740_993]),
        ),
        (
            "FP16",
            "[0.1, -65504]",
            TensorData::Fp16(vec![f16::from_f32(0.1), f16::MIN]),
        ),
        ("FP32", "[0.1, -1e-3]", TensorData::Fp32(vec![0.1, -0.001])),
        ("FP64", "[0.1, 5e-324]", TensorData::Fp64(vec![0.1, 5e-324])),
        ("BYTES", r#"["a\"\u4f60", ""]"#, strings(&["a\"你", ""])),
    ] {
        assert_eq!(one(datatype, "[2]", data), Ok(right.clone()), "{datatype}");
        let nested = data.replacen('[', "[[", 1).replace(", ", "],\n [") + "]";
        assert_eq!(
            one(datatype, "[2, 1]", &nested),
            Ok(right),
            "{datatype} {nested}"
        );
    }
}

#[test]
fn data_may_be_flat_or_nested_as_the_shape_says() {
    let six = TensorData::Int32(vec![1, 2, 3, 4, 5, 6]);
    for (shape, data) in [
        ("[2,3]", "[1,2,3,4,5,6]"),
        ("[2,3]", "[[1,2,3],[4,5,6]]"),
        ("[2,3]", " [ [1, 2,3] ,\n[4,5,6 ] ] "),
        ("[1,2,3]", "[[[1,2,3],[4,5,6]]]"),
        ("[1,2,3]", "[1,2,3,4,5,6]"),
        ("[6]", "[1,2,3,4,5,6]"),
    ] {
        assert_eq!(one("INT32", shape, data), Ok(six.clone()), "{shape} {data}");
    }
    let five = TensorData::Int32(vec![5]);
    assert_eq!(one("INT32", "[]", "5"), Ok(five.clone()), "a bare scalar");
    assert_eq!(one("INT32", "[]", "[5]"), Ok(five));
    let none = TensorData::Int32(vec![]);
    for (shape, data) in [
        ("[0]", "[]"),
        ("[2,0]", "[[],[]]"),
        ("[0,2]", "[]"),
        ("[2,0]", "[]"),
    ] {
        assert_eq!(
            one("INT32", shape, data),
            Ok(none.clone()),
            "{shape} {data}"
        );
    }
}

#[test]
fn malformed_data_is_refused_with_what_would_be_right() {
    for (datatype, shape, data, part) in [
        (
            "INT32",
            "[2]",
            "[1]",
            "`data` holds 1 elements, shape [2] holds 2",
        ),
        ("INT32", "[2]", "[1,2,3]", "more than the 2 elements"),
        (
            "INT32",
            "[2,3]",
            "[[1,2],[3,4],[5,6]]",
            "dimension 1 of `data` has 2 entries",
        ),
        (
            "INT32",
            "[2,2]",
            "[[1,2,3,4]]",
            "dimension 1 of `data` has 4 entries",
        ),
        ("INT32", "[2,2]", "[[1,2],3,4]", "one flat array, or nested"),
        ("INT32", "[2,2]", "[1,2,[3,4]]", "one flat array, or nested"),
        (
            "INT32",
            "[1,2,3]",
            "[[1,2,3],[4,5,6]]",
            "one flat array, or nested",
        ),
        ("INT32", "[2]", "[[1],[2]]", "nested deeper than shape [2]"),
        ("INT32", "[]", "[[5]]", "nested deeper"),
        ("INT32", "[2]", "5", "one flat array"),
        ("INT32", "[-1]", "[5]", "negative dimension"),
        (
            "INT32",
            "[9223372036854775807,9]",
            "[5]",
            "more elements than memory",
        ),
        (
            "INT32",
            "[1]",
            "[1.0]",
            "element 0 is 1.0; INT32 takes integers",
        ),
        (
            "INT32",
            "[1]",
            "[2147483648]",
            "from -2147483648 to 2147483647",
        ),
        (
            "UINT8",
            "[2]",
            "[1,-1]",
            "element 1 is -1; UINT8 takes integers from 0 to 255",
        ),
        ("INT32", "[1]", "[\"1\"]", "INT32 takes"),
        ("INT32", "[1]", "[null]", "element 0 is null"),
        ("INT32", "[1]", "[{}]", "element 0 is {}"),
        ("INT32", "[1]", "{}", "`data` must be one flat array"),
        ("BOOL", "[1]", "[2]", "true or false"),
        ("FP32", "[1]", "[1e39]", "within its range"),
        ("FP16", "[1]", "[65536]", "within its range"),
        ("FP64", "[1]", "[1e999]", "within its range"),
        ("FP32", "[1]", "[\"inf\"]", "FP32 takes numbers"),
        ("FP32", "[1]", "[true]", "FP32 takes numbers"),
        ("BYTES", "[1]", "[1]", "BYTES takes strings"),
        ("BYTES", "[1]", r#"["a\u0000b"]"#, "strings without NUL"),
        ("BYTES", "[1]", r#"["\ud800"]"#, "strings without NUL"),
        ("BF16", "[1]", "[1]", "datatype `BF16` is unknown"),
        ("fp32", "[1]", "[1]", "datatype `fp32` is unknown"),
    ] {
        let error = one(datatype, shape, data).unwrap_err();
        assert!(error.starts_with("input `x`: "), "{error}");
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn malformed_requests_are_refused_with_what_would_be_right() {
    let input = r#"{"name":"x","datatype":"INT32","shape":[1],"data":[1]}"#;
    for (json, part) in [
        (String::new(), "EOF"),
        ("[]".to_owned(), "not the JSON"),
        ("{}".to_owned(), "missing field `inputs`"),
        (r#"{"inputs":{}}"#.to_owned(), "expected a sequence"),
        (r#"{"inputs":[1]}"#.to_owned(), "expected struct"),
        (r#"{"inputs":[{"datatype":"INT32","shape":[1],"data":[1]}]}"#.to_owned(), "missing field `name`"),
        (r#"{"inputs":[{"name":"x","shape":[1],"data":[1]}]}"#.to_owned(), "missing field `datatype`"),
        (r#"{"inputs":[{"name":"x","datatype":"INT32","data":[1]}]}"#.to_owned(), "missing field `shape`"),
        (r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1.5],"data":[1]}]}"#.to_owned(), "expected i64"),
        (r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1]}]}"#.to_owned(), "input `x`: has no data"),
        (r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"data":[NaN]}]}"#.to_owned(), "not the JSON"),
        (format!(r#"{{"id":"\ud800","inputs":[{input}]}}"#), "not the JSON"),
        (format!(r#"{{"inputs":[{input}],"outputs":["y"]}}"#), "expected struct"),
        (
            format!(r#"{{"inputs":[{input}],"outputs":[{{"name":"y","parameters":{{"classification":2}}}}]}}"#),
            "output `y`: classification is not supported",
        ),
        (
            format!(r#"{{"inputs":[{input}],"outputs":[{{"name":"y","parameters":{{"shared_memory_region":"r"}}}}]}}"#),
            "output `y`: shared memory",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"parameters":{"shared_memory_region":"r"}}]}"#.to_owned(),
            "input `x`: shared memory",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"data":[1],"parameters":{"binary_data_size":4}}]}"#.to_owned(),
            "not both",
        ),
        (
            r#"{"inputs":[{"name":"x","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}}]}"#.to_owned(),
            "`binary_data_size` is 4, 0 bytes are left",
        ),
        (format!(r#"{{"inputs":[{input}],"parameters":{{"timeout":-1}}}}"#), "expected u64"),
        ("[".repeat(100_000), "not the JSON"),
        (format!(r#"{{"inputs":[{{"name":"x","datatype":"INT32","shape":[1],"data":{}"#, "[".repeat(100_000)), "not the JSON"),
    ] {
        let error = parse(&json).unwrap_err();
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[test]
fn unknown_members_and_parameters_are_passed_over() {
    let request = parse(
        r#"{"id":"7","model":"m","parameters":{"priority":3,"sequence_id":5,"timeout":2500,"mine":{"a":[1]}},
            "inputs":[{"name":"x","datatype":"INT32","shape":[1],"data":[1],"parameters":{"mine":1},"note":null}],
            "outputs":[{"name":"y","parameters":{"mine":1}},{"name":"z","parameters":{"binary_data":true}}]}"#,
    )
    .unwrap();
    assert_eq!(request.id.as_deref(), Some("7"));
    assert_eq!(
        request.timeout,
        Some(std::time::Duration::from_micros(2500))
    );
    assert_eq!(request.outputs, ["y", "z"]);
    assert!(!request.encoding.is_binary(0) && request.encoding.is_binary(1));
}

/// A binary body of one input.
fn binary_body(datatype: &str, shape: &str, declared: usize, bytes: &[u8]) -> (Bytes, usize) {
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"parameters":{{"binary_data_size":{declared}}}}}]}}"#
    );
    let length = json.len();
    let mut body = json.into_bytes();
    body.extend_from_slice(bytes);
    (body.into(), length)
}

#[test]
fn malformed_binary_data_is_refused_with_what_would_be_right() {
    for (datatype, shape, declared, bytes, part) in [
        (
            "FP32",
            "[2]",
            8,
            &[0; 7][..],
            "`binary_data_size` is 8, 7 bytes are left",
        ),
        (
            "FP32",
            "[2]",
            7,
            &[0; 7],
            "`binary_data_size` is 7; 2 elements of FP32 take 4 bytes each",
        ),
        (
            "FP32",
            "[2]",
            8,
            &[0; 9],
            "1 bytes follow the last binary input",
        ),
        ("BOOL", "[2]", 3, &[0; 3], "take 1 bytes each"),
        (
            "BYTES",
            "[1]",
            5,
            &[9, 0, 0, 0, b'a'],
            "element 0 says 9 bytes, 1 are left",
        ),
        (
            "BYTES",
            "[2]",
            5,
            &[1, 0, 0, 0, b'a'],
            "hold 1 elements and 0 bytes more; the shape holds 2",
        ),
        (
            "BYTES",
            "[1]",
            7,
            &[1, 0, 0, 0, b'a', 0, 0],
            "hold 1 elements and 2 bytes more",
        ),
        ("BYTES", "[1]", 5, &[1, 0, 0, 0, 0xff], "not UTF-8"),
        ("BYTES", "[1]", 5, &[1, 0, 0, 0, 0], "without NUL"),
        (
            "BYTES",
            "[1000000000000]",
            4,
            &[0, 0, 0, 0],
            "the shape holds 1000000000000",
        ),
    ] {
        let (body, length) = binary_body(datatype, shape, declared, bytes);
        let error = InferRequest::parse(&body, Some(length)).unwrap_err();
        assert!(
            error.message().contains(part),
            "`{part}` is not in: {}",
            error.message()
        );
    }
    let (body, length) = binary_body("FP32", "[0]", 0, &[]);
    let error = InferRequest::parse(&body, Some(length + 1)).unwrap_err();
    assert!(
        error.message().contains("the body has only"),
        "{}",
        error.message()
    );
    InferRequest::parse(&body, Some(length)).unwrap();
}

#[test]
fn numbers_that_json_lacks_are_written_as_python_reads_them() {
    let mut out = Vec::new();
    let data = TensorData::Fp32(vec![
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e-7,
        16_777_216.0,
    ]);
    elements::write(&mut out, data.as_slice());
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "[NaN,Infinity,-Infinity,1e-7,16777216.0]"
    );
}

fn any_data() -> impl Strategy<Value = TensorData> {
    use prop::collection::vec;
    let finite32 = any::<f32>().prop_filter("JSON has no others", |value| value.is_finite());
    let finite64 = any::<f64>().prop_filter("JSON has no others", |value| value.is_finite());
    let finite16 = any::<u16>()
        .prop_map(f16::from_bits)
        .prop_filter("JSON has no others", |value| value.is_finite());
    prop_oneof![
        vec(any::<bool>(), 0..20).prop_map(TensorData::Bool),
        vec(any::<u8>(), 0..20).prop_map(TensorData::Uint8),
        vec(any::<u16>(), 0..20).prop_map(TensorData::Uint16),
        vec(any::<u32>(), 0..20).prop_map(TensorData::Uint32),
        vec(any::<u64>(), 0..20).prop_map(TensorData::Uint64),
        vec(any::<i8>(), 0..20).prop_map(TensorData::Int8),
        vec(any::<i16>(), 0..20).prop_map(TensorData::Int16),
        vec(any::<i32>(), 0..20).prop_map(TensorData::Int32),
        vec(any::<i64>(), 0..20).prop_map(TensorData::Int64),
        vec(finite16, 0..20).prop_map(TensorData::Fp16),
        vec(finite32, 0..20).prop_map(TensorData::Fp32),
        vec(finite64, 0..20).prop_map(TensorData::Fp64),
        vec("[^\u{0}]{0,8}", 0..20).prop_map(TensorData::Bytes),
    ]
}

proptest! {
    /// What is written as JSON is read back the same, to the last bit.
    #[test]
    fn json_keeps_every_element(data in any_data()) {
        let mut json = Vec::new();
        elements::write(&mut json, data.as_slice());
        let raw: Box<RawValue> = serde_json::from_slice(&json).unwrap();
        let shape = [data.len() as i64];
        let back = elements::read(&raw, data.datatype(), &shape, data.len());
        prop_assert_eq!(back, Ok(data));
    }

    /// The same in binary.
    #[test]
    fn binary_keeps_every_element(data in any_data()) {
        let mut bytes = Vec::new();
        binary::write(&mut bytes, data.as_slice());
        prop_assert_eq!(binary::read(&bytes, data.datatype(), data.len()), Ok(data));
    }

    /// No body makes the parser panic, and none makes it reserve what a false
    /// shape claims.
    #[test]
    fn no_body_panics(
        body in prop::collection::vec(any::<u8>(), 0..200),
        length in prop::option::of(0_usize..300),
    ) {
        _ = InferRequest::parse(&Bytes::from(body), length);
    }

    #[test]
    fn no_tensor_panics(
        datatype in prop::sample::select(vec!["BOOL", "UINT64", "INT8", "FP16", "FP32", "BYTES"]),
        shape in prop::collection::vec(-2_i64..i64::MAX, 0..4),
        data in r#"[\[\]0-9.,e\- "a]{0,40}"#,
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let shape = format!("{shape:?}");
        _ = one(datatype, &shape, &data);
        let (body, length) = binary_body(datatype, &shape, bytes.len(), &bytes);
        _ = InferRequest::parse(&body, Some(length));
    }
}

#[test]
fn an_answer_mixes_json_and_binary_by_output() {
    let tensor = |name: &str, data: TensorData| NamedTensor {
        name: name.to_owned(),
        shape: vec![data.len() as i64],
        data,
    };
    let outputs = [
        tensor("a", TensorData::Int32(vec![1, 2])),
        tensor("b", TensorData::Bytes(vec!["x\"".to_owned()])),
        tensor("c", TensorData::Fp16(vec![f16::ONE])),
    ];
    let request = parse(
        r#"{"inputs":[],"parameters":{"binary_data_output":true},
            "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}},{"name":"c"}]}"#,
    )
    .unwrap();
    let answer = response::write("m", "v1", Some("7"), &outputs, &request.encoding).unwrap();
    let (json, tail) = answer.body.split_at(answer.json_length.unwrap());
    let json: Value = serde_json::from_slice(json).unwrap();
    assert_eq!(
        json,
        json!({
            "model_name": "m", "model_version": "v1", "id": "7",
            "outputs": [
                {"name": "a", "datatype": "INT32", "shape": [2], "parameters": {"binary_data_size": 8}},
                {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["x\""]},
                {"name": "c", "datatype": "FP16", "shape": [1], "parameters": {"binary_data_size": 2}},
            ],
        })
    );
    assert_eq!(tail, [1, 0, 0, 0, 2, 0, 0, 0, 0x00, 0x3c]);
    assert_eq!(Datatype::Fp16.name(), "FP16");
}
