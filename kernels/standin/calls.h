// The driver's functions, and those by which a test sets the stand-in up and looks at it.
#pragma once

extern "C" {

int cuInit(unsigned) {
	CALL("cuInit");
	return world().devices ? SUCCESS : NO_DEVICE;
}

int cuDriverGetVersion(int *version) {
	CALL("cuDriverGetVersion");
	*version = VERSION;
	return SUCCESS;
}

int cuGetErrorName(int, const char **name) {
	*name = "an error of the stand-in";
	return SUCCESS;
}

int cuGetErrorString(int code, const char **text) { return cuGetErrorName(code, text); }

int cuDeviceGetCount(int *count) {
	CALL("cuDeviceGetCount");
	*count = world().devices;
	return SUCCESS;
}

int cuDeviceGet(int *device, int ordinal) {
	CALL("cuDeviceGet");
	*device = ordinal;
	return context_of(ordinal) ? SUCCESS : INVALID_DEVICE;
}

int cuDeviceGetName(char *name, int length, int device) {
	CALL("cuDeviceGetName");
	if (!context_of(device) || length < 1) return INVALID_DEVICE;
	strncpy(name, "Stand-in", length - 1);
	name[length - 1] = 0;
	return SUCCESS;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device) {
	CALL("cuDeviceTotalMem");
	Context *context = context_of(device);
	if (!context) return INVALID_DEVICE;
	*bytes = context->capacity;
	return SUCCESS;
}

int cuDeviceGetAttribute(int *value, int attribute, int device) {
	CALL("cuDeviceGetAttribute");
	if (!context_of(device)) return INVALID_DEVICE;
	*value = attribute == CAPABILITY_MAJOR ? 9 : attribute == MEMORY_POOLS;
	return SUCCESS;
}

int cuDevicePrimaryCtxRetain(Context **context, int device) {
	CALL("cuDevicePrimaryCtxRetain");
	*context = context_of(device);
	if (!*context) return INVALID_DEVICE;
	if ((*context)->broken) return (*context)->broken;
	++(*context)->references;
	return SUCCESS;
}

// The last to let go ends the context, and what is still on it with it; not what is broken.
int cuDevicePrimaryCtxRelease_v2(int device) {
	CALL("cuDevicePrimaryCtxRelease");
	Context *context = context_of(device);
	if (!context || !context->references) return INVALID_CONTEXT;
	if (--context->references) return context->broken;
	drain(*context);
	context->left_behind += context->objects();
	context->clear();
	return context->broken;
}

int cuDevicePrimaryCtxReset_v2(int device) {
	CALL("cuDevicePrimaryCtxReset");
	Context *context = context_of(device);
	if (!context) return INVALID_DEVICE;
	context->left_behind += context->objects();
	context->clear();
	context->broken = SUCCESS;
	return SUCCESS;
}

int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
	CALL("cuDevicePrimaryCtxGetState");
	Context *context = context_of(device);
	if (!context) return INVALID_DEVICE;
	*flags = 0;
	*active = context->references > 0;
	return SUCCESS;
}

int cuCtxGetCurrent(Context **context) {
	CALL("cuCtxGetCurrent");
	*context = current;
	return SUCCESS;
}

int cuCtxSetCurrent(Context *context) {
	CALL("cuCtxSetCurrent");
	current = context;
	return SUCCESS;
}

int cuCtxGetDevice(int *device) {
	CALL_IN_CONTEXT("cuCtxGetDevice");
	for (*device = 0; context_of(*device) != current;) ++*device;
	return SUCCESS;
}

int cuCtxSynchronize() {
	CALL_IN_CONTEXT("cuCtxSynchronize");
	return drain(*current);
}

int cuStreamCreate(Stream **stream, unsigned) {
	CALL_IN_CONTEXT("cuStreamCreate");
	auto made = std::make_shared<Stream>(Stream{current, {}});
	*stream = made.get();
	current->streams[made.get()] = made;
	return SUCCESS;
}

int cuStreamCreateWithPriority(Stream **stream, unsigned flags, int) {
	return cuStreamCreate(stream, flags);
}

int cuStreamDestroy_v2(Stream *handle) {
	CALL_IN_CONTEXT("cuStreamDestroy");
	auto stream = stream_of(handle);
	if (!handle || !stream) return INVALID_HANDLE;
	int code = drain(*stream, stream->queued);
	current->streams.erase(handle);
	return code;
}

int cuStreamSynchronize(Stream *handle) {
	CALL_IN_CONTEXT("cuStreamSynchronize");
	auto stream = stream_of(handle);
	return stream ? drain(*stream, stream->queued) : INVALID_HANDLE;
}

// Asking often enough sees the end: one piece of work is done each time.
int cuStreamQuery(Stream *handle) {
	CALL_IN_CONTEXT("cuStreamQuery");
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (int code = drain(*stream, std::min(stream->done + 1, stream->queued))) return code;
	return stream->done < stream->queued ? NOT_READY : SUCCESS;
}

int cuStreamWaitEvent(Stream *handle, Event *event, unsigned) {
	CALL_IN_CONTEXT("cuStreamWaitEvent");
	auto stream = stream_of(handle);
	if (!stream || !event_of(event)) return INVALID_HANDLE;
	if (!event->stream) return SUCCESS;
	return put_off(*stream, [other = event->stream, position = event->position] {
		return drain(*other, position);
	});
}

int cuEventCreate(Event **event, unsigned flags) {
	CALL_IN_CONTEXT("cuEventCreate");
	auto made = std::make_unique<Event>(Event{current, flags, {}, 0, {}});
	*event = made.get();
	current->events[made.get()] = std::move(made);
	return SUCCESS;
}

int cuEventDestroy_v2(Event *event) {
	CALL_IN_CONTEXT("cuEventDestroy");
	return current->events.erase(event) ? SUCCESS : INVALID_HANDLE;
}

int cuEventRecord(Event *event, Stream *handle) {
	CALL_IN_CONTEXT("cuEventRecord");
	auto stream = stream_of(handle);
	if (!stream || !event_of(event)) return INVALID_HANDLE;
	event->stream = stream;
	event->position = stream->queued + 1;
	event->when = std::make_shared<Clock::time_point>();
	return put_off(*stream, [when = event->when] {
		*when = Clock::now();
		return (int)SUCCESS;
	});
}

int cuEventSynchronize(Event *event) {
	CALL_IN_CONTEXT("cuEventSynchronize");
	if (!event_of(event)) return INVALID_HANDLE;
	return event->stream ? drain(*event->stream, event->position) : SUCCESS;
}

int cuEventQuery(Event *event) {
	CALL_IN_CONTEXT("cuEventQuery");
	if (!event_of(event)) return INVALID_HANDLE;
	if (!event->stream) return SUCCESS;
	Stream &stream = *event->stream;
	if (int code = drain(stream, std::min(stream.done + 1, event->position))) return code;
	return stream.done < event->position ? NOT_READY : SUCCESS;
}

int cuEventElapsedTime_v2(float *milliseconds, Event *start, Event *end) {
	CALL_IN_CONTEXT("cuEventElapsedTime");
	for (Event *event : {start, end}) {
		if (!event_of(event) || !event->stream || event->flags & WITHOUT_TIMING) return INVALID_HANDLE;
		if (event->stream->done < event->position) return NOT_READY;
	}
	*milliseconds = std::chrono::duration<float, std::milli>(*end->when - *start->when).count();
	return SUCCESS;
}

int cuMemGetInfo_v2(size_t *free, size_t *total) {
	CALL_IN_CONTEXT("cuMemGetInfo");
	*total = current->capacity;
	*free = current->capacity - current->used();
	return SUCCESS;
}

int cuMemAlloc_v2(Address *address, size_t size) {
	CALL_IN_CONTEXT("cuMemAlloc");
	return allocate(address, size);
}

int cuMemAllocAsync(Address *address, size_t size, Stream *handle) {
	CALL_IN_CONTEXT("cuMemAllocAsync");
	return stream_of(handle) ? allocate(address, size) : INVALID_HANDLE;
}

// Waits for everything that may use it.
int cuMemFree_v2(Address address) {
	CALL_IN_CONTEXT("cuMemFree");
	if (!lies_in_memory(address, 0) || !current->memory.count(address)) return INVALID_VALUE;
	if (int code = drain(*current)) return code;
	return current->broken = release(*current, address);
}

int cuMemFreeAsync(Address address, Stream *handle) {
	CALL_IN_CONTEXT("cuMemFreeAsync");
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!lies_in_memory(address, 0) || !current->memory.count(address)) return INVALID_VALUE;
	current->memory[address].given_back = true;
	return put_off(*stream, [context = current, address] { return release(*context, address); });
}

int cuMemHostAlloc(void **memory, size_t size, unsigned) {
	CALL_IN_CONTEXT("cuMemHostAlloc");
	if (!size) return INVALID_VALUE;
	char *made = static_cast<char *>(malloc(size));
	if (!made) return OUT_OF_MEMORY;
	memset(made, STALE, size);
	current->page_locked[made] = size;
	*memory = made;
	return SUCCESS;
}

int cuMemFreeHost(void *memory) {
	CALL_IN_CONTEXT("cuMemFreeHost");
	for (auto &context : world().contexts)
		if (context->page_locked.erase(static_cast<char *>(memory))) {
			free(memory);
			return SUCCESS;
		}
	return INVALID_VALUE;
}

int cuMemsetD8Async(Address to, unsigned char value, size_t size, Stream *stream) {
	CALL_IN_CONTEXT("cuMemsetD8Async");
	return set_bytes(to, value, size, stream);
}

int cuMemsetD8_v2(Address to, unsigned char value, size_t size) {
	CALL_IN_CONTEXT("cuMemsetD8");
	return set_bytes(to, value, size, nullptr);
}

int cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t size, Stream *stream) {
	CALL_IN_CONTEXT("cuMemcpyHtoDAsync");
	return upload(to, static_cast<const char *>(from), size, stream);
}

int cuMemcpyHtoD_v2(Address to, const void *from, size_t size) {
	CALL_IN_CONTEXT("cuMemcpyHtoD");
	int code = upload(to, static_cast<const char *>(from), size, nullptr);
	return code ? code : drain(*current->nobodys, current->nobodys->queued);
}

int cuMemcpyDtoHAsync_v2(void *to, Address from, size_t size, Stream *stream) {
	CALL_IN_CONTEXT("cuMemcpyDtoHAsync");
	return download(static_cast<char *>(to), from, size, stream);
}

int cuMemcpyDtoH_v2(void *to, Address from, size_t size) {
	CALL_IN_CONTEXT("cuMemcpyDtoH");
	int code = download(static_cast<char *>(to), from, size, nullptr);
	return code ? code : drain(*current->nobodys, current->nobodys->queued);
}

int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, Stream *stream) {
	CALL_IN_CONTEXT("cuMemcpyDtoDAsync");
	return copy(to, from, size, stream);
}

int cuMemcpyDtoD_v2(Address to, Address from, size_t size) {
	CALL_IN_CONTEXT("cuMemcpyDtoD");
	return copy(to, from, size, nullptr);
}

// The kernels are compiled for this machine already; what the image holds is not looked at.
int cuModuleLoadData(Module **module, const void *image) {
	CALL_IN_CONTEXT("cuModuleLoadData");
	if (!image) return INVALID_IMAGE;
	auto made = std::make_unique<Module>(Module{current, {}});
	*module = made.get();
	current->modules[made.get()] = std::move(made);
	return SUCCESS;
}

int cuModuleLoadDataEx(Module **module, const void *image, unsigned, int *, void **) {
	return cuModuleLoadData(module, image);
}

int cuModuleUnload(Module *module) {
	CALL_IN_CONTEXT("cuModuleUnload");
	return current->modules.erase(module) ? SUCCESS : INVALID_HANDLE;
}

int cuModuleGetFunction(Function **function, Module *module, const char *name) {
	CALL_IN_CONTEXT("cuModuleGetFunction");
	if (!current->modules.count(module)) return INVALID_HANDLE;
	std::string symbol = std::string("host_") + name;
	for (void *library : world().kernels) {
		auto run = reinterpret_cast<Run>(dlsym(library, symbol.c_str()));
		auto size = static_cast<const unsigned *>(dlsym(library, (symbol + "_size").c_str()));
		if (!run || !size) continue;
		auto &made = module->functions[name];
		if (!made) made = std::make_unique<Function>(Function{run, *size});
		*function = made.get();
		return SUCCESS;
	}
	return NOT_FOUND;
}

int cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned threads,
                   unsigned threads_y, unsigned threads_z, unsigned, Stream *handle, void **arguments,
                   void **) {
	CALL_IN_CONTEXT("cuLaunchKernel");
	auto stream = stream_of(handle);
	if (!stream) return INVALID_HANDLE;
	if (!x || !y || !z || !threads || threads > 1024 || threads_y != 1 || threads_z != 1)
		return INVALID_VALUE;
	std::vector<uint64_t> values((function->size + 7) / 8);
	memcpy(values.data(), arguments[0], function->size);
	return put_off(*stream, [=, run = function->run, context = current] {
		if (int code = told_to_fail("kernel")) return code;
		unsigned grid[3] = {x, y, z};
		if (run(grid, threads, world().backward, values.data())) return (int)LAUNCH_FAILED;
		return check_guards(*context);
	});
}

void standin_order(int at_once, int backward);

// Everything as at the start, with devices of these sizes.
void standin_start(const uint64_t *bytes, size_t count) {
	World &all = world();
	std::lock_guard<std::recursive_mutex> lock(all.mutex);
	while (all.contexts.size() < count) all.contexts.push_back(std::make_unique<Context>());
	for (size_t i = 0; i < all.contexts.size(); ++i) {
		Context &context = *all.contexts[i];
		context.clear();
		context.capacity = i < count ? bytes[i] : 0;
		context.broken = SUCCESS;
		context.references = context.left_behind = context.damaged = 0;
	}
	all.devices = count;
	all.faults.clear();
	all.calls.clear();
	all.at_once = all.backward = false;
}

// Kernels are looked for in this library too. 0, or 1 when it cannot be opened.
int standin_kernels(const char *path) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (library) world().kernels.push_back(library);
	return !library;
}

// A process that is tested from outside says what it has: STANDIN_DEVICES are sizes in bytes, STANDIN_KERNELS is a
// path as in PATH. Work is done at once there.
__attribute__((constructor)) static void start_by_environment() {
	const char *devices = getenv("STANDIN_DEVICES"), *kernels = getenv("STANDIN_KERNELS");
	if (!devices) return;
	std::vector<uint64_t> sizes;
	std::istringstream numbers(devices), paths(kernels ? kernels : "");
	for (uint64_t size; numbers >> size;) sizes.push_back(size);
	standin_start(sizes.data(), sizes.size());
	standin_order(1, 0);
	for (std::string path; std::getline(paths, path, ':');)
		if (standin_kernels(path.c_str())) abort();
}

// The call of this name, without its version, fails after `calls` that succeed. Three names are of queued
// work, whose failure is sticky: kernel, copy, memset.
void standin_fail(const char *name, unsigned calls, int code) {
	std::lock_guard<std::recursive_mutex> lock(world().mutex);
	world().faults[name] = {calls, code};
}

void standin_break(int device, int code) {
	std::lock_guard<std::recursive_mutex> lock(world().mutex);
	if (Context *context = context_of(device)) context->broken = code;
}

// Work is done when it is asked for; a block's threads run from the last to the first.
void standin_order(int at_once, int backward) {
	std::lock_guard<std::recursive_mutex> lock(world().mutex);
	world().at_once = at_once;
	world().backward = backward;
}

uint64_t standin_calls(const char *name) {
	std::lock_guard<std::recursive_mutex> lock(world().mutex);
	return world().calls[name];
}

void standin_alive(int device, Alive *alive) {
	std::lock_guard<std::recursive_mutex> lock(world().mutex);
	*alive = {};
	Context *context = context_of(device);
	if (!context) return;
	*alive = {context->used(),         context->memory.size(), context->page_locked.size(),
	          context->streams.size(), context->events.size(), context->modules.size(),
	          context->references,     context->left_behind,   context->damaged};
}

} // extern "C"
