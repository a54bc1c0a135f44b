//! `sluice model-host`: the child that holds a model which nobody has approved. Started by `sluice serve`, never by hand.
//!
//! It gives up what it does not need before it reads a byte of the model, and before there is a second thread: threads
//! that are there already would keep what they have.

mod confine;

use std::io::{BufRead as _, Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Signal, getpid, kill_process};
use sluice_control::sandbox::host::{Order, REQUEST_TOO_LONG, Said};
use sluice_control::sandbox::render;
use sluice_gateway::Gateway;
use sluice_gateway::config::Config;
use sluice_gateway::host::{self, InHand};
use sluice_gateway::router::{RouteTable, Standing, load};

pub(super) use confine::available;

/// Hold one model for the process that started this one.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelHost {}

/// Between two looks at how long requests take.
const LOOK: Duration = Duration::from_millis(100);

impl ModelHost {
    /// Holds what standard input says until that ends.
    pub(crate) fn run(self) -> ExitCode {
        let said = match hold() {
            // Serving ends with the process only.
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => Said::NotLoaded {
                why: super::in_full(&error),
            },
        };
        match say(&said) {
            Ok(()) => ExitCode::FAILURE,
            Err(_) => ExitCode::from(2),
        }
    }
}

fn hold() -> Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("the order")?;
    let listener = UnixListener::bind(&order.socket).context("the socket")?;
    listener.set_nonblocking(true)?;
    let isolation = confine::confine(&order)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(end_with_the_parent);
    runtime.block_on(serve(order, listener, isolation))
}

async fn serve(order: Order, listener: UnixListener, isolation: String) -> Result<()> {
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let in_hand = Arc::new(InHand::default());
    let (watched, limit) = (
        Arc::clone(&in_hand),
        Duration::from_millis(order.request_ms),
    );
    std::thread::spawn(move || end_when_one_takes_longer(&watched, limit));
    let Some(model) = order.config else {
        let digest = "prompts".to_owned();
        say(&Said::Loaded { digest, isolation })?;
        host::accept(listener, in_hand, render::answer).await;
        return Ok(());
    };
    let mut config = Config {
        data: order.data,
        devices: order.devices,
        grammar: order.grammar,
        templates: order.templates,
        ..Config::default()
    };
    config.control.enabled = false;
    let gateway = Gateway::new(config)?;
    let deployment = load::deployment_as(&gateway, &model, Standing::default()).await?;
    let digest = deployment.revision.to_string();
    gateway.publish(RouteTable::new(vec![deployment])?);
    gateway.set_ready(true);
    say(&Said::Loaded { digest, isolation })?;
    host::serve(gateway, listener, in_hand).await;
    Ok(())
}

/// One line, for the process that asked.
fn say(said: &Said) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    out.flush()
}

/// Standard input ends with whoever wants this process.
fn end_with_the_parent() {
    let mut byte = [0];
    while std::io::stdin()
        .lock()
        .read(&mut byte)
        .is_ok_and(|read| read > 0)
    {}
    end();
}

/// By a thread of its own: those of the runtime may all be busy with such requests.
fn end_when_one_takes_longer(in_hand: &InHand, limit: Duration) {
    loop {
        std::thread::sleep(LOOK.min(limit));
        if in_hand
            .oldest()
            .is_some_and(|began| began.elapsed() > limit)
        {
            let words = format!(
                "took longer than {} s for one request {REQUEST_TOO_LONG}\n",
                limit.as_secs_f64()
            );
            // Where nobody reads them, nobody misses them.
            _ = std::io::stderr().lock().write_all(words.as_bytes());
            end();
        }
    }
}

/// At once: what the libraries would do at an exit may wait for what hangs.
fn end() {
    _ = kill_process(getpid(), Signal::KILL);
}
