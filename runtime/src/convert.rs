//! Between the bytes of a file and f32: rounding to nearest even, subnormals and NaN kept.

use half::{bf16, f16};
use minic_compiler::model::DType;
use std::borrow::Cow;

/// Appends the values of little-endian `bytes` to `out`. Exact. A trailing part of an element is ignored.
pub fn decode(dtype: DType, bytes: &[u8], out: &mut Vec<f32>) {
    let begin = out.len();
    out.resize(begin + bytes.len() / dtype.bytes(), 0.0);
    decode_to(dtype, bytes, &mut out[begin..]);
}

/// The same into `out`, as far as both reach.
pub fn decode_to(dtype: DType, bytes: &[u8], out: &mut [f32]) {
    match dtype {
        DType::F32 => {
            out.iter_mut().zip(bytes.as_chunks().0).for_each(|(out, &b)| *out = f32::from_le_bytes(b));
        }
        DType::BF16 => {
            out.iter_mut()
                .zip(bytes.as_chunks().0)
                .for_each(|(out, &b)| *out = bf16::from_le_bytes(b).to_f32());
        }
        DType::F16 => {
            out.iter_mut()
                .zip(bytes.as_chunks().0)
                .for_each(|(out, &b)| *out = f16::from_le_bytes(b).to_f32());
        }
    }
}

/// Appends `values` to `out`, little-endian, each rounded to the nearest value of `dtype`, ties to even.
/// A value beyond the range becomes infinite, as IEEE 754 has it; [`first_non_finite`] finds it.
pub fn encode(dtype: DType, values: &[f32], out: &mut Vec<u8>) {
    match dtype {
        DType::F32 => out.extend(values.iter().flat_map(|v| v.to_le_bytes())),
        DType::BF16 => out.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes())),
        DType::F16 => out.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes())),
    }
}

/// A value as it is once it is stored.
pub fn rounded(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::F32 => value,
        DType::BF16 => bf16::from_f32(value).to_f32(),
        DType::F16 => f16::from_f32(value).to_f32(),
    }
}

/// `values` as little-endian bytes: where the machine is, they are not copied.
pub fn f32_bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        // SAFETY: every f32 is four bytes, and any byte is a u8; the slice lives as long as `values`.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) };
        return Cow::Borrowed(bytes);
    }
    let mut bytes = Vec::new();
    encode(DType::F32, values, &mut bytes);
    Cow::Owned(bytes)
}

/// The index and the value of the first NaN or infinity.
pub fn first_non_finite(dtype: DType, bytes: &[u8]) -> Option<(usize, f32)> {
    // An exponent of all ones, tested on the bits: several times faster than by way of f32.
    let at = match dtype {
        DType::F32 => {
            let all_ones = 0x7f80_0000;
            bytes.as_chunks().0.iter().position(|&b| u32::from_le_bytes(b) & all_ones == all_ones)
        }
        DType::BF16 => bytes.as_chunks().0.iter().position(|&b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        DType::F16 => bytes.as_chunks().0.iter().position(|&b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
    }?;
    let mut value = Vec::with_capacity(1);
    decode(dtype, &bytes[at * dtype.bytes()..(at + 1) * dtype.bytes()], &mut value);
    Some((at, value[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(dtype: DType, value: f32) -> f32 {
        let (mut bytes, mut back) = (Vec::new(), Vec::new());
        encode(dtype, &[value], &mut bytes);
        assert_eq!(bytes.len(), dtype.bytes());
        decode(dtype, &bytes, &mut back);
        back[0]
    }

    /// Every 16-bit pattern survives the way to f32 and back, NaN as some NaN.
    #[test]
    fn sixteen_bit_values_survive_f32() {
        for dtype in [DType::BF16, DType::F16] {
            for bits in 0..=u16::MAX {
                let (mut value, mut bytes) = (Vec::new(), Vec::new());
                decode(dtype, &bits.to_le_bytes(), &mut value);
                encode(dtype, &value, &mut bytes);
                let same = bytes == bits.to_le_bytes();
                assert!(same || value[0].is_nan() && round(dtype, value[0]).is_nan(), "{dtype:?} {bits:04x}");
            }
        }
    }

    #[test]
    fn ties_go_to_even_and_subnormals_are_kept() {
        // bf16 has 8 bits of mantissa: 1 + 2^-8 lies midway between 1 and 1 + 2^-7.
        assert_eq!(round(DType::BF16, 1.0 + 2f32.powi(-8)), 1.0);
        assert_eq!(round(DType::BF16, 1.0 + 3.0 * 2f32.powi(-8)), 1.0 + 2.0 * 2f32.powi(-7));
        assert_eq!(round(DType::BF16, 1.0 + 2f32.powi(-8) + 2f32.powi(-20)), 1.0 + 2f32.powi(-7));
        assert_eq!(round(DType::F16, 1.0 + 2f32.powi(-11)), 1.0);
        assert_eq!(round(DType::F16, 1.0 + 3.0 * 2f32.powi(-11)), 1.0 + 2f32.powi(-9));
        // The least subnormals, and a tie between zero and the least one.
        assert_eq!(round(DType::F16, 2f32.powi(-24)), 2f32.powi(-24));
        assert_eq!(round(DType::F16, 2f32.powi(-25)), 0.0);
        assert_eq!(round(DType::F16, 1.5 * 2f32.powi(-25)), 2f32.powi(-24));
        assert_eq!(round(DType::BF16, f32::from_bits(0x0001_0000)), f32::from_bits(0x0001_0000));
        assert_eq!(round(DType::F32, f32::from_bits(1)).to_bits(), 1);
        assert_eq!(round(DType::F16, -0.0).to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn values_beyond_the_range_become_infinite_and_are_found() {
        assert_eq!(round(DType::F16, 65519.0), 65504.0);
        assert_eq!(round(DType::F16, 65520.0), f32::INFINITY);
        assert_eq!(round(DType::BF16, f32::MAX), f32::INFINITY);
        for dtype in DType::ALL.iter().copied() {
            let mut bytes = Vec::new();
            encode(dtype, &[1.0, -3.5, 0.0, f32::NEG_INFINITY, f32::NAN], &mut bytes);
            assert_eq!(first_non_finite(dtype, &bytes), Some((3, f32::NEG_INFINITY)));
            assert_eq!(first_non_finite(dtype, &bytes[..3 * dtype.bytes()]), None);
        }
    }
}
