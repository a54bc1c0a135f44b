//! What a tensor model takes and gives, and whether a request fits it. Pure.

use std::collections::HashMap;

use super::{InferError, NamedTensor};
use crate::backend::onnx::{Datatype, Dimension, TensorInfo};
use crate::error::LoadError;

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Name in the graph.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions, outermost first. Empty for a scalar, and for an input whose
    /// rank the graph leaves open (ONNX Runtime tells the two apart at the run).
    pub shape: Vec<Dimension>,
}

impl TensorSpec {
    /// The shape with `-1` for free dimensions, as the Open Inference Protocol writes it.
    #[must_use]
    pub fn dims(&self) -> Vec<i64> {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => *size,
            Dimension::Free(_) => -1,
        };
        self.shape.iter().map(size).collect()
    }

    /// The shape with the free dimensions' names, for messages: `[batch, 4]`.
    fn spelled(&self) -> String {
        let size = |dimension: &Dimension| match dimension {
            Dimension::Fixed(size) => size.to_string(),
            Dimension::Free(name) if name.is_empty() => "-1".to_owned(),
            Dimension::Free(name) => name.clone(),
        };
        let sizes: Vec<_> = self.shape.iter().map(size).collect();
        format!("[{}]", sizes.join(", "))
    }
}

/// The inputs and outputs of a model, in the graph's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// All of them must come with a request.
    pub inputs: Vec<TensorSpec>,
    /// Any of them can be asked for.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// The signature of a loaded graph.
    ///
    /// # Errors
    /// [`LoadError::Unsupported`] naming the tensor whose type the Open Inference
    /// Protocol cannot carry (bfloat16, sequences, maps), or a graph without outputs.
    pub(super) fn of(
        model: &str,
        inputs: &[TensorInfo],
        outputs: &[TensorInfo],
    ) -> Result<Self, LoadError> {
        let unsupported = |reason| LoadError::Unsupported {
            model: model.to_owned(),
            reason,
        };
        let spec = |kind: &str, info: &TensorInfo| match info.datatype {
            Some(datatype) => Ok(TensorSpec {
                name: info.name.clone(),
                datatype,
                shape: info.shape.clone(),
            }),
            None => Err(unsupported(format!(
                "{kind} `{}` has a type that tensor requests cannot carry \
                 (bfloat16, a sequence or a map); convert it inside the graph",
                info.name
            ))),
        };
        let specs = |kind: &str, infos: &[TensorInfo]| {
            infos
                .iter()
                .map(|info| spec(kind, info))
                .collect::<Result<Vec<_>, _>>()
        };
        let signature = Self {
            inputs: specs("input", inputs)?,
            outputs: specs("output", outputs)?,
        };
        if signature.outputs.is_empty() {
            return Err(unsupported("the graph has no outputs".to_owned()));
        }
        Ok(signature)
    }

    /// The input of that name.
    #[must_use]
    pub fn input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|spec| spec.name == name)
    }

    /// The output of that name.
    #[must_use]
    pub fn output(&self, name: &str) -> Option<&TensorSpec> {
        self.outputs.iter().find(|spec| spec.name == name)
    }

    /// Whether all inputs and outputs share one free first dimension (of the same
    /// name): then that dimension counts the examples of a request.
    #[must_use]
    pub fn has_batch_dimension(&self) -> bool {
        let first = |spec: &TensorSpec| match spec.shape.first() {
            Some(Dimension::Free(name)) if !name.is_empty() => Some(name.clone()),
            _ => None,
        };
        let Some(symbol) = self.inputs.first().and_then(first) else {
            return false;
        };
        self.inputs
            .iter()
            .chain(&self.outputs)
            .all(|spec| first(spec).as_ref() == Some(&symbol))
    }

    /// Checks a request. Afterwards each input of the graph is there exactly once,
    /// with its type, a fitting shape and as many elements as the shape says; equal
    /// symbols have equal sizes.
    ///
    /// # Errors
    /// [`InferError::Invalid`] naming the tensor and what would be right.
    pub fn check(
        &self,
        inputs: &[NamedTensor],
        wanted: Option<&[String]>,
    ) -> Result<(), InferError> {
        let mut symbols = HashMap::new();
        for (at, tensor) in inputs.iter().enumerate() {
            let invalid = |message| InferError::invalid(&tensor.name, message);
            let Some(spec) = self.input(&tensor.name) else {
                return Err(invalid(format!(
                    "unknown input; the model takes {}",
                    names(&self.inputs)
                )));
            };
            if inputs[..at]
                .iter()
                .any(|earlier| earlier.name == tensor.name)
            {
                return Err(invalid("the input is given twice; give it once".to_owned()));
            }
            check_tensor(spec, tensor).map_err(invalid)?;
            check_symbols(spec, tensor, &mut symbols).map_err(invalid)?;
        }
        for spec in &self.inputs {
            if !inputs.iter().any(|tensor| tensor.name == spec.name) {
                let message = format!(
                    "the input is missing; it takes {} {}",
                    spec.datatype.name(),
                    spec.spelled()
                );
                return Err(InferError::invalid(&spec.name, message));
            }
        }
        self.check_wanted(wanted.unwrap_or_default())
    }

    fn check_wanted(&self, wanted: &[String]) -> Result<(), InferError> {
        for (at, name) in wanted.iter().enumerate() {
            if self.output(name).is_none() {
                let message = format!("unknown output; the model gives {}", names(&self.outputs));
                return Err(InferError::invalid(name, message));
            }
            if wanted[..at].contains(name) {
                let message = "the output is asked for twice; ask for it once".to_owned();
                return Err(InferError::invalid(name, message));
            }
        }
        Ok(())
    }
}

/// Elements that a shape holds.
///
/// # Errors
/// A negative dimension, or a product beyond what memory could hold.
pub fn elements(shape: &[i64]) -> Result<usize, String> {
    let mut product = 1_usize;
    // A zero makes the product zero, whatever comes before or after it.
    let mut zero = false;
    for &size in shape {
        let size = usize::try_from(size)
            .map_err(|_| format!("shape {shape:?} has a negative dimension; give actual sizes"))?;
        zero |= size == 0;
        product = if size == 0 {
            product
        } else {
            product.saturating_mul(size)
        };
    }
    match product {
        _ if zero => Ok(0),
        product if product > isize::MAX as usize => {
            Err(format!("shape {shape:?} holds more elements than memory"))
        }
        product => Ok(product),
    }
}

fn check_tensor(spec: &TensorSpec, tensor: &NamedTensor) -> Result<(), String> {
    let datatype = tensor.data.datatype();
    if datatype != spec.datatype {
        let (given, right) = (datatype.name(), spec.datatype.name());
        return Err(format!("datatype is {given}; the model takes {right}"));
    }
    let expected = elements(&tensor.shape)?;
    let fits = |(dimension, size): (&Dimension, &i64)| match dimension {
        Dimension::Fixed(fixed) => fixed == size,
        Dimension::Free(_) => true,
    };
    let same_rank = spec.shape.len() == tensor.shape.len();
    let open_rank = spec.shape.is_empty();
    let fits = open_rank || same_rank && spec.shape.iter().zip(&tensor.shape).all(fits);
    if !fits {
        return Err(format!(
            "shape is {:?}; the model takes {}",
            tensor.shape,
            spec.spelled()
        ));
    }
    if tensor.data.len() != expected {
        return Err(format!(
            "{} elements are given, shape {:?} holds {expected}",
            tensor.data.len(),
            tensor.shape
        ));
    }
    Ok(())
}

/// Where a symbol was first given its size.
type Bound<'a> = (i64, &'a str);

fn check_symbols<'a>(
    spec: &'a TensorSpec,
    tensor: &NamedTensor,
    symbols: &mut HashMap<&'a str, Bound<'a>>,
) -> Result<(), String> {
    for (at, (dimension, &size)) in spec.shape.iter().zip(&tensor.shape).enumerate() {
        let Dimension::Free(symbol) = dimension else {
            continue;
        };
        if symbol.is_empty() {
            continue;
        }
        let (bound, by) = *symbols.entry(symbol).or_insert((size, &spec.name));
        if bound != size {
            return Err(format!(
                "dimension {at} (`{symbol}`) is {size}, but {bound} in input `{by}`; both must be equal"
            ));
        }
    }
    Ok(())
}

fn names(specs: &[TensorSpec]) -> String {
    if specs.is_empty() {
        return "none".to_owned();
    }
    let names: Vec<_> = specs
        .iter()
        .map(|spec| format!("`{}`", spec.name))
        .collect();
    names.join(", ")
}
