// Copies the K/V of slots: a shared prefix into another slot, and the moves that keep the slots in
// use contiguous.
//
// Shapes   arena [planes, slots, heads, capacity, head] of any type, as bytes; a plane is the keys or
//          the values of a layer; a move copies the first `tokens` tokens of each head. Grid (moves,
//          heads, planes), any number of threads.
// Traffic  floor and cost: each byte moved is read once and written once,
//          2 * planes * heads * sum(tokens) * head * size; 16 bytes a thread and step where pointers
//          and sizes allow.
// Same     A copy. No slot that a launch writes is read or written by another move of it: the host
//          sees to that (engine/src/cuda/slots.rs), and the order of blocks does not matter.
#include "copy.cuh"

struct Move {
	u32 from, to; // slots
	u32 tokens;
};

struct Moves {
	u8 *arena;
	const Move *moves;
	u64 plane_bytes, slot_bytes, head_bytes, token_bytes;
};

extern "C" __global__ void __launch_bounds__(1024) move_slots(Moves in) {
	Move move = in.moves[blockIdx.x];
	u8 *head = in.arena + blockIdx.z * in.plane_bytes + blockIdx.y * in.head_bytes;
	copy_bytes(head + move.to * in.slot_bytes, head + move.from * in.slot_bytes,
	           move.tokens * in.token_bytes);
}
SLUICE_KERNEL(move_slots)
