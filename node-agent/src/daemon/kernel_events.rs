//! The kernel's notifications for the loop, subscribed anew where the subscription fails.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use ipnet::IpNet;
use vxlan::netlink::{Monitor, Ports};
use vxlan::{Lost, Marks, State};

use crate::agent::KernelEvents;

/// Notifications of the network namespace in which it was opened.
#[derive(Debug)]
pub(super) struct Notifications {
    marks: Marks,
    writer: Ports,
    watched: Vec<IpNet>,
    wanted: Option<Arc<State>>,
    /// `None` after a failure.
    monitor: Option<Monitor>,
}

impl Notifications {
    /// Subscribes, leaving out what the sockets of `writer` do.
    pub(super) fn open(marks: Marks, writer: Ports) -> io::Result<Self> {
        let monitor = Some(Monitor::open(marks.clone(), writer)?);
        Ok(Self { marks, writer, watched: Vec::new(), wanted: None, monitor })
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

    fn expect(&mut self, wanted: &Arc<State>) {
        if let Some(monitor) = &mut self.monitor {
            monitor.expect(Arc::clone(wanted));
        }
        self.wanted = Some(Arc::clone(wanted));
    }

    fn lost(&mut self) -> Option<Lost> {
        self.monitor.as_mut().and_then(Monitor::lost)
    }

    fn hear(&mut self) -> io::Result<bool> {
        let Some(monitor) = &mut self.monitor else { return Err(io::ErrorKind::NotConnected.into()) };
        let heard = monitor.hear();
        if heard.is_err() {
            self.monitor = None;
        }
        heard
    }

    async fn changed(&mut self) -> io::Result<()> {
        if let Some(monitor) = &mut self.monitor {
            let changed = monitor.changed().await;
            if changed.is_err() {
                self.monitor = None;
            }
            return changed;
        }
        let mut monitor = Monitor::open(self.marks.clone(), self.writer)?;
        monitor.watch(self.watched.clone());
        if let Some(wanted) = &self.wanted {
            monitor.expect(Arc::clone(wanted));
        }
        self.monitor = Some(monitor);
        Ok(())
    }
}
