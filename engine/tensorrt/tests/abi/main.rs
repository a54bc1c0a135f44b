//! The interface to TensorRT, against a stand-in built from the same headers and against the real lean runtime.
#![cfg(tensorrt_shim)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod build;
mod lean;
mod open;
mod rtx;
mod run;
mod standin;
mod store;
