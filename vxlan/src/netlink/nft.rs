//! nftables (`linux/netfilter/nf_tables.h`): our one table, written as a transaction and read back.
//!
//! `encode` and `decode` turn values into messages and back, pure; `look` reads what there is of ours, `others` what
//! concerns us of theirs, and `write` makes the transactions. The kernel numbers its rule sets (a generation): where the number is the same as last time, nothing
//! but our counters is read again, however many rules others have.

mod decode;
mod encode;
mod look;
mod others;
mod watch;
mod write;

pub(super) use look::Nft;
pub(super) use watch::Watch;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u8 = 10;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
const IPV4: u8 = 2;
const IPV6: u8 = 10;
/// `struct nfgenmsg`: family, version, resource.
const HEADER: usize = 4;

/// `NFT_MSG_*`.
mod message {
    pub(super) const NEW_TABLE: u8 = 0;
    pub(super) const GET_TABLE: u8 = 1;
    pub(super) const DELETE_TABLE: u8 = 2;
    pub(super) const NEW_CHAIN: u8 = 3;
    pub(super) const GET_CHAIN: u8 = 4;
    pub(super) const DELETE_CHAIN: u8 = 5;
    pub(super) const NEW_RULE: u8 = 6;
    pub(super) const GET_RULE: u8 = 7;
    pub(super) const DELETE_RULE: u8 = 8;
    pub(super) const NEW_SET: u8 = 9;
    pub(super) const GET_SET: u8 = 10;
    pub(super) const NEW_ELEMENTS: u8 = 12;
    pub(super) const GET_ELEMENTS: u8 = 13;
    pub(super) const DELETE_ELEMENTS: u8 = 14;
    pub(super) const NEW_GENERATION: u8 = 15;
    pub(super) const GET_GENERATION: u8 = 16;
}

/// Attributes, `NFTA_*`.
mod attr {
    /// The table's name, in the messages of all kinds of objects.
    pub(super) const TABLE: u16 = 1;
    pub(super) const TABLE_USERDATA: u16 = 6;
    pub(super) const CHAIN_NAME: u16 = 3;
    pub(super) const CHAIN_HOOK: u16 = 4;
    pub(super) const CHAIN_POLICY: u16 = 5;
    pub(super) const CHAIN_TYPE: u16 = 7;
    pub(super) const HOOK_NUMBER: u16 = 1;
    pub(super) const HOOK_PRIORITY: u16 = 2;
    pub(super) const RULE_CHAIN: u16 = 2;
    pub(super) const RULE_EXPRESSIONS: u16 = 4;
    pub(super) const RULE_USERDATA: u16 = 7;
    pub(super) const LIST_ELEMENT: u16 = 1;
    pub(super) const EXPRESSION_NAME: u16 = 1;
    pub(super) const EXPRESSION_DATA: u16 = 2;
    pub(super) const SET_NAME: u16 = 2;
    pub(super) const SET_FLAGS: u16 = 3;
    pub(super) const SET_KEY_TYPE: u16 = 4;
    pub(super) const SET_KEY_LENGTH: u16 = 5;
    pub(super) const SET_ID: u16 = 10;
    pub(super) const ELEMENTS_SET: u16 = 2;
    pub(super) const ELEMENTS: u16 = 3;
    pub(super) const ELEMENT_KEY: u16 = 1;
    pub(super) const ELEMENT_DATA: u16 = 2;
    pub(super) const ELEMENT_FLAGS: u16 = 3;
    pub(super) const DATA_VALUE: u16 = 1;
    pub(super) const DATA_VERDICT: u16 = 2;
    pub(super) const VERDICT_CODE: u16 = 1;
    pub(super) const VERDICT_CHAIN: u16 = 2;
    pub(super) const GENERATION_ID: u16 = 1;
}

/// Type of a comment in user data, of tables and of rules alike (`NFTNL_UDATA_TABLE_COMMENT`,
/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl).
const UDATA_COMMENT: u8 = 0;
/// `NFT_REG_1`, 16 bytes.
const REGISTER: u32 = 1;
/// `NFT_REG_VERDICT`.
const VERDICT_REGISTER: u32 = 0;

/// Type of a netlink message of ours.
const fn kind(message: u8) -> u16 {
    (SUBSYSTEM as u16) << 8 | message as u16
}

#[cfg(test)]
mod tests;
