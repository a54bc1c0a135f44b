//! Layer 2: sees every answer to its last byte, then accounts for it.

use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Frame, SizeHint};
use serde::Serialize;

use super::around::{Inner, Middleware};
use super::rescue;
use crate::context::Fault;
use crate::endpoint::Access;
use crate::error::problem;
use crate::metrics::Completed;
use crate::metrics::observer::{Record, Style};
use crate::server::InFlight;
use crate::validate::Defect;
use crate::{Body, BoxError, Gateway, RequestBody, RequestContext};

#[derive(Clone, Copy)]
pub(super) struct AccessLog;

impl Middleware for AccessLog {
    async fn handle<S: Inner>(
        gateway: Arc<Gateway>,
        mut request: Request<RequestBody>,
        rest: S,
    ) -> Response<Body> {
        let Some(context) = request.extensions().get::<RequestContext>().cloned() else {
            return rest.run(request).await;
        };
        let mut account = Account {
            gateway,
            context,
            method: request.method().clone(),
            status: None,
            bytes: 0,
            complete: false,
            connection: request.extensions_mut().remove::<InFlight>(),
        };
        let response = rest.run(request).await;
        let response = problem::in_form_of(account.context.endpoint(), response);
        account.status = Some(response.status().as_u16());
        response.map(|body| {
            account.complete = body.is_end_stream();
            Observed { body, account }.boxed_unsync()
        })
    }
}

/// Accounts for a request when it is dropped, however it ended.
struct Account {
    gateway: Arc<Gateway>,
    context: RequestContext,
    method: Method,
    /// `None` until there is a response.
    status: Option<u16>,
    bytes: u64,
    /// The body was handed over to its end.
    complete: bool,
    /// Tells the connection that the request is over.
    connection: Option<InFlight>,
}

impl Drop for Account {
    fn drop(&mut self) {
        let outcome = &self.context.outcome;
        let total = self.context.received.elapsed();
        outcome.settle(self.gateway.anonymous(), Instant::now());
        let completed = Completed {
            endpoint: self.context.endpoint(),
            status: self.status.unwrap_or(499),
            total,
            fault: outcome
                .fault()
                .or_else(|| fault(self.status, self.complete)),
        };
        let metrics = self.gateway.metrics();
        let series = outcome
            .deployment()
            .map_or(metrics.unrouted(), |deployment| &deployment.series);
        series.record(&completed, outcome);
        if self.context.endpoint().access != Access::Open {
            self.gateway.observer().push(Record {
                context: self.context.clone(),
                completed,
                method: std::mem::take(&mut self.method),
                bytes: self.bytes,
                ended: SystemTime::now(),
            });
        }
        outcome.release(self.gateway.admission());
        drop(self.connection.take());
    }
}

/// Whose fault an answer is, from what was sent of it.
fn fault(status: Option<u16>, complete: bool) -> Option<Fault> {
    match status {
        Some(500..) => Some(Fault::Server),
        Some(400..) => Some(Fault::Client),
        Some(_) if complete => None,
        _ => Some(Fault::Cancelled),
    }
}

/// A body that is counted, rescued from panics, and accounted for.
struct Observed {
    body: Body,
    account: Account,
}

impl hyper::body::Body for Observed {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled =
            std::panic::catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let frame = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(frame)) => frame,
            Err(panic) => {
                tracing::error!(panic = rescue::message(&*panic), "a response body panicked");
                this.body = crate::full(Bytes::new());
                Some(Err("the server failed while answering".into()))
            }
        };
        match &frame {
            None => this.account.complete = true,
            Some(Ok(frame)) => {
                this.account.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                // A connection that knows the length does not ask for the end.
                this.account.complete = this.body.is_end_stream();
            }
            Some(Err(_)) => this.account.context.outcome.set_fault(Fault::Server),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A line of the log. Times are milliseconds; what is not known is left out.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    method: &'a str,
    route: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<&'a str>,
    /// The candidate that failed before this revision answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    retried_from: Option<&'a str>,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'a str>,
    /// What was wrong with the upstream's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    defect: Option<&'a str>,
    prompt_tokens: usize,
    completion_tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttft_ms: Option<f64>,
    total_ms: f64,
    bytes: u64,
}

/// Appends one line.
pub(crate) fn format(out: &mut Vec<u8>, record: &Record, style: Style) {
    let RequestContext {
        id, outcome, trace, ..
    } = &record.context;
    let principal = outcome.principal();
    let usage = outcome.usage();
    let queue = outcome.timings().queue;
    let time = timestamp(record.ended);
    let line = Line {
        time: &time,
        id,
        trace: trace.as_deref(),
        principal: principal.map(|principal| &*principal.name),
        key: principal.map(|principal| &*principal.key_id),
        method: record.method.as_str(),
        route: record.completed.endpoint.label.as_str(),
        deployment: outcome.deployment().map(|deployment| &*deployment.name),
        revision: outcome.deployment().map(|deployment| &*deployment.revision),
        retried_from: outcome.placement().and_then(|placement| {
            placement.failure()?;
            Some(&*placement.release().candidate().revision)
        }),
        status: record.completed.status,
        fault: record.completed.fault.map(Fault::as_str),
        defect: outcome.defect().map(Defect::as_str),
        prompt_tokens: usage.prompt,
        completion_tokens: usage.completion,
        queue_ms: (!queue.is_zero()).then(|| milliseconds(queue)),
        ttft_ms: outcome.ttft().map(milliseconds),
        total_ms: milliseconds(record.completed.total),
        bytes: record.bytes,
    };
    // Writing into a Vec does not fail.
    match style {
        Style::Json => {
            _ = serde_json::to_writer(&mut *out, &line);
            out.push(b'\n');
        }
        Style::Pretty => pretty(out, &line),
    }
}

fn pretty(out: &mut Vec<u8>, line: &Line<'_>) {
    let clock = line.time.get(11..23).unwrap_or(line.time);
    _ = write!(
        out,
        "{clock}  {:3}  {:>9.1} ms  {:<4} {:<12} {:<20}",
        line.status,
        line.total_ms,
        line.method,
        line.route,
        line.deployment.unwrap_or("-")
    );
    if line.prompt_tokens + line.completion_tokens > 0 {
        _ = write!(
            out,
            "  {} → {} tokens",
            line.prompt_tokens, line.completion_tokens
        );
    }
    if let Some(ttft) = line.ttft_ms {
        _ = write!(out, "  first after {ttft:.1} ms");
    }
    if let Some(fault) = line.fault {
        _ = write!(out, "  ({fault})");
    }
    if let Some(principal) = line.principal {
        _ = write!(out, "  {principal}");
    }
    _ = writeln!(out, "  {}", line.id);
}

/// Milliseconds with three digits after the point.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// RFC 3339 in UTC with milliseconds. Days to dates by Howard Hinnant's
/// `civil_from_days`, with years that begin in March.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        since.subsec_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let at = |seconds, ms| {
            timestamp(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms))
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        // date -u -d @951782400
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(4_102_444_799, 999), "2099-12-31T23:59:59.999Z");
    }

    #[test]
    fn faults_are_told_apart() {
        assert_eq!(fault(Some(200), true), None);
        assert_eq!(fault(Some(200), false), Some(Fault::Cancelled));
        assert_eq!(fault(Some(429), true), Some(Fault::Client));
        assert_eq!(fault(Some(503), true), Some(Fault::Server));
        assert_eq!(fault(None, false), Some(Fault::Cancelled));
    }
}
