//! Callbacks over a real HTTP receiver on loopback: what arrives, in which order, how often, and what never leaves.

mod hostile;
mod order;
mod receiver;
mod retries;
mod secrets;
mod stage;
mod vod;
