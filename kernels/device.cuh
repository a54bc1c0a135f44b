// The arithmetic of one number: types, ordering, exponentials.
//
// Nothing is included, so that NVRTC compiles this without a header in reach, and nothing depends
// on the device, so that a C++ compiler runs the same lines on a machine without one
// (host_shim.h). Compiled without contraction (--fmad=false): every operation rounds as the CPU's
// does, and what is computed here equals engine/src/sampler bit for bit.
#pragma once

#ifndef SLUICE_KERNEL
// Names a kernel to the host build; nothing to a CUDA compiler.
#define SLUICE_KERNEL(name)
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef unsigned long long u64;

// No constant expression means it to every compiler.
#define INFINITE __uint_as_float(0x7f800000u)
constexpr float LARGEST = 3.402823466e+38f;

// Storage of half-precision numbers; their bits, without a header of CUDA's.
struct Half {
	u16 bits;
};
struct Bfloat {
	u16 bits;
};

__device__ inline float number(float value) { return value; }

__device__ inline float number(Bfloat value) { return __uint_as_float((u32)value.bits << 16); }

__device__ inline float number(Half value) {
	u32 sign = (u32)(value.bits & 0x8000u) << 16;
	u32 exponent = value.bits >> 10 & 31u, mantissa = value.bits & 1023u;
	if (exponent == 31) return __uint_as_float(sign | 0x7f800000u | mantissa << 13);
	if (exponent > 0) return __uint_as_float(sign | (exponent + 112) << 23 | mantissa << 13);
	float small = (float)mantissa * 5.9604644775390625e-8f; // 2^-24
	return sign ? -small : small;
}

// A logit that can be computed with: NaN is -inf, +inf the largest number, -0 is 0.
__device__ inline float finite(float logit) {
	float value = logit != logit ? -INFINITE : logit;
	return (value < LARGEST ? value : LARGEST) + 0.0f;
}

// e^x for x <= 0 within 2 ulp; 0 below -87 and for NaN. Cephes' expf.
__device__ inline float exponential(float x) {
	constexpr float ROUND = 12582912.0f; // 1.5 * 2^23
	float bounded = x > -87.0f ? x : -87.0f;
	float shifted = bounded * 1.44269504088896340736f + ROUND;
	float n = shifted - ROUND;
	float r = bounded - n * 0.693359375f - n * -2.12194440e-4f;
	float p = 1.9875691e-4f;
	p = p * r + 1.3982e-3f;
	p = p * r + 8.333452e-3f;
	p = p * r + 4.1665796e-2f;
	p = p * r + 1.6666665e-1f;
	p = p * r + 0.5f;
	float fraction = p * r * r + r + 1.0f;
	u32 exponent = __float_as_uint(shifted) - __float_as_uint(ROUND);
	return x > -87.0f ? fraction * __uint_as_float((exponent + 127u) << 23) : 0.0f;
}

// The weight of a token: e^x in multiples of 2^-34, as `weight` in engine/src/sampler/softmax.rs.
// Sums of up to 2^19 weights are exact as integers here and in double precision there, so neither
// the order of a sum nor the number of threads decides what is drawn.
__device__ inline float weight(float x) {
	constexpr float COARSE = 1.0f / 2048.0f;
	float value = exponential(x);
	return value < COARSE ? (value + COARSE) - COARSE : value;
}

__device__ inline u64 units(float weight) { return (u64)(weight * 17179869184.0f); } // 2^34

// Tokens are ranked by logit, equal logits by lower id: one integer for both. 0 is no token.
constexpr int ID_BITS = 19;
constexpr u32 ID_MASK = (1u << ID_BITS) - 1;

__device__ inline u64 rank_of(float finite_logit, u32 id) {
	u32 bits = __float_as_uint(finite_logit);
	u32 ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
	return (u64)ordered << ID_BITS | (ID_MASK - id);
}

__device__ inline u32 id_of(u64 rank) { return ID_MASK - (u32)(rank & ID_MASK); }

__device__ inline float logit_of(u64 rank) {
	u32 ordered = (u32)(rank >> ID_BITS);
	return __uint_as_float(ordered & 0x80000000u ? ordered & 0x7fffffffu : ~ordered);
}
