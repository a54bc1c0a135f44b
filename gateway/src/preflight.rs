//! What a configuration needs of this machine before it can be served: files that it names, variables, keys, GPUs. The
//! same function stands before `sluice serve` and behind `sluice config check`, so that both say the same.
//!
//! Nothing is made, changed or connected to.

use crate::auth::{Keys, KeysError};
use crate::config::{Config, DeploymentConfig, Problem, Problems, ProviderConfig};
use crate::gateway::{key_entries, rate_limits};
use crate::remote::client_tls;
use crate::replicas::{Devices, Driver};
use crate::router::load;
use crate::server;

/// All that keeps a configuration, whose values are right by themselves, from being served here. `variable` reads the
/// environment.
#[must_use]
pub fn preflight(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Vec<Problem> {
    let mut problems = Problems::default();
    if !server::is_loopback(config.listen) && !config.auth.required {
        problems.add(
            "listen",
            format!(
                "is {}, which others can reach, without authentication: set auth.required = true and give keys \
                 (auth.keys_file or SLUICE_API_KEYS), or listen on 127.0.0.1",
                config.listen
            ),
        );
    }
    check_keys(config, &variable, &mut problems);
    for (field, problem) in server::tls_problems(&config.server) {
        problems.add(
            format!("server.{field}"),
            format!("cannot be used: {problem}"),
        );
    }
    if let Err(error) = client_tls(config.upstream.ca_file.as_deref()) {
        problems.add("upstream.ca_file", format!("cannot be used: {error}"));
    }
    for (index, deployment) in config.deployments.iter().enumerate() {
        let found = match deployment.path {
            Some(_) => local(config, deployment),
            None => remote(deployment, &variable),
        };
        for (field, message) in found {
            let message = format!("of `{}` {message}", deployment.name);
            problems.add(format!("deployment.{index}.{field}"), message);
        }
    }
    problems.into_inner()
}

fn check_keys(
    config: &Config,
    variable: &impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    let given = variable("SLUICE_API_KEYS");
    let entries = match key_entries(&config.auth, given.as_deref()) {
        Ok(entries) => entries,
        Err(error @ KeysError::Environment(_)) => {
            // Its text begins with the name of the variable.
            return problems.add("SLUICE_API_KEYS", error.to_string());
        }
        Err(error) => {
            return problems.add("auth.keys_file", format!("cannot be used: {error}"));
        }
    };
    let none = entries.is_empty();
    if let Err(error) = Keys::new(entries, rate_limits(&config.limits)) {
        problems.add("auth.keys_file", format!("cannot be used: {error}"));
    }
    if config.auth.required && none {
        problems.add(
            "auth.required",
            "is on, but there is no key: name a file in auth.keys_file, or set SLUICE_API_KEYS=\"name:key\"",
        );
    }
}

type Found = Vec<(&'static str, String)>;

fn remote(deployment: &DeploymentConfig, variable: &impl Fn(&str) -> Option<String>) -> Found {
    let mut found = Found::new();
    if let Some(name) = &deployment.api_key_env {
        match variable(name) {
            None => found.push((
                "api_key_env",
                format!("names the environment variable {name}, which is not set"),
            )),
            // The key itself is not repeated.
            Some(key) if http::HeaderValue::try_from(format!("Bearer {key}")).is_err() => {
                let message =
                    format!("names {name}, which holds characters that no header may carry");
                found.push(("api_key_env", message));
            }
            Some(_) => {}
        }
    }
    let only = "is for `path` only: the upstream decides it";
    for (field, set) in [
        ("slots", deployment.slots.is_some()),
        ("context", deployment.context.is_some()),
        ("memory", deployment.memory.is_some()),
        ("threads", deployment.threads.is_some()),
        ("max_waiting", deployment.max_waiting.is_some()),
        ("prefill_chunk", deployment.prefill_chunk.is_some()),
        ("provider", deployment.provider != ProviderConfig::Cpu),
    ] {
        if set {
            found.push((field, only.to_owned()));
        }
    }
    found
}

fn local(config: &Config, deployment: &DeploymentConfig) -> Found {
    let mut found = Found::new();
    let devices = Devices::new(Box::new(Driver), config.devices.clone());
    for gpu in deployment.places().into_iter().flatten() {
        let field = match deployment.devices.is_empty() {
            true => "provider",
            false => "devices",
        };
        if let Err(why) = devices.limit(gpu) {
            let error = load::no_gpu(deployment.provider, &why);
            found.push((field, format!("asks for what is not here: {error}")));
        }
    }
    if let Err((field, error)) = load::check(deployment, &config.data) {
        found.push((field, format!("cannot be used: {error}")));
    }
    found
}

#[cfg(test)]
mod tests;
