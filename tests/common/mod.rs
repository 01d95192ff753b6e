//! Real servers for tests, each on free loopback ports and in a folder of its own: `mod common;` in a test of one file,
//! `#[path = "../common/mod.rs"] mod common;` in one of several.

#![allow(dead_code, unused_imports, reason = "every test binary uses another part of it")]

pub mod amqp_tap;
pub mod azurite;
pub mod fake_gcs;
pub mod garage;
pub mod http;
pub mod prometheus;
pub mod proxy;
pub mod rabbit;
pub mod receiver;
pub mod server;
pub mod source;
pub mod store_proxy;

pub use azurite::Azurite;
pub use fake_gcs::FakeGcs;
pub use garage::Garage;
pub use prometheus::Prometheus;
pub use proxy::{Fault, FaultProxy};
pub use rabbit::RabbitNode;
pub use receiver::{Answer, Receiver};
pub use server::{Home, Server, free_port, wait_for};
pub use store_proxy::{StoreFaults, StoreProxy};
