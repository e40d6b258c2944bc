//! Tokens out of a model: continuing prompts, knowing when to stop, and scoring text instead of producing it.
//!
//! Tokens are chosen on the device, several steps ahead of the text, and rows of logits are scored there too. Where the
//! logits come from is the business of the model below, and what is printed that of the command line above.

pub mod eval;
pub mod generator;
pub mod score;
pub mod stop;
pub mod text;

pub use crate::ops::sample::SamplerSettings;
pub use eval::{EvalOptions, Evaluation, evaluate};
pub use generator::{Generator, Piece, Settings, Start};
pub use score::{Estimate, Scores, Summary};
pub use stop::StopMatcher;
pub use text::{Finish, Text};
