//! Memory of the device: tensors in one or more buffers, and the way there and back.

use super::super::DeviceError;
use super::gpu::{Gpu, lock};
use super::lane::Made;
use crate::shader::{Precision, page_of};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Bytes of one piece of an upload.
const PIECE: usize = 16 << 20;

/// 4-byte words in one or more buffers.
pub struct Pages {
    pub buffers: Vec<wgpu::Buffer>,
    /// Words of every buffer but the last.
    pub page: usize,
    words: usize,
    held: Arc<AtomicU64>,
}

impl Drop for Pages {
    fn drop(&mut self) {
        self.held.fetch_sub(4 * self.words as u64, Ordering::Relaxed);
    }
}

/// Host tensors that are on the device already, by where they are on the host.
#[derive(Default)]
pub struct Tensors {
    there: Mutex<BTreeMap<usize, Known<Pages>>>,
    made: Mutex<BTreeMap<(usize, Form), Known<Made>>>,
    held: Arc<AtomicU64>,
    /// Two buffers through which large tensors go up.
    staging: Mutex<Vec<wgpu::Buffer>>,
}

/// A tensor of the host, and what is of it on the device, for as long as somebody holds both.
type Known<T> = (Weak<Vec<f32>>, Weak<T>);

/// Which way a tensor was packed, what of it, and how it is rounded.
pub type Form = (bool, [usize; 3], Precision);

impl Tensors {
    /// Bytes that are held on the device.
    pub fn bytes(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }
}

impl Pages {
    /// Zero until it is written.
    pub fn new(gpu: &Gpu, words: usize, page: usize) -> Result<Pages, DeviceError> {
        let count = words.div_ceil(page).max(1);
        let make = |i: usize| {
            let len = page.min(words - i * page).max(1);
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: 4 * len as u64,
                usage: wgpu::BufferUsages::STORAGE
                    | wgpu::BufferUsages::COPY_SRC
                    | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        };
        let buffers = (0..count).map(make).collect();
        gpu.check()?;
        let held = gpu.tensors.held.clone();
        held.fetch_add(4 * words as u64, Ordering::Relaxed);
        Ok(Pages { buffers, page, words, held })
    }

    pub fn len(&self) -> usize {
        self.words
    }

    /// The pieces of the words from `at` on that lie in one buffer each: buffer, first word in it, words.
    fn pieces(&self, at: usize, words: usize) -> impl Iterator<Item = (&wgpu::Buffer, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (page, inside) = ((at + done) / self.page, (at + done) % self.page);
            let len = (words - done).min(self.page - inside);
            done += len;
            (len > 0).then(|| (&self.buffers[page], inside, len))
        })
    }

    /// Puts words from `at` on into the queue, before whatever is submitted next.
    pub fn write(&self, gpu: &Gpu, at: usize, data: &[u8]) {
        let mut rest = data;
        for (buffer, inside, len) in self.pieces(at, data.len() / 4) {
            let (now, after) = rest.split_at(4 * len);
            gpu.queue.write_buffer(buffer, 4 * inside as u64, now);
            rest = after;
        }
    }

    /// Copies words into another buffer.
    pub fn copy(
        &self,
        encoder: &mut wgpu::CommandEncoder,
        at: usize,
        words: usize,
        to: &wgpu::Buffer,
        offset: u64,
    ) {
        let mut done = 0;
        for (buffer, inside, len) in self.pieces(at, words) {
            encoder.copy_buffer_to_buffer(buffer, 4 * inside as u64, to, offset + done, 4 * len as u64);
            done += 4 * len as u64;
        }
    }

    pub fn clear(&self, encoder: &mut wgpu::CommandEncoder) {
        self.buffers.iter().for_each(|buffer| encoder.clear_buffer(buffer, 0, None));
    }

    /// A large tensor goes up in pieces through two staging buffers that stay, one of which is filled while the other is
    /// copied from.
    pub fn upload(&self, gpu: &Gpu, data: &[f32]) -> Result<(), DeviceError> {
        let bytes = bytes_of(data);
        if bytes.len() <= PIECE {
            self.write(gpu, 0, bytes);
            // What is written waits in memory of the host for the next submission.
            gpu.queue.submit([]);
            return gpu.check();
        }
        let mut ring = lock(&gpu.tensors.staging);
        while ring.len() < 2 {
            ring.push(gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: PIECE as u64,
                usage: wgpu::BufferUsages::MAP_WRITE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }));
        }
        gpu.check()?;
        let mut submitted = [None, None];
        for (i, piece) in bytes.chunks(PIECE).enumerate() {
            let staging = &ring[i % 2];
            let slice = staging.slice(..piece.len() as u64);
            slice.map_async(wgpu::MapMode::Write, |_| {});
            // Mapped as soon as the copy before the last one is done.
            gpu.poll(wgpu::PollType::Wait { submission_index: submitted[i % 2].take(), timeout: None })?;
            let mapped = slice.get_mapped_range_mut();
            mapped.map_err(|e| DeviceError::Refused(e.to_string()))?.copy_from_slice(piece);
            staging.unmap();
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            let mut done = 0;
            for (buffer, inside, len) in self.pieces(i * PIECE / 4, piece.len() / 4) {
                encoder.copy_buffer_to_buffer(staging, done, buffer, 4 * inside as u64, 4 * len as u64);
                done += 4 * len as u64;
            }
            submitted[i % 2] = Some(gpu.queue.submit([encoder.finish()]));
        }
        gpu.check()
    }

    /// All of it, back on the host.
    pub fn download(&self, gpu: &Gpu) -> Result<Vec<f32>, DeviceError> {
        Ok(self.read(gpu, 0, self.words)?.into_iter().map(f32::from_bits).collect())
    }

    /// Words from `at` on, in pieces through one staging buffer.
    pub fn read(&self, gpu: &Gpu, at: usize, words: usize) -> Result<Vec<u32>, DeviceError> {
        let mut all = Vec::with_capacity(words);
        let staging = Readback::new(gpu, words.min(PIECE / 4))?;
        while all.len() < words {
            let piece = (words - all.len()).min(PIECE / 4);
            let mut encoder = gpu.device.create_command_encoder(&Default::default());
            self.copy(&mut encoder, at + all.len(), piece, &staging.buffer, 0);
            let submitted = gpu.queue.submit([encoder.finish()]);
            staging.read(gpu, submitted, |found| all.extend_from_slice(&found[..piece]))?;
        }
        Ok(all)
    }
}

impl Gpu {
    /// Whether a host tensor is there as it is, or in the given form.
    pub fn holds(&self, data: &Arc<Vec<f32>>, form: Option<Form>) -> bool {
        let key = Arc::as_ptr(data) as usize;
        match form {
            None => lock(&self.tensors.there).get(&key).is_some_and(|(_, there)| there.strong_count() > 0),
            Some(form) => {
                lock(&self.tensors.made).get(&(key, form)).is_some_and(|(_, there)| there.strong_count() > 0)
            }
        }
    }

    /// What was made of a host tensor; who asks for it again gets the same.
    pub fn made(
        &self,
        data: &Arc<Vec<f32>>,
        form: Form,
        make: impl FnOnce() -> Result<Made, DeviceError>,
    ) -> Result<Arc<Made>, DeviceError> {
        let key = (Arc::as_ptr(data) as usize, form);
        if let Some((host, there)) = lock(&self.tensors.made).get(&key)
            && host.upgrade().is_some_and(|host| Arc::ptr_eq(&host, data))
            && let Some(made) = there.upgrade()
        {
            return Ok(made);
        }
        let made = Arc::new(make()?);
        let mut all = lock(&self.tensors.made);
        all.retain(|_, (host, there)| host.strong_count() > 0 && there.strong_count() > 0);
        all.insert(key, (Arc::downgrade(data), Arc::downgrade(&made)));
        Ok(made)
    }

    /// A host tensor on the device; who asks for it again gets the same.
    pub fn tensor(&self, data: &Arc<Vec<f32>>, cols: usize) -> Result<Arc<Pages>, DeviceError> {
        let key = Arc::as_ptr(data) as usize;
        if let Some((host, there)) = lock(&self.tensors.there).get(&key)
            && host.upgrade().is_some_and(|host| Arc::ptr_eq(&host, data))
            && let Some(pages) = there.upgrade()
        {
            return Ok(pages);
        }
        let pages = Arc::new(Pages::new(self, data.len(), page_of(cols))?);
        pages.upload(self, data)?;
        let mut all = lock(&self.tensors.there);
        all.retain(|_, (host, there)| host.strong_count() > 0 && there.strong_count() > 0);
        all.insert(key, (Arc::downgrade(data), Arc::downgrade(&pages)));
        Ok(pages)
    }
}

/// Where the host reads what the device has written.
pub struct Readback {
    pub buffer: wgpu::Buffer,
    words: usize,
}

impl Readback {
    pub fn new(gpu: &Gpu, words: usize) -> Result<Readback, DeviceError> {
        let words = words.max(1);
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size: 4 * words as u64,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        gpu.check()?;
        Ok(Readback { buffer, words })
    }

    /// Waits for a submission, and shows what it has left here.
    pub fn read<T>(
        &self,
        gpu: &Gpu,
        submitted: wgpu::SubmissionIndex,
        show: impl FnOnce(&[u32]) -> T,
    ) -> Result<T, DeviceError> {
        gpu.check()?;
        let slice = self.buffer.slice(..);
        slice.map_async(wgpu::MapMode::Read, |_| {});
        gpu.wait(submitted)?;
        let mapped = slice.get_mapped_range().map_err(|e| DeviceError::Refused(e.to_string()))?;
        let words: Vec<u32> =
            mapped.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).take(self.words).collect();
        let shown = show(&words);
        drop(mapped);
        self.buffer.unmap();
        Ok(shown)
    }
}

pub fn bytes_of(data: &[f32]) -> &[u8] {
    // SAFETY: an f32 is four bytes, all of which are initialised, and a byte needs no alignment.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}

pub fn bytes_of_u32(data: &[u32]) -> &[u8] {
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(data.as_ptr().cast(), size_of_val(data)) }
}
