//! What an adapter can do, and the tiers that name useful subsets of it.

use std::fmt;

use crate::{Error, Result};

/// What an adapter can do, as far as a kernel may depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Half-precision arithmetic (`enable f16;`).
    pub f16: bool,
    /// Smallest and largest subgroup size, where subgroup operations exist.
    pub subgroup: Option<(u32, u32)>,
    /// `dot4I8Packed` is one instruction. An allow-list, since no API tells.
    pub packed_dot: bool,
    /// Half-precision arithmetic is no slower than single precision: on every card that has it, on no processor that plays one.
    pub fast_f16: bool,
    /// Edge of the square cooperative matrices (f16 × f16 → f32), 8 or 16.
    pub cooperative: Option<u32>,
    /// Bytes of memory that a workgroup may have.
    pub shared: u32,
}

/// A named subset of the capabilities; each contains the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// 32-bit arithmetic and workgroup memory only.
    Plain,
    /// Half-precision arithmetic and subgroup operations too.
    Subgroup,
    /// Matrix units too.
    Coop,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Self; 3] = [Self::Plain, Self::Subgroup, Self::Coop];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plain => "plain",
            Self::Subgroup => "subgroup",
            Self::Coop => "coop",
        })
    }
}

impl std::str::FromStr for Tier {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.to_string() == text)
            .ok_or_else(|| format!("unknown tier `{text}`; use plain, subgroup or coop"))
    }
}

/// How a few rows are multiplied with packed weights, and so how the rows are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arithmetic {
    /// Single precision.
    Single,
    /// Blocks of 32 values in 16-bit fixed point, split into two signed bytes, with a scale and a sum: exact integer
    /// products by `dot4I8Packed`. Errs by at most half a step of 1/32639 of the block's largest value.
    Fixed,
    /// Pairs of halves: blocks of 32 values in fixed point too, split into a high half and a low one, with a scale; products of
    /// high halves are exact in half precision, those of low ones rounded. Errs by at most half a step of 1/65536 of the block's
    /// largest value, and about as much in products.
    Pairs,
}

impl Arithmetic {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Single, Self::Fixed, Self::Pairs];
}

impl fmt::Display for Arithmetic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Single => "f32",
            Self::Fixed => "fx16",
            Self::Pairs => "f16",
        })
    }
}

impl std::str::FromStr for Arithmetic {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|one| one.to_string() == text)
            .ok_or_else(|| format!("unknown arithmetic `{text}`; use f32, fx16 or f16"))
    }
}

/// PCI vendor numbers of the allow-lists.
mod vendor {
    pub(super) const NVIDIA: u32 = 0x10de;
    pub(super) const AMD: u32 = 0x1002;
    pub(super) const APPLE: u32 = 0x106b;
    /// Mesa's number, used by lavapipe.
    pub(super) const MESA: u32 = 0x10005;
}

impl Capabilities {
    /// Reads the capabilities of an adapter.
    ///
    /// Cooperative matrices are taken from an allow-list of vendors: old AMD drivers and Intel's
    /// Alchemist advertise them and run them slower than plain shaders (llama.cpp keeps the same list).
    pub(super) fn of(adapter: &wgpu::Adapter) -> Self {
        let features = adapter.features();
        let info = adapter.get_info();
        let subgroup = features.contains(wgpu::Features::SUBGROUP).then(|| {
            // Metal reports 4 to 64 whatever the card; Apple's cards run 32.
            if info.backend == wgpu::Backend::Metal {
                (32, 32)
            } else {
                (info.subgroup_min_size, info.subgroup_max_size)
            }
        });
        let square = |edge: u32| {
            adapter.cooperative_matrix_properties().iter().any(|shape| {
                [shape.m_size, shape.n_size, shape.k_size] == [edge; 3]
                    && shape.ab_type == wgpu::CooperativeScalarType::F16
                    && shape.cr_type == wgpu::CooperativeScalarType::F32
            })
        };
        let allowed = [vendor::NVIDIA, vendor::AMD, vendor::APPLE, vendor::MESA].contains(&info.vendor)
            || info.backend == wgpu::Backend::Metal;
        let cooperative = (features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) && allowed)
            .then(|| [16, 8].into_iter().find(|&edge| square(edge)))
            .flatten();
        Self {
            f16: features.contains(wgpu::Features::SHADER_F16),
            subgroup,
            packed_dot: info.backend == wgpu::Backend::Vulkan
                && [vendor::NVIDIA, vendor::AMD].contains(&info.vendor),
            fast_f16: features.contains(wgpu::Features::SHADER_F16)
                && info.device_type != wgpu::DeviceType::Cpu,
            cooperative,
            shared: adapter.limits().max_compute_workgroup_storage_size,
        }
    }

    /// The highest tier that these capabilities contain.
    pub fn tier(&self) -> Tier {
        match (self.f16, self.subgroup, self.cooperative) {
            (true, Some((least, most)), Some(_)) if least == most => Tier::Coop,
            (true, Some(_), _) => Tier::Subgroup,
            _ => Tier::Plain,
        }
    }

    /// The arithmetic for these capabilities: fixed point where a packed dot product is one instruction, which on an H100 is
    /// both faster at two and three bits and more exact than halves; else halves on a card that has them.
    pub fn arithmetic(&self) -> Arithmetic {
        match (self.packed_dot, self.fast_f16) {
            (true, _) => Arithmetic::Fixed,
            (false, true) => Arithmetic::Pairs,
            (false, false) => Arithmetic::Single,
        }
    }

    /// These, if they allow what is asked for.
    pub(super) fn allowing(self, wanted: Option<Arithmetic>) -> Result<Self> {
        let Some(lacking) = wanted.filter(|&one| !self.allow(one)) else { return Ok(self) };
        let message = format!(
            "{lacking} needs half-precision arithmetic, which this adapter has not in tier {}; use f32 or fx16",
            self.tier()
        );
        Err(Error::argument("--arithmetic", message))
    }

    /// Whether kernels can be built that compute so, at whatever speed.
    pub fn allow(&self, arithmetic: Arithmetic) -> bool {
        arithmetic != Arithmetic::Pairs || self.f16
    }

    /// These capabilities without what `tier` does not name.
    pub fn limited_to(&self, tier: Tier) -> Self {
        Self {
            f16: self.f16 && tier >= Tier::Subgroup,
            subgroup: self.subgroup.filter(|_| tier >= Tier::Subgroup),
            packed_dot: self.packed_dot,
            fast_f16: self.fast_f16 && tier >= Tier::Subgroup,
            cooperative: self.cooperative.filter(|_| tier >= Tier::Coop),
            shared: self.shared,
        }
    }

    /// The features to ask of a device that is to have these capabilities.
    pub(super) fn features(&self) -> wgpu::Features {
        let mut features = wgpu::Features::IMMEDIATES;
        features.set(wgpu::Features::SHADER_F16, self.f16);
        features.set(wgpu::Features::SUBGROUP, self.subgroup.is_some());
        features.set(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX, self.cooperative.is_some());
        features
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Capabilities {
        Capabilities {
            f16: true,
            subgroup: Some((32, 32)),
            packed_dot: true,
            fast_f16: true,
            cooperative: Some(16),
            shared: 49152,
        }
    }

    #[test]
    fn a_lower_tier_has_lost_exactly_what_it_does_not_name() {
        assert_eq!(all().tier(), Tier::Coop);
        for tier in Tier::ALL {
            assert_eq!(all().limited_to(tier).tier(), tier);
        }
        assert!(!all().limited_to(Tier::Plain).f16);
    }

    #[test]
    fn the_arithmetic_follows_from_the_capabilities() {
        let of = |packed_dot, fast_f16| Capabilities { packed_dot, fast_f16, ..all() };
        assert_eq!(of(true, true).arithmetic(), Arithmetic::Fixed);
        assert_eq!(of(false, true).arithmetic(), Arithmetic::Pairs);
        assert_eq!(of(false, true).limited_to(Tier::Plain).arithmetic(), Arithmetic::Single);
        // A processor that plays a card.
        assert_eq!(of(false, false).arithmetic(), Arithmetic::Single);
        let plain = all().limited_to(Tier::Plain);
        let allowed = |of: &Capabilities| Arithmetic::ALL.map(|one| of.allow(one));
        assert_eq!((allowed(&all()), allowed(&plain)), ([true; 3], [true, true, false]));
        for one in Arithmetic::ALL {
            assert_eq!(one.to_string().parse(), Ok(one));
        }
    }

    #[test]
    fn a_varying_subgroup_size_rules_out_matrix_units() {
        let varying = Capabilities { subgroup: Some((16, 32)), ..all() };
        assert_eq!(varying.tier(), Tier::Subgroup);
    }
}
