//! `[control.allow]`: what records may name of this machine and its network.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::check::is_variable;
use super::gpu::TensorRtConfig;
use super::{DeploymentConfig, Problems};
use crate::remote::reach::Reach;

/// Names that may stand in records, which people without access to this machine write. What `sluice.toml` itself
/// names is free. Nothing is allowed by default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AllowConfig {
    /// Environment variables that a record may name as the key of its upstreams.
    pub env: Vec<String>,
    /// Where upstreams of records may be: `https://host:port`, `host`, `*.domain`, an address, a network, `public`.
    pub upstreams: Vec<String>,
    /// Folders that a record may name, with all that is in them.
    pub paths: Vec<PathBuf>,
}

/// What a record names and may not: the field below `engine_options`, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct NotAllowed {
    /// The field of the deployment.
    pub field: &'static str,
    /// What is wrong, what is allowed, and who can allow it.
    pub problem: String,
}

impl AllowConfig {
    /// The places that upstreams of records may be at.
    #[must_use]
    pub fn reach(&self) -> Reach {
        // Checked when the configuration was read; a list that is none allows nothing.
        Reach::parse(&self.upstreams).unwrap_or_default()
    }

    /// Whether a record may ask for this.
    ///
    /// # Errors
    /// The first field that it may not set so.
    pub fn check(&self, asked: &DeploymentConfig) -> Result<(), NotAllowed> {
        // Every field, so that a new one cannot be forgotten here.
        let DeploymentConfig {
            name: _,
            department: _,
            clearance: _,
            path: _,
            upstream,
            model: _,
            keep_model_name: _,
            api_key_env,
            revision: _,
            slots: _,
            context: _,
            memory: _,
            threads: _,
            max_waiting: _,
            prefill_chunk: _,
            provider: _,
            devices: _,
            cuda: _,
            tensorrt,
        } = asked;
        let refused = |field, problem| Err(NotAllowed { field, problem });
        let reach = self.reach();
        for url in upstream {
            if let Err(problem) = reach.check(url) {
                return refused("upstream", problem);
            }
        }
        if let Some(name) = api_key_env
            && !self.env.contains(name)
        {
            return refused("api_key_env", self.no_variable(name));
        }
        let cache = tensorrt
            .as_ref()
            .and_then(|TensorRtConfig { cache, .. }| cache.as_deref());
        match cache {
            Some(path) if !self.allows_path(path) => refused("tensorrt.cache", self.no_path(path)),
            _ => Ok(()),
        }
    }

    fn no_variable(&self, name: &str) -> String {
        format!(
            "\"{name}\" is not among the environment variables that records may name ({})",
            listed("env", &self.env)
        )
    }

    fn no_path(&self, path: &Path) -> String {
        let paths: Vec<String> = self
            .paths
            .iter()
            .map(|it| it.display().to_string())
            .collect();
        format!(
            "\"{}\" is not below a folder that records may name ({}); without it, the server's own folder is used",
            path.display(),
            listed("paths", &paths)
        )
    }

    /// Below an allowed folder, also after its links were followed.
    fn allows_path(&self, path: &Path) -> bool {
        let plain = path.is_absolute()
            && path
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
        let real = real(path);
        plain
            && self
                .paths
                .iter()
                .any(|allowed| path.starts_with(allowed) && real.starts_with(self::real(allowed)))
    }

    /// What is wrong with the lists themselves.
    pub(super) fn check_lists(&self, problems: &mut Problems) {
        if let Err((number, problem)) = Reach::parse(&self.upstreams) {
            problems.add(format!("control.allow.upstreams.{number}"), problem);
        }
        for (number, name) in self.env.iter().enumerate() {
            if !is_variable(name) {
                let right = "must be the name of an environment variable";
                problems.add(format!("control.allow.env.{number}"), right);
            }
        }
        for (number, path) in self.paths.iter().enumerate() {
            if !path.is_absolute() {
                let right = "must be an absolute path";
                problems.add(format!("control.allow.paths.{number}"), right);
            }
        }
    }
}

fn listed(key: &str, names: &[String]) -> String {
    match names {
        [] => format!(
            "control.allow.{key} of sluice.toml lists none; whoever runs this server can add it there"
        ),
        some => format!(
            "control.allow.{key} of sluice.toml lists {}; whoever runs this server can add to it",
            some.join(", ")
        ),
    }
}

/// The path with the links of what exists of it followed.
fn real(path: &Path) -> PathBuf {
    for folder in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (folder.canonicalize(), path.strip_prefix(folder)) {
            return real.join(rest);
        }
    }
    path.to_path_buf()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    fn options(text: &str) -> DeploymentConfig {
        toml::from_str(&format!("name = \"m\"\n{text}")).unwrap()
    }

    #[test]
    fn nothing_that_leads_out_of_the_process_is_allowed_by_default() {
        let none = AllowConfig::default();
        for (text, field) in [
            ("upstream = \"https://api.example.com/v1\"", "upstream"),
            ("api_key_env = \"HOME\"", "api_key_env"),
            (
                "provider = \"tensorrt\"\ntensorrt = { cache = \"/etc/cron.d\" }",
                "tensorrt.cache",
            ),
        ] {
            let refused = none.check(&options(text)).unwrap_err();
            assert_eq!(refused.field, field);
            assert!(refused.problem.contains("control.allow."), "{refused}");
        }
        assert_eq!(none.check(&options("slots = 2\nthreads = 1")), Ok(()));
    }

    #[test]
    fn only_what_is_listed_is_allowed() {
        let some = AllowConfig {
            env: vec!["UPSTREAM_KEY".into()],
            upstreams: vec!["https://api.example.com".into()],
            paths: vec!["/var/lib/engines".into()],
        };
        let cache = |path| options(&format!("tensorrt = {{ cache = \"{path}\" }}"));
        let known = "upstream = \"https://api.example.com/v1\"\napi_key_env = \"UPSTREAM_KEY\"";
        assert_eq!(some.check(&options(known)), Ok(()));
        assert_eq!(some.check(&cache("/var/lib/engines/a")), Ok(()));
        for path in [
            "/var/lib/engines/../../../etc",
            "/var/lib/engines2",
            "engines",
            "/var/lib",
        ] {
            assert!(some.check(&cache(path)).is_err(), "{path}");
        }
        assert!(
            some.check(&options("api_key_env = \"UPSTREAM_KEY2\""))
                .is_err()
        );
    }

    #[test]
    fn a_link_out_of_an_allowed_folder_leads_nowhere() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink("/etc", inside.join("link")).unwrap();
        let some = AllowConfig {
            paths: vec![inside.clone()],
            ..AllowConfig::default()
        };
        let cache = |path: PathBuf| options(&format!("tensorrt = {{ cache = {path:?} }}"));
        assert!(some.check(&cache(inside.join("link/cron.d"))).is_err());
        assert_eq!(some.check(&cache(inside.join("new/engines"))), Ok(()));
    }

    #[test]
    fn a_list_that_says_nothing_is_named() {
        let some = AllowConfig {
            upstreams: vec!["a.example.com".into(), "http://b/path".into()],
            ..AllowConfig::default()
        };
        let mut problems = Problems::default();
        some.check_lists(&mut problems);
        assert_eq!(problems.into_inner()[0].field, "control.allow.upstreams.1");
    }
}
