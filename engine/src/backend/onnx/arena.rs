//! The K/V of every slot in the host's memory, in one allocation: `[layer][key |
//! value][slot, kv_heads, capacity, head]`. A stretch of slots is contiguous within a layer's keys (or
//! values), so it can be bound as `[slots, kv_heads, capacity, head]` without a copy.
#![expect(
    unsafe_code,
    reason = "ONNX Runtime reads and writes the arena through raw pointers"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{self, NonNull};

use ort::memory::MemoryInfo;
use ort::value::{DynValue, TensorElementType};

use super::bound::borrow_tensor;
use crate::cuda::Float;

/// Sizes of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ArenaShape {
    pub(super) layers: usize,
    pub(super) slots: usize,
    pub(super) kv_heads: usize,
    pub(super) capacity: usize,
    pub(super) head_size: usize,
    pub(super) float: Float,
}

impl ArenaShape {
    /// Bytes of one head's K (or V) of one slot.
    fn head_bytes(&self) -> usize {
        self.capacity * self.head_size * self.float.size()
    }

    fn slot_bytes(&self) -> usize {
        self.kv_heads * self.head_bytes()
    }

    /// Bytes of K and V of one token, all layers.
    pub(super) fn token_bytes(&self) -> usize {
        self.layers * 2 * self.kv_heads * self.head_size * self.float.size()
    }

    /// Where the keys (`part` 0) or values (1) of a layer's slot start.
    fn offset(&self, layer: usize, part: usize, slot: usize) -> usize {
        assert!(layer < self.layers && part < 2 && slot < self.slots);
        ((layer * 2 + part) * self.slots + slot) * self.slot_bytes()
    }

    /// Tensors over slots `first..first + count` of K/V of this shape that start at
    /// `base`: keys and values of layer 0, then of layer 1, and so on.
    ///
    /// # Errors
    /// ONNX Runtime could not make a tensor.
    ///
    /// # Safety
    /// All of the shape's bytes from the address `base` on are memory of the device
    /// that `info` names, aligned for floats, for as long as the tensors are used in a
    /// run; nothing else uses them during a run.
    pub(super) unsafe fn tensors(
        &self,
        base: usize,
        info: &MemoryInfo<'_>,
        first: usize,
        count: usize,
    ) -> ort::Result<Vec<DynValue>> {
        assert!(count > 0 && first + count <= self.slots);
        let dims = [count, self.kv_heads, self.capacity, self.head_size]
            .map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let parts = (0..self.layers).flat_map(|layer| [(layer, 0), (layer, 1)]);
        parts
            .map(|(layer, part)| {
                let start = base + self.offset(layer, part, first);
                let bytes = count * self.slot_bytes();
                // SAFETY: the stretch lies in the shape's bytes (asserted above); the
                // rest is the caller's promise.
                unsafe { borrow_tensor(start, bytes, &dims, element(self.float), info) }
            })
            .collect()
    }

    /// Bytes of the whole; `None` when that exceeds the address space.
    pub(super) fn bytes(&self) -> Option<usize> {
        [
            self.kv_heads,
            self.capacity,
            self.head_size,
            self.float.size(),
            self.slots,
            2,
        ]
        .into_iter()
        .try_fold(self.layers, usize::checked_mul)
    }
}

/// ONNX Runtime's name of a type.
pub(super) fn element(float: Float) -> TensorElementType {
    match float {
        Float::F32 => TensorElementType::Float32,
        Float::F16 => TensorElementType::Float16,
        Float::Bf16 => TensorElementType::Bfloat16,
    }
}

/// The memory; pages are only taken when first written.
pub(super) struct Arena {
    shape: ArenaShape,
    memory: NonNull<u8>,
    layout: Layout,
}

/// Vectorised kernels like whole cache lines.
const LINE: usize = 64;
/// What the C allocator aligns to anyway: a larger wish would make Rust's
/// `alloc_zeroed` write every page instead of leaving it to the kernel.
const ALIGN: usize = 16;

impl Arena {
    /// Zeroed memory of that shape; `None` when there is not as much.
    pub(super) fn new(shape: ArenaShape) -> Option<Self> {
        let bytes = shape.bytes().filter(|bytes| *bytes > 0)?;
        let layout = Layout::from_size_align(bytes.checked_add(LINE)?, ALIGN).ok()?;
        // SAFETY: the size is not zero.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Self {
            shape,
            memory,
            layout,
        })
    }

    pub(super) fn shape(&self) -> &ArenaShape {
        &self.shape
    }

    /// The first byte of the shape.
    fn base(&self) -> NonNull<u8> {
        let start = self.memory.as_ptr().align_offset(LINE);
        // SAFETY: `start` is below the LINE bytes that were allocated on top.
        unsafe { self.memory.add(start) }
    }

    /// Start of the keys (`part` 0) or values (1) of a layer's slot.
    fn slot(&self, layer: usize, part: usize, slot: usize) -> NonNull<u8> {
        // SAFETY: the offset is inside the shape's bytes, which were allocated.
        unsafe { self.base().add(self.shape.offset(layer, part, slot)) }
    }

    /// Tensors over slots `first..first + count`; they are valid while the arena is.
    ///
    /// # Errors
    /// ONNX Runtime could not make a tensor.
    pub(super) fn bind(&self, first: usize, count: usize) -> ort::Result<Vec<DynValue>> {
        let info = MemoryInfo::default();
        let base = self.base().as_ptr().expose_provenance();
        // SAFETY: the arena is memory of the host and outlives the backend's bindings;
        // only the owner thread runs the session or copies in the arena.
        unsafe { self.shape.tensors(base, &info, first, count) }
    }

    /// Copies the first `tokens` tokens of slot `from` to slot `to`.
    pub(super) fn copy_prefix(&mut self, from: usize, to: usize, tokens: usize) {
        let shape = self.shape;
        assert!(tokens <= shape.capacity);
        if from == to {
            return;
        }
        let bytes = tokens * shape.head_size * shape.float.size();
        for (layer, part) in (0..shape.layers).flat_map(|layer| [(layer, 0), (layer, 1)]) {
            let (source, target) = (self.slot(layer, part, from), self.slot(layer, part, to));
            for head in 0..shape.kv_heads {
                let offset = head * shape.head_bytes();
                // SAFETY: both heads lie inside their slots, which differ; `bytes` is
                // at most a head's; `&mut self` excludes other Rust accesses.
                unsafe {
                    let (source, target) = (source.add(offset), target.add(offset));
                    ptr::copy_nonoverlapping(source.as_ptr(), target.as_ptr(), bytes);
                }
            }
        }
    }

    #[cfg(test)]
    pub(super) fn spoil(&mut self, slot: usize, tokens: usize) {
        // SAFETY: the base of this shape's memory; `&mut self` excludes other accesses.
        unsafe {
            self.shape
                .spoil(self.base().as_ptr().expose_provenance(), slot, tokens)
        }
    }
}

#[cfg(test)]
impl ArenaShape {
    /// Overwrites a slot beyond its first `tokens` tokens, to prove that nobody
    /// reads what was not written.
    ///
    /// # Safety
    /// The shape's bytes from `base` on are memory of this process that nobody uses.
    pub(super) unsafe fn spoil(&self, base: usize, slot: usize, tokens: usize) {
        let kept = tokens * self.head_size * self.float.size();
        for (layer, part) in (0..self.layers).flat_map(|layer| [(layer, 0), (layer, 1)]) {
            for head in 0..self.kv_heads {
                let start = base + self.offset(layer, part, slot) + head * self.head_bytes() + kept;
                let start = ptr::with_exposed_provenance_mut::<u8>(start);
                // SAFETY: inside the head. 0x41 repeated is a large but finite float in
                // both widths (12.08 and 2.6).
                unsafe { start.write_bytes(0x41, self.head_bytes() - kept) }
            }
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}
