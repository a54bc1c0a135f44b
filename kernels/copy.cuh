// Copying by a whole block, in the widest steps that the addresses allow.
#pragma once
#include "device.cuh"

struct alignas(16) Quad {
	u64 low, high;
};

template <class T> __device__ void copy_as(u8 *to, const u8 *from, u64 bytes) {
	for (u64 i = threadIdx.x; i < bytes / sizeof(T); i += blockDim.x)
		((T *)to)[i] = ((const T *)from)[i];
}

__device__ inline void copy_bytes(u8 *to, const u8 *from, u64 bytes) {
	u64 alignment = (u64)to | (u64)from | bytes;
	if (alignment % 16 == 0)
		copy_as<Quad>(to, from, bytes);
	else if (alignment % 4 == 0)
		copy_as<u32>(to, from, bytes);
	else
		copy_as<u8>(to, from, bytes);
}
