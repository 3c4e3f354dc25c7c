//! Which path a pair of nodes uses, and why: a pure function that gives the same answer at both ends.
//!
//! The ends are put in the order of their names before anything is looked at, so `decide(a, b, ..)` equals
//! `decide(b, a, ..)` to the last word of the sentence. The daemon, the CLI and the tests call the same
//! function. What a pair's *evidence* is, is worked out in `plan`; here it only overrules the prediction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use bgp::Family;
use config::{NodeSelector, PathUse, Paths};
use ipnet::IpNet;
use sha2::{Digest, Sha256};
use vxlan::IpTunnel;

use crate::node::{NodeName, NodeRecord, Underlay};

/// Word for a node that can receive pod packets without encapsulation.
pub const NATIVE: &str = "native";
/// Word for a node that can receive VXLAN.
pub const VXLAN: &str = "vxlan";
/// Word for IP-in-IP as a path. As capabilities there are two, one per family of pods: [`ip_tunnel`].
pub const IPIP: &str = "ipip";

/// How pod packets get from one node of a pair to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Path {
    /// Without encapsulation, by the peer's underlay address.
    Native,
    /// Through the VXLAN device.
    Vxlan,
    /// Through the device for IP-in-IP of this family of pods.
    Ipip,
    /// Not at all.
    None,
}

impl Path {
    /// As programs read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => NATIVE,
            Self::Vxlan => VXLAN,
            Self::Ipip => IPIP,
            Self::None => "none",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One end of a pair, as far as the decision looks at it.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// What the node says of itself.
    pub record: &'a NodeRecord,
    /// The node holds a block of the family that is decided on.
    pub has_block: bool,
}

/// What the BGP session of a pair has shown, for one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Evidence {
    /// Nothing yet: the session has never been up, or its routes are still coming.
    Waiting,
    /// The session is up and has delivered the peer's blocks.
    Delivered,
    /// The peer restarts gracefully; what it had delivered is kept (RFC 4724).
    Restarting,
    /// The pair was native before this agent restarted, or before an end moved to another address: the session has
    /// time to come back.
    Held,
    /// The session is up and complete, without the peer's blocks among its routes.
    Missing,
    /// The session is up, but not for this family.
    NotNegotiated,
    /// The session has been up and is lost.
    Down,
}

impl Evidence {
    /// Every value, for tests and tables.
    pub const ALL: [Self; 7] = [
        Self::Waiting,
        Self::Delivered,
        Self::Restarting,
        Self::Held,
        Self::Missing,
        Self::NotNegotiated,
        Self::Down,
    ];
}

/// Why a pair has its path: a stable word that programs may test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Native: the session has delivered the peer's blocks.
    Bgp,
    /// Native: kept while the peer restarts gracefully.
    BgpRestarting,
    /// Native: kept after our own restart, or after an end moved to another address, until the session is back.
    BgpHeld,
    /// Native: from the store, without BGP.
    Direct,
    /// The policy for pairs in one subnet asks for this path.
    SameSubnet,
    /// The policy for pairs in different subnets asks for this path.
    CrossSubnet,
    /// An end has a /32 or /128 address, which is in nobody's subnet: treated as another subnet.
    HostPrefix,
    /// A rule asks for this path.
    Rule,
    /// Fallback: the session has not been up yet.
    BgpWaiting,
    /// Fallback: the session is lost.
    BgpDown,
    /// Fallback: the session does not carry the peer's blocks.
    BgpNoRoute,
    /// Fallback: a native path is asked for, but the ends do not share a subnet.
    OffLink,
    /// Fallback: a native path is asked for, but an end has no underlay address of this family.
    NoUnderlayFamily,
    /// The ends are configured differently; they use a path that both can receive.
    PolicyDiffers,
    /// The ends have different VXLAN network identifiers.
    VniDiffers,
    /// The ends have different VXLAN ports.
    PortDiffers,
    /// An end can't receive what is asked for.
    Capability,
    /// The ends have no underlay family in common.
    NoCommonUnderlay,
    /// Both ends claim the same underlay address.
    SameAddress,
    /// An end holds no block of this family.
    NoBlock,
}

impl Reason {
    /// The stable word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bgp => "bgp",
            Self::BgpRestarting => "bgp-restarting",
            Self::BgpHeld => "bgp-held",
            Self::Direct => "direct",
            Self::SameSubnet => "same-subnet",
            Self::CrossSubnet => "cross-subnet",
            Self::HostPrefix => "host-prefix",
            Self::Rule => "rule",
            Self::BgpWaiting => "bgp-waiting",
            Self::BgpDown => "bgp-down",
            Self::BgpNoRoute => "bgp-no-route",
            Self::OffLink => "off-link",
            Self::NoUnderlayFamily => "no-underlay-family",
            Self::PolicyDiffers => "policy-differs",
            Self::VniDiffers => "vni-differs",
            Self::PortDiffers => "port-differs",
            Self::Capability => "capability",
            Self::NoCommonUnderlay => "no-common-underlay",
            Self::SameAddress => "same-address",
            Self::NoBlock => "no-block",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What was decided for a pair and a family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The path to use.
    pub path: Path,
    /// The path that policy and records predict; evidence and disagreement may overrule it.
    pub predicted: Path,
    /// Why `path`.
    pub reason: Reason,
    /// The same as a sentence.
    pub detail: String,
    /// The pair needs a BGP session for this family, whatever the session has shown so far.
    pub needs_session: bool,
}

/// How two nodes lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Each end lies in the other's prefix.
    SameSubnet,
    /// They do not.
    CrossSubnet,
    /// They do not, and at least one of them has a prefix of a single address.
    HostPrefix,
}

/// Decides the path of a pair for one family of pod addresses. Total, deterministic and symmetric in `a` and `b`.
#[must_use]
pub fn decide(a: End<'_>, b: End<'_>, family: Family, policy: &Paths, evidence: Evidence) -> Decision {
    let (a, b) = if a.record.name <= b.record.name { (a, b) } else { (b, a) };
    let ends = Ends { a: a.record, b: b.record, family };
    for end in [a, b] {
        if !end.has_block {
            let detail = format!("{} holds no {family} block", end.record.name);
            return Decision {
                path: Path::None,
                predicted: Path::None,
                reason: Reason::NoBlock,
                detail,
                needs_session: false,
            };
        }
    }
    let wish = ends.wish(policy);
    let ideal = ends.follow(&wish, policy, Evidence::Delivered);
    let needs_session = wish.use_ == PathUse::Bgp && ends.native().is_ok();
    let verdict = if a.record.common_digest == b.record.common_digest {
        ends.follow(&wish, policy, evidence)
    } else {
        ends.agree()
    };
    Decision {
        path: verdict.path,
        predicted: ideal.path,
        reason: verdict.reason,
        detail: verdict.detail,
        needs_session,
    }
}

/// The class of a pair in one underlay family; `None` if an end has no address of it.
#[must_use]
pub fn class(a: &Underlay, b: &Underlay, family: Family) -> Option<Class> {
    let (a, b) = (address(a, family)?, address(b, family)?);
    Some(if a.contains(&b.addr()) && b.contains(&a.addr()) {
        Class::SameSubnet
    } else if is_host(a) || is_host(b) {
        Class::HostPrefix
    } else {
        Class::CrossSubnet
    })
}

/// The underlay family that carries the tunnel of a pair, or why there can be none.
///
/// # Errors
/// The reason, and the sentence that goes with it.
pub fn tunnel_underlay(a: &NodeRecord, b: &NodeRecord) -> Result<Family, (Reason, String)> {
    let (a, b) = if a.name <= b.name { (a, b) } else { (b, a) };
    for end in [a, b] {
        if !end.capabilities.contains(VXLAN) {
            return Err((Reason::Capability, format!("{} can't receive VXLAN", end.name)));
        }
    }
    if a.vni != b.vni {
        return Err((
            Reason::VniDiffers,
            format!("{} uses VXLAN network identifier {}, {} uses {}", a.name, a.vni, b.name, b.vni),
        ));
    }
    if a.vxlan_port != b.vxlan_port {
        return Err((
            Reason::PortDiffers,
            format!("{} uses VXLAN port {}, {} uses {}", a.name, a.vxlan_port, b.name, b.vxlan_port),
        ));
    }
    let family = Family::ALL
        .into_iter()
        .find(|family| address(&a.underlay, *family).is_some() && address(&b.underlay, *family).is_some())
        .ok_or_else(|| {
            (
                Reason::NoCommonUnderlay,
                format!("{} and {} have no underlay address family in common", a.name, b.name),
            )
        })?;
    differing_address(a, b, family)?;
    Ok(family)
}

/// The kind of tunnel that carries pods of a family in IP-in-IP. Its name is also the capability's.
#[must_use]
pub const fn ip_tunnel(family: Family) -> IpTunnel {
    match family {
        Family::Ipv4 => IpTunnel::Ipip,
        Family::Ipv6 => IpTunnel::Sit,
    }
}

/// Whether a pair can use IP-in-IP for a family of pods, or why not. It always goes over IPv4: of IPv6 the kernel takes
/// no peer's address as the gateway of a tunnel (`vxlan::IpTunnel`).
///
/// # Errors
/// The reason, and the sentence that goes with it.
pub fn ipip_underlay(a: &NodeRecord, b: &NodeRecord, family: Family) -> Result<(), (Reason, String)> {
    let (a, b) = if a.name <= b.name { (a, b) } else { (b, a) };
    let kind = ip_tunnel(family);
    for end in [a, b] {
        if end.underlay.ipv4.is_none() {
            return Err((
                Reason::NoCommonUnderlay,
                format!("IP-in-IP goes over IPv4, and {} has no such underlay address", end.name),
            ));
        }
        if !end.capabilities.contains(kind.as_str()) {
            return Err((
                Reason::Capability,
                format!(
                    "{} can't receive IP-in-IP for {family}: its kernel may lack the module ({kind})",
                    end.name
                ),
            ));
        }
    }
    differing_address(a, b, Family::Ipv4)
}

/// Underlay address of a family, with its prefix length.
#[must_use]
pub fn address(underlay: &Underlay, family: Family) -> Option<IpNet> {
    match family {
        Family::Ipv4 => underlay.ipv4.map(IpNet::V4),
        Family::Ipv6 => underlay.ipv6.map(IpNet::V6),
    }
}

/// A digest of what both ends of a pair must have in common. Ends that differ are shown, and use meanwhile a
/// path that both can receive. What an end *can* do (capabilities, families of its pools) is not part of it: each
/// pair uses what both ends can, so that a version that can more changes nothing for the others.
///
/// The text that is hashed is written out by hand: it must be the same in every version of the agent.
#[must_use]
pub fn common_digest(policy: &Paths, vni: u32, port: u16) -> String {
    let mut text = format!(
        "same={}\ncross={}\nfallback={}\nvni={vni}\nport={port}\n",
        use_word(policy.same_subnet),
        use_word(policy.cross_subnet),
        use_word(policy.fallback),
    );
    for rule in &policy.rules {
        let mut sides = rule.between.each_ref().map(selector_text);
        // The two selectors of a rule are unordered: so is what is hashed.
        sides.sort();
        text += &format!("rule={}|{}|{}\n", sides[0], sides[1], use_word(rule.use_));
    }
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The ends in the order of their names.
struct Ends<'a> {
    a: &'a NodeRecord,
    b: &'a NodeRecord,
    family: Family,
}

/// What the policy asks for, and which line of it.
struct Wish {
    use_: PathUse,
    reason: Reason,
    because: String,
}

struct Verdict {
    path: Path,
    reason: Reason,
    detail: String,
}

impl Ends<'_> {
    fn wish(&self, policy: &Paths) -> Wish {
        let matching = policy.rules.iter().enumerate().find(|(_, rule)| {
            let [x, y] = &rule.between;
            (selects(x, self.a) && selects(y, self.b)) || (selects(y, self.a) && selects(x, self.b))
        });
        if let Some((index, rule)) = matching {
            return Wish {
                use_: rule.use_,
                reason: Reason::Rule,
                because: format!("rule {} says {}", index + 1, use_word(rule.use_)),
            };
        }
        // Pods may have a family that the underlay lacks: then the other family tells how the nodes lie.
        let class = [self.family, other(self.family)].into_iter().find_map(|family| {
            class(&self.a.underlay, &self.b.underlay, family).map(|class| (class, family))
        });
        let pair = format!("{} and {}", self.a.name, self.b.name);
        match class {
            Some((Class::SameSubnet, family)) => Wish {
                use_: policy.same_subnet,
                reason: Reason::SameSubnet,
                because: format!(
                    "{pair} share the subnet {}, sameSubnet is {}",
                    address(&self.a.underlay, family).map_or_else(String::new, |net| net.trunc().to_string()),
                    use_word(policy.same_subnet)
                ),
            },
            Some((Class::HostPrefix, family)) => {
                let hosts: Vec<String> = [self.a, self.b]
                    .into_iter()
                    .filter_map(|end| address(&end.underlay, family).map(|net| (end, net)))
                    .filter(|(_, net)| is_host(*net))
                    .map(|(end, net)| format!("{} has the address {net}", end.name))
                    .collect();
                Wish {
                    use_: policy.cross_subnet,
                    reason: Reason::HostPrefix,
                    because: format!(
                        "{}, which is in nobody's subnet, crossSubnet is {}",
                        hosts.join(" and "),
                        use_word(policy.cross_subnet)
                    ),
                }
            }
            Some((Class::CrossSubnet, _)) | None => Wish {
                use_: policy.cross_subnet,
                reason: Reason::CrossSubnet,
                because: format!(
                    "{pair} are in different subnets, crossSubnet is {}",
                    use_word(policy.cross_subnet)
                ),
            },
        }
    }

    /// What follows from a wish when both ends are configured alike.
    fn follow(&self, wish: &Wish, policy: &Paths, evidence: Evidence) -> Verdict {
        match wish.use_ {
            PathUse::None => Verdict { path: Path::None, reason: wish.reason, detail: wish.because.clone() },
            PathUse::Vxlan => match tunnel_underlay(self.a, self.b) {
                Ok(_) => Verdict { path: Path::Vxlan, reason: wish.reason, detail: wish.because.clone() },
                // What one end can't do is no other wish: they use what both can.
                Err((Reason::Capability, why)) if self.native().is_ok() => Verdict {
                    path: Path::Native,
                    reason: Reason::Capability,
                    detail: format!("{}, but {why}; native is what both can receive", wish.because),
                },
                Err((reason, detail)) => Verdict { path: Path::None, reason, detail },
            },
            PathUse::Ipip => match ipip_underlay(self.a, self.b, self.family) {
                Ok(()) => Verdict { path: Path::Ipip, reason: wish.reason, detail: wish.because.clone() },
                Err((reason, why)) => self.fallback(policy, reason, format!("{}, but {why}", wish.because)),
            },
            PathUse::Direct => match self.native() {
                Ok(()) => {
                    Verdict { path: Path::Native, reason: Reason::Direct, detail: wish.because.clone() }
                }
                Err((reason, detail)) => self.fallback(policy, reason, detail),
            },
            PathUse::Bgp => match self.native() {
                Ok(()) => self.by_session(wish, policy, evidence),
                Err((reason, detail)) => self.fallback(policy, reason, detail),
            },
        }
    }

    fn by_session(&self, wish: &Wish, policy: &Paths, evidence: Evidence) -> Verdict {
        let native = |reason, what: &str| Verdict {
            path: Path::Native,
            reason,
            detail: format!("{}; {what}", wish.because),
        };
        let back =
            |reason, what: &str| self.fallback(policy, reason, format!("{}, but {what}", wish.because));
        match evidence {
            Evidence::Delivered => native(Reason::Bgp, "the BGP session has delivered the blocks"),
            Evidence::Restarting => {
                native(Reason::BgpRestarting, "the BGP session restarts gracefully and its routes are kept")
            }
            Evidence::Held => native(Reason::BgpHeld, "kept as it was until the BGP session is back"),
            Evidence::Waiting => back(Reason::BgpWaiting, "the BGP session has not delivered yet"),
            Evidence::Down => back(Reason::BgpDown, "the BGP session is lost"),
            Evidence::Missing => {
                back(Reason::BgpNoRoute, "the BGP session is up without a route to every block")
            }
            Evidence::NotNegotiated => {
                let what = format!("the BGP session does not carry {}", self.family);
                back(Reason::BgpNoRoute, &what)
            }
        }
    }

    /// What the ends use while they are configured differently: it must not depend on the policy of either.
    fn agree(&self) -> Verdict {
        let differ = format!("{} and {} are configured differently", self.a.name, self.b.name);
        match (tunnel_underlay(self.a, self.b), self.native()) {
            (Ok(_), _) => Verdict {
                path: Path::Vxlan,
                reason: Reason::PolicyDiffers,
                detail: format!("{differ}; VXLAN is what both can receive"),
            },
            (Err((reason, why)), Ok(())) => Verdict {
                path: Path::Native,
                reason,
                detail: format!("{differ}: {why}; native is what both can receive"),
            },
            (Err((reason, why)), Err(_)) => {
                Verdict { path: Path::None, reason, detail: format!("{differ}: {why}") }
            }
        }
    }

    /// The path where what is asked for does not work; `why` stays the reason.
    fn fallback(&self, policy: &Paths, reason: Reason, why: String) -> Verdict {
        match policy.fallback {
            PathUse::Ipip if ipip_underlay(self.a, self.b, self.family).is_ok() => {
                Verdict { path: Path::Ipip, reason, detail: why }
            }
            // An end that lacks IP-in-IP has VXLAN.
            PathUse::Vxlan | PathUse::Ipip => match tunnel_underlay(self.a, self.b) {
                Ok(_) => Verdict { path: Path::Vxlan, reason, detail: why },
                Err((_, tunnel)) => Verdict {
                    path: Path::None,
                    reason,
                    detail: format!("{why}; the fallback does not work either: {tunnel}"),
                },
            },
            // A native fallback for a native path that does not work is no fallback.
            PathUse::None | PathUse::Bgp | PathUse::Direct => {
                Verdict { path: Path::None, reason, detail: format!("{why}; the fallback is none") }
            }
        }
    }

    /// Whether packets can go without encapsulation as far as the records tell.
    fn native(&self) -> Result<(), (Reason, String)> {
        for end in [self.a, self.b] {
            if !end.capabilities.contains(NATIVE) {
                return Err((Reason::Capability, format!("{} can't receive native packets", end.name)));
            }
            if address(&end.underlay, self.family).is_none() {
                return Err((
                    Reason::NoUnderlayFamily,
                    format!("{} has no {} underlay address to be a next hop", end.name, self.family),
                ));
            }
        }
        differing_address(self.a, self.b, self.family)?;
        match class(&self.a.underlay, &self.b.underlay, self.family) {
            Some(Class::SameSubnet) => Ok(()),
            Some(Class::CrossSubnet | Class::HostPrefix) | None => Err((
                Reason::OffLink,
                format!(
                    "a native path is asked for, but {} and {} share no {} subnet",
                    self.a.name, self.b.name, self.family
                ),
            )),
        }
    }
}

fn differing_address(a: &NodeRecord, b: &NodeRecord, family: Family) -> Result<(), (Reason, String)> {
    match (address(&a.underlay, family), address(&b.underlay, family)) {
        (Some(x), Some(y)) if x.addr() == y.addr() => Err((
            Reason::SameAddress,
            format!("{} and {} both have the underlay address {}", a.name, b.name, x.addr()),
        )),
        _ => Ok(()),
    }
}

fn selects(selector: &NodeSelector, node: &NodeRecord) -> bool {
    let within = |cidr: IpNet| {
        Family::ALL
            .into_iter()
            .filter_map(|family| address(&node.underlay, family))
            .any(|net| cidr.contains(&net.addr()))
    };
    has_labels(&node.labels, &selector.labels) && selector.cidr.is_none_or(within)
}

/// Whether a node has all labels that a selector names.
#[must_use]
pub fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn selector_text(selector: &NodeSelector) -> String {
    let labels: Vec<String> =
        selector.labels.iter().map(|(key, value)| format!("{key:?}={value:?}")).collect();
    format!("{};{}", labels.join(","), selector.cidr.map_or_else(String::new, |cidr| cidr.to_string()))
}

const fn use_word(use_: PathUse) -> &'static str {
    match use_ {
        PathUse::Bgp => "bgp",
        PathUse::Direct => "direct",
        PathUse::Vxlan => VXLAN,
        PathUse::Ipip => IPIP,
        PathUse::None => "none",
    }
}

const fn other(family: Family) -> Family {
    match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    }
}

fn is_host(net: IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// What every agent of this version can receive. What depends on the node's kernel comes to it in its record, and is no
/// part of what both ends must have in common.
#[must_use]
pub fn capabilities() -> BTreeSet<String> {
    [NATIVE, VXLAN].map(str::to_owned).into()
}

/// The address of an end that serves a path, without prefix length.
#[must_use]
pub fn serving_address(end: &NodeRecord, peer: &NodeRecord, path: Path, family: Family) -> Option<IpAddr> {
    let underlay = match path {
        Path::Native => family,
        Path::Vxlan => tunnel_underlay(end, peer).ok()?,
        Path::Ipip => Family::Ipv4,
        Path::None => return None,
    };
    address(&end.underlay, underlay).map(|net| net.addr())
}

/// The smaller name breaks ties between two ends: it dials.
#[must_use]
pub fn dials(own: &NodeName, peer: &NodeName) -> bool {
    own < peer
}

#[cfg(test)]
mod tests;
