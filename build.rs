//! Builds the native parts of `sluice-engine`.
//!
//! Nothing is compiled yet: the CUDA kernels and the TensorRT shim of `kernels/`
//! will be. Until then this only keeps cargo from rebuilding the crate when an
//! unrelated file changes.

fn main() {
    println!("cargo:rerun-if-changed=../build.rs");
    println!("cargo:rerun-if-changed=../kernels");
}
