//! Calls of the kernel, counted, and what may become of one of them.

use std::io;

use crate::diff::Change;

use super::errno::ENOBUFS;

/// A call, as the agent makes it of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// Dump of devices.
    Devices,
    /// Dump of addresses.
    Addresses,
    /// Dump of neighbours and forwarding database entries.
    Neighbors,
    /// Dump of nexthop objects.
    Nexthops,
    /// Dump of routes.
    Routes,
    /// Dump of policy rules.
    Rules,
    /// Settings that hold for all devices.
    Settings,
    /// Dump of nftables.
    Nftables,
    /// Whether there is a kind of IP tunnel.
    Probe,
    /// Dump of devices before changes, which name them by number.
    Names,
    /// [`Change::AddLink`].
    AddLink,
    /// [`Change::SetLink`].
    SetLink,
    /// [`Change::DeleteLink`].
    DeleteLink,
    /// [`Change::SetRpFilter`].
    SetRpFilter,
    /// [`Change::AddAddress`].
    AddAddress,
    /// [`Change::DeleteAddress`].
    DeleteAddress,
    /// [`Change::SetNeighbor`].
    SetNeighbor,
    /// [`Change::DeleteNeighbor`].
    DeleteNeighbor,
    /// [`Change::SetFdb`].
    SetFdb,
    /// [`Change::DeleteFdb`].
    DeleteFdb,
    /// [`Change::AddNexthop`].
    AddNexthop,
    /// [`Change::SetNexthop`].
    SetNexthop,
    /// [`Change::DeleteNexthop`].
    DeleteNexthop,
    /// [`Change::AddRoute`].
    AddRoute,
    /// [`Change::SetRoute`].
    SetRoute,
    /// [`Change::DeleteRoute`].
    DeleteRoute,
    /// [`Change::AddRule`].
    AddRule,
    /// [`Change::DeleteRule`].
    DeleteRule,
    /// [`Change::SetFirewall`].
    SetFirewall,
    /// [`Change::ChangeSets`].
    ChangeSets,
    /// [`Change::DeleteFirewall`].
    DeleteFirewall,
    /// Subscription to notifications.
    Listen,
    /// Reading of notifications.
    Hear,
}

impl Call {
    /// All of them; a test holds it to be complete.
    pub const ALL: [Self; 33] = [
        Self::Devices,
        Self::Addresses,
        Self::Neighbors,
        Self::Nexthops,
        Self::Routes,
        Self::Rules,
        Self::Settings,
        Self::Nftables,
        Self::Probe,
        Self::Names,
        Self::AddLink,
        Self::SetLink,
        Self::DeleteLink,
        Self::SetRpFilter,
        Self::AddAddress,
        Self::DeleteAddress,
        Self::SetNeighbor,
        Self::DeleteNeighbor,
        Self::SetFdb,
        Self::DeleteFdb,
        Self::AddNexthop,
        Self::SetNexthop,
        Self::DeleteNexthop,
        Self::AddRoute,
        Self::SetRoute,
        Self::DeleteRoute,
        Self::AddRule,
        Self::DeleteRule,
        Self::SetFirewall,
        Self::ChangeSets,
        Self::DeleteFirewall,
        Self::Listen,
        Self::Hear,
    ];

    /// The dumps of one look, in their order.
    pub(super) const LOOK: [Self; 8] = [
        Self::Devices,
        Self::Addresses,
        Self::Neighbors,
        Self::Nexthops,
        Self::Routes,
        Self::Rules,
        Self::Settings,
        Self::Nftables,
    ];

    /// The call that makes a change.
    #[must_use]
    pub const fn of(change: &Change) -> Self {
        match change {
            Change::AddLink(..) => Self::AddLink,
            Change::SetLink(..) => Self::SetLink,
            Change::DeleteLink(_) => Self::DeleteLink,
            Change::SetRpFilter(..) => Self::SetRpFilter,
            Change::AddAddress(_) => Self::AddAddress,
            Change::DeleteAddress(_) => Self::DeleteAddress,
            Change::SetNeighbor(..) => Self::SetNeighbor,
            Change::DeleteNeighbor(_) => Self::DeleteNeighbor,
            Change::SetFdb(..) => Self::SetFdb,
            Change::DeleteFdb(_) => Self::DeleteFdb,
            Change::AddNexthop(..) => Self::AddNexthop,
            Change::SetNexthop(..) => Self::SetNexthop,
            Change::DeleteNexthop(_) => Self::DeleteNexthop,
            Change::AddRoute(..) => Self::AddRoute,
            Change::SetRoute(..) => Self::SetRoute,
            Change::DeleteRoute(_) => Self::DeleteRoute,
            Change::AddRule(_) => Self::AddRule,
            Change::DeleteRule(_) => Self::DeleteRule,
            Change::SetFirewall(_) => Self::SetFirewall,
            Change::ChangeSets(_) => Self::ChangeSets,
            Change::DeleteFirewall => Self::DeleteFirewall,
        }
    }

    /// What is read, as an error names it; of a change nothing.
    #[must_use]
    pub const fn what(self) -> Option<&'static str> {
        Some(match self {
            Self::Devices => "devices",
            Self::Addresses => "addresses",
            Self::Neighbors => "neighbours",
            Self::Nexthops => "nexthops",
            Self::Routes => "routes",
            Self::Rules => "rules",
            Self::Settings => "net.ipv4.conf.all and net.ipv6.conf.all",
            Self::Nftables => "nftables",
            Self::Probe => "kinds of IP tunnel",
            Self::Names
            | Self::AddLink
            | Self::SetLink
            | Self::DeleteLink
            | Self::SetRpFilter
            | Self::AddAddress
            | Self::DeleteAddress
            | Self::SetNeighbor
            | Self::DeleteNeighbor
            | Self::SetFdb
            | Self::DeleteFdb
            | Self::AddNexthop
            | Self::SetNexthop
            | Self::DeleteNexthop
            | Self::AddRoute
            | Self::SetRoute
            | Self::DeleteRoute
            | Self::AddRule
            | Self::DeleteRule
            | Self::SetFirewall
            | Self::ChangeSets
            | Self::DeleteFirewall
            | Self::Listen
            | Self::Hear => return None,
        })
    }

    /// Whether it makes a change.
    #[must_use]
    pub const fn changes(self) -> bool {
        self.what().is_none() && !matches!(self, Self::Names | Self::Listen | Self::Hear)
    }
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mishap {
    /// The kernel refuses it with this error number; nothing is done.
    Refused(i32),
    /// It is done, and the answer is lost (`ENOBUFS`).
    Unanswered,
    /// The rest of the list, from this call on, does not reach the kernel.
    Cut,
    /// The rest of the list, from this call on, is done, and no answer comes.
    Deaf,
    /// A part of it is done, then the kernel refuses the rest with this error number: a device gets its MTU and its
    /// address, and other settings stay bent. Only of [`Call::SetLink`], which is several requests; else as `Refused`.
    Half(i32),
}

impl Mishap {
    /// The error number that is seen of it.
    #[must_use]
    pub const fn errno(self) -> i32 {
        match self {
            Self::Refused(errno) | Self::Half(errno) => errno,
            Self::Unanswered | Self::Cut | Self::Deaf => ENOBUFS,
        }
    }
}

/// Calls so far, and what is to become of those to come.
#[derive(Debug, Default)]
pub(super) struct Calls {
    /// The next call has this number.
    pub(super) made: u64,
    to_come: Vec<(u64, Mishap)>,
    to_come_of: Vec<(Call, Mishap)>,
    pub(super) happened: Vec<(Call, Mishap)>,
}

impl Calls {
    pub(super) fn plan(&mut self, after: u64, mishap: Mishap) {
        self.to_come.push((self.made + after, mishap));
    }

    pub(super) fn plan_of(&mut self, call: Call, mishap: Mishap) {
        self.to_come_of.push((call, mishap));
    }

    pub(super) fn forget(&mut self) {
        self.to_come_of.clear();
        self.to_come.clear();
    }

    /// Counts a call; what becomes of it.
    pub(super) fn make(&mut self, call: Call) -> Option<Mishap> {
        let number = self.made;
        self.made += 1;
        let mishap = match self.to_come.iter().position(|(at, _)| *at == number) {
            Some(place) => self.to_come.swap_remove(place).1,
            None => {
                let place = self.to_come_of.iter().position(|(kind, _)| *kind == call)?;
                self.to_come_of.remove(place).1
            }
        };
        self.happened.push((call, mishap));
        Some(mishap)
    }

    /// Counts a call that reads.
    pub(super) fn read(&mut self, call: Call) -> io::Result<()> {
        self.make(call).map_or(Ok(()), |mishap| Err(io::Error::from_raw_os_error(mishap.errno())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where each has its place; whoever adds one is asked here.
    const fn place(call: Call) -> usize {
        match call {
            Call::Devices => 0,
            Call::Addresses => 1,
            Call::Neighbors => 2,
            Call::Nexthops => 3,
            Call::Routes => 4,
            Call::Rules => 5,
            Call::Settings => 6,
            Call::Nftables => 7,
            Call::Probe => 8,
            Call::Names => 9,
            Call::AddLink => 10,
            Call::SetLink => 11,
            Call::DeleteLink => 12,
            Call::SetRpFilter => 13,
            Call::AddAddress => 14,
            Call::DeleteAddress => 15,
            Call::SetNeighbor => 16,
            Call::DeleteNeighbor => 17,
            Call::SetFdb => 18,
            Call::DeleteFdb => 19,
            Call::AddNexthop => 20,
            Call::SetNexthop => 21,
            Call::DeleteNexthop => 22,
            Call::AddRoute => 23,
            Call::SetRoute => 24,
            Call::DeleteRoute => 25,
            Call::AddRule => 26,
            Call::DeleteRule => 27,
            Call::SetFirewall => 28,
            Call::ChangeSets => 29,
            Call::DeleteFirewall => 30,
            Call::Listen => 31,
            Call::Hear => 32,
        }
    }

    #[test]
    fn all_calls_are_listed() {
        assert!(Call::ALL.into_iter().map(place).eq(0..Call::ALL.len()));
    }

    #[test]
    fn a_mishap_meets_the_call_that_it_is_meant_for() {
        let mut calls = Calls::default();
        calls.plan(1, Mishap::Cut);
        calls.plan_of(Call::Rules, Mishap::Deaf);
        let met = [Call::Routes, Call::Routes, Call::Rules, Call::Rules].map(|call| calls.make(call));
        assert_eq!(met, [None, Some(Mishap::Cut), Some(Mishap::Deaf), None]);
        assert_eq!(calls.happened, [(Call::Routes, Mishap::Cut), (Call::Rules, Mishap::Deaf)]);
    }
}
