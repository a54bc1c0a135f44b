//! Making an engine from an ONNX model, where the library has a builder and the parser is beside it.
#![expect(
    unsafe_code,
    reason = "FFI with TensorRT; each block states why it is sound"
)]

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::bindings as sys;
use crate::error::{Code, Error, OpenError};
use crate::hooks::{Callbacks, Hooks};
use crate::library::Library;
use crate::owned::{Owned, c_text, copy_memory, copy_text, shape_from, shape_to};
use crate::plan::digest;
use crate::runtime::load_plugins;
use crate::shape::Shape;

/// The shapes that one input may take, outermost size first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// The smallest.
    pub smallest: Vec<i64>,
    /// The one to be fast for.
    pub best: Vec<i64>,
    /// The largest.
    pub largest: Vec<i64>,
}

/// Rows of a batch that an engine is built for where nothing else is asked for: the fewest, those to be fast for, and
/// the most.
pub const ROWS: [i64; 3] = [1, 8, 64];

/// How to build an engine. Whatever changes the outcome is in here, so its [`digest`](Specification::digest) tells
/// engines of one model apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Specification {
    /// For each optimisation profile, the span of every input that has a size of -1 in the model. Without any, and if
    /// only first sizes are -1, there is one profile of [`ROWS`].
    pub profiles: Vec<BTreeMap<String, Span>>,
    /// Device memory that a layer may work in, in bytes; TensorRT's default is all there is.
    pub workspace_bytes: Option<u64>,
    /// How long to look for fast kernels, from 0 (not at all) to 5; TensorRT's default is 3.
    pub level: Option<u8>,
    /// The compute capability to build for, as 80 for 8.0, rather than for the device at hand. Only TensorRT-RTX can.
    pub target: Option<u32>,
}

impl Specification {
    /// SHA-256 in hexadecimal, for [`Origin`](crate::Origin).
    #[must_use]
    pub fn digest(&self) -> String {
        // Maps are sorted and numbers exact, so equal specifications read the same.
        digest(&serde_json::to_vec(self).unwrap_or_default())
    }
}

/// What is not part of the outcome.
#[derive(Clone, Default)]
pub struct BuildOptions<'a> {
    /// What TensorRT calls back; `watch` is told how far the build is.
    pub callbacks: Callbacks,
    /// Threads to build on; TensorRT's choice if not given.
    pub threads: Option<u32>,
    /// What an earlier build measured, to be quick about the same layers.
    pub timing: &'a [u8],
    /// Libraries of plugins that the model needs; as trusted as TensorRT is.
    pub plugins: &'a [&'a Path],
    /// Where the model lies, if it keeps weights in files beside it.
    pub path: Option<&'a Path>,
}

/// An engine, and what was measured on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// TensorRT's bytes.
    pub engine: Vec<u8>,
    /// For the next build's [`BuildOptions::timing`].
    pub timing: Vec<u8>,
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No builder or no parser.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// TensorRT, or the model.
    #[error(transparent)]
    Call(#[from] Error),
}

/// Builds an engine from an ONNX model. Takes minutes for large ones; see [`Watch`](crate::Watch).
///
/// # Errors
/// There is no builder, the specification does not fit the model, or TensorRT cannot do it.
pub fn build(
    library: &Library,
    model: &[u8],
    specification: &Specification,
    options: &BuildOptions<'_>,
) -> Result<Built, BuildError> {
    let builder = library.builder()?;
    let parser = library.parser()?;
    // Dropped in the reverse order of their making, as TensorRT wants it.
    let hooks = Hooks::new(options.callbacks.clone())?;
    // SAFETY: createInferBuilder_INTERNAL of an open library whose version was checked, and hooks that outlive it.
    let builder = unsafe {
        Owned::new(
            sys::sluice_trt_builder_create(builder.0, hooks.raw()),
            sys::sluice_trt_builder_destroy,
        )
    };
    let builder = builder.ok_or_else(|| Error::Declined(hooks.take()))?;
    if let Some(threads) = options.threads {
        let number = i32::try_from(threads).unwrap_or(i32::MAX);
        // SAFETY: a live builder that only this function knows, as all that follows.
        let done = unsafe { sys::sluice_trt_builder_set_threads(builder.raw(), number) };
        check(&hooks, done, "setting its threads")?;
    }
    for path in options.plugins {
        // SAFETY: a live builder, which reports to these hooks.
        unsafe {
            load_plugins(
                sys::sluice_trt_builder_registry(builder.raw()),
                path,
                &hooks,
            )?;
        }
    }
    // SAFETY: a live builder, which outlives the network.
    let network = unsafe {
        Owned::new(
            sys::sluice_trt_network_create(builder.raw()),
            sys::sluice_trt_network_destroy,
        )
    };
    let network = network.ok_or_else(|| Error::of("making a network", hooks.take()))?;
    // SAFETY: createNvOnnxParser_INTERNAL of an open library, a live network and hooks that outlive the parser. The
    // parser stays until the engine is built: the network may point into the weights it read.
    let parser = unsafe {
        Owned::new(
            sys::sluice_trt_parser_create(parser.0, network.raw(), hooks.raw()),
            sys::sluice_trt_parser_destroy,
        )
    };
    let parser = parser.ok_or_else(|| Error::of("making a parser", hooks.take()))?;
    parse(&parser, model, options.path)?;
    // SAFETY: a live builder, which outlives its configuration.
    let config = unsafe {
        Owned::new(
            sys::sluice_trt_config_create(builder.raw()),
            sys::sluice_trt_config_destroy,
        )
    };
    let config = config.ok_or_else(|| Error::of("making a configuration", hooks.take()))?;
    configure(&config, specification, &hooks)?;
    profiles(&builder, &network, &config, specification, &hooks)?;
    let timing = timing(&config, options.timing, &hooks)?;
    hooks.clear();
    // SAFETY: live objects of one builder; the memory that comes back is ours.
    let engine = unsafe {
        copy_memory(sys::sluice_trt_builder_build(
            builder.raw(),
            network.raw(),
            config.raw(),
        ))
    };
    let engine = engine.ok_or_else(|| failed(&hooks))?;
    // SAFETY: a live cache; the memory that comes back is ours.
    let timing = unsafe { copy_memory(sys::sluice_trt_timing_serialize(timing.raw())) };
    Ok(Built {
        engine,
        timing: timing.unwrap_or_default(),
    })
}

fn check(hooks: &Hooks, done: i32, doing: &'static str) -> Result<(), Error> {
    if done != 0 {
        return Ok(());
    }
    Err(Error::of(doing, hooks.take()))
}

/// A build that was stopped says nothing of it; one that failed does.
fn failed(hooks: &Hooks) -> Error {
    let stopped = hooks.stopped();
    let reports = hooks.take();
    if stopped && !reports.any(Code::FailedAllocation) {
        Error::Stopped
    } else {
        Error::of("building the engine", reports)
    }
}

fn parse(
    parser: &Owned<sys::sluice_trt_parser>,
    model: &[u8],
    path: Option<&Path>,
) -> Result<(), Error> {
    let path = path.map(|p| c_text(&p.to_string_lossy())).transpose()?;
    let bytes = u64::try_from(model.len()).unwrap_or(u64::MAX);
    // SAFETY: a live parser, bytes that are read during the call, a path that is null or ends with NUL.
    let done = unsafe {
        sys::sluice_trt_parser_parse(
            parser.raw(),
            model.as_ptr().cast(),
            bytes,
            path.as_ref().map_or(std::ptr::null(), |p| p.as_ptr()),
        )
    };
    if done != 0 {
        return Ok(());
    }
    // SAFETY: a live parser; the number and, below it, each error's texts are only read and copied.
    let reasons = unsafe {
        (0..sys::sluice_trt_parser_errors(parser.raw()))
            .map(|index| {
                let raw = parser.raw();
                let text = copy_text(sys::sluice_trt_parser_error_text(raw, index));
                let text = text.unwrap_or_else(|| {
                    let code = sys::sluice_trt_parser_error_code(raw, index);
                    format!("error {code} without a word")
                });
                let node = copy_text(sys::sluice_trt_parser_error_node(raw, index));
                let operator = copy_text(sys::sluice_trt_parser_error_operator(raw, index));
                match (node.filter(|n| !n.is_empty()), operator) {
                    (Some(node), Some(operator)) => format!("node {node:?} ({operator}): {text}"),
                    _ => text,
                }
            })
            .collect()
    };
    Err(Error::Model(reasons))
}

fn configure(
    config: &Owned<sys::sluice_trt_config>,
    specification: &Specification,
    hooks: &Hooks,
) -> Result<(), Error> {
    hooks.clear();
    if let Some(target) = specification.target {
        let number = i32::try_from(target).unwrap_or(i32::MAX);
        // SAFETY: a live configuration.
        if unsafe { sys::sluice_trt_config_set_target(config.raw(), number) } == 0 {
            return Err(Error::Specification(format!(
                "target: this TensorRT does not build for compute capability {target} from here ({})",
                hooks.take()
            )));
        }
    }
    // SAFETY: a live configuration, and hooks that outlive it.
    unsafe {
        if let Some(bytes) = specification.workspace_bytes {
            sys::sluice_trt_config_set_workspace(config.raw(), bytes);
        }
        if let Some(level) = specification.level {
            sys::sluice_trt_config_set_level(config.raw(), level.into());
        }
        if hooks.is_watched() {
            sys::sluice_trt_config_watch(config.raw(), hooks.raw());
        }
    }
    Ok(())
}

fn timing(
    config: &Owned<sys::sluice_trt_config>,
    earlier: &[u8],
    hooks: &Hooks,
) -> Result<Owned<sys::sluice_trt_timing>, Error> {
    let create = |data: &[u8]| {
        let bytes = u64::try_from(data.len()).unwrap_or(u64::MAX);
        // SAFETY: a live configuration, which outlives the cache, and bytes that are read during the call.
        unsafe {
            Owned::new(
                sys::sluice_trt_timing_create(config.raw(), data.as_ptr().cast(), bytes),
                sys::sluice_trt_timing_destroy,
            )
        }
    };
    // A cache of another version or device is of no use and no reason to fail.
    let cache = create(earlier).or_else(|| create(&[]));
    let cache = cache.ok_or_else(|| Error::of("making a timing cache", hooks.take()))?;
    // SAFETY: two live objects, of which the cache is dropped first, after the build.
    let set =
        |cache: &Owned<_>| unsafe { sys::sluice_trt_config_set_timing(config.raw(), cache.raw()) };
    if set(&cache) != 0 {
        return Ok(cache);
    }
    let empty = create(&[]).ok_or_else(|| Error::of("making a timing cache", hooks.take()))?;
    check(hooks, set(&empty), "using an empty timing cache")?;
    Ok(empty)
}

fn profiles(
    builder: &Owned<sys::sluice_trt_builder>,
    network: &Owned<sys::sluice_trt_network>,
    config: &Owned<sys::sluice_trt_config>,
    specification: &Specification,
    hooks: &Hooks,
) -> Result<(), Error> {
    let inputs = inputs(network);
    let wanted = match specification.profiles.as_slice() {
        [] => by_rows(&inputs)?,
        given => given.to_vec(),
    };
    for (number, spans) in wanted.iter().enumerate() {
        // SAFETY: a live builder, which the profile belongs to.
        let profile = unsafe { sys::sluice_trt_profile_create(builder.raw()) };
        if profile.is_null() {
            return Err(Error::of("making a profile", hooks.take()));
        }
        for (name, span) in spans {
            let Some(pattern) = inputs.get(name) else {
                return Err(Error::Specification(format!(
                    "profiles[{number}] spans {name:?}; the model's inputs are {}",
                    list(&inputs)
                )));
            };
            let shapes = spanned(number, name, span, pattern)?;
            let c_name = c_text(name)?;
            for (which, shape) in (0..).zip(&shapes) {
                let shape = shape_to(shape);
                // SAFETY: a live profile, the name of an input, a shape that is copied.
                let done = unsafe {
                    sys::sluice_trt_profile_set(profile, c_name.as_ptr(), which, &raw const shape)
                };
                check(hooks, done, "spanning an input")?;
            }
        }
        let left = inputs
            .iter()
            .find(|(name, shape)| !shape.is_known() && !spans.contains_key(*name));
        if let Some((name, shape)) = left {
            return Err(Error::Specification(format!(
                "profiles[{number}] does not span {name:?}, whose shape in the model is {shape}"
            )));
        }
        // SAFETY: a live configuration and a live profile of the same builder.
        let added = unsafe { sys::sluice_trt_config_add_profile(config.raw(), profile) };
        if added < 0 {
            return Err(Error::of("adding a profile", hooks.take()));
        }
    }
    Ok(())
}

/// The profile of a model where only the first sizes of inputs are free; none where no size is.
fn by_rows(inputs: &BTreeMap<String, Shape>) -> Result<Vec<BTreeMap<String, Span>>, Error> {
    let free = inputs.iter().filter(|(_, shape)| !shape.is_known());
    let span = |(name, shape): (&String, &Shape)| {
        let rest = shape.sizes().split_first()?.1;
        let with = |rows| [&[rows], rest].concat();
        let [smallest, best, largest] = ROWS.map(with);
        let span = Span {
            smallest,
            best,
            largest,
        };
        (!rest.contains(&-1)).then(|| (name.clone(), span))
    };
    let spans: Option<BTreeMap<_, _>> = free.map(span).collect();
    match spans {
        Some(spans) if spans.is_empty() => Ok(Vec::new()),
        Some(spans) => Ok(vec![spans]),
        None => Err(Error::Specification(format!(
            "the model's inputs have sizes that are not fixed ({}): at least one profile has to span them",
            list(inputs)
        ))),
    }
}

fn spanned(number: usize, name: &str, span: &Span, pattern: &Shape) -> Result<[Shape; 3], Error> {
    let wrong = |what: &str| Error::Specification(format!("profiles[{number}].{name}: {what}"));
    let read = |sizes: &[i64]| {
        Shape::new(sizes)
            .filter(|shape| shape.is_known() && shape.fits(pattern))
            .ok_or_else(|| {
                wrong(&format!(
                    "{sizes:?} is no shape that fits the model's {pattern}"
                ))
            })
    };
    let [smallest, best, largest] = [
        read(&span.smallest)?,
        read(&span.best)?,
        read(&span.largest)?,
    ];
    if best.within(&smallest, &largest) {
        Ok([smallest, best, largest])
    } else {
        Err(wrong("best has to lie between smallest and largest"))
    }
}

fn inputs(network: &Owned<sys::sluice_trt_network>) -> BTreeMap<String, Shape> {
    // SAFETY: a live network and indices below its count; texts are copied.
    unsafe {
        (0..sys::sluice_trt_network_inputs(network.raw()))
            .filter_map(|index| {
                let name = copy_text(sys::sluice_trt_network_input_name(network.raw(), index))?;
                let shape = sys::sluice_trt_network_input_shape(network.raw(), index);
                Some((name, shape_from(&shape)?))
            })
            .collect()
    }
}

fn list(inputs: &BTreeMap<String, Shape>) -> String {
    let inputs: Vec<String> = inputs
        .iter()
        .map(|(name, shape)| format!("{name} {shape}"))
        .collect();
    inputs.join(", ")
}
