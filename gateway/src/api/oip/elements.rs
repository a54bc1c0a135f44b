//! The elements of a tensor in JSON: numbers, booleans or strings, in one flat
//! array or nested as the shape says. Pure.
//!
//! Every number is parsed from its own text into its own type, so that an
//! `FP64` or `UINT64` comes through exactly.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluice_engine::tensor::{Datatype, TensorData, TensorSlice};

/// Reads `count` elements of `datatype` for a tensor of that `shape`.
///
/// # Errors
/// What is wrong and what would be right, without the tensor's name.
pub(super) fn read(
    json: &RawValue,
    datatype: Datatype,
    shape: &[i64],
    count: usize,
) -> Result<TensorData, String> {
    macro_rules! by_datatype {
        ($($variant:ident),+) => {
            match datatype {
                $(Datatype::$variant => collect(json, datatype, shape, count).map(TensorData::$variant),)+
            }
        };
    }
    by_datatype!(
        Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bytes
    )
}

/// Writes the elements as one flat JSON array. As Triton does, non-finite numbers
/// become `NaN`, `Infinity` and `-Infinity`, which JSON lacks but Python and
/// RapidJSON read: a wrong number would be worse than a loud error elsewhere.
pub(super) fn write(out: &mut Vec<u8>, data: TensorSlice<'_>) {
    macro_rules! by_datatype {
        ($($variant:ident),+) => {
            match data { $(TensorSlice::$variant(data) => write_all(out, data),)+ }
        };
    }
    by_datatype!(
        Bool, Uint8, Uint16, Uint32, Uint64, Int8, Int16, Int32, Int64, Fp16, Fp32, Fp64, Bytes
    );
}

fn write_all<T: Element>(out: &mut Vec<u8>, data: &[T]) {
    out.push(b'[');
    for (at, element) in data.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        element.write(out);
    }
    out.push(b']');
}

fn collect<T: Element>(
    json: &RawValue,
    datatype: Datatype,
    shape: &[i64],
    count: usize,
) -> Result<Vec<T>, String> {
    // Each element takes two bytes of JSON at least: a false shape reserves nothing.
    let room = count.min(json.get().len() / 2 + 1);
    let mut reader = Reader {
        datatype,
        shape,
        count,
        leaf_depth: None,
        elements: Vec::with_capacity(room),
    };
    reader.read(json, 0)?;
    let found = reader.elements.len();
    if found != count {
        return Err(format!(
            "`data` holds {found} elements, shape {shape:?} holds {count}"
        ));
    }
    Ok(reader.elements)
}

struct Reader<'a, T> {
    datatype: Datatype,
    shape: &'a [i64],
    count: usize,
    /// How deep the first element lay; all others must lie there too.
    leaf_depth: Option<usize>,
    elements: Vec<T>,
}

impl<T: Element> Reader<'_, T> {
    fn read(&mut self, json: &RawValue, depth: usize) -> Result<(), String> {
        let text = json.get();
        if !text.starts_with('[') {
            return self.leaf(text, depth);
        }
        if depth >= self.shape.len().max(1) {
            return Err(format!(
                "`data` is nested deeper than shape {:?}",
                self.shape
            ));
        }
        let mut failure = None;
        let each = Each(|item: &RawValue| {
            let read = self.read(item, depth + 1);
            read.map_err(|error| failure = Some(error)).is_ok()
        });
        let length = serde_json::Deserializer::from_str(text).deserialize_seq(each);
        match (failure, length) {
            (Some(failure), _) => Err(failure),
            (None, Err(error)) => Err(format!("`data` is not valid JSON: {error}")),
            (None, Ok(length)) => self.check_length(depth, length),
        }
    }

    fn leaf(&mut self, text: &str, depth: usize) -> Result<(), String> {
        let rank = self.shape.len();
        let allowed = depth == rank || depth == 1;
        if !allowed || *self.leaf_depth.get_or_insert(depth) != depth {
            return Err(format!(
                "`data` must be one flat array, or nested as shape {:?} throughout",
                self.shape
            ));
        }
        if self.elements.len() == self.count {
            return Err(format!(
                "`data` holds more than the {} elements of shape {:?}",
                self.count, self.shape
            ));
        }
        let element = T::parse(text).ok_or_else(|| {
            let at = self.elements.len();
            let found = shorten(text);
            format!(
                "element {at} is {found}; {} takes {}",
                self.datatype.name(),
                T::TAKES
            )
        })?;
        self.elements.push(element);
        Ok(())
    }

    /// In nested data each array is as long as the shape says.
    fn check_length(&self, depth: usize, length: usize) -> Result<(), String> {
        let nested = self.leaf_depth.is_some_and(|leaf| leaf > 1);
        match self.shape.get(depth) {
            Some(&right) if nested && usize::try_from(right) != Ok(length) => Err(format!(
                "an array in dimension {depth} of `data` has {length} entries; shape {:?} says {right}",
                self.shape
            )),
            _ => Ok(()),
        }
    }
}

/// Hands each entry of an array over until it says no; yields their number.
struct Each<F>(F);

impl<'de, F: FnMut(&'de RawValue) -> bool> Visitor<'de> for Each<F> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut entries: A) -> Result<usize, A::Error> {
        let mut length = 0;
        while let Some(entry) = entries.next_element::<&RawValue>()? {
            if !(self.0)(entry) {
                return Err(A::Error::custom("refused"));
            }
            length += 1;
        }
        Ok(length)
    }
}

/// What the client sent is repeated at most this long.
fn shorten(text: &str) -> String {
    const SHOWN: usize = 40;
    match text.char_indices().nth(SHOWN) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// One element as JSON text.
trait Element: Sized {
    /// What `parse` takes, for messages.
    const TAKES: &'static str;
    fn parse(text: &str) -> Option<Self>;
    fn write(&self, out: &mut Vec<u8>);
}

impl Element for bool {
    const TAKES: &'static str = "true or false (or 1 and 0)";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self { b"true" } else { b"false" });
    }
}

macro_rules! integers {
    ($($integer:ty: $takes:literal),+) => { $(
        impl Element for $integer {
            const TAKES: &'static str = $takes;

            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(self.to_string().as_bytes());
            }
        }
    )+ };
}

integers! {
    u8: "integers from 0 to 255",
    u16: "integers from 0 to 65535",
    u32: "integers from 0 to 4294967295",
    u64: "integers from 0 to 18446744073709551615",
    i8: "integers from -128 to 127",
    i16: "integers from -32768 to 32767",
    i32: "integers from -2147483648 to 2147483647",
    i64: "integers from -9223372036854775808 to 9223372036854775807"
}

macro_rules! floats {
    ($($float:ty as $wide:ty),+) => { $(
        impl Element for $float {
            const TAKES: &'static str = "numbers within its range";

            fn parse(text: &str) -> Option<Self> {
                // Rust reads words like `inf` too; JSON's numbers begin otherwise.
                let number = text.starts_with(|first: char| first == '-' || first.is_ascii_digit());
                let value: Self = number.then(|| text.parse().ok())??;
                value.is_finite().then_some(value)
            }

            fn write(&self, out: &mut Vec<u8>) {
                let wide = <$wide>::from(*self);
                if wide.is_finite() {
                    // Writing a number into memory cannot fail.
                    _ = serde_json::to_writer(out, &wide);
                } else if wide.is_nan() {
                    out.extend_from_slice(b"NaN");
                } else if wide.is_sign_positive() {
                    out.extend_from_slice(b"Infinity");
                } else {
                    out.extend_from_slice(b"-Infinity");
                }
            }
        }
    )+ };
}

floats!(half::f16 as f32, f32 as f32, f64 as f64);

impl Element for String {
    const TAKES: &'static str = "strings without NUL";

    fn parse(text: &str) -> Option<Self> {
        let string: Self = serde_json::from_str(text).ok()?;
        (!string.contains('\0')).then_some(string)
    }

    fn write(&self, out: &mut Vec<u8>) {
        _ = serde_json::to_writer(out, self);
    }
}
