//! Keys and values of a layer in pages, cut by heads where they exceed a binding. Which page is whose, and what writes and
//! reads them, is not decided here.

use super::cache::{CachePrecision, PAGE};
use crate::gpu::{Buffer, Device};
use crate::{Error, Result};

/// Sizes of the cache of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Pages that a slot can have.
    pub pages_per_slot: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Values in a head, a multiple of 8.
    pub dim: usize,
    /// Element format.
    pub precision: CachePrecision,
}

/// Some neighbouring key and value heads of all pages.
#[derive(Clone)]
pub struct CacheSlab {
    /// Number of the first.
    pub first: usize,
    /// How many there are.
    pub heads: usize,
    /// `[page][heads][PAGE][dim]` in the cache's precision.
    pub keys: Buffer,
    /// `[page][heads][PAGE][dim]` in the cache's precision.
    pub values: Buffer,
}

/// Keys and values of one layer, with the table that finds a slot's pages.
#[derive(Clone)]
pub struct PagedCache {
    slabs: Vec<CacheSlab>,
    pages: Buffer,
    shape: CacheShape,
}

impl CacheShape {
    /// Bytes of the keys of one head in a page.
    fn head_bytes(self) -> usize {
        PAGE * self.dim * self.precision.bytes()
    }

    /// The most pages that a cache has on `device`: the keys of one head in all of them must fit into a binding.
    pub fn most_pages(self, device: &Device) -> usize {
        usize::try_from(device.max_slab_bytes()).unwrap_or(usize::MAX) / self.head_bytes().max(1)
    }

    /// (First head, heads) of as few slabs as hold `pages` pages, of as equal size as can be.
    fn cut(self, device: &Device, pages: usize) -> impl Iterator<Item = (usize, usize)> {
        let fit = (self.most_pages(device) / pages.max(1)).max(1);
        let heads = self.kv_heads.div_ceil(self.kv_heads.div_ceil(fit));
        (0..self.kv_heads).step_by(heads).map(move |first| (first, heads.min(self.kv_heads - first)))
    }
}

impl PagedCache {
    /// What its buffers are called.
    pub const LABELS: [&str; 2] = ["keys", "values"];

    /// Zeros in `count` pages. `pages`: u32 [slots, pages_per_slot], numbers below `count`.
    ///
    /// # Errors
    /// [`Error::Shape`] past [`CacheShape::most_pages`] or without heads; as [`Device::alloc`].
    pub fn zeros(device: &Device, shape: CacheShape, pages: &Buffer, count: usize) -> Result<Self> {
        if shape.kv_heads == 0 || shape.dim == 0 {
            let message = format!("{} key heads of {} values", shape.kv_heads, shape.dim);
            return Err(Error::shape("cache", message));
        }
        let slabs = shape.cut(device, count).map(|(first, heads)| {
            let bytes = (count * heads * shape.head_bytes()) as u64;
            let [keys, values] = Self::LABELS;
            let (keys, values) = (device.alloc(keys, bytes)?, device.alloc(values, bytes)?);
            Ok(CacheSlab { first, heads, keys, values })
        });
        Ok(Self { slabs: slabs.collect::<Result<_>>()?, pages: pages.clone(), shape })
    }

    /// Copies of keys and values, `[page][kv_head][PAGE][dim]` each, in the shape's precision.
    ///
    /// # Errors
    /// [`Error::Shape`] when they are not whole pages; as [`PagedCache::zeros`] and [`Device::write`].
    pub fn upload<T: bytemuck::NoUninit>(
        device: &Device,
        shape: CacheShape,
        pages: &Buffer,
        [keys, values]: [&[T]; 2],
    ) -> Result<Self> {
        let (keys, values): (&[u8], &[u8]) = (bytemuck::cast_slice(keys), bytemuck::cast_slice(values));
        let page = shape.kv_heads * shape.head_bytes();
        if keys.len() != values.len() || !keys.len().is_multiple_of(page.max(1)) {
            let message =
                format!("{} and {} bytes of keys and values in pages of {page}", keys.len(), values.len());
            return Err(Error::shape("cache", message));
        }
        let cache = Self::zeros(device, shape, pages, keys.len() / page.max(1))?;
        for slab in &cache.slabs {
            let range = slab.first * shape.head_bytes()..(slab.first + slab.heads) * shape.head_bytes();
            for (buffer, whole) in [(&slab.keys, keys), (&slab.values, values)] {
                let own: Vec<&[u8]> = whole.chunks_exact(page).map(|page| &page[range.clone()]).collect();
                device.write(buffer, 0, &own.concat())?;
            }
        }
        Ok(cache)
    }

    /// Waits and copies keys and values to the host, `[page][kv_head][PAGE][dim]` each.
    ///
    /// # Errors
    /// As [`Device::read`].
    pub fn read<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(&self) -> Result<[Vec<T>; 2]> {
        let read = |buffer: &Buffer| buffer.device().read::<u8>(buffer, 0, buffer.bytes() as usize);
        let whole = |part: fn(&CacheSlab) -> &Buffer| -> Result<Vec<T>> {
            let slabs: Vec<Vec<u8>> =
                self.slabs.iter().map(|slab| read(part(slab))).collect::<Result<_>>()?;
            let pages = self.slabs.iter().zip(&slabs);
            let mut pages: Vec<_> =
                pages.map(|(slab, bytes)| bytes.chunks_exact(slab.heads * self.shape.head_bytes())).collect();
            let mut all = Vec::new();
            while let Some(Some(first)) = pages.first_mut().map(Iterator::next) {
                all.extend_from_slice(first);
                pages[1..].iter_mut().filter_map(Iterator::next).for_each(|part| all.extend_from_slice(part));
            }
            Ok(bytemuck::pod_collect_to_vec(&all))
        };
        Ok([whole(|slab| &slab.keys)?, whole(|slab| &slab.values)?])
    }

    /// At least one, in the order of their heads.
    pub fn slabs(&self) -> &[CacheSlab] {
        &self.slabs
    }

    /// u32 [slots, pages_per_slot].
    pub fn pages(&self) -> &Buffer {
        &self.pages
    }

    /// Sizes.
    pub fn shape(&self) -> CacheShape {
        self.shape
    }
}
