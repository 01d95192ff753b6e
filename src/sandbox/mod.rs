//! Untrusted media is parsed in a jailed child process and nowhere else.
//!
//! | file | side | what |
//! | --- | --- | --- |
//! | `protocol` | both | the messages |
//! | `settings` | parent | how children are held |
//! | `input` | parent | what a child reads from |
//! | `spawn` | parent | one child from fork to verdict, and the rules |
//! | `talk` | parent | the loop that listens to a running child, and its end |
//! | `process` | parent | fork thread, process group, reaping |
//! | `outcome` | parent | every way a child can end |
//! | `child` | child | read the order, enter the jail, work, report |
//! | `jail` | child | the steps into the jail |
//! | `filter` | child | the system calls that are left |
//! | `memory` | child | a refused allocation ends the child by name |

pub mod child;
mod filter;
mod input;
pub mod jail;
mod memory;
pub mod outcome;
mod process;
pub mod protocol;
mod scratch;
mod settings;
pub mod spawn;
mod tail;
mod talk;

pub use input::{InputSource, RangeRead};
pub use outcome::{Disposition, Finished, Outcome};
pub use settings::{Sandbox, SandboxSettings};
