//! What wakes the loop.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::speaker::{self, News};
use super::{Agent, Task, blocks};
use crate::status::{Command, Condition};

/// Why the loop goes on.
pub(super) enum Wake {
    Stop,
    /// A pass is wanted, with what else comes soon.
    Pass,
    /// The time for a pass has come.
    Due,
    /// The kernel has changed.
    Heard,
    Publish,
    Command(Command),
    Config,
    /// The kernel's notifications can't be read.
    Deaf(io::Error),
    /// They can again.
    Hearing,
    /// A part that the agent can't do without has died.
    Dead(&'static str),
    Ended(Result<Task, tokio::task::JoinError>),
}

impl Agent {
    /// Waits for a reason to do something. Every arm only receives: what a cancelled arm has not received stays
    /// where it is.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> Wake {
        let now = Instant::now();
        let deadline = self.state.wakes.iter().copied().min().unwrap_or(now + self.limits.audit);
        let due = self.state.due;
        self.liveness.promise(deadline.saturating_duration_since(now) + Duration::from_secs(60));
        {
            let config_wake = async {
                match &mut self.source {
                    Some(source) => source.wakes.recv().await,
                    None => None,
                }
            };
            let kernel_event = async {
                if let Some(deaf) = &self.state.deaf {
                    sleep_until(deaf.again_at).await;
                }
                self.kernel_events.changed().await
            };
            let trouble = any_changed(&mut self.troubles);
            tokio::select! {
                biased;
                () = stop.cancelled() => Wake::Stop,
                Some(command) = self.commands.recv() => Wake::Command(command),
                Some(ended) = self.tasks.join_next() => Wake::Ended(ended),
                // Before what may never cease to come.
                () = sleep_until(due.unwrap_or(deadline)), if due.is_some() => Wake::Due,
                () = sleep_until(deadline), if due.is_none() => Wake::Pass,
                Some(()) = config_wake => Wake::Config,
                Ok(()) = self.snapshots.changed() => Wake::Pass,
                Ok(()) = self.blocks.changed() => Wake::Pass,
                changed = kernel_event => match changed {
                    Ok(()) if self.state.deaf.is_some() => Wake::Hearing,
                    Ok(()) => Wake::Heard,
                    Err(error) => Wake::Deaf(error),
                },
                Ok(()) = self.health.changed() => Wake::Pass,
                Some(()) = blocks::news(&mut self.facts) => Wake::Pass,
                () = self.cni_watch.changed() => Wake::Pass,
                () = trouble => Wake::Publish,
                news = self.bgp.changed() => match news {
                    News::Routes | News::Started => Wake::Pass,
                    News::Dead => Wake::Dead("the BGP speaker has stopped"),
                    News::Status => {
                        let status = self.bgp.peek();
                        let same = speaker::gist(&status) == speaker::gist(&self.state.sessions);
                        if same { Wake::Publish } else { Wake::Pass }
                    }
                },
            }
        }
    }
}

async fn any_changed(troubles: &mut [watch::Receiver<Option<Condition>>]) {
    let mut waiting: futures_util::stream::FuturesUnordered<_> =
        troubles.iter_mut().map(watch::Receiver::changed).collect();
    loop {
        match futures_util::StreamExt::next(&mut waiting).await {
            Some(Ok(())) => return,
            // That part of the process has ended: it has no news any more.
            Some(Err(_)) => (),
            None => std::future::pending().await,
        }
    }
}
