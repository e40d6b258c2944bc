//! Which adapters there are, in what order, and how the user names one.

use super::capabilities::Capabilities;
use crate::{Error, Result};

/// One graphics card as one backend shows it.
pub struct Adapter {
    pub(super) raw: wgpu::Adapter,
    info: wgpu::AdapterInfo,
    capabilities: Capabilities,
}

impl Adapter {
    /// The name that the driver gives.
    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// Driver and its version.
    pub fn driver(&self) -> String {
        format!("{} {}", self.info.driver, self.info.driver_info).trim().to_owned()
    }

    /// `vulkan`, `metal` or `dx12`.
    pub fn backend(&self) -> String {
        self.info.backend.to_string()
    }

    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub fn kind(&self) -> &'static str {
        match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        }
    }

    /// What kernels may use on it.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Largest buffer, in bytes.
    pub fn max_buffer_bytes(&self) -> u64 {
        self.raw.limits().max_buffer_size
    }

    /// Largest part of a buffer that a kernel can see at once, in bytes.
    pub fn max_binding_bytes(&self) -> u64 {
        self.raw.limits().max_storage_buffer_binding_size
    }

    /// Discrete cards first, software last; Vulkan before other views of the same card.
    fn rank(&self) -> (u8, u8) {
        let kind = match self.info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
            wgpu::DeviceType::Cpu => 3,
        };
        (kind, u8::from(self.info.backend == wgpu::Backend::Dx12))
    }
}

/// All adapters in order of preference; the position is the index that `--adapter` takes.
pub fn adapters() -> Vec<Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle_from_env();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    // Indirect dispatches are not used, and their validation would lower the limits.
    descriptor.flags.remove(wgpu::InstanceFlags::VALIDATION_INDIRECT_CALL);
    let instance = wgpu::Instance::new(descriptor);
    let mut adapters: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .map(|raw| Adapter { info: raw.get_info(), capabilities: Capabilities::of(&raw), raw })
        .collect();
    adapters.sort_by_key(Adapter::rank);
    adapters
}

/// Which of `names` is meant by `wanted`: an index if there is such a one, else part of a name (`4090`).
fn position(names: &[&str], wanted: &str) -> Option<usize> {
    let index = wanted.parse::<usize>().ok().filter(|&index| index < names.len());
    index.or_else(|| names.iter().position(|name| name.to_lowercase().contains(&wanted.to_lowercase())))
}

/// The adapter that `name` means: an index into [`adapters`] or part of a name, or the first.
///
/// # Errors
/// [`Error::NoAdapter`] without any adapter, [`Error::Argument`] when none fits `name`.
pub fn select(name: Option<&str>) -> Result<Adapter> {
    let mut found = adapters();
    if found.is_empty() {
        return Err(Error::NoAdapter(
            "no graphics adapter found; install a Vulkan driver (on Debian and Ubuntu `mesa-vulkan-drivers` and \
             `libvulkan1`, which also bring a software one), then see `exlay devices`"
                .to_owned(),
        ));
    }
    let Some(name) = name else { return Ok(found.swap_remove(0)) };
    let names: Vec<_> = found.iter().map(Adapter::name).collect();
    match position(&names, name) {
        Some(position) => Ok(found.swap_remove(position)),
        None => {
            let list: Vec<_> = found
                .iter()
                .enumerate()
                .map(|(index, adapter)| format!("{index}: {}", adapter.name()))
                .collect();
            Err(Error::argument(
                "--adapter",
                format!("`{name}` is none of the adapters: {}", list.join(", ")),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_an_index_or_part_of_a_name() {
        let names = ["NVIDIA GeForce RTX 4090", "AMD Radeon RX 7900 XTX", "llvmpipe (LLVM 19.1.7, 256 bits)"];
        for (wanted, expected) in [("0", 0), ("2", 2), ("4090", 0), ("7900", 1), ("LLVMPIPE", 2), ("19", 2)] {
            assert_eq!(position(&names, wanted), Some(expected), "{wanted}");
        }
        for wanted in ["3", "5090", "-1", "arc"] {
            assert_eq!(position(&names, wanted), None, "{wanted}");
        }
    }
}
