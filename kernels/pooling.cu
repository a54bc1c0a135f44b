// From the token vectors of a text to one vector: CLS, last token, maximum, mean, mean by the square
// root of the length; then to length 1 where that is asked for.
//
// Shapes   hidden [texts, length, width] in fp32, fp16 or bf16, padded on the right; tokens [texts],
//          each in 1..=length; out [texts, width] fp32. One block a text, 32 to 1024 threads.
// Traffic  floor: the tokens that count, read once, sum(tokens) * width * size(T), and the vectors
//          written; normalising reads and writes those once more. CLS and last token read one token.
// Same     A column is summed by one thread in the order of the tokens, in single precision, as
//          engine/src/encoder/pooling.rs does: equal bit for bit. The length is summed in double
//          precision in an order that the number of threads fixes; its factor is rounded to single
//          precision, so normalised vectors agree within one unit in the last place.
#include "block.cuh"

enum Mode : u32 { CLS, LAST, MAX, MEAN, MEAN_SQRT };

struct Pooling {
	const void *hidden;
	const u32 *tokens;
	float *out;
	u32 length, width;
	u32 mode, normalize;
};

template <class T>
__device__ float pooled(const T *column, u32 tokens, u32 width, u32 mode) {
	if (mode == CLS) return number(column[0]);
	if (mode == LAST) return number(column[(u64)(tokens - 1) * width]);
	float value = mode == MAX ? -INFINITE : 0.0f;
	for (u32 t = 0; t < tokens; ++t) {
		float next = number(column[(u64)t * width]);
		value = mode == MAX ? fmaxf(value, next) : value + next;
	}
	if (mode == MAX) return value;
	float count = (float)tokens;
	return value * (1.0f / (mode == MEAN ? count : sqrtf(count)));
}

template <class T> __device__ void pool(const Pooling &in) {
	__shared__ Shared shared;
	u64 text = blockIdx.x;
	const T *hidden = (const T *)in.hidden + text * in.length * in.width;
	float *out = in.out + text * in.width;
	double square = 0.0;
	for (u32 column = threadIdx.x; column < in.width; column += blockDim.x) {
		float value = pooled(hidden + column, in.tokens[text], in.width, in.mode);
		out[column] = value;
		square += (double)value * (double)value;
	}
	if (!in.normalize) return;
	square = block_sum(shared, square);
	if (!(square > 0.0)) return; // a zero vector stays as it is
	float factor = (float)(1.0 / sqrt(square));
	for (u32 column = threadIdx.x; column < in.width; column += blockDim.x) out[column] *= factor;
}

extern "C" {
__global__ void __launch_bounds__(1024) pool_f32(Pooling in) { pool<float>(in); }
__global__ void __launch_bounds__(1024) pool_f16(Pooling in) { pool<Half>(in); }
__global__ void __launch_bounds__(1024) pool_bf16(Pooling in) { pool<Bfloat>(in); }
}
SLUICE_KERNEL(pool_f32)
SLUICE_KERNEL(pool_f16)
SLUICE_KERNEL(pool_bf16)
