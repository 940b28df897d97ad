//! How much there may be of everything.

use std::time::Duration;

/// Clusters that may be enrolled.
pub(crate) const CLUSTERS_MAX: usize = 2048;
/// Units of one cluster: its share of the core's registers.
pub(crate) const UNITS_PER_CLUSTER_MAX: usize = 32;
/// Sessions open at a time.
pub(crate) const SESSIONS_MAX: usize = 2 * CLUSTERS_MAX + 1024;
/// Sessions of one cluster: its two nodes, those that replace them, and some more. A session of the
/// same node replaces its own.
pub(crate) const SESSIONS_PER_CLUSTER_MAX: usize = 8;
/// Connections whose handshake and first message are under way.
pub(crate) const HANDSHAKES_MAX: usize = 128;
/// Bytes of a message.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Messages that wait for a session to take them; one that leaves more is closed.
pub(crate) const OUTBOUND_MAX: usize = 256;
/// Inputs that wait for the loop; sessions wait for room.
pub(crate) const INPUTS_MAX: usize = 256;
/// Records that wait for the disk; the loop takes no input until there is room.
pub(crate) const RECORDS_MAX: usize = 1024;

/// A handshake, and then the first message, may take this long.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// A node says something at least this often (`repl section 8`, witness_hb).
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// A session that was silent this long is closed: three times nothing came.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(3 * KEEP_ALIVE.as_secs());
/// A node that takes no message for this long is closed.
pub(crate) const WRITE_MAX: Duration = Duration::from_secs(5);
/// How long a code is good if it is not said.
pub(crate) const CODE_LIFE: Duration = Duration::from_secs(3600);

const _: () = assert!(SESSIONS_MAX <= 2 * kine2_witness_core::REGISTERS_MAX + 64);
const _: () = assert!(2 * CLUSTERS_MAX <= kine2_witness_core::REGISTERS_MAX);
