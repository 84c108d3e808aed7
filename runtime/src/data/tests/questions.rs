//! Questions and their answers, one row a sample.

use super::*;
use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use std::sync::Arc;

fn questions(files: &[&str], sequence: usize, samples: Option<usize>) -> hir::Data {
    let (field, answer) = (Some("prompt".to_string()), Some("answer".to_string()));
    hir::Data { field, answer, ..data(files, sequence, samples) }
}

#[test]
fn each_row_is_a_sample_padded_behind() {
    let folder = Folder::new();
    folder.write(
        "a.jsonl",
        b"{\"prompt\": \"2+2=\", \"answer\": \"4\"}\n{\"answer\": [66, 67], \"prompt\": [65]}\n",
    );
    let samples = folder.load(&questions(&["a.jsonl"], 6, None)).unwrap();
    assert_eq!(samples.window(0), [50, 43, 50, 61, 52, 0]);
    assert_eq!(samples.window(1), [65, 66, 67, 0, 0, 0]);
    assert_eq!(samples.answers(), Some(&[4..5, 1..3][..]));
    assert_eq!((samples.len(), samples.files[0].tokens), (2, 8));
    // No end of row is put behind an answer, and none of it is a window of text.
    assert_eq!(folder.load(&data(&["a.jsonl"], 6, None)).unwrap_err().kind(), Kind::Input);
}

/// The same tokens of another answer are other samples.
#[test]
fn the_digest_knows_where_answers_begin() {
    let folder = Folder::new();
    let digest = |text: &str| {
        folder.write("a.jsonl", text.as_bytes());
        folder.load(&questions(&["a.jsonl"], 8, None)).unwrap().digest
    };
    let one = digest("{\"prompt\": \"ab\", \"answer\": \"cd\"}");
    assert_eq!(one, digest("{\"answer\": \"cd\", \"prompt\": \"ab\"}"));
    assert_ne!(one, digest("{\"prompt\": \"abc\", \"answer\": \"d\"}"));
    folder.write("b.txt", b"abcd\0\0\0\0");
    assert_ne!(one, folder.load(&data(&["b.txt"], 8, None)).unwrap().digest);
}

#[test]
fn fewer_questions_are_the_beginning_of_more() {
    let folder = Folder::new();
    let rows: String = (10..60).map(|i| format!("{{\"prompt\": \"{i}\", \"answer\": \"x\"}}\n")).collect();
    folder.write("a.jsonl", rows.as_bytes());
    let load = |n| text(&folder.load(&questions(&["a.jsonl"], 4, n)).unwrap());
    assert_eq!(load(None)[0], "10x\0");
    let twenty = load(Some(20));
    assert_eq!(twenty[..7], load(Some(7)));
    assert_ne!(twenty, load(None)[..20]);
    let error = folder.error(&questions(&["a.jsonl"], 4, Some(51)));
    assert_eq!(error, "51 samples are asked for, but a.jsonl hold 50 questions");
}

#[test]
fn rows_that_cannot_be_asked_are_named() {
    let folder = Folder::new();
    let merged = testing::byte_tokenizer(&[("=", "4")]);
    folder.write(&format!("model/{TOKENIZER_FILE}"), merged.as_bytes());
    let rows = [
        "{\"prompt\": \"2+2=\", \"answer\": \"4\"}",
        "{\"prompt\": \"\", \"answer\": \"4\"}",
        "{\"prompt\": \"2+2=\", \"answer\": \"\"}",
        "{\"prompt\": \"2+2=\"}",
        "{\"prompt\": \"2+2=\", \"answer\": [52]}",
        "{\"prompt\": \"two and two is\", \"answer\": \"four\"}",
    ];
    folder.write("a.jsonl", rows.join("\n").as_bytes());
    let mut strict = questions(&["a.jsonl"], 6, None);
    strict.bad_rows = Some(hir::BadRows::Count(0));
    let error = folder.error(&strict);
    for reason in [
        "line 1: the tokens of its question change when its answer follows",
        "line 2: its question is empty",
        "line 3: its answer is empty",
        "line 4: has no field `answer`; its fields: `prompt`",
        "line 5: of its question and its answer one is a text and one a list of token ids",
        "and 1 more",
    ] {
        assert!(error.contains(reason), "{reason}: {error}");
    }
    folder.write("b.jsonl", rows[5].as_bytes());
    let error = folder.error(&questions(&["b.jsonl"], 6, None));
    assert!(error.contains("line 1: takes 18 tokens, and `sequence` is 6"), "{error}");
    folder.write("c.txt", b"2+2=4");
    let error = folder.error(&questions(&["c.txt"], 6, None));
    assert_eq!(error, "DIR/c.txt: questions and answers are fields of JSONL or Parquet rows");
}

#[test]
fn columns_of_a_parquet_file_are_questions_too() {
    let folder = Folder::new();
    let schema = "message rows { REQUIRED BYTE_ARRAY prompt (UTF8); REQUIRED BYTE_ARRAY answer (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema, Arc::new(WriterProperties::new())).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for column in [["1+1=", "2+2="], ["2", "4"]] {
        let values = column.map(|text| ByteArray::from(text.as_bytes().to_vec()));
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    folder.write("a.parquet", &bytes);
    let samples = folder.load(&questions(&["a.parquet"], 5, None)).unwrap();
    assert_eq!(text(&samples), ["1+1=2", "2+2=4"]);
    assert_eq!(samples.answers(), Some(&[4..5, 4..5][..]));
}
