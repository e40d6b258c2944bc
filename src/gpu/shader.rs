//! The embedded WGSL files, and how a kernel's text is put together from them.
//!
//! `#import "common/reduce.wgsl"` on a line of its own is replaced by that file, once per text. There
//! is no `#ifdef`: a [`Variant`] may put another file (or generated text) behind an import, a prologue
//! of declarations before the text, and values for the `override`s, which have no defaults.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::{Error, Result};

macro_rules! embed {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../shaders/", $path)))),*] };
}

/// Every file in `shaders/`; `tests/shaders.rs` compares this with the folder.
const FILES: &[(&str, &str)] = embed![
    "attention.wgsl",
    "attention_coop.wgsl",
    "attention_decode.wgsl",
    "attention_join.wgsl",
    "attention_merge.wgsl",
    "attention_subgroup.wgsl",
    "cache_write.wgsl",
    "cholesky_block.wgsl",
    "column_max.wgsl",
    "column_peak.wgsl",
    "common/advance.wgsl",
    "common/cache_half.wgsl",
    "common/cache_single.wgsl",
    "common/decode_half.wgsl",
    "common/decode_heads.wgsl",
    "common/decode_rows.wgsl",
    "common/decode_single.wgsl",
    "common/eight_half.wgsl",
    "common/eight_single.wgsl",
    "common/group_maximum.wgsl",
    "common/half.wgsl",
    "common/index.wgsl",
    "common/mass.wgsl",
    "common/pair_native.wgsl",
    "common/pair_word.wgsl",
    "common/partial.wgsl",
    "common/partial_four.wgsl",
    "common/peak.wgsl",
    "common/philox.wgsl",
    "common/product.wgsl",
    "common/product_tn.wgsl",
    "common/put_fixed.wgsl",
    "common/put_pairs.wgsl",
    "common/put_single.wgsl",
    "common/reduce.wgsl",
    "common/reduce_subgroup.wgsl",
    "common/row_peak.wgsl",
    "common/sampling.wgsl",
    "common/store_half.wgsl",
    "common/store_single.wgsl",
    "common/scale_code.wgsl",
    "common/turned.wgsl",
    "common/scan.wgsl",
    "common/wide.wgsl",
    "dequantize.wgsl",
    "difference.wgsl",
    "dot.wgsl",
    "embed.wgsl",
    "gather_rows.wgsl",
    "gemv.wgsl",
    "gptq_group.wgsl",
    "group_gemv.wgsl",
    "halve.wgsl",
    "halve_columns.wgsl",
    "kv_write.wgsl",
    "matmul.wgsl",
    "matmul_coop.wgsl",
    "matmul_subgroup.wgsl",
    "matmul_tn.wgsl",
    "matmul_tn_subgroup.wgsl",
    "pack.wgsl",
    "permute.wgsl",
    "quant_gemv.wgsl",
    "read_bandwidth.wgsl",
    "reorder.wgsl",
    "residual_norm.wgsl",
    "rms_norm.wgsl",
    "rope.wgsl",
    "sample_choose.wgsl",
    "sample_greedy.wgsl",
    "sample_order.wgsl",
    "sample_scores.wgsl",
    "sample_weights.wgsl",
    "scale_choose.wgsl",
    "scale_error.wgsl",
    "scale_loss.wgsl",
    "scale_pick.wgsl",
    "score.wgsl",
    "swiglu.wgsl",
    "swiglu_gather.wgsl",
    "symmetrize.wgsl",
    "turn_factor.wgsl",
    "unit_diagonal.wgsl",
    "weight_error.wgsl",
];

/// The text of a file in `shaders/`, by its path there.
pub fn source(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// Names of all kernels: the files that are not only there to be imported.
pub fn kernel_stems() -> impl Iterator<Item = &'static str> {
    FILES.iter().filter(|(path, _)| !path.contains('/')).filter_map(|(path, _)| path.strip_suffix(".wgsl"))
}

/// One way to compile a kernel.
#[derive(Clone, Debug)]
pub struct Variant {
    stem: &'static str,
    imports: Vec<(&'static str, Cow<'static, str>)>,
    prologue: String,
    constants: Vec<(&'static str, f64)>,
    key: String,
}

impl Variant {
    /// The kernel in `shaders/STEM.wgsl` as it stands.
    pub fn new(stem: &'static str) -> Self {
        Self {
            stem,
            imports: Vec::new(),
            prologue: String::new(),
            constants: Vec::new(),
            key: stem.to_owned(),
        }
    }

    /// Puts the text of another file in `shaders/` behind an import.
    #[must_use]
    pub fn import(mut self, path: &'static str, instead: &'static str) -> Self {
        self.key += &format!(" {instead}");
        self.imports.push((path, Cow::Borrowed(source(instead).unwrap_or_default())));
        self
    }

    /// Puts generated text behind an import. The text must depend on nothing but `path`.
    #[must_use]
    pub fn generated(mut self, path: &'static str, text: impl Into<Cow<'static, str>>) -> Self {
        self.imports.push((path, text.into()));
        self
    }

    /// Puts declarations before the text.
    #[must_use]
    pub fn prologue(mut self, text: &str) -> Self {
        self.key += &format!(" {{{}}}", text.replace('\n', " "));
        self.prologue += text;
        self.prologue += "\n";
        self
    }

    /// Gives an `override` its value.
    #[must_use]
    pub fn constant(mut self, name: &'static str, value: u32) -> Self {
        self.key += &format!(" {name}={value}");
        self.constants.push((name, f64::from(value)));
        self
    }

    /// The kernel's name.
    pub fn stem(&self) -> &'static str {
        self.stem
    }

    /// A text that tells this variant from every other.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Values of the overrides.
    pub fn constants(&self) -> &[(&'static str, f64)] {
        &self.constants
    }

    /// The whole WGSL text.
    ///
    /// # Errors
    /// [`Error::Device`] when an import names no file.
    pub fn text(&self) -> Result<String> {
        let file = format!("{}.wgsl", self.stem);
        let body = source(&file).ok_or_else(|| self.missing(&file))?;
        let mut text = self.prologue.clone();
        self.expand(body, &mut BTreeSet::new(), &mut text)?;
        Ok(text)
    }

    fn expand(&self, body: &str, seen: &mut BTreeSet<String>, text: &mut String) -> Result<()> {
        for line in body.lines() {
            match line.strip_prefix("#import \"").and_then(|rest| rest.strip_suffix('"')) {
                Some(path) if seen.insert(path.to_owned()) => {
                    let instead =
                        self.imports.iter().find(|(name, _)| *name == path).map(|(_, text)| &**text);
                    let file = instead.or_else(|| source(path)).ok_or_else(|| self.missing(path))?;
                    self.expand(file, seen, text)?;
                }
                Some(_) => {}
                None => {
                    text.push_str(line);
                    text.push('\n');
                }
            }
        }
        Ok(())
    }

    fn missing(&self, path: &str) -> Error {
        Error::Device { label: self.stem.to_owned(), message: format!("there is no shader file `{path}`") }
    }
}
