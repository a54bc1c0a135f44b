// The building half of the stand-in. Included by standin.cpp in its unnamed namespace.

class Tensor final : public ITensor, public VTensorDefaults {
public:
    Tensor(std::string of, Dims sizes) : name(std::move(of)), dims(sizes) { mImpl = this; }
    char const *getName() const noexcept override { return name.c_str(); }
    Dims getDimensions() const noexcept override { return dims; }

private:
    std::string name;
    Dims dims;
};

class Network final : public INetworkDefinition, public VNetworkDefinitionDefaults {
public:
    Network() { mImpl = this; }
    int32_t getNbInputs() const noexcept override { return static_cast<int32_t>(inputs.size()); }
    ITensor *getInput(int32_t index) const noexcept override {
        return const_cast<Tensor *>(&inputs[static_cast<size_t>(index)]);
    }

    std::deque<Tensor> inputs; // They cannot be moved.
    std::string scale = "1", words;
};

class Profile final : public IOptimizationProfile, public VOptimizationProfileDefaults {
public:
    Profile() { mImpl = this; }
    bool setDimensions(char const *name, OptProfileSelector which, Dims const &dims) noexcept override {
        if (which == OptProfileSelector::kMAX) {
            largest[name] = dims;
        }
        return true;
    }

    std::map<std::string, Dims> largest;
};

class Timing final : public ITimingCache, public VTimingCacheDefaults {
public:
    explicit Timing(int64_t known) : builds(known) { mImpl = this; }
    IHostMemory *serialize() const noexcept override { return new Memory("timing " + std::to_string(builds)); }

    mutable int64_t builds;
};

class Config final : public IBuilderConfig, public VBuilderConfigDefaults {
public:
    Config() { mImpl = this; }
    void setMemoryPoolLimit(MemoryPoolType pool, std::size_t bytes) noexcept override {
        if (pool == MemoryPoolType::kWORKSPACE) {
            workspace = bytes;
        }
    }
    void setBuilderOptimizationLevel(int32_t to) noexcept override { level = to; }
    void setProgressMonitor(IProgressMonitor *to) noexcept override { monitor = to; }
    int32_t addOptimizationProfile(IOptimizationProfile const *profile) noexcept override {
        profiles.push_back(static_cast<Profile const *>(profile));
        return static_cast<int32_t>(profiles.size()) - 1;
    }
    ITimingCache *createTimingCache(void const *data, std::size_t size) const noexcept override {
        std::string text(static_cast<char const *>(data), size);
        if (text.empty()) {
            return new Timing(0);
        }
        return text.rfind("timing ", 0) == 0 ? new Timing(std::atoll(text.c_str() + 7)) : nullptr;
    }
    bool setTimingCache(ITimingCache const &cache, bool) noexcept override {
        timing = static_cast<Timing const *>(&cache);
        return true;
    }

    std::size_t workspace = SIZE_MAX;
    int32_t level = 3;
    IProgressMonitor *monitor = nullptr;
    std::vector<Profile const *> profiles;
    Timing const *timing = nullptr;
};

class Builder final : public IBuilder, public VBuilderDefaults {
public:
    explicit Builder(ILogger *to) : logger(to) { mImpl = this; }
    ~Builder() noexcept override {
        for (auto *profile : profiles) {
            delete profile;
        }
    }
    void setErrorRecorder(IErrorRecorder *to) noexcept override {
        recorder = to;
        registry.recorder = to;
    }
    void setGpuAllocator(IGpuAllocator *) noexcept override {}
    bool setMaxThreads(int32_t threads) noexcept override { return threads > 0; }
    IPluginRegistry &getPluginRegistry() noexcept override { return registry; }
    INetworkDefinition *createNetworkV2(NetworkDefinitionCreationFlags) noexcept override { return new Network; }
    IBuilderConfig *createBuilderConfig() noexcept override { return new Config; }
    IOptimizationProfile *createOptimizationProfile() noexcept override {
        profiles.push_back(new Profile);
        return profiles.back();
    }
    IHostMemory *buildSerializedNetwork(INetworkDefinition &from, IBuilderConfig &by) noexcept override {
        auto &network = static_cast<Network &>(from);
        auto &config = static_cast<Config &>(by);
        if (config.workspace < 1024) {
            report(recorder, logger, ErrorCode::kFAILED_ALLOCATION, "no tactic fits the workspace");
            return nullptr;
        }
        if (!progress(config)) {
            return nullptr;
        }
        ++config.timing->builds;
        std::ostringstream text;
        text << "standin scale=" << network.scale << " level=" << config.level << " profiles=" << config.profiles.size()
             << network.words;
        if (!config.profiles.empty()) {
            Dims largest = config.profiles[0]->largest.at("x");
            text << " rows=" << largest.d[0] << " most=" << largest.d[1];
        }
        return new Memory(text.str());
    }

private:
    static bool progress(Config &config) {
        if (config.monitor == nullptr) {
            return true;
        }
        bool on = true;
        config.monitor->phaseStart("Building Engine", nullptr, 2);
        config.monitor->phaseStart("Timing", "Building Engine", 3);
        for (int32_t step = 0; step < 3 && on; ++step) {
            on = config.monitor->stepComplete("Timing", step);
            // A build takes its time where somebody wants to watch it.
            const char *pause = std::getenv("STANDIN_BUILD_PAUSE");
            std::this_thread::sleep_for(std::chrono::milliseconds(pause == nullptr ? 0 : std::atoll(pause)));
        }
        config.monitor->phaseFinish("Timing");
        config.monitor->phaseFinish("Building Engine");
        return on;
    }

    ILogger *logger;
    IErrorRecorder *recorder = nullptr;
    Registry registry;
    std::vector<Profile *> profiles;
};

class ParserError final : public IParserErrorDefaults {
public:
    explicit ParserError(std::string of) : operation(std::move(of)) {}
    nvonnxparser::ErrorCode code() const override { return nvonnxparser::ErrorCode::kUNSUPPORTED_NODE; }
    char const *desc() const override { return "No importer registered for this operator"; }
    char const *nodeName() const override { return "layer 0"; }
    char const *nodeOperator() const override { return operation.c_str(); }

private:
    std::string operation;
};

class Parser final : public IParserDefaults {
public:
    explicit Parser(INetworkDefinition *into) : network(static_cast<Network *>(into)) {}
    bool parse(void const *model, size_t size, char const *) noexcept override {
        std::istringstream lines(std::string(static_cast<char const *>(model), size));
        for (std::string line; std::getline(lines, line);) {
            std::istringstream words(line);
            std::string kind, name;
            words >> kind >> name;
            if (kind == "input") {
                Dims dims{};
                for (int64_t size_of_axis; words >> size_of_axis;) {
                    dims.d[dims.nbDims++] = size_of_axis;
                }
                network->inputs.emplace_back(name, dims);
            } else if (kind == "scale") {
                network->scale = name;
            } else if (kind == "words") {
                network->words = line.substr(line.find(' '));
            } else if (kind != "weights") {
                errors.emplace_back(name);
            }
        }
        return errors.empty();
    }
    int getNbErrors() const noexcept override { return static_cast<int>(errors.size()); }
    nvonnxparser::IParserError const *getError(int index) const noexcept override {
        return &errors[static_cast<size_t>(index)];
    }

private:
    Network *network;
    std::vector<ParserError> errors;
};
