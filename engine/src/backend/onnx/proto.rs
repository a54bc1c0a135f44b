//! ONNX protobuf on the wire, as far as the graph edit needs it.
//!
//! Messages are read as views into the file's bytes; what is not changed is
//! written back byte for byte, unknown fields included. Inline weights are so
//! copied once (into the result) and never decoded. Field numbers are those of
//! `onnx.proto3` (ONNX IR 3 and later).

mod wire;

use std::borrow::Cow;

pub(super) use self::wire::Malformed;
use self::wire::{Field, Wire, fields, put_varint, take_varint};
pub(super) use self::wire::{put_bytes, put_integer};

/// `TensorProto.DataType`, as far as it is compared.
pub(super) mod element {
    pub(in super::super) const FLOAT: u64 = 1;
    pub(in super::super) const INT32: u64 = 6;
    pub(in super::super) const INT64: u64 = 7;
    pub(in super::super) const FLOAT16: u64 = 10;
    pub(in super::super) const BFLOAT16: u64 = 16;
}

/// A dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Dim<'a> {
    Fixed(u64),
    Free(&'a str),
}

/// `ValueInfoProto` of a tensor.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ValueInfo<'a> {
    pub(super) name: &'a str,
    pub(super) element: u64,
    pub(super) shape: Vec<Dim<'a>>,
    encoded: Cow<'a, [u8]>,
}

impl<'a> ValueInfo<'a> {
    pub(super) fn new(name: &'a str, element: u64, shape: Vec<Dim<'a>>) -> Self {
        let mut dims = Vec::new();
        for dim in &shape {
            let mut encoded = Vec::new();
            match dim {
                Dim::Fixed(size) => put_integer(&mut encoded, 1, *size),
                Dim::Free(name) => put_bytes(&mut encoded, 2, name.as_bytes()),
            }
            put_bytes(&mut dims, 1, &encoded);
        }
        let mut tensor = Vec::new();
        put_integer(&mut tensor, 1, element);
        put_bytes(&mut tensor, 2, &dims);
        let mut kind = Vec::new();
        put_bytes(&mut kind, 1, &tensor);
        let mut encoded = Vec::new();
        put_bytes(&mut encoded, 1, name.as_bytes());
        put_bytes(&mut encoded, 2, &kind);
        Self {
            name,
            element,
            shape,
            encoded: Cow::Owned(encoded),
        }
    }

    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut info = Self {
            name: "",
            element: 0,
            shape: Vec::new(),
            encoded: Cow::Borrowed(message),
        };
        for field in fields(message)? {
            match field.number {
                1 => info.name = field.text()?,
                2 => info.read_type(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(info)
    }

    #[cfg(test)]
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    fn read_type(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        for kind in fields(message)?.iter().filter(|field| field.number == 1) {
            for field in fields(kind.bytes()?)? {
                match field.number {
                    1 => self.element = field.number()?,
                    2 => self.shape = read_shape(field.bytes()?)?,
                    _ => {}
                }
            }
        }
        Ok(())
    }
}

fn read_shape(message: &[u8]) -> Result<Vec<Dim<'_>>, Malformed> {
    let mut shape = Vec::new();
    for dim in fields(message)?.iter().filter(|field| field.number == 1) {
        let mut size = Dim::Free("");
        for field in fields(dim.bytes()?)? {
            match field.number {
                1 => size = Dim::Fixed(field.number()?),
                2 => size = Dim::Free(field.text()?),
                _ => {}
            }
        }
        shape.push(size);
    }
    Ok(shape)
}

/// An integer attribute; others keep their name only.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Attribute<'a> {
    pub(super) name: &'a str,
    pub(super) integer: i64,
    /// It holds a subgraph (control flow).
    pub(super) subgraph: bool,
    raw: &'a [u8],
}

/// `NodeProto`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Node<'a> {
    pub(super) name: &'a str,
    pub(super) op: &'a str,
    pub(super) inputs: Vec<&'a str>,
    pub(super) outputs: Vec<&'a str>,
    pub(super) attributes: Vec<Attribute<'a>>,
    /// The other fields, for writing back.
    rest: Vec<&'a [u8]>,
    /// The message as read; dropped by [`Node::changed`].
    encoded: Option<&'a [u8]>,
    /// Attributes that were added, encoded.
    added: Vec<u8>,
}

impl<'a> Node<'a> {
    /// A node of the default domain with one integer attribute.
    pub(super) fn new(
        op: &'a str,
        inputs: Vec<&'a str>,
        output: &'a str,
        (attribute, value): (&str, u64),
    ) -> Self {
        const INT: u64 = 2;
        let mut encoded = Vec::new();
        put_bytes(&mut encoded, 1, attribute.as_bytes());
        put_integer(&mut encoded, 3, value);
        put_integer(&mut encoded, 20, INT);
        let mut added = Vec::new();
        put_bytes(&mut added, 5, &encoded);
        Self {
            name: output,
            op,
            inputs,
            outputs: vec![output],
            attributes: Vec::new(),
            rest: Vec::new(),
            encoded: None,
            added,
        }
    }

    /// Inputs or attributes are about to change: encode anew.
    pub(super) fn changed(&mut self) -> &mut Self {
        self.encoded = None;
        self
    }

    pub(super) fn attribute(&self, name: &str) -> Option<i64> {
        let mut found = self.attributes.iter().filter(|a| a.name == name);
        found.next().map(|attribute| attribute.integer)
    }

    /// Input `index`, or `""` where an optional one is left out.
    pub(super) fn input(&self, index: usize) -> &'a str {
        self.inputs.get(index).copied().unwrap_or("")
    }

    fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut node = Self {
            name: "",
            op: "",
            inputs: Vec::new(),
            outputs: Vec::new(),
            attributes: Vec::new(),
            rest: Vec::new(),
            encoded: Some(message),
            added: Vec::new(),
        };
        for field in fields(message)? {
            match field.number {
                1 => node.inputs.push(field.text()?),
                2 => node.outputs.push(field.text()?),
                3 => node.name = field.text()?,
                4 => node.op = field.text()?,
                5 => node.attributes.push(read_attribute(&field)?),
                _ => node.rest.push(field.raw),
            }
        }
        Ok(node)
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(encoded) = self.encoded {
            return put_bytes(out, graph_field::NODE, encoded);
        }
        let mut message = Vec::new();
        for input in &self.inputs {
            put_bytes(&mut message, 1, input.as_bytes());
        }
        for output in &self.outputs {
            put_bytes(&mut message, 2, output.as_bytes());
        }
        put_bytes(&mut message, 3, self.name.as_bytes());
        put_bytes(&mut message, 4, self.op.as_bytes());
        for attribute in &self.attributes {
            message.extend_from_slice(attribute.raw);
        }
        message.extend_from_slice(&self.added);
        for field in &self.rest {
            message.extend_from_slice(field);
        }
        put_bytes(out, graph_field::NODE, &message);
    }
}

fn read_attribute<'a>(field: &Field<'a>) -> Result<Attribute<'a>, Malformed> {
    let mut attribute = Attribute {
        name: "",
        integer: 0,
        subgraph: false,
        raw: field.raw,
    };
    for field in fields(field.bytes()?)? {
        match field.number {
            1 => attribute.name = field.text()?,
            3 => attribute.integer = field.number()?.cast_signed(),
            6 | 11 => attribute.subgraph = true,
            _ => {}
        }
    }
    Ok(attribute)
}

/// Where an initializer's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Storage<'a> {
    /// In the model file.
    Inline { bytes: u64 },
    /// In another file of the folder; `length` of `None` means to its end.
    External {
        location: &'a str,
        offset: u64,
        length: Option<u64>,
    },
}

/// `TensorProto` of a weight.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Initializer<'a> {
    pub(super) name: &'a str,
    pub(super) dims: Vec<u64>,
    pub(super) element: u64,
    pub(super) storage: Storage<'a>,
    raw: &'a [u8],
}

impl<'a> Initializer<'a> {
    fn read(field: &Field<'a>) -> Result<Self, Malformed> {
        let message = field.bytes()?;
        let mut tensor = Self {
            name: "",
            dims: Vec::new(),
            element: 0,
            storage: Storage::Inline {
                bytes: message.len() as u64,
            },
            raw: field.raw,
        };
        for field in fields(message)? {
            match (field.number, field.value) {
                (1, Wire::Varint(dim)) => tensor.dims.push(dim),
                (1, Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        tensor.dims.push(take_varint(&mut packed)?);
                    }
                }
                (2, _) => tensor.element = field.number()?,
                (8, _) => tensor.name = field.text()?,
                (13, _) => tensor.read_external(field.bytes()?)?,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// One `StringStringEntryProto` of `external_data`.
    fn read_external(&mut self, message: &'a [u8]) -> Result<(), Malformed> {
        let (mut key, mut value) = ("", "");
        for field in fields(message)? {
            match field.number {
                1 => key = field.text()?,
                2 => value = field.text()?,
                _ => {}
            }
        }
        if matches!(self.storage, Storage::Inline { .. }) {
            self.storage = Storage::External {
                location: "",
                offset: 0,
                length: None,
            };
        }
        let Storage::External {
            location,
            offset,
            length,
        } = &mut self.storage
        else {
            return Ok(());
        };
        let number = |text: &str| {
            text.parse::<u64>()
                .map_err(|_| Malformed("external data with an offset or length that is no number"))
        };
        match key {
            "location" => *location = value,
            "offset" => *offset = number(value)?,
            "length" => *length = Some(number(value)?),
            _ => {}
        }
        Ok(())
    }
}

mod graph_field {
    pub(super) const NODE: u64 = 1;
    pub(super) const INITIALIZER: u64 = 5;
    pub(super) const INPUT: u64 = 11;
    pub(super) const OUTPUT: u64 = 12;
    pub(super) const VALUE_INFO: u64 = 13;
}
const MODEL_GRAPH: u64 = 7;

/// `ModelProto` with its main graph opened.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Model<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) initializers: Vec<Initializer<'a>>,
    pub(super) inputs: Vec<ValueInfo<'a>>,
    pub(super) outputs: Vec<ValueInfo<'a>>,
    /// Declared types of intermediate tensors; hints that ONNX Runtime infers anyway.
    pub(super) hints: Vec<&'a [u8]>,
    graph_rest: Vec<&'a [u8]>,
    model_rest: Vec<&'a [u8]>,
}

impl<'a> Model<'a> {
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut model = Self {
            nodes: Vec::new(),
            initializers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            hints: Vec::new(),
            graph_rest: Vec::new(),
            model_rest: Vec::new(),
        };
        let mut graph = None;
        for field in fields(bytes)? {
            match field.number {
                MODEL_GRAPH if graph.is_some() => return Err(Malformed("it holds two graphs")),
                MODEL_GRAPH => graph = Some(field.bytes()?),
                _ => model.model_rest.push(field.raw),
            }
        }
        let graph = graph.ok_or(Malformed("it holds no graph"))?;
        for field in fields(graph)? {
            match field.number {
                graph_field::NODE => model.nodes.push(Node::read(field.bytes()?)?),
                graph_field::INITIALIZER => model.initializers.push(Initializer::read(&field)?),
                graph_field::INPUT => model.inputs.push(ValueInfo::read(field.bytes()?)?),
                graph_field::OUTPUT => model.outputs.push(ValueInfo::read(field.bytes()?)?),
                graph_field::VALUE_INFO => model.hints.push(field.raw),
                _ => model.graph_rest.push(field.raw),
            }
        }
        Ok(model)
    }

    pub(super) fn write(&self) -> Vec<u8> {
        let weights: usize = self
            .initializers
            .iter()
            .map(|tensor| tensor.raw.len())
            .sum();
        let mut graph_head = Vec::new();
        for node in &self.nodes {
            node.write(&mut graph_head);
        }
        for (number, infos) in [
            (graph_field::INPUT, &self.inputs),
            (graph_field::OUTPUT, &self.outputs),
        ] {
            for info in infos {
                put_bytes(&mut graph_head, number, &info.encoded);
            }
        }
        for raw in self.hints.iter().chain(&self.graph_rest) {
            graph_head.extend_from_slice(raw);
        }
        let length = graph_head.len() + weights;
        let mut out = Vec::with_capacity(length + 4096);
        for raw in &self.model_rest {
            out.extend_from_slice(raw);
        }
        put_varint(&mut out, MODEL_GRAPH << 3 | 2);
        put_varint(&mut out, length as u64);
        out.extend_from_slice(&graph_head);
        for tensor in &self.initializers {
            out.extend_from_slice(tensor.raw);
        }
        out
    }
}

#[cfg(test)]
mod tests;
