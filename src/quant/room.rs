//! What a conversion takes of the device's and the host's memory, known before it begins, and what is left for hidden states.
//!
//! Activations are counted by making them on a [device that only counts](crate::gpu::Device::counting); the rest is told step by
//! step from the shapes, as the steps hold it: [`super::measure`], [`super::quantize`], [`super::gptq`]. Packed weights count
//! with 8 bits, as it is not known then how many they will have.

use super::accumulate::sums_outputs;
use super::conversion::Conversion;
use super::rows::RowsRoom;
use crate::formats::config::LlamaConfig;
use crate::gpu::Device;
use crate::model::{BlockSpec, GroupSpec, LinearSpec, Role, Workbench, blocks, head_spec};
use crate::ops::column_product::in_halves;
use crate::packing::padded_columns;
use crate::{Error, Result};

/// Bytes of hidden states that stay on the device where nothing limits its memory: those of 100 rows of 2048 tokens, twice,
/// up to a hidden size of 2600; a software device has the host's memory anyway.
pub const ROWS_ROOM: u64 = 4 << 30;

/// Fewest rows of a pass that a limit leads to: with fewer, products are slow.
const LEAST_PASS: usize = 256;

/// Bytes for what is small: tables, orders, scales, sums, small linears that are tried at once.
const SMALL: u64 = 96 << 20;

/// Bytes of a process that has opened a device and converts nothing.
const HOST_BASE: u64 = 768 << 20;

/// Bytes that the search for scales holds a column, and rounding with it: two values for each of 5 maxima, and codes and errors
/// of 128 rows.
const ROUNDING_COLUMN: u64 = 8 * 5 + 8 * 128;

/// What a conversion takes.
#[derive(Clone, Debug)]
pub struct ConversionPlan {
    /// Tokens of a pass.
    pub pass_rows: usize,
    /// Bytes of activations of a pass.
    pub activations: u64,
    /// Most bytes of weights, sums and factors at a time.
    pub working: u64,
    /// The step that takes them.
    pub step: String,
    /// Bytes of the whole model in halves and the logits of its probes, where it is probed.
    pub resident: u64,
    /// Bytes on the host beside hidden states.
    pub host: u64,
    /// Bytes of the hidden states of all rows, twice where the method pairs them.
    pub rows: u64,
    /// Where hidden states go.
    pub room: RowsRoom,
}

impl ConversionPlan {
    /// Plans a conversion whose rows have up to `context` tokens, in passes of `pass_rows` or fewer, within the device's limit and
    /// the conversion's.
    ///
    /// # Errors
    /// [`Error::Limit`] with the numbers, and what would help, when it does not fit.
    pub fn new(
        device: &Device,
        config: &LlamaConfig,
        conversion: &Conversion,
        (pass_rows, context): (usize, usize),
    ) -> Result<Self> {
        let mut pass = pass_rows;
        loop {
            let plan = Self::with_passes(device, config, conversion, (pass, context))?;
            match device.memory_limit() {
                Some(limit) if plan.device() > limit && pass > LEAST_PASS => pass /= 2,
                Some(limit) if plan.device() > limit => return Err(plan.device_refusal(limit)),
                _ => return plan.within(device, conversion),
            }
        }
    }

    fn with_passes(
        device: &Device,
        config: &LlamaConfig,
        conversion: &Conversion,
        (pass_rows, context): (usize, usize),
    ) -> Result<Self> {
        let paired = conversion.method.paired();
        let counting = device.counting()?;
        let mut bench = Workbench::new(&counting, config.clone(), pass_rows, context)?;
        if paired {
            bench.make_room(2)?;
        }
        let activations = counting.memory().held;
        let rows = bench.scratch().rows() as u64;
        let steps = Steps { config, conversion, rows, in_halves: in_halves(device) };
        let (step, working) = steps.largest();
        let token = 4 * config.hidden_size as u64;
        let tokens = |(rows, length): (usize, usize), streams: u64| (rows * length) as u64 * token * streams;
        let quantizing = tokens(conversion.rows, 1 + u64::from(paired));
        let rows = quantizing.max(tokens(conversion.measurement_rows, 1));
        Ok(Self {
            pass_rows,
            activations,
            working,
            step,
            resident: steps.resident(),
            host: steps.host(device),
            rows,
            room: RowsRoom { device: ROWS_ROOM, host: u64::MAX, directory: conversion.work.clone() },
        })
    }

    /// Bytes on the device beside hidden states.
    pub fn device(&self) -> u64 {
        self.activations + self.working + self.resident + SMALL
    }

    fn within(mut self, device: &Device, conversion: &Conversion) -> Result<Self> {
        if let Some(limit) = device.memory_limit() {
            self.room.device = limit - self.device();
        }
        if let Some(limit) = conversion.host_memory {
            let Some(left) = limit.checked_sub(self.host) else {
                let message = format!(
                    "{} GB, and the largest linear's weights and what else is on the host take {} GB; allow at least that, beside \
                     which hidden states go to a file",
                    gigabytes(limit),
                    gigabytes(self.host)
                );
                return Err(Error::argument("--host-memory", message));
            };
            self.room.host = left;
        }
        Ok(self)
    }

    fn device_refusal(&self, limit: u64) -> Error {
        let Self { pass_rows, activations, working, step, resident, .. } = self;
        let mut ways = vec![format!("allow {} GB (--vram)", gigabytes(self.device()))];
        if *resident > 0 {
            let fits = if self.device() - resident <= limit { ", with which it fits" } else { "" };
            ways.push(format!("--probe-rows 0 saves {} GB{fits}", gigabytes(*resident)));
        }
        let probed = match resident {
            0 => String::new(),
            _ => format!(" + the whole model in halves, to be probed, {}", gigabytes(*resident)),
        };
        Error::Limit {
            message: format!(
                "activations {} ({pass_rows} tokens at a time) + {step} {}{probed} + tables {} = {} GB, where {} GB are allowed; {}",
                gigabytes(*activations),
                gigabytes(*working),
                gigabytes(SMALL),
                gigabytes(self.device()),
                gigabytes(limit),
                ways.join("; ")
            ),
        }
    }

    /// A line for the user.
    pub fn line(&self) -> String {
        let RowsRoom { device, host, .. } = self.room;
        let on_device = self.rows.min(device);
        let on_host = (self.rows - on_device).min(host);
        let mut places = vec![format!("{} GB on the device", gigabytes(on_device))];
        if on_host > 0 {
            places.push(format!("{} GB on the host", gigabytes(on_host)));
        }
        if self.rows > on_device + on_host {
            places.push(format!("{} GB in a file", gigabytes(self.rows - on_device - on_host)));
        }
        format!(
            "Memory: at most {} GB on the device beside hidden states ({}), {} GB on the host; hidden states {}",
            gigabytes(self.device()),
            self.step,
            gigabytes(self.host),
            places.join(", ")
        )
    }
}

/// Thousands of millions of bytes, rounded up.
fn gigabytes(bytes: u64) -> String {
    format!("{:.3}", bytes.div_ceil(1_000_000) as f64 / 1e3)
}

/// The steps of a conversion and what each holds.
struct Steps<'a> {
    config: &'a LlamaConfig,
    conversion: &'a Conversion,
    /// Rows of a pass.
    rows: u64,
    /// Whether activations are multiplied as halves of their columns.
    in_halves: bool,
}

/// Bytes of a linear: as floats [k, padded n], of which everything else is a part.
fn floats(linear: &LinearSpec) -> u64 {
    4 * (linear.k * padded_columns(linear.n)) as u64
}

/// Bytes of the weights of a linear in halves.
fn halves(linear: &LinearSpec) -> u64 {
    2 * (linear.k * linear.n) as u64
}

/// Bytes of a linear in at most 8 bits, its scales included.
fn packed(linear: &LinearSpec) -> u64 {
    floats(linear) / 4 + floats(linear) / 64
}

fn square(k: usize) -> u64 {
    4 * (k * k) as u64
}

impl Steps<'_> {
    /// The step that takes most, and its bytes.
    fn largest(&self) -> (String, u64) {
        let blocks = blocks(self.config);
        let head = GroupSpec { input: Role::Normed, linears: vec![head_spec(self.config)] };
        let mut steps = vec![self.group(&head, 0, 0)];
        // All layers are alike.
        for block in blocks.iter().take(2) {
            steps.push(self.measuring(block));
            for (index, group) in block.groups.iter().enumerate() {
                let before: u64 =
                    block.groups[..index].iter().flat_map(|group| &group.linears).map(packed).sum();
                let dense: u64 = block.linears().map(halves).sum();
                let left: u64 =
                    block.groups[index..].iter().flat_map(|group| &group.linears).map(halves).sum();
                let last = index + 1 == block.groups.len();
                steps.push(self.group(
                    group,
                    dense + before,
                    if last { left + before } else { dense + before },
                ));
            }
        }
        steps.into_iter().max_by_key(|step| step.1).unwrap_or_default()
    }

    /// An activation of so many columns as two halves a value.
    fn side(&self, columns: usize) -> u64 {
        if self.in_halves { 4 * self.rows * columns as u64 } else { 0 }
    }

    /// Measuring a block: all of its Hessians are summed at once.
    fn measuring(&self, block: &BlockSpec) -> (String, u64) {
        if self.conversion.measurement.is_some() {
            return (String::new(), 0);
        }
        let dense: u64 = block.linears().map(halves).sum();
        let first = |group: &GroupSpec| square(group.linears[0].k);
        let sums = |group: &GroupSpec| first(group) + self.side(group.linears[0].k);
        let mut most = (
            format!("measuring sums for {}", block.name),
            dense + block.groups.iter().map(sums).sum::<u64>(),
        );
        for (index, group) in block.groups.iter().enumerate() {
            let waiting: u64 = block.groups[index + 1..].iter().map(first).sum();
            let kept: u64 = if self.conversion.probe_rows > 0 { 3 * packed(&group.linears[0]) } else { 0 };
            let (step, bytes) = self.prepared(group, 0, dense + waiting + kept);
            if bytes > most.1 {
                most = (format!("measuring {step}"), bytes);
            }
        }
        most
    }

    /// Quantizing a group beside `summing` bytes of weights in halves and packed while it is summed, and `rest` afterwards.
    fn group(&self, group: &GroupSpec, summing: u64, rest: u64) -> (String, u64) {
        let first = &group.linears[0];
        let method = self.conversion.method;
        let outputs = sums_outputs(first);
        let lack = match (method.asymmetry != 0.0, method.residual != 0.0) {
            (false, _) if !outputs => 0,
            (false, false) => 0,
            _ if outputs => floats(first),
            _ => square(first.k),
        };
        let kept = if lack > 0 { 4 * self.rows * (first.k + self.config.hidden_size) as u64 } else { 0 };
        let other = match lack {
            0 => 0,
            _ if outputs => self.side(self.config.hidden_size),
            _ => self.side(first.k),
        };
        let sums = summing + square(first.k) + lack + kept + self.side(first.k) + other;
        let (step, bytes) = self.prepared(group, lack, rest);
        if sums > bytes { (format!("sums for {}", first.name), sums) } else { (step, bytes) }
    }

    /// Factoring the Hessian of a group and rounding its linears, beside sums of what it lacks and `rest`.
    fn prepared(&self, group: &GroupSpec, lack: u64, rest: u64) -> (String, u64) {
        let first = &group.linears[0];
        let (k, all): (u64, u64) = (first.k as u64, group.linears.iter().map(floats).sum());
        let largest = group.linears.iter().map(floats).max().unwrap_or(0);
        let factors = rest + 2 * square(first.k) + lack;
        // A panel of H·W at most.
        let weighing = factors + all + largest.min(1 << 26);
        let mut most = (format!("factors for {}", first.name), weighing.max(factors + 4 * 256 * k));
        let mut left = all;
        for linear in &group.linears {
            let (own, columns) = (floats(linear), padded_columns(linear.n) as u64);
            let base = rest + square(first.k) + lack + left;
            let solving =
                if lack > 0 { own * if sums_outputs(linear) { 1 } else { 2 } + 4096 * k } else { 0 };
            let correcting = base + own + solving;
            // In order, at work, decoded, packed; checked as a loader would have it, and decoded again.
            let rounding = base + own + own / 2 + packed(linear) + ROUNDING_COLUMN * columns;
            let checking = rounding + packed(linear) + own / 2;
            for (what, bytes) in [("fitting", correcting), ("rounding", checking)] {
                if bytes > most.1 {
                    most = (format!("{what} {}", linear.name), bytes);
                }
            }
            left -= own;
        }
        most
    }

    /// The whole model in halves, and the logits that probes are compared with, where the model is probed.
    fn resident(&self) -> u64 {
        let rows = self.conversion.probe_rows.min(self.conversion.measurement_rows.0) as u64;
        if rows == 0 || self.conversion.measurement.is_some() {
            return 0;
        }
        let linears: u64 = blocks(self.config).iter().flat_map(BlockSpec::linears).map(halves).sum();
        let head = head_spec(self.config);
        let picked = (self.conversion.measurement_rows.1 as u64).min(self.rows).div_ceil(4);
        linears + halves(&head) + 4 * picked * ((rows + 1) * head.n as u64 + 2 * head.k as u64)
    }

    /// Bytes on the host beside hidden states: the largest linear as it is read, transposed and packed, or the embedding table; on a
    /// processor that plays a card also what factors and the device's buffers take.
    fn host(&self, device: &Device) -> u64 {
        let (blocks, head) = (blocks(self.config), head_spec(self.config));
        let linears: Vec<&LinearSpec> =
            blocks.iter().take(2).flat_map(BlockSpec::linears).chain([&head]).collect();
        let largest = linears.iter().map(|linear| 2 * floats(linear) + 2 * packed(linear)).max().unwrap_or(0);
        let block: u64 =
            blocks.iter().take(2).map(|block| block.linears().map(packed).sum()).max().unwrap_or(0);
        let pass = 8 * self.rows * self.config.hidden_size as u64;
        let factor = if device.software() {
            linears.iter().map(|linear| 6 * square(linear.k)).max().unwrap_or(0)
        } else {
            0
        };
        HOST_BASE + block + pass + largest.max(factor)
    }
}
