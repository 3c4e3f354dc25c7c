//! A plan that is kept is the one that would be made anew. This is asked whenever one is kept in any test of agents, too.

use std::time::Duration;

use vxlan::{Forwarding, InterfaceAddress, LinkName, NexthopId};

use super::*;
use crate::plan::tests::Scene;

/// Called where a plan is kept.
pub(super) fn judge(kept: &Plan, world: &World<'_>) {
    assert_eq!(*kept, plan::plan(world), "a plan was kept that no longer follows");
}

/// A scene whose shared values stay the same until they change.
struct Stage {
    scene: Scene,
    shared: Shared,
    before: Option<Planned>,
}

impl Stage {
    /// Two peers, one with a session, planned until the plan is kept.
    fn settled() -> Self {
        let mut scene = Scene::new(
            "n1 192.0.2.1/24 10.244.1.0/24",
            &["n2 192.0.2.2/24 10.244.2.0/24", "n3 198.51.100.3/24 10.244.3.0/24"],
        );
        scene.established("n2", &["10.244.2.0/24"]);
        scene.observed.interfaces.insert("eth0".parse().unwrap(), interface(&["192.0.2.1/24"]));
        let mut stage = Self { shared: shared(&scene), scene, before: None };
        assert!(!stage.keeps(), "the first is made");
        assert!(!stage.keeps(), "the second goes by the memory of the first");
        assert!(stage.keeps(), "and comes to itself again");
        stage
    }

    /// Plans, and whether that was the plan before. The world goes on from there.
    fn keeps(&mut self) -> bool {
        let last = self.before.as_ref().map(|planned| Arc::clone(&planned.plan));
        let shared = self.shared.clone();
        let before = &mut self.before;
        let made = self.scene.world(|world| {
            let made = plan(before, world, shared);
            assert_eq!(*made, plan::plan(world));
            made
        });
        self.scene.memory.clone_from(&made.memory);
        self.scene.observed.ours = State::clone(&made.dataplane);
        last.is_some_and(|last| Arc::ptr_eq(&last, &made))
    }

    /// The shared values are what the scene has now.
    fn share(&mut self) {
        self.shared = shared(&self.scene);
    }
}

fn shared(scene: &Scene) -> Shared {
    Shared {
        config: Arc::new(scene.config.clone()),
        snapshot: Arc::new(scene.snapshot.clone()),
        sessions: Arc::new(scene.sessions.clone()),
        learned: Arc::new(scene.learned.clone()),
    }
}

fn interface(addresses: &[&str]) -> Interface {
    let address = |text: &&str| InterfaceAddress {
        address: text.parse().unwrap(),
        unfit: false,
        local_scope: text.starts_with("fe80"),
    };
    Interface {
        index: 7,
        kind: "veth".to_owned(),
        alias: String::new(),
        up: true,
        carrier: true,
        mtu: 1500,
        mac: None,
        tunnel: None,
        ends: None,
        forwards: None,
        addresses: addresses.iter().map(address).collect(),
    }
}

#[test]
fn what_a_plan_follows_from_makes_a_new_one() {
    type Change = fn(&mut Scene);
    let changes: [(&str, Change); 13] = [
        ("the configuration", |scene| scene.config.kernel.route_metric = 99),
        ("a peer comes", |scene| scene.add("n4 198.51.100.4/24 10.244.4.0/24")),
        ("a peer goes", |scene| {
            scene.snapshot.nodes.remove(&"n3".parse().unwrap());
        }),
        ("a session goes", |scene| {
            scene.sessions.peers.clear();
        }),
        ("what it delivered goes", |scene| scene.learned.routes.clear()),
        ("the underlay's MTU", |scene| scene.local.ipv4.as_mut().unwrap().mtu = 1400),
        ("IP-in-IP is to be had", |scene| {
            scene.ip_tunnels.insert(IpTunnel::Ipip);
        }),
        ("a start", |scene| scene.holding = true),
        ("a cordon", |scene| scene.cordoned = true),
        ("rp_filter", |scene| scene.observed.rp_filter_all = 1),
        ("forwarding", |scene| scene.observed.forwarding = Forwarding { ipv4: Some(true), ipv6: None }),
        ("a nexthop id is taken", |scene| {
            let id = *scene.observed.ours.nexthops.first_key_value().unwrap().0;
            scene.observed.ours.nexthops.remove(&id);
            scene.observed.foreign_nexthops.insert(id);
        }),
        ("a device with an address of pods", |scene| {
            scene.observed.interfaces.insert("cni0".parse().unwrap(), interface(&["10.244.1.1/24"]));
        }),
    ];
    for (what, change) in changes {
        let mut stage = Stage::settled();
        change(&mut stage.scene);
        stage.share();
        assert!(!stage.keeps(), "{what}");
    }
}

#[test]
fn what_it_does_not_follow_from_leaves_it() {
    type Change = fn(&mut Scene);
    let changes: [(&str, Change); 5] = [
        ("time", |scene| scene.now += Duration::from_secs(1000)),
        ("nothing but our own objects", |scene| scene.observed.ours.routes.clear()),
        ("a pod's device", |scene| {
            let name: LinkName = "veth7".parse().unwrap();
            scene.observed.interfaces.insert(name, interface(&["fe80::1/64"]));
        }),
        ("a pod's route", |scene| {
            let key = vxlan::RouteKey { table: 254, prefix: "10.244.1.9/32".parse().unwrap(), metric: 0 };
            scene.observed.foreign_routes.push(vxlan::InstalledRoute {
                key,
                protocol: 3,
                link: None,
                gateway: None,
            });
        }),
        ("nothing", |_| ()),
    ];
    for (what, change) in changes {
        let mut stage = Stage::settled();
        change(&mut stage.scene);
        assert!(stage.keeps(), "{what}");
    }
    // A shared value that is another one is compared, or planned with anew.
    let mut stage = Stage::settled();
    stage.shared.learned = Arc::new(Routes::clone(&stage.shared.learned));
    assert!(stage.keeps());
    let mut stage = Stage::settled();
    stage.scene.observed.ours.nexthops.remove(&NexthopId(0x7000_0000));
    stage.scene.observed.ours.nexthops.clear();
    assert!(!stage.keeps(), "ids are given by what is found");
}
