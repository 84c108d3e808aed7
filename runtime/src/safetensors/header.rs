//! The header: JSON to a checked table of tensors.

use super::{Element, Tensor};
use indexmap::IndexMap;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Longest header that is read, in bytes; the format's own limit.
pub const MAX_HEADER: u64 = 100_000_000;

const METADATA: &str = "__metadata__";

#[derive(Debug, Default)]
pub(super) struct Header {
    pub tensors: IndexMap<String, Tensor>,
    pub metadata: BTreeMap<String, String>,
}

/// What is wrong, and with which tensor if with one.
#[derive(Debug)]
pub(super) struct Fault {
    pub tensor: Option<String>,
    pub reason: String,
}

impl Fault {
    fn of(tensor: &str, reason: String) -> Fault {
        Fault { tensor: Some(tensor.to_string()), reason }
    }

    fn whole(reason: impl Into<String>) -> Fault {
        Fault { tensor: None, reason: reason.into() }
    }
}

/// As written, before anything is believed.
#[derive(Deserialize)]
#[serde(expecting = "an object with dtype, shape and data_offsets")]
struct RawTensor {
    dtype: String,
    #[serde(deserialize_with = "shape")]
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

/// No tensor library has tensors of more dimensions.
const MAX_RANK: usize = 64;

/// Stops at an absurd number of dimensions, before they fill the memory.
fn shape<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    struct V;
    impl<'de> Visitor<'de> for V {
        type Value = Vec<u64>;

        fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
            f.write_str("a list of sizes")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u64>, A::Error> {
            let mut shape = Vec::new();
            while let Some(size) = list.next_element()? {
                if shape.len() == MAX_RANK {
                    return Err(A::Error::custom(format!("more than {MAX_RANK} dimensions")));
                }
                shape.push(size);
            }
            Ok(shape)
        }
    }
    deserializer.deserialize_seq(V)
}

struct RawHeader {
    tensors: Vec<(String, RawTensor)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeaderVisitor)
    }
}

/// Keeps every entry of the object, so that a repeated name is seen and not silently the last one's.
struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = RawHeader;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
        let mut tensors = Vec::new();
        let mut metadata = None;
        while let Some(name) = map.next_key::<String>()? {
            let named = |e: A::Error| A::Error::custom(format!("entry `{name}`: {e}"));
            if name != METADATA {
                let tensor = map.next_value::<RawTensor>().map_err(named)?;
                tensors.push((name, tensor));
            } else if metadata.replace(map.next_value().map_err(named)?).is_some() {
                return Err(A::Error::custom(format!("`{METADATA}` appears twice")));
            }
        }
        Ok(RawHeader { tensors, metadata: metadata.unwrap_or_default() })
    }
}

/// Checks the text of a header against the `data_len` bytes that follow it.
pub(super) fn parse(bytes: &[u8], data_len: u64) -> Result<Header, Fault> {
    let text =
        std::str::from_utf8(bytes).map_err(|e| Fault::whole(format!("the header is not UTF-8: {e}")))?;
    if !text.starts_with('{') {
        return Err(Fault::whole("the header does not start with `{`"));
    }
    let raw: RawHeader =
        serde_json::from_str(text).map_err(|e| Fault::whole(format!("the header is not understood: {e}")))?;
    let mut tensors = IndexMap::with_capacity(raw.tensors.len());
    for (name, raw) in raw.tensors {
        let tensor = check_tensor(&name, raw, data_len)?;
        if tensors.contains_key(&name) {
            return Err(Fault::of(&name, "appears twice in the header".into()));
        }
        tensors.insert(name, tensor);
    }
    check_cover(&tensors, data_len)?;
    Ok(Header { tensors, metadata: raw.metadata })
}

fn check_tensor(name: &str, raw: RawTensor, data_len: u64) -> Result<Tensor, Fault> {
    let fault = |reason| Fault::of(name, reason);
    let element =
        Element::from_name(&raw.dtype).ok_or_else(|| fault(format!("unknown dtype `{}`", raw.dtype)))?;
    let (begin, end) = raw.data_offsets;
    if begin > end {
        return Err(fault(format!("its range of bytes {begin}..{end} ends before it begins")));
    }
    if end > data_len {
        return Err(fault(format!(
            "its range of bytes {begin}..{end} leaves the file's {data_len} bytes of data"
        )));
    }
    let size = byte_size(&raw.shape, element)
        .ok_or_else(|| fault(format!("its shape {:?} overflows the size of a file", raw.shape)))?;
    if size != end - begin {
        let found = end - begin;
        return Err(fault(format!(
            "{} of shape {:?} takes {size} bytes, but its range {begin}..{end} has {found}",
            element.name(),
            raw.shape
        )));
    }
    let shape = raw.shape.iter().map(|&n| usize::try_from(n)).collect::<Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| fault(format!("its shape {:?} does not fit this machine", raw.shape)))?;
    Ok(Tensor { element, shape, begin, end })
}

/// Checked also where a zero in the shape would hide the overflow of the rest.
fn byte_size(shape: &[u64], element: Element) -> Option<u64> {
    let widest = shape.iter().try_fold(element.bytes() as u64, |n, &d| n.checked_mul(d.max(1)))?;
    usize::try_from(widest).ok()?;
    Some(if shape.contains(&0) { 0 } else { widest })
}

/// Ranges in order must follow each other from 0 to the end.
fn check_cover(tensors: &IndexMap<String, Tensor>, data_len: u64) -> Result<(), Fault> {
    let mut order: Vec<(&String, &Tensor)> = tensors.iter().collect();
    order.sort_by_key(|(_, t)| (t.begin, t.end));
    let mut at = 0;
    let mut before = "the header";
    for (name, tensor) in order {
        if tensor.begin < at {
            return Err(Fault::of(name, format!("its bytes overlap those of `{before}`")));
        }
        if tensor.begin > at {
            return Err(Fault::of(
                name,
                format!("{} unused bytes between `{before}` and it", tensor.begin - at),
            ));
        }
        at = tensor.end;
        before = name;
    }
    if at != data_len {
        return Err(Fault::whole(format!(
            "its tensors take {at} bytes, but {data_len} bytes follow the header: cut short, or with something appended"
        )));
    }
    Ok(())
}
