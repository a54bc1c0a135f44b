//! Elements as the bytes that travel to a device and back.
#![expect(unsafe_code, reason = "numbers are read and written as their bytes")]

use sluice_tensorrt::ElementType;

use crate::backend::onnx::{Datatype, TensorData, TensorSlice};

/// The protocol's name of an element type; `None` for those that it lacks.
pub(super) fn datatype(element: ElementType) -> Option<Datatype> {
    Some(match element {
        ElementType::F32 => Datatype::Fp32,
        ElementType::F16 => Datatype::Fp16,
        ElementType::I8 => Datatype::Int8,
        ElementType::I32 => Datatype::Int32,
        ElementType::I64 => Datatype::Int64,
        ElementType::U8 => Datatype::Uint8,
        ElementType::Bool => Datatype::Bool,
        ElementType::BF16
        | ElementType::F8
        | ElementType::I4
        | ElementType::F4
        | ElementType::E8M0 => return None,
    })
}

/// Runs `$on!(variant)` for every type that is its bytes, whichever they are.
macro_rules! numbers {
    ($on:ident) => {
        $on!(
            Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64
        )
    };
}

/// The elements' bytes; `None` for strings, which have no fixed size.
pub(super) fn bytes_of(data: TensorSlice<'_>) -> Option<&[u8]> {
    macro_rules! cast {
        ($($variant:ident),+) => {
            match data {
                $(TensorSlice::$variant(data) => Some(as_bytes(data)),)+
                TensorSlice::Bool(data) => Some(as_bytes(data)),
                TensorSlice::Bytes(_) => None,
            }
        };
    }
    numbers!(cast)
}

/// `count` elements, whose bytes `read` writes. `None` for strings.
pub(super) fn filled<E>(
    datatype: Datatype,
    count: usize,
    read: impl FnOnce(&mut [u8]) -> Result<(), E>,
) -> Option<Result<TensorData, E>> {
    if datatype == Datatype::Bool {
        // Not every byte is a truth value, so they are looked at.
        let mut bytes = vec![0_u8; count];
        let done = read(&mut bytes);
        let truths = bytes.iter().map(|&byte| byte != 0);
        return Some(done.map(|()| TensorData::Bool(truths.collect())));
    }
    let mut data = TensorData::zeros(datatype, count);
    macro_rules! fill {
        ($($variant:ident),+) => {
            match &mut data {
                $(TensorData::$variant(data) => as_bytes_mut(data),)+
                TensorData::Bool(_) | TensorData::Bytes(_) => return None,
            }
        };
    }
    let done = read(numbers!(fill));
    Some(done.map(|()| data))
}

/// Only for numbers and truth values.
fn as_bytes<T: Copy>(data: &[T]) -> &[u8] {
    // SAFETY: the callers' types have no padding, so each byte is initialised.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

/// Only for numbers.
fn as_bytes_mut<T: Copy>(data: &mut [T]) -> &mut [u8] {
    // SAFETY: the callers' types have no padding, and any bytes are a value of theirs.
    unsafe { std::slice::from_raw_parts_mut(data.as_mut_ptr().cast(), size_of_val(data)) }
}
