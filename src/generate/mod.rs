//! Tokens out of a model: choosing them, knowing when to stop, and scoring text instead of
//! producing it.
//!
//! Choosing and scoring work on rows of logits on the host. Where the logits come from is the business
//! of the model below, and what is printed that of the command line above.

pub mod eval;
pub mod generator;
pub mod philox;
pub mod sampler;
pub mod score;
pub mod stop;

pub use eval::{EvalOptions, Evaluation, evaluate};
pub use generator::{Finish, Generator, Piece, Settings};
pub use sampler::{Sampler, SamplerSettings};
pub use score::{Estimate, Scores, Summary};
pub use stop::StopMatcher;
