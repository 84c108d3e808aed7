//! Proves a schedule by walking it.
//!
//! Checked:
//! - every operand in the arena was written, and nothing else was written over it since;
//! - the output of a step overlaps no operand, except the one that it works in place on;
//! - a result that is worked on in place is taken over, never copied;
//! - every place lies inside the arena or its result;
//! - every output of the graph was written and is still whole at the end.

use super::{Home, Place, Schedule};
use crate::graph::ValueId;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("schedule step {step} ({op}): {message}")]
pub struct ScheduleError {
    pub step: usize,
    pub op: &'static str,
    pub message: String,
}

/// A range of the arena, and the value that was written there last.
struct Live {
    from: usize,
    to: usize,
    writer: ValueId,
}

impl Schedule {
    /// The rules at the head of this file.
    pub fn verify(&self) -> Result<(), ScheduleError> {
        let mut live: Vec<Live> = Vec::new();
        let mut written = vec![false; self.results.len()];
        for (index, step) in self.steps.iter().enumerate() {
            let fail = |message: String| Err(ScheduleError { step: index, op: step.op.name(), message });
            for operand in &step.operands {
                if let Err(message) = self.readable(operand, &live, &written) {
                    return fail(message);
                }
            }
            if let Err(message) = self.inside(&step.out) {
                return fail(message);
            }
            let in_result = matches!(step.out.home, Home::Result(_));
            if in_result && step.op.in_place_operand().is_some() && step.in_place.is_none() {
                return fail("works in place on a result that others read".into());
            }
            match step.out.home {
                Home::Arena { at, writer } => {
                    let to = at + step.out.span();
                    for (position, operand) in step.operands.iter().enumerate() {
                        if overlaps(operand, at, to) && step.in_place != Some(position) {
                            return fail(format!("writes over its operand {position}"));
                        }
                    }
                    live.retain(|l| l.to <= at || l.from >= to);
                    live.push(Live { from: at, to, writer });
                }
                Home::Result(i) => written[i] = true,
                Home::Leaf(_) => return fail("writes to a leaf".into()),
            }
        }
        for (name, place) in &self.outputs {
            if let Err(message) = self.readable(place, &live, &written) {
                let message = format!("output {name}: {message}");
                return Err(ScheduleError { step: self.steps.len(), op: "output", message });
            }
        }
        Ok(())
    }

    fn inside(&self, place: &Place) -> Result<(), String> {
        let end = place.offset + place.span();
        let limit = match place.home {
            Home::Leaf(_) => return Ok(()),
            Home::Arena { at, .. } => self.arena.saturating_sub(at),
            Home::Result(i) => self.results.get(i).copied().unwrap_or(0),
        };
        if end <= limit { Ok(()) } else { Err(format!("{place} ends outside its buffer")) }
    }

    fn readable(&self, place: &Place, live: &[Live], written: &[bool]) -> Result<(), String> {
        self.inside(place)?;
        let whole = match place.home {
            Home::Leaf(_) => true,
            Home::Result(i) => written[i],
            Home::Arena { at, writer } => {
                let (from, to) = (at + place.offset, at + place.offset + place.span());
                live.iter().any(|l| l.writer == writer && from >= l.from && to <= l.to)
            }
        };
        if whole { Ok(()) } else { Err(format!("{place} is read but not, or no longer, written")) }
    }
}

fn overlaps(place: &Place, from: usize, to: usize) -> bool {
    match place.home {
        Home::Arena { at, .. } => at + place.offset < to && at + place.offset + place.span() > from,
        _ => false,
    }
}
