//! Shapes and element types of tensors.

use std::fmt;

/// The most dimensions a tensor has.
pub const MAX_RANK: usize = 8;

/// A tensor's shape; -1 stands for a dimension that is not known before the inputs are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    rank: u8,
    sizes: [i64; MAX_RANK],
}

impl Shape {
    /// A shape of these sizes; `None` for more than [`MAX_RANK`].
    #[must_use]
    pub fn new(sizes: &[i64]) -> Option<Self> {
        let rank = u8::try_from(sizes.len()).ok()?;
        let mut all = [0; MAX_RANK];
        all.get_mut(..sizes.len())?.copy_from_slice(sizes);
        Some(Self { rank, sizes: all })
    }

    /// The sizes, outermost first.
    #[must_use]
    pub fn sizes(&self) -> &[i64] {
        &self.sizes[..usize::from(self.rank)]
    }

    /// Elements; `None` if a size is not known or the product is beyond counting.
    #[must_use]
    pub fn elements(&self) -> Option<u64> {
        self.sizes().iter().try_fold(1_u64, |product, size| {
            product.checked_mul(u64::try_from(*size).ok()?)
        })
    }

    /// Whether every size is known.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.sizes().iter().all(|size| *size >= 0)
    }

    /// Whether it lies between two others, size by size.
    #[must_use]
    pub fn within(&self, smallest: &Self, largest: &Self) -> bool {
        self.rank == smallest.rank
            && self.rank == largest.rank
            && self
                .sizes()
                .iter()
                .zip(smallest.sizes().iter().zip(largest.sizes()))
                .all(|(size, (low, high))| low <= size && size <= high)
    }

    /// Whether known sizes of `pattern` are the same here.
    #[must_use]
    pub fn fits(&self, pattern: &Self) -> bool {
        self.rank == pattern.rank
            && self
                .sizes()
                .iter()
                .zip(pattern.sizes())
                .all(|(size, wanted)| *wanted < 0 || size == wanted)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.sizes(), f)
    }
}

/// The shapes that an input may have under one optimisation profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The smallest.
    pub smallest: Shape,
    /// The one that the engine was tuned for.
    pub best: Shape,
    /// The largest.
    pub largest: Shape,
}

/// Type of a tensor's elements (`nvinfer1::DataType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the types")]
pub enum ElementType {
    F32,
    F16,
    I8,
    I32,
    Bool,
    U8,
    F8,
    BF16,
    I64,
    I4,
    F4,
    E8M0,
}

impl ElementType {
    #[cfg(tensorrt_shim)]
    pub(crate) fn from_number(number: i32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::I8,
            3 => Self::I32,
            4 => Self::Bool,
            5 => Self::U8,
            6 => Self::F8,
            7 => Self::BF16,
            8 => Self::I64,
            9 => Self::I4,
            10 => Self::F4,
            11 => Self::E8M0,
            _ => return None,
        })
    }

    /// Bits of one element.
    #[must_use]
    pub fn bits(self) -> u64 {
        match self {
            Self::I64 => 64,
            Self::F32 | Self::I32 => 32,
            Self::F16 | Self::BF16 => 16,
            Self::I8 | Self::Bool | Self::U8 | Self::F8 | Self::E8M0 => 8,
            Self::I4 | Self::F4 => 4,
        }
    }

    /// Bytes of so many elements; `None` beyond counting.
    #[must_use]
    pub fn bytes(self, elements: u64) -> Option<u64> {
        Some(elements.checked_mul(self.bits())?.div_ceil(8))
    }
}

#[cfg(test)]
mod tests;
