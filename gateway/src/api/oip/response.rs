//! From tensors to the body of an answer to `…/infer`. Pure.

use serde::Serialize;
use sluice_engine::tensor::NamedTensor;

use super::request::Encoding;
use super::{binary, elements};

/// A body, and how long its JSON is when binary tensors follow it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InferResponse {
    pub(super) body: Vec<u8>,
    pub(super) json_length: Option<usize>,
}

/// What stands before the outputs.
#[derive(Serialize)]
struct Head<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Lays an answer out; `outputs` are in the order that `encoding` speaks of.
///
/// # Errors
/// Never in practice: strings and numbers always serialise.
pub(super) fn write(
    model: &str,
    version: &str,
    id: Option<&str>,
    outputs: &[NamedTensor],
    encoding: &Encoding,
) -> Result<InferResponse, serde_json::Error> {
    let head = Head {
        model_name: model,
        model_version: version,
        id,
    };
    let mut tail = Vec::new();
    let mut body = serde_json::to_vec(&head)?;
    reopen(&mut body);
    body.extend_from_slice(br#","outputs":["#);
    for (at, tensor) in outputs.iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        let binary = encoding.is_binary(at).then(|| {
            let before = tail.len();
            binary::write(&mut tail, tensor.data.as_slice());
            Parameters {
                binary_data_size: tail.len() - before,
            }
        });
        let in_json = binary.is_none();
        let output = Output {
            name: &tensor.name,
            datatype: tensor.data.datatype().name(),
            shape: &tensor.shape,
            parameters: binary,
        };
        serde_json::to_writer(&mut body, &output)?;
        if in_json {
            reopen(&mut body);
            body.extend_from_slice(br#","data":"#);
            elements::write(&mut body, tensor.data.as_slice());
            body.push(b'}');
        }
    }
    body.extend_from_slice(b"]}");
    let any_binary = (0..outputs.len()).any(|at| encoding.is_binary(at));
    let json_length = any_binary.then_some(body.len());
    body.append(&mut tail);
    Ok(InferResponse { body, json_length })
}

/// Takes the closing brace off, so that one more member can follow. Elements are
/// written by hand, because not all of them are values that serde_json writes.
fn reopen(json: &mut Vec<u8>) {
    let brace = json.pop();
    debug_assert_eq!(brace, Some(b'}'), "an object has just been written");
}
