//! Messages on standard input and output: `Content-Length: N`, an empty line, N bytes of JSON.
//!
//! A message that cannot be read is answered and left out; only what breaks the framing itself ends the server.

use lsp_server::{ErrorCode, Message};
use serde_json::{Value, json};
use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::Sender;

/// The longest message that is read, in bytes.
const MOST_BYTES: usize = 64 << 20;

/// A message, or why what came is none.
pub enum Incoming {
    Message(Message),
    /// With the id of the request that it seems to be.
    Broken {
        id: Value,
        why: String,
    },
}

/// Reads until the input ends or breaks.
pub fn read_all(input: impl Read, to: &Sender<Incoming>) {
    let mut input = io::BufReader::new(input);
    loop {
        let (incoming, broken) = match read_frame(&mut input) {
            Ok(Some(frame)) => (read_message(&frame), false),
            Ok(None) => return,
            Err(error) => {
                let why = format!("the messages cannot be told apart any more: {error}");
                (Incoming::Broken { id: Value::Null, why }, true)
            }
        };
        if to.send(incoming).is_err() || broken {
            return;
        }
    }
}

pub fn read_message(frame: &[u8]) -> Incoming {
    let whole: Value = match serde_json::from_slice(frame) {
        Ok(whole) => whole,
        Err(error) => return Incoming::Broken { id: Value::Null, why: error.to_string() },
    };
    let id = whole.get("id").cloned();
    match (serde_json::from_value(whole), id) {
        // A request whose id is none looks like a notification.
        (Ok(Message::Notification(_)), Some(id)) => {
            Incoming::Broken { id, why: "the id of a request is a whole number or a string".into() }
        }
        (Ok(message), _) => Incoming::Message(message),
        (Err(error), id) => Incoming::Broken { id: id.unwrap_or(Value::Null), why: error.to_string() },
    }
}

/// The bytes of one message; `None` where the input ends between two.
fn read_frame(input: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut length = None;
    loop {
        let mut line = Vec::new();
        if input.by_ref().take(1024).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<usize>().ok();
        }
    }
    let length = length.filter(|length| *length <= MOST_BYTES);
    let wanted = || format!("`Content-Length` with at most {MOST_BYTES} bytes is wanted");
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, wanted()))?;
    let mut frame = vec![0; length];
    input.read_exact(&mut frame)?;
    Ok(Some(frame))
}

pub fn write(output: &mut impl Write, message: Message) -> io::Result<()> {
    message.write(output)
}

/// The answer to what is no message.
pub fn refuse(output: &mut impl Write, id: &Value, why: &str) -> io::Result<()> {
    let code = if id.is_null() { ErrorCode::ParseError } else { ErrorCode::InvalidRequest } as i32;
    let answer = json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": why } }).to_string();
    write!(output, "Content-Length: {}\r\n\r\n{answer}", answer.len())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn read(input: &str) -> Vec<Incoming> {
        let (send, receive) = mpsc::channel();
        read_all(input.as_bytes(), &send);
        drop(send);
        receive.iter().collect()
    }

    #[test]
    fn a_broken_message_does_not_hide_the_next() {
        let good = r#"{"jsonrpc":"2.0","method":"exit"}"#;
        let frame = |text: &str| format!("Content-Length: {}\r\n\r\n{text}", text.len());
        let text = [frame("{"), frame(r#"{"id":7.5,"method":"x"}"#), frame(good)].concat();
        let [Incoming::Broken { id: Value::Null, .. }, Incoming::Broken { id, .. }, Incoming::Message(_)] =
            &read(&text)[..]
        else {
            panic!("three messages");
        };
        assert_eq!(*id, json!(7.5));
    }

    #[test]
    fn what_is_no_frame_is_told_and_ends_the_reading() {
        assert_eq!(read("").len(), 0);
        for text in
            ["nonsense\r\n\r\n{}", "Content-Length: 9\r\n\r\n{}", "Content-Length: 99999999999\r\n\r\n{}"]
        {
            let more = format!("{text}Content-Length: 2\r\n\r\n{{}}");
            let [Incoming::Broken { .. }, ..] = &read(&more)[..] else { panic!("{text:?}") };
            assert_eq!(read(text).len(), 1, "{text:?}");
        }
    }
}
