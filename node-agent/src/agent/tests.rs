//! Whole agents on a memory store and fake kernels, with a fabric of fake BGP sessions between them.

mod fabric;
mod harness;

mod blocks;
mod calls;
mod cni;
mod crowd;
mod faults;
mod firewall;
mod known;
mod mend;
mod names;
mod others;
mod paths;
mod reload;
mod restart;
mod tunnels;
