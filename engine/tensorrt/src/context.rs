//! A context: one sequence of steps of an engine on a stream.
//!
//! The device works after a call has returned, on memory that must not go away meanwhile. So a context *holds* what
//! it was given, also what was replaced since the step began, until [`Context::finish`] has seen the stream idle;
//! and it waits for the stream before it ends.
#![expect(
    unsafe_code,
    reason = "FFI with TensorRT; each block states why it is sound"
)]

use std::ffi::c_char;
use std::ptr;
use std::sync::Arc;

use crate::bindings as sys;
use crate::device::{DeviceMemory, DeviceStream};
use crate::engine::{Direction, Engine, Tensor};
use crate::error::{Code, Error, Reported};
use crate::hooks::Hooks;
use crate::owned::{Owned, copy_text, shape_from, shape_to};
use crate::shape::{ElementType, Shape};

/// What a tensor's data is in.
enum Held {
    Nothing,
    Device(Arc<dyn DeviceMemory>),
    /// Sizes that TensorRT reads on the host. A box, so that they stay where they are.
    Host(Box<[u8]>),
}

impl Held {
    fn bytes(&self) -> Option<u64> {
        match self {
            Self::Nothing => None,
            Self::Device(memory) => Some(memory.bytes()),
            Self::Host(values) => u64::try_from(values.len()).ok(),
        }
    }
}

/// An engine's step: shapes, memory, and a stream to run on.
pub struct Context {
    // Order matters: the context ends before its hooks and its engine.
    context: Owned<sys::sluice_trt_context>,
    hooks: Hooks,
    engine: Engine,
    profile: u32,
    /// One a tensor of the engine.
    held: Vec<Held>,
    working: Option<Arc<dyn DeviceMemory>>,
    /// Replaced while a step was in flight.
    retired: Vec<Held>,
    retired_working: Vec<Arc<dyn DeviceMemory>>,
    in_flight: Option<Arc<dyn DeviceStream>>,
}

impl Context {
    pub(crate) fn new(engine: &Engine) -> Result<Self, Error> {
        engine.profile(0)?;
        let runtime = &engine.0.runtime;
        let hooks = Hooks::new(runtime.callbacks.clone())?;
        let _reporting = runtime.reporting.lock();
        runtime.hooks.clear();
        // SAFETY: a live engine, which the context keeps alive, and hooks that end after it.
        let context = unsafe {
            Owned::new(
                sys::sluice_trt_context_create(engine.raw(), hooks.raw()),
                sys::sluice_trt_context_destroy,
            )
        };
        let context = context
            .ok_or_else(|| Error::of("making an execution context", runtime.hooks.take()))?;
        Ok(Self {
            context,
            hooks,
            engine: engine.clone(),
            profile: 0,
            held: engine.tensors().iter().map(|_| Held::Nothing).collect(),
            working: None,
            retired: Vec::new(),
            retired_working: Vec::new(),
            in_flight: None,
        })
    }

    /// The engine it runs.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Chooses the optimisation profile of the steps to come. Shapes have to be set again.
    ///
    /// # Errors
    /// No such profile, or TensorRT's refusal.
    pub fn set_profile(
        &mut self,
        profile: u32,
        stream: &Arc<dyn DeviceStream>,
    ) -> Result<(), Error> {
        let number = self.engine.profile(profile)?;
        self.wait_for_other(stream)?;
        self.hooks.clear();
        // SAFETY: a live context, a profile of its engine, a live stream which is held until it is idle.
        let done = unsafe { sys::sluice_trt_context_set_profile(self.raw(), number, stream.raw()) };
        self.in_flight = Some(Arc::clone(stream));
        self.check(done, "changing the optimisation profile")?;
        self.profile = profile;
        Ok(())
    }

    /// Gives it memory to work in; at least [`Engine::working_memory`] of the profile in use. Contexts whose steps may
    /// be in flight at the same time need memory of their own.
    ///
    /// # Errors
    /// Too small.
    pub fn set_working_memory(&mut self, memory: Arc<dyn DeviceMemory>) -> Result<(), Error> {
        let needed = self.engine.working_memory(self.profile)?;
        let given = memory.bytes();
        if given < needed {
            return Err(working_too_small(needed, given));
        }
        let bytes = i64::try_from(given).unwrap_or(i64::MAX);
        // SAFETY: the memory is valid as long as it is held, which is until it is replaced and the stream idle.
        unsafe {
            sys::sluice_trt_context_set_memory(self.raw(), memory.address().as_ptr(), bytes);
        }
        if let Some(old) = self.working.replace(memory)
            && self.in_flight.is_some()
        {
            self.retired_working.push(old);
        }
        Ok(())
    }

    /// Sets an input's shape.
    ///
    /// # Errors
    /// No such input, or a shape outside the profile's bounds.
    pub fn set_shape(&mut self, name: &str, shape: Shape) -> Result<(), Error> {
        let place = self.engine.find(name, Direction::Input)?;
        let tensor = &self.engine.tensors()[place];
        if let Some(bounds) = tensor.bounds.get(self.profile as usize)
            && !(shape.within(&bounds.smallest, &bounds.largest) && shape.fits(&tensor.shape))
        {
            return Err(Error::Shape {
                name: name.to_owned(),
                given: Box::new(shape),
                profile: self.profile,
                bounds: Box::new(*bounds),
            });
        }
        self.hooks.clear();
        let shape = shape_to(&shape);
        // SAFETY: a live context, the name of one of its inputs, a shape that is copied.
        let done = unsafe {
            sys::sluice_trt_context_set_shape(self.raw(), tensor.c_name.as_ptr(), &raw const shape)
        };
        self.check(done, "setting a shape")
    }

    /// Gives an input its data.
    ///
    /// # Errors
    /// No such input, or one that is read on the host.
    pub fn set_input(&mut self, name: &str, memory: Arc<dyn DeviceMemory>) -> Result<(), Error> {
        let place = self.engine.find(name, Direction::Input)?;
        self.set_device(place, memory)
    }

    /// Gives an output its room.
    ///
    /// # Errors
    /// No such output, or one that shares an input's memory.
    pub fn set_output(&mut self, name: &str, memory: Arc<dyn DeviceMemory>) -> Result<(), Error> {
        let place = self.engine.find(name, Direction::Output)?;
        if let Some(input) = &self.engine.tensors()[place].alias {
            return Err(Error::Specification(format!(
                "output {name:?} is input {input:?}, updated in place: give that one its memory"
            )));
        }
        self.set_device(place, memory)
    }

    /// Gives an input that is read on the host its values.
    ///
    /// # Errors
    /// No such input, or one that is read on the device.
    pub fn set_values(&mut self, name: &str, values: &[i64]) -> Result<(), Error> {
        let place = self.engine.find(name, Direction::Input)?;
        let tensor = &self.engine.tensors()[place];
        let bytes: Box<[u8]> = match (tensor.on_host, tensor.element) {
            (true, ElementType::I64) => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
            (true, ElementType::I32) => values
                .iter()
                .map(|value| i32::try_from(*value).map(i32::to_ne_bytes))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| Error::Specification(format!("{name:?} takes 32 bits a value")))?
                .concat()
                .into(),
            _ => {
                return Err(Error::Specification(format!(
                    "input {name:?} is {:?} in device memory: give it memory, not values",
                    tensor.element
                )));
            }
        };
        self.hold(place, Held::Host(bytes))
    }

    /// A tensor's shape as the inputs set so far decide it; -1 where they do not.
    ///
    /// # Errors
    /// No such tensor.
    pub fn shape(&self, name: &str) -> Result<Shape, Error> {
        let place = self
            .engine
            .find(name, Direction::Output)
            .or_else(|_| self.engine.find(name, Direction::Input))?;
        self.shape_at(&self.engine.tensors()[place])
    }

    /// Bytes that a tensor needs under the shapes that are set; for an output whose size its data decide, the most.
    ///
    /// # Errors
    /// No such tensor, or an input without a shape.
    pub fn bytes(&self, name: &str) -> Result<u64, Error> {
        let place = self
            .engine
            .find(name, Direction::Output)
            .or_else(|_| self.engine.find(name, Direction::Input))?;
        self.needed(&self.engine.tensors()[place])
    }

    /// Starts a step on `stream` and returns while the device works. Everything it uses is checked first.
    ///
    /// # Errors
    /// What is not set or too small, [`Error::OutOfMemory`], or TensorRT's refusal. No step is started then.
    pub fn start(&mut self, stream: &Arc<dyn DeviceStream>) -> Result<(), Error> {
        self.wait_for_other(stream)?;
        self.hooks.clear();
        self.infer()?;
        self.check_memory()?;
        // SAFETY: every tensor and the working memory are set to memory that is large enough and held until the stream
        // is idle, as is the stream itself.
        let done = unsafe { sys::sluice_trt_context_enqueue(self.raw(), stream.raw()) };
        // Also when it failed: part of the step may have been queued.
        self.in_flight = Some(Arc::clone(stream));
        self.check(done, "starting a step")
    }

    /// Waits until the device has ended what was started.
    ///
    /// # Errors
    /// [`Error::Asynchronous`] with what failed meanwhile.
    pub fn finish(&mut self) -> Result<(), Error> {
        let Some(stream) = self.in_flight.take() else {
            return Ok(());
        };
        let ended = stream.synchronize();
        self.retired.clear();
        self.retired_working.clear();
        let mut reports = self.hooks.take_errors();
        if let Err(text) = ended {
            reports.0.push(Reported {
                code: Code::FailedExecution,
                text,
            });
        }
        if reports.0.is_empty() {
            Ok(())
        } else {
            Err(Error::Asynchronous(reports))
        }
    }

    fn raw(&self) -> *mut sys::sluice_trt_context {
        self.context.raw()
    }

    fn check(&self, done: i32, doing: &'static str) -> Result<(), Error> {
        if done != 0 {
            return Ok(());
        }
        Err(Error::of(doing, self.hooks.take()))
    }

    /// One stream is held at a time: before another is used, the first has to be idle.
    fn wait_for_other(&mut self, stream: &Arc<dyn DeviceStream>) -> Result<(), Error> {
        match &self.in_flight {
            Some(busy) if !ptr::addr_eq(Arc::as_ptr(busy), Arc::as_ptr(stream)) => self.finish(),
            _ => Ok(()),
        }
    }

    fn set_device(&mut self, place: usize, memory: Arc<dyn DeviceMemory>) -> Result<(), Error> {
        let tensor = &self.engine.tensors()[place];
        if tensor.on_host {
            return Err(Error::Specification(format!(
                "{:?} is read on the host: give it values, not device memory",
                tensor.name
            )));
        }
        self.hold(place, Held::Device(memory))
    }

    /// Tells TensorRT where a tensor's data is, and so for the outputs that share it.
    fn hold(&mut self, place: usize, held: Held) -> Result<(), Error> {
        let address = match &held {
            Held::Nothing => ptr::null_mut(),
            Held::Device(memory) => memory.address().as_ptr(),
            Held::Host(values) => values.as_ptr().cast_mut().cast(),
        };
        self.hooks.clear();
        let name = &self.engine.tensors()[place].name;
        let sharing =
            |tensor: &&Tensor| tensor.name == *name || tensor.alias.as_ref() == Some(name);
        for tensor in self.engine.tensors().iter().filter(sharing) {
            // SAFETY: a live context and one of its tensors. The memory is held from here on; its size is checked
            // before a step starts.
            let done = unsafe {
                sys::sluice_trt_context_set_address(self.raw(), tensor.c_name.as_ptr(), address)
            };
            self.check(done, "setting a tensor's memory")?;
        }
        let old = std::mem::replace(&mut self.held[place], held);
        if self.in_flight.is_some() {
            self.retired.push(old);
        }
        Ok(())
    }

    fn infer(&self) -> Result<(), Error> {
        let capacity = self.held.len();
        let mut names: Vec<*const c_char> = vec![ptr::null(); capacity];
        // SAFETY: a live context and room for as many names as are said.
        let missing = unsafe {
            sys::sluice_trt_context_infer(
                self.raw(),
                names.as_mut_ptr(),
                i32::try_from(capacity).unwrap_or(0),
            )
        };
        match usize::try_from(missing) {
            Ok(0) => Ok(()),
            // SAFETY: the first `count` names were written; they live as long as the engine and are copied here.
            Ok(count) => Err(Error::Unset(
                names
                    .iter()
                    .take(count)
                    .filter_map(|name| unsafe { copy_text(*name) })
                    .map(|name| format!("the shape of {name:?}"))
                    .collect(),
            )),
            Err(_) => Err(Error::of("working out the shapes", self.hooks.take())),
        }
    }

    fn check_memory(&self) -> Result<(), Error> {
        let needed = self.engine.working_memory(self.profile)?;
        let given = self.working.as_ref().map_or(0, |memory| memory.bytes());
        if given < needed {
            return Err(working_too_small(needed, given));
        }
        let mut unset = Vec::new();
        for (tensor, held) in self.engine.tensors().iter().zip(&self.held) {
            // Its memory is that of the input, which is looked at in its own turn.
            if tensor.alias.is_some() {
                continue;
            }
            let Some(given) = held.bytes() else {
                unset.push(format!("the data of {:?}", tensor.name));
                continue;
            };
            let needed = self.needed(tensor)?;
            if given < needed {
                let what = format!("{:?}", tensor.name);
                return Err(Error::TooSmall {
                    what,
                    needed,
                    given,
                });
            }
        }
        if unset.is_empty() {
            Ok(())
        } else {
            Err(Error::Unset(unset))
        }
    }

    fn shape_at(&self, tensor: &Tensor) -> Result<Shape, Error> {
        // SAFETY: a live context and one of its tensors; only reads.
        let shape = unsafe { sys::sluice_trt_context_shape(self.raw(), tensor.c_name.as_ptr()) };
        shape_from(&shape).ok_or_else(|| Error::of("asking for a shape", self.hooks.take()))
    }

    fn needed(&self, tensor: &Tensor) -> Result<u64, Error> {
        if let Some(elements) = self.shape_at(tensor)?.elements() {
            let beyond = || Error::Unsupported(format!("{:?} is beyond counting", tensor.name));
            return tensor.element.bytes(elements).ok_or_else(beyond);
        }
        // SAFETY: a live context and one of its tensors; only reads.
        let most =
            unsafe { sys::sluice_trt_context_output_bytes(self.raw(), tensor.c_name.as_ptr()) };
        match (tensor.direction, u64::try_from(most)) {
            (Direction::Output, Ok(most)) => Ok(most),
            _ => Err(Error::Unset(vec![format!(
                "the shape of {:?}",
                tensor.name
            )])),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "a step ended badly with nobody waiting for it");
        }
    }
}

fn working_too_small(needed: u64, given: u64) -> Error {
    Error::TooSmall {
        what: "the working memory".to_owned(),
        needed,
        given,
    }
}
