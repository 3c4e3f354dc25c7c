//! What one pass leaves to the next, and what it came to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bgp::Family;
use bgp::speaker::SpeakerStatus;
use config::Config;
use ipnet::IpNet;
use tokio::time::Instant;
use vxlan::{Change, RouteKey, State};

use super::backoff::Backoff;
use super::brake::{Brake, StartBrake};
use super::cni::PutBack;
use super::conditions::Conditions;
use super::known::Known;
use super::parts::Limits;
use super::planned::Planned;
use super::reconfigure::RefusedConfig;
use super::repairs::Repairs;
use super::tunnels::Tunnels;
use crate::cni;
use crate::node::{NodeName, Snapshot};
use crate::plan::{Finding, Judged, Memory, Plan};
use crate::status::Counters;
use crate::underlay::Local;

/// What one pass leaves to the next.
pub(super) struct Between {
    pub(super) local: Local,
    /// Since when an underlay address is away.
    pub(super) away: BTreeMap<Family, Instant>,
    pub(super) tunnels: Tunnels,
    /// Since when a pair waits for the first life of its session.
    pub(super) waiting: BTreeMap<(NodeName, Family), Instant>,
    pub(super) brake: Brake,
    pub(super) start_brake: StartBrake,
    pub(super) repairs: Repairs,
    pub(super) memory: Arc<Memory>,
    pub(super) judged: Arc<Judged>,
    pub(super) plan: Option<Arc<Plan>>,
    /// The same, with what it follows from.
    pub(super) planned: Option<Planned>,
    pub(super) watched: Option<Watched>,
    /// What the kernel held after the last pass.
    pub(super) present: Arc<State>,
    /// Routes of ours that packets don't follow because of something of others, and what.
    pub(super) diverted: Arc<BTreeMap<RouteKey, String>>,
    pub(super) sessions: Arc<SpeakerStatus>,
    pub(super) revision: u64,
    pub(super) conditions: Conditions,
    pub(super) refused_config: Option<RefusedConfig>,
    pub(super) findings: BTreeSet<Finding>,
    pub(super) counters: Counters,
    pub(super) failures: Vec<String>,
    /// The data plane has been applied without failure by the last pass.
    pub(super) applied: bool,
    pub(super) marked: bool,
    pub(super) not_ready: Vec<String>,
    pub(super) backoff: Backoff,
    /// While the kernel's notifications can't be read: then the audit alone finds what others change.
    pub(super) deaf: Option<Deaf>,
    pub(super) deaf_backoff: Backoff,
    pub(super) wakes: Vec<Instant>,
    /// When the next pass begins, if there is a reason for one: what comes until then is looked at together.
    pub(super) due: Option<Instant>,
    /// What the last pass asked of the kernel, if it got all of it.
    pub(super) asked: Option<Arc<State>>,
    /// The same, if it is all that the kernel holds.
    pub(super) known: Option<Known>,
    /// When this pass looked at the kernel, or an earlier one for it, and for routes of others to which prefixes.
    pub(super) looked: Option<(Instant, Arc<[IpNet]>)>,
    /// What the last pass has written.
    pub(super) written: Vec<Change>,
    /// How long the last pass took.
    pub(super) took: Duration,
    /// Where files for CNI plugins were kept by the last pass.
    pub(super) cni_places: cni::Places,
    /// Those that others take away.
    pub(super) cni_put_back: BTreeMap<PathBuf, PutBack>,
}

impl Between {
    /// Before the first pass.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            local: Local::default(),
            away: BTreeMap::new(),
            tunnels: Tunnels::default(),
            waiting: BTreeMap::new(),
            brake: Brake::default(),
            start_brake: StartBrake::default(),
            repairs: Repairs::default(),
            memory: Arc::default(),
            judged: Arc::default(),
            plan: None,
            planned: None,
            watched: None,
            present: Arc::default(),
            diverted: Arc::default(),
            sessions: Arc::default(),
            revision: 0,
            conditions: Conditions::default(),
            refused_config: None,
            findings: BTreeSet::new(),
            counters: Counters::default(),
            failures: Vec::new(),
            applied: false,
            marked: false,
            not_ready: vec!["starting".to_owned()],
            backoff: Backoff::new(limits.retry.0, limits.retry.1),
            deaf: None,
            deaf_backoff: Backoff::new(limits.retry.0, limits.retry.1),
            wakes: Vec::new(),
            due: None,
            asked: None,
            known: None,
            looked: None,
            written: Vec::new(),
            took: Duration::ZERO,
            cni_places: cni::Places::new(),
            cni_put_back: BTreeMap::new(),
        }
    }
}

/// Prefixes for which routes of others matter, and what they follow from.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    pub(super) config: Arc<Config>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    pub(super) prefixes: Arc<[IpNet]>,
}

/// The kernel's notifications can't be read.
#[derive(Debug)]
pub(super) struct Deaf {
    pub(super) error: String,
    /// When it is tried again.
    pub(super) again_at: Instant,
}

/// What a pass came to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) not_ready: Vec<String>,
    pub(super) failed: bool,
}

impl Outcome {
    pub(super) fn not_ready(mut self, reason: &str) -> Self {
        self.not_ready.push(reason.to_owned());
        self
    }

    pub(super) fn failed(mut self) -> Self {
        self.failed = true;
        self
    }
}
