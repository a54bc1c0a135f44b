//! Requests against a signature.

use proptest::prelude::*;

use super::*;

fn spec(name: &str, datatype: Datatype, shape: &[&str]) -> TensorSpec {
    let dimension = |text: &&str| match text.parse() {
        Ok(size) => Dimension::Fixed(size),
        Err(_) => Dimension::Free((*text).to_owned()),
    };
    TensorSpec {
        name: name.to_owned(),
        datatype,
        shape: shape.iter().map(dimension).collect(),
    }
}

/// ids `[batch, seq]` and mask `[batch, seq]` in, scores `[batch, 2]` out.
fn signature() -> Signature {
    Signature {
        inputs: vec![
            spec("ids", Datatype::Int64, &["batch", "seq"]),
            spec("mask", Datatype::Bool, &["batch", "seq"]),
            spec("scale", Datatype::Fp32, &["1", ""]),
        ],
        outputs: vec![spec("scores", Datatype::Fp32, &["batch", "2"])],
    }
}

fn ids(shape: &[i64], count: usize) -> NamedTensor {
    tensor("ids", shape, TensorData::zeros(Datatype::Int64, count))
}

fn mask(shape: &[i64], count: usize) -> NamedTensor {
    tensor("mask", shape, TensorData::zeros(Datatype::Bool, count))
}

fn scale(shape: &[i64], count: usize) -> NamedTensor {
    tensor("scale", shape, TensorData::zeros(Datatype::Fp32, count))
}

#[test]
fn a_fitting_request_passes() {
    let good = [mask(&[2, 5], 10), ids(&[2, 5], 10), scale(&[1, 7], 7)];
    signature().check(&good, None).unwrap();
    signature()
        .check(&good, Some(&["scores".to_owned()]))
        .unwrap();
    let empty = [mask(&[0, 5], 0), ids(&[0, 5], 0), scale(&[1, 7], 7)];
    signature().check(&empty, None).unwrap();
}

#[test]
fn each_error_names_the_tensor_and_what_would_be_right() {
    let ok = || vec![ids(&[2, 5], 10), mask(&[2, 5], 10), scale(&[1, 7], 7)];
    let with = |at: usize, changed: NamedTensor| {
        let mut inputs = ok();
        inputs[at] = changed;
        inputs
    };
    let mut twice = ok();
    twice.push(ids(&[2, 5], 10));
    let wrong_type = tensor("ids", &[2, 5], TensorData::zeros(Datatype::Int32, 10));
    let unknown = tensor("idz", &[2, 5], TensorData::zeros(Datatype::Int64, 10));
    let cases: [(Vec<NamedTensor>, &str, &[&str]); 10] = [
        (
            with(0, unknown),
            "idz",
            &["unknown input", "`ids`", "`mask`"],
        ),
        (twice, "ids", &["twice"]),
        (
            ok().split_off(1),
            "ids",
            &["missing", "INT64", "[batch, seq]"],
        ),
        (with(0, wrong_type), "ids", &["INT32", "INT64"]),
        (with(0, ids(&[10], 10)), "ids", &["[10]", "[batch, seq]"]),
        (with(2, scale(&[2, 7], 14)), "scale", &["[2, 7]", "[1, -1]"]),
        (with(0, ids(&[2, 5], 9)), "ids", &["9 elements", "10"]),
        (with(0, ids(&[2, -1], 10)), "ids", &["negative"]),
        (with(0, ids(&[i64::MAX, i64::MAX], 1)), "ids", &["memory"]),
        (
            with(1, mask(&[2, 4], 8)),
            "mask",
            &["`seq`", "is 4", "5 in input `ids`"],
        ),
    ];
    for (inputs, name, parts) in cases {
        let error = signature().check(&inputs, None).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("`{name}`: ")), "{text}");
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn wanted_outputs_must_exist_and_be_named_once() {
    let good = [ids(&[1, 1], 1), mask(&[1, 1], 1), scale(&[1, 0], 0)];
    let check = |wanted: &[&str]| {
        let wanted: Vec<_> = wanted.iter().map(|name| (*name).to_owned()).collect();
        signature()
            .check(&good, Some(&wanted))
            .map_err(|error| error.to_string())
    };
    check(&["scores"]).unwrap();
    check(&[]).unwrap();
    assert!(
        check(&["score"])
            .unwrap_err()
            .contains("the model gives `scores`")
    );
    assert!(check(&["scores", "scores"]).unwrap_err().contains("twice"));
}

#[test]
fn a_rank_that_the_graph_leaves_open_is_left_to_the_run() {
    let open = Signature {
        inputs: vec![spec("x", Datatype::Fp32, &[])],
        outputs: vec![spec("y", Datatype::Fp32, &[])],
    };
    let x = |shape: &[i64], count| [tensor("x", shape, TensorData::zeros(Datatype::Fp32, count))];
    open.check(&x(&[], 1), None).unwrap();
    open.check(&x(&[2, 3], 6), None).unwrap();
    open.check(&x(&[2, 3], 5), None).unwrap_err();
}

proptest! {
    /// The number of elements is the product, whatever the sizes, and never panics.
    #[test]
    fn elements_are_the_product(shape in prop::collection::vec(any::<i64>(), 0..6)) {
        let exact = shape.iter().try_fold(1_i128, |product, &size| product.checked_mul(i128::from(size)));
        let negative = shape.iter().any(|&size| size < 0);
        let zero = shape.contains(&0);
        match elements(&shape) {
            Ok(count) => {
                prop_assert!(!negative);
                prop_assert!(zero && count == 0 || exact == Some(count as i128));
            }
            Err(_) => prop_assert!(negative || exact.is_none_or(|exact| exact > isize::MAX as i128)),
        }
    }

    /// Small shapes, where products are not all over the limit.
    #[test]
    fn elements_of_small_shapes(shape in prop::collection::vec(0_i64..20, 0..6)) {
        prop_assert_eq!(elements(&shape), Ok(shape.iter().product::<i64>() as usize));
    }
}
