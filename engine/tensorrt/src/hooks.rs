//! What TensorRT calls back: its log, its errors, its wish for device memory, and how far a build is.
//!
//! TensorRT says most of what it has to say in this way. A call that fails returns a null pointer or `false`; the
//! reason was handed to the error recorder or, before there is one, to the logger. [`Hooks`] keeps both until the
//! caller has turned them into an [`Error`](crate::Error).
#![expect(
    unsafe_code,
    reason = "functions that TensorRT calls; each block states why it is sound"
)]

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::bindings as sys;
use crate::device::DeviceAllocator;
use crate::error::{Code, Error, Reported, Reports};

/// Reports kept for one call; of more, the first are the ones that explain.
const MOST_REPORTS: usize = 32;

/// How much a line of TensorRT's log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Severity {
    InternalError,
    Error,
    Warning,
    Note,
    Verbose,
}

/// Is told how far a build is; builds take minutes and are silent otherwise. Called on the building threads.
pub trait Watch: Send + Sync {
    /// A phase of `steps` steps starts, within `parent` if that is not empty.
    fn start(&self, phase: &str, parent: &str, steps: u32);
    /// A step is done. `false` stops the build.
    fn step(&self, phase: &str, step: u32) -> bool;
    /// A phase is over, also after the build was stopped.
    fn finish(&self, phase: &str);
}

/// Where TensorRT's log lines go.
pub type LogSink = Arc<dyn Fn(Severity, &str) + Send + Sync>;

/// What to do with what TensorRT calls back. The default logs, and leaves device memory to TensorRT.
#[derive(Clone, Default)]
pub struct Callbacks {
    /// Where log lines go; to `tracing`, with the target `tensorrt`, if nowhere else.
    pub log: Option<LogSink>,
    /// Where weights and temporary memory come from.
    pub memory: Option<Arc<dyn DeviceAllocator>>,
    /// Who watches a build.
    pub watch: Option<Arc<dyn Watch>>,
}

struct State {
    callbacks: Callbacks,
    /// Through the error recorder.
    errors: Mutex<VecDeque<Reported>>,
    /// Lines of the log that are errors: the only reason given for what fails before there is a recorder.
    logged: Mutex<VecDeque<Reported>>,
    /// The watcher said to stop.
    stopped: AtomicBool,
}

/// The callbacks of one object of TensorRT's, which has to end before them.
pub(crate) struct Hooks {
    raw: NonNull<sys::sluice_trt_hooks>,
    state: Box<State>,
}

// SAFETY: the C++ side only reads its callbacks after it is made, and the state behind them is `Sync`.
unsafe impl Send for Hooks {}
// SAFETY: as above.
unsafe impl Sync for Hooks {}

impl Hooks {
    pub(crate) fn new(callbacks: Callbacks) -> Result<Self, Error> {
        let own_memory = callbacks.memory.is_some();
        let state = Box::new(State {
            callbacks,
            errors: Mutex::default(),
            logged: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let table = sys::sluice_trt_callbacks {
            user: ptr::from_ref::<State>(&state).cast_mut().cast(),
            log: Some(log),
            error: Some(error),
            allocate: Some(allocate),
            release: Some(release),
            phase_start: Some(phase_start),
            phase_step: Some(phase_step),
            phase_finish: Some(phase_finish),
        };
        // SAFETY: the table is copied. `user` points into a box that lives and stays where it is as long as this.
        let raw = unsafe { sys::sluice_trt_hooks_create(&raw const table, own_memory.into()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::Failed {
            doing: "making room for its callbacks",
            reports: Reports::default(),
        })?;
        Ok(Self { raw, state })
    }

    pub(crate) fn raw(&self) -> *mut sys::sluice_trt_hooks {
        self.raw.as_ptr()
    }

    /// Forgets what was reported before the call that follows.
    pub(crate) fn clear(&self) {
        self.state.errors.lock().clear();
        self.state.logged.lock().clear();
    }

    /// What was reported since, taken out. The log's errors count where the recorder has none.
    pub(crate) fn take(&self) -> Reports {
        let errors = self.take_errors();
        let logged = std::mem::take(&mut *self.state.logged.lock());
        if errors.0.is_empty() {
            Reports(logged.into())
        } else {
            errors
        }
    }

    /// Whether someone watches builds.
    pub(crate) fn is_watched(&self) -> bool {
        self.state.callbacks.watch.is_some()
    }

    /// Whether the watcher has said to stop.
    pub(crate) fn stopped(&self) -> bool {
        self.state.stopped.load(Ordering::Acquire)
    }

    /// What went through the error recorder only.
    pub(crate) fn take_errors(&self) -> Reports {
        Reports(std::mem::take(&mut *self.state.errors.lock()).into())
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        // SAFETY: made by the function's counterpart and destroyed once. Whoever holds hooks declares them after
        // the object that uses them, so that object is gone.
        unsafe { sys::sluice_trt_hooks_destroy(self.raw.as_ptr()) }
    }
}

fn keep(reports: &Mutex<VecDeque<Reported>>, code: Code, text: &str) {
    let mut reports = reports.lock();
    if reports.len() < MOST_REPORTS {
        reports.push_back(Reported {
            code,
            text: text.to_owned(),
        });
    }
}

/// Runs a callback's body; a panic must not cross into C++ and is answered with `otherwise`.
///
/// # Safety
/// `user` is what [`Hooks::new`] put into the table.
unsafe fn with_state<T>(user: *mut c_void, otherwise: T, body: impl FnOnce(&State) -> T) -> T {
    // SAFETY: by the contract, a state that outlives all that calls back.
    let state = unsafe { &*user.cast::<State>() };
    catch_unwind(AssertUnwindSafe(|| body(state))).unwrap_or(otherwise)
}

/// # Safety
/// `text` is null or a string that ends with NUL and lives as long as the callback.
unsafe fn text<'a>(text: *const c_char) -> std::borrow::Cow<'a, str> {
    if text.is_null() {
        return "".into();
    }
    // SAFETY: by the contract.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

unsafe extern "C" fn log(user: *mut c_void, severity: i32, message: *const c_char) {
    // SAFETY: called by the shim with our `user` and TensorRT's message.
    unsafe {
        with_state(user, (), |state| {
            let message = text(message);
            let severity = match severity {
                0 => Severity::InternalError,
                1 => Severity::Error,
                2 => Severity::Warning,
                3 => Severity::Note,
                _ => Severity::Verbose,
            };
            if severity <= Severity::Error {
                keep(&state.logged, Code::Unspecified, &message);
            }
            match &state.callbacks.log {
                Some(sink) => sink(severity, &message),
                None => trace(severity, &message),
            }
        });
    }
}

fn trace(severity: Severity, message: &str) {
    match severity {
        Severity::InternalError | Severity::Error => {
            tracing::error!(target: "tensorrt", "{message}");
        }
        Severity::Warning => tracing::warn!(target: "tensorrt", "{message}"),
        Severity::Note => tracing::debug!(target: "tensorrt", "{message}"),
        Severity::Verbose => tracing::trace!(target: "tensorrt", "{message}"),
    }
}

unsafe extern "C" fn error(user: *mut c_void, code: i32, description: *const c_char) {
    // SAFETY: called by the shim with our `user` and TensorRT's description.
    unsafe {
        with_state(user, (), |state| {
            keep(&state.errors, Code::from_number(code), &text(description));
        });
    }
}

unsafe extern "C" fn allocate(
    user: *mut c_void,
    bytes: u64,
    alignment: u64,
    stream: *mut c_void,
) -> *mut c_void {
    // SAFETY: called by the shim with our `user`.
    unsafe {
        with_state(user, ptr::null_mut(), |state| {
            let memory = state.callbacks.memory.as_ref();
            let given = memory.and_then(|memory| memory.allocate(bytes, alignment, stream));
            given.map_or(ptr::null_mut(), NonNull::as_ptr)
        })
    }
}

unsafe extern "C" fn release(user: *mut c_void, memory: *mut c_void, stream: *mut c_void) -> i32 {
    // SAFETY: called by the shim with our `user`.
    unsafe {
        with_state(user, 0, |state| {
            match (&state.callbacks.memory, NonNull::new(memory)) {
                (Some(allocator), Some(memory)) => allocator.release(memory, stream).into(),
                _ => 0,
            }
        })
    }
}

unsafe extern "C" fn phase_start(
    user: *mut c_void,
    phase: *const c_char,
    parent: *const c_char,
    steps: i32,
) {
    // SAFETY: called by the shim with our `user` and TensorRT's names.
    unsafe {
        with_state(user, (), |state| {
            if let Some(watch) = &state.callbacks.watch {
                watch.start(&text(phase), &text(parent), steps.try_into().unwrap_or(0));
            }
        });
    }
}

unsafe extern "C" fn phase_step(user: *mut c_void, phase: *const c_char, step: i32) -> i32 {
    // SAFETY: called by the shim with our `user` and TensorRT's name.
    unsafe {
        with_state(user, 0, |state| {
            let watch = state.callbacks.watch.as_ref();
            let on = watch.is_none_or(|w| w.step(&text(phase), step.try_into().unwrap_or(0)));
            if !on {
                state.stopped.store(true, Ordering::Release);
            }
            on.into()
        })
    }
}

unsafe extern "C" fn phase_finish(user: *mut c_void, phase: *const c_char) {
    // SAFETY: called by the shim with our `user` and TensorRT's name.
    unsafe {
        with_state(user, (), |state| {
            if let Some(watch) = &state.callbacks.watch {
                watch.finish(&text(phase));
            }
        });
    }
}
