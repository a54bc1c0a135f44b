//! `sluice engine`: engines of TensorRT, built before they are served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use serde_json::json;
use sluice_engine::backend::builds::builds;
use sluice_engine::backend::onnx::{Provider, ShapeProfile, TensorRtOptions};
use sluice_engine::backend::tensorrt::{NativeOptions, build_plan, origin};
use sluice_engine::encoder::{EncoderOptions, batch_profiles};
use sluice_engine::folder::{ModelFolder, ModelKind, is_engine};
use sluice_gateway::config::human::{format_size, parse_size};

use super::output::{self, Format};

/// Engines of TensorRT for `provider = "tensorrt-native"`.
#[derive(Debug, clap::Args)]
pub(crate) struct Engine {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Build(Build),
    Show(Show),
}

/// Build an engine of an encoder or a tensor model ahead, so that no start waits for it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice engine build data/models/all-minilm-l6-v2 -o minilm-h200          # a folder to serve\n  sluice engine build resnet.onnx -o resnet.plan --profile image=1x3x224x224:8x3x224x224:32x3x224x224\n  sluice artifact push minilm-h200                                        # and on as any model\n\nAn engine serves on machines with the same TensorRT and the same kind of GPU; elsewhere it is refused.\nWithout --profile an encoder's engine takes batches of all lengths, a tensor model's 1 to 64 rows."
)]
struct Build {
    /// Model folder or .onnx file.
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Where it goes: a .plan file, or a folder, which gets the model's other files too.
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Shapes of an input: least, fastest, greatest. Once for each input whose sizes are free.
    #[arg(long = "profile", value_name = "INPUT=MIN:OPT:MAX", value_parser = profile)]
    profiles: Vec<ShapeProfile>,
    /// GPU to build on, by CUDA's number.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    device: u32,
    /// Scratch memory of a layer, such as 2GiB; TensorRT's own choice when absent.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    workspace: Option<u64>,
    /// 0 builds fast, 5 searches longest.
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(0..=5))]
    level: Option<u8>,
}

/// Show what an engine was built from, and for.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice engine show minilm-h200/model.plan\n  sluice engine show model.plan -o json"
)]
struct Show {
    /// A .plan or .engine file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

impl Engine {
    pub(crate) async fn run(self) -> Result<()> {
        match self.verb {
            Verb::Build(verb) => verb.run().await,
            Verb::Show(verb) => verb.run(),
        }
    }
}

impl Build {
    async fn run(self) -> Result<()> {
        let folder = ModelFolder::open(&self.model)?;
        let (graph, profiles) = self.graph(&folder)?;
        if is_engine(&graph) {
            bail!("{} is an engine already", graph.display());
        }
        if !is_engine(&self.output) && self.output.exists() {
            bail!(
                "{} is there already; name a new folder or a .plan file",
                self.output.display()
            );
        }
        let options = NativeOptions {
            device: self.device,
            build: TensorRtOptions {
                workspace: self.workspace,
                optimization_level: self.level,
                profiles,
                ..TensorRtOptions::default()
            },
            ..NativeOptions::default()
        };
        let name = self.model.display().to_string();
        let source = graph.clone();
        let building = tokio::task::spawn_blocking(move || build_plan(&name, &source, &options));
        let plan = watched(building).await??;
        let written = match is_engine(&self.output) {
            true => self.output.clone(),
            false => beside(&folder, &self.output)?,
        };
        std::fs::write(&written, &plan).with_context(|| written.display().to_string())?;
        let size = format_size(plan.len() as u64);
        output::line(format!("{} ({size})", written.display()))
    }

    fn graph(&self, folder: &ModelFolder) -> Result<(PathBuf, Vec<ShapeProfile>)> {
        let given = self.profiles.clone();
        match &folder.kind {
            ModelKind::Tensor { model } => Ok((model.clone(), given)),
            ModelKind::Encoder(config) if given.is_empty() && !is_engine(&config.model) => {
                let options = EncoderOptions::on(Provider::TensorRt {
                    device: self.device,
                });
                Ok((config.model.clone(), batch_profiles(config, &options)?))
            }
            ModelKind::Encoder(config) => Ok((config.model.clone(), given)),
            ModelKind::Generative(_) => bail!(
                "{}: language models run with provider = \"cuda\" or \"tensorrt\", which need no \
                 engine built ahead",
                self.model.display()
            ),
        }
    }
}

/// Waits for a build, and says how far it is where somebody looks.
async fn watched<T>(
    mut building: tokio::task::JoinHandle<T>,
) -> std::result::Result<T, tokio::task::JoinError> {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            built = &mut building => {
                output::progress("");
                return built;
            }
            _ = tick.tick() => {
                if let Some(build) = builds().first() {
                    output::progress(&build.to_string());
                }
            }
        }
    }
}

/// Makes the folder of a model that has an engine for its graph: with the model's other files (its parity
/// probe too, which the engine then has to pass), and without graphs and weights. Returns where the engine goes.
fn beside(folder: &ModelFolder, target: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(target).with_context(|| target.display().to_string())?;
    // Of a single file, the rest of its folder is somebody else's.
    if !matches!(folder.kind, ModelKind::Tensor { .. }) {
        copy_rest(&folder.dir, target, &folder.graph_files()?, 3)?;
    }
    Ok(target.join("model.plan"))
}

fn copy_rest(from: &Path, to: &Path, without: &[PathBuf], depth: u32) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        let named = || path.display().to_string();
        if path.is_dir() && depth > 0 {
            copy_rest(&path, &target, without, depth - 1)?;
        } else if path.is_file() && !is_model(&path) && !without.contains(&path) {
            std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
            std::fs::copy(&path, &target).with_context(named)?;
        }
    }
    Ok(())
}

fn is_model(file: &Path) -> bool {
    is_engine(file) || file.extension().is_some_and(|end| end == "onnx")
}

/// `input_ids=1x1:8x128:64x512`
fn profile(text: &str) -> std::result::Result<ShapeProfile, String> {
    let wrong = || format!("`{text}` should be like input_ids=1x1:8x128:64x512");
    let (input, shapes) = text.split_once('=').ok_or_else(wrong)?;
    let shape = |text: &str| text.split('x').map(|size| size.parse().ok()).collect();
    let shapes: Option<Vec<Vec<i64>>> = shapes.split(':').map(shape).collect();
    let [min, opt, max]: [Vec<i64>; 3] = shapes
        .and_then(|all| all.try_into().ok())
        .ok_or_else(wrong)?;
    let profile = ShapeProfile {
        input: input.to_owned(),
        min,
        opt,
        max,
    };
    if input.is_empty() || !profile.rises() {
        return Err(format!(
            "{}, with as many sizes in each and 1 <= least <= fastest <= greatest",
            wrong()
        ));
    }
    Ok(profile)
}

impl Show {
    fn run(self) -> Result<()> {
        let Some(origin) = origin(&self.file)? else {
            bail!(
                "{} was not built by sluice: only TensorRT knows what is in it",
                self.file.display()
            );
        };
        let bytes = std::fs::metadata(&self.file)?.len();
        if self.output == Format::Json {
            return output::json(&json!({
                "tensorrt": origin.tensorrt.to_string(),
                "device": origin.device,
                "model": origin.model,
                "specification": origin.specification,
                "bytes": bytes,
            }));
        }
        let size = format_size(bytes);
        let rows = [
            ("TensorRT", origin.tensorrt.to_string()),
            ("device", origin.device),
            ("model", origin.model),
            ("options", origin.specification),
            ("size", size),
        ];
        let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
        output::table(&["BUILT FOR", ""], &rows)
    }
}
