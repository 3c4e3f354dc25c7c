//! The kernel's notifications for the loop, subscribed anew where the subscription fails.

use std::io;
use std::time::Duration;

use async_trait::async_trait;
use ipnet::IpNet;
use tokio::time::{Instant, sleep_until};
use vxlan::Marks;
use vxlan::netlink::Monitor;

use crate::agent::KernelEvents;

/// A subscription that has failed is made anew after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Notifications of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Notifications {
    marks: Marks,
    writer: u32,
    watched: Vec<IpNet>,
    /// `None` after a failure.
    monitor: Option<Monitor>,
    /// When to subscribe again. Kept here: a wait that is cancelled must not begin anew, or other news of the loop
    /// put it off for ever.
    again_at: Instant,
}

impl Notifications {
    /// Subscribes, leaving out what the socket with port id `writer` does.
    pub(super) fn open(marks: Marks, writer: u32) -> io::Result<Self> {
        let monitor = Some(Monitor::open(marks.clone(), writer)?);
        Ok(Self { marks, writer, watched: Vec::new(), monitor, again_at: Instant::now() })
    }
}

#[async_trait]
impl KernelEvents for Notifications {
    fn watch(&mut self, prefixes: Vec<IpNet>) {
        if self.watched == prefixes {
            return;
        }
        if let Some(monitor) = &mut self.monitor {
            monitor.watch(prefixes.clone());
        }
        self.watched = prefixes;
    }

    async fn changed(&mut self) -> io::Result<()> {
        if let Some(monitor) = &mut self.monitor {
            let Err(error) = monitor.changed().await else { return Ok(()) };
            tracing::warn!(%error, "the kernel's notifications have failed; subscribing again");
            self.monitor = None;
            self.again_at = Instant::now() + AGAIN_AFTER;
        }
        // Where this is cancelled, the next call goes on from here.
        sleep_until(self.again_at).await;
        let mut monitor = Monitor::open(self.marks.clone(), self.writer)?;
        monitor.watch(self.watched.clone());
        self.monitor = Some(monitor);
        // What happened in between is unknown.
        Ok(())
    }
}
