//! An open device: memory with its accounting, uploads, kernels, and errors that come back.

mod limits;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::adapter::Adapter;
use super::buffer::Buffer;
use super::capabilities::{Arithmetic, Capabilities, Tier};
use super::geometry::Geometry;
use super::kernel::Kernel;
use super::meter::Meter;
use super::options::{DeviceOptions, Memory};
use super::pipeline_cache::{self, PipelineCache};
use super::shader::Variant;
use super::timing::Stamps;
use super::transfer::Staging;
use crate::{Error, Result};

/// An open device; cloning shares it.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    raw: wgpu::Device,
    queue: wgpu::Queue,
    name: String,
    software: bool,
    tier: Tier,
    capabilities: Capabilities,
    limits: wgpu::Limits,
    options: DeviceOptions,
    held: AtomicU64,
    peak: AtomicU64,
    staging: Mutex<Staging>,
    counting: Option<Counting>,
    kernels: Kernels,
    geometry: Geometry,
    pipelines: Option<Arc<PipelineCache>>,
    lost: Arc<Mutex<Option<String>>>,
    meter: OnceLock<Mutex<Meter>>,
}

/// Kernels by the key of their variant; each is locked by itself while it is built.
type Kernels = Arc<Mutex<HashMap<String, Arc<Mutex<Option<Kernel>>>>>>;

/// What a device that only counts has beside its numbers.
struct Counting {
    /// Stands for every buffer.
    nothing: wgpu::Buffer,
    made: Mutex<Vec<(String, u64)>>,
}

impl Device {
    /// Opens an adapter.
    ///
    /// # Errors
    /// [`Error::Argument`] when `options.tier` is above the adapter's or does not allow `options.arithmetic`, [`Error::Device`] when the driver refuses.
    pub fn open(adapter: &Adapter, options: DeviceOptions) -> Result<Self> {
        let best = adapter.capabilities().tier();
        let tier = options.tier.unwrap_or(best);
        if tier > best {
            let message = format!("{} reaches tier {best}, not {tier}", adapter.name());
            return Err(Error::argument("--tier", message));
        }
        let capabilities = adapter.capabilities().limited_to(tier).allowing(options.arithmetic)?;
        let mut limits = adapter.raw.limits();
        if let Some(bytes) = options.binding_limit {
            limits.max_storage_buffer_binding_size = limits.max_storage_buffer_binding_size.min(bytes);
        }
        let experimental_features = if capabilities.cooperative.is_some() {
            // SAFETY: the one experimental feature used is cooperative matrices; the shader that uses them is
            // tested on each driver, and shapes are checked on the host before it is dispatched.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("exlay"),
            required_features: capabilities.features()
                | super::timing::features(&adapter.raw)
                | pipeline_cache::features(&adapter.raw),
            required_limits: limits.clone(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let (raw, queue) = pollster::block_on(adapter.raw.request_device(&descriptor)).map_err(|error| {
            Error::Device { label: adapter.name().to_owned(), message: error.to_string() }
        })?;
        let lost = Arc::new(Mutex::new(None));
        let note = Arc::clone(&lost);
        raw.set_device_lost_callback(move |_, message| {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(message);
        });
        let note = Arc::clone(&lost);
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        }));
        let name = adapter.name().to_owned();
        let open = |directory: &PathBuf| PipelineCache::open(&raw, &adapter.raw.get_info(), directory);
        let pipelines = options.pipeline_cache.as_ref().and_then(open).map(Arc::new);
        let metered = options.metered;
        let device = Self(Arc::new(Inner {
            raw,
            queue,
            name,
            software: adapter.kind() == "software",
            tier,
            capabilities,
            limits,
            options,
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            staging: Mutex::default(),
            counting: None,
            kernels: Kernels::default(),
            geometry: Geometry::default(),
            pipelines,
            lost,
            meter: OnceLock::new(),
        }));
        if metered {
            let stamps = Stamps::of(&device)?;
            device.0.meter.get_or_init(|| Mutex::new(Meter::new(stamps)));
        }
        Ok(device)
    }

    /// A device with the properties of this one that only counts: its buffers hold nothing, and what is written to them is
    /// forgotten, nor do its lists hold dispatches. Whatever allocates can be planned with it, and kernels that it is asked for
    /// are there for this one; what reads or runs cannot.
    ///
    /// # Errors
    /// As [`Device::alloc`].
    pub fn counting(&self) -> Result<Self> {
        let Some(nothing) = self.try_buffer("nothing", 16)? else {
            return Err(Error::OutOfMemory { label: "nothing".to_owned(), requested: 16, held: 0, fits: 0 });
        };
        Ok(Self(Arc::new(Inner {
            raw: self.0.raw.clone(),
            queue: self.0.queue.clone(),
            name: self.0.name.clone(),
            software: self.0.software,
            tier: self.0.tier,
            capabilities: self.0.capabilities.clone(),
            limits: self.0.limits.clone(),
            options: DeviceOptions { memory_limit: None, ..self.0.options.clone() },
            held: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            staging: Mutex::default(),
            counting: Some(Counting { nothing, made: Mutex::default() }),
            kernels: Arc::clone(&self.0.kernels),
            geometry: self.0.geometry.clone(),
            pipelines: self.0.pipelines.clone(),
            lost: Arc::clone(&self.0.lost),
            meter: OnceLock::new(),
        })))
    }

    /// Whether this only counts.
    pub fn counts(&self) -> bool {
        self.0.counting.is_some()
    }

    /// Label and bytes of everything that was allocated on a device that only counts, in order.
    pub fn counted(&self) -> Vec<(String, u64)> {
        let made = |counting: &Counting| counting.made.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.0.counting.as_ref().map(made).unwrap_or_default()
    }

    /// The most bytes that may be held, where the user set a limit.
    pub fn memory_limit(&self) -> Option<u64> {
        self.0.options.memory_limit
    }

    /// The adapter's name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// A processor plays the card.
    pub fn software(&self) -> bool {
        self.0.software
    }

    /// The tier in use.
    pub fn tier(&self) -> Tier {
        self.0.tier
    }

    /// How few rows are multiplied with packed weights.
    pub fn arithmetic(&self) -> Arithmetic {
        self.0.options.arithmetic.unwrap_or_else(|| self.0.capabilities.arithmetic())
    }

    /// Whether single precision was asked for, whatever would be faster.
    pub fn asked_for_single(&self) -> bool {
        self.0.options.arithmetic == Some(Arithmetic::Single)
    }

    /// How work is shared out where that was measured.
    pub fn geometry(&self) -> &Geometry {
        &self.0.geometry
    }

    /// What kernels may use.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// Bytes held now and at most.
    pub fn memory(&self) -> Memory {
        Memory { held: self.0.held.load(Ordering::Relaxed), peak: self.0.peak.load(Ordering::Relaxed) }
    }

    /// True when both are the same open device.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Allocates `bytes` of zeroed memory, rounded up to a multiple of four and at least sixteen.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] past the user's limit or the card's memory, [`Error::Shape`] past the size of a binding.
    pub fn alloc(&self, label: &str, bytes: u64) -> Result<Buffer> {
        let bytes = bytes.max(16).next_multiple_of(4);
        if bytes > self.max_slab_bytes() {
            let message = format!(
                "`{label}` needs {bytes} bytes in one piece, this adapter binds {}",
                self.max_slab_bytes()
            );
            return Err(Error::shape("allocation", message));
        }
        let held = self.0.held.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let out_of_memory = |fits: u64| {
            self.release(bytes);
            Error::OutOfMemory { label: label.to_owned(), requested: bytes, held: held - bytes, fits }
        };
        if let Some(limit) = self.0.options.memory_limit
            && held > limit
        {
            return Err(out_of_memory(limit.saturating_sub(held - bytes)));
        }
        if let Some(counting) = &self.0.counting {
            counting.made.lock().unwrap_or_else(PoisonError::into_inner).push((label.to_owned(), bytes));
            return Ok(Buffer::new(self.clone(), counting.nothing.clone(), label, bytes));
        }
        let Some(raw) = self.try_buffer(label, bytes)? else {
            let mut fits = (bytes / 2) & !3;
            while fits >= 1 << 20 && self.try_buffer("trial", fits)?.is_none() {
                fits = (fits / 2) & !3;
            }
            return Err(out_of_memory(fits));
        };
        self.0.peak.fetch_max(held, Ordering::Relaxed);
        if let Some(meter) = self.meter() {
            meter.lock().unwrap_or_else(PoisonError::into_inner).held(held);
        }
        Ok(Buffer::new(self.clone(), raw, label, bytes))
    }

    /// Waits until the device has done everything submitted so far.
    ///
    /// # Errors
    /// [`Error::Device`] when the device is lost.
    pub fn wait(&self, label: &str) -> Result<()> {
        self.poll(label, wgpu::PollType::wait_indefinitely())
    }

    /// Lets the driver report what is done, waiting for it or not.
    pub(super) fn poll(&self, label: &str, how: wgpu::PollType) -> Result<()> {
        let poll = self.0.raw.poll(how);
        self.check_lost(label)?;
        poll.map(|_| ())
            .map_err(|error| Error::Device { label: label.to_owned(), message: error.to_string() })
    }

    /// The kernel of a variant, built at the first call and kept.
    ///
    /// # Errors
    /// [`Error::Device`] with the compiler's text.
    pub fn kernel(&self, variant: &Variant) -> Result<Kernel> {
        let place = {
            let mut kernels = self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(kernels.entry(variant.key().to_owned()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernel) = &*place {
            return Ok(kernel.clone());
        }
        let kernel = Kernel::build(self, variant)?;
        *place = Some(kernel.clone());
        Ok(kernel)
    }

    /// Number of kernels that were asked for.
    pub fn kernels(&self) -> usize {
        self.0.kernels.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(super) fn raw(&self) -> &wgpu::Device {
        &self.0.raw
    }

    pub(super) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub(super) fn meter(&self) -> Option<&Mutex<Meter>> {
        self.0.meter.get()
    }

    pub(super) fn pipelines(&self) -> Option<&wgpu::PipelineCache> {
        self.0.pipelines.as_ref().map(|pipelines| pipelines.raw())
    }

    pub(super) fn staging(&self) -> MutexGuard<'_, Staging> {
        self.0.staging.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn checked(&self) -> bool {
        self.0.options.checked
    }

    pub(super) fn release(&self, bytes: u64) {
        self.0.held.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Runs `work` and returns the first error of its recording and submission; does not wait for the device.
    pub(super) fn guarded<R>(&self, label: &str, work: impl FnOnce() -> R) -> Result<R> {
        let scopes =
            [wgpu::ErrorFilter::Validation, wgpu::ErrorFilter::OutOfMemory, wgpu::ErrorFilter::Internal]
                .map(|filter| self.0.raw.push_error_scope(filter));
        let result = work();
        let mut first = None;
        for scope in scopes.into_iter().rev() {
            first = pollster::block_on(scope.pop()).or(first);
        }
        if let Some(error) = first {
            return Err(Error::Device { label: label.to_owned(), message: error.to_string() });
        }
        self.check_lost(label)?;
        Ok(result)
    }

    fn check_lost(&self, label: &str) -> Result<()> {
        match &*self.0.lost.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(message) => Err(Error::Device {
                label: label.to_owned(),
                message: format!("the device is lost: {message}"),
            }),
            None => Ok(()),
        }
    }

    /// `None` when the card has not so much memory left.
    fn try_buffer(&self, label: &str, bytes: u64) -> Result<Option<wgpu::Buffer>> {
        let scope = self.0.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let raw = self.guarded(label, || {
            self.0.raw.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        let memory = pollster::block_on(scope.pop());
        match (raw, memory) {
            (_, Some(_)) => Ok(None),
            (Err(Error::Device { message, .. }), None) if message.to_lowercase().contains("memory") => {
                Ok(None)
            }
            (raw, None) => raw.map(Some),
        }
    }
}
