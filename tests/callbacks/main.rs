//! Callbacks over a real HTTP receiver on loopback: what arrives, in which order, how often, and what never leaves.

#[path = "../broker/certificates.rs"]
mod certificates;
mod hostile;
mod order;
mod readme;
mod receiver;
mod retries;
mod secrets;
mod stage;
mod storm;
mod tls;
mod vod;
