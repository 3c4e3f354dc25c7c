//! The thread that owns the kernel: calls of a [`Dataplane`] block, a single send for up to a second, so they
//! are kept off the runtime.
//!
//! One request at a time, answered in order. The thread ends when its handle is dropped or closed, after the
//! request in hand.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot};
use vxlan::{Change, Dataplane, IpTunnel, ObserveError, Observed, Refused, Report, State, reconcile};

/// Handle of the thread.
#[derive(Debug)]
pub struct DataplaneThread {
    requests: mpsc::Sender<Request>,
    thread: Option<JoinHandle<()>>,
}

/// The thread is gone: it has panicked, which is reported by its message on standard error.
#[derive(Debug, thiserror::Error)]
#[error("the data plane's thread has ended")]
pub struct Gone;

#[derive(Debug)]
enum Request {
    Observe { watched: Arc<[IpNet]>, answer: oneshot::Sender<Result<Observed, ObserveError>> },
    IpTunnels { asked: BTreeSet<IpTunnel>, answer: oneshot::Sender<Result<BTreeSet<IpTunnel>, ObserveError>> },
    Apply { changes: Vec<Change>, answer: oneshot::Sender<Refused> },
    Reconcile { observed: Arc<Observed>, wanted: Arc<State>, answer: oneshot::Sender<Report> },
}

impl DataplaneThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(mut dataplane: Box<dyn Dataplane>) -> io::Result<Self> {
        let (requests, mut incoming) = mpsc::channel::<Request>(1);
        let thread = std::thread::Builder::new().name("dataplane".to_owned()).spawn(move || {
            while let Some(request) = incoming.blocking_recv() {
                // Nobody waits for the answer if the agent is on its way out.
                match request {
                    Request::Observe { watched, answer } => drop(answer.send(dataplane.observe(&watched))),
                    Request::IpTunnels { asked, answer } => drop(answer.send(dataplane.ip_tunnels(&asked))),
                    Request::Apply { changes, answer } => drop(answer.send(dataplane.apply(&changes))),
                    Request::Reconcile { observed, wanted, answer } => {
                        let report = reconcile(dataplane.as_mut(), &observed, &wanted);
                        // Whoever gets the report may go on with what was observed as its own.
                        drop((observed, wanted));
                        drop(answer.send(report));
                    }
                }
            }
        })?;
        Ok(Self { requests, thread: Some(thread) })
    }

    /// A look at the kernel.
    ///
    /// # Errors
    /// The thread is gone. That the kernel could not be read is the inner result.
    pub async fn observe(&self, watched: Arc<[IpNet]>) -> Result<Result<Observed, ObserveError>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Observe { watched, answer }).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Which of these kinds of IP tunnel there can be.
    ///
    /// # Errors
    /// The thread is gone. That the kernel did not tell is the inner result.
    pub async fn ip_tunnels(
        &self,
        asked: BTreeSet<IpTunnel>,
    ) -> Result<Result<BTreeSet<IpTunnel>, ObserveError>, Gone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::IpTunnels { asked, answer }).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Applies these changes; one outcome each.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn apply(&self, changes: Vec<Change>) -> Result<Refused, Gone> {
        let (answer, answered) = oneshot::channel();
        self.requests.send(Request::Apply { changes, answer }).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Applies what differs between a look at the kernel and what is wanted.
    ///
    /// # Errors
    /// The thread is gone.
    pub async fn reconcile(&self, observed: Arc<Observed>, wanted: Arc<State>) -> Result<Report, Gone> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Reconcile { observed, wanted, answer };
        self.requests.send(request).await.map_err(|_| Gone)?;
        answered.await.map_err(|_| Gone)
    }

    /// Ends the thread and waits for the request in hand.
    pub async fn close(mut self) {
        drop(self.requests);
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
