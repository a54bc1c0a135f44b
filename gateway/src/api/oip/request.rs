//! From the body of `…/infer` to tensors. Pure.

use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use sluice_engine::tensor::{Datatype, NamedTensor, elements};

use super::{binary, elements as json};
use crate::error::ApiError;

/// A request as far as it can be understood without the model.
#[derive(Debug, PartialEq)]
pub(super) struct InferRequest {
    /// Comes back with the answer.
    pub(super) id: Option<String>,
    pub(super) inputs: Vec<NamedTensor>,
    /// Outputs asked for, in this order; empty is all.
    pub(super) outputs: Vec<String>,
    /// How outputs are answered.
    pub(super) encoding: Encoding,
    /// The client's own deadline, from the request's arrival.
    pub(super) timeout: Option<Duration>,
}

/// JSON or binary, by output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// `binary_data_output`, for outputs that do not say themselves.
    binary: bool,
    /// `binary_data` of the outputs asked for, in their order.
    of_output: Vec<Option<bool>>,
}

impl Encoding {
    /// Whether the output at this position is sent in binary.
    pub(super) fn is_binary(&self, at: usize) -> bool {
        self.of_output
            .get(at)
            .copied()
            .flatten()
            .unwrap_or(self.binary)
    }
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

/// Those that mean something here; priority, sequence ids and a model's own
/// parameters are passed over, as plain tensor models have no use for them.
#[derive(Deserialize, Default)]
struct Parameters {
    #[serde(default)]
    binary_data_output: Option<bool>,
    /// Microseconds.
    #[serde(default)]
    timeout: Option<u64>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default)]
    parameters: Option<InputParameters>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
struct InputParameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    shared_memory_region: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<OutputParameters>,
}

#[derive(Deserialize, Default)]
struct OutputParameters {
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    classification: Option<u64>,
    #[serde(default)]
    shared_memory_region: Option<IgnoredAny>,
}

impl InferRequest {
    /// Parses a body whose first `json_length` bytes are JSON (all of it when
    /// `None`) and whose rest is the binary inputs, one behind the other.
    ///
    /// # Errors
    /// 400 naming the input or output at fault.
    pub(super) fn parse(body: &Bytes, json_length: Option<usize>) -> Result<Self, ApiError> {
        let json_length = json_length.unwrap_or(body.len());
        let Some((json, mut binary)) = body.split_at_checked(json_length) else {
            return Err(invalid(format!(
                "Inference-Header-Content-Length is {json_length}, the body has only {} bytes",
                body.len()
            )));
        };
        let head: Head<'_> = serde_json::from_slice(json).map_err(|error| {
            invalid(format!("the request is not the JSON it should be: {error}"))
        })?;
        let mut inputs = Vec::with_capacity(head.inputs.len());
        for input in head.inputs {
            let name = input.name.clone();
            let tensor = input.read(&mut binary);
            inputs.push(tensor.map_err(|reason| invalid(format!("input `{name}`: {reason}")))?);
        }
        if !binary.is_empty() {
            return Err(invalid(format!(
                "{} bytes follow the last binary input; the inputs' `binary_data_size` must add up \
                 to what follows the JSON",
                binary.len()
            )));
        }
        let parameters = head.parameters.unwrap_or_default();
        let (outputs, of_output) = read_outputs(head.outputs.unwrap_or_default())?;
        Ok(Self {
            id: head.id,
            inputs,
            outputs,
            encoding: Encoding {
                binary: parameters.binary_data_output.unwrap_or(false),
                of_output,
            },
            timeout: parameters.timeout.map(Duration::from_micros),
        })
    }
}

impl Input<'_> {
    /// Reads its elements, from JSON or from the front of `binary`.
    fn read(self, binary: &mut &[u8]) -> Result<NamedTensor, String> {
        let Some(datatype) = Datatype::from_name(&self.datatype) else {
            return Err(format!(
                "datatype `{}` is unknown; it is one of BOOL, UINT8, UINT16, UINT32, UINT64, INT8, \
                 INT16, INT32, INT64, FP16, FP32, FP64 and BYTES",
                self.datatype.chars().take(40).collect::<String>()
            ));
        };
        let parameters = self.parameters.unwrap_or_default();
        if parameters.shared_memory_region.is_some() {
            return Err("shared memory is not supported; send the data in the request".to_owned());
        }
        let count = elements(&self.shape)?;
        let data = match (self.data, parameters.binary_data_size) {
            (Some(data), None) => json::read(data, datatype, &self.shape, count)?,
            (None, Some(size)) => {
                let Some((bytes, rest)) = binary.split_at_checked(size) else {
                    return Err(format!(
                        "`binary_data_size` is {size}, {} bytes are left behind the JSON",
                        binary.len()
                    ));
                };
                *binary = rest;
                binary::read(bytes, datatype, count)?
            }
            (Some(_), Some(_)) => {
                return Err("give either `data` or `binary_data_size`, not both".to_owned());
            }
            (None, None) => {
                return Err(
                    "has no data: give `data`, or `binary_data_size` and the bytes \
                            behind the JSON with the Inference-Header-Content-Length header"
                        .to_owned(),
                );
            }
        };
        Ok(NamedTensor {
            name: self.name,
            shape: self.shape,
            data,
        })
    }
}

fn read_outputs(outputs: Vec<Output>) -> Result<(Vec<String>, Vec<Option<bool>>), ApiError> {
    let mut names = Vec::with_capacity(outputs.len());
    let mut binary = Vec::with_capacity(outputs.len());
    for output in outputs {
        let parameters = output.parameters.unwrap_or_default();
        let unsupported = if parameters.shared_memory_region.is_some() {
            Some("shared memory is not supported; take the data from the response")
        } else if parameters.classification.is_some_and(|classes| classes > 0) {
            Some("classification is not supported; rank the scores on your side")
        } else {
            None
        };
        if let Some(reason) = unsupported {
            return Err(invalid(format!("output `{}`: {reason}", output.name)));
        }
        names.push(output.name);
        binary.push(parameters.binary_data);
    }
    Ok((names, binary))
}

fn invalid(message: String) -> ApiError {
    ApiError::bad_request("invalid_value", message)
}
