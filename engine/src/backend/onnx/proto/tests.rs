#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;
use crate::backend::onnx::testing::fixture;

fn graph() -> Vec<u8> {
    std::fs::read(fixture("tiny-gemma2").join("model.onnx")).unwrap()
}

/// Fields of the model and of its graph, each sorted, for comparing regardless of order.
fn parts(model: &[u8]) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let sorted = |message: &[u8]| {
        let mut raw: Vec<_> = fields(message)
            .unwrap()
            .iter()
            .map(|field| field.raw.to_vec())
            .collect();
        raw.sort();
        raw
    };
    let whole = fields(model).unwrap();
    let graph = whole
        .iter()
        .find(|field| field.number == MODEL_GRAPH)
        .unwrap();
    let mut rest = sorted(model);
    rest.retain(|raw| *raw != graph.raw);
    (rest, sorted(graph.bytes().unwrap()))
}

#[test]
fn an_unchanged_model_is_written_back_field_by_field() {
    let bytes = graph();
    assert_eq!(parts(&Model::read(&bytes).unwrap().write()), parts(&bytes));
}

#[test]
fn a_changed_node_keeps_its_other_fields() {
    let bytes = graph();
    let mut model = Model::read(&bytes).unwrap();
    let position = model
        .nodes
        .iter()
        .position(|n| n.op == "GroupQueryAttention")
        .unwrap();
    let before = model.nodes[position].clone();
    model.nodes[position].changed().inputs[5] = "other";
    let written = model.write();
    let after = &Model::read(&written).unwrap().nodes[position];
    assert_eq!(after.input(5), "other");
    assert_eq!(after.attributes, before.attributes);
    assert_eq!(after.rest, before.rest, "the operator's domain among them");
    assert_eq!((after.name, &after.outputs), (before.name, &before.outputs));
}

#[test]
fn value_infos_are_written_as_they_are_read() {
    let shape = vec![Dim::Free("batch"), Dim::Fixed(7)];
    let info = ValueInfo::new("x", element::INT64, shape);
    let read = ValueInfo::read(&info.encoded).unwrap();
    assert_eq!(
        (read.name, read.element, read.shape),
        ("x", element::INT64, info.shape.clone())
    );
}

#[test]
fn external_data_is_read() {
    let bytes = graph();
    let model = Model::read(&bytes).unwrap();
    let head = model
        .initializers
        .iter()
        .find(|t| t.name == "lm_head.MatMul.weight")
        .unwrap();
    assert_eq!(head.dims, [32, 128]);
    let Storage::External {
        location, length, ..
    } = &head.storage
    else {
        panic!("the weights are inline");
    };
    assert_eq!(
        (*location, *length),
        ("model.onnx.data", Some(32 * 128 * 4))
    );
}

proptest! {
    #[test]
    fn varints_are_read_as_they_are_written(value: u64) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        prop_assert_eq!(take_varint(&mut bytes.as_slice()), Ok(value));
    }

    /// No bytes make the reader panic; what it does read, it can write.
    #[test]
    fn any_bytes_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(model) = Model::read(&bytes) {
            prop_assert!(Model::read(&model.write()).is_ok());
        }
    }

    #[test]
    fn a_damaged_model_is_refused_or_read(at in 0..10_000_usize, byte: u8) {
        let mut bytes = graph();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(model) = Model::read(&bytes) {
            prop_assert!(Model::read(&model.write()).is_ok());
        }
    }
}
