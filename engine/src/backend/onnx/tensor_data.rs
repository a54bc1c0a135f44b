//! Tensors in the data types of the Open Inference Protocol.

use half::f16;

macro_rules! datatypes {
    ($($variant:ident, $element:ty, $ort:ident, $name:literal, $doc:literal;)+) => {
        /// Element type of a tensor. Names are those of the Open Inference Protocol.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Datatype { $(#[doc = $doc] $variant,)+ }

        impl Datatype {
            /// Name in the Open Inference Protocol, for example `FP32`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The type of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            pub(super) fn from_ort(element: ort::value::TensorElementType) -> Option<Self> {
                match element {
                    $(ort::value::TensorElementType::$ort => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }

        /// The elements of a tensor, row-major.
        #[derive(Debug, Clone, PartialEq)]
        pub enum TensorData { $(#[doc = $doc] $variant(Vec<$element>),)+ }

        impl TensorData {
            /// Element type.
            #[must_use]
            pub fn datatype(&self) -> Datatype {
                match self { $(Self::$variant(_) => Datatype::$variant,)+ }
            }

            /// Number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(data) => data.len(),)+ }
            }

            /// Whether there are no elements.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// `count` elements of zero, `false` or the empty string.
            #[must_use]
            pub fn zeros(datatype: Datatype, count: usize) -> Self {
                match datatype {
                    $(Datatype::$variant => Self::$variant(vec![<$element>::default(); count]),)+
                }
            }

            /// Adds elements of the same type at the end; `false`, and nothing
            /// added, when the type is another.
            #[must_use]
            pub fn append(&mut self, more: TensorSlice<'_>) -> bool {
                match (self, more) {
                    $((Self::$variant(data), TensorSlice::$variant(more)) => {
                        data.extend_from_slice(more);
                        true
                    })+
                    _ => false,
                }
            }

            /// The same elements, borrowed.
            #[must_use]
            pub fn as_slice(&self) -> TensorSlice<'_> {
                match self { $(Self::$variant(data) => TensorSlice::$variant(data),)+ }
            }
        }

        /// Borrowed elements of a tensor, row-major.
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum TensorSlice<'a> { $(#[doc = $doc] $variant(&'a [$element]),)+ }

        impl<'a> TensorSlice<'a> {
            /// Some of the elements; `None` when the range reaches beyond them.
            #[must_use]
            pub fn range(self, range: std::ops::Range<usize>) -> Option<Self> {
                match self { $(Self::$variant(data) => data.get(range).map(Self::$variant),)+ }
            }

            /// Element type.
            #[must_use]
            pub fn datatype(&self) -> Datatype {
                match self { $(Self::$variant(_) => Datatype::$variant,)+ }
            }

            /// Number of elements.
            #[must_use]
            pub fn len(&self) -> usize {
                match self { $(Self::$variant(data) => data.len(),)+ }
            }

            /// Whether there are no elements.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            /// A copy that owns its elements.
            #[must_use]
            pub fn to_data(&self) -> TensorData {
                match self { $(Self::$variant(data) => TensorData::$variant(data.to_vec()),)+ }
            }
        }
    };
}

datatypes! {
    Bool, bool, Bool, "BOOL", "Truth values.";
    Uint8, u8, Uint8, "UINT8", "8-bit unsigned integers.";
    Uint16, u16, Uint16, "UINT16", "16-bit unsigned integers.";
    Uint32, u32, Uint32, "UINT32", "32-bit unsigned integers.";
    Uint64, u64, Uint64, "UINT64", "64-bit unsigned integers.";
    Int8, i8, Int8, "INT8", "8-bit signed integers.";
    Int16, i16, Int16, "INT16", "16-bit signed integers.";
    Int32, i32, Int32, "INT32", "32-bit signed integers.";
    Int64, i64, Int64, "INT64", "64-bit signed integers.";
    Fp16, f16, Float16, "FP16", "16-bit floats (IEEE 754 binary16).";
    Fp32, f32, Float32, "FP32", "32-bit floats.";
    Fp64, f64, Float64, "FP64", "64-bit floats.";
    Bytes, String, String, "BYTES", "Strings; ONNX Runtime's are UTF-8 without NUL.";
}
