//! Figures of models.

use super::{Artifact, Executor, RunError};
use crate::evaluate::{self, Comparison};
use crate::source::WeightSource;
use minic_compiler::plan::Evaluation;
use petgraph::graph::NodeIndex;

impl Executor<'_> {
    /// Every model that is named runs once, whatever is compared with it.
    pub(super) fn evaluate(
        &mut self,
        id: NodeIndex,
        evaluations: &[Evaluation],
    ) -> Result<(Artifact, String), RunError> {
        let samples = self.samples(id)?;
        let windows: Vec<&[u32]> = samples.windows().collect();
        let mut names: Vec<&str> = Vec::new();
        for evaluation in evaluations {
            for name in [Some(evaluation.model.as_str()), evaluation.against.as_deref()].into_iter().flatten()
            {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let sources = names.iter().map(|name| Ok((*name, self.named(name)?.source)));
        let sources: Vec<(&str, WeightSource)> = sources.collect::<Result<_, RunError>>()?;
        let models: Vec<(&str, &WeightSource)> = sources.iter().map(|(n, s)| (*n, s)).collect();
        let comparisons: Vec<Comparison> = evaluations
            .iter()
            .map(|e| Comparison { model: &e.model, against: e.against.as_deref() })
            .collect();
        let watch = self.watch(id);
        let figures = evaluate::evaluate(self.device, &models, &comparisons, &windows, &watch)?;
        let of = |name: &str| models.iter().position(|(n, _)| *n == name).and_then(|i| figures.get(i));
        let mut told = Vec::new();
        for evaluation in evaluations {
            let Some(model) = of(&evaluation.model) else { continue };
            told.push(format!("{} loss {:.4}", evaluation.model, model.loss));
            let against = evaluation.against.as_deref().and_then(of);
            self.summary.evaluation(evaluation, model, against);
        }
        Ok((Artifact::Told, told.join(", ")))
    }
}
