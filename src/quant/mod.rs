//! The converter: a model directory in, an EXL2 directory out.
//!
//! All [`tensors`] of the model come from a [`source`], through a [`transform`]: none, or a [`rotation`].
//! Five stages, each of which leaves its results in the working directory of a [`job`], so that a
//! killed run goes on where it was:
//!
//! 1. *Calibrate*: text becomes rows of tokens; their hidden states are kept as a [`snapshot`] now and then.
//! 2. *Measure*: block by block, each linear is stored in each way that [`options`] lists (a
//!    [`recipe`] per way), and what that does to the model's output is noted ([`probe`]). The result is
//!    a [`measurement`], a file that can be reused for other targets.
//! 3. *Allocate*: [`allocate`] picks one recipe per linear so that the sum of the damages is least under the bits asked for.
//! 4. *Quantize*: block by block, each linear is fitted ([`method`]) and stored with its recipe, on hidden states that come
//!    from the linears already stored. A finished block is a [`block_file`].
//! 5. *Compile*: the blocks, the head and the float tensors become the files of a model.
//!
//! Every file of a job is written aside, synced and renamed ([`crate::formats::atomic`]); the binary ones carry a
//! checksum ([`state_file`]). [`fingerprint`] says which model and text a result belongs to.

pub mod accumulate;
pub mod allocate;
pub mod block_file;
pub mod calibrate;
pub mod compile;
mod conversion;
pub mod convert;
pub mod correction;
pub mod factor;
pub mod fingerprint;
pub mod gptq;
pub mod hessian;
pub mod job;
mod lock;
pub mod measure;
pub mod measurement;
pub mod method;
pub mod options;
pub mod output;
pub mod probe;
pub mod quantize;
pub mod recipe;
pub mod recount;
pub mod report;
pub mod room;
pub mod rotation;
pub mod rows;
pub mod scales;
pub mod snapshot;
pub mod source;
pub mod stages;
pub mod state_file;
pub mod stream;
mod subject;
pub mod sums;
pub mod tensors;
pub mod transform;
pub mod trial;
pub mod weights;
mod written;
