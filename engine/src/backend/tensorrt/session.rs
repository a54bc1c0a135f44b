//! One engine and its context: what a step takes is checked, copied in, computed and
//! copied out, all on the device's one stream.

use std::fmt;
use std::sync::Arc;

use sluice_tensorrt::device::DeviceStream;
use sluice_tensorrt::{Context, Direction, Engine, Error, Shape, Tensor as EngineTensor};

use super::device::{Gpu, Lent};
use super::values::{bytes_of, datatype, filled};
use crate::backend::onnx::{Datatype, Dimension, Tensor, TensorInfo, TensorSlice, TensorView};
use crate::backend::pooled::{Pooled, Pooler};
use crate::cuda::CudaError;
use crate::error::{BackendError, LoadError};

/// A step did not come about.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    #[error(transparent)]
    TensorRt(#[from] Error),
    #[error(transparent)]
    Device(#[from] CudaError),
    /// What was asked for does not fit the engine; nothing was started.
    #[error("{0}")]
    Invalid(String),
    /// What came out cannot be given back.
    #[error("{0}")]
    Output(String),
}

/// A model on TensorRT itself, owned by one thread.
pub struct TensorRtSession {
    // Order matters: the context waits for its step, and ends before what it works on.
    context: Context,
    stream: Arc<dyn DeviceStream>,
    /// One a tensor of the engine; grows with the shapes that come.
    memory: Vec<Option<Arc<Lent>>>,
    pooler: Pooler,
    gpu: Gpu,
    profile: u32,
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
}

impl fmt::Debug for TensorRtSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorRtSession")
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl Drop for TensorRtSession {
    fn drop(&mut self) {
        // What ends next belongs to that device. An error here is one that it keeps.
        _ = self.gpu.enter();
    }
}

impl TensorRtSession {
    /// A context of `engine`, with the working memory of its largest profile.
    pub(super) fn new(engine: &Engine, gpu: Gpu) -> Result<Self, StepError> {
        let mut context = engine.context()?;
        let working = (0..engine.profiles()).map(|profile| engine.working_memory(profile));
        let working = working.collect::<Result<Vec<_>, _>>()?;
        let most = working.into_iter().max().unwrap_or(0);
        context.set_working_memory(gpu.allocate(most)?)?;
        let of = |direction| {
            let tensors = engine.tensors().iter();
            let tensors = tensors.filter(move |tensor| tensor.direction == direction);
            tensors.map(describe).collect()
        };
        Ok(Self {
            context,
            stream: gpu.stream(),
            memory: engine.tensors().iter().map(|_| None).collect(),
            pooler: Pooler::default(),
            gpu,
            profile: 0,
            inputs: of(Direction::Input),
            outputs: of(Direction::Output),
        })
    }

    /// The same engine for another thread, with a context and a stream of its own. The
    /// weights are there once.
    ///
    /// # Errors
    /// [`LoadError::Runtime`]: no memory for it, or the device failed.
    pub fn share(&self) -> Result<Self, LoadError> {
        let gpu = self.gpu.again().map_err(StepError::from);
        let shared = gpu.and_then(|gpu| {
            gpu.enter()?;
            Self::new(self.context.engine(), gpu)
        });
        shared.map_err(|error| LoadError::Runtime(format!("one more context: {error}")))
    }

    /// What the engine takes, in its order.
    #[must_use]
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
    }

    /// What the engine gives, in its order.
    #[must_use]
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The largest shape of an input that the engine takes: of several profiles' that of the
    /// one whose innermost size reaches furthest.
    pub(crate) fn reach(&self, input: &str) -> Option<Vec<i64>> {
        let mut tensors = self.context.engine().tensors().iter();
        let wanted =
            |tensor: &&EngineTensor| tensor.direction == Direction::Input && tensor.name == input;
        let tensor = tensors.find(wanted)?;
        let largest = tensor
            .bounds
            .iter()
            .map(|bounds| bounds.largest.sizes().to_vec());
        largest.max_by_key(|sizes| sizes.iter().rev().copied().collect::<Vec<_>>())
    }

    /// Runs the engine on borrowed tensors and returns the `wanted` outputs, in that
    /// order (all of them, in the engine's order, when `wanted` is empty).
    ///
    /// # Errors
    /// [`BackendError::Refused`]: an unknown name, a wrong type, a shape outside of every
    /// profile. [`BackendError::Step`]: no memory left, a refused step; the session can be used again.
    /// [`BackendError::Fatal`]: the device failed, and nothing runs on it any more.
    pub fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        wanted: &[&str],
    ) -> Result<Vec<Tensor>, BackendError> {
        let stepped = self.step(inputs);
        let outputs = self.end(stepped).and_then(|()| self.collect(wanted));
        outputs.map_err(|error| self.judge(&error))
    }

    /// Runs the engine on texts with these `tokens`, padded to `length`, and returns one
    /// vector for each, made on the device of the vectors of its tokens.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(crate) fn run_pooled(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        pooled: &Pooled,
        tokens: &[u32],
        length: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let stepped = self.step(inputs);
        let vectors = self.end(stepped).and_then(|()| {
            let (_, hidden, shape) = self.found(&pooled.output)?;
            let hidden = Arc::clone(hidden);
            let expected = [tokens.len(), length, pooled.width].map(|size| size as i64);
            if shape.sizes() != expected {
                let wrong = format!("output `{}` is {shape}, not {expected:?}", pooled.output);
                return Err(StepError::Output(wrong));
            }
            let texts = (tokens, length);
            Ok(self.gpu.pool(&mut self.pooler, &hidden, pooled, texts)?)
        });
        vectors.map_err(|error| self.judge(&error))
    }

    /// Waits for a step, also after a refusal: part of it may have been queued.
    fn end(&mut self, stepped: Result<(), StepError>) -> Result<(), StepError> {
        let ended = self.context.finish().map_err(StepError::from);
        ended.and(stepped)
    }

    fn step(&mut self, inputs: &[(&str, TensorView<'_>)]) -> Result<(), StepError> {
        self.gpu.enter()?;
        let engine = self.context.engine().clone();
        let given = self.fit(&engine, inputs)?;
        let profile = choose(engine.profiles(), &given)?;
        if profile != self.profile {
            self.context.set_profile(profile, &self.stream)?;
            self.profile = profile;
        }
        for input in &given {
            if !input.tensor.on_host {
                self.context.set_shape(&input.tensor.name, input.shape)?;
            }
        }
        for input in &given {
            self.feed(input)?;
        }
        for (place, tensor) in engine.tensors().iter().enumerate() {
            if tensor.direction == Direction::Output && tensor.alias.is_none() {
                let bytes = self.context.bytes(&tensor.name)?;
                let memory = self.room(place, bytes)?;
                self.context.set_output(&tensor.name, memory)?;
            }
        }
        Ok(self.context.start(&self.stream)?)
    }

    /// Each input of the engine with what was given for it, types and ranks compared.
    fn fit<'a>(
        &self,
        engine: &'a Engine,
        inputs: &[(&str, TensorView<'a>)],
    ) -> Result<Vec<Given<'a>>, StepError> {
        let known = |name: &str| self.inputs.iter().any(|info| info.name == name);
        if let Some((name, _)) = inputs.iter().find(|(name, _)| !known(name)) {
            let names: Vec<_> = self.inputs.iter().map(|info| &*info.name).collect();
            return Err(StepError::Invalid(format!(
                "input `{name}` is unknown; the engine takes {}",
                names.join(", ")
            )));
        }
        let all = engine.tensors().iter().enumerate();
        let taken = all.filter(|(_, tensor)| tensor.direction == Direction::Input);
        taken
            .map(|(place, tensor)| {
                let name = &tensor.name;
                let view = inputs.iter().find(|(given, _)| given == name);
                let (_, view) =
                    view.ok_or_else(|| StepError::Invalid(format!("input `{name}` is missing")))?;
                Given::check(place, tensor, *view)
            })
            .collect()
    }

    fn feed(&mut self, input: &Given<'_>) -> Result<(), StepError> {
        let name = &input.tensor.name;
        if input.tensor.on_host {
            return Ok(self.context.set_values(name, &sizes(input.data)?)?);
        }
        let memory = self.room(input.place, input.bytes.len() as u64)?;
        self.gpu.write(&memory, input.bytes)?;
        Ok(self.context.set_input(name, memory)?)
    }

    /// Memory of `bytes` or more for the tensor at `place`. It grows by doubling, so that
    /// it is less than twice what the largest shape so far needs.
    fn room(&mut self, place: usize, bytes: u64) -> Result<Arc<Lent>, StepError> {
        use sluice_tensorrt::device::DeviceMemory as _;
        if let Some(memory) = &self.memory[place]
            && memory.bytes() >= bytes
        {
            return Ok(Arc::clone(memory));
        }
        let memory = self.gpu.allocate(bytes.max(1).next_power_of_two())?;
        self.memory[place] = Some(Arc::clone(&memory));
        Ok(memory)
    }

    fn collect(&mut self, wanted: &[&str]) -> Result<Vec<Tensor>, StepError> {
        let all: Vec<_> = self.outputs.iter().map(|info| info.name.clone()).collect();
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let wanted = if wanted.is_empty() { &*all } else { wanted };
        wanted.iter().map(|name| self.output(name)).collect()
    }

    fn output(&self, name: &str) -> Result<Tensor, StepError> {
        let invalid = |what: &str| StepError::Output(format!("output `{name}` {what}"));
        let (tensor, memory, shape) = self.found(name)?;
        let datatype = datatype(tensor.element);
        let datatype = datatype.ok_or_else(|| invalid("has a type that cannot be returned"))?;
        let count = shape.elements().and_then(|count| count.try_into().ok());
        let count: usize = count.ok_or_else(|| invalid("has a size that only its data decide"))?;
        let data = filled(datatype, count, |bytes| self.gpu.read(memory, bytes));
        Ok(Tensor {
            shape: shape.sizes().to_vec(),
            data: data.ok_or_else(|| invalid("has elements without a fixed size"))??,
        })
    }

    /// An output after a step: where it lies, and its shape.
    fn found(&self, name: &str) -> Result<(&EngineTensor, &Arc<Lent>, Shape), StepError> {
        let invalid = |what: &str| StepError::Output(format!("output `{name}` {what}"));
        let tensors = self.context.engine().tensors();
        let tensor = tensors
            .iter()
            .find(|tensor| tensor.name == name && tensor.direction == Direction::Output)
            .ok_or_else(|| invalid("is unknown"))?;
        let owner = tensor.alias.as_deref().unwrap_or(name);
        let place = tensors.iter().position(|tensor| tensor.name == owner);
        let memory = place.and_then(|place| self.memory[place].as_ref());
        let memory = memory.ok_or_else(|| invalid("has no memory"))?;
        Ok((tensor, memory, self.context.shape(name)?))
    }

    /// Whether the device is to be given up, or this step only.
    fn judge(&self, error: &StepError) -> BackendError {
        let lost = match error {
            StepError::TensorRt(error) => error.loses_device(),
            StepError::Device(error) => error.is_sticky(),
            StepError::Invalid(_) => return BackendError::Refused(error.to_string()),
            StepError::Output(_) => return BackendError::Step(error.to_string()),
        };
        match self.gpu.lost() {
            _ if lost => BackendError::Fatal(error.to_string()),
            // TensorRT names its own failure; what the driver says is the cause.
            Some(cause) => BackendError::Fatal(format!("{error}: {cause}")),
            None => BackendError::Step(error.to_string()),
        }
    }
}

/// An input of the engine and what was given for it.
pub(super) struct Given<'a> {
    place: usize,
    tensor: &'a EngineTensor,
    shape: Shape,
    data: TensorSlice<'a>,
    bytes: &'a [u8],
}

impl<'a> Given<'a> {
    fn check(
        place: usize,
        tensor: &'a EngineTensor,
        view: TensorView<'a>,
    ) -> Result<Self, StepError> {
        let name = &tensor.name;
        let wrong = |what: String| StepError::Invalid(format!("input `{name}`: {what}"));
        let (given, right) = (view.data.datatype(), datatype(tensor.element));
        if right != Some(given) {
            let right = right.map_or("a type that requests lack", Datatype::name);
            let given = given.name();
            return Err(wrong(format!(
                "its type is {given}; the engine takes {right}"
            )));
        }
        let shape = Shape::new(view.shape).filter(|shape| shape.fits(&tensor.shape));
        let shape = shape.ok_or_else(|| {
            let (given, right) = (view.shape, tensor.shape);
            wrong(format!("its shape is {given:?}; the engine takes {right}"))
        })?;
        let bytes = bytes_of(view.data);
        let bytes = bytes.ok_or_else(|| wrong("strings are not for a device".to_owned()))?;
        if shape.elements() != u64::try_from(view.data.len()).ok() {
            let count = view.data.len();
            return Err(wrong(format!("{count} elements are given for {shape}")));
        }
        Ok(Self {
            place,
            tensor,
            shape,
            data: view.data,
            bytes,
        })
    }

    fn within(&self, profile: u32) -> bool {
        let bounds = self.tensor.bounds.get(profile as usize);
        bounds.is_none_or(|bounds| self.shape.within(&bounds.smallest, &bounds.largest))
    }
}

/// The profile that takes all shapes; of several, the one with the smallest reach, which
/// was tuned for shapes that are closest to these.
pub(super) fn choose(profiles: u32, given: &[Given<'_>]) -> Result<u32, StepError> {
    let reach = |profile: &u32| {
        let largest = |input: &Given<'_>| {
            let bounds = input.tensor.bounds.get(*profile as usize)?;
            bounds.largest.elements()
        };
        given
            .iter()
            .filter_map(largest)
            .fold(0, u64::saturating_add)
    };
    let covers = |profile: &u32| given.iter().all(|input| input.within(*profile));
    (0..profiles)
        .filter(covers)
        .min_by_key(reach)
        .ok_or_else(|| {
            let alone = |input: &&Given<'_>| !(0..profiles).any(|profile| input.within(profile));
            StepError::Invalid(match given.iter().find(alone) {
                Some(input) => outside(input),
                None => format!(
                    "no optimisation profile takes these shapes together: {}",
                    given
                        .iter()
                        .map(Given::spelled)
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            })
        })
}

impl Given<'_> {
    fn spelled(&self) -> String {
        format!("`{}` {}", self.tensor.name, self.shape)
    }
}

fn outside(input: &Given<'_>) -> String {
    let range =
        |bounds: &sluice_tensorrt::Bounds| format!("{} to {}", bounds.smallest, bounds.largest);
    let ranges: Vec<_> = input.tensor.bounds.iter().map(range).collect();
    format!(
        "input `{}` has shape {}; the engine's profiles take {}",
        input.tensor.name,
        input.shape,
        ranges.join(" or ")
    )
}

/// Values of an input that TensorRT reads on the host.
fn sizes(data: TensorSlice<'_>) -> Result<Vec<i64>, StepError> {
    match data {
        TensorSlice::Int64(values) => Ok(values.to_vec()),
        TensorSlice::Int32(values) => Ok(values.iter().copied().map(i64::from).collect()),
        other => Err(StepError::Invalid(format!(
            "sizes are INT64 or INT32, not {}",
            other.datatype().name()
        ))),
    }
}

fn describe(tensor: &EngineTensor) -> TensorInfo {
    // TensorRT keeps no names of dimensions.
    let dimension = |&size: &i64| match size {
        -1 => Dimension::Free(String::new()),
        size => Dimension::Fixed(size),
    };
    TensorInfo {
        name: tensor.name.clone(),
        datatype: datatype(tensor.element),
        shape: tensor.shape.sizes().iter().map(dimension).collect(),
    }
}
