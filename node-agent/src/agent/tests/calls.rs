//! Each call of the kernel fails once while an agent is at work: it says what and why, breaks nothing, gets there, and
//! what it has said goes.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use config::PathUse;
use tokio::task::JoinSet;
use vxlan::fake::{Call, Event, FakeKernel, Mishap, errno};
use vxlan::{Change, InstalledRoute, NexthopId, Observed, RouteKey, State};

use super::harness::Cluster;

const N1: (&str, &str) = ("n1", "192.0.2.11/24");
const N2: (&str, &str) = ("n2", "192.0.2.12/24");
const N3: (&str, &str) = ("n3", "198.51.100.13/24");

/// What may become of a call; one after the other.
const WAYS: [Mishap; 11] = [
    Mishap::Refused(errno::ENOMEM),
    Mishap::Refused(errno::EINTR),
    Mishap::Unanswered,
    Mishap::Refused(errno::EPERM),
    Mishap::Cut,
    Mishap::Refused(errno::EBUSY),
    Mishap::Deaf,
    Mishap::Refused(errno::EEXIST),
    Mishap::Refused(errno::EINVAL),
    Mishap::Refused(errno::ENODEV),
    Mishap::Refused(errno::ENETUNREACH),
];

/// What the agent `n1` has said since it was asked last: kinds and messages of conditions.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<(String, String)>>>);

impl Said {
    /// Follows the agent that runs now.
    fn follow(&self, cluster: &Cluster, tasks: &mut JoinSet<()>) {
        let mut published = cluster.node("n1").handle().published.clone();
        let said = Arc::clone(&self.0);
        tasks.spawn(async move {
            while published.changed().await.is_ok() {
                let conditions = published.borrow_and_update().status.conditions.clone();
                said.lock().unwrap().extend(conditions.into_iter().map(|found| (found.kind, found.message)));
            }
        });
    }

    fn take(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Scene {
    cluster: Cluster,
    said: Said,
    tasks: JoinSet<()>,
    others: Observed,
    met: BTreeSet<Call>,
}

/// Both pairs on their paths, at both ends.
async fn paths(cluster: &Cluster) {
    for (from, to) in [("n1", "n2"), ("n2", "n1")] {
        cluster.path(from, to, "native", "bgp").await;
    }
    for (from, to) in [("n1", "n3"), ("n3", "n1")] {
        cluster.path(from, to, "ipip", "cross-subnet").await;
    }
}

/// What is not ours.
fn others(kernel: &FakeKernel) -> Observed {
    let mut seen = kernel.observed(&["10.244.0.0/16".parse().unwrap()]);
    let ours = std::mem::take(&mut seen.ours);
    seen.interfaces.retain(|name, _| !ours.links.contains_key(name));
    seen
}

impl Scene {
    /// `n1` has a native pair with `n2`, and one in IP-in-IP with `n3`.
    async fn new() -> Self {
        let mut cluster = Cluster::new();
        for (name, address) in [N1, N2, N3] {
            cluster.add(name, &[address]);
            cluster.node(name).config.lock().unwrap().as_mut().unwrap().paths.cross_subnet = PathUse::Ipip;
        }
        let kernel = &cluster.node("n1").kernel;
        kernel.add_interface("br0", "bridge", 1500, &["10.200.0.1/24"]);
        kernel.add_foreign_nexthop(NexthopId(7));
        kernel.add_foreign_route(InstalledRoute {
            key: RouteKey { table: 254, prefix: "10.0.0.0/8".parse().unwrap(), metric: 9000 },
            protocol: 4,
            link: Some("eth0".parse().unwrap()),
            gateway: Some("192.0.2.1".parse().unwrap()),
        });
        let others = others(kernel);
        for (name, _) in [N1, N2, N3] {
            cluster.start(name);
        }
        paths(&cluster).await;
        let (said, mut tasks) = (Said::default(), JoinSet::new());
        said.follow(&cluster, &mut tasks);
        Self { cluster, said, tasks, others, met: BTreeSet::new() }
    }

    fn kernel(&self) -> &FakeKernel {
        &self.cluster.node("n1").kernel
    }

    async fn until_holds(&self, wanted: &State) {
        let node = self.cluster.node("n1");
        node.until("as it should be", |published| {
            published.status.ready && published.status.failures.is_empty() && node.kernel.state() == *wanted
        })
        .await;
    }

    /// What has gone wrong was said, nothing else is touched, and in the end nothing is said any more.
    async fn judge(&mut self, story: &str) {
        // What has not happened by now does not happen, and of what has the agent has had the time to tell.
        self.kernel().heal();
        let mishaps = self.kernel().mishaps();
        self.cluster.node("n1").passes().await;
        for kind in ["KernelUnreadable", "KernelRefused", "KernelEventsLost", "FirewallUnavailable"] {
            self.cluster.node("n1").until_no_condition(kind).await;
        }
        paths(&self.cluster).await;
        let said = self.said.take();
        for (call, mishap) in mishaps {
            let error = std::io::Error::from_raw_os_error(mishap.errno()).to_string();
            let told = said.iter().any(|(kind, message)| {
                let right = match (call.what(), kind.as_str()) {
                    (Some(what), "KernelUnreadable") => message.contains(what),
                    (None, "KernelEventsLost") => [Call::Listen, Call::Hear].contains(&call),
                    (None, "KernelRefused" | "FirewallUnavailable") => call.changes() || call == Call::Names,
                    _ => false,
                };
                right && message.contains(&error)
            });
            assert!(told, "{story}: {call:?} was {mishap:?}, and nothing was said but {said:#?}");
            self.met.insert(call);
        }
        assert_eq!(others(self.kernel()), self.others, "{story}");
    }
}

fn deletes(event: &Event) -> bool {
    let Event::Applied(change) = event else { return false };
    matches!(
        change,
        Change::DeleteLink(_)
            | Change::DeleteAddress(_)
            | Change::DeleteNeighbor(_)
            | Change::DeleteFdb(_)
            | Change::DeleteNexthop(_)
            | Change::DeleteRoute(_)
            | Change::DeleteRule(_)
            | Change::DeleteFirewall
    )
}

/// A pair's session goes and comes back: native, VXLAN, native.
#[tokio::test]
async fn while_a_pair_changes_its_path() {
    let mut scene = Scene::new().await;
    let native = scene.kernel().state();
    // What nobody else has touched is not looked at again.
    let touched = |scene: &Scene| scene.kernel().tamper("nothing", |_| ());
    let begin = scene.kernel().calls();
    touched(&scene);
    scene.cluster.fabric.cut("192.0.2.12");
    scene.cluster.path("n1", "n2", "vxlan", "bgp-down").await;
    let tunnelled = scene.kernel().state();
    let calls = scene.kernel().calls() - begin;
    scene.cluster.fabric.mend("192.0.2.12");
    scene.until_holds(&native).await;
    scene.judge("without a mishap").await;
    for after in 0..=calls + 2 {
        for (number, way) in [(0, after), (1, after + 5), (2, after + 8)] {
            let way = WAYS[usize::try_from(way).unwrap() % WAYS.len()];
            let story = format!("call {after}, {way:?}");
            scene.kernel().clear_events();
            scene.kernel().fail_call(after, way);
            if number == 2 {
                // Two of them.
                scene.kernel().fail_call(after + 1 + after * 7 % 13, Mishap::Refused(errno::ENOMEM));
            }
            if number == 0 {
                touched(&scene);
            }
            scene.cluster.fabric.cut("192.0.2.12");
            scene.until_holds(&tunnelled).await;
            scene.cluster.path("n1", "n2", "vxlan", "bgp-down").await;
            scene.cluster.fabric.mend("192.0.2.12");
            scene.until_holds(&native).await;
            scene.cluster.path("n1", "n2", "native", "bgp").await;
            scene.judge(&story).await;
            let deleted = scene.cluster.node("n1").changes().into_iter().filter(deletes).count();
            assert_eq!(deleted, 0, "{story}");
        }
    }
    for call in [Call::Devices, Call::Routes, Call::Nftables, Call::Names, Call::SetNexthop] {
        assert!(scene.met.contains(&call), "{call:?}: {:?}", scene.met);
    }
}

/// Somebody takes everything away that he can, and the agent is made anew.
#[tokio::test]
async fn while_it_repairs_and_while_it_starts() {
    let mut scene = Scene::new().await;
    let wanted = scene.kernel().state();
    let damage = |scene: &Scene| {
        scene.kernel().tamper("everything goes", |state| {
            let rp_filter = std::mem::take(&mut state.rp_filter);
            *state = State { links: std::mem::take(&mut state.links), ..State::default() };
            state.links.remove(&"pairway-vx4".parse().unwrap());
            state.rp_filter = rp_filter;
            state.rp_filter.remove(&"pairway-vx4".parse().unwrap());
        });
    };
    let restart = async |scene: &mut Scene| {
        scene.cluster.stop("n1").await;
        damage(scene);
        scene.cluster.start("n1");
        scene.said.follow(&scene.cluster, &mut scene.tasks);
    };
    let begin = scene.kernel().calls();
    restart(&mut scene).await;
    scene.until_holds(&wanted).await;
    let calls = scene.kernel().calls() - begin;
    scene.judge("without a mishap").await;
    for after in 0..=calls + 2 {
        let way = WAYS[usize::try_from(after).unwrap() % WAYS.len()];
        let story = format!("call {after}, {way:?}");
        scene.kernel().fail_call(after, way);
        restart(&mut scene).await;
        scene.until_holds(&wanted).await;
        scene.judge(&story).await;
    }
    for call in [
        Call::Devices,
        Call::Addresses,
        Call::Neighbors,
        Call::Nexthops,
        Call::Routes,
        Call::Rules,
        Call::Settings,
        Call::Nftables,
        Call::Probe,
        Call::Names,
        Call::AddLink,
        Call::SetRpFilter,
        Call::AddAddress,
        Call::SetNeighbor,
        Call::SetFdb,
        Call::AddNexthop,
        Call::AddRoute,
        Call::AddRule,
        Call::SetFirewall,
    ] {
        assert!(scene.met.contains(&call), "{call:?}: {:?}", scene.met);
    }
}

/// Notifications break off, and the first new subscription fails too.
#[tokio::test]
async fn while_it_listens() {
    let mut scene = Scene::new().await;
    let wanted = scene.kernel().state();
    for error in [errno::ENOMEM, errno::EPERM, errno::ENOBUFS, errno::EINTR] {
        for call in [Call::Hear, Call::Listen] {
            scene.kernel().fail_next_call_of(call, Mishap::Refused(error));
        }
        scene.kernel().tamper("all routes go", |state| state.routes.clear());
        scene.cluster.node("n1").until_condition("KernelEventsLost").await;
        scene.until_holds(&wanted).await;
        // It is mended by then, and it listens again later.
        scene.cluster.node("n1").until_no_condition("KernelEventsLost").await;
        scene.judge(&format!("errno {error}")).await;
        // It hears again.
        scene.kernel().tamper("all routes go", |state| state.routes.clear());
        scene.until_holds(&wanted).await;
    }
    assert!(scene.met.contains(&Call::Hear) && scene.met.contains(&Call::Listen), "{:?}", scene.met);
}
