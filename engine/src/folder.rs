//! What a model folder holds, and whether what it says can be true.
//!
//! Three kinds: a causal language model as written by
//! `onnxruntime_genai.models.builder` (`genai_config.json`), a text encoder as
//! Hugging Face exports it (`config.json`, a tokenizer and `model.onnx` or
//! `onnx/model.onnx`), and any other `.onnx` file as a plain tensor function. The last two
//! may have an engine of TensorRT's instead of a graph (`.plan`, `.engine`); where both lie
//! in a folder the graph counts, since nobody can tell whether the engine is of this graph.
//! Nothing here opens either; see `backend` for that.

mod encoder;
mod genai;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

pub use encoder::{EncoderConfig, Pooling};
pub use genai::{GenAiConfig, SlidingWindow, TensorNames};

use crate::error::LoadError;

/// A model folder whose files are there and whose declarations are in range.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFolder {
    /// The folder (for a single `.onnx` file, the one it lies in).
    pub dir: PathBuf,
    /// What is in it.
    pub kind: ModelKind,
}

/// Kinds of model.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelKind {
    /// A causal language model.
    Generative(Box<GenAiConfig>),
    /// A text encoder: embeddings, or a classifier over text.
    Encoder(EncoderConfig),
    /// A function over tensors.
    Tensor {
        /// The graph, or an engine.
        model: PathBuf,
    },
}

impl ModelFolder {
    /// Reads the declarations of the folder (or single `.onnx` file or engine) at `path`.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the file that is missing or wrong;
    /// [`LoadError::Unsupported`] naming the feature.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        if path.is_file() {
            if !is_graph(path) && !is_engine(path) {
                return Err(wrong(
                    path,
                    "this is neither a model folder nor an .onnx, .plan or .engine file",
                ));
            }
            let dir = path.parent().unwrap_or(Path::new("."));
            let model = path.to_path_buf();
            return Ok(Self {
                dir: dir.to_path_buf(),
                kind: ModelKind::Tensor { model },
            });
        }
        if !path.is_dir() {
            return Err(wrong(path, "there is no such model folder"));
        }
        Ok(Self {
            dir: path.to_path_buf(),
            kind: detect(path)?,
        })
    }

    /// SHA-256 over the folder's files, hexadecimal: the digest of the lines
    /// `<sha256 of file>  <relative path>\n`, sorted by path, as
    /// `find . -type f | sort | xargs sha256sum` would write them (without `./`). Of a
    /// tensor model, the graph and the files that it names: its weights may lie beside it.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the file that cannot be read.
    pub fn digest(&self) -> Result<String, LoadError> {
        let mut files = match &self.kind {
            ModelKind::Tensor { .. } => self.graph_files()?,
            _ => files_below(&self.dir, 0)?,
        };
        files.sort();
        let mut whole = Sha256::new();
        for path in files {
            let name = path.strip_prefix(&self.dir).unwrap_or(&path);
            let digest = file_digest(&path)
                .map_err(|error| wrong(&path, &format!("cannot be read: {error}")))?;
            whole.update(format!("{digest}  {}\n", name.display()));
        }
        Ok(hex(&whole.finalize()))
    }

    /// The graph or engine of a tensor model or an encoder, and those files below its folder
    /// whose path stands in it; none of a language model. Searched for in the
    /// bytes, because external weights may be named anywhere, subgraphs included; one file too
    /// many does no harm.
    ///
    /// # Errors
    /// [`LoadError::Folder`] naming the file that cannot be read.
    pub fn graph_files(&self) -> Result<Vec<PathBuf>, LoadError> {
        match &self.kind {
            ModelKind::Generative(_) => Ok(Vec::new()),
            ModelKind::Encoder(EncoderConfig { model, .. }) | ModelKind::Tensor { model } => {
                graph_files(model)
            }
        }
    }
}

/// Whether this is an engine that TensorRT built, by its name.
#[must_use]
pub fn is_engine(file: &Path) -> bool {
    file.extension()
        .is_some_and(|end| end == "plan" || end == "engine")
}

fn is_graph(file: &Path) -> bool {
    file.extension().is_some_and(|end| end == "onnx")
}

fn detect(dir: &Path) -> Result<ModelKind, LoadError> {
    if dir.join("genai_config.json").is_file() {
        return Ok(ModelKind::Generative(Box::new(GenAiConfig::read(dir)?)));
    }
    let files = files_below(dir, MAX_DEPTH)?;
    let of = |kind: fn(&Path) -> bool| files.iter().filter(|file| kind(file)).collect::<Vec<_>>();
    let (graphs, engines) = (of(is_graph), of(is_engine));
    let there = |names: [&str; 2]| {
        let paths = names.map(|name| dir.join(name));
        paths.into_iter().find(|path| path.is_file())
    };
    let usual = there(["model.onnx", "onnx/model.onnx"]).or_else(|| match graphs.as_slice() {
        [] => there(["model.plan", "model.engine"]),
        _ => None,
    });
    if let Some(model) = &usual
        && dir.join("config.json").is_file()
        && dir.join("tokenizer.json").is_file()
    {
        return Ok(ModelKind::Encoder(EncoderConfig::read(dir, model.clone())?));
    }
    let only = |files: &[&PathBuf], kind: &str, usual: &str| match files {
        [only] => Ok((*only).clone()),
        [] => Err(wrong(
            dir,
            "it holds no model: expected genai_config.json with model.onnx (chat), config.json, \
             tokenizer.json and model.onnx (encoder), or one .onnx file (tensors)",
        )),
        several => Err(wrong(
            dir,
            &format!(
                "it holds {} {kind} files and none is {usual}: name the file",
                several.len()
            ),
        )),
    };
    let model = match (usual, graphs.as_slice()) {
        (Some(model), _) => model,
        (None, []) => only(&engines, "engine", "model.plan")?,
        (None, graphs) => only(graphs, ".onnx", "model.onnx")?,
    };
    Ok(ModelKind::Tensor { model })
}

/// Folders in folders that are still looked into.
const MAX_DEPTH: usize = 4;

/// Regular files below `dir`; at `depth` = [`MAX_DEPTH`], those of `dir` alone.
fn files_below(dir: &Path, depth: usize) -> Result<Vec<PathBuf>, LoadError> {
    let unreadable = |error: io::Error| wrong(dir, &format!("cannot be read: {error}"));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() && depth < MAX_DEPTH {
            files.extend(files_below(&path, depth + 1)?);
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn graph_files(graph: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let bytes =
        std::fs::read(graph).map_err(|error| wrong(graph, &format!("cannot be read: {error}")))?;
    let dir = match graph.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let mut files = vec![graph.to_path_buf()];
    for path in files_below(dir, 0)? {
        let relative = path.strip_prefix(dir).unwrap_or(&path).as_os_str();
        let named = || memchr::memmem::find(&bytes, relative.as_encoded_bytes()).is_some();
        if Some(relative) != graph.file_name() && named() {
            files.push(graph.with_file_name(relative));
        }
    }
    Ok(files)
}

fn file_digest(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hasher.finalize())),
            n => hasher.update(&buffer[..n]),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A folder error about `path`.
pub(crate) fn wrong(path: &Path, reason: &str) -> LoadError {
    LoadError::Folder {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    }
}

/// Reads and decodes a JSON file of a model folder.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, LoadError> {
    let text = std::fs::read(path).map_err(|error| {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => "is missing".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        wrong(path, &reason)
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| wrong(path, &format!("is not as expected: {error}")))
}

#[cfg(test)]
mod tests;
