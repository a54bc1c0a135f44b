//! What types cannot check of a configuration: ranges, pairs that contradict each other, names used twice. All that is
//! wrong is found at once. What depends on the machine is for [`preflight`](crate::preflight).

use std::time::Duration;

use super::problem::Below;
use super::{
    Config, DeploymentConfig, MemoryLimit, Problem, Problems, ReleasesConfig, gpu, replicas,
};
use crate::remote::pool::MAX_UPSTREAMS;

/// Pairs of one release at most: all of them are looked at when one is added.
const MAX_PAIRS: usize = 10_000;
/// Places and permits at most: beyond it no machine has the memory.
const MOST: usize = 1 << 24;
const AT_LEAST_1: &str = "must be at least 1";
const LONGER: &str = "must be longer than zero";

impl Config {
    /// All that is wrong with it, in the order of the file.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        self.check_server(&mut problems);
        self.check_limits(&mut problems);
        self.check_upstreams(&mut problems);
        problems.expect(
            self.devices.memory != MemoryLimit::Bytes(0),
            "devices.memory",
            "must be at least 1, or a share from 1% to 100%",
        );
        self.grammar.check(&mut problems);
        self.templates.check(&mut problems);
        self.replicas.check(&mut problems);
        self.check_metrics(&mut problems);
        self.check_release(&mut problems);
        self.sandbox.check(&mut problems);
        self.check_control(&mut problems);
        for (index, deployment) in self.deployments.iter().enumerate() {
            let mut here = Below {
                problems: &mut problems,
                above: format!("deployment.{index}"),
            };
            check_deployment(deployment, &mut here);
            let earlier = &self.deployments[..index];
            if earlier.iter().any(|other| other.name == deployment.name) {
                here.add(
                    "name",
                    format!(
                        "`{}` is taken by an earlier deployment; names must be unique",
                        deployment.name
                    ),
                );
            }
        }
        problems.into_inner()
    }

    /// The first of [`problems`](Self::problems): the field's path and what would be right.
    ///
    /// # Errors
    /// There is one.
    pub fn validate(&self) -> Result<(), (String, String)> {
        match self.problems().into_iter().next() {
            Some(Problem { field, message }) => Err((field, message)),
            None => Ok(()),
        }
    }

    fn check_limits(&self, problems: &mut Problems) {
        let limits = &self.limits;
        places(
            problems,
            &[
                ("limits.max_in_flight", limits.max_in_flight),
                ("limits.max_control_in_flight", limits.max_control_in_flight),
                ("limits.max_bodies_per_key", limits.max_bodies_per_key),
            ],
        );
        problems.expect(limits.max_tokenize > 0, "limits.max_tokenize", AT_LEAST_1);
        times(
            problems,
            &[
                ("limits.default_deadline", limits.default_deadline),
                ("limits.max_deadline", limits.max_deadline),
            ],
        );
        problems.expect(
            limits.default_deadline <= limits.max_deadline,
            "limits.default_deadline",
            "must not exceed `limits.max_deadline`",
        );
    }

    fn check_upstreams(&self, problems: &mut Problems) {
        let upstream = &self.upstream;
        times(
            problems,
            &[
                ("upstream.connect_timeout", upstream.connect_timeout),
                ("upstream.first_byte_timeout", upstream.first_byte_timeout),
                ("upstream.idle_timeout", upstream.idle_timeout),
                ("upstream.resolve_every", upstream.resolve_every),
                ("upstream.eject_for", upstream.eject_for),
                ("upstream.eject_for_max", upstream.eject_for_max),
            ],
        );
        for (field, share) in [
            ("upstream.retry_budget", upstream.retry_budget),
            ("upstream.max_ejected", upstream.max_ejected),
        ] {
            let right = (0.0..=1.0).contains(&share);
            problems.expect(right, field, "must lie between 0 and 1");
        }
        problems.expect(
            upstream.eject_for_max.is_zero() || upstream.eject_for <= upstream.eject_for_max,
            "upstream.eject_for",
            "must not exceed `upstream.eject_for_max`",
        );
        problems.expect(upstream.max_held > 0, "upstream.max_held", AT_LEAST_1);
        upstream.check_pass_headers(problems);
    }

    fn check_metrics(&self, problems: &mut Problems) {
        for (field, bounds) in [
            ("metrics.buckets", &self.metrics.buckets),
            ("metrics.token_buckets", &self.metrics.token_buckets),
        ] {
            let ascending = bounds.windows(2).all(|pair| pair[0] < pair[1]);
            let positive = bounds.iter().all(|it| it.is_finite() && *it > 0.0);
            problems.expect(
                !bounds.is_empty() && ascending && positive,
                field,
                "must be positive numbers in ascending order",
            );
        }
        problems.expect(
            self.metrics.native_schema <= 8,
            "metrics.native_schema",
            "must lie between 0 and 8",
        );
        places(problems, &[("log.buffer", self.log.buffer)]);
    }

    fn check_release(&self, problems: &mut Problems) {
        let release = &self.release;
        for (field, count) in [
            ("release.shadow_concurrency", release.shadow_concurrency),
            ("release.shadow_waiting", release.shadow_waiting),
        ] {
            problems.expect(count <= MOST, field, &too_many());
        }
        if release.shadow_concurrency > 0 {
            let none = "must be at least 1; `release.shadow_concurrency = 0` copies none";
            problems.expect(release.shadow_max_body > 0, "release.shadow_max_body", none);
            times(
                problems,
                &[("release.shadow_timeout", release.shadow_timeout)],
            );
        }
        problems.expect(release.max_answer > 0, "release.max_answer", AT_LEAST_1);
    }

    fn check_control(&self, problems: &mut Problems) {
        let control = &self.control;
        problems.expect(control.connections > 0, "control.connections", AT_LEAST_1);
        problems.expect(control.max_body > 0, "control.max_body", AT_LEAST_1);
        times(
            problems,
            &[
                ("control.idempotency_keep", control.idempotency_keep),
                ("control.idempotency_lease", control.idempotency_lease),
            ],
        );
        problems.expect(
            control.idempotency_lease <= control.idempotency_keep,
            "control.idempotency_lease",
            "must not exceed `control.idempotency_keep`",
        );
        for (field, memory) in [
            ("control.memory", control.memory),
            ("control.tasks.memory", control.tasks.memory),
        ] {
            let right = "must be at least 1; leave it out for the default";
            problems.expect(memory != Some(0), field, right);
        }
        problems.expect(
            control.tasks.slots <= 1024,
            "control.tasks.slots",
            "must be at most 1024",
        );
        check_releases(&control.releases, problems);
        control.allow.check_lists(problems);
    }
}

/// Counts that a queue or a lock is made of.
pub(super) fn places(problems: &mut Problems, counts: &[(&str, usize)]) {
    for (field, count) in counts {
        problems.expect(*count > 0, field, AT_LEAST_1);
        problems.expect(*count <= MOST, field, &too_many());
    }
}

fn too_many() -> String {
    format!("must be at most {MOST}")
}

/// Times in which something is to happen.
pub(super) fn times(problems: &mut Problems, times: &[(&str, Duration)]) {
    for (field, time) in times {
        problems.expect(!time.is_zero(), field, LONGER);
    }
}

/// The names of events are the control plane's.
fn check_releases(releases: &ReleasesConfig, problems: &mut Problems) {
    if releases.pairs > MAX_PAIRS {
        let message = format!("must be at most {MAX_PAIRS}; 0 keeps none");
        problems.add("control.releases.pairs", message);
    }
    if releases.pairs > 0 {
        let right = "must be longer than zero; `control.releases.pairs = 0` keeps none";
        let keeps = !releases.pairs_keep.is_zero();
        problems.expect(keeps, "control.releases.pairs_keep", right);
    }
    for (index, hook) in releases.webhooks.iter().enumerate() {
        let mut here = Below {
            problems,
            above: format!("control.releases.webhooks.{index}"),
        };
        let uri = hook.url.parse::<http::Uri>().ok();
        let authority = uri.as_ref().and_then(|uri| {
            let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
            uri.authority()
                .filter(|it| is_http && !it.host().is_empty())
        });
        // The URL itself may hold a secret, and this message goes into logs.
        match authority {
            None => here.add("url", "must look like https://host/path"),
            Some(authority) if authority.as_str().contains('@') => here.add(
                "url",
                "must not hold a user or password: the signature tells who sends",
            ),
            Some(_) => {}
        }
        let earlier = &releases.webhooks[..index];
        if earlier.iter().any(|other| other.url == hook.url) {
            let message = "is that of an earlier webhook; name all events in one";
            here.add("url", message);
        }
        match (&hook.secret_file, &hook.secret_env) {
            (Some(_), Some(_)) => here.add("secret_env", "and `secret_file` exclude each other"),
            (None, None) => here.add(
                "secret_file",
                "or `secret_env` must be given: events are signed",
            ),
            (None, Some(name)) => here.expect(is_variable(name), "secret_env", VARIABLE),
            (Some(_), None) => {}
        }
    }
}

const VARIABLE: &str = "must be the name of an environment variable";

/// Whether the environment can hold a variable of this name.
pub(super) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

fn check_deployment(deployment: &DeploymentConfig, here: &mut Below<'_>) {
    let name = &deployment.name;
    if name.is_empty() || name.len() > 256 {
        here.add("name", "must have 1 to 256 characters");
    }
    let plain = !name.chars().any(char::is_control);
    here.expect(plain, "name", "must hold no control characters");
    match (&deployment.path, deployment.upstream.is_empty()) {
        (Some(_), false) => here.add("upstream", "and `path` exclude each other"),
        (None, true) => here.add("path", "or `upstream` must be given"),
        (None, false) => check_urls(&deployment.upstream, here),
        (Some(_), true) => {
            let only = "is for `upstream` only";
            here.expect(deployment.model.is_none(), "model", only);
            here.expect(!deployment.keep_model_name, "keep_model_name", only);
            here.expect(deployment.api_key_env.is_none(), "api_key_env", only);
        }
    }
    let variable = deployment.api_key_env.as_deref().is_none_or(is_variable);
    here.expect(variable, "api_key_env", VARIABLE);
    for (field, text) in [
        ("department", &deployment.department),
        ("model", &deployment.model),
    ] {
        let empty = text.as_ref().is_some_and(String::is_empty);
        here.expect(!empty, field, "must not be empty; leave it out instead");
    }
    if let Some(revision) = &deployment.revision {
        let fits = !revision.is_empty() && http::HeaderValue::from_str(revision).is_ok();
        let right = "must be a text that a header may carry: printable characters, at least one";
        here.expect(fits, "revision", right);
    }
    gpu::check(deployment, here);
    replicas::check_devices(deployment, here);
    for (field, zero) in [
        ("slots", deployment.slots == Some(0)),
        ("context", deployment.context == Some(0)),
        ("memory", deployment.memory == Some(0)),
        ("threads", deployment.threads == Some(0)),
        ("max_waiting", deployment.max_waiting == Some(0)),
        ("prefill_chunk", deployment.prefill_chunk == Some(0)),
    ] {
        here.expect(!zero, field, AT_LEAST_1);
    }
}

fn check_urls(urls: &[String], here: &mut Below<'_>) {
    if urls.len() > MAX_UPSTREAMS {
        here.add("upstream", format!("holds at most {MAX_UPSTREAMS} URLs"));
    }
    for url in urls {
        let uri: http::Uri = match url.parse() {
            Ok(uri) => uri,
            Err(error) => {
                here.add("upstream", format!("`{url}` is no URL: {error}"));
                continue;
            }
        };
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.host().is_none_or(str::is_empty) {
            let message = format!("`{url}` must look like http://host:port/v1");
            here.add("upstream", message);
        }
        if uri.query().is_some() {
            here.add("upstream", format!("`{url}` must not have a query"));
        }
    }
    let twice = urls
        .iter()
        .enumerate()
        .find(|(place, url)| urls[..*place].contains(url));
    if let Some((_, url)) = twice {
        here.add("upstream", format!("names `{url}` twice"));
    }
}
