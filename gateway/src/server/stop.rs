//! When to stop: signals of the process, or a handle in tests.

use tokio::sync::watch;

/// How urgently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stopping {
    /// Not at all.
    No,
    /// Finish what is in flight.
    Drain,
    /// Drop everything.
    Now,
}

/// Asks a server to stop.
#[derive(Debug)]
pub struct StopHandle(watch::Sender<Stopping>);

/// What a server waits for.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Stopping>);

impl StopHandle {
    /// A handle and what it stops. Dropping the handle stops nothing.
    #[must_use]
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(Stopping::No);
        (Self(sender), Stop(receiver))
    }

    /// The first request drains, the second stops now.
    pub fn request(&self) {
        self.0.send_modify(|state| {
            *state = match state {
                Stopping::No => Stopping::Drain,
                Stopping::Drain | Stopping::Now => Stopping::Now,
            };
        });
    }
}

impl Stop {
    /// Comes back once stopping is at least this urgent.
    pub async fn requested(&mut self, urgency: Stopping) {
        if self.0.wait_for(|state| *state >= urgency).await.is_err() {
            // The handle is gone: nobody can ask any more.
            std::future::pending::<()>().await;
        }
    }

    /// Comes back once anything is requested.
    pub async fn wait(mut self) {
        self.requested(Stopping::Drain).await;
    }

    /// SIGTERM and SIGINT: the first drains, the second stops now.
    ///
    /// # Errors
    /// The system refuses the signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (handle, stop) = StopHandle::new();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                handle.request();
                tracing::info!("asked to stop; once more stops at once");
            }
        });
        Ok(stop)
    }
}
