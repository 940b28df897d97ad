//! The etcd v3 API: gRPC services, HTTP answers, listeners.
//!
//! A [`Server`] answers clients for a [`Member`]. Requests are checked and turned into commands
//! here; what they mean is decided behind the member. Everything runs on the runtime that
//! [`Server::serve`] is awaited on and is made for one thread.

mod answer_budget;
mod auth;
mod checks;
mod cluster;
mod convert;
mod dispatch;
mod election;
mod errors;
mod exposition;
mod first_bytes;
pub mod fuzz;
mod gathered_io;
mod health;
mod http_answers;
mod kv;
mod lease;
mod listener;
mod lock;
mod maintenance;
mod member;
mod process;
mod range;
mod records_body;
mod response_body;
mod rpc;
mod server;
mod service;
mod stop;
mod tls;
mod unary;
mod version;
mod watch;

pub use exposition::MetricsText;
pub use listener::{ListenAddress, ListenUrl, ListenUrlError};
pub use member::{Identity, LeaseInfo, Member, MemberStatus, RequestError, StoreHash, WatchStream};
pub use server::{ServeConfig, ServeError, Server};
pub use service::Limits;
pub use tls::{TlsError, TlsFiles};
pub use version::ETCD_VERSION;
