use vxlan::{NexthopId, Route, RouteKey, RouteTarget};

use super::*;

fn nets(texts: &[&str]) -> Arc<[IpNet]> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn state() -> Arc<State> {
    let mut state = State::default();
    let key = RouteKey { table: 254, prefix: "10.244.7.0/24".parse().unwrap(), metric: 1120 };
    let target = RouteTarget::Nexthop(NexthopId(7));
    state.routes.insert(key, Route { target, source: None, mtu: None });
    state.rp_filter.insert("eth0".parse().unwrap(), 2);
    Arc::new(state)
}

fn known(asked: &Arc<State>, present: &Arc<State>, written: &[Change], looked: Instant) -> Option<Known> {
    let rp_filter = [("eth0".parse().unwrap(), 2), ("br0".parse().unwrap(), 1)].into();
    let rest = Observed { rp_filter_all: 1, ..Observed::default() };
    let done = Done { rest, rp_filter, asked, present, written };
    Known::after(done, nets(&["10.244.0.0/16", "10.244.7.0/24", "192.0.2.7/32"]), looked)
}

#[test]
fn what_stands_as_it_was_asked_is_known_as_it_would_be_seen() {
    let (state, now) = (state(), Instant::now());
    let observed = known(&state, &state, &[], now).unwrap().observed();
    assert_eq!((observed.ours.routes.len(), observed.rp_filter_all), (1, 1));
    assert_eq!(observed.ours.rp_filter.len(), 2, "of devices of others too");
}

#[test]
fn where_something_is_in_the_way_or_more_may_have_changed_nothing_is_known() {
    let (asked, now) = (state(), Instant::now());
    assert!(known(&asked, &Arc::default(), &[], now).is_none());
    let (link, id) = ("pairway-vx4".parse().unwrap(), NexthopId(7));
    for (change, expected) in [
        (Change::DeleteNexthop(id), true),
        (Change::ChangeSets(Vec::new()), true),
        (Change::DeleteLink(link), false),
        (Change::DeleteFirewall, false),
    ] {
        let told = change.to_string();
        assert_eq!(known(&asked, &asked, &[change], now).is_some(), expected, "{told}");
    }
}

#[test]
fn it_serves_for_a_moment_and_where_no_other_networks_are_watched() {
    let (state, now) = (state(), Instant::now());
    let known = known(&state, &state, &[], now).unwrap();
    let same = nets(&["10.244.0.0/16", "10.244.7.0/24", "192.0.2.7/32"]);
    let moved = nets(&["10.244.0.0/16", "10.244.7.0/24", "192.0.2.77/32", "192.0.2.78/32"]);
    let block = nets(&["10.244.0.0/16", "10.244.7.0/24", "10.244.8.0/24", "192.0.2.7/32"]);
    assert!(known.serves(&same, now) && known.serves(&moved, now) && !known.serves(&block, now));
    assert!(known.serves(&same, now + TRUSTED - Duration::from_millis(1)));
    assert!(!known.serves(&same, now + TRUSTED));
}
