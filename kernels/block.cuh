// What the threads of one block find out together. A block is 32 to 1024 threads, a multiple of
// 32. All results are the same whatever the number of threads, except the sum of doubles, whose
// order it fixes. Every function is called by all threads of the block and returns the same to
// each of them.
#pragma once
#include "device.cuh"

constexpr u32 WARP = 32;
constexpr u32 EVERYONE = 0xffffffffu;

// Shared memory of the functions below.
constexpr u32 BINS = 2048;
struct Shared {
	u64 bins[BINS];
	u64 words[32];
	double doubles[32];
	u64 found_before, found_own;
	u32 found;
	u32 count;
};

__device__ inline u32 lane() { return threadIdx.x % WARP; }
__device__ inline u32 warp() { return threadIdx.x / WARP; }
__device__ inline u32 warps() { return blockDim.x / WARP; }

__device__ inline u64 greater(u64 a, u64 b) { return a > b ? a : b; }

__device__ inline u64 block_max(Shared &shared, u64 value) {
	for (u32 step = WARP / 2; step > 0; step /= 2)
		value = greater(value, __shfl_xor_sync(EVERYONE, value, step));
	__syncthreads(); // an earlier result may still be read
	if (lane() == 0) shared.words[warp()] = value;
	__syncthreads();
	for (u32 w = 0; w < warps(); ++w) value = greater(value, shared.words[w]);
	return value;
}

__device__ inline double block_sum(Shared &shared, double value) {
	for (u32 step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(EVERYONE, value, step);
	__syncthreads();
	if (lane() == 0) shared.doubles[warp()] = value;
	__syncthreads();
	value = 0.0;
	for (u32 w = 0; w < warps(); ++w) value += shared.doubles[w];
	return value;
}

// Sum over the lanes before and including one's own.
__device__ inline u64 warp_scan(u64 value) {
	for (u32 step = 1; step < WARP; step *= 2) {
		u64 other = __shfl_up_sync(EVERYONE, value, step);
		if (lane() >= step) value += other;
	}
	return value;
}

// Sum over the threads before one's own; `total` is that over all.
__device__ inline u64 block_scan(Shared &shared, u64 value, u64 &total) {
	u64 including = warp_scan(value);
	__syncthreads();
	if (lane() == WARP - 1) shared.words[warp()] = including;
	__syncthreads();
	u64 before = 0;
	total = 0;
	for (u32 w = 0; w < warps(); ++w) {
		if (w == warp()) before = total;
		total += shared.words[w];
	}
	return before + including - value;
}

// Where the sum over bins[0..length] reaches its goal.
struct Crossing {
	u32 index;  // the first at which the sum up to and including it does
	u64 before; // the sum before it
	u64 own;    // its own value
	bool found;
};

template <class Reached>
__device__ Crossing crossing(Shared &shared, u32 length, Reached reached) {
	u32 each = (length + blockDim.x - 1) / blockDim.x;
	u32 start = threadIdx.x * each;
	u32 end = start + each < length ? start + each : length;
	__syncthreads();
	if (threadIdx.x == 0) shared.found = length;
	u64 own = 0, total;
	for (u32 i = start; i < end; ++i) own += shared.bins[i];
	u64 before = block_scan(shared, own, total);
	if (!reached(before) && reached(before + own)) {
		for (u32 i = start; i < end; ++i) {
			if (reached(before + shared.bins[i])) {
				shared.found = i;
				shared.found_before = before;
				shared.found_own = shared.bins[i];
				break;
			}
			before += shared.bins[i];
		}
	}
	__syncthreads();
	Crossing result{shared.found, shared.found_before, shared.found_own, shared.found < length};
	__syncthreads();
	return result;
}

// The least rank of the smallest set of best-ranked tokens whose amounts add up to `target` (at
// least 1); 0, which keeps everything, when all of them do not. `rank(id)` is 0 for no token,
// `amount(logit)` depends on nothing but the logit.
//
// A radix selection: a histogram of amounts over the upper bits of the ranks tells the bin in which
// the target is reached; the next pass looks into that bin only. Integers, so the order in which
// atomics land does not matter. Three passes decide over logits, two more over equals.
template <class Rank, class Amount>
__device__ u64 cut(Shared &shared, u32 vocab, u64 target, Rank rank, Amount amount) {
	constexpr int WIDTHS[5] = {11, 11, 10, 10, 9}; // 32 bits of logit, ID_BITS of id
	u64 prefix = 0;
	int shift = 32 + ID_BITS;
#pragma unroll 1
	for (int pass = 0; pass < 5; ++pass) {
		int above = shift;
		shift -= WIDTHS[pass];
		u32 bins = 1u << WIDTHS[pass];
		for (u32 i = threadIdx.x; i < bins; i += blockDim.x) shared.bins[i] = 0;
		__syncthreads();
		for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) {
			u64 own = rank(id);
			if (own == 0 || own >> above != prefix) continue;
			u64 value = amount(logit_of(own));
			// Best first, so that sums run from the best down.
			u32 bin = bins - 1 - (u32)(own >> shift & (bins - 1));
			if (value > 0) atomicAdd(&shared.bins[bin], value);
		}
		Crossing at = crossing(shared, bins, [&](u64 sum) { return sum >= target; });
		if (!at.found) return 0;
		prefix = prefix << WIDTHS[pass] | (bins - 1 - at.index);
		target -= at.before;
		if (target == at.own) break; // the whole bin is in
		// All in the bin are equals from the third pass on: is each of them needed?
		if (pass == 2 && at.own - target < amount(logit_of(prefix << ID_BITS))) break;
	}
	return prefix << shift;
}

// The token in whose share of the amounts, laid out in the order of ids, the point
// `uniform` * total lies.
template <class Amount>
__device__ u32 draw(Shared &shared, u32 vocab, double uniform, Amount amount) {
	constexpr u32 STRETCH = 512; // as many as there are bins, for 2^19 tokens and more
	u32 stretches = (vocab + STRETCH - 1) / STRETCH;
	__syncthreads();
	u64 mine = 0;
	for (u32 s = warp(); s < stretches; s += warps()) {
		u64 sum = 0;
		for (u32 id = s * STRETCH + lane(); id < (s + 1) * STRETCH && id < vocab; id += WARP)
			sum += amount(id);
		for (u32 step = WARP / 2; step > 0; step /= 2)
			sum += __shfl_xor_sync(EVERYONE, sum, step);
		if (lane() == 0) {
			shared.bins[s] = sum;
			mine += sum;
		}
	}
	u64 total;
	block_scan(shared, mine, total);
	// Below 2^53, so the conversions are exact.
	double point = uniform * (double)total;
	auto reached = [&](u64 sum) { return (double)sum > point; };
	Crossing at = crossing(shared, stretches, reached);
	if (warp() == 0 && at.found) {
		u64 before = at.before;
		for (u32 start = at.index * STRETCH; start < vocab; start += WARP) {
			u32 id = start + lane();
			u64 including = before + warp_scan(id < vocab ? amount(id) : 0);
			u32 hits = __ballot_sync(EVERYONE, reached(including));
			if (hits) {
				if (lane() == 0) shared.count = start + __ffs(hits) - 1;
				break;
			}
			before = __shfl_sync(EVERYONE, including, WARP - 1);
		}
	}
	__syncthreads();
	return shared.count;
}
