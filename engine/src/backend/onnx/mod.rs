//! Models on ONNX Runtime.
//!
//! [`runtime`] loads the library, [`session`] is one loaded graph.

mod bound;
pub mod runtime;
pub mod session;
mod tensor_data;

pub use runtime::{Provider, RuntimeInfo, init_runtime};
pub use session::{
    Canceller, Dimension, ModelSource, OnnxSession, SessionOptions, SharedWeights, Tensor,
    TensorInfo, TensorView,
};
pub use tensor_data::{Datatype, TensorData, TensorSlice};
