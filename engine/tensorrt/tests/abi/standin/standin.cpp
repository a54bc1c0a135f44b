// A TensorRT that needs no device: the vendor's interfaces, implemented from the vendor's headers, over host memory.
//
// It shows that the shim calls the right entry of the right table with the right arguments, and makes the errors
// that a real library makes only on a bad day. It is no TensorRT: its models are lists of words, and the one thing
// its engines can do is to multiply by numbers. What it does not implement ends the process (see defaults.rs).
//
// An engine:  standin scale=3 most=4 rows=8 memory=64 weights=1000 [fault=async|enqueue|context] [sizes] [alias]
// or one that takes texts of up to `tokens` tokens, and gives each token a vector of `most` numbers: its id times
// 1 to `most`:  standin encoder most=16 rows=8 tokens=24
// Where `lost_at` rows are given, the device they are on is lost (with the driver's stand-in only).
// With STANDIN_AT_ONCE it works within the call, on any stream: that of the driver's stand-in, whose memory is the
// host's too.
// A model:    input NAME SIZE... / scale NUMBER / words WORD... (for the engine) / op NAME / weights FILE, which is not read     (one to a line)
#include <NvInfer.h>
#include <NvOnnxParser.h>

#include "defaults.h"

#include <dlfcn.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

using namespace nvinfer1;
using namespace nvinfer1::apiv;
using nvonnxparser::IParserDefaults;
using nvonnxparser::IParserErrorDefaults;

#ifndef STANDIN_VERSION
#define STANDIN_VERSION NV_TENSORRT_VERSION
#endif

namespace {

std::mutex lock;
std::vector<std::thread> working; // The device: what has been started and may not have ended.

void report(IErrorRecorder *recorder, ILogger *logger, ErrorCode code, const std::string &text) {
    if (recorder != nullptr) {
        recorder->reportError(code, text.c_str());
    } else {
        logger->log(ILogger::Severity::kERROR, text.c_str());
    }
}

std::map<std::string, std::string> words_of(const std::string &text) {
    std::map<std::string, std::string> words;
    std::istringstream in(text);
    for (std::string word; in >> word;) {
        auto at = word.find('=');
        words[word.substr(0, at)] = at == std::string::npos ? "" : word.substr(at + 1);
    }
    return words;
}

// The driver answers everything on the device in use with an illegal memory access from now on.
void lose_device() {
    void *driver = dlopen("libcuda.so", RTLD_NOW | RTLD_NOLOAD);
    auto number = driver == nullptr ? nullptr : reinterpret_cast<int (*)(int *)>(dlsym(driver, "cuCtxGetDevice"));
    auto lose = driver == nullptr ? nullptr : reinterpret_cast<void (*)(int, int)>(dlsym(driver, "standin_break"));
    int device = 0;
    if (number != nullptr && lose != nullptr && number(&device) == 0) {
        lose(device, 700);
    }
}

int64_t number_of(const std::map<std::string, std::string> &words, const char *key, int64_t otherwise) {
    auto found = words.find(key);
    return found == words.end() ? otherwise : std::atoll(found->second.c_str());
}

Dims dims_of(std::initializer_list<int64_t> sizes) {
    Dims dims{};
    for (int64_t size : sizes) {
        dims.d[dims.nbDims++] = size;
    }
    return dims;
}

class Memory final : public IHostMemory, public VHostMemoryDefaults {
public:
    explicit Memory(std::string text) : bytes(std::move(text)) { mImpl = this; }
    void *data() const noexcept override { return const_cast<char *>(bytes.data()); }
    std::size_t size() const noexcept override { return bytes.size(); }

private:
    std::string bytes;
};

class Registry final : public IPluginRegistryDefaults {
public:
    IErrorRecorder *recorder = nullptr;
    PluginLibraryHandle loadLibrary(AsciiChar const *path) noexcept override {
        if (std::string(path).find("plugin") == std::string::npos) {
            report(recorder, nullptr, ErrorCode::kINVALID_ARGUMENT, std::string("no plugins in ") + path);
            return nullptr;
        }
        ++loaded;
        return &loaded;
    }
    IPluginCreatorInterface *const *getAllCreatorsRecursive(int32_t *const count) noexcept override {
        *count = loaded;
        return nullptr;
    }
    IPluginCreatorInterface *getCreator(
        AsciiChar const *const name, AsciiChar const *const version, AsciiChar const *const) noexcept override {
        // Asked for, never called: the address of anything will do.
        bool known = loaded > 0 && std::string(name) == "Scale" && std::string(version) == "1";
        return known ? reinterpret_cast<IPluginCreatorInterface *>(this) : nullptr;
    }

private:
    int32_t loaded = 0;
};

class Context final : public IExecutionContext, public VExecutionContextDefaults {
public:
    Context(ICudaEngine &of, std::map<std::string, std::string> says) : engine(of), words(std::move(says)) {
        mImpl = this;
    }
    void setErrorRecorder(IErrorRecorder *to) noexcept override { recorder = to; }
    bool setTemporaryStorageAllocator(IGpuAllocator *) noexcept override { return true; }
    void setDeviceMemoryV2(void *memory, int64_t size) noexcept override {
        device = memory;
        device_bytes = size;
    }
    bool setOptimizationProfileAsync(int32_t number, cudaStream_t) noexcept override {
        profile = number;
        shape = Dims{};
        return true;
    }
    bool setInputShape(char const *name, Dims const &dims) noexcept override {
        bool texts = std::strcmp(name, "input_ids") == 0 || std::strcmp(name, "attention_mask") == 0;
        if (std::strcmp(name, "x") != 0 && !texts) {
            return false;
        }
        shape = dims;
        return true;
    }
    Dims getTensorShape(char const *name) const noexcept override {
        if (std::strcmp(name, "rows") == 0) {
            return dims_of({1});
        }
        if (std::strcmp(name, "last_hidden_state") == 0 && shape.nbDims == 2) {
            return dims_of({shape.d[0], shape.d[1], number_of(words, "most", 4)});
        }
        return shape.nbDims == 0 ? engine.getTensorShape(name) : shape;
    }
    bool setTensorAddress(char const *name, void *memory) noexcept override {
        addresses[name] = memory;
        return true;
    }
    int64_t getMaxOutputSize(char const *) const noexcept override { return -1; }
    int32_t inferShapes(int32_t capacity, char const **names) noexcept override {
        int32_t missing = 0;
        if (shape.nbDims == 0) {
            if (missing++ < capacity) {
                names[0] = "x";
            }
        }
        auto *rows = static_cast<int64_t *>(addresses["rows"]);
        if (rows != nullptr && missing == 0 && *rows != shape.d[0]) {
            report(recorder, nullptr, ErrorCode::kINVALID_ARGUMENT, "rows is not x's first size");
            return -1;
        }
        return missing;
    }
    bool enqueueV3(cudaStream_t stream) noexcept override {
        const std::string fault = words.count("fault") != 0 ? words["fault"] : "";
        if (fault == "enqueue") {
            report(recorder, nullptr, ErrorCode::kFAILED_ALLOCATION, "CUDA error 2 allocating temporary memory");
            return false;
        }
#ifdef STANDIN_AT_ONCE
        bool known = stream != nullptr;
#else
        bool known = stream == reinterpret_cast<cudaStream_t>(0x57);
#endif
        if (!known) {
            report(recorder, nullptr, ErrorCode::kINVALID_ARGUMENT, "not the stream of these tests");
            return false;
        }
        auto *x = static_cast<float *>(addresses["x"]);
        auto *y = static_cast<float *>(addresses["y"]);
        auto *ids = static_cast<int64_t *>(addresses["input_ids"]);
        auto *vectors = static_cast<float *>(addresses["last_hidden_state"]);
        int64_t elements = shape.d[0] * shape.d[1];
        int64_t width = number_of(words, "most", 4);
        float scale = static_cast<float>(number_of(words, "scale", 1)) + static_cast<float>(profile);
        if (number_of(words, "lost_at", 0) == shape.d[0]) {
            lose_device();
            report(recorder, nullptr, ErrorCode::kFAILED_EXECUTION, "CUDA error 700: an illegal memory access");
            return false;
        }
        // Working memory is written from end to end: a sanitizer would see if it is not what it was said to be.
        std::memset(device, 1, static_cast<size_t>(device_bytes));
        auto work = [=, to = recorder] {
            if (fault == "async") {
                to->reportError(ErrorCode::kFAILED_EXECUTION, "CUDA error 700: an illegal memory access");
                return;
            }
            for (int64_t i = 0; ids == nullptr && i < elements; ++i) {
                y[i] = x[i] * scale;
            }
            for (int64_t i = 0; ids != nullptr && i < elements * width; ++i) {
                vectors[i] = static_cast<float>(ids[i / width] * (i % width + 1));
            }
        };
#ifdef STANDIN_AT_ONCE
        work();
#else
        std::lock_guard<std::mutex> held(lock);
        working.emplace_back(work);
#endif
        return true;
    }

private:
    ICudaEngine &engine;
    std::map<std::string, std::string> words;
    IErrorRecorder *recorder = nullptr;
    Dims shape{};
    int32_t profile = 0;
    std::map<std::string, void *> addresses;
    void *device = nullptr;
    int64_t device_bytes = 0;
};

class Engine final : public ICudaEngine, public VCudaEngineDefaults {
public:
    Engine(std::string says, IErrorRecorder *to, IGpuAllocator *from, void *lent)
        : text(std::move(says)), words(words_of(text)), recorder(to), allocator(from), weights(lent) {
        mImpl = this;
    }
    ~Engine() noexcept override {
        if (weights != nullptr) {
            allocator->deallocateAsync(weights, nullptr);
        }
    }
    char const *getName() const noexcept override { return "standin"; }
    int32_t getNbIOTensors() const noexcept override { return words.count("sizes") != 0 || encodes() ? 3 : 2; }
    char const *getIOTensorName(int32_t index) const noexcept override {
        static char const *const names[] = {"x", "y", "rows"};
        static char const *const texts[] = {"input_ids", "attention_mask", "last_hidden_state"};
        return encodes() ? texts[index] : names[index];
    }
    TensorIOMode getTensorIOMode(char const *name) const noexcept override {
        bool given = std::strcmp(name, "y") == 0 || std::strcmp(name, "last_hidden_state") == 0;
        return given ? TensorIOMode::kOUTPUT : TensorIOMode::kINPUT;
    }
    DataType getTensorDataType(char const *name) const noexcept override {
        bool real = std::strcmp(name, "rows") != 0 && (!encodes() || getTensorIOMode(name) == TensorIOMode::kOUTPUT);
        return real ? DataType::kFLOAT : DataType::kINT64;
    }
    TensorLocation getTensorLocation(char const *name) const noexcept override {
        return std::strcmp(name, "rows") == 0 ? TensorLocation::kHOST : TensorLocation::kDEVICE;
    }
    TensorFormat getTensorFormatV2(char const *, int32_t) const noexcept override {
        return static_cast<TensorFormat>(number_of(words, "format", 0));
    }
    Dims getTensorShape(char const *name) const noexcept override {
        if (encodes()) {
            return std::strcmp(name, "last_hidden_state") == 0 ? dims_of({-1, -1, most()}) : dims_of({-1, -1});
        }
        return std::strcmp(name, "rows") == 0 ? dims_of({1}) : dims_of({-1, most()});
    }
    char const *getAliasedInputTensor(char const *name) const noexcept override {
        return words.count("alias") != 0 && std::strcmp(name, "y") == 0 ? "x" : nullptr;
    }
    int32_t getNbOptimizationProfiles() const noexcept override {
        return static_cast<int32_t>(number_of(words, "profiles", 1));
    }
    Dims getProfileShape(char const *, int32_t profile, OptProfileSelector which) const noexcept override {
        int64_t rows = number_of(words, "rows", 8);
        int64_t width = encodes() ? number_of(words, "tokens", 8) : most();
        switch (which) {
        case OptProfileSelector::kMIN:
            return dims_of({1, encodes() ? 1 : width});
        case OptProfileSelector::kOPT:
            return dims_of({rows / 2, width});
        default:
            return dims_of({rows * (profile + 1), width});
        }
    }
    int64_t getDeviceMemorySizeForProfileV2(int32_t profile) const noexcept override {
        return number_of(words, "memory", 0) * (profile + 1);
    }
    int64_t getEngineStat(EngineStat) const noexcept override { return number_of(words, "weights", 0); }
    IHostMemory *serialize() const noexcept override { return new Memory(text); }
    IExecutionContext *createExecutionContext(ExecutionContextAllocationStrategy strategy) noexcept override {
        if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
            report(recorder, nullptr, ErrorCode::kINVALID_ARGUMENT, "its memory was to be given");
            return nullptr;
        }
        if (words.count("fault") != 0 && words["fault"] == "context") {
            report(recorder, nullptr, ErrorCode::kFAILED_ALLOCATION, "no memory left for a context");
            return nullptr;
        }
        return new Context(*this, words);
    }

private:
    int64_t most() const { return number_of(words, "most", 4); }
    bool encodes() const { return words.count("encoder") != 0; }

    std::string text;
    mutable std::map<std::string, std::string> words;
    IErrorRecorder *recorder;
    IGpuAllocator *allocator;
    void *weights;
};

class Runtime final : public IRuntime, public VRuntimeDefaults {
public:
    explicit Runtime(ILogger *to) : logger(to) { mImpl = this; }
    void setErrorRecorder(IErrorRecorder *to) noexcept override {
        recorder = to;
        registry.recorder = to;
        recorder->incRefCount();
    }
    void setGpuAllocator(IGpuAllocator *from) noexcept override { allocator = from; }
    bool setMaxThreads(int32_t threads) noexcept override { return threads > 0; }
    void setEngineHostCodeAllowed(bool allowed) noexcept override { host_code = allowed; }
    IPluginRegistry &getPluginRegistry() noexcept override { return registry; }
    ICudaEngine *deserializeCudaEngine(void const *blob, std::size_t size) noexcept override {
        std::string text(static_cast<char const *>(blob), size);
        if (text.rfind("standin ", 0) != 0) {
            report(recorder, logger, ErrorCode::kINVALID_CONFIG, "the serialized engine's magic tag does not match");
            return nullptr;
        }
        auto words = words_of(text);
        if (words.count("host") != 0 && !host_code) {
            report(recorder, logger, ErrorCode::kINVALID_STATE, "the engine carries host code, which is not allowed");
            return nullptr;
        }
        logger->log(ILogger::Severity::kINFO, "Loaded engine size: a few words");
        logger->log(ILogger::Severity::kWARNING, "Using an engine plan file across different models of devices");
        uint64_t weights = static_cast<uint64_t>(number_of(words, "weights", 0));
        void *memory = nullptr;
        if (weights > 0 && allocator != nullptr) {
            memory = allocator->allocateAsync(weights, 256, 0, nullptr);
            if (memory == nullptr) {
                report(recorder, logger, ErrorCode::kFAILED_ALLOCATION, "Requested amount of GPU memory is not to be had");
                return nullptr;
            }
        }
        return new Engine(text, recorder, allocator, memory);
    }

private:
    ILogger *logger;
    IErrorRecorder *recorder = nullptr;
    IGpuAllocator *allocator = nullptr;
    bool host_code = true;
    Registry registry;
};

#include "standin_builder.h"

} // namespace

extern "C" {

#ifndef STANDIN_WITHOUT_VERSION
int32_t getInferLibVersion() noexcept { return STANDIN_VERSION; }
#endif

#ifndef STANDIN_WITHOUT_RUNTIME
void *createInferRuntime_INTERNAL(void *logger, int32_t version) noexcept {
    auto *to = static_cast<ILogger *>(logger);
#ifdef STANDIN_WITHOUT_DEVICE
    // What it gives then: nullptr, or what a real one gives (see the shim).
    to->log(ILogger::Severity::kERROR, "CUDA initialization failure with error: 35");
    return reinterpret_cast<void *>(STANDIN_WITHOUT_DEVICE);
#endif
    if (version != NV_TENSORRT_VERSION) {
        to->log(ILogger::Severity::kERROR, "built with other headers");
        return nullptr;
    }
    return static_cast<IRuntime *>(new Runtime(to));
}
#endif

#ifndef STANDIN_WITHOUT_BUILDER
void *createInferBuilder_INTERNAL(void *logger, int32_t) noexcept {
    return static_cast<IBuilder *>(new Builder(static_cast<ILogger *>(logger)));
}
void *createNvOnnxParser_INTERNAL(void *network, void *, int) noexcept {
    return static_cast<nvonnxparser::IParser *>(new Parser(static_cast<INetworkDefinition *>(network)));
}
#endif

// What a stream's synchronize() is made of in these tests.
__attribute__((visibility("default"))) void standin_wait() {
    std::vector<std::thread> all;
    {
        std::lock_guard<std::mutex> held(lock);
        all.swap(working);
    }
    for (auto &one : all) {
        one.join();
    }
}

} // extern "C"
