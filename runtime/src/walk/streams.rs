//! The residual streams of all samples, between two layers.

use crate::error::IoError;
use crate::store::{Scratch, Store, StoreError};
use std::io::{Read, Seek, SeekFrom, Write};

/// Bytes of streams that are held in memory; beyond, they lie in a file of the store's.
const HELD: u64 = 2 << 30;

/// One matrix [L, E] a sample.
pub enum Streams {
    Held(Vec<Vec<f32>>),
    Filed { scratch: Scratch, len: usize },
}

impl Streams {
    /// `samples` streams of `len` elements, to be set.
    pub fn new(store: &Store, samples: usize, len: usize) -> Result<Streams, StoreError> {
        Streams::within(HELD, store, samples, len)
    }

    fn within(held: u64, store: &Store, samples: usize, len: usize) -> Result<Streams, StoreError> {
        if (samples * len * size_of::<f32>()) as u64 <= held {
            return Ok(Streams::Held(vec![Vec::new(); samples]));
        }
        Ok(Streams::Filed { scratch: store.scratch()?, len })
    }

    pub fn get(&mut self, sample: usize) -> Result<Vec<f32>, IoError> {
        match self {
            Streams::Held(all) => Ok(all[sample].clone()),
            Streams::Filed { scratch, len } => {
                let mut bytes = vec![0; *len * size_of::<f32>()];
                let at = SeekFrom::Start((sample * bytes.len()) as u64);
                let read = scratch.file.seek(at).and_then(|_| scratch.file.read_exact(&mut bytes));
                read.map_err(IoError::at(scratch.path(), "read"))?;
                let (values, _) = bytes.as_chunks::<4>();
                Ok(values.iter().map(|v| f32::from_le_bytes(*v)).collect())
            }
        }
    }

    pub fn set(&mut self, sample: usize, stream: Vec<f32>) -> Result<(), IoError> {
        match self {
            Streams::Held(all) => all[sample] = stream,
            Streams::Filed { scratch, .. } => {
                let bytes: Vec<u8> = stream.iter().flat_map(|v| v.to_le_bytes()).collect();
                let at = SeekFrom::Start((sample * bytes.len()) as u64);
                let written = scratch.file.seek(at).and_then(|_| scratch.file.write_all(&bytes));
                written.map_err(IoError::at(scratch.path(), "write"))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_in_a_file_are_those_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let stream = |i: usize| (0..6).map(|j| (i * 7 + j) as f32 / 3.0).collect::<Vec<f32>>();
        for held in [0, 1 << 20] {
            let mut streams = Streams::within(held, &store, 5, 6).unwrap();
            assert_eq!(matches!(streams, Streams::Held(_)), held > 0);
            for i in [3, 0, 4, 1, 2, 3] {
                streams.set(i, stream(i)).unwrap();
            }
            assert!((0..5).all(|i| streams.get(i).unwrap() == stream(i)));
        }
        assert_eq!(folder.path().join("tmp").read_dir().unwrap().count(), 0, "the file is gone");
    }
}
