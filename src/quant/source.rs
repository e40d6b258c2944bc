//! The model that is being converted, as the converter sees it: each of its tensors comes through the transform, and there
//! is no other way to them. What a transform does is not known here ([`super::transform`]).

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use half::f16;
use serde_json::Value;

use super::room::ROWS_ROOM;
use super::rows::RowsRoom;
use super::stages;
use super::tensors::Tensors;
use super::transform::{Floats, Place, Site, Transform};
use super::weights::FloatWeights;
use crate::Result;
use crate::formats::config::LlamaConfig;
use crate::formats::safetensors::{Checkpoint, TensorView};
use crate::gpu::Device;
use crate::model::{
    Block, BlockSpec, EMBEDDING_TABLE, GroupSpec, LAST_NORM, Linear, LinearGroup, LinearSpec, Runner,
    RunnerTap, Scratch, WeightSource, Workbench, blocks, head_spec, head_weight,
};
use crate::ops::{DenseMatrix, Tensor};

/// A model and the transform of its tensors.
pub struct Source<'a> {
    tensors: Box<dyn Tensors>,
    workbench: Workbench,
    transform: &'a dyn Transform,
    blocks: Vec<BlockSpec>,
    rows_room: RowsRoom,
}

impl<'a> Source<'a> {
    /// Opens the model in `directory` for rows of up to `context` tokens, in passes of up to `rows`.
    ///
    /// # Errors
    /// As the files report; as [`Source::new`].
    pub fn open(
        device: &Device,
        directory: &Path,
        (rows, context): (usize, usize),
        transform: &'a dyn Transform,
    ) -> Result<Self> {
        let (config, tensors) = (LlamaConfig::load(directory)?, Checkpoint::open(directory)?);
        Self::new(device, config, Box::new(tensors), (rows, context), transform)
    }

    /// The same for a model of these sizes whose tensors come from anywhere.
    ///
    /// # Errors
    /// As [`Workbench::new`].
    pub fn new(
        device: &Device,
        config: LlamaConfig,
        tensors: Box<dyn Tensors>,
        (rows, context): (usize, usize),
        transform: &'a dyn Transform,
    ) -> Result<Self> {
        let blocks = blocks(&config);
        let workbench = Workbench::new(device, config, rows, context)?;
        let device = device.memory_limit().map_or(ROWS_ROOM, |limit| ROWS_ROOM.min(limit / 4));
        let rows_room = RowsRoom { device, host: u64::MAX, directory: PathBuf::new() };
        Ok(Self { tensors, workbench, transform, blocks, rows_room })
    }

    /// The model's sizes.
    pub fn config(&self) -> &LlamaConfig {
        self.workbench.config()
    }

    /// The device.
    pub fn device(&self) -> &Device {
        self.workbench.device()
    }

    /// Activations.
    pub fn scratch(&self) -> &Scratch {
        self.workbench.scratch()
    }

    /// The blocks in order.
    pub fn blocks(&self) -> &[BlockSpec] {
        &self.blocks
    }

    /// Something that runs rows through a block; see [`Workbench::runner`].
    pub fn runner<'r>(&'r self, block: &'r Block, tap: RunnerTap<'r>) -> Runner<'r> {
        self.workbench.runner(block, tap)
    }

    /// The same without a tap.
    pub fn untapped<'r>(&'r self, block: &'r Block) -> Runner<'r> {
        self.workbench.untapped(block)
    }

    /// Lets rows of two streams run side by side; see [`Workbench::make_room`].
    ///
    /// # Errors
    /// As the device reports.
    pub fn make_room_for_reference(&mut self) -> Result<()> {
        self.workbench.make_room(2)
    }

    /// Where hidden states of calibration rows are kept.
    pub fn rows_room(&self) -> &RowsRoom {
        &self.rows_room
    }

    /// Sets that.
    pub fn set_rows_room(&mut self, room: RowsRoom) {
        self.rows_room = room;
    }

    /// What the output's config.json says of the head; see [`Transform::tied`].
    pub fn tied(&self) -> bool {
        self.transform.tied(self.config().tie_word_embeddings)
    }

    /// What the output's config.json says of the transform; see [`Transform::record`].
    pub fn record(&self) -> Option<(&'static str, Value)> {
        self.transform.record()
    }

    /// The whole embedding table [vocabulary, hidden].
    ///
    /// # Errors
    /// As the files and the transform report.
    pub fn embedding(&self) -> Result<Floats<'_>> {
        let LlamaConfig { vocab_size, hidden_size, .. } = *self.config();
        self.tensor(EMBEDDING_TABLE, &[vocab_size, hidden_size], Place::Embedding)
    }

    /// Hidden states [tokens, hidden] after the embedding, in half precision as the output's table has them.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a token outside the vocabulary; as the files and the transform report.
    pub fn embed(&self, tokens: &[u32]) -> Result<Vec<f32>> {
        let LlamaConfig { vocab_size, hidden_size, .. } = *self.config();
        let rows = self.tensors.table(EMBEDDING_TABLE, [vocab_size, hidden_size], tokens)?;
        let rows = self.transform.apply(Place::Embedding, rows, self.stored())?;
        Ok(rows.view().to_f16()?.iter().map(|value| value.to_f32()).collect())
    }

    /// The norm before a block `[hidden]`.
    ///
    /// # Errors
    /// As the files and the transform report.
    pub fn norm(&self, block: &BlockSpec) -> Result<Floats<'_>> {
        let name = format!("{}.weight", block.norm);
        self.tensor(&name, &[self.config().hidden_size], Place::Norm(block))
    }

    /// The norm before the head `[hidden]`.
    ///
    /// # Errors
    /// As the files and the transform report.
    pub fn last_norm(&self) -> Result<Floats<'_>> {
        self.tensor(&format!("{LAST_NORM}.weight"), &[self.config().hidden_size], Place::LastNorm)
    }

    /// Loads the head in half precision.
    ///
    /// # Errors
    /// As the files, the transform and the device report.
    pub fn head(&self) -> Result<LinearGroup> {
        let spec = head_spec(self.config());
        let name = head_weight(self.stored(), self.config());
        let weight = self.tensor(&name, &[spec.n, spec.k], Place::Head)?;
        Ok(LinearGroup::new(vec![self.dense(&spec, &weight, None)?]))
    }

    /// Loads block `index` in half precision.
    ///
    /// # Errors
    /// As the files, the transform and the device report.
    pub fn block(&self, index: usize) -> Result<Block> {
        let _stage = self.device().stage(stages::LOADING)?;
        let spec = &self.blocks[index];
        let norm = self.upload(&spec.norm, &self.norm(spec)?)?;
        let linear = |group: &GroupSpec, linear: &LinearSpec| {
            let site = Site { block: spec, input: group.input, linear };
            let bias: Option<Vec<f32>> = self.bias_of(site)?.map(Floats::into_f32).transpose()?;
            self.dense(linear, &self.weight_of(site)?, bias.as_deref())
        };
        let groups = spec.groups.iter().map(|group| {
            let linears = group.linears.iter().map(|one| linear(group, one)).collect::<Result<_>>()?;
            Ok(LinearGroup::new(linears))
        });
        Ok(Block::new(spec.clone(), norm, groups.collect::<Result<_>>()?))
    }

    /// A weight on the device in half precision.
    fn dense(&self, spec: &LinearSpec, weight: &Floats<'_>, bias: Option<&[f32]>) -> Result<Arc<Linear>> {
        let LinearSpec { name, n, k, .. } = spec;
        let view = weight.view();
        let row_bytes = view.bytes.len() / n;
        let rows = |range: Range<usize>| {
            let bytes = &view.bytes[range.start * row_bytes..range.end * row_bytes];
            TensorView { bytes, ..view }.to_f16()
        };
        Ok(Arc::new(Linear::Dense(DenseMatrix::upload(self.device(), name, *n, *k, rows, bias)?)))
    }

    /// The weight of a linear on the device, ready for quantizing.
    ///
    /// # Errors
    /// As the files, the transform and the device report; [`crate::Error::Numerical`] when a weight is not finite.
    pub fn weights(&self, site: Site<'_>) -> Result<FloatWeights> {
        let _stage = self.device().stage(stages::LOADING)?;
        self.quantizable(site.linear, self.weight_of(site)?)
    }

    /// The bias of a linear, where it has one.
    ///
    /// # Errors
    /// As the files and the transform report.
    pub fn bias(&self, site: Site<'_>) -> Result<Option<Vec<f16>>> {
        self.bias_of(site)?.map(|bias| bias.view().to_f16()).transpose()
    }

    /// The weight of the head on the device, ready for quantizing.
    ///
    /// # Errors
    /// As [`Source::weights`].
    pub fn head_weights(&self) -> Result<FloatWeights> {
        let _stage = self.device().stage(stages::LOADING)?;
        let spec = head_spec(self.config());
        let name = head_weight(self.stored(), self.config());
        self.quantizable(&spec, self.tensor(&name, &[spec.n, spec.k], Place::Head)?)
    }

    /// Values of a norm [1, hidden] on the device.
    ///
    /// # Errors
    /// As the device reports.
    pub fn upload(&self, name: &str, norm: &Floats<'_>) -> Result<Tensor> {
        Tensor::upload(self.device(), name, &norm.view().to_f32()?, self.config().hidden_size)
    }

    fn weight_of(&self, site: Site<'_>) -> Result<Floats<'_>> {
        let LinearSpec { name, n, k, .. } = site.linear;
        self.tensor(&format!("{name}.weight"), &[*n, *k], Place::Weight(site))
    }

    fn bias_of(&self, site: Site<'_>) -> Result<Option<Floats<'_>>> {
        let LinearSpec { name, n, bias, .. } = site.linear;
        bias.then(|| self.tensor(&format!("{name}.bias"), &[*n], Place::Bias(site))).transpose()
    }

    fn quantizable(&self, spec: &LinearSpec, weight: Floats<'_>) -> Result<FloatWeights> {
        FloatWeights::upload(self.device(), &spec.name, &weight.into_f32()?, (spec.n, spec.k))
    }

    /// A tensor of a known shape, through the transform.
    fn tensor(&self, name: &str, shape: &[usize], place: Place<'_>) -> Result<Floats<'_>> {
        self.transform.apply(place, self.tensors.tensor(name, shape)?, self.stored())
    }

    /// The tensors as they are stored.
    fn stored(&self) -> &dyn WeightSource {
        &*self.tensors
    }
}
