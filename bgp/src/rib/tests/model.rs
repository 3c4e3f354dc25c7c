//! The RIB against a model that keeps what was told and works everything out anew.

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::decision::naive_rank;
use super::*;
use crate::rib::decision::Standing;

const PEERS: [&str; 3] = ["n2", "n3", "tor"];
const PREFIXES: [&str; 8] = [
    "0.0.0.0/0",
    "10.0.0.0/16",
    "10.0.1.0/24",
    "10.0.1.0/25",
    "10.0.2.0/24",
    "10.1.0.0/24",
    "fd10::/64",
    "fd10:0:0:1::/64",
];
const ADDRESSES: [&str; 5] = ["192.0.2.2", "192.0.2.3", "192.0.2.9", "2001:db8::2", "fe80::2"];

#[derive(Debug, Clone)]
enum Step {
    SetPeer(&'static str, Neighbor),
    RemovePeer(&'static str),
    SetFilter(&'static str, ImportFilter),
    SetOwn(BTreeSet<IpNet>),
    Up(&'static str, RouterId, BTreeSet<Family>),
    Down(&'static str),
    Clear(&'static str, Family),
    MarkStale(&'static str, Family),
    SweepStale(&'static str, Family),
    Update(&'static str, Update),
}

#[derive(Debug, Clone)]
struct Told {
    next_hop: IpAddr,
    link_local: Option<std::net::Ipv6Addr>,
    attributes: Arc<Attributes>,
    stale: bool,
}

#[derive(Debug)]
struct ModelPeer {
    neighbor: Neighbor,
    router_id: Option<RouterId>,
    families: BTreeSet<Family>,
    told: BTreeMap<IpNet, Told>,
}

#[derive(Debug, Default)]
struct Model {
    own: BTreeSet<IpNet>,
    peers: BTreeMap<String, ModelPeer>,
}

impl Model {
    /// False if the peer has more prefixes than it may.
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::SetOwn(own) => self.own.clone_from(own),
            Step::SetPeer(name, neighbor) => {
                let fresh = ModelPeer {
                    neighbor: neighbor.clone(),
                    router_id: None,
                    families: BTreeSet::new(),
                    told: BTreeMap::new(),
                };
                self.peers.entry((*name).to_owned()).or_insert(fresh).neighbor = neighbor.clone();
            }
            Step::RemovePeer(name) => {
                self.peers.remove(*name);
            }
            Step::SetFilter(name, _)
            | Step::Up(name, ..)
            | Step::Down(name)
            | Step::Clear(name, _)
            | Step::MarkStale(name, _)
            | Step::SweepStale(name, _)
            | Step::Update(name, _) => return self.peers.get_mut(*name).is_none_or(|peer| peer.step(step)),
        }
        true
    }

    fn refusal(&self, peer: &ModelPeer, prefix: IpNet, told: &Told) -> Option<Refusal> {
        let loops = told.attributes.originator_id == Some(id(1))
            || format!("{:?}", told.attributes.as_path).contains(&format!("Asn({OUR_ASN})"));
        let covering: Vec<_> = peer
            .neighbor
            .import
            .rules
            .iter()
            .filter(|rule| {
                let length = prefix.prefix_len();
                rule.prefix.contains(&prefix) && rule.lengths.0 <= length && length <= rule.lengths.1
            })
            .collect();
        let hops = [Some(told.next_hop), told.link_local.map(IpAddr::V6)];
        if loops {
            Some(Refusal::Loop)
        } else if self.own.contains(&prefix) {
            Some(Refusal::OwnPrefix)
        } else if covering.is_empty() {
            Some(Refusal::NotPermitted)
        } else if covering.iter().any(|rule| match &rule.next_hops {
            Some(permitted) => permitted.contains(&told.next_hop),
            None => hops.contains(&Some(peer.neighbor.address)),
        }) {
            None
        } else {
            Some(Refusal::NextHop)
        }
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::default();
        for (name, peer) in &self.peers {
            for (prefix, told) in &peer.told {
                if self.refusal(peer, *prefix, told).is_none() {
                    routes.routes.entry(*prefix).or_default().push(LearnedRoute {
                        peer: name.clone(),
                        next_hop: told.next_hop,
                        attributes: Arc::clone(&told.attributes),
                        stale: told.stale,
                    });
                }
            }
        }
        for paths in routes.routes.values_mut() {
            let standing = |name: &str| {
                let peer = &self.peers[name];
                Standing {
                    external: peer.neighbor.external,
                    router_id: peer.router_id,
                    address: peer.neighbor.address,
                }
            };
            *paths = naive_rank(paths, standing);
        }
        routes
    }

    fn inventory(&self, name: &str) -> Inventory {
        let mut inventory = Inventory::default();
        let Some(peer) = self.peers.get(name) else { return inventory };
        for (prefix, told) in &peer.told {
            match self.refusal(peer, *prefix, told) {
                None => *inventory.accepted.entry(Family::of(*prefix)).or_default() += 1,
                Some(refusal) => {
                    *inventory.refused.entry(refusal).or_default() += 1;
                    inventory.refused_prefixes.push((*prefix, refusal));
                }
            }
        }
        inventory
    }
}

impl ModelPeer {
    fn step(&mut self, step: &Step) -> bool {
        match step {
            Step::SetFilter(_, import) => self.neighbor.import = import.clone(),
            Step::Up(_, router_id, families) => {
                self.router_id = Some(*router_id);
                self.families.clone_from(families);
                self.told.retain(|prefix, _| families.contains(&Family::of(*prefix)));
            }
            Step::Down(_) => self.told.clear(),
            Step::Clear(_, family) => self.told.retain(|prefix, _| Family::of(*prefix) != *family),
            Step::SweepStale(_, family) => {
                self.told.retain(|prefix, told| Family::of(*prefix) != *family || !told.stale);
            }
            Step::MarkStale(_, family) => {
                self.told.retain(|prefix, told| Family::of(*prefix) != *family || !told.stale);
                for (_, told) in self.told.iter_mut().filter(|(prefix, _)| Family::of(**prefix) == *family) {
                    told.stale = true;
                }
            }
            Step::Update(_, update) => return self.update(update),
            Step::SetOwn(_) | Step::SetPeer(..) | Step::RemovePeer(_) => {}
        }
        true
    }

    fn update(&mut self, update: &Update) -> bool {
        let families = &self.families;
        let has = |prefix: &IpNet| families.contains(&Family::of(*prefix));
        for prefix in update.withdrawn.iter().copied().filter(has) {
            self.told.remove(&prefix);
        }
        for reach in &update.reach {
            for prefix in reach.prefixes.iter().copied().filter(has) {
                if self.told.len() >= self.neighbor.max_prefixes && !self.told.contains_key(&prefix) {
                    return false;
                }
                let told = Told {
                    next_hop: reach.next_hop,
                    link_local: reach.link_local,
                    attributes: update.attributes.clone().unwrap(),
                    stale: false,
                };
                self.told.insert(prefix, told);
            }
        }
        true
    }
}

fn prefix() -> impl Strategy<Value = IpNet> {
    select(&PREFIXES[..]).prop_map(net)
}

fn address() -> impl Strategy<Value = IpAddr> {
    select(&ADDRESSES[..]).prop_map(|text| text.parse().unwrap())
}

fn family() -> impl Strategy<Value = Family> {
    select(&Family::ALL[..])
}

fn import() -> impl Strategy<Value = ImportFilter> {
    let next_hops = prop_oneof![Just(None), btree_set(address(), 0..3).prop_map(Some)];
    let lengths = prop_oneof![Just((0, 128)), Just((24, 24)), Just((16, 25)), Just((25, 16))];
    let rule = (prefix(), lengths, next_hops).prop_map(|(prefix, lengths, next_hops)| ImportRule {
        prefix,
        lengths,
        next_hops,
    });
    vec(rule, 0..4).prop_map(|rules| ImportFilter { rules })
}

fn neighbor_strategy() -> impl Strategy<Value = Neighbor> {
    (address(), any::<bool>(), import(), prop_oneof![Just(3usize), Just(100)]).prop_map(
        |(address, external, import, max_prefixes)| Neighbor { address, external, import, max_prefixes },
    )
}

pub(super) fn attributes() -> impl Strategy<Value = Attributes> {
    let path = vec(select(vec![Asn(64513), Asn(64514), Asn(64515), OUR_ASN]), 0..3);
    let few = |values: Vec<Option<u32>>| select(values);
    let reflected = (select(vec![None, Some(id(1)), Some(id(3)), Some(id(4))]), 0..3usize);
    (path, few(vec![None, Some(0), Some(5)]), few(vec![None, Some(100), Some(50)]), any::<bool>(), reflected)
        .prop_map(|(path, med, local_pref, egp, (originator_id, clusters))| Attributes {
            origin: if egp { crate::wire::Origin::Egp } else { crate::wire::Origin::Igp },
            as_path: if path.is_empty() { Vec::new() } else { vec![AsSegment::Sequence(path)] },
            med,
            local_pref,
            originator_id,
            cluster_list: vec![[1, 1, 1, 1].into(); clusters],
            ..Attributes::default()
        })
}

fn update() -> impl Strategy<Value = Update> {
    let prefixes = || btree_set(prefix(), 0..5);
    (attributes(), address(), any::<bool>(), prefixes(), prefixes()).prop_map(
        |(attributes, next_hop, link_local, announced, withdrawn)| {
            let withdrawn = withdrawn.difference(&announced).copied().collect();
            let link_local = link_local.then(|| "fe80::2".parse().unwrap());
            let reach = Reach { next_hop, link_local, prefixes: announced.into_iter().collect() };
            if reach.prefixes.is_empty() {
                return Update { withdrawn, ..Update::default() };
            }
            Update {
                withdrawn,
                reach: vec![reach],
                attributes: Some(Arc::new(attributes)),
                ..Update::default()
            }
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let peer = || select(&PEERS[..]);
    let own = btree_set(prefix(), 0..3);
    let families =
        subsequence(Family::ALL.to_vec(), 0..=2).prop_map(|families| families.into_iter().collect());
    prop_oneof![
        1 => (peer(), neighbor_strategy()).prop_map(|(peer, neighbor)| Step::SetPeer(peer, neighbor)),
        1 => peer().prop_map(Step::RemovePeer),
        2 => (peer(), import()).prop_map(|(peer, import)| Step::SetFilter(peer, import)),
        1 => own.prop_map(Step::SetOwn),
        2 => (peer(), (2..5u8).prop_map(id), families).prop_map(|(peer, id, families)| Step::Up(peer, id, families)),
        1 => peer().prop_map(Step::Down),
        1 => (peer(), family()).prop_map(|(peer, family)| Step::Clear(peer, family)),
        2 => (peer(), family()).prop_map(|(peer, family)| Step::MarkStale(peer, family)),
        2 => (peer(), family()).prop_map(|(peer, family)| Step::SweepStale(peer, family)),
        14 => (peer(), update()).prop_map(|(peer, update)| Step::Update(peer, update)),
    ]
}

/// Three peers that are up and may tell all, so that most steps act on something.
fn opening() -> Vec<Step> {
    let all = ["0.0.0.0/0", "::/0"].map(|prefix| ImportRule {
        prefix: net(prefix),
        lengths: (0, 128),
        next_hops: Some(ADDRESSES.iter().map(|text| text.parse().unwrap()).collect()),
    });
    let mut steps = Vec::new();
    for (peer, last) in PEERS.into_iter().zip(2..) {
        let mut neighbor = neighbor(ADDRESSES[0], all.to_vec());
        neighbor.external = peer == "tor";
        steps.push(Step::SetPeer(peer, neighbor));
        steps.push(Step::Up(peer, id(last), BTreeSet::from(Family::ALL)));
    }
    steps
}

fn act(rib: &mut Rib, step: &Step) -> Result<Vec<IpNet>, PrefixLimitExceeded> {
    Ok(match step {
        Step::SetPeer(peer, neighbor) => rib.set_peer(peer, neighbor.clone()),
        Step::RemovePeer(peer) => rib.remove_peer(peer),
        Step::SetFilter(peer, import) => rib.set_filter(peer, import.clone()),
        Step::SetOwn(own) => rib.set_own(own.clone()),
        Step::Up(peer, router_id, families) => rib.peer_up(peer, *router_id, families.clone()),
        Step::Down(peer) => rib.peer_down(peer),
        Step::Clear(peer, family) => rib.clear(peer, *family),
        Step::MarkStale(peer, family) => rib.mark_stale(peer, *family),
        Step::SweepStale(peer, family) => rib.sweep_stale(peer, *family),
        Step::Update(peer, update) => return rib.update(peer, update),
    })
}

/// Prefixes whose paths differ.
fn difference(before: &Routes, after: &Routes) -> BTreeSet<IpNet> {
    let prefixes = before.routes.keys().chain(after.routes.keys()).copied();
    prefixes.filter(|prefix| before.routes.get(prefix) != after.routes.get(prefix)).collect()
}

proptest! {
    #[test]
    fn rib_is_its_model(steps in vec(step(), 1..60)) {
        let mut rib = Rib::new(OUR_ASN, id(1));
        let mut model = Model::default();
        for step in opening().into_iter().chain(steps) {
            let before = rib.routes();
            let result = act(&mut rib, &step);
            prop_assert_eq!(result.is_ok(), model.step(&step), "{:?}", step);
            let changed = match result {
                Ok(changed) => changed,
                Err(exceeded) => exceeded.changed,
            };
            let routes = rib.routes();
            prop_assert_eq!(&*routes, &model.routes(), "{:?}", &step);
            let said: BTreeSet<IpNet> = changed.iter().copied().collect();
            prop_assert_eq!(said.len(), changed.len(), "none twice: {:?}", changed);
            prop_assert_eq!(said, difference(&before, &routes), "{:?}", &step);
            for peer in PEERS {
                prop_assert_eq!(rib.inventory(peer), model.inventory(peer), "{}", peer);
            }
        }
    }
}
