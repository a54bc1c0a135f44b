//! Each metric against its reference implementation, and the laws it has to keep.

#![expect(clippy::unwrap_used, reason = "tests")]

mod json;
mod judge;
mod parity;
mod properties;
mod runs;

use serde_json::Value;

use crate::evaluation::sample::{Input, Output, Reference, Sample, Timings, Tokens};

pub(crate) fn vectors() -> Value {
    serde_json::from_str(include_str!(
        "../../../tests/fixtures/evaluation/vectors.json"
    ))
    .unwrap()
}

fn read<T: for<'de> serde::Deserialize<'de>>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[track_caller]
fn close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(
        error <= 1e-9 * expected.abs().max(1.0),
        "{what}: {found} is not {expected}"
    );
}

type Cases = Vec<(String, Vec<String>)>;

fn sample(row: usize, output: Result<Output, String>, reference: Reference) -> Sample {
    Sample {
        row: format!("row-{row:04}"),
        input: Input::Prompt("?".into()),
        reference,
        output,
        timings: Timings {
            first_token: None,
            total: Some(1_000 * (row as u64 + 1)),
        },
        tokens: Tokens::default(),
    }
}

fn answered(row: usize, output: &str, reference: &str) -> Sample {
    sample(
        row,
        Ok(Output::Text(output.into())),
        Reference::Texts(vec![reference.into()]),
    )
}
