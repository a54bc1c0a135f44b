//! Compiles the shim to TensorRT where the vendor's headers are at hand.
//!
//! The headers are not part of this repository: `scripts/tensorrt.sh headers` fetches them. Without them the crate
//! still builds, and says so when it is asked to open the library (`OpenError::NotBuilt`).

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders, separated by `:`, that hold `NvInfer.h` and `cuda_runtime_api.h`; `none` builds without.
const INCLUDE: &str = "SLUICE_TENSORRT_INCLUDE";

fn main() {
    println!("cargo::rustc-check-cfg=cfg(tensorrt_shim)");
    println!("cargo::rerun-if-env-changed={INCLUDE}");
    println!("cargo::rerun-if-changed=build.rs");
    // The script touches the shim when it has fetched the headers, so that they are looked for again.
    for file in ["tensorrt_shim.h", "tensorrt_shim.cpp"] {
        println!("cargo::rerun-if-changed=../../kernels/{file}");
    }
    let include = include();
    if include.is_empty() {
        return;
    }
    for folder in &include {
        println!("cargo::rerun-if-changed={}", folder.display());
    }
    compile(&include);
    let joined = env::join_paths(&include).expect("folders that came out of such a list");
    println!(
        "cargo::rustc-env=SLUICE_TENSORRT_HEADERS={}",
        joined.display()
    );
    println!("cargo::metadata=headers={}", joined.display());
    println!("cargo::rustc-cfg=tensorrt_shim");
}

/// Where the headers are: what the variable says, else where the script puts them. Empty if nowhere.
fn include() -> Vec<PathBuf> {
    if let Some(given) = env::var_os(INCLUDE).filter(|given| !given.is_empty()) {
        if given == "none" {
            return Vec::new();
        }
        let folders: Vec<PathBuf> = env::split_paths(&given).collect();
        assert!(
            folders.iter().any(|f| f.join("NvInfer.h").is_file()),
            "{INCLUDE} names no folder with NvInfer.h in it: {}",
            given.display()
        );
        return folders;
    }
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let folder = here.join("../../data/tensorrt/include");
    if folder.join("NvInfer.h").is_file() {
        vec![folder]
    } else {
        Vec::new()
    }
}

fn compile(include: &[PathBuf]) {
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++17")
        .file("../../kernels/tensorrt_shim.cpp")
        .flag("-fno-exceptions")
        .flag("-fvisibility=hidden")
        .extra_warnings(true)
        .warnings_into_errors(true)
        // The headers of TensorRT-RTX call deprecated what TensorRT's do not.
        .flag("-Wno-deprecated-declarations")
        .cpp_link_stdlib(None);
    for folder in include {
        // As system headers, so that the vendor's warnings are not ours.
        build.flag("-isystem").flag(folder);
    }
    build.compile("sluice_tensorrt_shim");
    link_standard_library(&build.get_compiler());
}

/// C++'s library goes into the binary, which otherwise needs nothing but the C library of the host it runs on.
fn link_standard_library(compiler: &cc::Tool) {
    let archive = Command::new(compiler.path())
        .arg("-print-file-name=libstdc++.a")
        .output()
        .ok()
        .and_then(|out| String::from_utf8(out.stdout).ok())
        .map(|path| PathBuf::from(path.trim()))
        .filter(|path| path.is_absolute());
    match archive.as_deref().and_then(Path::parent) {
        Some(folder) => {
            println!("cargo::rustc-link-search=native={}", folder.display());
            println!("cargo::rustc-link-lib=static:-bundle=stdc++");
        }
        None => println!("cargo::rustc-link-lib=stdc++"),
    }
}
