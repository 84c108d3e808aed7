use super::*;

fn update(update: u64) -> Update {
    let loss = 1.0 + 1.0 / update as f64;
    Update {
        phase: if update <= 6 { "first" } else { "second <&>" }.into(),
        update,
        tokens: 1000 * update,
        loss,
        losses: [("cross_entropy".to_string(), loss)].into(),
        rate: 1e-3,
        grad_norm: 0.5,
        tokens_per_second: 100.0,
    }
}

fn heldout(update: u64) -> Heldout {
    let heldout_loss = 1.1 + 1.0 / (update + 1) as f64;
    Heldout { update, tokens: 1000 * update, heldout_loss, heldout_top1: None, heldout_kl: Some(0.1) }
}

/// Updates `from`..=`to`, and an evaluation after every fifth.
fn train(record: &mut Record, from: u64, to: u64) {
    for n in from..=to {
        record.update(update(n)).unwrap();
        if n % 5 == 0 {
            record.heldout(heldout(n)).unwrap();
        }
    }
}

fn rows(folder: &Path) -> Vec<(String, Row)> {
    let lines = rows::read(&folder.join(METRICS_FILE)).unwrap();
    lines.into_iter().map(|(line, _)| (line.stage, line.row)).collect()
}

/// What TensorBoard and the drawing show, times aside.
fn derived(folder: &Path, stage: &str) -> (usize, String) {
    let events = fs::read(folder.join(TENSORBOARD_FOLDER).join(stage).join(EVENTS_FILE)).unwrap();
    (events.len(), fs::read_to_string(folder.join(format!("{stage}.svg"))).unwrap())
}

#[test]
fn a_training_that_goes_on_leaves_the_rows_of_one_that_was_never_cut_off() {
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut record = Record::open(whole.path(), "student", 0).unwrap();
    record.heldout(heldout(0)).unwrap();
    train(&mut record, 1, 12);
    record.finish().unwrap();

    let mut record = Record::open(cut.path(), "student", 0).unwrap();
    record.heldout(heldout(0)).unwrap();
    train(&mut record, 1, 8);
    record.sync().unwrap();
    drop(record);
    // Killed within a line; the state was saved after update 5, before its evaluation.
    let mut file = File::options().append(true).open(cut.path().join(METRICS_FILE)).unwrap();
    file.write_all(b"{\"stage\":\"student\",\"phase\":\"sec").unwrap();
    let mut record = Record::open(cut.path(), "student", 5).unwrap();
    assert_eq!(rows(cut.path()).len(), 1 + 5 + 1);
    record.heldout(heldout(5)).unwrap();
    train(&mut record, 6, 12);
    record.finish().unwrap();

    assert_eq!(rows(cut.path()), rows(whole.path()));
    assert_eq!(derived(cut.path(), "student"), derived(whole.path(), "student"));
    assert_eq!(rows(whole.path()).len(), 12 + 3);
}

#[test]
fn stages_share_a_file_and_one_that_begins_anew_takes_out_its_own_lines() {
    let folder = tempfile::tempdir().unwrap();
    for stage in ["one", "two"] {
        let mut record = Record::open(folder.path(), stage, 0).unwrap();
        train(&mut record, 1, 4);
        record.finish().unwrap();
    }
    let mut record = Record::open(folder.path(), "one", 0).unwrap();
    train(&mut record, 1, 2);
    record.finish().unwrap();
    let stages: Vec<String> = rows(folder.path()).into_iter().map(|(stage, _)| stage).collect();
    assert_eq!(stages, ["two", "two", "two", "two", "one", "one"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let error = Record::open(&folder.path().join("absent"), "student", 0).unwrap_err();
    assert!(error.to_string().contains("metrics.jsonl"), "{error}");
}

/// Every number of the drawing is one, whatever the rows hold, and its phases are named.
#[test]
fn drawings_are_sound() {
    let line = |row| Line { stage: "student".into(), row, time: 0.0 };
    let mut lines: Vec<Line> = (1..=12).map(|n| line(Row::Update(update(n)))).collect();
    lines.push(line(Row::Heldout(heldout(12))));
    let drawn = svg("student", &lines);
    assert!(drawn.contains("second &lt;&amp;&gt;") && drawn.contains("held-out loss: 1.177"), "{drawn}");
    assert!(drawn.contains("training loss (cross_entropy)") && drawn.contains("loss, nats per token"));
    let wide: Vec<Line> = [1e-4, 10.0, f64::NAN, 0.0, 1e9]
        .iter()
        .zip(1..)
        .map(|(loss, n)| line(Row::Update(Update { loss: *loss, ..update(n) })))
        .collect();
    for lines in [&wide[..], &wide[..1], &wide[..2], &wide[2..3], &[]] {
        let drawn = svg("student", lines);
        let points = drawn.split("points=\"").skip(1).filter_map(|rest| rest.split('"').next());
        assert!(points.clone().all(|p| !p.contains("NaN") && !p.contains("inf")), "{drawn}");
        assert!(drawn.ends_with("</svg>\n"));
    }
}

#[test]
fn updates_take_what_their_speeds_say() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(seconds(folder.path(), "student").unwrap(), None);
    let mut record = Record::open(folder.path(), "student", 0).unwrap();
    record.heldout(heldout(0)).unwrap();
    train(&mut record, 1, 12);
    record.finish().unwrap();
    let took = (1..=12).map(|n| {
        let before = if n > 1 { update(n - 1).tokens } else { 0 };
        (update(n).tokens - before) as f64 / update(n).tokens_per_second
    });
    let told = seconds(folder.path(), "student").unwrap().unwrap();
    assert!((told - took.sum::<f64>()).abs() < 1e-9 * told, "{told}");
    assert_eq!(seconds(folder.path(), "other").unwrap(), None);
}

/// A curve of a hundred thousand updates is a small file.
#[test]
fn long_trainings_are_drawn_with_few_points() {
    let line = |n| Line { stage: "student".into(), row: Row::Update(update(n)), time: 0.0 };
    let lines: Vec<Line> = (1..=100_000).map(line).collect();
    let drawn = svg("student", &lines);
    assert!(drawn.len() < 30_000, "{} bytes", drawn.len());
    assert!(drawn.contains("means of 256 updates"));
}
