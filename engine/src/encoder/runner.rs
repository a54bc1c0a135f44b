//! What computes an encoder's batches: ONNX Runtime, or TensorRT itself.

use crate::backend::onnx::{
    DevicePooling, ModelSource, OnnxSession, Provider, SessionOptions, TensorInfo, TensorView,
};
use crate::backend::pooled::Pooled;
use crate::backend::tensorrt::{self, NativeOptions, TensorRtSession};
use crate::error::{BackendError, LoadError};
use crate::folder::EncoderConfig;

/// A loaded graph or engine, for one thread.
#[derive(Debug)]
pub(super) enum Runner {
    Onnx(Box<OnOnnx>),
    TensorRt(Box<TensorRtSession>),
}

/// A graph on ONNX Runtime.
#[derive(Debug)]
pub(super) struct OnOnnx {
    session: OnnxSession,
    /// CUDA's number of the device on which token vectors are pooled.
    pooled_on: Option<(Provider, u32)>,
    /// That device, once the worker's thread has opened it.
    device: Option<DevicePooling>,
}

impl OnOnnx {
    fn run_pooled(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        pooled: &Pooled,
        tokens: &[u32],
        length: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let step = |reason: String| BackendError::Step(reason);
        let device = match (&mut self.device, self.pooled_on) {
            (Some(device), _) => device,
            (device, Some((provider, ordinal))) => {
                let opened = DevicePooling::open(provider, ordinal, pooled.clone());
                device.insert(opened.map_err(|error| step(error.to_string()))?)
            }
            (None, None) => return Err(step("no device was named to pool on".to_owned())),
        };
        device.run(&mut self.session, inputs, tokens, length)
    }
}

impl Runner {
    /// Loads what `config` names; on `device` token vectors are pooled.
    pub(super) fn onnx(
        name: &str,
        config: &EncoderConfig,
        options: &SessionOptions,
        device: Option<u32>,
    ) -> Result<Self, LoadError> {
        let source = ModelSource::File(&config.model);
        Ok(Self::Onnx(Box::new(OnOnnx {
            session: OnnxSession::open(name, source, options)?,
            pooled_on: device.map(|ordinal| (options.provider, ordinal)),
            device: None,
        })))
    }

    /// The same on TensorRT itself, which pools on its own device.
    pub(super) fn native(
        name: &str,
        config: &EncoderConfig,
        options: &NativeOptions,
    ) -> Result<Self, LoadError> {
        let session = tensorrt::open(name, &config.model, options)?;
        Ok(Self::TensorRt(Box::new(session)))
    }

    /// The same model for another thread.
    pub(super) fn share(&self) -> Result<Self, LoadError> {
        Ok(match self {
            Self::Onnx(onnx) => Self::Onnx(Box::new(OnOnnx {
                session: onnx.session.share()?,
                pooled_on: onnx.pooled_on,
                device: None,
            })),
            Self::TensorRt(session) => Self::TensorRt(Box::new(session.share()?)),
        })
    }

    pub(super) fn inputs(&self) -> &[TensorInfo] {
        match self {
            Self::Onnx(onnx) => onnx.session.inputs(),
            Self::TensorRt(session) => session.inputs(),
        }
    }

    pub(super) fn outputs(&self) -> &[TensorInfo] {
        match self {
            Self::Onnx(onnx) => onnx.session.outputs(),
            Self::TensorRt(session) => session.outputs(),
        }
    }

    /// The largest batch that is taken, `[texts, tokens]`, where that was decided when the
    /// model was built.
    pub(super) fn reach(&self) -> Option<[usize; 2]> {
        let Self::TensorRt(session) = self else {
            return None;
        };
        let sizes = session.reach(&session.inputs().first()?.name)?;
        let sizes: [i64; 2] = sizes.try_into().ok()?;
        Some(sizes.map(|size| usize::try_from(size).unwrap_or(0)))
    }

    /// Whether token vectors stay on a device, to be pooled there.
    pub(super) fn pools(&self) -> bool {
        match self {
            Self::Onnx(onnx) => onnx.pooled_on.is_some(),
            Self::TensorRt(_) => true,
        }
    }

    /// Gives back what belongs to this thread; the one that runs the next batch takes it again.
    pub(super) fn leave_thread(&mut self) {
        if let Self::Onnx(onnx) = self {
            onnx.device = None;
        }
    }

    /// Runs for one output, which `read` makes one row a text of.
    pub(super) fn run(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        output: &str,
        read: impl FnOnce(&TensorView<'_>) -> Result<Vec<Vec<f32>>, String>,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        let rows = match self {
            Self::Onnx(onnx) => onnx.session.run_with(inputs, &[output], |outputs| {
                read(outputs.first().ok_or_else(|| "no output".to_owned())?)
            })?,
            Self::TensorRt(session) => match session.run(inputs, &[output])?.first() {
                Some(tensor) => read(&TensorView {
                    shape: &tensor.shape,
                    data: tensor.data.as_slice(),
                }),
                None => Err("no output".to_owned()),
            },
        };
        rows.map_err(BackendError::Step)
    }

    /// Runs texts with these `tokens`, padded to `length`; one vector a text, pooled on the
    /// device.
    pub(super) fn run_pooled(
        &mut self,
        inputs: &[(&str, TensorView<'_>)],
        pooled: &Pooled,
        tokens: &[u32],
        length: usize,
    ) -> Result<Vec<Vec<f32>>, BackendError> {
        match self {
            Self::Onnx(onnx) => onnx.run_pooled(inputs, pooled, tokens, length),
            Self::TensorRt(session) => session.run_pooled(inputs, pooled, tokens, length),
        }
    }
}
