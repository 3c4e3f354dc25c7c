use vxlan::firewall::{Chain, Set, SetKey};
use vxlan::{
    ApplyError, Failure, Gateway, Mac, Nexthop, Route, Settings, TunnelKind, TunnelLink, Vni, Vxlan,
};

use super::*;

const AUDIT: Duration = Duration::from_secs(30);

fn tunnel() -> LinkName {
    "pairway-vx4".parse().unwrap()
}

fn route(last: u8) -> RouteKey {
    RouteKey { table: 254, prefix: format!("10.244.{last}.0/24").parse().unwrap(), metric: 1120 }
}

/// A device with a forwarding entry, and a nexthop over it with two routes.
fn wanted() -> State {
    let mut state = State::default();
    let kind = TunnelKind::Vxlan(Vxlan {
        vni: Vni(4096),
        port: 4789,
        underlay: "eth0".parse().unwrap(),
        mac: Mac([2, 0, 0, 0, 0, 0]),
    });
    let local = [192, 0, 2, 1].into();
    let device = TunnelLink { kind, local, mtu: 1450, up: true, settings: Settings::Ours };
    state.links.insert(tunnel(), device);
    state.fdb.insert(FdbKey { link: tunnel(), mac: Mac([2, 0, 0, 0, 0, 1]) }, [192, 0, 2, 2].into());
    let gateway = Gateway { address: [10, 244, 2, 0].into(), onlink: true };
    state.nexthops.insert(NexthopId(7), Nexthop { gateway, link: tunnel() });
    for last in [2, 3] {
        let over = Route { target: RouteTarget::Nexthop(NexthopId(7)), source: None, mtu: None };
        state.routes.insert(route(last), over);
    }
    state
}

struct Test {
    repairs: Repairs,
    start: Instant,
    present: Option<State>,
    changes: usize,
}

impl Test {
    fn new() -> Self {
        Self { repairs: Repairs::default(), start: Instant::now(), present: None, changes: 0 }
    }

    /// A pass at this time that finds `found`; the number of repairs.
    fn pass(&mut self, millis: u64, found: &State) -> usize {
        self.pass_wanting(millis, &wanted(), found)
    }

    fn pass_wanting(&mut self, millis: u64, want: &State, found: &State) -> usize {
        self.pass_after(millis, Some(want), want, found)
    }

    /// A pass that wants something after one that wanted something else, if there was one.
    fn pass_after(&mut self, millis: u64, wanted: Option<&State>, want: &State, found: &State) -> usize {
        let now = self.start + Duration::from_millis(millis);
        let asked = self.repairs.restrain(Arc::new(want.clone()), found, now);
        let observed = Observed { ours: found.clone(), ..Observed::default() };
        let report = Report { applied: vxlan::diff(&observed, &asked).changes, ..Report::default() };
        self.changes = report.applied.len();
        let before = wanted.zip(self.present.as_ref()).map(|(wanted, present)| Before { wanted, present });
        let repaired = self.repairs.note(before, found, want, &report, now, AUDIT).len();
        self.present = Some(State::clone(&asked));
        repaired
    }

    fn fights(&self) -> Vec<String> {
        self.repairs.fights.keys().map(ToString::to_string).collect()
    }
}

fn without(object: &Object) -> State {
    let mut state = wanted();
    leave(&mut state, &State::default(), object);
    state
}

#[test]
fn a_first_pass_and_a_changed_wish_are_no_repairs() {
    let mut test = Test::new();
    assert_eq!(test.pass(0, &State::default()), 0);
    assert_eq!(test.changes, 5, "everything was made");
    assert_eq!(test.pass(1, &wanted()), 0);
    assert_eq!(test.pass(2, &without(&Object::Route(route(2)))), 1);
    let mut other = wanted();
    other.routes.remove(&route(3));
    // What was wanted before is not what is wanted now.
    let now = test.start + Duration::from_secs(1);
    let (before, found) = (wanted(), wanted());
    let observed = Observed { ours: found.clone(), ..Observed::default() };
    let report = Report { applied: vxlan::diff(&observed, &other).changes, ..Report::default() };
    assert_eq!(report.applied.len(), 1);
    let past = Before { wanted: &before, present: &before };
    assert!(test.repairs.note(Some(past), &found, &other, &report, now, AUDIT).is_empty());
}

#[test]
fn what_goes_with_a_device_that_we_changed_is_no_repair() {
    let mut test = Test::new();
    test.pass(0, &wanted());
    let mut found = wanted();
    found.links.get_mut(&tunnel()).unwrap().mtu = 9000;
    assert_eq!(test.pass(1, &found), 1);
    assert_eq!(
        test.pass(2, &without(&Object::Nexthop(NexthopId(7)))),
        0,
        "the kernel took it away with that"
    );
    assert_eq!(test.changes, 3);
    assert_eq!(test.pass(3, &without(&Object::Nexthop(NexthopId(7)))), 3, "somebody took it away");
}

#[test]
fn an_opponent_of_one_object_is_backed_off_from_and_the_rest_goes_on() {
    let mut test = Test::new();
    test.pass(0, &wanted());
    let object = Object::Route(route(2));
    for time in 1..=4 {
        assert_eq!(test.pass(time * 1000, &without(&object)), 1);
        assert_eq!(test.fights(), Vec::<String>::new());
    }
    assert_eq!(test.pass(5000, &without(&object)), 1);
    assert_eq!(test.fights(), ["route 10.244.2.0/24 table 254 metric 1120"]);
    // Left alone for a second; the other route is put back at once.
    let mut both = without(&object);
    both.routes.remove(&route(3));
    assert_eq!(test.pass(5500, &both), 1);
    assert_eq!(test.changes, 1);
    assert_eq!(test.pass(5900, &without(&object)), 0);
    assert_eq!(test.changes, 0);
    // Then tried again, and undone again: twice as long.
    let mut now = 6000;
    for expected in [2, 4, 8, 16, 30, 30] {
        assert_eq!(test.pass(now, &without(&object)), 0, "put back, undone long ago");
        assert_eq!(test.changes, 1);
        assert_eq!(test.pass(now + 10, &without(&object)), 1, "undone at once");
        assert_eq!(test.repairs.fights[&object].wait, Duration::from_secs(expected));
        assert_eq!(test.pass(now + 20, &without(&object)), 0);
        assert_eq!(test.changes, 0, "left alone");
        now += 10 + expected * 1000;
    }
    let finding = &test.repairs.findings(&Observed::default())[0];
    assert_eq!(
        (finding.kind, finding.subject.as_str()),
        ("RepairLoop", "route 10.244.2.0/24 table 254 metric 1120")
    );
    assert!(finding.message.contains("every 30 s only"), "{}", finding.message);
    // It gives up: put back, and over when it has stood for a while.
    test.pass(now, &without(&object));
    test.pass(now + 30_000, &wanted());
    assert_eq!(test.fights().len(), 1);
    test.pass(now + 61_000, &wanted());
    assert_eq!(test.fights(), Vec::<String>::new());
    assert_eq!(test.pass(now + 62_000, &without(&object)), 1);
}

#[test]
fn what_happens_now_and_then_is_no_fight() {
    let mut test = Test::new();
    test.pass(0, &wanted());
    for time in 1..=40 {
        assert_eq!(test.pass(time * 16_000, &without(&Object::Route(route(3)))), 1);
    }
    assert_eq!(test.fights(), Vec::<String>::new());
}

#[test]
fn a_device_that_is_deleted_again_and_again_is_one_fight() {
    let mut test = Test::new();
    let device = Object::Link(tunnel());
    test.pass(0, &wanted());
    for time in 1..=5 {
        test.pass(time * 1000, &without(&device));
    }
    assert_eq!(test.fights(), ["device pairway-vx4"]);
    // While it is left alone nothing is tried that needs it.
    test.pass(5500, &without(&device));
    assert_eq!(test.changes, 0);
    test.pass(6000, &without(&device));
    assert_eq!(test.changes, 5);
}

#[test]
fn what_the_kernel_refuses_is_undone_too_but_not_repaired() {
    let mut repairs = Repairs::default();
    let found = without(&Object::Route(route(2)));
    let start = Instant::now();
    for time in 0..MANY as u64 {
        let change = Change::AddRoute(route(2), wanted().routes[&route(2)].clone());
        let error = ApplyError { errno: 12, message: "no memory".to_owned() };
        let report = Report { failures: vec![Failure { change, error }], ..Report::default() };
        let want = wanted();
        let before = Before { wanted: &want, present: &want };
        let now = start + Duration::from_secs(time);
        assert!(repairs.note(Some(before), &found, &want, &report, now, AUDIT).is_empty());
    }
    assert_eq!(repairs.fights.len(), 1);
}

#[test]
fn the_rival_of_a_route_is_named_and_many_fights_are_summed_up() {
    let mut repairs = Repairs::default();
    for last in 0..=20 {
        let fight = Fight { times: 5, last: Instant::now(), wait: FIRST_WAIT, wanted: State::default() };
        repairs.fights.insert(Object::Route(route(last)), fight);
    }
    let rival = vxlan::InstalledRoute {
        key: RouteKey { metric: 0, ..route(0) },
        protocol: 12,
        link: None,
        gateway: Some([192, 0, 2, 9].into()),
    };
    let observed = Observed { foreign_routes: vec![rival], ..Observed::default() };
    let findings = repairs.findings(&observed);
    assert_eq!(findings.len(), LISTED + 1);
    assert!(findings[0].message.contains("proto 12 (bird)"), "{}", findings[0].message);
    assert_eq!(findings[LISTED].message, "and 11 more objects");
}

#[test]
fn what_is_wanted_otherwise_is_done_at_once_and_ends_the_fight() {
    let mut test = Test::new();
    test.pass(0, &wanted());
    let object = Object::Route(route(2));
    for time in 1..=5 {
        test.pass(time * 1000, &without(&object));
    }
    assert_eq!(test.fights().len(), 1);
    test.pass(5100, &without(&object));
    assert_eq!(test.changes, 0, "the control: left alone");
    let mut other = wanted();
    other.routes.get_mut(&route(2)).unwrap().mtu = Some(1400);
    test.pass_wanting(5200, &other, &without(&object));
    assert_eq!(test.changes, 1);
    assert_eq!(test.fights(), Vec::<String>::new());
}

#[test]
fn a_device_that_loses_all_of_its_nexthops_at_once_has_no_opponent() {
    let second = NexthopId(8);
    let mut want = wanted();
    let other = Gateway { address: [10, 244, 9, 0].into(), onlink: true };
    want.nexthops.insert(second, Nexthop { gateway: other, link: tunnel() });
    let lost = |ids: &[NexthopId]| {
        let mut found = want.clone();
        for id in ids {
            leave(&mut found, &State::default(), &Object::Nexthop(*id));
        }
        found
    };
    for (ids, opponents) in [(&[NexthopId(7), second][..], 0), (&[second][..], 1)] {
        let mut test = Test::new();
        test.pass_wanting(0, &want, &want);
        for time in 1..=8 {
            assert!(test.pass_wanting(time * 1000, &want, &lost(ids)) > 0 || opponents == 1);
        }
        assert_eq!(test.fights().len(), opponents, "{ids:?}");
    }
}

#[test]
fn what_is_undone_in_one_burst_is_undone_once() {
    let object = Object::Route(route(2));
    for (pace, opponents) in [(20, 0), (249, 0), (260, 1)] {
        let mut test = Test::new();
        test.pass(0, &wanted());
        for round in 0..u64::try_from(MANY).unwrap() {
            assert_eq!(test.pass(1000 + round * pace, &without(&object)), 1, "each is a repair");
        }
        assert_eq!(test.fights().len(), opponents, "every {pace} ms");
        // Whoever goes on is named, however quick he is.
        for round in 0..70 {
            test.pass(3000 + round * 20, &without(&object));
        }
        assert_eq!(test.fights().len(), 1, "every 20 ms for more than a second");
    }
}

/// A table with these nodes in its set.
fn with_nodes(nodes: impl IntoIterator<Item = u8>) -> State {
    let elements = nodes.into_iter().map(|last| [192, 0, 2, last].into()).collect();
    let sets = [("nodes".to_owned(), Set { key: SetKey::Ipv4, elements })].into();
    State { firewall: Some(Table { sets, ..Table::default() }), ..wanted() }
}

/// Nodes come and go while somebody flushes the ruleset: that is a fight, and a new node alone is no repair.
#[test]
fn who_deletes_a_table_in_which_nodes_change_is_an_opponent() {
    let (mut undone, mut quiet) = (Test::new(), Test::new());
    let mut last = [None, None];
    let mut repaired = [0, 0];
    for round in 0..8u8 {
        let want = with_nodes(0..=round);
        for (turn, test) in [&mut undone, &mut quiet].into_iter().enumerate() {
            let stood = test.present.clone().unwrap_or_default();
            let found = if turn == 0 { State { firewall: None, ..stood } } else { stood };
            let before = last[turn].replace(want.clone());
            repaired[turn] += test.pass_after(u64::from(round) * 2000, before.as_ref(), &want, &found);
        }
    }
    assert_eq!(undone.fights(), ["the nftables table"]);
    assert!(repaired[0] >= MANY, "{repaired:?}");
    assert_eq!((quiet.fights(), repaired[1]), (Vec::new(), 0));
}

/// Somebody changes our table again and again, and it is left to them for a while: a node that comes is let in all the same.
#[test]
fn nodes_come_and_go_in_a_table_that_is_fought_over() {
    let mut test = Test::new();
    let spoilt = |nodes: std::ops::RangeInclusive<u8>| {
        let mut state = with_nodes(nodes);
        state
            .firewall
            .as_mut()
            .unwrap()
            .chains
            .insert("theirs".to_owned(), Chain { base: None, rules: Vec::new() });
        state
    };
    let want = with_nodes(1..=3);
    test.pass_wanting(0, &want, &want);
    for round in 1..=5u64 {
        test.pass_wanting(round * 1000, &want, &spoilt(1..=3));
    }
    assert_eq!(test.fights(), ["the nftables table"]);
    let now = test.start + Duration::from_millis(5500);
    let asked = test.repairs.restrain(Arc::new(with_nodes(2..=4)), &spoilt(1..=3), now);
    assert_eq!(asked.firewall, spoilt(2..=4).firewall, "theirs stays for now, the nodes are ours");
    // The control: when the wait is over all is as it is wanted.
    let later = test.start + Duration::from_secs(8);
    let asked = test.repairs.restrain(Arc::new(with_nodes(2..=4)), &spoilt(1..=3), later);
    assert_eq!(asked.firewall, with_nodes(2..=4).firewall);
}
