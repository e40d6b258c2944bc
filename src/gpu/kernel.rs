//! A compiled kernel and what it binds, read off its own text.

use std::sync::Arc;

use super::device::Device;
use super::shader::Variant;
use crate::{Error, Result};

/// One storage buffer of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its name in the shader.
    pub name: String,
    /// The kernel writes it.
    pub writes: bool,
}

/// What a kernel takes: buffers in the order of their binding numbers, and immediates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Bindings 0, 1, … of group 0.
    pub bindings: Vec<Binding>,
    /// Bytes of the `var<immediate>` struct.
    pub immediate_bytes: u32,
}

impl Interface {
    /// Reads the interface of a WGSL text.
    ///
    /// # Errors
    /// [`Error::Device`] with naga's annotated text, or when the bindings are not 0, 1, … of group 0.
    pub fn of(variant: &Variant) -> Result<Self> {
        let text = variant.text()?;
        let fail = |message: String| Error::Device { label: variant.key().to_owned(), message };
        let module = parse(&text).map_err(fail)?;
        let mut layouter = naga::proc::Layouter::default();
        layouter.update(module.to_ctx()).map_err(|error| fail(error.to_string()))?;
        let mut bindings = Vec::new();
        let mut immediate_bytes = 0;
        for (_, variable) in module.global_variables.iter() {
            let name = variable.name.clone().unwrap_or_default();
            match variable.space {
                naga::AddressSpace::Storage { access } => {
                    let place = variable.binding.ok_or_else(|| fail(format!("`{name}` has no binding")))?;
                    let writes = access.contains(naga::StorageAccess::STORE);
                    bindings.push(((place.group, place.binding), Binding { name, writes }));
                }
                naga::AddressSpace::Immediate => immediate_bytes = layouter[variable.ty].size,
                _ => {}
            }
        }
        bindings.sort_by_key(|(place, _)| *place);
        if bindings.iter().enumerate().any(|(index, (place, _))| *place != (0, index as u32)) {
            return Err(fail("bindings are not numbered 0, 1, … in group 0".to_owned()));
        }
        Ok(Self { bindings: bindings.into_iter().map(|(_, binding)| binding).collect(), immediate_bytes })
    }
}

/// Parses WGSL with every language extension that naga knows.
///
/// # Errors
/// naga's annotated text.
pub fn parse(text: &str) -> std::result::Result<naga::Module, String> {
    let mut frontend = naga::front::wgsl::Frontend::new_with_options(naga::front::wgsl::Options {
        parse_doc_comments: false,
        capabilities: naga::valid::Capabilities::all(),
    });
    frontend.parse(text).map_err(|error| error.emit_to_string(text))
}

/// A pipeline with its interface; cloning shares it. Belongs to one device.
#[derive(Clone)]
pub struct Kernel(Arc<Inner>);

struct Inner {
    label: String,
    interface: Interface,
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

impl Kernel {
    pub(super) fn build(device: &Device, variant: &Variant) -> Result<Self> {
        let interface = Interface::of(variant)?;
        let text = variant.text()?;
        let label = variant.key().to_owned();
        let entries: Vec<_> = interface
            .bindings
            .iter()
            .enumerate()
            .map(|(index, binding)| wgpu::BindGroupLayoutEntry {
                binding: index as u32,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: wgpu::BufferBindingType::Storage { read_only: !binding.writes },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let raw = device.raw();
        let (pipeline, layout) = device.guarded(&label, || {
            let layout = raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some(&label),
                entries: &entries,
            });
            let pipeline_layout = raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&label),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: interface.immediate_bytes,
            });
            let checks = if device.checked() {
                wgpu::ShaderRuntimeChecks::checked()
            } else {
                wgpu::ShaderRuntimeChecks::unchecked()
            };
            let descriptor = wgpu::ShaderModuleDescriptor {
                label: Some(&label),
                source: wgpu::ShaderSource::Wgsl(text.as_str().into()),
            };
            // SAFETY: the text is ours; every shape and every value that becomes an index is checked on the
            // host before a dispatch, and the kernels are tested with the checks on too (`DeviceOptions::checked`).
            let module = unsafe { raw.create_shader_module_trusted(descriptor, checks) };
            let pipeline = raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    constants: variant.constants(),
                    zero_initialize_workgroup_memory: device.checked(),
                },
                cache: device.pipelines(),
            });
            (pipeline, layout)
        })?;
        Ok(Self(Arc::new(Inner { label, interface, pipeline, layout })))
    }

    /// The variant's key.
    pub fn label(&self) -> &str {
        &self.0.label
    }

    /// What it binds.
    pub fn interface(&self) -> &Interface {
        &self.0.interface
    }

    pub(super) fn pipeline(&self) -> &wgpu::ComputePipeline {
        &self.0.pipeline
    }

    pub(super) fn layout(&self) -> &wgpu::BindGroupLayout {
        &self.0.layout
    }
}
