//! The elements of a tensor in the binary extension: little-endian, row-major;
//! a `BYTES` element is its length in four bytes and the bytes themselves. Pure.

use sluice_engine::tensor::{Datatype, TensorData, TensorSlice};

/// Reads `count` elements; they must take all of `bytes`.
///
/// # Errors
/// What is wrong and what would be right, without the tensor's name.
pub(super) fn read(bytes: &[u8], datatype: Datatype, count: usize) -> Result<TensorData, String> {
    macro_rules! fixed {
        ($($variant:ident: $element:ty),+) => {
            match datatype {
                Datatype::Bool => {
                    check_size(bytes, datatype, count, 1)?;
                    TensorData::Bool(bytes.iter().map(|&byte| byte != 0).collect())
                }
                Datatype::Bytes => TensorData::Bytes(read_strings(bytes, count)?),
                $(Datatype::$variant => {
                    const SIZE: usize = size_of::<$element>();
                    check_size(bytes, datatype, count, SIZE)?;
                    let (elements, _) = bytes.as_chunks::<SIZE>();
                    TensorData::$variant(
                        elements.iter().map(|each| <$element>::from_le_bytes(*each)).collect(),
                    )
                })+
            }
        };
    }
    Ok(fixed!(
        Uint8: u8, Uint16: u16, Uint32: u32, Uint64: u64, Int8: i8, Int16: i16, Int32: i32,
        Int64: i64, Fp16: half::f16, Fp32: f32, Fp64: f64
    ))
}

/// Appends the elements; the number of bytes is what `out` has grown by.
pub(super) fn write(out: &mut Vec<u8>, data: TensorSlice<'_>) {
    macro_rules! fixed {
        ($($variant:ident),+) => {
            match data {
                TensorSlice::Bool(data) => out.extend(data.iter().map(|&each| u8::from(each))),
                TensorSlice::Bytes(data) => write_strings(out, data),
                $(TensorSlice::$variant(data) => {
                    out.reserve(size_of_val(data));
                    data.iter().for_each(|each| out.extend_from_slice(&each.to_le_bytes()));
                })+
            }
        };
    }
    fixed!(
        Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64
    );
}

fn check_size(bytes: &[u8], datatype: Datatype, count: usize, size: usize) -> Result<(), String> {
    if count.checked_mul(size) == Some(bytes.len()) {
        return Ok(());
    }
    Err(format!(
        "`binary_data_size` is {}; {count} elements of {} take {size} bytes each",
        bytes.len(),
        datatype.name()
    ))
}

fn read_strings(bytes: &[u8], count: usize) -> Result<Vec<String>, String> {
    // Each element takes four bytes at least: a false shape reserves nothing.
    let mut strings = Vec::with_capacity(count.min(bytes.len() / 4));
    let mut rest = bytes;
    while let Some((length, tail)) = rest.split_first_chunk::<4>() {
        let at = strings.len();
        if at == count {
            break;
        }
        let length = u32::from_le_bytes(*length) as usize;
        let Some((string, tail)) = tail.split_at_checked(length) else {
            return Err(format!(
                "element {at} says {length} bytes, {} are left",
                tail.len()
            ));
        };
        let string = std::str::from_utf8(string)
            .ok()
            .filter(|string| !string.contains('\0'))
            .ok_or_else(|| {
                format!("element {at} is not UTF-8 without NUL, which ONNX strings must be")
            })?;
        strings.push(string.to_owned());
        rest = tail;
    }
    if strings.len() == count && rest.is_empty() {
        return Ok(strings);
    }
    Err(format!(
        "the {} bytes hold {} elements and {} bytes more; the shape holds {count} elements",
        bytes.len(),
        strings.len(),
        rest.len()
    ))
}

fn write_strings(out: &mut Vec<u8>, strings: &[String]) {
    for string in strings {
        // No element is longer than memory that this process was given for one
        // response; a longer one is cut rather than misaligned.
        let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&string.as_bytes()[..length as usize]);
    }
}
