use super::*;

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use vxlan::fake::{Call, FakeKernel, Mishap, errno};
use vxlan::{
    FdbKey, Gateway, Mac, NeighborKey, Nexthop, NexthopId, Route, RouteKey, RouteTarget, Settings,
    TunnelKind, TunnelLink, Vni, Vxlan,
};

use crate::node::{Block, Claim};
use crate::store::memory::MemoryStore;

fn own() -> NodeName {
    "n1".parse().unwrap()
}

/// What an agent leaves: a device with a peer on it, a route, and a changed setting of `eth0`.
fn left_over() -> State {
    let link: vxlan::LinkName = "pairway-vx4".parse().unwrap();
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let mac = Mac([2, 0, 0, 0, 0, 2]);
    let kind = TunnelKind::Vxlan(Vxlan {
        vni: Vni(4096),
        port: 4789,
        underlay: "eth0".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
    });
    let device = TunnelLink { kind, local: ip("192.0.2.1"), mtu: 1450, up: true, settings: Settings::Ours };
    let nexthop =
        Nexthop { gateway: Gateway { address: ip("10.244.2.0"), onlink: true }, link: link.clone() };
    let id = NexthopId(0x7000_0001);
    let key = RouteKey { table: 254, prefix: "10.244.2.0/24".parse().unwrap(), metric: 1120 };
    State {
        links: BTreeMap::from([(link.clone(), device)]),
        neighbors: BTreeMap::from([(NeighborKey { link: link.clone(), address: ip("10.244.2.0") }, mac)]),
        fdb: BTreeMap::from([(FdbKey { link: link.clone(), mac }, ip("192.0.2.2"))]),
        nexthops: BTreeMap::from([(id, nexthop)]),
        routes: BTreeMap::from([(key, Route { target: RouteTarget::Nexthop(id), source: None, mtu: None })]),
        rp_filter: BTreeMap::from([("eth0".parse().unwrap(), 2), (link, 2)]),
        ..State::default()
    }
}

struct Scene {
    kernel: FakeKernel,
    store: MemoryStore,
    state_dir: tempfile::TempDir,
}

async fn scene() -> Scene {
    let state_dir = tempfile::tempdir().unwrap();
    let mut kernel = FakeKernel::node(&["192.0.2.1/24"], 1500);
    kernel.set_rp_filter("eth0", 1);
    let observed = kernel.observe(&[]).unwrap();
    originals::remember(state_dir.path(), &observed, &left_over()).unwrap();
    let report = reconcile(&mut kernel, &observed, &left_over());
    assert_eq!(report.failures, []);
    kernel.clear_events();
    let store = MemoryStore::new();
    for (block, holder) in [("10.244.1.0/24", "n1"), ("10.244.2.0/24", "n2")] {
        let claim = Claim {
            block: Block::new(block.parse().unwrap()),
            holder: Some(holder.parse().unwrap()),
            claimed_at: Timestamp::UNIX_EPOCH,
            unknown: BTreeMap::new(),
        };
        store.claim(&claim).await.unwrap();
    }
    Scene { kernel, store, state_dir }
}

impl Scene {
    async fn uninstall(&self, dry_run: bool) -> Uninstalled {
        let uninstall = Uninstall {
            node: &own(),
            state_dir: self.state_dir.path(),
            store: Some(&self.store),
            cni: &config::Cni {
                subnet_env: Some(self.state_dir.path().join("subnet.env")),
                conflist: Some(self.state_dir.path().join("foreign.conflist")),
            },
            dataplane: &mut self.kernel.clone(),
            dry_run,
        };
        uninstall.run().await
    }

    fn blocks_left(&self) -> Vec<String> {
        let snapshot = self.store.snapshots().borrow().clone().unwrap();
        snapshot.claims.keys().map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn files_for_cni_plugins_go_if_they_are_ours() {
    let scene = scene().await;
    let (ours, foreign) =
        (scene.state_dir.path().join("subnet.env"), scene.state_dir.path().join("foreign.conflist"));
    let blocks = [Block::new("10.244.1.0/24".parse().unwrap())];
    let network = cni::Network { pools: &[], blocks: &blocks, mtu: 1500 };
    cni::write(&ours, &cni::Kind::SubnetEnv.content(&network)).unwrap();
    cni::write(&foreign, "{\"name\": \"cbr0\"}").unwrap();
    let named = vec![ours.display().to_string()];
    assert_eq!(scene.uninstall(true).await.files, named);
    assert!(ours.exists(), "a rehearsal touches nothing");
    assert_eq!(scene.uninstall(false).await.files, named);
    assert!(!ours.exists() && foreign.exists());
}

#[tokio::test]
async fn everything_of_ours_goes_and_what_was_changed_is_put_back() {
    let scene = scene().await;
    let done = scene.uninstall(false).await;
    assert_eq!(
        (done.failures.as_slice(), done.released.as_slice()),
        (&[][..], &["10.244.1.0/24".to_owned()][..])
    );
    let left = scene.kernel.state();
    let expected = State { rp_filter: BTreeMap::from([("eth0".parse().unwrap(), 1)]), ..State::default() };
    assert_eq!(left, expected);
    assert!(done.kernel.contains(&"set rp_filter of eth0 to 1".to_owned()), "{:?}", done.kernel);
    assert_eq!(scene.blocks_left(), ["10.244.2.0/24"], "the other node's block stays");

    scene.kernel.clear_events();
    let again = scene.uninstall(false).await;
    assert_eq!((again.kernel.len(), again.released.len(), again.failures.len()), (0, 0, 0));
    assert!(scene.kernel.events().is_empty());
}

#[tokio::test]
async fn a_rehearsal_says_the_same_and_does_nothing() {
    let scene = scene().await;
    let before = scene.kernel.state();
    let rehearsal = scene.uninstall(true).await;
    assert_eq!(scene.kernel.state(), before);
    assert!(scene.kernel.events().is_empty());
    assert_eq!(scene.blocks_left().len(), 2);
    let done = scene.uninstall(false).await;
    assert!(!rehearsal.kernel.is_empty());
    assert_eq!(Uninstalled { dry_run: false, ..rehearsal }, done);
}

#[tokio::test]
async fn a_kernel_that_refuses_is_reported_and_the_rest_is_done() {
    let scene = scene().await;
    scene.kernel.fail_kind(vxlan::fake::Kind::Link, usize::MAX, 16);
    let done = scene.uninstall(false).await;
    assert!(done.failures.iter().any(|text| text.starts_with("can't delete device pairway-vx4")), "{done:?}");
    assert!(scene.kernel.state().routes.is_empty());
    assert_eq!(done.released, ["10.244.1.0/24"]);
    scene.kernel.heal();
    assert!(scene.uninstall(false).await.failures.is_empty(), "the second run ends it");
    assert!(scene.kernel.state().links.is_empty());
}

/// Each call fails once, in each way: what was not done is said, the second run ends it, and what is not ours stays.
#[tokio::test]
async fn whatever_fails_is_said_and_ended_by_the_second_run() {
    let ways = [
        Mishap::Refused(errno::EBUSY),
        Mishap::Refused(errno::ENOENT),
        Mishap::Refused(errno::EINTR),
        Mishap::Unanswered,
        Mishap::Cut,
        Mishap::Deaf,
    ];
    let mut met = BTreeSet::new();
    for way in ways {
        for after in 0.. {
            let scene = scene().await;
            scene.kernel.add_interface("br0", "bridge", 1500, &["10.244.1.1/24"]);
            let others =
                |kernel: &FakeKernel| kernel.observed(&["10.244.0.0/16".parse().unwrap()]).interfaces;
            let mut before = others(&scene.kernel);
            before.remove(&"pairway-vx4".parse().unwrap());
            scene.kernel.fail_call(after, way);
            let done = scene.uninstall(false).await;
            let mishaps = scene.kernel.mishaps();
            scene.kernel.heal();
            let clean =
                State { rp_filter: BTreeMap::from([("eth0".parse().unwrap(), 1)]), ..State::default() };
            assert!(scene.kernel.state() == clean || !done.failures.is_empty(), "{mishaps:?}: {done:?}");
            assert_eq!(scene.uninstall(false).await.failures, [""; 0], "{mishaps:?}");
            assert_eq!(scene.kernel.state(), clean, "{mishaps:?}");
            assert_eq!(others(&scene.kernel), before, "{mishaps:?}");
            let Some((call, _)) = mishaps.first() else { break };
            met.insert(*call);
        }
    }
    let all = [
        Call::Devices,
        Call::Nftables,
        Call::Names,
        Call::DeleteRoute,
        Call::DeleteNexthop,
        Call::DeleteLink,
        Call::SetRpFilter,
    ];
    assert!(all.iter().all(|call| met.contains(call)), "{met:?}");
}

#[tokio::test]
async fn without_its_notes_the_setting_stays_and_is_said() {
    let scene = scene().await;
    std::fs::write(scene.state_dir.path().join(originals::FILE_NAME), "garbage").unwrap();
    let done = scene.uninstall(false).await;
    assert!(done.failures[0].contains("rp_filter"), "{done:?}");
    assert_eq!(scene.kernel.state().rp_filter.values().collect::<Vec<_>>(), [&2]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_does_not_keep_the_kernel() {
    let scene = scene().await;
    scene.store.fail_next(u32::MAX);
    let done = scene.uninstall(false).await;
    assert!(!done.failures.is_empty());
    assert!(scene.kernel.state().links.is_empty());
}
