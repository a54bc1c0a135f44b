//! K/V copied between slots of an arena in device memory: a shared prefix, and the
//! moves that keep the slots in use contiguous.
#![expect(unsafe_code, reason = "launches a kernel on raw addresses")]

use super::CudaError;
use super::buffers::Kept;
use super::machine::{Buffer, Launch, Machine, Plain, bytes_of};

const THREADS: u32 = 256;

/// Shape of an arena: `[planes, slots, heads, capacity, token]`. A plane is the keys
/// or the values of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotShape {
    /// Twice the layers.
    pub planes: usize,
    /// Sequences.
    pub slots: usize,
    /// K/V heads.
    pub heads: usize,
    /// Tokens of a slot.
    pub capacity: usize,
    /// Bytes of one head's vector of one token.
    pub token_bytes: usize,
}

impl SlotShape {
    fn head_bytes(&self) -> usize {
        self.capacity * self.token_bytes
    }

    fn slot_bytes(&self) -> usize {
        self.heads * self.head_bytes()
    }

    /// Bytes of the arena.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.planes * self.slots * self.slot_bytes()
    }
}

/// The first `tokens` tokens of slot `from` go to slot `to`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotMove {
    /// Slot that is read.
    pub from: u32,
    /// Slot that is written.
    pub to: u32,
    /// Tokens.
    pub tokens: u32,
}

// SAFETY: three numbers of the same size.
unsafe impl Plain for SlotMove {}

/// Kernel `move_slots`.
#[derive(Debug)]
pub struct SlotMoves<B> {
    moves: Kept<B>,
}

impl<B> Default for SlotMoves<B> {
    fn default() -> Self {
        Self {
            moves: Kept::default(),
        }
    }
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Arguments {
    arena: u64,
    moves: u64,
    plane_bytes: u64,
    slot_bytes: u64,
    head_bytes: u64,
    token_bytes: u64,
}

// SAFETY: six numbers of the same size.
unsafe impl Plain for Arguments {}

impl<B: Buffer> SlotMoves<B> {
    /// Starts all moves at once.
    ///
    /// # Errors
    /// [`CudaError::Shape`] when a move is out of range, or writes a slot that another
    /// reads or writes.
    pub fn run<M: Machine<Buffer = B>>(
        &mut self,
        machine: &mut M,
        arena: &mut B,
        shape: &SlotShape,
        moves: &[SlotMove],
    ) -> Result<(), CudaError> {
        check(shape, arena.size(), moves)?;
        if moves.is_empty() || shape.bytes() == 0 {
            return Ok(());
        }
        let kept = self.moves.holding(machine, bytes_of(moves))?;
        let arguments = Arguments {
            arena: arena.address(),
            moves: kept.address(),
            plane_bytes: (shape.slots * shape.slot_bytes()) as u64,
            slot_bytes: shape.slot_bytes() as u64,
            head_bytes: shape.head_bytes() as u64,
            token_bytes: shape.token_bytes as u64,
        };
        let launch = Launch {
            image: "slots",
            kernel: "move_slots",
            grid: [moves.len() as u32, shape.heads as u32, shape.planes as u32],
            threads: THREADS,
            arguments: bytes_of(std::slice::from_ref(&arguments)),
        };
        // SAFETY: `check` found each stretch inside the arena and no two moves in each
        // other's way; the arena is borrowed mutably; it and `kept` belong to the
        // machine, which frees memory after what was launched before.
        unsafe { machine.launch(&launch) }
    }
}

fn check(shape: &SlotShape, size: usize, moves: &[SlotMove]) -> Result<(), CudaError> {
    let wrong = |text: String| Err(CudaError::Shape(text));
    if shape.bytes() > size {
        return wrong(format!("an arena of {} bytes in {size}", shape.bytes()));
    }
    // Limits of a grid.
    if shape.planes > 65_535 || shape.heads > 65_535 {
        return wrong(format!(
            "{} planes of {} heads: at most 65535 of each",
            shape.planes, shape.heads
        ));
    }
    let mut read = vec![false; shape.slots];
    let mut written = vec![false; shape.slots];
    for &SlotMove { from, to, tokens } in moves {
        let slots = shape.slots;
        if from as usize >= slots || to as usize >= slots || tokens as usize > shape.capacity {
            return wrong(format!(
                "{tokens} tokens from slot {from} to {to}: there are {slots} slots of {}",
                shape.capacity
            ));
        }
        if written[to as usize] {
            return wrong(format!("two moves to slot {to}"));
        }
        read[from as usize] = true;
        written[to as usize] = true;
    }
    match (0..shape.slots).find(|&slot| read[slot] && written[slot]) {
        Some(slot) => wrong(format!("slot {slot} is read and written at once")),
        None => Ok(()),
    }
}

/// The fewest moves after which the slots in use are the first ones. `in_use` gives
/// each slot's tokens, `None` for a free slot.
#[must_use]
pub fn compaction(in_use: &[Option<u32>]) -> Vec<SlotMove> {
    let count = in_use.iter().flatten().count();
    let (front, back) = in_use.split_at(count);
    let holes = (0u32..).zip(front).filter(|(_, tokens)| tokens.is_none());
    let behind = (count as u32..).zip(back);
    let sources = behind.filter_map(|(slot, tokens)| tokens.map(|tokens| (slot, tokens)));
    holes
        .zip(sources)
        .map(|((to, _), (from, tokens))| SlotMove { from, to, tokens })
        .collect()
}
