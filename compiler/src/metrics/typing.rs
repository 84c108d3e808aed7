//! The axes of values in a metric: what elementwise operations join and what reducers remove.

use super::{Expr, Reducer};
use minic_grammar::{Diagnostic, Span};

/// The axes that a value still has besides its element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// A number: not even an element.
    Number,
    /// batch and sequence
    Token,
    /// batch
    Sample,
    /// the other side of w
    Weight,
    /// None left: one value per element. `of_x`: activations went into it.
    Element { of_x: bool },
}

impl Axes {
    pub fn describe(self) -> &'static str {
        match self {
            Axes::Number => "a number",
            Axes::Token => "one value per sample and position",
            Axes::Sample => "one value per sample",
            Axes::Weight => "one value per entry of the weight",
            Axes::Element { of_x: true } => "one value per element, reduced over all samples",
            Axes::Element { of_x: false } => "one value per element, reduced from the weight",
        }
    }
}

/// A lowered expression, its axes, and where it was written.
pub struct Typed {
    pub expr: Expr,
    pub axes: Axes,
    pub span: Span,
}

/// The axes of an elementwise operation on two values, or why there are none.
pub fn join(left: &Typed, right: &Typed) -> Result<Axes, Box<Diagnostic>> {
    use Axes::{Element, Number, Sample, Token, Weight};
    let (code, message, help) = match (left.axes, right.axes) {
        (Number, axes) | (axes, Number) => return Ok(axes),
        (Element { of_x: a }, Element { of_x: b }) => return Ok(Element { of_x: a || b }),
        (Token, Sample | Element { of_x: true })
        | (Sample | Element { of_x: true }, Token)
        | (Sample, Element { of_x: true })
        | (Element { of_x: true }, Sample)
        | (Weight, Element { of_x: false })
        | (Element { of_x: false }, Weight) => (
            "E1006",
            "a reduced value meets values that are not reduced, which needs a second pass over the data",
            "use `variance` for squared distances from the mean, or combine the values once both are reduced",
        ),
        (Token | Sample, Element { of_x: false }) | (Element { of_x: false }, Token | Sample) => (
            "E1007",
            "a statistic of the weight meets activations that are not reduced yet",
            "reduce the activations first, as in `mean(abs(x), over = tokens) * l2(w)`",
        ),
        (Token | Sample | Element { .. }, Weight) | (Weight, Token | Sample | Element { .. }) => (
            "E1007",
            "activations and the weight have no axis in common but the element",
            "reduce each by itself first, as in `mean(abs(x), over = tokens) * l2(w)`",
        ),
        (Token, Token) | (Sample, Sample) | (Weight, Weight) => return Ok(left.axes),
    };
    let diagnostic = Diagnostic::new(code, left.span.to(right.span), message)
        .also(left.span, left.axes.describe())
        .also(right.span, right.axes.describe());
    Err(Box::new(diagnostic.help(help)))
}

/// The axes left after a reduction, or why there can be none. `over` is the axis named and its place;
/// `callee` is the place of the reducer's name.
pub fn remove(
    reducer: Reducer,
    value: &Typed,
    over: Option<(&'static str, Span)>,
    callee: Span,
) -> Result<Axes, Box<Diagnostic>> {
    let name = reducer.name();
    let (code, message, help) = match (value.axes, over.map(|(axis, _)| axis)) {
        (Axes::Token, Some("sequence")) => return Ok(Axes::Sample),
        (Axes::Token, Some("tokens")) | (Axes::Sample, Some("batch")) => {
            return Ok(Axes::Element { of_x: true });
        }
        (Axes::Weight, None) => return Ok(Axes::Element { of_x: false }),
        (Axes::Token | Axes::Sample, None) => (
            "E1003",
            "a reducer of activations says which axes it reduces",
            "add `over = sequence`, `over = batch`, or `over = tokens` for both at once".into(),
        ),
        (Axes::Token, Some(_)) => (
            "E1004",
            "the batch cannot be reduced before the sequence",
            format!(
                "reduce the sequence first, `{name}(mean(.., over = sequence), over = batch)`, or both at once, `over = tokens`"
            ),
        ),
        (Axes::Sample, Some(_)) => (
            "E1004",
            "the sequence is reduced already",
            "only the batch is left: write `over = batch`".into(),
        ),
        (Axes::Weight, Some(_)) => (
            "E1003",
            "a reducer of the weight always reduces its other side",
            format!("leave `over` out: `{name}(w)`"),
        ),
        (Axes::Number | Axes::Element { .. }, _) => {
            ("E1004", "there is nothing left to reduce", format!("leave this `{name}` out"))
        }
    };
    let at = over.map_or(callee, |(_, span)| span);
    let diagnostic = Diagnostic::new(code, at, message).also(value.span, value.axes.describe());
    Err(Box::new(diagnostic.help(help)))
}
