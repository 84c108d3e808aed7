//! A graph in the order in which it runs, with every value at its place in one arena.
//!
//! Liveness decides the places: a buffer is free again after its last reader. Views have no buffer of their
//! own; an operation that may work in place takes over the buffer of an operand that dies with it.

mod arena;
mod verify;

pub use arena::{PAGE, within_page};
pub use verify::ScheduleError;

use crate::graph::{Elem, Graph, Op, ValueId};
use arena::Arena;
use std::collections::BTreeMap;
use std::fmt;

/// Where the bytes of a value are.
#[derive(Clone, Debug, PartialEq)]
pub enum Home {
    /// Bound before the run: tokens, an input, a weight.
    Leaf(Leaf),
    /// In the arena of f32 from this element on, written by the step of this value.
    Arena { at: usize, writer: ValueId },
    /// An f64 buffer of its own, by index; results of the run.
    Result(usize),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaf {
    Tokens,
    Input(String),
    Weight(String),
    /// The two leaves that steps write: one they move on, to the other they add.
    State(String),
    Gradient(String),
}

/// A row-major matrix at a home: element (r, c) is `offset + r * stride + c`.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    pub home: Home,
    pub offset: usize,
    pub rows: usize,
    pub cols: usize,
    pub stride: usize,
}

impl Place {
    /// Elements from the first to the last one, gaps of the stride included.
    pub fn span(&self) -> usize {
        if self.rows == 0 { 0 } else { (self.rows - 1) * self.stride + self.cols }
    }
}

/// One operation with the places that it reads and writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    pub value: ValueId,
    pub op: Op,
    pub operands: Vec<Place>,
    pub out: Place,
    /// The operand whose buffer `out` has taken over.
    pub in_place: Option<usize>,
}

/// What a device runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    pub steps: Vec<Step>,
    /// Size of the arena in f32 elements.
    pub arena: usize,
    /// Lengths of the f64 results.
    pub results: Vec<usize>,
    pub outputs: Vec<(String, Place)>,
    /// Weights that are read, with their number of elements.
    pub weights: BTreeMap<String, usize>,
    /// Run-time inputs with their number of elements.
    pub inputs: BTreeMap<String, usize>,
    /// What is remembered from one run to the next, with its number of elements.
    pub states: BTreeMap<String, usize>,
    /// Gradients that are added to, with their number of elements.
    pub gradients: BTreeMap<String, usize>,
    pub masks: Vec<crate::graph::MaskInput>,
    /// Positions of one sample.
    pub sequence: usize,
}

impl Schedule {
    /// Bytes that one lane needs beside the weights and what is remembered: arena, results, inputs, gradients.
    pub fn lane_bytes(&self) -> u64 {
        let elements = self.inputs.values().sum::<usize>() + self.gradients.values().sum::<usize>();
        (self.arena * 4 + self.results.iter().sum::<usize>() * 8 + elements * 4 + self.sequence * 4) as u64
    }

    /// Columns of a leaf of this name, as its readers see it; 1 where nobody reads it.
    pub fn columns_of(&self, name: &str) -> usize {
        let of = |place: &&Place| match &place.home {
            Home::Leaf(Leaf::Weight(n) | Leaf::Input(n) | Leaf::State(n) | Leaf::Gradient(n)) => n == name,
            _ => false,
        };
        self.steps.iter().flat_map(|step| &step.operands).find(of).map_or(1, |place| place.stride)
    }

    /// Bytes of the weights in f32.
    pub fn weight_bytes(&self) -> u64 {
        self.weights.values().sum::<usize>() as u64 * 4
    }

    /// Bytes of what is remembered.
    pub fn state_bytes(&self) -> u64 {
        self.states.values().sum::<usize>() as u64 * 4
    }

    /// Bytes of the two averages that AdamW keeps of every gradient.
    pub fn average_bytes(&self) -> u64 {
        2 * self.gradients.values().sum::<usize>() as u64 * 4
    }
}

/// Plans the run of a verified graph. Nodes that no output needs are left out.
pub fn schedule(graph: &Graph) -> Result<Schedule, ScheduleError> {
    let planner = Planner::new(graph);
    let schedule = planner.plan();
    schedule.verify()?;
    Ok(schedule)
}

struct Planner<'a> {
    graph: &'a Graph,
    /// The value whose buffer a value lives in: itself, or what it is a view of.
    root: Vec<usize>,
    /// Index of the last node that reads the buffer of a root; outputs live for ever.
    last_use: Vec<usize>,
    places: Vec<Option<Place>>,
    arena: Arena,
    results: Vec<usize>,
}

impl<'a> Planner<'a> {
    fn new(graph: &'a Graph) -> Self {
        let n = graph.dag.node_count();
        let needed = needed(graph);
        let mut root: Vec<usize> = (0..n).collect();
        let mut last_use = vec![0; n];
        for id in graph.order().filter(|id| needed[id.index()]) {
            for operand in graph.operands(id) {
                last_use[root[operand.index()]] = id.index();
            }
            if let (true, Some(operand)) = (graph.node(id).op.is_view(), graph.operands(id).first()) {
                root[id.index()] = root[operand.index()];
            }
        }
        for (_, id) in &graph.outputs {
            last_use[root[id.index()]] = usize::MAX;
        }
        for id in graph.order().filter(|id| !needed[id.index()]) {
            last_use[id.index()] = 0;
            root[id.index()] = usize::MAX;
        }
        Planner { graph, root, last_use, places: vec![None; n], arena: Arena::default(), results: vec![] }
    }

    fn plan(mut self) -> Schedule {
        let mut steps = Vec::new();
        let (mut weights, mut inputs) = (BTreeMap::new(), BTreeMap::new());
        let (mut states, mut gradients) = (BTreeMap::new(), BTreeMap::new());
        let mut sequence = 0;
        for id in self.graph.order() {
            let i = id.index();
            if self.root[i] == usize::MAX {
                continue;
            }
            let node = self.graph.node(id);
            match &node.op {
                Op::Tokens => sequence = node.len(),
                Op::Weight { name } => drop(weights.insert(name.clone(), node.len())),
                Op::Input { name } => drop(inputs.insert(name.clone(), node.len())),
                Op::State { name } => drop(states.insert(name.clone(), node.len())),
                Op::Gradient { name } => drop(gradients.insert(name.clone(), node.len())),
                _ => {}
            }
            if let Some(place) = self.without_step(id) {
                self.places[i] = Some(place);
                continue;
            }
            let operand_ids = self.graph.operands(id);
            let operands: Vec<Place> =
                operand_ids.iter().filter_map(|o| self.places[o.index()].clone()).collect();
            let in_place = self.takes_over(id, &operand_ids);
            let out = match in_place {
                Some(position) => written_by(id, &operands[position]),
                None => self.place(id),
            };
            self.places[i] = Some(out.clone());
            steps.push(Step { value: id, op: node.op.clone(), operands, out, in_place });
            self.release(i, &operand_ids, in_place);
        }
        let outputs = self.graph.outputs.iter();
        let outputs =
            outputs.filter_map(|(name, id)| Some((name.clone(), self.places[id.index()].clone()?))).collect();
        Schedule {
            steps,
            arena: self.arena.size(),
            results: self.results,
            outputs,
            weights,
            inputs,
            states,
            gradients,
            masks: self.graph.masks.clone(),
            sequence,
        }
    }

    /// Leaves and views have a place but no step.
    fn without_step(&self, id: ValueId) -> Option<Place> {
        let node = self.graph.node(id);
        let (rows, cols) = node.matrix();
        let leaf = |leaf| Some(Place { home: Home::Leaf(leaf), offset: 0, rows, cols, stride: cols });
        match &node.op {
            Op::Tokens => leaf(Leaf::Tokens),
            Op::Input { name } => leaf(Leaf::Input(name.clone())),
            Op::Weight { name } => leaf(Leaf::Weight(name.clone())),
            Op::State { name } => leaf(Leaf::State(name.clone())),
            Op::Gradient { name } => leaf(Leaf::Gradient(name.clone())),
            Op::Part { name } => {
                let whole = *self.graph.operands(id).first()?;
                let (offset, _) = self.graph.node(whole).shape.last()?.run(name)?;
                let place = self.places[whole.index()].clone()?;
                Some(Place { offset: place.offset + offset, cols, ..place })
            }
            Op::Last => {
                let whole = *self.graph.operands(id).first()?;
                let place = self.places[whole.index()].clone()?;
                Some(Place { offset: place.offset + (place.rows - 1) * place.stride, rows, ..place })
            }
            _ => None,
        }
    }

    /// A buffer of its own.
    fn place(&mut self, id: ValueId) -> Place {
        let node = self.graph.node(id);
        let (rows, cols) = node.matrix();
        let home = match node.op.elem() {
            _ if node.is_empty() => Home::Arena { at: 0, writer: id },
            Elem::F64 => {
                self.results.push(node.len());
                Home::Result(self.results.len() - 1)
            }
            Elem::F32 | Elem::U32 => Home::Arena { at: self.arena.take(node.len()), writer: id },
        };
        Place { home, offset: 0, rows, cols, stride: cols }
    }

    /// The operand whose buffer the node may overwrite: whole, computed, and read by nobody later.
    fn takes_over(&self, id: ValueId, operands: &[ValueId]) -> Option<usize> {
        let position = self.graph.node(id).op.in_place_operand()?;
        let operand = operands.get(position)?;
        let place = self.places[operand.index()].as_ref()?;
        let whole = self.root[operand.index()] == operand.index() && place.stride == place.cols;
        let dies = self.last_use[operand.index()] == id.index();
        let read_twice = operands.iter().filter(|o| self.root[o.index()] == operand.index()).count() > 1;
        let written = matches!(place.home, Home::Arena { .. } | Home::Result(_));
        (whole && dies && !read_twice && written).then_some(position)
    }

    /// Gives back the buffers that died with node `i`, except the one that it took over.
    fn release(&mut self, i: usize, operands: &[ValueId], in_place: Option<usize>) {
        let kept = in_place.map(|p| operands[p].index());
        let mut roots: Vec<usize> = operands.iter().map(|o| self.root[o.index()]).collect();
        roots.sort_unstable();
        roots.dedup();
        for root in roots {
            if self.last_use[root] != i || kept == Some(root) {
                continue;
            }
            if let Some(Place { home: Home::Arena { at, .. }, .. }) = &self.places[root] {
                self.arena.give_back(*at);
            }
        }
    }
}

/// The same place after `writer` worked in place on it.
fn written_by(writer: ValueId, place: &Place) -> Place {
    match place.home {
        Home::Arena { at, .. } => Place { home: Home::Arena { at, writer }, ..place.clone() },
        _ => place.clone(),
    }
}

/// Which nodes an output depends on.
fn needed(graph: &Graph) -> Vec<bool> {
    let mut needed = vec![false; graph.dag.node_count()];
    let mut stack: Vec<ValueId> = graph.outputs.iter().map(|(_, id)| *id).collect();
    stack.extend(&graph.effects);
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            stack.extend(graph.operands(id));
        }
    }
    needed
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.home {
            Home::Leaf(Leaf::Tokens) => write!(f, "tokens")?,
            Home::Leaf(Leaf::Input(name)) => write!(f, "input \"{name}\"")?,
            Home::Leaf(Leaf::Weight(name)) => write!(f, "weight \"{name}\"")?,
            Home::Leaf(Leaf::State(name)) => write!(f, "state \"{name}\"")?,
            Home::Leaf(Leaf::Gradient(name)) => write!(f, "gradient \"{name}\"")?,
            Home::Arena { at, .. } => write!(f, "@{at}")?,
            Home::Result(i) => write!(f, "result {i}")?,
        }
        if self.offset > 0 {
            write!(f, "+{}", self.offset)?;
        }
        write!(f, " {}x{}", self.rows, self.cols)?;
        if self.stride != self.cols { write!(f, " stride {}", self.stride) } else { Ok(()) }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "arena {} f32, weights {} bytes", self.arena, self.weight_bytes())?;
        for step in &self.steps {
            let operands: Vec<String> = step.operands.iter().map(ToString::to_string).collect();
            let how = if step.in_place.is_some() { " in place" } else { "" };
            writeln!(f, "{} <- {}({}){how}", step.out, step.op.name(), operands.join(", "))?;
        }
        for (name, place) in &self.outputs {
            writeln!(f, "output {name} = {place}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::{self, Gather};
    use crate::graph::Masks;
    use crate::hir::LayerMetric;
    use crate::model::{LayerKind, ModelDesc};
    use crate::{config, dim::Dim, families};

    fn tiny() -> ModelDesc {
        families::describe(&config::parse(include_str!("../tests/configs/tiny.json")).unwrap()).unwrap()
    }

    #[test]
    fn each_kind_of_block_has_a_graph_and_a_schedule() {
        let desc = tiny();
        for kind in LayerKind::ALL {
            let layer = desc.layers.iter().position(|k| k == kind).unwrap();
            let graph = forward::block(&desc, layer, 8, Masks::default()).unwrap();
            let text = format!("{graph}\n{}", schedule(&graph).unwrap());
            insta::assert_snapshot!(format!("block_{}", kind.name()), text);
        }
    }

    #[test]
    fn a_masked_block_divides_by_its_active_width() {
        let desc = tiny();
        let masks = Masks {
            model: [(Dim::HiddenSize, 6)].into(),
            layers: [((0, Dim::MambaNumHeads), 2), ((0, Dim::MambaHeadDim), 2)].into(),
            dropped: vec![],
        };
        let graph = forward::block(&desc, 0, 8, masks).unwrap();
        insta::assert_snapshot!(graph.to_string());
    }

    #[test]
    fn buffers_are_used_again() {
        let desc = tiny();
        let graph = forward::logits(&desc, 64, Masks::default()).unwrap();
        let whole: usize = graph.order().map(|id| graph.node(id).len()).sum();
        let planned = schedule(&graph).unwrap();
        assert!(planned.arena * 3 < whole, "{} of {whole}", planned.arena);
        assert!(planned.steps.iter().any(|s| s.in_place.is_some()));
    }

    #[test]
    fn one_graph_gathers_every_layer_metric() {
        let desc = tiny();
        let gather =
            Gather { layers: vec![LayerMetric::Kld, LayerMetric::Cosine], loss: true, ..Gather::default() };
        let graph = forward::calibration(&desc, 8, &gather).unwrap();
        let planned = schedule(&graph).unwrap();
        assert_eq!(planned.outputs.len(), 1 + 2 * desc.layers.len());
        let embeds = planned.steps.iter().filter(|s| s.op == crate::graph::Op::Embed).count();
        assert_eq!(embeds, 1, "one forward pass");
    }

    #[test]
    fn the_verifier_sees_a_buffer_that_is_overwritten_too_early() {
        let desc = tiny();
        let graph = forward::block(&desc, 0, 8, Masks::default()).unwrap();
        let good = schedule(&graph).unwrap();
        for index in 1..good.steps.len() {
            let mut bad = good.clone();
            bad.steps.remove(index - 1);
            assert!(bad.verify().is_err(), "without step {}", index - 1);
        }
        let mut bad = good.clone();
        bad.steps[2].out.home = bad.steps[2].operands[0].home.clone();
        assert!(bad.verify().is_err());
    }
}
