//! Where the three processes are: on loopback, or in a lab of network namespaces.

use std::net::TcpListener;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::lab::{Lab, Machine};
use crate::pair::Node;

const CLIENT_PORT: u16 = 2379;
const PEER_PORT: u16 = 2380;
const WITNESS_PORT: u16 = 2390;

/// Their addresses, and how a program runs where they are.
#[derive(Debug)]
pub(crate) enum Net {
    /// Ports of loopback: client and peer of each node, and the witness's.
    Loopback([u16; 5]),
    /// Namespaces.
    Lab(Lab),
}

impl Net {
    pub(crate) fn loopback() -> Self {
        Self::Loopback(free_ports())
    }

    /// Where clients reach a node.
    pub(crate) fn client(&self, node: Node) -> String {
        match self {
            Self::Loopback(ports) => format!("127.0.0.1:{}", ports[node as usize * 2]),
            Self::Lab(lab) => format!("{}:{CLIENT_PORT}", lab.client_address(node.machine())),
        }
    }

    /// Where a node's peer reaches it.
    pub(crate) fn peer(&self, node: Node) -> String {
        match self {
            Self::Loopback(ports) => format!("127.0.0.1:{}", ports[node as usize * 2 + 1]),
            Self::Lab(lab) => format!("{}:{PEER_PORT}", lab.address(node.machine())),
        }
    }

    pub(crate) fn witness(&self) -> String {
        match self {
            Self::Loopback(ports) => format!("127.0.0.1:{}", ports[4]),
            Self::Lab(lab) => format!("{}:{WITNESS_PORT}", lab.address(Machine::Witness)),
        }
    }

    /// A program that runs on a machine.
    pub(crate) fn command(&self, machine: Machine, program: &Path) -> Command {
        match self {
            Self::Loopback(_) => Command::new(program),
            Self::Lab(lab) => lab.command(machine, program),
        }
    }

    pub(crate) const fn lab(&self) -> Option<&Lab> {
        match self {
            Self::Loopback(_) => None,
            Self::Lab(lab) => Some(lab),
        }
    }
}

/// Below the ports that the kernel gives to outgoing connections: one of those could take a port
/// before its program does.
const PORTS: Range<u16> = 10_000..32_000;

/// Ports that nobody listens on, each given out once in this process.
fn free_ports() -> [u16; 5] {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Other processes begin elsewhere.
    let begin = std::process::id().wrapping_mul(7_919);
    std::array::from_fn(|_| {
        loop {
            let number = begin.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed));
            let place = number % u32::from(PORTS.end - PORTS.start);
            let port = PORTS.start + u16::try_from(place).expect("less than there are");
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}
