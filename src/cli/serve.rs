//! `sluice serve`: load the models, listen, and stop without losing a request.

mod control;
mod hints;
mod lineup;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use sluice_gateway::Gateway;
use sluice_gateway::absent::Absent;
use sluice_gateway::config::{Config, DeploymentConfig};
use sluice_gateway::router::Source;
use sluice_gateway::server::{Server, Stop};
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::control::Plane;
use self::lineup::Lineup;
use super::output;
use super::plan::configuration;
use super::preflight::{Examined, Moment};

/// Serve models, local or in front of other servers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  sluice serve                                       # ./sluice.toml, if there is one\n  sluice serve --config /etc/sluice.toml\n  sluice serve helpdesk=examples/helpdesk/models/v2   # a folder, under a name\n  sluice serve llama=http://10.0.0.5:8000/v1          # in front of another server\n\nSLUICE_LISTEN and SLUICE_DATA win over the file, options over both. SIGTERM drains,\na second one stops at once; SIGHUP reads the file and the API keys again, and opens the access log anew.\nSIGUSR1 only opens the access log anew. What `sluice config check` says of the file is refused."
)]
pub(crate) struct Serve {
    /// Models to serve beside those of the file: NAME=FOLDER, FOLDER, or NAME=URL.
    #[arg(value_name = "MODEL")]
    models: Vec<String>,
    /// Configuration; ./sluice.toml when it exists.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address and port; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Folder for models, the runtime library and state.
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,
}

/// Read when no other file is named.
pub(super) const DEFAULT_FILE: &str = "sluice.toml";

impl Serve {
    pub(crate) async fn run(self) -> Result<()> {
        start_log();
        let _too_large = outlive_file_limit()?;
        let config = self.configuration(Moment::Start)?;
        let stop = Stop::on_signals().context("signal handlers")?;
        // Both from the start: whoever rotates logs does not ask whether models are loaded.
        let hangups = signal(SignalKind::hangup()).context("signal handlers")?;
        let rotations = Rotations::heed().context("signal handlers")?;
        let gateway = Gateway::from_environment(config)?;
        let names = gateway.config().deployments.iter();
        let loading = names
            .map(|it| Absent::loading(&it.name, it.audience()))
            .collect();
        gateway.expect(Source::File, loading);
        // Bound before anything is loaded: a taken port should not cost a minute.
        let server = Server::bind(Arc::clone(&gateway)).await?;
        let mut plane = Plane::start(&gateway, &stop)?;
        let base = format!("{}://{}", server.scheme(), server.address());
        output::note(format!("Listening on {base}"));
        let serving = tokio::spawn(server.run(stop.clone()));
        tokio::spawn(rotations.follow(Arc::clone(&gateway)));
        let mut lineup = Lineup::new(Arc::clone(&gateway));
        let loading = async {
            lineup.change(gateway.config()).await?;
            gateway.expect(Source::File, Vec::new());
            if let Some(plane) = &plane {
                plane.restore().await;
            }
            anyhow::Ok(())
        };
        tokio::select! {
            loaded = loading => loaded?,
            // Stopping while models load must not wait for them.
            () = stop.clone().wait() => std::process::exit(0),
        }
        gateway.set_ready(true);
        if let Some(plane) = &mut plane {
            plane.follow();
        }
        output::note(format!("Ready on {base}"));
        if let Some(hints) =
            hints::things_to_try(&base, &gateway.routes(), gateway.config().auth.required)
        {
            output::note(hints);
        }
        if gateway.routes().deployments().is_empty() {
            output::note(format!(
                "No model is served yet: name one in the configuration, or deploy one ({base}/api/v1/docs)"
            ));
        }
        tokio::spawn(lineup.follow(hangups, move || self.configuration(Moment::Reload)));
        let drained = serving.await.context("the server's task")?;
        gateway.observer().finish();
        if let Some(plane) = plane {
            plane.close().await;
        }
        if drained.cut_off > 0 {
            output::note(format!(
                "Stopped; {} connections had to be cut off",
                drained.cut_off
            ));
        }
        Ok(())
    }

    /// `[server] threads`, which has to be known before there is a runtime. What is wrong is said later.
    pub(super) fn threads(&self) -> usize {
        let config = configuration(self.config.as_deref());
        config.map_or(0, |config| config.server.threads)
    }

    /// What is served; `sluice config check` looks at a file in the same way.
    fn configuration(&self, moment: Moment) -> Result<Config> {
        let examined = Examined::of(self.config.as_deref(), moment, |config| {
            if let Some(listen) = self.listen {
                config.listen = listen;
            }
            if let Some(data) = &self.data {
                config.data.clone_from(data);
            }
            for model in &self.models {
                config.deployments.push(deployment_of(model)?);
            }
            Ok(())
        });
        examined?.right()
    }
}

/// `NAME=FOLDER`, `FOLDER`, or `NAME=URL`.
fn deployment_of(argument: &str) -> Result<DeploymentConfig> {
    let is_url = |text: &str| text.starts_with("http://") || text.starts_with("https://");
    let named = argument.split_once('=').filter(|(name, _)| !is_url(name));
    let (name, source) = match named {
        Some((name, source)) => (name.to_owned(), source),
        None if is_url(argument) => bail!("`{argument}` needs a name: write NAME={argument}"),
        None => {
            let name = Path::new(argument)
                .file_stem()
                .and_then(|name| name.to_str());
            let name = name.with_context(|| format!("`{argument}` is no folder"))?;
            (name.to_owned(), argument)
        }
    };
    Ok(if is_url(source) {
        DeploymentConfig::of_upstream(name, source)
    } else {
        DeploymentConfig::of_folder(name, source)
    })
}

/// The signals by which those who rotate logs say that files were moved away.
pub(super) struct Rotations {
    hangup: Signal,
    /// As nginx and others have it: without a handler it would end the process.
    user: Signal,
    /// Means nothing here, and ends nothing either.
    _other: Signal,
}

impl Rotations {
    /// From now on they end nothing.
    pub(super) fn heed() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user: signal(SignalKind::user_defined1())?,
            _other: signal(SignalKind::user_defined2())?,
        })
    }

    async fn follow(mut self, gateway: Arc<Gateway>) {
        loop {
            let heard = tokio::select! {
                heard = self.hangup.recv() => heard,
                heard = self.user.recv() => heard,
            };
            if heard.is_none() {
                return;
            }
            gateway.observer().reopen_log();
        }
    }
}

/// The number that Linux gives to the signal of a write beyond the limit on the size of files.
const SIGXFSZ: i32 = 25;

/// A write beyond the limit on the size of files (`ulimit -f`, `LimitFSIZE=`) is an error like a full disk, and not the end
/// of the process, as long as the result is held.
pub(super) fn outlive_file_limit() -> Result<Signal> {
    signal(SignalKind::from_raw(SIGXFSZ)).context("signal handlers")
}

/// Events of the process on standard error; the access log has its own way.
/// `RUST_LOG` says how much.
pub(super) fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only where a subscriber is set already, which then serves as well.
    _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // Where nobody reads the log any more, saying so there would panic whoever logs.
        .log_internal_errors(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn models_are_named_or_named_after_their_folder() {
        let named = deployment_of("a=models/b").unwrap();
        assert_eq!(
            (&*named.name, named.path),
            ("a", Some(PathBuf::from("models/b")))
        );
        assert_eq!(deployment_of("models/b").unwrap().name, "b");
        let remote = deployment_of("a=http://h:1/v1?x=y").unwrap();
        assert_eq!(remote.upstream, ["http://h:1/v1?x=y"]);
        assert!(deployment_of("http://h:1/v1").is_err());
    }
}
