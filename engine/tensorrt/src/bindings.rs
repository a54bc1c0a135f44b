//! The C interface of `kernels/tensorrt_shim.h`. Generated: scripts/tensorrt.sh bindings.
#![expect(
    unsafe_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "generated declarations of C functions, under their C names"
)]

pub const SLUICE_TRT_MAX_RANK: u32 = 8;
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_hooks {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_runtime {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_engine {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_context {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_memory {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_registry {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_builder {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_network {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_profile {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_config {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_timing {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug)]
pub struct sluice_trt_parser {
    _unused: [u8; 0],
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct sluice_trt_shape {
    pub rank: i32,
    pub sizes: [i64; 8usize],
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of sluice_trt_shape"][::std::mem::size_of::<sluice_trt_shape>() - 72usize];
    [
        "Alignment of sluice_trt_shape",
    ][::std::mem::align_of::<sluice_trt_shape>() - 8usize];
    [
        "Offset of field: sluice_trt_shape::rank",
    ][::std::mem::offset_of!(sluice_trt_shape, rank) - 0usize];
    [
        "Offset of field: sluice_trt_shape::sizes",
    ][::std::mem::offset_of!(sluice_trt_shape, sizes) - 8usize];
};
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct sluice_trt_callbacks {
    pub user: *mut ::std::os::raw::c_void,
    pub log: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            severity: i32,
            message: *const ::std::os::raw::c_char,
        ),
    >,
    pub error: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            code: i32,
            description: *const ::std::os::raw::c_char,
        ),
    >,
    pub allocate: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            bytes: u64,
            alignment: u64,
            stream: *mut ::std::os::raw::c_void,
        ) -> *mut ::std::os::raw::c_void,
    >,
    pub release: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            memory: *mut ::std::os::raw::c_void,
            stream: *mut ::std::os::raw::c_void,
        ) -> i32,
    >,
    pub phase_start: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            phase: *const ::std::os::raw::c_char,
            parent: *const ::std::os::raw::c_char,
            steps: i32,
        ),
    >,
    pub phase_step: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            phase: *const ::std::os::raw::c_char,
            step: i32,
        ) -> i32,
    >,
    pub phase_finish: ::std::option::Option<
        unsafe extern "C" fn(
            user: *mut ::std::os::raw::c_void,
            phase: *const ::std::os::raw::c_char,
        ),
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of sluice_trt_callbacks",
    ][::std::mem::size_of::<sluice_trt_callbacks>() - 64usize];
    [
        "Alignment of sluice_trt_callbacks",
    ][::std::mem::align_of::<sluice_trt_callbacks>() - 8usize];
    [
        "Offset of field: sluice_trt_callbacks::user",
    ][::std::mem::offset_of!(sluice_trt_callbacks, user) - 0usize];
    [
        "Offset of field: sluice_trt_callbacks::log",
    ][::std::mem::offset_of!(sluice_trt_callbacks, log) - 8usize];
    [
        "Offset of field: sluice_trt_callbacks::error",
    ][::std::mem::offset_of!(sluice_trt_callbacks, error) - 16usize];
    [
        "Offset of field: sluice_trt_callbacks::allocate",
    ][::std::mem::offset_of!(sluice_trt_callbacks, allocate) - 24usize];
    [
        "Offset of field: sluice_trt_callbacks::release",
    ][::std::mem::offset_of!(sluice_trt_callbacks, release) - 32usize];
    [
        "Offset of field: sluice_trt_callbacks::phase_start",
    ][::std::mem::offset_of!(sluice_trt_callbacks, phase_start) - 40usize];
    [
        "Offset of field: sluice_trt_callbacks::phase_step",
    ][::std::mem::offset_of!(sluice_trt_callbacks, phase_step) - 48usize];
    [
        "Offset of field: sluice_trt_callbacks::phase_finish",
    ][::std::mem::offset_of!(sluice_trt_callbacks, phase_finish) - 56usize];
};
unsafe extern "C" {
    pub fn sluice_trt_header_version() -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_hooks_create(
        callbacks: *const sluice_trt_callbacks,
        own_memory: i32,
    ) -> *mut sluice_trt_hooks;
}
unsafe extern "C" {
    pub fn sluice_trt_hooks_destroy(hooks: *mut sluice_trt_hooks);
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_create(
        entry: *mut ::std::os::raw::c_void,
        hooks: *mut sluice_trt_hooks,
    ) -> *mut sluice_trt_runtime;
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_destroy(runtime: *mut sluice_trt_runtime);
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_set_threads(
        runtime: *mut sluice_trt_runtime,
        threads: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_allow_host_code(
        runtime: *mut sluice_trt_runtime,
        allowed: i32,
    );
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_registry(
        runtime: *mut sluice_trt_runtime,
    ) -> *mut sluice_trt_registry;
}
unsafe extern "C" {
    pub fn sluice_trt_runtime_deserialize(
        runtime: *mut sluice_trt_runtime,
        data: *const ::std::os::raw::c_void,
        bytes: u64,
    ) -> *mut sluice_trt_engine;
}
unsafe extern "C" {
    pub fn sluice_trt_registry_load(
        registry: *mut sluice_trt_registry,
        path: *const ::std::os::raw::c_char,
    ) -> *mut ::std::os::raw::c_void;
}
unsafe extern "C" {
    pub fn sluice_trt_registry_count(registry: *mut sluice_trt_registry) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_registry_has(
        registry: *mut sluice_trt_registry,
        name: *const ::std::os::raw::c_char,
        version: *const ::std::os::raw::c_char,
        space: *const ::std::os::raw::c_char,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_destroy(engine: *mut sluice_trt_engine);
}
unsafe extern "C" {
    pub fn sluice_trt_engine_name(
        engine: *const sluice_trt_engine,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensors(engine: *const sluice_trt_engine) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_name(
        engine: *const sluice_trt_engine,
        index: i32,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_mode(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_type(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_location(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_format(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
        profile: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_shape(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
    ) -> sluice_trt_shape;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_tensor_alias(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_profiles(engine: *const sluice_trt_engine) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_profile_shape(
        engine: *const sluice_trt_engine,
        name: *const ::std::os::raw::c_char,
        profile: i32,
        which: i32,
    ) -> sluice_trt_shape;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_working_memory(
        engine: *const sluice_trt_engine,
        profile: i32,
    ) -> i64;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_weight_bytes(engine: *const sluice_trt_engine) -> i64;
}
unsafe extern "C" {
    pub fn sluice_trt_engine_serialize(
        engine: *const sluice_trt_engine,
    ) -> *mut sluice_trt_memory;
}
unsafe extern "C" {
    pub fn sluice_trt_memory_data(
        memory: *const sluice_trt_memory,
    ) -> *const ::std::os::raw::c_void;
}
unsafe extern "C" {
    pub fn sluice_trt_memory_bytes(memory: *const sluice_trt_memory) -> u64;
}
unsafe extern "C" {
    pub fn sluice_trt_memory_destroy(memory: *mut sluice_trt_memory);
}
unsafe extern "C" {
    pub fn sluice_trt_context_create(
        engine: *mut sluice_trt_engine,
        hooks: *mut sluice_trt_hooks,
    ) -> *mut sluice_trt_context;
}
unsafe extern "C" {
    pub fn sluice_trt_context_destroy(context: *mut sluice_trt_context);
}
unsafe extern "C" {
    pub fn sluice_trt_context_set_memory(
        context: *mut sluice_trt_context,
        memory: *mut ::std::os::raw::c_void,
        bytes: i64,
    );
}
unsafe extern "C" {
    pub fn sluice_trt_context_set_profile(
        context: *mut sluice_trt_context,
        profile: i32,
        stream: *mut ::std::os::raw::c_void,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_context_set_shape(
        context: *mut sluice_trt_context,
        name: *const ::std::os::raw::c_char,
        shape: *const sluice_trt_shape,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_context_shape(
        context: *const sluice_trt_context,
        name: *const ::std::os::raw::c_char,
    ) -> sluice_trt_shape;
}
unsafe extern "C" {
    pub fn sluice_trt_context_set_address(
        context: *mut sluice_trt_context,
        name: *const ::std::os::raw::c_char,
        memory: *mut ::std::os::raw::c_void,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_context_output_bytes(
        context: *const sluice_trt_context,
        name: *const ::std::os::raw::c_char,
    ) -> i64;
}
unsafe extern "C" {
    pub fn sluice_trt_context_infer(
        context: *mut sluice_trt_context,
        names: *mut *const ::std::os::raw::c_char,
        capacity: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_context_enqueue(
        context: *mut sluice_trt_context,
        stream: *mut ::std::os::raw::c_void,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_builder_create(
        entry: *mut ::std::os::raw::c_void,
        hooks: *mut sluice_trt_hooks,
    ) -> *mut sluice_trt_builder;
}
unsafe extern "C" {
    pub fn sluice_trt_builder_destroy(builder: *mut sluice_trt_builder);
}
unsafe extern "C" {
    pub fn sluice_trt_builder_set_threads(
        builder: *mut sluice_trt_builder,
        threads: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_builder_registry(
        builder: *mut sluice_trt_builder,
    ) -> *mut sluice_trt_registry;
}
unsafe extern "C" {
    pub fn sluice_trt_builder_build(
        builder: *mut sluice_trt_builder,
        network: *mut sluice_trt_network,
        config: *mut sluice_trt_config,
    ) -> *mut sluice_trt_memory;
}
unsafe extern "C" {
    pub fn sluice_trt_network_create(
        builder: *mut sluice_trt_builder,
    ) -> *mut sluice_trt_network;
}
unsafe extern "C" {
    pub fn sluice_trt_network_destroy(network: *mut sluice_trt_network);
}
unsafe extern "C" {
    pub fn sluice_trt_network_inputs(network: *const sluice_trt_network) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_network_input_name(
        network: *const sluice_trt_network,
        index: i32,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_network_input_shape(
        network: *const sluice_trt_network,
        index: i32,
    ) -> sluice_trt_shape;
}
unsafe extern "C" {
    pub fn sluice_trt_profile_create(
        builder: *mut sluice_trt_builder,
    ) -> *mut sluice_trt_profile;
}
unsafe extern "C" {
    pub fn sluice_trt_profile_set(
        profile: *mut sluice_trt_profile,
        name: *const ::std::os::raw::c_char,
        which: i32,
        shape: *const sluice_trt_shape,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_config_create(
        builder: *mut sluice_trt_builder,
    ) -> *mut sluice_trt_config;
}
unsafe extern "C" {
    pub fn sluice_trt_config_destroy(config: *mut sluice_trt_config);
}
unsafe extern "C" {
    pub fn sluice_trt_config_add_profile(
        config: *mut sluice_trt_config,
        profile: *const sluice_trt_profile,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_config_set_workspace(config: *mut sluice_trt_config, bytes: u64);
}
unsafe extern "C" {
    pub fn sluice_trt_config_set_level(config: *mut sluice_trt_config, level: i32);
}
unsafe extern "C" {
    pub fn sluice_trt_config_set_target(
        config: *mut sluice_trt_config,
        capability: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_config_watch(
        config: *mut sluice_trt_config,
        hooks: *mut sluice_trt_hooks,
    );
}
unsafe extern "C" {
    pub fn sluice_trt_timing_create(
        config: *const sluice_trt_config,
        data: *const ::std::os::raw::c_void,
        bytes: u64,
    ) -> *mut sluice_trt_timing;
}
unsafe extern "C" {
    pub fn sluice_trt_config_set_timing(
        config: *mut sluice_trt_config,
        timing: *const sluice_trt_timing,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_timing_serialize(
        timing: *const sluice_trt_timing,
    ) -> *mut sluice_trt_memory;
}
unsafe extern "C" {
    pub fn sluice_trt_timing_destroy(timing: *mut sluice_trt_timing);
}
unsafe extern "C" {
    pub fn sluice_trt_parser_create(
        entry: *mut ::std::os::raw::c_void,
        network: *mut sluice_trt_network,
        hooks: *mut sluice_trt_hooks,
    ) -> *mut sluice_trt_parser;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_destroy(parser: *mut sluice_trt_parser);
}
unsafe extern "C" {
    pub fn sluice_trt_parser_parse(
        parser: *mut sluice_trt_parser,
        model: *const ::std::os::raw::c_void,
        bytes: u64,
        path: *const ::std::os::raw::c_char,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_errors(parser: *const sluice_trt_parser) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_error_code(
        parser: *const sluice_trt_parser,
        index: i32,
    ) -> i32;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_error_text(
        parser: *const sluice_trt_parser,
        index: i32,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_error_node(
        parser: *const sluice_trt_parser,
        index: i32,
    ) -> *const ::std::os::raw::c_char;
}
unsafe extern "C" {
    pub fn sluice_trt_parser_error_operator(
        parser: *const sluice_trt_parser,
        index: i32,
    ) -> *const ::std::os::raw::c_char;
}
