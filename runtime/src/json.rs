//! Indented JSON whose lists stay on one line: kept indices are thousands of numbers.

use serde::Serialize;
use serde_json::ser::Formatter;
use std::io::{self, Write};

struct InlineLists {
    depth: usize,
    empty: bool,
}

impl InlineLists {
    fn line(&self, writer: &mut (impl Write + ?Sized)) -> io::Result<()> {
        writer.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| writer.write_all(b"  "))
    }
}

impl Formatter for InlineLists {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(b"{")
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(writer)?;
        }
        self.empty = false;
        writer.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.empty = false;
        writer.write_all(if first { b"" } else { b"," })?;
        self.line(writer)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// With a final line end.
pub(crate) fn to_text(value: &impl Serialize) -> String {
    let mut text = Vec::new();
    let formatter = InlineLists { depth: 0, empty: true };
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing to memory does not fail, and the keys of this crate's documents are strings and numbers.
    let _ = value.serialize(&mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}
