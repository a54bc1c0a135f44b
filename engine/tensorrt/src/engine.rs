//! An engine: a model compiled for a device. Its weights are in device memory; contexts run it.
#![expect(
    unsafe_code,
    reason = "FFI with TensorRT; each block states why it is sound"
)]

use std::ffi::CString;
use std::sync::Arc;

use crate::bindings as sys;
use crate::context::Context;
use crate::error::Error;
use crate::owned::{Owned, c_text, copy_memory, copy_text, shape_from};
use crate::runtime::Inner as Runtime;
use crate::shape::{Bounds, ElementType, Shape};

/// Whether a tensor goes in or comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Direction {
    Input,
    Output,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name in the model.
    pub name: String,
    /// Which way it goes.
    pub direction: Direction,
    /// Type of its elements.
    pub element: ElementType,
    /// Its shape, -1 for what the inputs decide.
    pub shape: Shape,
    /// Read on the host rather than on the device: it holds sizes.
    pub on_host: bool,
    /// The input whose memory it has to share: it is that input, updated in place.
    pub alias: Option<String>,
    /// One a profile; empty for outputs.
    pub bounds: Vec<Bounds>,
    pub(crate) c_name: CString,
}

pub(crate) struct Inner {
    // Order matters: the engine ends before the runtime it came from.
    engine: Owned<sys::sluice_trt_engine>,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) tensors: Vec<Tensor>,
    pub(crate) profiles: u32,
}

// SAFETY: the vendor documents asking an engine and making contexts from it as safe from several threads; nothing
// else is done with it once it is shared.
unsafe impl Sync for Inner {}

/// An engine in device memory. Cheap to clone; ends with its last context.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("tensors", &self.0.tensors)
            .field("profiles", &self.0.profiles)
            .finish_non_exhaustive()
    }
}

impl Engine {
    pub(crate) fn new(
        engine: Owned<sys::sluice_trt_engine>,
        runtime: Arc<Runtime>,
    ) -> Result<Self, Error> {
        // SAFETY: a live engine; these only read.
        let (profiles, count) = unsafe {
            (
                sys::sluice_trt_engine_profiles(engine.raw()),
                sys::sluice_trt_engine_tensors(engine.raw()),
            )
        };
        let tensors = (0..count)
            .map(|index| describe(&engine, index, profiles))
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Inner {
            engine,
            runtime,
            tensors,
            profiles: u32::try_from(profiles).unwrap_or(0),
        })))
    }

    /// Inputs and outputs, in the engine's order.
    #[must_use]
    pub fn tensors(&self) -> &[Tensor] {
        &self.0.tensors
    }

    /// How many optimisation profiles it has.
    #[must_use]
    pub fn profiles(&self) -> u32 {
        self.0.profiles
    }

    /// The name it was built under.
    #[must_use]
    pub fn name(&self) -> String {
        // SAFETY: a live engine; the text is copied while it is.
        unsafe { copy_text(sys::sluice_trt_engine_name(self.raw())) }.unwrap_or_default()
    }

    /// Bytes of its weights.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        // SAFETY: a live engine; only reads.
        let bytes = unsafe { sys::sluice_trt_engine_weight_bytes(self.raw()) };
        u64::try_from(bytes).unwrap_or(0)
    }

    /// Bytes of device memory that a context works in under `profile`.
    ///
    /// # Errors
    /// No such profile.
    pub fn working_memory(&self, profile: u32) -> Result<u64, Error> {
        let number = self.profile(profile)?;
        // SAFETY: a live engine and one of its profiles; only reads.
        let bytes = unsafe { sys::sluice_trt_engine_working_memory(self.raw(), number) };
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    /// TensorRT's bytes for this engine, to be stored in a [`Plan`](crate::Plan).
    ///
    /// # Errors
    /// It cannot be serialised.
    pub fn serialize(&self) -> Result<Vec<u8>, Error> {
        let runtime = &self.0.runtime;
        let _reporting = runtime.reporting.lock();
        runtime.hooks.clear();
        // SAFETY: a live engine; the memory that comes back is ours.
        let bytes = unsafe { copy_memory(sys::sluice_trt_engine_serialize(self.raw())) };
        bytes.ok_or_else(|| Error::of("serialising the engine", runtime.hooks.take()))
    }

    /// A context to run it in, under its first profile.
    ///
    /// # Errors
    /// No memory left, or no profile at all.
    pub fn context(&self) -> Result<Context, Error> {
        Context::new(self)
    }

    pub(crate) fn raw(&self) -> *mut sys::sluice_trt_engine {
        self.0.engine.raw()
    }

    /// The profile's number as TensorRT takes it.
    pub(crate) fn profile(&self, asked: u32) -> Result<i32, Error> {
        let count = self.0.profiles;
        let unknown = Error::UnknownProfile { asked, count };
        if asked >= count {
            return Err(unknown);
        }
        i32::try_from(asked).map_err(|_| unknown)
    }

    /// Place of the tensor of this name that goes in this direction.
    pub(crate) fn find(&self, name: &str, direction: Direction) -> Result<usize, Error> {
        let all = &self.0.tensors;
        let of_kind = |tensor: &&Tensor| tensor.direction == direction;
        all.iter()
            .position(|tensor| tensor.name == name && of_kind(&tensor))
            .ok_or_else(|| Error::UnknownTensor {
                kind: match direction {
                    Direction::Input => "input",
                    Direction::Output => "output",
                },
                name: name.to_owned(),
                known: all.iter().filter(of_kind).map(|t| t.name.clone()).collect(),
            })
    }
}

fn describe(
    engine: &Owned<sys::sluice_trt_engine>,
    index: i32,
    profiles: i32,
) -> Result<Tensor, Error> {
    let raw = engine.raw();
    let odd = |what: &str| Error::Unsupported(format!("tensor {index} has no {what}"));
    // SAFETY: a live engine and an index below its count; the text is copied.
    let name = unsafe { copy_text(sys::sluice_trt_engine_tensor_name(raw, index)) };
    let name = name.ok_or_else(|| odd("name"))?;
    let c_name = c_text(&name)?;
    let c = c_name.as_ptr();
    // SAFETY: a live engine and the name of one of its tensors; all of these only read.
    let (mode, element, shape, location, alias) = unsafe {
        (
            sys::sluice_trt_engine_tensor_mode(raw, c),
            sys::sluice_trt_engine_tensor_type(raw, c),
            sys::sluice_trt_engine_tensor_shape(raw, c),
            sys::sluice_trt_engine_tensor_location(raw, c),
            copy_text(sys::sluice_trt_engine_tensor_alias(raw, c)),
        )
    };
    let direction = match mode {
        1 => Direction::Input,
        2 => Direction::Output,
        _ => return Err(odd("direction")),
    };
    for profile in 0..profiles {
        // SAFETY: as above, and one of its profiles.
        let format = unsafe { sys::sluice_trt_engine_tensor_format(raw, c, profile) };
        if format != 0 {
            return Err(Error::Unsupported(format!(
                "{name:?} is not laid out row by row (format {format} in profile {profile}); build it with linear \
                 inputs and outputs"
            )));
        }
    }
    let on_host = location == 1;
    // What a size tensor may hold is bounded by values, not by shapes.
    let bounds = match direction {
        Direction::Input if !on_host => (0..profiles)
            .map(|profile| bounds(engine, &c_name, profile))
            .collect::<Option<_>>()
            .ok_or_else(|| odd("bounds"))?,
        _ => Vec::new(),
    };
    Ok(Tensor {
        direction,
        element: ElementType::from_number(element).ok_or_else(|| odd("known element type"))?,
        shape: shape_from(&shape).ok_or_else(|| odd("shape"))?,
        on_host,
        alias,
        bounds,
        name,
        c_name,
    })
}

fn bounds(engine: &Owned<sys::sluice_trt_engine>, name: &CString, profile: i32) -> Option<Bounds> {
    // SAFETY: a live engine, one of its inputs and one of its profiles; only reads.
    let at = |which| unsafe {
        sys::sluice_trt_engine_profile_shape(engine.raw(), name.as_ptr(), profile, which)
    };
    Some(Bounds {
        smallest: shape_from(&at(0))?,
        best: shape_from(&at(1))?,
        largest: shape_from(&at(2))?,
    })
}
