//! Builds the native parts of `sluice-engine`: the CUDA kernels of `kernels/`.
//!
//! Each kernel's source, with its includes written out, goes into the binary, so that
//! NVRTC can compile it when the server starts. Where nvcc is at hand (`CUDA_HOME`,
//! `CUDA_PATH`, or the `PATH`) the compiled kernels go in too, and nothing is left to
//! do at the start. A kernel that nvcc refuses fails the build.
//!
//! `make kernels` runs this very program with nvcc from the package index.

use std::collections::BTreeSet;
use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNELS: [&str; 4] = ["gather", "pooling", "sampling", "slots"];

/// Machine code for these, and PTX of the last for whatever comes after it.
const ARCHITECTURES: [&str; 2] = ["80", "90"];

#[expect(clippy::print_stderr, reason = "cargo shows it when the build fails")]
fn main() {
    if let Err(error) = build() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn build() -> Result<(), Box<dyn Error>> {
    let engine = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let folder = engine.join("../kernels");
    println!("cargo:rerun-if-changed=../build.rs");
    println!("cargo:rerun-if-env-changed=CUDA_HOME");
    println!("cargo:rerun-if-env-changed=CUDA_PATH");

    // What `engine/tensorrt` says of itself; without the vendor's headers it says nothing.
    println!("cargo:rustc-check-cfg=cfg(tensorrt_shim)");
    if let Ok(headers) = env::var("DEP_SLUICE_TENSORRT_SHIM_HEADERS") {
        println!("cargo:rustc-cfg=tensorrt_shim");
        println!("cargo:rustc-env=SLUICE_TENSORRT_HEADERS={headers}");
    }

    let nvcc = find_nvcc();
    let mut table = String::from("pub(super) const IMAGES: &[Image] = &[\n");
    for name in KERNELS {
        let source = out.join(format!("{name}.cu"));
        let file = folder.join(format!("{name}.cu"));
        fs::write(&source, flatten(&file, &mut BTreeSet::new())?)?;
        let binary = match &nvcc {
            Some(nvcc) => {
                compile(nvcc, &source, &out.join(format!("{name}.fatbin")))?;
                format!("Some(include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\")))")
            }
            None => "None".to_owned(),
        };
        writeln!(
            table,
            "    Image {{ name: \"{name}\", source: include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.cu\")), binary: {binary} }},"
        )?;
    }
    table.push_str("];\n");
    fs::write(out.join("images.rs"), table)?;
    Ok(())
}

/// A source file with each of its own headers in place of the first line that includes it.
fn flatten(file: &Path, seen: &mut BTreeSet<PathBuf>) -> Result<String, Box<dyn Error>> {
    println!("cargo:rerun-if-changed={}", file.display());
    let text = fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut whole = String::new();
    for line in text.lines() {
        let header = line
            .strip_prefix("#include \"")
            .and_then(|rest| rest.strip_suffix('"'));
        if let Some(header) = header {
            let path = file.with_file_name(header);
            if seen.insert(path.clone()) {
                whole.push_str(&flatten(&path, seen)?);
            }
        } else if line != "#pragma once" {
            whole.push_str(line);
            whole.push('\n');
        }
    }
    Ok(whole)
}

fn find_nvcc() -> Option<PathBuf> {
    let homes = ["CUDA_HOME", "CUDA_PATH"];
    let from_home = homes
        .iter()
        .filter_map(env::var_os)
        .map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    from_home
        .chain(env::split_paths(&path))
        .map(|folder| folder.join("nvcc"))
        .find(|nvcc| nvcc.is_file())
}

fn compile(nvcc: &Path, source: &Path, target: &Path) -> Result<(), Box<dyn Error>> {
    let mut command = Command::new(nvcc);
    // No contraction into fused operations: the CPU's sampler rounds each of them.
    command.args(["-O3", "-std=c++17", "--fmad=false", "-fatbin"]);
    command.args(["-Xfatbin", "-compress-all", "-Werror", "all-warnings"]);
    for architecture in ARCHITECTURES {
        command.arg(format!(
            "-gencode=arch=compute_{architecture},code=sm_{architecture}"
        ));
    }
    if let Some(last) = ARCHITECTURES.last() {
        command.arg(format!("-gencode=arch=compute_{last},code=compute_{last}"));
    }
    let output = command.arg(source).arg("-o").arg(target).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!(
        "{} refused {}:\n{}{}",
        nvcc.display(),
        source.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
    .into())
}
