//! A discrete-event simulation of cores that send requests to backends, around the real picker, the real health of a core
//! and of the process, the real roster and the real exchange between cores. Same seed, same figures.
//!
//! | file | models |
//! |---|---|
//! | `scene` | nothing: who there is, how much they are asked, what happens when |
//! | `station` | a backend: slots that serve in the order of arrival, at a speed that changes |
//! | `chooser` | the policies: the project's, and two that others use |
//! | `core` | one core: what it does with a request, an answer, a snapshot and a tick |
//! | `control` | the agent that scores the backends, and the control core |
//! | `run` | the order of events |
//! | `tally` | what came of it |

mod chooser;
mod control;
mod core;
mod run;
mod scene;
mod station;
mod tally;

pub use chooser::Policy;
pub use run::run;
pub use scene::{Fault, Happening, Scene, ms};
pub use tally::Tally;
