//! Protobuf's wire format: tags, varints, length-delimited fields.

/// The bytes are not a protobuf message, or not the one expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid ONNX file: {0}")]
pub(in super::super) struct Malformed(pub(super) &'static str);

/// A field's value on the wire.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Fixed-width; never needed by value here.
    Fixed,
}

/// One field as it stands in its message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Field<'a> {
    pub(super) number: u64,
    pub(super) value: Wire<'a>,
    /// Tag and value, for writing the field back unchanged.
    pub(super) raw: &'a [u8],
}

impl<'a> Field<'a> {
    pub(super) fn bytes(&self) -> Result<&'a [u8], Malformed> {
        match self.value {
            Wire::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a message field has a scalar's wire type")),
        }
    }

    pub(super) fn text(&self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a name is not UTF-8"))
    }

    pub(super) fn number(&self) -> Result<u64, Malformed> {
        match self.value {
            Wire::Varint(number) => Ok(number),
            _ => Err(Malformed("an integer field has another wire type")),
        }
    }
}

/// The fields of a message, in order.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    let mut rest = message;
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let start = rest;
        let tag = take_varint(&mut rest)?;
        let value = match tag & 7 {
            0 => Wire::Varint(take_varint(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Wire::Fixed)?,
            2 => {
                let length = usize::try_from(take_varint(&mut rest)?)
                    .map_err(|_| Malformed("a length exceeds the address space"))?;
                Wire::Bytes(take(&mut rest, length)?)
            }
            5 => take(&mut rest, 4).map(|_| Wire::Fixed)?,
            _ => return Err(Malformed("unknown wire type")),
        };
        let raw = &start[..start.len() - rest.len()];
        fields.push(Field {
            number: tag >> 3,
            value,
            raw,
        });
    }
    Ok(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (head, tail) = rest
        .split_at_checked(length)
        .ok_or(Malformed("it ends in the middle of a field"))?;
    *rest = tail;
    Ok(head)
}

pub(super) fn take_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed("a varint is longer than ten bytes"))
}

pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "the low seven bits")]
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "below 128")]
    out.push(value as u8);
}

pub(in super::super) fn put_bytes(out: &mut Vec<u8>, number: u64, bytes: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(in super::super) fn put_integer(out: &mut Vec<u8>, number: u64, value: u64) {
    put_varint(out, number << 3);
    put_varint(out, value);
}
