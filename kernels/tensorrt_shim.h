/* A C interface over TensorRT's C++ one, so that Rust can call it.
 *
 * TensorRT has no C interface: its classes are tables of virtual functions whose layout the vendor's headers
 * define. The .cpp beside this file is compiled against those headers and does nothing but forward; what
 * decides, owns and reports is in engine/tensorrt. The library itself is opened at run time by Rust, which
 * hands the few symbols that are needed in here: nothing of this links to it.
 *
 * Handles are TensorRT's own objects under an opaque name. Whoever gets a handle from a `_create` function
 * destroys it, children before parents: contexts, then engines, then runtimes, then the hooks they were made with.
 * No function throws. Pointers to text that come back live as long as the handle they were asked of.
 *
 * Only <stdint.h> is included: this file is also read by a libclang that has no headers of its own.
 */
#ifndef SLUICE_TENSORRT_SHIM_H
#define SLUICE_TENSORRT_SHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_TRT_MAX_RANK 8

typedef struct sluice_trt_hooks sluice_trt_hooks;
typedef struct sluice_trt_runtime sluice_trt_runtime;
typedef struct sluice_trt_engine sluice_trt_engine;
typedef struct sluice_trt_context sluice_trt_context;
typedef struct sluice_trt_memory sluice_trt_memory;
typedef struct sluice_trt_registry sluice_trt_registry;
typedef struct sluice_trt_builder sluice_trt_builder;
typedef struct sluice_trt_network sluice_trt_network;
typedef struct sluice_trt_profile sluice_trt_profile;
typedef struct sluice_trt_config sluice_trt_config;
typedef struct sluice_trt_timing sluice_trt_timing;
typedef struct sluice_trt_parser sluice_trt_parser;

/* A shape; -1 is a dimension that is only known when an input is given. A rank of -1 says "no such tensor". */
typedef struct {
    int32_t rank;
    int64_t sizes[SLUICE_TRT_MAX_RANK];
} sluice_trt_shape;

/* What TensorRT calls back. `user` is handed to each function as it is. All of them may be called from any thread,
 * also from TensorRT's own; none may unwind. */
typedef struct {
    void *user;
    /* severity: 0 internal error, 1 error, 2 warning, 3 info, 4 verbose. */
    void (*log)(void *user, int32_t severity, const char *message);
    /* code: nvinfer1::ErrorCode. */
    void (*error)(void *user, int32_t code, const char *description);
    /* NULL where there is no memory left. */
    void *(*allocate)(void *user, uint64_t bytes, uint64_t alignment, void *stream);
    /* 0 when the memory was not ours. */
    int32_t (*release)(void *user, void *memory, void *stream);
    void (*phase_start)(void *user, const char *phase, const char *parent, int32_t steps);
    /* 0 ends the build. */
    int32_t (*phase_step)(void *user, const char *phase, int32_t step);
    void (*phase_finish)(void *user, const char *phase);
} sluice_trt_callbacks;

/* The version of the headers this was compiled with: major * 10000 + minor * 100 + patch. */
int32_t sluice_trt_header_version(void);

/* `own_memory`: 0 leaves device memory to TensorRT, anything else asks `allocate` and `release`. */
sluice_trt_hooks *sluice_trt_hooks_create(const sluice_trt_callbacks *callbacks, int32_t own_memory);
void sluice_trt_hooks_destroy(sluice_trt_hooks *hooks);

/* `entry` is the library's createInferRuntime_INTERNAL. NULL when the library declines. */
sluice_trt_runtime *sluice_trt_runtime_create(void *entry, sluice_trt_hooks *hooks);
void sluice_trt_runtime_destroy(sluice_trt_runtime *runtime);
int32_t sluice_trt_runtime_set_threads(sluice_trt_runtime *runtime, int32_t threads);
/* Engines that carry code for the host (version-compatible ones do) are refused unless allowed. */
void sluice_trt_runtime_allow_host_code(sluice_trt_runtime *runtime, int32_t allowed);
sluice_trt_registry *sluice_trt_runtime_registry(sluice_trt_runtime *runtime);
sluice_trt_engine *sluice_trt_runtime_deserialize(sluice_trt_runtime *runtime, const void *data, uint64_t bytes);

/* Plugins. The registry belongs to the runtime or builder it was asked of. */
void *sluice_trt_registry_load(sluice_trt_registry *registry, const char *path);
int32_t sluice_trt_registry_count(sluice_trt_registry *registry);
int32_t sluice_trt_registry_has(
    sluice_trt_registry *registry, const char *name, const char *version, const char *space);

void sluice_trt_engine_destroy(sluice_trt_engine *engine);
const char *sluice_trt_engine_name(const sluice_trt_engine *engine);
int32_t sluice_trt_engine_tensors(const sluice_trt_engine *engine);
const char *sluice_trt_engine_tensor_name(const sluice_trt_engine *engine, int32_t index);
/* 0 neither, 1 input, 2 output. */
int32_t sluice_trt_engine_tensor_mode(const sluice_trt_engine *engine, const char *name);
/* nvinfer1::DataType. */
int32_t sluice_trt_engine_tensor_type(const sluice_trt_engine *engine, const char *name);
/* 0 device, 1 host. */
int32_t sluice_trt_engine_tensor_location(const sluice_trt_engine *engine, const char *name);
/* nvinfer1::TensorFormat; 0 is row-major without padding. */
int32_t sluice_trt_engine_tensor_format(const sluice_trt_engine *engine, const char *name, int32_t profile);
sluice_trt_shape sluice_trt_engine_tensor_shape(const sluice_trt_engine *engine, const char *name);
/* The input whose memory this output has to share, or NULL. */
const char *sluice_trt_engine_tensor_alias(const sluice_trt_engine *engine, const char *name);
int32_t sluice_trt_engine_profiles(const sluice_trt_engine *engine);
/* which: 0 smallest, 1 best, 2 largest. */
sluice_trt_shape sluice_trt_engine_profile_shape(
    const sluice_trt_engine *engine, const char *name, int32_t profile, int32_t which);
/* Bytes of working memory that a context needs under `profile`. */
int64_t sluice_trt_engine_working_memory(const sluice_trt_engine *engine, int32_t profile);
int64_t sluice_trt_engine_weight_bytes(const sluice_trt_engine *engine);
sluice_trt_memory *sluice_trt_engine_serialize(const sluice_trt_engine *engine);

const void *sluice_trt_memory_data(const sluice_trt_memory *memory);
uint64_t sluice_trt_memory_bytes(const sluice_trt_memory *memory);
void sluice_trt_memory_destroy(sluice_trt_memory *memory);

/* A context whose working memory is ours to give (sluice_trt_context_set_memory) before the first enqueue. It
 * reports to `hooks` rather than to those of its engine, so that it is known which context an error belongs to. */
sluice_trt_context *sluice_trt_context_create(sluice_trt_engine *engine, sluice_trt_hooks *hooks);
void sluice_trt_context_destroy(sluice_trt_context *context);
void sluice_trt_context_set_memory(sluice_trt_context *context, void *memory, int64_t bytes);
int32_t sluice_trt_context_set_profile(sluice_trt_context *context, int32_t profile, void *stream);
int32_t sluice_trt_context_set_shape(sluice_trt_context *context, const char *name, const sluice_trt_shape *shape);
sluice_trt_shape sluice_trt_context_shape(const sluice_trt_context *context, const char *name);
int32_t sluice_trt_context_set_address(sluice_trt_context *context, const char *name, void *memory);
/* Bytes that an output can take at most under the shapes that are set. */
int64_t sluice_trt_context_output_bytes(const sluice_trt_context *context, const char *name);
/* How many inputs still lack a shape or, for those read on the host, a value; their first `capacity` names are
 * written to `names`. Negative when the shapes contradict each other. */
int32_t sluice_trt_context_infer(sluice_trt_context *context, const char **names, int32_t capacity);
int32_t sluice_trt_context_enqueue(sluice_trt_context *context, void *stream);

/* Building, where the library has a builder. `entry` is createInferBuilder_INTERNAL. */
sluice_trt_builder *sluice_trt_builder_create(void *entry, sluice_trt_hooks *hooks);
void sluice_trt_builder_destroy(sluice_trt_builder *builder);
int32_t sluice_trt_builder_set_threads(sluice_trt_builder *builder, int32_t threads);
sluice_trt_registry *sluice_trt_builder_registry(sluice_trt_builder *builder);
sluice_trt_memory *sluice_trt_builder_build(
    sluice_trt_builder *builder, sluice_trt_network *network, sluice_trt_config *config);

sluice_trt_network *sluice_trt_network_create(sluice_trt_builder *builder);
void sluice_trt_network_destroy(sluice_trt_network *network);
int32_t sluice_trt_network_inputs(const sluice_trt_network *network);
const char *sluice_trt_network_input_name(const sluice_trt_network *network, int32_t index);
sluice_trt_shape sluice_trt_network_input_shape(const sluice_trt_network *network, int32_t index);

/* A profile belongs to its builder and ends with it. */
sluice_trt_profile *sluice_trt_profile_create(sluice_trt_builder *builder);
int32_t sluice_trt_profile_set(
    sluice_trt_profile *profile, const char *name, int32_t which, const sluice_trt_shape *shape);

sluice_trt_config *sluice_trt_config_create(sluice_trt_builder *builder);
void sluice_trt_config_destroy(sluice_trt_config *config);
/* The profile's number, or -1. */
int32_t sluice_trt_config_add_profile(sluice_trt_config *config, const sluice_trt_profile *profile);
void sluice_trt_config_set_workspace(sluice_trt_config *config, uint64_t bytes);
void sluice_trt_config_set_level(sluice_trt_config *config, int32_t level);
/* The compute capability to build for, as 80 for 8.0. Only TensorRT-RTX can build for another device than the one it
 * runs on: 0 with the headers of TensorRT. */
int32_t sluice_trt_config_set_target(sluice_trt_config *config, int32_t capability);
void sluice_trt_config_watch(sluice_trt_config *config, sluice_trt_hooks *hooks);
/* An empty or unknown `data` makes an empty cache. */
sluice_trt_timing *sluice_trt_timing_create(const sluice_trt_config *config, const void *data, uint64_t bytes);
int32_t sluice_trt_config_set_timing(sluice_trt_config *config, const sluice_trt_timing *timing);
sluice_trt_memory *sluice_trt_timing_serialize(const sluice_trt_timing *timing);
void sluice_trt_timing_destroy(sluice_trt_timing *timing);

/* `entry` is libnvonnxparser's createNvOnnxParser_INTERNAL. */
sluice_trt_parser *sluice_trt_parser_create(void *entry, sluice_trt_network *network, sluice_trt_hooks *hooks);
void sluice_trt_parser_destroy(sluice_trt_parser *parser);
/* `path` may be NULL; it is where weights outside the model are looked for. */
int32_t sluice_trt_parser_parse(sluice_trt_parser *parser, const void *model, uint64_t bytes, const char *path);
int32_t sluice_trt_parser_errors(const sluice_trt_parser *parser);
int32_t sluice_trt_parser_error_code(const sluice_trt_parser *parser, int32_t index);
const char *sluice_trt_parser_error_text(const sluice_trt_parser *parser, int32_t index);
/* The node's name and kind, NULL where the error is about no node. */
const char *sluice_trt_parser_error_node(const sluice_trt_parser *parser, int32_t index);
const char *sluice_trt_parser_error_operator(const sluice_trt_parser *parser, int32_t index);

#ifdef __cplusplus
}
#endif

#endif
