//! Dispatches with everything bound, made once and run any number of times.

use super::buffer::Buffer;
use super::device::Device;
use super::kernel::Kernel;
use super::readback::Readback;
use super::submission::Submission;
use crate::{Error, Result};

/// Dispatches in order; each sees what those before it wrote.
pub struct CommandList {
    device: Device,
    label: String,
    commands: Vec<Command>,
}

pub(super) enum Command {
    /// The buffers are kept so that memory counts as held while the bind group holds it.
    Dispatch {
        kernel: Kernel,
        group: wgpu::BindGroup,
        _buffers: Vec<Buffer>,
        immediates: Vec<u8>,
        grid: [u32; 3],
    },
    Copy {
        from: Buffer,
        from_offset: u64,
        to: Buffer,
        to_offset: u64,
        bytes: u64,
    },
    Clear {
        buffer: Buffer,
    },
}

impl CommandList {
    /// An empty list; `label` names it in errors.
    pub fn new(device: &Device, label: impl Into<String>) -> Self {
        Self { device: device.clone(), label: label.into(), commands: Vec::new() }
    }

    /// The device that will run it.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Labels of the kernels that it dispatches, in order.
    pub fn kernels(&self) -> impl Iterator<Item = &str> {
        self.commands.iter().filter_map(|command| match command {
            Command::Dispatch { kernel, .. } => Some(kernel.label()),
            _ => None,
        })
    }

    /// Number of dispatches, copies and clears.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    /// True without any command.
    pub fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Adds a dispatch: buffers in binding order, the immediates as the shader's struct has them, workgroups.
    /// An empty grid adds nothing, nor
    /// does a device that only counts.
    ///
    /// # Errors
    /// [`Error::Shape`] when the buffers do not fit the kernel's interface, one is of another device or is both
    /// read and written, or the grid exceeds the device; [`Error::Device`] from the driver.
    pub fn dispatch<P: bytemuck::NoUninit>(
        &mut self,
        kernel: &Kernel,
        buffers: &[&Buffer],
        immediates: &P,
        grid: [u32; 3],
    ) -> Result<()> {
        self.dispatch_bytes(kernel, buffers, bytemuck::bytes_of(immediates), grid)
    }

    /// The same with immediates whose length only the kernel's variant tells.
    ///
    /// # Errors
    /// As [`CommandList::dispatch`].
    pub fn dispatch_bytes(
        &mut self,
        kernel: &Kernel,
        buffers: &[&Buffer],
        immediates: &[u8],
        grid: [u32; 3],
    ) -> Result<()> {
        let interface = kernel.interface();
        let refuse = |message: String| Err(Error::shape(kernel.label(), message));
        if buffers.len() != interface.bindings.len() {
            return refuse(format!("{} buffers for {} bindings", buffers.len(), interface.bindings.len()));
        }
        if immediates.len() != interface.immediate_bytes as usize {
            return refuse(format!(
                "{} bytes of immediates for {}",
                immediates.len(),
                interface.immediate_bytes
            ));
        }
        for (index, (buffer, binding)) in buffers.iter().zip(&interface.bindings).enumerate() {
            if !buffer.device().is(&self.device) {
                return refuse(format!("`{}` belongs to another device", buffer.label()));
            }
            let clash = |(other, bound): (&&Buffer, &super::kernel::Binding)| {
                other.is(buffer) && bound.writes != binding.writes
            };
            if buffers.iter().zip(&interface.bindings).skip(index + 1).any(clash) {
                return refuse(format!("`{}` is both read and written", buffer.label()));
            }
        }
        if grid.contains(&0) {
            return Ok(());
        }
        if grid.iter().any(|&count| count > self.device.max_workgroups()) {
            return refuse(format!("a grid of {grid:?} where {} is the most", self.device.max_workgroups()));
        }
        if self.device.counts() {
            return Ok(());
        }
        let entries: Vec<_> = buffers
            .iter()
            .enumerate()
            .map(|(index, buffer)| wgpu::BindGroupEntry { binding: index as u32, resource: buffer.binding() })
            .collect();
        let group = self.device.guarded(kernel.label(), || {
            self.device.raw().create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(kernel.label()),
                layout: kernel.layout(),
                entries: &entries,
            })
        })?;
        let immediates = immediates.to_vec();
        let _buffers = buffers.iter().map(|&buffer| buffer.clone()).collect();
        self.commands.push(Command::Dispatch { kernel: kernel.clone(), group, _buffers, immediates, grid });
        Ok(())
    }

    /// Adds a copy of `bytes` (offsets and length multiples of four).
    ///
    /// # Errors
    /// [`Error::Shape`] when a range lies outside its buffer or the buffers are one.
    pub fn copy(
        &mut self,
        from: &Buffer,
        from_offset: u64,
        to: &Buffer,
        to_offset: u64,
        bytes: u64,
    ) -> Result<()> {
        let outside = from_offset + bytes > from.bytes() || to_offset + bytes > to.bytes();
        if outside || from.is(to) || !(from_offset | to_offset | bytes).is_multiple_of(4) {
            let message = format!("{bytes} bytes from `{}` to `{}`", from.label(), to.label());
            return Err(Error::shape("copy", message));
        }
        self.commands.push(Command::Copy {
            from: from.clone(),
            from_offset,
            to: to.clone(),
            to_offset,
            bytes,
        });
        Ok(())
    }

    /// Adds the filling of a buffer with zeros.
    pub fn clear(&mut self, buffer: &Buffer) {
        self.commands.push(Command::Clear { buffer: buffer.clone() });
    }

    /// Submits the list; does not wait.
    ///
    /// # Errors
    /// [`Error::Device`] with this list's label.
    pub fn run(&self) -> Result<()> {
        let mut alone = Submission::new(&self.device, &self.label);
        alone.add(self);
        alone.run()
    }

    /// Submits the list and, after it, a copy of `bytes` of `from` (a multiple of four, as the offset) that
    /// `readback` has later; does not wait.
    ///
    /// # Errors
    /// [`Error::Shape`] when the range lies outside or `readback` has no room; as [`CommandList::run`].
    pub fn run_and_read(
        &self,
        readback: &mut Readback,
        from: &Buffer,
        offset: u64,
        bytes: u64,
    ) -> Result<()> {
        if !(offset | bytes).is_multiple_of(4) || offset + bytes > from.bytes() {
            let message = format!("{bytes} bytes at {offset} of `{}` of {}", from.label(), from.bytes());
            return Err(Error::shape("readback", message));
        }
        let to = readback.take(bytes)?;
        let submitted = self.device.guarded(&self.label, || {
            let mut encoder = self.encode();
            encoder.copy_buffer_to_buffer(from.raw(), from.offset() + offset, &to, 0, bytes);
            self.device.queue().submit([encoder.finish()])
        });
        match submitted {
            Ok(submission) => {
                readback.submitted(to, bytes, submission);
                Ok(())
            }
            Err(error) => {
                readback.give_back(to);
                Err(error)
            }
        }
    }

    fn encode(&self) -> wgpu::CommandEncoder {
        let descriptor = wgpu::CommandEncoderDescriptor { label: Some(&self.label) };
        let mut encoder = self.device.raw().create_command_encoder(&descriptor);
        encode(&mut encoder, &self.label, &self.commands);
        encoder
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn commands(&self) -> &[Command] {
        &self.commands
    }
}

impl Command {
    /// The kernel's label, or what the transfer is.
    pub(super) fn label(&self) -> &str {
        match self {
            Self::Dispatch { kernel, .. } => kernel.label(),
            Self::Copy { .. } => "copy",
            Self::Clear { .. } => "clear",
        }
    }
}

/// Encodes commands: one pass for each run of dispatches, transfers between them.
pub(super) fn encode(encoder: &mut wgpu::CommandEncoder, label: &str, mut commands: &[Command]) {
    while !commands.is_empty() {
        let dispatches =
            commands.iter().take_while(|command| matches!(command, Command::Dispatch { .. })).count();
        let (batch, after) = commands.split_at(dispatches);
        encode_pass(encoder, label, batch);
        let transfers =
            after.iter().take_while(|command| !matches!(command, Command::Dispatch { .. })).count();
        after[..transfers].iter().for_each(|command| encode_transfer(encoder, command));
        commands = &after[transfers..];
    }
}

fn encode_pass(encoder: &mut wgpu::CommandEncoder, label: &str, commands: &[Command]) {
    if commands.is_empty() {
        return;
    }
    let descriptor = wgpu::ComputePassDescriptor { label: Some(label), timestamp_writes: None };
    let mut pass = encoder.begin_compute_pass(&descriptor);
    for command in commands {
        if let Command::Dispatch { kernel, group, immediates, grid: [x, y, z], .. } = command {
            pass.set_pipeline(kernel.pipeline());
            pass.set_bind_group(0, group, &[]);
            if !immediates.is_empty() {
                pass.set_immediates(0, immediates);
            }
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

fn encode_transfer(encoder: &mut wgpu::CommandEncoder, command: &Command) {
    match command {
        Command::Copy { from, from_offset, to, to_offset, bytes } => {
            let (from_at, to_at) = (from.offset() + from_offset, to.offset() + to_offset);
            encoder.copy_buffer_to_buffer(from.raw(), from_at, to.raw(), to_at, *bytes);
        }
        Command::Clear { buffer } => {
            encoder.clear_buffer(buffer.raw(), buffer.offset(), Some(buffer.bytes()))
        }
        Command::Dispatch { .. } => {}
    }
}

/// A grid of `workgroups` folded into two dimensions where one is too short; kernels unfold it with
/// `flat_workgroup` of `common/index.wgsl` and leave at once past the end.
pub fn flat_grid(device: &Device, workgroups: u64) -> [u32; 3] {
    let most = u64::from(device.max_workgroups());
    let rows = workgroups.div_ceil(most).max(1);
    [workgroups.div_ceil(rows) as u32, rows as u32, 1]
}
