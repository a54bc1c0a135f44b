// A stand-in for NVIDIA's driver, for tests without a GPU: the calls of libcuda.so.1 that we make,
// over the host's memory, with kernels as the emulator compiles them (host_shim.h).
//
// It is no driver that always succeeds. Work on a stream is done by a thread of its own, some time
// later, so what is not waited for is not there; every allocation has guard bytes behind it, which
// are looked at when it is freed; memory is limited and counted; a call can be made to fail, and a
// device to be lost with every call on it until it is reset.
//
//   c++ -std=c++17 -O1 -fPIC -shared -pthread -Wl,-soname,libcuda.so driver_standin.cpp -ldl
#include <dlfcn.h>

#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

// CUresult, as far as it is used here.
enum Code {
	SUCCESS = 0,
	INVALID_VALUE = 1,
	OUT_OF_MEMORY = 2,
	NO_DEVICE = 100,
	INVALID_DEVICE = 101,
	INVALID_CONTEXT = 201,
	INVALID_HANDLE = 400,
	NOT_FOUND = 500,
	CONTEXT_IS_DESTROYED = 709,
};

constexpr size_t GUARD = 256;
constexpr unsigned char UNTOUCHED = 0xa5;

struct Device {
	size_t total = 0, used = 0;
	std::map<char *, size_t> memory;
	int contexts = 0, streams = 0, events = 0, modules = 0;
	Code lost = SUCCESS;
	int generation = 0;
};

// What is handed out refers to the device as it was then; a reset makes it invalid.
struct Handle {
	Device *device;
	int generation;
};

using Run = int (*)(const unsigned *, unsigned, int, const void *);

struct Kernel {
	Run run;
	size_t bytes;
};

struct Fault {
	std::string call;
	int after;
	Code code;
};

struct Stream;

struct Standin {
	std::mutex mutex;
	std::vector<Device *> devices;
	std::map<char *, size_t> pinned;
	std::vector<std::string> kernels;
	std::vector<Fault> faults;
	std::vector<Stream *> streams;
	int version = 13000;
	int damaged = 0; // guard bytes that were written
};

Standin &standin() {
	static Standin *all = new Standin; // Threads may outlive static objects.
	return *all;
}

thread_local Handle *current;

// A queue that a thread works off in order.
struct Stream {
	Handle handle;
	std::mutex mutex;
	std::condition_variable changed;
	std::deque<std::function<void()>> work;
	bool busy = false;
	std::thread thread;

	explicit Stream(Handle handle) : handle(handle) {
		thread = std::thread([this] { loop(); });
		thread.detach();
	}

	void loop() {
		std::unique_lock<std::mutex> lock(mutex);
		for (;;) {
			changed.wait(lock, [this] { return !work.empty(); });
			auto next = std::move(work.front());
			work.pop_front();
			busy = true;
			lock.unlock();
			// Long enough that who does not wait sees what was before.
			std::this_thread::sleep_for(std::chrono::microseconds(20));
			next();
			lock.lock();
			busy = false;
			changed.notify_all();
		}
	}

	void add(std::function<void()> next) {
		std::lock_guard<std::mutex> lock(mutex);
		work.push_back(std::move(next));
		changed.notify_all();
	}

	void finish() {
		std::unique_lock<std::mutex> lock(mutex);
		changed.wait(lock, [this] { return work.empty() && !busy; });
	}
};

struct Event {
	Handle handle;
	std::mutex mutex;
	std::condition_variable passed;
	int recorded = 0, reached = 0;
	std::chrono::steady_clock::time_point when;
};

struct Module {
	Handle handle;
};

Code fault(const char *call) {
	auto &faults = standin().faults;
	for (size_t i = 0; i < faults.size(); ++i) {
		if (faults[i].call != call || faults[i].after-- > 0) continue;
		Code code = faults[i].code;
		faults.erase(faults.begin() + i);
		return code;
	}
	return SUCCESS;
}

Code check(const Handle &handle) {
	if (handle.generation != handle.device->generation) return CONTEXT_IS_DESTROYED;
	return handle.device->lost;
}

// The device of this thread's context, and whether `call` may be made on it.
Code enter(const char *call) {
	if (Code code = fault(call)) return code;
	return current ? check(*current) : INVALID_CONTEXT;
}

Code free_memory(Device *device, int generation, char *start) {
	std::lock_guard<std::mutex> lock(standin().mutex);
	auto found = device->memory.find(start);
	if (generation != device->generation) return SUCCESS; // The reset has freed it.
	if (found == device->memory.end()) return INVALID_VALUE;
	for (size_t i = 0; i < GUARD; ++i)
		if ((unsigned char)start[found->second + i] != UNTOUCHED) {
			standin().damaged += 1;
			break;
		}
	device->used -= found->second;
	device->memory.erase(found);
	free(start);
	return SUCCESS;
}

Code take_memory(Device *device, size_t bytes, char **start) {
	if (bytes == 0) return INVALID_VALUE;
	if (bytes > device->total - device->used) return OUT_OF_MEMORY;
	size_t whole = (bytes + GUARD + 255) / 256 * 256;
	char *memory = (char *)aligned_alloc(256, whole);
	if (!memory) return OUT_OF_MEMORY;
	// What nobody has written is no number.
	memset(memory, 0xff, bytes);
	memset(memory + bytes, UNTOUCHED, whole - bytes);
	device->memory[memory] = bytes;
	device->used += bytes;
	*start = memory;
	return SUCCESS;
}

bool is_pinned(const char *start) {
	std::lock_guard<std::mutex> lock(standin().mutex);
	auto found = standin().pinned.upper_bound((char *)start);
	if (found == standin().pinned.begin()) return false;
	--found;
	return start < found->first + found->second;
}

void finish_all(Device *device) {
	std::vector<Stream *> streams;
	{
		std::lock_guard<std::mutex> lock(standin().mutex);
		streams = standin().streams;
	}
	for (Stream *stream : streams)
		if (stream->handle.device == device) stream->finish();
}

#define LOCK std::lock_guard<std::mutex> lock(standin().mutex)
#define ENTER(call)                                                                                \
	do {                                                                                           \
		LOCK;                                                                                      \
		if (Code code = enter(call)) return code;                                                  \
	} while (0)

} // namespace

extern "C" {

// --- what tests steer

void standin_clear(void) {
	for (Device *device : standin().devices) finish_all(device);
	LOCK;
	standin().devices.clear();
	standin().faults.clear();
	standin().damaged = 0;
	standin().version = 13000;
}

void standin_add_device(size_t bytes) {
	LOCK;
	Device *device = new Device;
	device->total = bytes;
	standin().devices.push_back(device);
}

void standin_add_kernels(const char *library) {
	LOCK;
	standin().kernels.push_back(library);
}

void standin_version(int version) {
	LOCK;
	standin().version = version;
}

// The call after `after` others of that name fails once.
void standin_fail(const char *call, int after, int code) {
	LOCK;
	standin().faults.push_back({call, after, (Code)code});
}

// Every call on the device fails so until it is reset.
void standin_lose(int ordinal, int code) {
	LOCK;
	standin().devices[ordinal]->lost = (Code)code;
}

struct Alive {
	size_t bytes, allocations;
	int contexts, streams, events, modules, damaged;
};

void standin_alive(int ordinal, Alive *alive) {
	finish_all(standin().devices[ordinal]);
	LOCK;
	Device *device = standin().devices[ordinal];
	*alive = {device->used,   device->memory.size(), device->contexts,   device->streams,
	          device->events, device->modules,       standin().damaged};
}

// --- the driver

int cuDriverGetVersion(int *version) {
	*version = standin().version;
	return SUCCESS;
}

int cuInit(unsigned) {
	LOCK;
	if (Code code = fault("cuInit")) return code;
	return standin().devices.empty() ? NO_DEVICE : SUCCESS;
}

int cuDeviceGetCount(int *count) {
	LOCK;
	*count = (int)standin().devices.size();
	return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
	LOCK;
	if (ordinal < 0 || ordinal >= (int)standin().devices.size()) return INVALID_DEVICE;
	*device = ordinal;
	return SUCCESS;
}

int cuDeviceGetName(char *name, int length, int device) {
	snprintf(name, length, "Stand-in %d", device);
	return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
	LOCK;
	*bytes = standin().devices[device]->total;
	return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
	switch (attribute) {
	case 75: *value = 9; break;  // COMPUTE_CAPABILITY_MAJOR
	case 76: *value = 0; break;  // COMPUTE_CAPABILITY_MINOR
	case 115: *value = 1; break; // MEMORY_POOLS_SUPPORTED
	default: *value = 0;
	}
	return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Handle **context, int ordinal) {
	LOCK;
	if (Code code = fault("cuDevicePrimaryCtxRetain")) return code;
	Device *device = standin().devices[ordinal];
	device->contexts += 1;
	*context = new Handle{device, device->generation};
	return SUCCESS;
}

int cuDevicePrimaryCtxRelease_v2(int ordinal) {
	LOCK;
	Device *device = standin().devices[ordinal];
	if (device->contexts == 0) return INVALID_CONTEXT;
	device->contexts -= 1;
	return SUCCESS;
}

int cuDevicePrimaryCtxReset_v2(int ordinal) {
	Device *device = standin().devices[ordinal];
	finish_all(device);
	LOCK;
	for (auto &memory : device->memory) free(memory.first);
	device->memory.clear();
	device->used = 0;
	device->contexts = device->streams = device->events = device->modules = 0;
	device->lost = SUCCESS;
	device->generation += 1;
	return SUCCESS;
}

int cuCtxSetCurrent(Handle *context) {
	LOCK;
	current = context;
	return SUCCESS;
}

int cuCtxGetCurrent(Handle **context) {
	*context = current;
	return SUCCESS;
}

int cuCtxSynchronize(void) {
	if (!current) return INVALID_CONTEXT;
	finish_all(current->device);
	ENTER("cuCtxSynchronize");
	return SUCCESS;
}

int cuStreamCreate(Stream **stream, unsigned) {
	ENTER("cuStreamCreate");
	Stream *made = new Stream(*current);
	LOCK;
	standin().streams.push_back(made);
	current->device->streams += 1;
	*stream = made;
	return SUCCESS;
}

// The object stays: others may still name it.
int cuStreamDestroy_v2(Stream *stream) {
	stream->finish();
	LOCK;
	if (Code code = check(stream->handle)) return code;
	stream->handle.device->streams -= 1;
	return SUCCESS;
}

int cuStreamSynchronize(Stream *stream) {
	stream->finish();
	LOCK;
	if (Code code = fault("cuStreamSynchronize")) return code;
	return check(stream->handle);
}

int cuStreamIsCapturing(Stream *, int *capturing) {
	*capturing = 0;
	return SUCCESS;
}

int cuEventCreate(Event **event, unsigned) {
	ENTER("cuEventCreate");
	LOCK;
	*event = new Event;
	(*event)->handle = *current;
	current->device->events += 1;
	return SUCCESS;
}

int cuEventDestroy_v2(Event *event) {
	LOCK;
	if (Code code = check(event->handle)) return code;
	event->handle.device->events -= 1;
	return SUCCESS;
}

int cuEventRecord(Event *event, Stream *stream) {
	ENTER("cuEventRecord");
	{
		std::lock_guard<std::mutex> lock(event->mutex);
		event->recorded += 1;
	}
	stream->add([event] {
		std::lock_guard<std::mutex> lock(event->mutex);
		event->reached += 1;
		event->when = std::chrono::steady_clock::now();
		event->passed.notify_all();
	});
	return SUCCESS;
}

int cuEventSynchronize(Event *event) {
	std::unique_lock<std::mutex> waiting(event->mutex);
	event->passed.wait(waiting, [event] { return event->reached == event->recorded; });
	waiting.unlock();
	LOCK;
	return check(event->handle);
}

int cuEventElapsedTime_v2(float *milliseconds, Event *from, Event *to) {
	cuEventSynchronize(from);
	if (int code = cuEventSynchronize(to)) return code;
	*milliseconds = std::chrono::duration<float, std::milli>(to->when - from->when).count();
	return SUCCESS;
}

int cuEventElapsedTime(float *milliseconds, Event *from, Event *to) {
	return cuEventElapsedTime_v2(milliseconds, from, to);
}

int cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
	stream->add([event] { cuEventSynchronize(event); });
	return SUCCESS;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
	ENTER("cuMemGetInfo_v2");
	finish_all(current->device);
	LOCK;
	*free = current->device->total - current->device->used;
	*total = current->device->total;
	return SUCCESS;
}

int cuMemAllocAsync(char **start, size_t bytes, Stream *) {
	ENTER("cuMemAllocAsync");
	finish_all(current->device);
	LOCK;
	return take_memory(current->device, bytes, start);
}

int cuMemAlloc_v2(char **start, size_t bytes) {
	ENTER("cuMemAlloc_v2");
	finish_all(current->device);
	LOCK;
	return take_memory(current->device, bytes, start);
}

int cuMemFreeAsync(char *start, Stream *stream) {
	Handle handle = stream->handle;
	{
		LOCK;
		if (Code code = check(handle)) return code;
	}
	stream->add([handle, start] { free_memory(handle.device, handle.generation, start); });
	return SUCCESS;
}

int cuMemFree_v2(char *start) {
	ENTER("cuMemFree_v2");
	finish_all(current->device);
	return free_memory(current->device, current->generation, start);
}

int cuMemHostAlloc(char **start, size_t bytes, unsigned) {
	ENTER("cuMemHostAlloc");
	LOCK;
	*start = (char *)aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
	standin().pinned[*start] = bytes;
	return SUCCESS;
}

int cuMemFreeHost(char *start) {
	LOCK;
	if (standin().pinned.erase(start) == 0) return INVALID_VALUE;
	free(start);
	return SUCCESS;
}

int cuMemsetD8Async(char *start, unsigned char byte, size_t bytes, Stream *stream) {
	ENTER("cuMemsetD8Async");
	stream->add([=] { memset(start, byte, bytes); });
	return SUCCESS;
}

// From page-locked memory the device copies by itself, later; other memory is read at once.
int cuMemcpyHtoDAsync_v2(char *to, const char *from, size_t bytes, Stream *stream) {
	ENTER("cuMemcpyHtoDAsync_v2");
	if (is_pinned(from)) {
		stream->add([=] { memcpy(to, from, bytes); });
	} else {
		std::string copy(from, bytes);
		stream->add([=] { memcpy(to, copy.data(), bytes); });
	}
	return SUCCESS;
}

int cuMemcpyDtoHAsync_v2(char *to, const char *from, size_t bytes, Stream *stream) {
	ENTER("cuMemcpyDtoHAsync_v2");
	stream->add([=] { memcpy(to, from, bytes); });
	if (!is_pinned(to)) stream->finish();
	return SUCCESS;
}

int cuMemcpyDtoDAsync_v2(char *to, const char *from, size_t bytes, Stream *stream) {
	ENTER("cuMemcpyDtoDAsync_v2");
	stream->add([=] { memmove(to, from, bytes); });
	return SUCCESS;
}

// What is in the image does not matter: kernels are found by their names.
int cuModuleLoadData(Module **module, const void *) {
	ENTER("cuModuleLoadData");
	LOCK;
	*module = new Module{*current};
	current->device->modules += 1;
	return SUCCESS;
}

int cuModuleUnload(Module *module) {
	LOCK;
	if (Code code = check(module->handle)) return code;
	module->handle.device->modules -= 1;
	return SUCCESS;
}

int cuModuleGetFunction(Kernel **kernel, Module *, const char *name) {
	ENTER("cuModuleGetFunction");
	LOCK;
	for (auto &path : standin().kernels) {
		void *library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
		if (!library) continue;
		std::string symbol = std::string("host_") + name;
		std::string size = std::string("bytes_") + name;
		void *run = dlsym(library, symbol.c_str());
		auto bytes = (size_t(*)())dlsym(library, size.c_str());
		if (run && bytes) {
			*kernel = new Kernel{(Run)run, bytes()};
			return SUCCESS;
		}
	}
	return NOT_FOUND;
}

int cuFuncGetAttribute(int *value, int, Kernel *) {
	*value = 1024;
	return SUCCESS;
}

int cuLaunchKernel(Kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned threads, unsigned,
                   unsigned, unsigned, Stream *stream, void **arguments, void **) {
	ENTER("cuLaunchKernel");
	if (x == 0 || y == 0 || z == 0 || threads == 0 || threads > 1024) return INVALID_VALUE;
	// In words, as the kernel reads its structure in place.
	std::vector<unsigned long long> copy((kernel->bytes + 7) / 8);
	memcpy(copy.data(), arguments[0], kernel->bytes);
	stream->add([=] {
		unsigned grid[3] = {x, y, z};
		if (kernel->run(grid, threads, 0, copy.data())) abort();
	});
	return SUCCESS;
}

int cuGetErrorName(int code, const char **name) {
	*name = code == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : "CUDA_ERROR";
	return SUCCESS;
}

int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

} // extern "C"
