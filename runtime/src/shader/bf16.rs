//! bf16 on cooperative matrices, which WGSL does not know: SPIR-V of a shader for f16, with its 16-bit type declared as
//! the other one (SPV_KHR_bfloat16). That is enough for a shader that loads, stores and multiplies such numbers in
//! matrices and does nothing else with them.

/// Opcodes, by their numbers in SPIR-V's specification.
const EXTENSION: u32 = 10;
const CAPABILITY: u32 = 17;
const TYPE_FLOAT: u32 = 22;
/// Capabilities: Float16, BFloat16TypeKHR, BFloat16CooperativeMatrixKHR.
const FLOAT16: u32 = 9;
const BFLOAT16: [u32; 2] = [5116, 5118];
/// Words before the first instruction.
const HEADER: usize = 5;

/// The same shader for bf16.
pub fn retyped(words: &[u32]) -> Vec<u32> {
    let mut out = words[..HEADER.min(words.len())].to_vec();
    let mut named = false;
    for instruction in instructions(words) {
        let (opcode, operands) = (instruction[0] & 0xffff, &instruction[1..]);
        // Extensions stand behind all capabilities.
        if opcode != CAPABILITY && !named {
            out.extend(extension("SPV_KHR_bfloat16"));
            named = true;
        }
        match (opcode, operands) {
            (CAPABILITY, [FLOAT16]) => out.extend(BFLOAT16.iter().flat_map(|c| [2 << 16 | CAPABILITY, *c])),
            // The encoding behind the width: BFloat16KHR is 0.
            (TYPE_FLOAT, [id, 16]) => out.extend([4 << 16 | TYPE_FLOAT, *id, 16, 0]),
            _ => out.extend(instruction),
        }
    }
    out
}

fn instructions(words: &[u32]) -> impl Iterator<Item = &[u32]> {
    let mut rest = words.get(HEADER..).unwrap_or(&[]);
    std::iter::from_fn(move || {
        let len = (*rest.first()? >> 16) as usize;
        let (instruction, after) = rest.split_at_checked(len.max(1))?;
        rest = after;
        Some(instruction)
    })
}

/// `OpExtension`, its name in words of four bytes, of which the last ends in a zero.
fn extension(name: &str) -> Vec<u32> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize((bytes.len() + 1).next_multiple_of(4), 0);
    let text: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
    let mut words = vec![(1 + text.len() as u32) << 16 | EXTENSION];
    words.extend(text);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_and_what_it_needs_are_exchanged_and_nothing_else() {
        let words = [
            0x0723_0203,
            0x0001_0300,
            0,
            9,
            0, // header
            2 << 16 | CAPABILITY,
            1, // Shader
            2 << 16 | CAPABILITY,
            FLOAT16,
            3 << 16 | TYPE_FLOAT,
            7,
            16,
            3 << 16 | TYPE_FLOAT,
            8,
            32,
        ];
        let patched = retyped(&words);
        let found: Vec<Vec<u32>> = instructions(&patched).map(<[u32]>::to_vec).collect();
        assert_eq!(patched[..HEADER], words[..HEADER]);
        assert_eq!(found[1..3], [[2 << 16 | CAPABILITY, 5116], [2 << 16 | CAPABILITY, 5118]]);
        assert_eq!(found[3], extension("SPV_KHR_bfloat16"));
        assert_eq!(found[4], [4 << 16 | TYPE_FLOAT, 7, 16, 0]);
        assert_eq!(found[5], [3 << 16 | TYPE_FLOAT, 8, 32]);
        assert_eq!(found.len(), 6);
    }
}
