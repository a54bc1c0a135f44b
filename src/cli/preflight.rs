//! Whether a configuration can be served on this machine: one answer for `sluice serve`, which refuses what it says, and
//! `sluice config check`, which prints it. All that is wrong is found at once.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rustix::fs::{Access, Mode, OFlags, access};
use sluice_control::artifacts::Artifacts;
use sluice_control::domain::roles::Role;
use sluice_control::pipelines::discover;
use sluice_control::release::webhook::Webhook;
use sluice_control::store::DatabaseUrl;
use sluice_gateway::auth::keys;
use sluice_gateway::config::{
    Config, ConfigError, LogFormat, Placed, Problem, Problems, ProviderConfig, TasksConfig,
    gpu_options,
};
use sluice_gateway::preflight::preflight;

use super::plan::Plan;
use super::serve::DEFAULT_FILE;

/// When it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Before anything runs.
    Start,
    /// While it is served: what waits for a restart is not looked at, and files in use are not touched.
    Reload,
}

/// A configuration with all that is wrong with it.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) config: Config,
    pub(crate) problems: Vec<Placed>,
}

impl Examined {
    /// Reads a file, or what is there by default, has `change` put in what options say, and looks for all that is wrong.
    ///
    /// # Errors
    /// The file cannot be read, or is no TOML.
    pub(crate) fn of(
        file: Option<&Path>,
        moment: Moment,
        change: impl FnOnce(&mut Config) -> Result<()>,
    ) -> Result<Self> {
        let default = Path::new(DEFAULT_FILE);
        let path = file.or_else(|| default.exists().then_some(default));
        let (source, (config, known)) = match path {
            Some(path) => {
                let source = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.to_owned(),
                    source,
                })?;
                let examined = Config::examine(&source, path)?;
                (source, examined)
            }
            None => (String::new(), (Config::default(), Vec::new())),
        };
        let mut problems = Problems::default();
        problems.extend(known);
        let mut config = config.with_environment(|name| std::env::var(name).ok())?;
        change(&mut config)?;
        let found = found(&config, moment);
        // What stands in for a value that is wrong is no news.
        let news: Vec<Problem> = found
            .into_iter()
            .filter(|it| !problems.concern(&it.field))
            .collect();
        problems.extend(news);
        let path = path.unwrap_or(Path::new(""));
        Ok(Self {
            config,
            problems: Placed::of(problems.into_inner(), &source, path),
        })
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// All that is.
    pub(crate) fn right(self) -> Result<Config> {
        match self.problems.is_empty() {
            true => Ok(self.config),
            false => Err(ConfigError::Invalid(self.problems).into()),
        }
    }
}

fn found(config: &Config, moment: Moment) -> Vec<Problem> {
    let variable = |name: &str| std::env::var(name).ok();
    let mut problems = Problems::default();
    problems.extend(config.problems());
    let needed = preflight(config, variable).into_iter();
    // By now there may be keys in the records, which nobody here knows; whoever takes over the new ones does.
    problems.extend(needed.filter(|it| moment == Moment::Start || it.field != "auth.required"));
    if config.deployments.is_empty() && !config.control.enabled {
        problems.add(
            "deployment",
            format!("is missing, and so there is nothing to serve: name a model, or add a [[deployment]] to {DEFAULT_FILE}"),
        );
    }
    if moment == Moment::Reload {
        return problems.into_inner();
    }
    // Another port of the address: whether somebody has its own at this moment says little.
    if let Err(error) = TcpListener::bind((config.listen.ip(), 0)) {
        let address = config.listen.ip();
        problems.add(
            "listen",
            format!("names {address}, which cannot be listened on here: {error}"),
        );
    }
    check_log(config, &mut problems);
    check_caches(config, &mut problems);
    let plan = match Plan::parse(config) {
        Ok(plan) => Some(plan),
        Err(wrong) => {
            problems.extend(wrong);
            None
        }
    };
    if config.control.enabled {
        let hooks = Webhook::unusable_secrets(&config.control.releases.webhooks, variable);
        problems.extend(hooks);
        check_roles(config, &mut problems);
        check_folders(config, plan.as_ref(), &mut problems);
        check_pipelines(&config.control.tasks, &mut problems);
    }
    problems.into_inner()
}

fn check_log(config: &Config, problems: &mut Problems) {
    let Some(file) = config.log.file.as_deref() else {
        return;
    };
    if config.log.format == LogFormat::Off {
        return;
    }
    let can = match file.metadata() {
        Ok(known) if known.is_dir() => Err("it is a folder".to_owned()),
        Ok(known) if known.is_file() => match OpenOptions::new().append(true).open(file) {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        },
        // Opening a pipe would wait for a reader.
        Ok(_) => access(file, Access::WRITE_OK).map_err(|error| error.to_string()),
        Err(_) => match folder_of(file) {
            folder if folder.is_dir() => writable(folder),
            folder => Err(format!("there is no folder {}", folder.display())),
        },
    };
    if let Err(why) = can {
        let message = format!("cannot be written: {}: {why}", file.display());
        problems.add("log.file", message);
    }
}

/// Where TensorRT's engines are kept.
fn check_caches(config: &Config, problems: &mut Problems) {
    for (index, deployment) in config.deployments.iter().enumerate() {
        let builds = matches!(
            deployment.provider,
            ProviderConfig::Tensorrt | ProviderConfig::TensorrtNative
        );
        let cache = gpu_options(deployment, &config.data).tensorrt.cache;
        if let (true, Some(Err(why))) = (builds, cache.as_deref().map(writable)) {
            let field = format!("deployment.{index}.tensorrt.cache");
            problems.add(field, format!("cannot be written: {why}"));
        }
    }
}

/// Roles are the control plane's words.
fn check_roles(config: &Config, problems: &mut Problems) {
    let entries = config.auth.keys_file.as_deref().map(keys::read_file);
    // Where it cannot be read, that was said.
    for entry in entries.into_iter().flatten().flatten() {
        if let Some(Err(error)) = entry.role.as_deref().map(str::parse::<Role>) {
            let message = format!(
                "has the key `{}` with a role that is none: {error}",
                entry.name
            );
            problems.add("auth.keys_file", message);
        }
    }
}

fn check_folders(config: &Config, plan: Option<&Plan>, problems: &mut Problems) {
    if let Err(why) = writable(&config.data.join("control")) {
        problems.add("data", format!("cannot be written: {why}"));
    }
    let Some(plan) = plan else { return };
    if let DatabaseUrl::Sqlite(path) = &plan.url
        && let Err(why) = sqlite(path)
    {
        let field = match config.control.database {
            Some(_) => "control.database",
            None => "data",
        };
        problems.add(field, format!("cannot be used: {}: {why}", path.display()));
    }
    for folder in Artifacts::folders(&plan.artifacts, &config.data) {
        if let Err(why) = writable(&folder) {
            let message = format!("cannot be written: {why}");
            problems.add("control.artifacts.location", message);
        }
    }
    if config.control.tasks.slots > 0
        && let Err(why) = writable(&plan.work.environments)
    {
        let field = match config.control.tasks.environments {
            Some(_) => "control.tasks.environments",
            None => "data",
        };
        problems.add(field, format!("cannot be written: {why}"));
    }
}

/// What SQLite's files begin with.
const SQLITE: &[u8] = b"SQLite format 3\0";

fn sqlite(path: &Path) -> Result<(), String> {
    use std::io::Read as _;
    match path.metadata() {
        Err(_) => writable(folder_of(path)),
        Ok(known) if known.is_dir() => Err("it is a folder, should be a file".to_owned()),
        Ok(_) => {
            let file = OpenOptions::new().read(true).write(true).open(path);
            let file = file.map_err(|error| error.to_string())?;
            let mut begins = Vec::new();
            file.take(SQLITE.len() as u64)
                .read_to_end(&mut begins)
                .map_err(|error| error.to_string())?;
            match begins.is_empty() || begins == SQLITE {
                true => writable(folder_of(path)),
                false => Err("it is no SQLite database".to_owned()),
            }
        }
    }
}

fn check_pipelines(tasks: &TasksConfig, problems: &mut Problems) {
    let folder = &tasks.pipelines;
    if folder.is_dir() {
        if let Err(error) = discover(folder) {
            let message = format!("cannot be used: {error}");
            problems.add("control.tasks.pipelines", message);
        }
    } else if *folder != TasksConfig::default().pipelines {
        let message = format!("names {}, which is no folder", folder.display());
        problems.add("control.tasks.pipelines", message);
    }
}

/// The folder that a file lies in.
fn folder_of(file: &Path) -> &Path {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Whether files can be made in a folder, or the folder itself where it is not there yet. Leaves nothing behind.
fn writable(folder: &Path) -> Result<(), String> {
    let known = folder
        .ancestors()
        .map(|it| match it.as_os_str().is_empty() {
            true => Path::new("."),
            false => it,
        })
        .find_map(|it| Some((it, it.metadata().ok()?)));
    let Some((nearest, known)) = known else {
        return Err(format!("there is no folder {}", folder.display()));
    };
    if !known.is_dir() {
        return Err(format!("{} is no folder", nearest.display()));
    }
    let refused = |error: &dyn std::fmt::Display| Err(format!("{}: {error}", nearest.display()));
    if let Err(error) = access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
        return refused(&error);
    }
    // What the superuser may is not all that he can: a file without a name, where there are such.
    let nameless = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    if rustix::fs::open(nearest, nameless, Mode::RUSR | Mode::WUSR).is_ok() {
        return Ok(());
    }
    let probe: PathBuf = nearest.join(format!(".sluice-probe-{}", std::process::id()));
    match OpenOptions::new().write(true).create_new(true).open(&probe) {
        // What remains would be an empty file.
        Ok(_) => std::fs::remove_file(&probe).or_else(|error| refused(&error)),
        Err(error) => refused(&error),
    }
}

#[cfg(test)]
mod tests;
