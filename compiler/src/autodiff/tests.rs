use super::*;
use crate::forward::{Objective, training};
use crate::graph::Graph;
use crate::model::ModelDesc;
use crate::{config, families, schedule};

fn tiny() -> ModelDesc {
    families::describe(&config::parse(include_str!("../../tests/configs/tiny.json")).unwrap()).unwrap()
}

fn graph(recompute: Recompute) -> Graph {
    training(&tiny(), None, &Objective::cross_entropy(), 8, 4, recompute).unwrap().graph
}

fn count(graph: &Graph, name: &str) -> usize {
    graph.order().filter(|id| graph.node(*id).op.name() == name).count()
}

#[test]
fn every_weight_gets_its_gradient_whatever_is_computed_again() {
    for recompute in [Recompute::Nothing, Recompute::Cheap, Recompute::Blocks] {
        let graph = graph(recompute);
        let planned = schedule::schedule(&graph).unwrap();
        let gradients: Vec<&String> = planned.gradients.keys().collect();
        let mut weights: Vec<String> = tiny().weights().into_iter().map(|w| w.name).collect();
        weights.sort();
        assert_eq!(gradients, weights.iter().collect::<Vec<_>>(), "{recompute:?}");
        for weight in tiny().weights() {
            assert_eq!(planned.gradients[&weight.name], weight.len(), "{}", weight.name);
        }
    }
}

#[test]
fn less_is_held_the_more_is_computed_again() {
    let [all, cheap, blocks] = [Recompute::Nothing, Recompute::Cheap, Recompute::Blocks].map(graph);
    let arena = |graph: &Graph| schedule::schedule(graph).unwrap().arena;
    assert!(arena(&blocks) < arena(&cheap) && arena(&cheap) < arena(&all));
    let scans = tiny().layers.iter().filter(|kind| kind.letter() == 'M').count();
    assert_eq!([&all, &cheap, &blocks].map(|g| count(g, "ssd")), [scans, scans, 2 * scans]);
    assert_eq!([&all, &cheap, &blocks].map(|g| count(g, "conv_silu")), [scans, 2 * scans, 2 * scans]);
}

#[test]
fn the_backward_pass_reads_like_the_forward_one_from_its_end() {
    insta::assert_snapshot!(graph(Recompute::Cheap).to_string());
}
