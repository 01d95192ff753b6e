//! Facts about a job, what they say together, and what customers are told of them.
//!
//! Events arrive at least once and, across workers, in no certain order. [`facts`] are what workers tell; a [`Status`]
//! is what the facts told so far say together; a [`Projection`] turns them into numbered [`Recorded`] events, each once.

pub mod facts;
pub mod record;
pub mod rfc3339;
mod seen;
pub mod state;
pub mod status;

pub use facts::{
    Cause, ClassState, Event, Fact, Failure, RenditionMedia, Stage, VERSION, is_reserved, rejected_stream, tenant_stream,
};
pub use record::{Projection, Recorded, Summary};
pub use state::State;
pub use status::{Change, ClassStatus, Illegal, Rejection, Rendition, StageStatus, Status};
