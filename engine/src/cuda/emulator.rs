//! The kernels without a GPU: their source, compiled by the C++ compiler over
//! `kernels/host_shim.h`, in the memory of this process.
#![expect(
    unsafe_code,
    reason = "calls compiled kernels; a test in a module with FFI"
)]
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::BTreeMap;
use std::ffi::{c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

use libloading::Library;
use sha2::{Digest as _, Sha256};

use super::CudaError;
use super::machine::{Buffer, Launch, Machine};

type Run = unsafe extern "C" fn(*const c_uint, c_uint, c_int, *const c_void) -> c_int;

/// Bytes behind each buffer that no kernel may touch, and what is in them.
const GUARD: usize = 256;
const UNTOUCHED: u8 = 0xa5;
/// Reading this as a number gives NaN in single, about −1.6e−10 in half precision.
const STALE: u8 = 0xff;

/// Runs kernels on the CPU.
pub(super) struct Emulator {
    /// A block's threads run from the last to the first.
    pub(super) backward: bool,
    images: BTreeMap<&'static str, Library>,
}

/// Memory of this process that is aligned as a device's.
pub(super) struct HostBuffer {
    memory: Vec<u128>,
    size: usize,
}

impl Emulator {
    pub(super) fn new(backward: bool) -> Self {
        Self {
            backward,
            images: BTreeMap::new(),
        }
    }
}

impl HostBuffer {
    fn bytes(&self) -> &[u8] {
        // SAFETY: any initialised memory is bytes.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().cast(), size_of_val(&*self.memory))
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        let length = size_of_val(&*self.memory);
        // SAFETY: as above; every bit pattern is a `u128`.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), length) }
    }
}

impl Buffer for HostBuffer {
    fn address(&self) -> u64 {
        self.memory.as_ptr().expose_provenance() as u64
    }

    fn size(&self) -> usize {
        self.size
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        let guard = &self.bytes()[self.size..];
        let whole = guard.iter().all(|&byte| byte == UNTOUCHED);
        assert!(
            whole || std::thread::panicking(),
            "written behind {} bytes",
            self.size
        );
    }
}

impl Machine for Emulator {
    type Buffer = HostBuffer;

    /// The contract says zeros; stale bytes show who relies on that.
    fn allocate(&mut self, bytes: usize) -> Result<HostBuffer, CudaError> {
        let mut buffer = HostBuffer {
            memory: vec![0; (bytes + GUARD).div_ceil(16)],
            size: bytes,
        };
        let (own, guard) = buffer.bytes_mut().split_at_mut(bytes);
        own.fill(STALE);
        guard.fill(UNTOUCHED);
        Ok(buffer)
    }

    fn write(&mut self, to: &mut HostBuffer, bytes: &[u8]) -> Result<(), CudaError> {
        if bytes.len() > to.size {
            return Err(CudaError::Shape("too long".to_owned()));
        }
        to.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read_at(
        &mut self,
        from: &HostBuffer,
        offset: usize,
        bytes: &mut [u8],
    ) -> Result<(), CudaError> {
        if offset + bytes.len() > from.size {
            return Err(CudaError::Shape("too short".to_owned()));
        }
        bytes.copy_from_slice(&from.bytes()[offset..offset + bytes.len()]);
        Ok(())
    }

    unsafe fn launch(&mut self, launch: &Launch<'_>) -> Result<(), CudaError> {
        let image = self
            .images
            .entry(launch.image)
            .or_insert_with(|| load(launch.image));
        let name = format!("host_{}", launch.kernel);
        // SAFETY: the shim gives each kernel such a function.
        let run = unsafe { image.get::<Run>(name.as_bytes()) }.unwrap();
        // The kernel reads its structure in place.
        let mut arguments = vec![0u64; launch.arguments.len().div_ceil(8)];
        for (word, bytes) in arguments.iter_mut().zip(launch.arguments.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        // SAFETY: the caller's promise.
        let stuck = unsafe {
            run(
                launch.grid.as_ptr(),
                launch.threads,
                c_int::from(self.backward),
                arguments.as_ptr().cast(),
            )
        };
        assert_eq!(stuck, 0, "threads of {name} wait for some that never come");
        Ok(())
    }
}

fn load(image: &str) -> Library {
    let library = compiled(image);
    // SAFETY: it has no initialisers but the C++ library's.
    unsafe { Library::new(&library) }.unwrap_or_else(|e| panic!("{}: {e}", library.display()))
}

/// Compiled as C++ that stops at undefined behaviour: an address that a wide load or
/// store does not allow, a shift that is too far.
const FLAGS: &[&str] = &[
    "-std=c++17",
    "-O2",
    "-ffp-contract=off",
    "-fPIC",
    "-shared",
    "-fsanitize=undefined",
    "-fsanitize-undefined-trap-on-error",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unknown-pragmas",
    "-x",
    "c++",
    "-include",
];

/// The kernel as a library.
pub(super) fn compiled(image: &str) -> PathBuf {
    let source = Path::new(env!("OUT_DIR")).join(format!("{image}.cu"));
    build(image, FLAGS, &[kernels().join("host_shim.h"), source], &[])
}

/// Whether the sources are where they were when the tests were built: not so on a machine
/// that was sent the tests alone.
pub(super) fn is_at_hand() -> bool {
    kernels().is_dir() && Path::new(env!("OUT_DIR")).is_dir()
}

/// Where the sources of the kernels are.
pub(super) fn kernels() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels")
}

/// A library out of `sources`, built anew when these, the `headers` or the flags have
/// changed.
pub(super) fn build(
    name: &str,
    flags: &[&str],
    sources: &[PathBuf],
    headers: &[PathBuf],
) -> PathBuf {
    let mut digest = Sha256::new();
    for file in sources.iter().chain(headers) {
        digest.update(std::fs::read(file).unwrap());
    }
    digest.update(flags.concat());
    let digest: String = digest
        .finalize()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let target = Path::new(env!("OUT_DIR")).join(format!("{name}-{}.so", &digest[..16]));
    if target.exists() {
        return target;
    }
    // Tests run side by side, each in its own process: who is done first wins.
    let work = tempfile::NamedTempFile::new_in(env!("OUT_DIR")).unwrap();
    let output = Command::new(std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned()))
        .args(flags)
        .args(sources)
        .arg("-o")
        .arg(work.path())
        .output()
        .expect("a C++ compiler is needed");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    work.persist(&target).unwrap();
    target
}
