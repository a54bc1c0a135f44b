// Runs kernels without a GPU: what they need of CUDA, for a C++ compiler.
//
// A block's threads are fibers on one thread of the host. They run one after another up to a
// barrier or a warp's exchange and wait there for the others, so barriers, shuffles and shared memory
// mean what they mean on a device. What this cannot show is a race between two barriers that only a
// certain timing brings out; a missing barrier shows when the fibers run in the other order
// (`backward`), and a barrier that not all threads reach is reported.
//
//   c++ -std=c++17 -O2 -ffp-contract=off -fPIC -shared -fsanitize=undefined
//       -fsanitize-undefined-trap-on-error -x c++ -include host_shim.h sampling.cu -o sampling.so
#pragma once

#include <ucontext.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __shared__ static thread_local

namespace shim {

struct Index {
	unsigned x, y, z;
};

enum class State { Ready, AtBarrier, AtWarp, Done };

struct Fiber {
	ucontext_t context;
	std::unique_ptr<char[]> stack;
	State state;
};

// Evidence and a draw need a few KiB.
constexpr size_t STACK = 64 << 10;
constexpr unsigned LANES = 32;

struct Block {
	std::vector<Fiber> fibers;
	std::vector<unsigned long long> exchange; // one word a thread
	ucontext_t scheduler;
	unsigned current;
	void (*body)(void *);
	void *arguments;
};

inline thread_local Block *block;
inline thread_local Index thread_index, block_index, block_size;

inline void wait_for_others(State state) {
	Fiber &self = block->fibers[block->current];
	self.state = state;
	swapcontext(&self.context, &block->scheduler);
}

inline void run_fiber() {
	block->body(block->arguments);
	wait_for_others(State::Done);
}

// Lets go on who waits for nobody any more; false when nobody can.
inline bool release(Block &block, unsigned first, unsigned last, State waiting) {
	for (unsigned i = first; i < last; ++i)
		if (block.fibers[i].state != waiting) return false;
	for (unsigned i = first; i < last; ++i) block.fibers[i].state = State::Ready;
	return true;
}

inline bool release_any(Block &block) {
	unsigned threads = block.fibers.size();
	bool any = release(block, 0, threads, State::AtBarrier);
	for (unsigned first = 0; first < threads; first += LANES)
		any |= release(block, first, first + LANES, State::AtWarp);
	return any;
}

// 0, or 1 when threads wait for some that never come.
inline int run_block(Block &all, unsigned threads, bool backward) {
	block = &all;
	block_size = {threads, 1, 1};
	for (Fiber &fiber : all.fibers) {
		getcontext(&fiber.context);
		fiber.context.uc_stack.ss_sp = fiber.stack.get();
		fiber.context.uc_stack.ss_size = STACK;
		fiber.context.uc_link = nullptr;
		fiber.state = State::Ready;
		makecontext(&fiber.context, run_fiber, 0);
	}
	for (;;) {
		bool done = true;
		for (unsigned i = 0; i < threads; ++i) {
			all.current = backward ? threads - 1 - i : i;
			Fiber &fiber = all.fibers[all.current];
			if (fiber.state == State::Ready) {
				thread_index = {all.current, 0, 0};
				swapcontext(&all.scheduler, &fiber.context);
			}
			done = done && fiber.state == State::Done;
		}
		if (done) return 0;
		if (!release_any(all)) return 1;
	}
}

template <class... Arguments> struct Kernel {
	void (*function)(Arguments...);
	std::tuple<Arguments...> values;

	static void call(void *self) {
		Kernel *kernel = static_cast<Kernel *>(self);
		std::apply(kernel->function, kernel->values);
	}
};

template <class... Arguments>
int launch(void (*function)(Arguments...), const unsigned *grid, unsigned threads, int backward,
           const void *arguments) {
	// Kernels take one structure.
	static_assert(sizeof...(Arguments) == 1);
	Kernel<Arguments...> kernel{function, {}};
	memcpy(&std::get<0>(kernel.values), arguments, sizeof(std::get<0>(kernel.values)));
	Block all;
	all.fibers.resize(threads);
	for (Fiber &fiber : all.fibers) fiber.stack.reset(new char[STACK]);
	all.exchange.resize(threads);
	all.body = &Kernel<Arguments...>::call;
	all.arguments = &kernel;
	for (unsigned z = 0; z < grid[2]; ++z)
		for (unsigned y = 0; y < grid[1]; ++y)
			for (unsigned x = 0; x < grid[0]; ++x) {
				block_index = {x, y, z};
				if (int stuck = run_block(all, threads, backward)) return stuck;
			}
	return 0;
}

template <class... Arguments> constexpr unsigned size_of_arguments(void (*)(Arguments...)) {
	return (sizeof(Arguments) + ...);
}

// Each lane leaves a word; `take` makes of the warp's words what it wants.
template <class T, class Take> auto exchange(T value, Take take) {
	static_assert(sizeof(T) <= 8);
	unsigned self = block->current;
	memcpy(&block->exchange[self], &value, sizeof(T));
	wait_for_others(State::AtWarp);
	auto taken = take([first = self - self % LANES](unsigned lane) {
		T other;
		memcpy(&other, &block->exchange[first + lane % LANES], sizeof(T));
		return other;
	});
	wait_for_others(State::AtWarp);
	return taken;
}

template <class T> T from_lane(T value, unsigned lane) {
	return exchange(value, [lane](auto word_of) { return word_of(lane); });
}

} // namespace shim

#define threadIdx shim::thread_index
#define blockIdx shim::block_index
#define blockDim shim::block_size

inline void __syncthreads() { shim::wait_for_others(shim::State::AtBarrier); }

template <class T> T __shfl_sync(unsigned, T value, unsigned from) {
	return shim::from_lane(value, from);
}

template <class T> T __shfl_xor_sync(unsigned, T value, unsigned mask) {
	return shim::from_lane(value, threadIdx.x % shim::LANES ^ mask);
}

template <class T> T __shfl_up_sync(unsigned, T value, unsigned delta) {
	unsigned lane = threadIdx.x % shim::LANES;
	return shim::from_lane(value, lane < delta ? lane : lane - delta);
}

inline unsigned __ballot_sync(unsigned, bool vote) {
	return shim::exchange(vote, [](auto word_of) {
		unsigned votes = 0;
		for (unsigned lane = 0; lane < shim::LANES; ++lane)
			votes |= (unsigned)word_of(lane) << lane;
		return votes;
	});
}

template <class T> T atomicAdd(T *sum, T value) {
	T before = *sum;
	*sum += value;
	return before;
}

inline int __ffs(unsigned word) { return __builtin_ffs((int)word); }

inline float __uint_as_float(unsigned bits) {
	float value;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

inline unsigned __float_as_uint(float value) {
	unsigned bits;
	memcpy(&bits, &value, sizeof(bits));
	return bits;
}

inline double __longlong_as_double(long long bits) {
	double value;
	memcpy(&value, &bits, sizeof(value));
	return value;
}

#define SLUICE_KERNEL(name)                                                                       \
	extern "C" {                                                                                 \
	int host_##name(const unsigned *grid, unsigned threads, int backward, const void *arguments) { \
		return shim::launch(name, grid, threads, backward, arguments);                           \
	}                                                                                            \
	extern const unsigned host_##name##_size;                                                    \
	const unsigned host_##name##_size = shim::size_of_arguments(name);                           \
	}
