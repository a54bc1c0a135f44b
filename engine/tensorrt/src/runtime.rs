//! A runtime: what turns stored engines into ones that run, and knows the plugins they need.
#![expect(
    unsafe_code,
    reason = "FFI with TensorRT; each block states why it is sound"
)]

use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::bindings as sys;
use crate::engine::Engine;
use crate::error::{Code, Error};
use crate::hooks::{Callbacks, Hooks};
use crate::library::Library;
use crate::owned::{Owned, c_text};

/// What a runtime may do and use.
#[derive(Clone, Default)]
pub struct RuntimeOptions {
    /// What TensorRT calls back.
    pub callbacks: Callbacks,
    /// Threads for loading engines; TensorRT's choice if not given.
    pub threads: Option<u32>,
    /// Also load engines that carry code for the host, as version-compatible ones do. Such an engine can do
    /// whatever this process can: allow it for files of one's own making only.
    pub host_code: bool,
}

pub(crate) struct Inner {
    // Order matters: the runtime ends before the hooks it calls.
    runtime: Owned<sys::sluice_trt_runtime>,
    pub(crate) hooks: Hooks,
    pub(crate) callbacks: Callbacks,
    /// One call that can report errors at a time, so that it is known whose they are.
    pub(crate) reporting: Mutex<()>,
    library: Arc<Library>,
}

// SAFETY: the vendor documents loading engines and asking the plugin registry as safe from several threads, and
// `reporting` lets one at a time do either. What changes a runtime is done before it is shared.
unsafe impl Sync for Inner {}

/// A runtime. Cheap to clone; ends with the last engine loaded through it.
#[derive(Clone)]
pub struct Runtime(Arc<Inner>);

impl Runtime {
    /// Starts a runtime.
    ///
    /// # Errors
    /// [`Error::Declined`], usually for want of a driver or a device.
    pub fn new(library: &Arc<Library>, options: &RuntimeOptions) -> Result<Self, Error> {
        let hooks = Hooks::new(options.callbacks.clone())?;
        // SAFETY: the entry is createInferRuntime_INTERNAL of an open library whose version was checked; the hooks
        // live in `Inner`, which ends the runtime first.
        let runtime = unsafe {
            Owned::new(
                sys::sluice_trt_runtime_create(library.runtime.0, hooks.raw()),
                sys::sluice_trt_runtime_destroy,
            )
        };
        let runtime = runtime.ok_or_else(|| Error::Declined(hooks.take()))?;
        if let Some(threads) = options.threads {
            let number = i32::try_from(threads).unwrap_or(i32::MAX);
            // SAFETY: a live runtime that nothing else knows yet.
            if unsafe { sys::sluice_trt_runtime_set_threads(runtime.raw(), number) } == 0 {
                return Err(Error::of("setting its threads", hooks.take()));
            }
        }
        // SAFETY: as above.
        unsafe {
            sys::sluice_trt_runtime_allow_host_code(runtime.raw(), options.host_code.into());
        }
        Ok(Self(Arc::new(Inner {
            runtime,
            hooks,
            callbacks: options.callbacks.clone(),
            reporting: Mutex::new(()),
            library: Arc::clone(library),
        })))
    }

    /// The library behind it.
    #[must_use]
    pub fn library(&self) -> &Library {
        &self.0.library
    }

    /// Loads an engine that TensorRT serialised. Take it out of a [`Plan`](crate::Plan) to know that it is the one
    /// that is meant.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::OutOfMemory`]; [`Error::Unsupported`] for one that loads and cannot be served.
    pub fn load(&self, engine: &[u8]) -> Result<Engine, Error> {
        let reporting = self.0.reporting.lock();
        self.0.hooks.clear();
        let bytes = u64::try_from(engine.len()).unwrap_or(u64::MAX);
        // SAFETY: a live runtime, and bytes that are only read during the call. The engine keeps the runtime alive.
        let loaded = unsafe {
            Owned::new(
                sys::sluice_trt_runtime_deserialize(
                    self.0.runtime.raw(),
                    engine.as_ptr().cast(),
                    bytes,
                ),
                sys::sluice_trt_engine_destroy,
            )
        };
        let Some(loaded) = loaded else {
            let reports = self.0.hooks.take();
            return Err(if reports.any(Code::FailedAllocation) {
                Error::OutOfMemory {
                    doing: "loading the engine",
                    reports,
                }
            } else {
                Error::Refused(reports)
            });
        };
        drop(reporting);
        Engine::new(loaded, Arc::clone(&self.0))
    }

    /// Loads a library of plugins, for all engines of this runtime and until it ends. Its code runs in this process
    /// and is trusted as TensorRT's is.
    ///
    /// # Errors
    /// TensorRT would not have it.
    pub fn load_plugins(&self, path: &Path) -> Result<(), Error> {
        let _reporting = self.0.reporting.lock();
        self.0.hooks.clear();
        // SAFETY: the runtime is alive, and its registry with it.
        let registry = unsafe { sys::sluice_trt_runtime_registry(self.0.runtime.raw()) };
        // SAFETY: as above.
        unsafe { load_plugins(registry, path, &self.0.hooks) }
    }

    /// How many kinds of plugins can be made.
    #[must_use]
    pub fn plugins(&self) -> u32 {
        let _reporting = self.0.reporting.lock();
        // SAFETY: as in `load_plugins`; only reads.
        let count = unsafe {
            sys::sluice_trt_registry_count(sys::sluice_trt_runtime_registry(self.0.runtime.raw()))
        };
        u32::try_from(count).unwrap_or(0)
    }

    /// Whether a plugin of this name, version and namespace can be made.
    ///
    /// # Errors
    /// A NUL in one of them.
    pub fn has_plugin(&self, name: &str, version: &str, space: &str) -> Result<bool, Error> {
        let _reporting = self.0.reporting.lock();
        let (name, version, space) = (c_text(name)?, c_text(version)?, c_text(space)?);
        // SAFETY: as in `load_plugins`; only reads.
        let found = unsafe {
            sys::sluice_trt_registry_has(
                sys::sluice_trt_runtime_registry(self.0.runtime.raw()),
                name.as_ptr(),
                version.as_ptr(),
                space.as_ptr(),
            )
        };
        Ok(found != 0)
    }
}

/// # Safety
/// `registry` is that of a live runtime or builder which reports to `hooks`.
pub(crate) unsafe fn load_plugins(
    registry: *mut sys::sluice_trt_registry,
    path: &Path,
    hooks: &Hooks,
) -> Result<(), Error> {
    let name = c_text(&path.to_string_lossy())?;
    // SAFETY: by the contract; the name ends with NUL. The file is one that the operator named, as the library itself
    // was. TensorRT closes it with the registry.
    let handle = unsafe { sys::sluice_trt_registry_load(registry, name.as_ptr()) };
    if handle.is_null() {
        return Err(Error::of("loading plugins", hooks.take()));
    }
    Ok(())
}
