use super::*;
use crate::random::SplitMix64;
use crate::testing;
use minic_compiler::axes::{TAPS, find_tap};
use minic_compiler::metrics;
use serde_json::json;

fn program(metric: &str) -> Program {
    let (recipe, _) = minic_grammar::parse(&format!("mrecipe 1\nmetric {metric}\n"));
    match &recipe.declarations[0] {
        minic_grammar::ast::Declaration::Metric(metric) => metrics::compile(metric).unwrap(),
        other => panic!("{other:?}"),
    }
}

fn matrix(rows: usize, cols: usize) -> Vec<f32> {
    let mut rng = SplitMix64::new(9);
    (0..rows * cols).map(|_| rng.below(2001) as f32 / 1000.0 - 1.0).collect()
}

fn column(matrix: &[f32], cols: usize, c: usize) -> Vec<f64> {
    matrix.chunks(cols).map(|row| f64::from(row[c])).collect()
}

#[test]
fn rows_and_columns_give_the_definitions() {
    let (rows, cols) = (150, 70);
    let program = program("m(w) = l1(w) + l2(w) + sum(w) + mean(abs(w)) + max(w) + variance(w)");
    let matrix = matrix(rows, cols);
    let mut by_row = Statistics::new(&program, cols);
    matrix.chunks(cols).for_each(|row| by_row.push_row(row));
    let mut by_element = Statistics::new(&program, cols);
    for c in 0..cols {
        let values: Vec<f32> = column(&matrix, cols, c).iter().map(|&v| v as f32).collect();
        let (first, second) = values.split_at(c);
        by_element.push_element(c, first);
        by_element.push_element(c, second);
    }
    assert_eq!(by_row.finish(), by_element.finish());
    let statistics = by_row.finish();
    for c in 0..cols {
        let values = column(&matrix, cols, c);
        let n = values.len() as f64;
        let sum = |f: &dyn Fn(f64) -> f64| values.iter().map(|&v| f(v)).sum::<f64>();
        let mean = sum(&|v| v) / n;
        let expected = [
            sum(&f64::abs),
            sum(&|v| v * v).sqrt(),
            sum(&|v| v),
            sum(&f64::abs) / n,
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            sum(&|v| (v - mean).powi(2)) / n,
        ];
        for (statistic, expected) in statistics.iter().zip(expected) {
            assert!((statistic[c] - expected).abs() <= 1e-12 * expected.abs().max(1.0));
        }
    }
    let scores = program.finish(cols, None, &statistics);
    assert_eq!(scores[3], statistics.iter().map(|s| s[3]).fold(0.0, |a, b| a + b));
}

#[test]
fn an_element_without_values_has_no_statistic() {
    let program = program("m(w) = l2(w)");
    let mut statistics = Statistics::new(&program, 2);
    statistics.push_element(0, &[3.0, 4.0]);
    statistics.push_element(7, &[1.0]);
    let l2 = &statistics.finish()[0];
    assert!(l2[0] == 5.0 && l2[1].is_nan());
}

#[test]
fn every_tap_has_its_weights() {
    let mut text = String::new();
    for (family, tied) in [("stored head", false), ("tied head", true)] {
        let mut desc = testing::desc(&testing::config());
        desc.tied = tied;
        text += &format!("{family}\n");
        for tap in TAPS {
            for layer in [Some(0), Some(1), Some(2), None] {
                for source in sources(&desc, tap, layer) {
                    let place = layer.map_or("last".into(), |l| l.to_string());
                    text += &format!("  {}.{place}: {} {:?}\n", tap.name, source.weight.name, source.side);
                }
            }
        }
    }
    insta::assert_snapshot!(text);
}

/// The oracle's statistics of the golden model's weights.
#[test]
fn golden_statistics_are_pytorchs() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(format!("{folder}/{name}")).unwrap()).unwrap()
    };
    let (golden, desc) = (read("scores.json"), testing::desc(&read("config.json")));
    let program = program("m(w) = l2(w) + l1(w) + sum(w) + mean(w) + max(w)");
    let names = ["l2(w)", "l1(w)", "sum(w)", "mean(w)", "max(w)"];
    let bytes = std::fs::read(format!("{folder}/model.safetensors")).unwrap();
    let mut compared = 0;
    for (tap, places) in golden["weights"].as_object().unwrap() {
        let tap = find_tap(tap).unwrap();
        for (place, expected) in places.as_object().unwrap() {
            let sources = sources(&desc, tap, place.parse().ok());
            let elements = expected["l2(w)"].as_array().unwrap().len();
            let mut statistics = Statistics::new(&program, elements);
            for source in sources {
                push(&mut statistics, &source, &tensor(&bytes, &source.weight.name));
            }
            for (statistic, name) in statistics.finish().iter().zip(names) {
                let expected: Vec<f64> = serde_json::from_value(expected[name].clone()).unwrap();
                for (a, b) in statistic.iter().zip(&expected) {
                    assert!(
                        (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
                        "{name} {} {place}: {a} {b}",
                        tap.name
                    );
                }
                compared += 1;
            }
        }
    }
    assert_eq!(
        compared,
        5 * golden["weights"]
            .as_object()
            .unwrap()
            .values()
            .map(|v| v.as_object().unwrap().len())
            .sum::<usize>()
    );
    assert_eq!(json!(null), golden["weights"]["mamba.x"]["1"]);
}

/// An f32 tensor of a safetensors file.
fn tensor(file: &[u8], name: &str) -> Vec<f32> {
    let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let header: serde_json::Value = serde_json::from_slice(&file[8..8 + length]).unwrap();
    assert_eq!(header[name]["dtype"], "F32");
    let at = |i: usize| 8 + length + header[name]["data_offsets"][i].as_u64().unwrap() as usize;
    file[at(0)..at(1)].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

fn push(statistics: &mut Statistics, source: &Source, values: &[f32]) {
    let rows = values.chunks(source.weight.sizes()[1]);
    match source.side {
        Side::Columns => rows.for_each(|row| statistics.push_row(row)),
        Side::Rows { first, count } => {
            let elements = rows.skip(first).take(count).enumerate();
            elements.for_each(|(element, row)| statistics.push_element(element, row));
        }
    }
}
