//! How long after a rollback the last new request reaches the candidate, over real HTTP
//! and under load: `cargo bench -p sluice-gateway --bench rollback`. A request counts when
//! it arrives at the candidate's upstream, so the way there is part of it.

#![expect(clippy::print_stdout, reason = "the numbers are what it is for")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sluice_gateway::config::Config;
use sluice_gateway::remote::RemotePool;
use sluice_gateway::router::split::{Split, SplitConfig, Weight};
use sluice_gateway::router::{Deployment, Release, Source, Standing, Target, load};
use sluice_gateway::server::{Server, StopHandle};
use sluice_gateway::{BoxError, Gateway};

const ROLLBACKS: usize = 500;
const CLIENTS: usize = 16;
/// Traffic before and after each rollback.
const PAUSE: Duration = Duration::from_millis(10);
const ANSWER: &str = r#"{"choices":[{"index":0,"message":{"content":"Hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;

fn main() -> Result<(), BoxError> {
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<(), BoxError> {
    let start = Instant::now();
    let last = Arc::new(AtomicU64::new(0));
    let mut config = Config::default();
    config.listen.set_port(0);
    let gateway = Gateway::new(config)?;
    let stable = revision(&gateway, "v1", upstream(start, Arc::default()).await?).await?;
    let candidate = revision(&gateway, "v2", upstream(start, Arc::clone(&last)).await?).await?;
    let split = Split::new(SplitConfig {
        weight: Weight::percent(50.0)?,
        ..SplitConfig::default()
    });
    let release = Arc::new(Release::new(
        "release",
        Arc::clone(&stable),
        candidate,
        split,
    )?);
    gateway.publish_from(Source::Control, vec![Arc::clone(&stable)])?;
    let server = Server::bind(Arc::clone(&gateway)).await?;
    let address = server.address();
    let (_stop, stop) = StopHandle::new();
    tokio::spawn(server.run(stop));
    let (asked, failed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let done = Arc::<AtomicBool>::default();
    for _ in 0..CLIENTS {
        tokio::spawn(client(
            address,
            Arc::clone(&done),
            Arc::clone(&asked),
            Arc::clone(&failed),
        ));
    }
    let mut delays = Vec::with_capacity(ROLLBACKS);
    for _ in 0..ROLLBACKS {
        gateway.publish_from(Source::Control, vec![Arc::clone(&release)])?;
        tokio::time::sleep(PAUSE).await;
        let decided = start.elapsed();
        gateway.publish_from(Source::Control, vec![Arc::clone(&stable)])?;
        tokio::time::sleep(PAUSE).await;
        let last = Duration::from_nanos(last.load(Relaxed));
        delays.push(last.saturating_sub(decided));
    }
    done.store(true, Relaxed);
    delays.sort_unstable();
    let at = |percent: usize| delays[(ROLLBACKS * percent / 100).min(ROLLBACKS - 1)];
    let rate = asked.load(Relaxed) as f64 / start.elapsed().as_secs_f64();
    println!(
        "{ROLLBACKS} rollbacks at {rate:.0} requests/s, {} of them failed",
        failed.load(Relaxed)
    );
    println!(
        "last new request on the candidate after: P50 {:?}, P99 {:?}, most {:?}",
        at(50),
        at(99),
        at(100)
    );
    Ok(())
}

async fn revision(
    gateway: &Gateway,
    revision: &str,
    upstream: SocketAddr,
) -> Result<Arc<Deployment>, BoxError> {
    let urls = [format!("http://{upstream}/v1")];
    let pool = RemotePool::new(&urls, None, None, &gateway.config().upstream).await?;
    let target = Target::Remote(pool);
    Ok(load::make(
        gateway,
        "m",
        revision,
        target,
        Standing::default(),
    ))
}

/// Notes when the last request came, nanoseconds after `start`.
async fn upstream(start: Instant, last: Arc<AtomicU64>) -> Result<SocketAddr, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let last = Arc::clone(&last);
            let service = service_fn(move |request: Request<Incoming>| {
                let now = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
                last.fetch_max(now, Relaxed);
                async move {
                    request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from_static(
                        ANSWER.as_bytes(),
                    ))))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(socket), service);
            tokio::spawn(connection);
        }
    });
    Ok(address)
}

async fn client(
    address: SocketAddr,
    done: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
) -> Result<(), BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    while !done.load(Relaxed) {
        let body = Bytes::from_static(br#"{"model":"m","messages":[]}"#);
        let request = Request::post(format!("http://{address}/v1/chat/completions"))
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answered = match client.request(request).await {
            Ok(answer) => {
                let ok = answer.status().is_success();
                ok && answer.into_body().collect().await.is_ok()
            }
            Err(_) => false,
        };
        asked.fetch_add(1, Relaxed);
        failed.fetch_add(usize::from(!answered), Relaxed);
    }
    Ok(())
}
