// Gathers the hidden rows that logits are wanted of, before the language-model head.
//
// Shapes   from [tokens, row_bytes] and to [wanted, row_bytes] of any type, as bytes; indices
//          [wanted], each < tokens (the host checks). Grid (wanted), any number of threads.
// Traffic  floor and cost: 2 * wanted * row_bytes.
// Same     A copy.
#include "copy.cuh"

struct Gather {
	u8 *to;
	const u8 *from;
	const u32 *indices;
	u64 row_bytes;
};

extern "C" __global__ void __launch_bounds__(1024) gather_rows(Gather in) {
	copy_bytes(in.to + blockIdx.x * in.row_bytes, in.from + in.indices[blockIdx.x] * in.row_bytes,
	           in.row_bytes);
}
SLUICE_KERNEL(gather_rows)
