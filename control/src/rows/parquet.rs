//! Parquet's footer: `FileMetaData` in Thrift's compact protocol, whose third field is the number of rows
//! (<https://github.com/apache/parquet-format>). All else is passed over.

/// Longest footer that is looked into.
const LONGEST: usize = 16 << 20;
/// Structures within structures; a footer has some ten.
const DEPTH: u32 = 32;
/// The length of the footer and the magic.
const END: usize = 8;
const MAGIC: &[u8] = b"PAR1";
/// The field of `FileMetaData`.
const NUM_ROWS: i64 = 3;

/// The end of the file so far.
#[derive(Debug, Default)]
pub struct Parquet {
    tail: Vec<u8>,
}

impl Parquet {
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        let kept = LONGEST + END;
        if self.tail.len() > 2 * kept {
            self.tail.drain(..self.tail.len() - kept);
        }
    }

    /// `None` for what is no Parquet file, an encrypted one, and a footer beyond all measure.
    pub(super) fn finish(self) -> Option<u64> {
        let body = self.tail.len().checked_sub(END)?;
        let (body, end) = self.tail.split_at(body);
        let (length, magic) = end.split_at(4);
        let length = usize::try_from(u32::from_le_bytes(length.try_into().ok()?)).ok()?;
        let footer = body.len().checked_sub(length).map(|at| &body[at..])?;
        (magic == MAGIC).then_some(())?;
        num_rows(Compact { rest: footer })
    }
}

fn num_rows(mut compact: Compact<'_>) -> Option<u64> {
    let mut id = 0;
    loop {
        let (next, kind) = compact.field(id)?;
        id = next;
        if id == NUM_ROWS && kind == I64 {
            return u64::try_from(compact.zigzag()?).ok();
        }
        compact.skip(kind, DEPTH)?;
    }
}

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;

/// What is left of a document in Thrift's compact protocol.
struct Compact<'a> {
    rest: &'a [u8],
}

impl Compact<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn pass(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Id and type of the next field after `last`; `None` at the structure's end.
    fn field(&mut self, last: i64) -> Option<(i64, u8)> {
        let head = self.byte()?;
        let kind = head & 0x0f;
        if kind == 0 {
            return None;
        }
        let id = match head >> 4 {
            0 => self.zigzag()?,
            further => last.checked_add(i64::from(further))?,
        };
        Some((id, kind))
    }

    fn skip(&mut self, kind: u8, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        match kind {
            TRUE | FALSE => Some(()),
            BYTE => self.pass(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.pass(8),
            BINARY => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.pass(length)
            }
            LIST | SET => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    few => u64::from(few),
                };
                self.skip_items(count, &[head & 0x0f], depth)
            }
            MAP => match self.varint()? {
                0 => Some(()),
                count => {
                    let kinds = self.byte()?;
                    self.skip_items(count, &[kinds >> 4, kinds & 0x0f], depth)
                }
            },
            STRUCT => self.skip_struct(depth),
            _ => None,
        }
    }

    /// An item takes a byte at least, so that a count beyond what is left ends by itself.
    fn skip_items(&mut self, count: u64, kinds: &[u8], depth: u32) -> Option<()> {
        for _ in 0..count {
            for kind in kinds {
                match *kind {
                    TRUE | FALSE => self.pass(1)?,
                    kind => self.skip(kind, depth)?,
                }
            }
        }
        Some(())
    }

    fn skip_struct(&mut self, depth: u32) -> Option<()> {
        let mut id = 0;
        while *self.rest.first()? != 0 {
            let (next, kind) = self.field(id)?;
            id = next;
            self.skip(kind, depth)?;
        }
        self.pass(1)
    }
}
