// See tensorrt_shim.h. Forwards, and adapts the callbacks that TensorRT wants as C++ objects; nothing is decided here.
//
// Compiled with RTTI: the library may look at the type of the objects it is handed. Built without exceptions:
// every interface called here is declared noexcept by the vendor.
#include "tensorrt_shim.h"

#include <NvInfer.h>
#include <NvOnnxParser.h>

#include <atomic>
#include <new>

using namespace nvinfer1;

static_assert(SLUICE_TRT_MAX_RANK == Dims::MAX_DIMS, "the C interface has room for the shapes of these headers");

namespace {

class Logger final : public ILogger {
public:
    explicit Logger(const sluice_trt_callbacks &to) : callbacks(to) {}
    void log(Severity severity, AsciiChar const *message) noexcept override {
        callbacks.log(callbacks.user, static_cast<int32_t>(severity), message);
    }

private:
    const sluice_trt_callbacks &callbacks;
};

// Hands each error on at once. What is kept, and for how long, is for the receiver to say, so there is never
// one to be asked for here.
class ErrorRecorder final : public IErrorRecorder {
public:
    explicit ErrorRecorder(const sluice_trt_callbacks &to) : callbacks(to) {}
    int32_t getNbErrors() const noexcept override { return 0; }
    ErrorCode getErrorCode(int32_t) const noexcept override { return ErrorCode::kSUCCESS; }
    ErrorDesc getErrorDesc(int32_t) const noexcept override { return ""; }
    bool hasOverflowed() const noexcept override { return false; }
    void clear() noexcept override {}
    bool reportError(ErrorCode code, ErrorDesc description) noexcept override {
        callbacks.error(callbacks.user, static_cast<int32_t>(code), description);
        // "True" would say that the error is fatal and stop what can still clean up after itself.
        return false;
    }
    RefCount incRefCount() noexcept override { return ++references; }
    RefCount decRefCount() noexcept override { return --references; }

private:
    const sluice_trt_callbacks &callbacks;
    std::atomic<RefCount> references{0};
};

class Allocator final : public IGpuAsyncAllocator {
public:
    explicit Allocator(const sluice_trt_callbacks &to) : callbacks(to) {}
    void *allocateAsync(
        uint64_t const bytes, uint64_t const alignment, AllocatorFlags const, cudaStream_t stream) noexcept override {
        return callbacks.allocate(callbacks.user, bytes, alignment, stream);
    }
    bool deallocateAsync(void *const memory, cudaStream_t stream) noexcept override {
        return memory == nullptr || callbacks.release(callbacks.user, memory, stream) != 0;
    }

private:
    const sluice_trt_callbacks &callbacks;
};

class Progress final : public IProgressMonitor {
public:
    explicit Progress(const sluice_trt_callbacks &to) : callbacks(to) {}
    void phaseStart(char const *phase, char const *parent, int32_t steps) noexcept override {
        callbacks.phase_start(callbacks.user, phase, parent, steps);
    }
    bool stepComplete(char const *phase, int32_t step) noexcept override {
        return callbacks.phase_step(callbacks.user, phase, step) != 0;
    }
    void phaseFinish(char const *phase) noexcept override { callbacks.phase_finish(callbacks.user, phase); }

private:
    const sluice_trt_callbacks &callbacks;
};

Dims dims_of(const sluice_trt_shape &shape) {
    Dims dims{};
    dims.nbDims = shape.rank;
    for (int32_t axis = 0; axis < shape.rank && axis < Dims::MAX_DIMS; ++axis) {
        dims.d[axis] = shape.sizes[axis];
    }
    return dims;
}

sluice_trt_shape shape_of(const Dims &dims) {
    sluice_trt_shape shape{};
    shape.rank = dims.nbDims;
    for (int32_t axis = 0; axis < dims.nbDims && axis < Dims::MAX_DIMS; ++axis) {
        shape.sizes[axis] = dims.d[axis];
    }
    return shape;
}

// What a library's `create` function gave, or null. On a machine without a device the lean runtime 11.4.0 gives the
// address of a base class of an object that it did not make: null plus an offset, here 0x228.
template <typename T> T *checked(void *made) {
    constexpr uintptr_t first_page = 4096; // Nothing is ever mapped there.
    return reinterpret_cast<uintptr_t>(made) < first_page ? nullptr : static_cast<T *>(made);
}

cudaStream_t stream_of(void *stream) { return static_cast<cudaStream_t>(stream); }

} // namespace

struct sluice_trt_hooks {
    sluice_trt_hooks(const sluice_trt_callbacks &to, bool memory) : callbacks(to), own_memory(memory) {}

    const sluice_trt_callbacks callbacks;
    const bool own_memory;
    Logger logger{callbacks};
    ErrorRecorder recorder{callbacks};
    Allocator allocator{callbacks};
    Progress progress{callbacks};
};

// A handle is the object itself: one cast there and one back, for every class that has a handle.
#define HANDLE(NAME, CLASS)                                                                                            \
    static inline CLASS *as(NAME *handle) { return reinterpret_cast<CLASS *>(handle); }                                \
    static inline const CLASS *as(const NAME *handle) { return reinterpret_cast<const CLASS *>(handle); }              \
    static inline NAME *handle_of(CLASS *object) { return reinterpret_cast<NAME *>(object); }

HANDLE(sluice_trt_runtime, IRuntime)
HANDLE(sluice_trt_engine, ICudaEngine)
HANDLE(sluice_trt_context, IExecutionContext)
HANDLE(sluice_trt_memory, IHostMemory)
HANDLE(sluice_trt_registry, IPluginRegistry)
HANDLE(sluice_trt_builder, IBuilder)
HANDLE(sluice_trt_network, INetworkDefinition)
HANDLE(sluice_trt_profile, IOptimizationProfile)
HANDLE(sluice_trt_config, IBuilderConfig)
HANDLE(sluice_trt_timing, ITimingCache)
HANDLE(sluice_trt_parser, nvonnxparser::IParser)

extern "C" {

int32_t sluice_trt_header_version(void) { return NV_TENSORRT_VERSION; }

sluice_trt_hooks *sluice_trt_hooks_create(const sluice_trt_callbacks *callbacks, int32_t own_memory) {
    return new (std::nothrow) sluice_trt_hooks(*callbacks, own_memory != 0);
}
void sluice_trt_hooks_destroy(sluice_trt_hooks *hooks) { delete hooks; }

// ---- Runtime

sluice_trt_runtime *sluice_trt_runtime_create(void *entry, sluice_trt_hooks *hooks) {
    auto create = reinterpret_cast<decltype(&createInferRuntime_INTERNAL)>(entry);
    ILogger *logger = &hooks->logger;
    auto *runtime = checked<IRuntime>(create(logger, NV_TENSORRT_VERSION));
    if (runtime != nullptr) {
        runtime->setErrorRecorder(&hooks->recorder);
        if (hooks->own_memory) {
            runtime->setGpuAllocator(&hooks->allocator);
        }
    }
    return handle_of(runtime);
}
void sluice_trt_runtime_destroy(sluice_trt_runtime *runtime) { delete as(runtime); }
int32_t sluice_trt_runtime_set_threads(sluice_trt_runtime *runtime, int32_t threads) {
    return as(runtime)->setMaxThreads(threads);
}
void sluice_trt_runtime_allow_host_code(sluice_trt_runtime *runtime, int32_t allowed) {
    as(runtime)->setEngineHostCodeAllowed(allowed != 0);
}
sluice_trt_registry *sluice_trt_runtime_registry(sluice_trt_runtime *runtime) {
    return handle_of(&as(runtime)->getPluginRegistry());
}
sluice_trt_engine *sluice_trt_runtime_deserialize(sluice_trt_runtime *runtime, const void *data, uint64_t bytes) {
    return handle_of(as(runtime)->deserializeCudaEngine(data, bytes));
}

// ---- Plugins

void *sluice_trt_registry_load(sluice_trt_registry *registry, const char *path) {
    return as(registry)->loadLibrary(path);
}
int32_t sluice_trt_registry_count(sluice_trt_registry *registry) {
    int32_t count = 0;
    as(registry)->getAllCreatorsRecursive(&count);
    return count;
}
int32_t sluice_trt_registry_has(
    sluice_trt_registry *registry, const char *name, const char *version, const char *space) {
    return as(registry)->getCreator(name, version, space) != nullptr;
}

// ---- Engine

void sluice_trt_engine_destroy(sluice_trt_engine *engine) { delete as(engine); }
const char *sluice_trt_engine_name(const sluice_trt_engine *engine) { return as(engine)->getName(); }
int32_t sluice_trt_engine_tensors(const sluice_trt_engine *engine) { return as(engine)->getNbIOTensors(); }
const char *sluice_trt_engine_tensor_name(const sluice_trt_engine *engine, int32_t index) {
    return as(engine)->getIOTensorName(index);
}
int32_t sluice_trt_engine_tensor_mode(const sluice_trt_engine *engine, const char *name) {
    return static_cast<int32_t>(as(engine)->getTensorIOMode(name));
}
int32_t sluice_trt_engine_tensor_type(const sluice_trt_engine *engine, const char *name) {
    return static_cast<int32_t>(as(engine)->getTensorDataType(name));
}
int32_t sluice_trt_engine_tensor_location(const sluice_trt_engine *engine, const char *name) {
    return static_cast<int32_t>(as(engine)->getTensorLocation(name));
}
int32_t sluice_trt_engine_tensor_format(const sluice_trt_engine *engine, const char *name, int32_t profile) {
    return static_cast<int32_t>(as(engine)->getTensorFormat(name, profile));
}
sluice_trt_shape sluice_trt_engine_tensor_shape(const sluice_trt_engine *engine, const char *name) {
    return shape_of(as(engine)->getTensorShape(name));
}
const char *sluice_trt_engine_tensor_alias(const sluice_trt_engine *engine, const char *name) {
    return as(engine)->getAliasedInputTensor(name);
}
int32_t sluice_trt_engine_profiles(const sluice_trt_engine *engine) {
    return as(engine)->getNbOptimizationProfiles();
}
sluice_trt_shape sluice_trt_engine_profile_shape(
    const sluice_trt_engine *engine, const char *name, int32_t profile, int32_t which) {
    return shape_of(as(engine)->getProfileShape(name, profile, static_cast<OptProfileSelector>(which)));
}
int64_t sluice_trt_engine_working_memory(const sluice_trt_engine *engine, int32_t profile) {
    return as(engine)->getDeviceMemorySizeForProfileV2(profile);
}
int64_t sluice_trt_engine_weight_bytes(const sluice_trt_engine *engine) {
    return as(engine)->getEngineStat(EngineStat::kTOTAL_WEIGHTS_SIZE);
}
sluice_trt_memory *sluice_trt_engine_serialize(const sluice_trt_engine *engine) {
    return handle_of(as(engine)->serialize());
}

const void *sluice_trt_memory_data(const sluice_trt_memory *memory) { return as(memory)->data(); }
uint64_t sluice_trt_memory_bytes(const sluice_trt_memory *memory) { return as(memory)->size(); }
void sluice_trt_memory_destroy(sluice_trt_memory *memory) { delete as(memory); }

// ---- Context

sluice_trt_context *sluice_trt_context_create(sluice_trt_engine *engine, sluice_trt_hooks *hooks) {
    auto *context = as(engine)->createExecutionContext(ExecutionContextAllocationStrategy::kUSER_MANAGED);
    if (context != nullptr) {
        context->setErrorRecorder(&hooks->recorder);
        if (hooks->own_memory) {
            context->setTemporaryStorageAllocator(&hooks->allocator);
        }
    }
    return handle_of(context);
}
void sluice_trt_context_destroy(sluice_trt_context *context) { delete as(context); }
void sluice_trt_context_set_memory(sluice_trt_context *context, void *memory, int64_t bytes) {
    as(context)->setDeviceMemoryV2(memory, bytes);
}
int32_t sluice_trt_context_set_profile(sluice_trt_context *context, int32_t profile, void *stream) {
    return as(context)->setOptimizationProfileAsync(profile, stream_of(stream));
}
int32_t sluice_trt_context_set_shape(sluice_trt_context *context, const char *name, const sluice_trt_shape *shape) {
    return as(context)->setInputShape(name, dims_of(*shape));
}
sluice_trt_shape sluice_trt_context_shape(const sluice_trt_context *context, const char *name) {
    return shape_of(as(context)->getTensorShape(name));
}
int32_t sluice_trt_context_set_address(sluice_trt_context *context, const char *name, void *memory) {
    return as(context)->setTensorAddress(name, memory);
}
int64_t sluice_trt_context_output_bytes(const sluice_trt_context *context, const char *name) {
    return as(context)->getMaxOutputSize(name);
}
int32_t sluice_trt_context_infer(sluice_trt_context *context, const char **names, int32_t capacity) {
    return as(context)->inferShapes(capacity, names);
}
int32_t sluice_trt_context_enqueue(sluice_trt_context *context, void *stream) {
    return as(context)->enqueueV3(stream_of(stream));
}

// ---- Builder

sluice_trt_builder *sluice_trt_builder_create(void *entry, sluice_trt_hooks *hooks) {
    auto create = reinterpret_cast<decltype(&createInferBuilder_INTERNAL)>(entry);
    ILogger *logger = &hooks->logger;
    auto *builder = checked<IBuilder>(create(logger, NV_TENSORRT_VERSION));
    if (builder != nullptr) {
        builder->setErrorRecorder(&hooks->recorder);
        if (hooks->own_memory) {
            builder->setGpuAllocator(&hooks->allocator);
        }
    }
    return handle_of(builder);
}
void sluice_trt_builder_destroy(sluice_trt_builder *builder) { delete as(builder); }
int32_t sluice_trt_builder_set_threads(sluice_trt_builder *builder, int32_t threads) {
    return as(builder)->setMaxThreads(threads);
}
sluice_trt_registry *sluice_trt_builder_registry(sluice_trt_builder *builder) {
    return handle_of(&as(builder)->getPluginRegistry());
}
sluice_trt_memory *sluice_trt_builder_build(
    sluice_trt_builder *builder, sluice_trt_network *network, sluice_trt_config *config) {
    return handle_of(as(builder)->buildSerializedNetwork(*as(network), *as(config)));
}

sluice_trt_network *sluice_trt_network_create(sluice_trt_builder *builder) {
    return handle_of(as(builder)->createNetworkV2(0));
}
void sluice_trt_network_destroy(sluice_trt_network *network) { delete as(network); }
int32_t sluice_trt_network_inputs(const sluice_trt_network *network) { return as(network)->getNbInputs(); }
const char *sluice_trt_network_input_name(const sluice_trt_network *network, int32_t index) {
    const ITensor *tensor = as(network)->getInput(index);
    return tensor == nullptr ? nullptr : tensor->getName();
}
sluice_trt_shape sluice_trt_network_input_shape(const sluice_trt_network *network, int32_t index) {
    const ITensor *tensor = as(network)->getInput(index);
    return tensor == nullptr ? sluice_trt_shape{-1, {}} : shape_of(tensor->getDimensions());
}

sluice_trt_profile *sluice_trt_profile_create(sluice_trt_builder *builder) {
    return handle_of(as(builder)->createOptimizationProfile());
}
int32_t sluice_trt_profile_set(
    sluice_trt_profile *profile, const char *name, int32_t which, const sluice_trt_shape *shape) {
    return as(profile)->setDimensions(name, static_cast<OptProfileSelector>(which), dims_of(*shape));
}

sluice_trt_config *sluice_trt_config_create(sluice_trt_builder *builder) {
    return handle_of(as(builder)->createBuilderConfig());
}
void sluice_trt_config_destroy(sluice_trt_config *config) { delete as(config); }
int32_t sluice_trt_config_add_profile(sluice_trt_config *config, const sluice_trt_profile *profile) {
    return as(config)->addOptimizationProfile(as(profile));
}
void sluice_trt_config_set_workspace(sluice_trt_config *config, uint64_t bytes) {
    as(config)->setMemoryPoolLimit(MemoryPoolType::kWORKSPACE, bytes);
}
void sluice_trt_config_set_level(sluice_trt_config *config, int32_t level) {
    as(config)->setBuilderOptimizationLevel(level);
}
int32_t sluice_trt_config_set_target(sluice_trt_config *config, int32_t capability) {
#ifdef TRT_MAJOR_RTX
    return as(config)->setNbComputeCapabilities(1) &&
           as(config)->setComputeCapability(static_cast<ComputeCapability>(capability), 0);
#else
    static_cast<void>(config);
    static_cast<void>(capability);
    return 0;
#endif
}
void sluice_trt_config_watch(sluice_trt_config *config, sluice_trt_hooks *hooks) {
    as(config)->setProgressMonitor(&hooks->progress);
}
sluice_trt_timing *sluice_trt_timing_create(const sluice_trt_config *config, const void *data, uint64_t bytes) {
    return handle_of(as(config)->createTimingCache(data, bytes));
}
int32_t sluice_trt_config_set_timing(sluice_trt_config *config, const sluice_trt_timing *timing) {
    return as(config)->setTimingCache(*as(timing), false);
}
sluice_trt_memory *sluice_trt_timing_serialize(const sluice_trt_timing *timing) {
    return handle_of(as(timing)->serialize());
}
void sluice_trt_timing_destroy(sluice_trt_timing *timing) { delete as(timing); }

// ---- ONNX

sluice_trt_parser *sluice_trt_parser_create(void *entry, sluice_trt_network *network, sluice_trt_hooks *hooks) {
    auto create = reinterpret_cast<decltype(&createNvOnnxParser_INTERNAL)>(entry);
    ILogger *logger = &hooks->logger;
    return handle_of(checked<nvonnxparser::IParser>(create(as(network), logger, NV_ONNX_PARSER_VERSION)));
}
void sluice_trt_parser_destroy(sluice_trt_parser *parser) { delete as(parser); }
int32_t sluice_trt_parser_parse(sluice_trt_parser *parser, const void *model, uint64_t bytes, const char *path) {
    return as(parser)->parse(model, bytes, path);
}
int32_t sluice_trt_parser_errors(const sluice_trt_parser *parser) { return as(parser)->getNbErrors(); }
int32_t sluice_trt_parser_error_code(const sluice_trt_parser *parser, int32_t index) {
    return static_cast<int32_t>(as(parser)->getError(index)->code());
}
const char *sluice_trt_parser_error_text(const sluice_trt_parser *parser, int32_t index) {
    return as(parser)->getError(index)->desc();
}
const char *sluice_trt_parser_error_node(const sluice_trt_parser *parser, int32_t index) {
    return as(parser)->getError(index)->nodeName();
}
const char *sluice_trt_parser_error_operator(const sluice_trt_parser *parser, int32_t index) {
    return as(parser)->getError(index)->nodeOperator();
}

} // extern "C"
