// Stands in for the CUDA driver where there is no GPU: the calls that the server makes through cudarc,
// over the memory of this process, with the kernels run by ../host_shim.h.
//
// It exists to show what only a device shows, each time and not by chance:
//   - Work on a stream is put off until something waits for it, so what is missing a wait goes wrong.
//     Page-locked memory is read when the copy's turn comes; other host memory at once, as the driver does.
//   - Memory is stale when it is new, and has a guard behind it that is looked at after each kernel.
//   - An error of queued work is sticky: the context answers everything with it until it is reset.
//   - Calls fail when they are told to; what is alive on a device can be counted.
// It is stricter than the driver where that is looser: a copy must be asked for in its stream's context.
//
// Loaded by its path before anything else asks for the driver, it is found under its SONAME, libcuda.so; so it is by
// a process in whose LD_LIBRARY_PATH it lies.
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

namespace {

// As cuda.h numbers them.
enum Result {
	SUCCESS = 0,
	INVALID_VALUE = 1,
	OUT_OF_MEMORY = 2,
	NO_DEVICE = 100,
	INVALID_DEVICE = 101,
	INVALID_IMAGE = 200,
	INVALID_CONTEXT = 201,
	INVALID_HANDLE = 400,
	NOT_FOUND = 500,
	NOT_READY = 600,
	ILLEGAL_ADDRESS = 700,
	LAUNCH_FAILED = 719,
};
enum Attribute { CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, MEMORY_POOLS = 115 };
constexpr unsigned WITHOUT_TIMING = 2;
constexpr int VERSION = 13000;

using Address = unsigned long long;
using Clock = std::chrono::steady_clock;
using Run = int (*)(const unsigned *grid, unsigned threads, int backward, const void *arguments);

constexpr size_t ALIGNMENT = 256, GUARD = 256;
constexpr int STALE = 0xff, UNTOUCHED = 0xa5;

struct Context;

struct Stream {
	Context *context;
	std::deque<std::function<int()>> queue;
	uint64_t queued = 0, done = 0;
};

struct Event {
	Context *context;
	unsigned flags;
	std::shared_ptr<Stream> stream; // where it was recorded last
	uint64_t position = 0;          // how much of that stream's work it stands for
	std::shared_ptr<Clock::time_point> when;
};

struct Function {
	Run run;
	unsigned size;
};

struct Module {
	Context *context;
	std::map<std::string, std::unique_ptr<Function>> functions;
};

struct Allocation {
	size_t size;
	bool given_back; // its release is queued
};

// What is alive on a device; read by the tests, whose structure is the same.
struct Alive {
	uint64_t bytes, allocations, page_locked, streams, events, modules, references;
	uint64_t left_behind; // objects that a context took with it when it ended
	uint64_t damaged;     // guards that were written to
};

// The primary context of a device. It stays where it is, so that a stale handle is told from a good one.
struct Context {
	uint64_t capacity = 0;
	int broken = SUCCESS;
	uint64_t references = 0, left_behind = 0, damaged = 0;
	std::map<Address, Allocation> memory;
	std::map<const char *, size_t> page_locked;
	std::map<Stream *, std::shared_ptr<Stream>> streams;
	std::map<Event *, std::unique_ptr<Event>> events;
	std::map<Module *, std::unique_ptr<Module>> modules;
	std::shared_ptr<Stream> nobodys; // the stream that has no handle

	uint64_t used() const {
		uint64_t sum = 0;
		for (auto &[address, allocation] : memory) sum += allocation.size;
		return sum;
	}

	uint64_t objects() const {
		return memory.size() + page_locked.size() + streams.size() + events.size() + modules.size();
	}

	void clear() {
		for (auto &[address, allocation] : memory) free(reinterpret_cast<void *>(address));
		for (auto &[start, size] : page_locked) free(const_cast<char *>(start));
		memory.clear(), page_locked.clear(), streams.clear(), events.clear(), modules.clear();
		nobodys = std::make_shared<Stream>(Stream{this, {}});
	}
};

struct Fault {
	unsigned calls; // that still succeed
	int code;
};

// Never destroyed: threads may still call when the process ends.
struct World {
	std::recursive_mutex mutex;
	size_t devices = 0;
	std::vector<std::unique_ptr<Context>> contexts;
	std::map<std::string, Fault> faults;
	std::map<std::string, uint64_t> calls;
	std::vector<void *> kernels;
	bool at_once = false, backward = false;
};

World &world() {
	static World *world = new World;
	return *world;
}

thread_local Context *current = nullptr;

// Counts a call or a piece of work and says how it is to fail, if so.
int told_to_fail(const char *name) {
	World &all = world();
	++all.calls[name];
	auto fault = all.faults.find(name);
	if (fault == all.faults.end() || fault->second.calls-- > 0) return SUCCESS;
	int code = fault->second.code;
	all.faults.erase(fault);
	return code;
}

// The start of each call: one at a time, and not if it is told to fail.
#define CALL(name)                                                                                \
	std::lock_guard<std::recursive_mutex> lock(world().mutex);                                   \
	if (int code = told_to_fail(name)) return code

// The start of each call that needs a context that works.
#define CALL_IN_CONTEXT(name)                                                                     \
	CALL(name);                                                                                  \
	if (!current || !current->references) return INVALID_CONTEXT;                                \
	if (current->broken) return current->broken

bool whole(Address address, const Allocation &allocation) {
	auto guard = reinterpret_cast<const unsigned char *>(address + allocation.size);
	return std::all_of(guard, guard + GUARD, [](unsigned char byte) { return byte == UNTOUCHED; });
}

int check_guards(Context &context) {
	int code = SUCCESS;
	for (auto &[address, allocation] : context.memory)
		if (!whole(address, allocation)) {
			++context.damaged;
			// Said once.
			memset(reinterpret_cast<void *>(address + allocation.size), UNTOUCHED, GUARD);
			code = ILLEGAL_ADDRESS;
		}
	return code;
}

// Does a stream's work up to this much of it. After an error the rest is never done.
int drain(Stream &stream, uint64_t until) {
	Context &context = *stream.context;
	while (stream.done < until && !context.broken) {
		auto work = std::move(stream.queue.front());
		stream.queue.pop_front();
		int code = work();
		++stream.done;
		if (code) context.broken = code;
	}
	return context.broken;
}

int drain(Context &context) {
	auto streams = context.streams;
	for (auto &[handle, stream] : streams) drain(*stream, stream->queued);
	return drain(*context.nobodys, context.nobodys->queued);
}

int put_off(Stream &stream, std::function<int()> work) {
	stream.queue.push_back(std::move(work));
	++stream.queued;
	return world().at_once ? drain(stream, stream.queued) : SUCCESS;
}

std::shared_ptr<Stream> stream_of(Stream *handle) {
	if (!handle) return current->nobodys;
	auto found = current->streams.find(handle);
	return found == current->streams.end() ? nullptr : found->second;
}

Event *event_of(Event *handle) {
	return current->events.count(handle) ? handle : nullptr;
}

// Whether these bytes lie in one stretch of memory that has not been given back.
bool lies_in_memory(Address start, size_t size) {
	auto after = current->memory.upper_bound(start);
	if (after == current->memory.begin()) return false;
	auto &[address, allocation] = *std::prev(after);
	return !allocation.given_back && start - address <= allocation.size &&
	       size <= allocation.size - (start - address);
}

bool is_page_locked(const char *start, size_t size) {
	for (auto &context : world().contexts) {
		auto after = context->page_locked.upper_bound(start);
		if (after == context->page_locked.begin()) continue;
		auto &[first, length] = *std::prev(after);
		if (start + size <= first + length) return true;
	}
	return false;
}

template <class T> T *pointer(Address address) { return reinterpret_cast<T *>(address); }

int allocate(Address *address, size_t size) {
	Context &context = *current;
	if (!size) return INVALID_VALUE;
	// What is to be released before is, when there is not enough without.
	if (context.used() + size > context.capacity)
		if (int code = drain(context)) return code;
	if (context.used() + size > context.capacity) return OUT_OF_MEMORY;
	size_t whole = (size + GUARD + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	char *memory = static_cast<char *>(aligned_alloc(ALIGNMENT, whole));
	if (!memory) return OUT_OF_MEMORY;
	memset(memory, STALE, size);
	memset(memory + size, UNTOUCHED, GUARD);
	*address = reinterpret_cast<Address>(memory);
	context.memory[*address] = {size, false};
	return SUCCESS;
}

int release(Context &context, Address address) {
	int code = check_guards(context);
	context.memory.erase(address);
	free(pointer<void>(address));
	return code;
}

int set_bytes(Address to, unsigned char value, size_t size, Stream *handle) {
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!lies_in_memory(to, size)) return INVALID_VALUE;
	return put_off(*stream, [=] {
		memset(pointer<void>(to), value, size);
		return told_to_fail("memset");
	});
}

int upload(Address to, const char *from, size_t size, Stream *handle) {
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!lies_in_memory(to, size)) return INVALID_VALUE;
	if (!is_page_locked(from, size)) {
		std::vector<char> staged(from, from + size);
		return put_off(*stream, [to, staged = std::move(staged)] {
			memcpy(pointer<void>(to), staged.data(), staged.size());
			return told_to_fail("copy");
		});
	}
	return put_off(*stream, [=] {
		if (!is_page_locked(from, size)) return (int)ILLEGAL_ADDRESS;
		memcpy(pointer<void>(to), from, size);
		return told_to_fail("copy");
	});
}

int download(char *to, Address from, size_t size, Stream *handle) {
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!lies_in_memory(from, size)) return INVALID_VALUE;
	bool later = is_page_locked(to, size);
	int code = put_off(*stream, [=] {
		if (later && !is_page_locked(to, size)) return (int)ILLEGAL_ADDRESS;
		memcpy(to, pointer<void>(from), size);
		return told_to_fail("copy");
	});
	// Other memory is there when the call returns.
	return later ? code : drain(*stream, stream->queued);
}

int copy(Address to, Address from, size_t size, Stream *handle) {
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!lies_in_memory(from, size) || !lies_in_memory(to, size)) return INVALID_VALUE;
	return put_off(*stream, [=] {
		memmove(pointer<void>(to), pointer<void>(from), size);
		return told_to_fail("copy");
	});
}

Context *context_of(int device) {
	return device < 0 || (size_t)device >= world().devices ? nullptr : world().contexts[device].get();
}

} // namespace

#include "calls.h"
