//! Event files of TensorBoard, written by hand: a record is a length, the checksum of the length, a protobuf
//! `Event` and its checksum (TFRecord of TensorFlow's `record_writer`); the messages are those of `event.proto`
//! and `summary.proto`, of which few fields are needed.
//!
//! The step of an event is a number of tokens, so that trainings with other batches stand beside each other.

use super::{Line, Row};

/// A whole file: its version, and one event a line.
pub fn file(lines: &[Line]) -> Vec<u8> {
    let time = lines.first().map_or(0.0, |line| line.time);
    let mut version = event(time, 0);
    bytes_field(&mut version, FILE_VERSION, b"brain.Event:2");
    let mut out = framed(&version);
    lines.iter().for_each(|line| out.extend(record(line)));
    out
}

/// One line as it is appended to a file.
pub fn record(line: &Line) -> Vec<u8> {
    let mut message = event(line.time, line.row.tokens());
    let mut summary = Vec::new();
    for (tag, value) in scalars(&line.row) {
        let mut scalar = Vec::new();
        bytes_field(&mut scalar, TAG, tag.as_bytes());
        key(&mut scalar, SIMPLE_VALUE, FIXED_32);
        scalar.extend((value as f32).to_le_bytes());
        bytes_field(&mut summary, VALUE, &scalar);
    }
    bytes_field(&mut message, SUMMARY, &summary);
    framed(&message)
}

fn scalars(row: &Row) -> Vec<(String, f64)> {
    match row {
        Row::Update(row) => {
            let mut scalars = vec![("loss/total".to_string(), row.loss)];
            scalars.extend(row.losses.iter().map(|(term, value)| (format!("loss/{term}"), *value)));
            scalars.push(("rate".into(), row.rate));
            scalars.push(("grad_norm".into(), row.grad_norm));
            scalars.push(("tokens_per_second".into(), row.tokens_per_second));
            scalars
        }
        Row::Heldout(row) => {
            let named =
                [("loss", Some(row.heldout_loss)), ("top1", row.heldout_top1), ("kl", row.heldout_kl)];
            let present = |(name, value): (&str, Option<f64>)| Some((format!("heldout/{name}"), value?));
            named.into_iter().filter_map(present).collect()
        }
    }
}

// Numbers of fields: `Event`, `Summary`, `Summary.Value`.
const WALL_TIME: u64 = 1;
const STEP: u64 = 2;
const FILE_VERSION: u64 = 3;
const SUMMARY: u64 = 5;
const VALUE: u64 = 1;
const TAG: u64 = 1;
const SIMPLE_VALUE: u64 = 2;

// Wire types of protobuf.
const VARINT: u64 = 0;
const FIXED_64: u64 = 1;
const LENGTH: u64 = 2;
const FIXED_32: u64 = 5;

fn event(time: f64, step: u64) -> Vec<u8> {
    let mut out = Vec::new();
    key(&mut out, WALL_TIME, FIXED_64);
    out.extend(time.to_le_bytes());
    key(&mut out, STEP, VARINT);
    varint(&mut out, step);
    out
}

fn key(out: &mut Vec<u8>, field: u64, wire: u64) {
    varint(out, field << 3 | wire);
}

fn bytes_field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    key(out, field, LENGTH);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let mut out = length.to_vec();
    out.extend(masked_crc(&length).to_le_bytes());
    out.extend(message);
    out.extend(masked_crc(message).to_le_bytes());
    out
}

/// TFRecord stores checksums turned and shifted, so that checksums of checksums stay sound.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720), bit by bit: a line of metrics is a few hundred bytes.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::rows;

    /// The checks of RFC 3720, B.4, and the usual one.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    /// The bytes that tests/oracle/read_tensorboard.py has read back with TensorBoard's own reader.
    #[test]
    fn files_are_those_that_tensorboard_was_seen_to_read() {
        let text = include_bytes!("../../../tests/golden/records/metrics.jsonl");
        let lines: Vec<Line> = rows::parse(text).into_iter().map(|(line, _)| line).collect();
        let golden =
            include_bytes!("../../../tests/golden/records/tensorboard/student/events.out.tfevents.minic");
        assert_eq!(lines.len(), 2);
        let made = file(&lines);
        assert_eq!(made, golden, "{made:02x?}");
        let appended: Vec<u8> = lines.iter().flat_map(record).collect();
        assert!(made.ends_with(&appended), "a file that is appended to is the file that is written at once");
    }
}
