//! Policy rules.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use crate::state::{ForeignRule, Rule, RuleAction as Action};

use super::attributes::{attributes, ip, text, u8_at, u32_at};
use super::request::{CREATE, EXCL, Request, family};

pub(super) const RTM_NEWRULE: u16 = 32;
pub(super) const RTM_GETRULE: u16 = 34;

pub(super) const HEADER: usize = 12;
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_IIFNAME: u16 = 3;
const FRA_PRIORITY: u16 = 6;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_PAD: u16 = 18;
const FRA_PROTOCOL: u16 = 21;
const FR_ACT_TO_TBL: u8 = 1;
/// `FR_ACT_BLACKHOLE` to `FR_ACT_PROHIBIT`.
const FR_ACT_ENDS: std::ops::RangeInclusive<u8> = 6..=8;
const FIB_RULE_INVERT: u32 = 2;

/// Reads a `fib_rule_hdr`: the rule and its protocol; nothing if it is of no form that we write.
pub(super) fn decode(body: &[u8]) -> Option<(Rule, u8)> {
    let (to, from, tos, table) = (u8_at(body, 1)?, u8_at(body, 2)?, u8_at(body, 3)?, u8_at(body, 4)?);
    let (action, flags) = (u8_at(body, 7)?, u32_at(body, 8)?);
    if to != 0 || tos != 0 || action != FR_ACT_TO_TBL || flags != 0 {
        return None;
    }
    let (mut source, mut priority, mut protocol): (Option<IpAddr>, u32, u8) = (None, 0, 0);
    let mut table = u32::from(table);
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            FRA_SRC => source = ip(value),
            FRA_PRIORITY => priority = u32_at(value, 0)?,
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_PROTOCOL => protocol = u8_at(value, 0)?,
            FRA_SUPPRESS_PREFIXLEN if u32_at(value, 0)? == u32::MAX => {}
            FRA_PAD => {}
            _ => return None,
        }
    }
    let from = IpNet::new(source?, from).ok()?;
    Some((Rule { priority, from, table }, protocol))
}

/// Reads any rule, for what it may do to packets of ours.
pub(super) fn decode_foreign(body: &[u8]) -> Option<ForeignRule> {
    let (family, to, from, tos) = (u8_at(body, 0)?, u8_at(body, 1)?, u8_at(body, 2)?, u8_at(body, 3)?);
    let (action, flags) = (u8_at(body, 7)?, u32_at(body, 8)?);
    let net = |ip: Option<IpAddr>, length| IpNet::new(ip?, length).ok().map(|net| net.trunc());
    let mut rule = ForeignRule {
        ipv6: i32::from(family) == libc::AF_INET6,
        priority: 0,
        from: None,
        to: None,
        input: None,
        asks_more: tos != 0 || flags & FIB_RULE_INVERT != 0,
        action: Action::Other,
        protocol: 0,
    };
    let (mut table, mut suppress) = (u32::from(u8_at(body, 4)?), None);
    for (kind, value) in attributes(body.get(HEADER..)?) {
        match kind {
            FRA_DST => rule.to = net(ip(value), to),
            FRA_SRC => rule.from = net(ip(value), from),
            FRA_IIFNAME => rule.input = Some(text(value)),
            FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
            FRA_TABLE => table = u32_at(value, 0)?,
            FRA_PROTOCOL => rule.protocol = u8_at(value, 0)?,
            FRA_SUPPRESS_PREFIXLEN => suppress = u32_at(value, 0).filter(|length| *length != u32::MAX),
            FRA_PAD => {}
            _ => rule.asks_more = true,
        }
    }
    match action {
        FR_ACT_TO_TBL => rule.action = Action::Lookup { table, suppress },
        action if FR_ACT_ENDS.contains(&action) => rule.action = Action::End,
        _ => {}
    }
    Some(rule)
}

pub(super) fn add(rule: &Rule, protocol: u8) -> Request {
    Request::new(&RouteNetlinkMessage::NewRule(message(rule, protocol)), CREATE | EXCL)
}

/// Deletes a rule if it carries our protocol.
pub(super) fn delete(rule: &Rule, protocol: u8) -> Request {
    Request::new(&RouteNetlinkMessage::DelRule(message(rule, protocol)), 0)
}

fn message(rule: &Rule, protocol: u8) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family(rule.from.addr());
    message.header.src_len = rule.from.prefix_len();
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Source(rule.from.network()),
        RuleAttribute::Priority(rule.priority),
        RuleAttribute::Table(rule.table),
        RuleAttribute::Protocol(RouteProtocol::from(protocol)),
    ];
    message
}
