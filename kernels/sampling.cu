// Draws the next token of each row: penalties, logit bias, grammar mask, temperature, top-k, top-p,
// min-p, softmax and one draw, with the evidence (log-probabilities) where it is asked for.
//
// Shapes   logits [rows, stride >= vocab] in fp32, fp16 or bf16, not changed; one `Row` of
//          parameters a block; vocab <= 2^19. One block a row, 32 to 1024 threads.
// Meaning  engine/src/sampler is the definition, to the last tie; this gives the same token from
//          the same number `uniform`, which the host takes from the sequence's own generator
//          (ChaCha8 of the seed). One number a row and the inverse of the cumulated distribution,
//          not a Gumbel draw with one number a token: same distribution, 1/vocab of the random
//          numbers, and the CPU's own answer.
// Traffic  floor: one read of a row, vocab * size(T). Greedy reads it once. A draw reads it twice
//          more at least (maximum, sums), top-k and top-p three to five times each, evidence five
//          to seven; from the second time on out of L2, where a batch fits (64 * 128 k * 2 bytes
//          = 16 MB). Rows with penalties, bias or suppressed ends are copied first, as fp32.
// Same     The result does not depend on the number of threads or on the order in which they run:
//          sums that decide are integers. Only ln(sum of e^logit) is rounded in an order that the
//          number of threads fixes.
#include "block.cuh"

constexpr u32 MOST_TOP = 20;

// Mirrored by engine/src/cuda/sampling/layout.rs.
struct Row {
	double uniform;      // in [0, 1)
	float inverse;       // 1 / temperature
	float top_p;         // 1 and above: off
	float least;         // weights below are dropped; 0: off
	float repetition, frequency, presence;
	u32 source;          // row of the logits
	u32 greedy;          // 1: the likeliest token
	u32 top_k;           // 0: off
	i32 evidence;        // likeliest tokens to report; -1: none, and no log-probability
	u32 history_begin, history_end;       // into history_*
	u32 bias_begin, bias_end;             // into bias_*, sorted by id
	u32 suppressed_begin, suppressed_end; // into suppressed, each id once
	u32 mask_begin;      // into masks
	i32 mask_words;      // -1: everything is allowed
};

struct Drawn {
	u32 none;      // 1: every logit is masked, -inf or NaN
	u32 id;
	float logprob; // NaN when not asked for
	u32 tops;      // entries of top_* in use
};

struct Sampling {
	const void *logits;
	u64 stride;
	const Row *rows;
	const u32 *history_ids, *history_counts; // 0: in the prompt only
	const u32 *bias_ids;
	const float *biases;
	const u32 *suppressed;
	const u32 *masks; // bit id % 32 of word id / 32
	float *copies;    // [rows, vocab], of the rows that are changed
	float *withheld;  // one a suppressed id
	Drawn *drawn;     // [rows]
	u32 *top_ids;     // [rows, MOST_TOP]
	float *top_logprobs;
	u32 vocab;
};

// A row of logits as the draw sees it.
template <class T> struct Masked {
	const T *logits;
	const u32 *mask;
	i32 words;

	__device__ u64 rank(u32 id) const {
		if (words >= 0 && !((i32)(id / 32) < words && mask[id / 32] >> (id % 32) & 1)) return 0;
		float logit = finite(number(logits[id]));
		return logit > -INFINITE ? rank_of(logit, id) : 0;
	}
};

template <class T> __device__ u64 likeliest(Shared &shared, Masked<T> row, u32 vocab) {
	u64 best = 0;
	for (u32 id = threadIdx.x; id < vocab; id += blockDim.x) best = greater(best, row.rank(id));
	return block_max(shared, best);
}

// ln of the sum of e^logit, and the likeliest tokens, of the untouched row.
template <class T>
__device__ double evidence(Shared &shared, const Sampling &in, const T *logits, u32 asked) {
	Masked<T> row{logits, 0, -1};
	u64 best = likeliest(shared, row, in.vocab);
	if (threadIdx.x == 0) in.drawn[blockIdx.x].tops = 0;
	if (best == 0) return __longlong_as_double(0x7ff8000000000000ll);
	float max = logit_of(best);
	double sum = 0.0;
	for (u32 id = threadIdx.x; id < in.vocab; id += blockDim.x)
		sum += (double)exponential(finite(number(logits[id])) - max);
	double log_sum = log(block_sum(shared, sum)) + (double)max;
	if (asked == 0) return log_sum;

	auto rank = [&](u32 id) { return row.rank(id); };
	u64 least = cut(shared, in.vocab, asked, rank, [](float) { return (u64)1; });
	__syncthreads();
	if (threadIdx.x == 0) shared.count = 0;
	__syncthreads();
	for (u32 id = threadIdx.x; id < in.vocab; id += blockDim.x) {
		u64 own = row.rank(id);
		if (own > 0 && own >= least) shared.bins[atomicAdd(&shared.count, 1u)] = own;
	}
	__syncthreads();
	u32 count = shared.count;
	if (threadIdx.x < count) {
		u64 own = shared.bins[threadIdx.x];
		u32 place = 0;
		for (u32 i = 0; i < count; ++i) place += shared.bins[i] > own;
		u32 at = blockIdx.x * MOST_TOP + place;
		in.top_ids[at] = id_of(own);
		in.top_logprobs[at] = (float)((double)logit_of(own) - log_sum);
	}
	if (threadIdx.x == 0) in.drawn[blockIdx.x].tops = count;
	return log_sum;
}

// A copy of the row with penalties, bias and suppressed ends, in the CPU's order.
template <class T>
__device__ void change(const Sampling &in, const Row &row, const T *logits, float *copy) {
	for (u32 id = threadIdx.x; id < in.vocab; id += blockDim.x) copy[id] = number(logits[id]);
	__syncthreads();
	for (u32 i = row.history_begin + threadIdx.x; i < row.history_end; i += blockDim.x) {
		float logit = copy[in.history_ids[i]];
		logit = logit > 0.0f ? logit / row.repetition : logit * row.repetition;
		u32 count = in.history_counts[i];
		if (count > 0) logit -= row.frequency * (float)count + row.presence;
		copy[in.history_ids[i]] = logit;
	}
	__syncthreads();
	for (u32 i = row.bias_begin + threadIdx.x; i < row.bias_end; i += blockDim.x) {
		u32 id = in.bias_ids[i];
		// The first entry of an id adds all of them, in order.
		if (i > row.bias_begin && in.bias_ids[i - 1] == id) continue;
		for (u32 j = i; j < row.bias_end && in.bias_ids[j] == id; ++j) copy[id] += in.biases[j];
	}
	__syncthreads();
	for (u32 i = row.suppressed_begin + threadIdx.x; i < row.suppressed_end; i += blockDim.x) {
		in.withheld[i] = copy[in.suppressed[i]];
		copy[in.suppressed[i]] = -INFINITE;
	}
	__syncthreads();
}

// One draw from the softmax at the row's temperature, of what top-k, top-p and min-p leave.
template <class T>
__device__ u32 survivor(Shared &shared, const Sampling &in, const Row &row, Masked<T> logits,
                        float max) {
	u64 least = 0;
	auto rank = [&](u32 id) {
		u64 own = logits.rank(id);
		return own >= least ? own : (u64)0;
	};
	auto share = [&](float logit) { return weight((logit - max) * row.inverse); };
	auto amount = [&](u32 id) {
		u64 own = rank(id);
		return own > 0 ? units(share(logit_of(own))) : (u64)0;
	};
	if (row.top_k > 0)
		least = cut(shared, in.vocab, row.top_k, rank, [](float) { return (u64)1; });
	if (row.top_p < 1.0f) {
		u64 sum = 0, total;
		for (u32 id = threadIdx.x; id < in.vocab; id += blockDim.x) sum += amount(id);
		block_scan(shared, sum, total);
		double mass = ceil((double)row.top_p * (double)total);
		u64 target = mass > 1.0 ? (u64)mass : 1;
		u64 nucleus = cut(shared, in.vocab, target, rank,
		                  [&](float logit) { return units(share(logit)); });
		least = greater(least, nucleus);
	}
	return draw(shared, in.vocab, row.uniform, [&](u32 id) {
		u64 own = rank(id);
		float value = own > 0 ? share(logit_of(own)) : 0.0f;
		return value < row.least ? (u64)0 : units(value);
	});
}

template <class T>
__device__ u32 choose(Shared &shared, const Sampling &in, const Row &row, Masked<T> logits,
                      float *copy, bool &none) {
	u64 best = likeliest(shared, logits, in.vocab);
	if (best == 0 && copy && row.suppressed_begin < row.suppressed_end) {
		// The grammar allows only the end: it has ended, and `min_tokens` cannot be reached.
		for (u32 i = row.suppressed_begin + threadIdx.x; i < row.suppressed_end; i += blockDim.x)
			copy[in.suppressed[i]] = in.withheld[i];
		__syncthreads();
		best = likeliest(shared, logits, in.vocab);
	}
	none = best == 0;
	if (none || row.greedy) return none ? 0 : id_of(best);
	return survivor(shared, in, row, logits, logit_of(best));
}

template <class T> __device__ void sample(const Sampling &in) {
	__shared__ Shared shared;
	const Row &row = in.rows[blockIdx.x];
	const T *logits = (const T *)in.logits + row.source * in.stride;
	double log_sum = 0.0;
	if (row.evidence >= 0) log_sum = evidence(shared, in, logits, (u32)row.evidence);

	bool changed = row.history_begin < row.history_end || row.bias_begin < row.bias_end ||
	               row.suppressed_begin < row.suppressed_end;
	const u32 *mask = in.masks + row.mask_begin;
	bool none;
	u32 id;
	if (changed) {
		float *copy = in.copies + (u64)blockIdx.x * in.vocab;
		change(in, row, logits, copy);
		id = choose(shared, in, row, Masked<float>{copy, mask, row.mask_words}, copy, none);
	} else {
		id = choose(shared, in, row, Masked<T>{logits, mask, row.mask_words}, (float *)0, none);
	}
	if (threadIdx.x > 0) return;
	Drawn &out = in.drawn[blockIdx.x];
	out.none = none;
	out.id = id;
	if (row.evidence >= 0 && !none) {
		out.logprob = (float)((double)finite(number(logits[id])) - log_sum);
	} else {
		out.logprob = __uint_as_float(0x7fc00000u);
		if (row.evidence < 0) out.tops = 0;
	}
}

extern "C" {
__global__ void __launch_bounds__(1024) sample_f32(Sampling in) { sample<float>(in); }
__global__ void __launch_bounds__(1024) sample_f16(Sampling in) { sample<Half>(in); }
__global__ void __launch_bounds__(1024) sample_bf16(Sampling in) { sample<Bfloat>(in); }
}
SLUICE_KERNEL(sample_f32)
SLUICE_KERNEL(sample_f16)
SLUICE_KERNEL(sample_bf16)
