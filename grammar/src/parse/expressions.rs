//! Expressions. pest gives a flat chain of operands and operators; the precedence is given here, loosest first:
//! `or`, `and`, `not`, comparison and `in`, `..= step`, `+ -`, `* /`, unary `-`.

use super::declarations::skip_to;
use super::{Reader, Rule};
use crate::ast::{Argument, BinaryOp, Expr, ExprKind, Path, UnaryOp};
use crate::diagnostic::Diagnostic;
use crate::span::{Span, Spanned};
use pest::iterators::{Pair, Pairs};
use std::iter::Peekable;

/// Operands and operators of one chain: a tree as deep as this is walked by recursion everywhere.
const MAX_CHAIN: usize = 256;

type Chain<'a> = Peekable<Pairs<'a, Rule>>;

impl Reader {
    /// An `expr` or a `condition`.
    pub(super) fn expr(&mut self, pair: Pair<Rule>) -> Option<Expr> {
        let span = self.span(&pair);
        let mut chain = pair.into_inner().peekable();
        if chain.len() > MAX_CHAIN {
            let message = format!("an expression has more than {MAX_CHAIN} operands and operators");
            self.report(Diagnostic::new("E0109", span, message).help("write it in parts"));
            return None;
        }
        self.either(&mut chain)
    }

    fn either(&mut self, chain: &mut Chain) -> Option<Expr> {
        self.left_to_right(chain, Self::both, |rule| match rule {
            Rule::kw_or => Some(BinaryOp::Or),
            _ => None,
        })
    }

    fn both(&mut self, chain: &mut Chain) -> Option<Expr> {
        self.left_to_right(chain, Self::negation, |rule| match rule {
            Rule::kw_and => Some(BinaryOp::And),
            _ => None,
        })
    }

    fn negation(&mut self, chain: &mut Chain) -> Option<Expr> {
        match chain.next_if(|p| p.as_rule() == Rule::kw_not) {
            Some(not) => {
                let operand = self.negation(chain)?;
                Some(self.unary(&not, UnaryOp::Not, operand))
            }
            None => self.comparison(chain),
        }
    }

    fn comparison(&mut self, chain: &mut Chain) -> Option<Expr> {
        let left = self.range(chain)?;
        let Some(first) = chain.next_if(|p| comparison(p.as_rule()).is_some()) else { return Some(left) };
        let right = self.range(chain)?;
        if let Some(second) = chain.next_if(|p| comparison(p.as_rule()).is_some()) {
            let message = "comparisons cannot be chained";
            self.report(
                Diagnostic::new("E0107", self.span(&second), message)
                    .also(self.span(&first), "first comparison here")
                    .help("join two comparisons with `and`, or write `QUANTITY in A ..= B`"),
            );
            return None;
        }
        let span = left.span.to(right.span);
        let (value, domain) = (Box::new(left), Box::new(right));
        let kind = match comparison(first.as_rule())? {
            Comparison::In => ExprKind::In { value, domain },
            Comparison::Op(op) => {
                ExprKind::Binary { op: Spanned::new(op, self.span(&first)), left: value, right: domain }
            }
        };
        Some(Expr { kind, span })
    }

    fn range(&mut self, chain: &mut Chain) -> Option<Expr> {
        let start = self.sum(chain)?;
        if chain.next_if(|p| p.as_rule() == Rule::range_op).is_none() {
            return match chain.next_if(|p| p.as_rule() == Rule::kw_step) {
                Some(step) => {
                    let message = "`step` stands after a range only";
                    let help = "a range is written `64..=128 step 8`";
                    self.report(Diagnostic::new("E0102", self.span(&step), message).help(help));
                    None
                }
                None => Some(start),
            };
        }
        let end = self.sum(chain)?;
        let step = match chain.next_if(|p| p.as_rule() == Rule::kw_step) {
            Some(_) => Some(Box::new(self.sum(chain)?)),
            None => None,
        };
        if let Some(again) = chain.next_if(|p| matches!(p.as_rule(), Rule::range_op | Rule::kw_step)) {
            let message = format!("a range has one `{}`", again.as_str());
            let help = "a range is written `64..=128 step 8`";
            self.report(Diagnostic::new("E0102", self.span(&again), message).help(help));
            return None;
        }
        let span = start.span.to(step.as_ref().map_or(end.span, |s| s.span));
        Some(Expr { kind: ExprKind::Range { start: Box::new(start), end: Box::new(end), step }, span })
    }

    fn sum(&mut self, chain: &mut Chain) -> Option<Expr> {
        self.left_to_right(chain, Self::product, |rule| match rule {
            Rule::plus => Some(BinaryOp::Add),
            Rule::minus => Some(BinaryOp::Subtract),
            _ => None,
        })
    }

    fn product(&mut self, chain: &mut Chain) -> Option<Expr> {
        self.left_to_right(chain, Self::negative, |rule| match rule {
            Rule::times => Some(BinaryOp::Multiply),
            Rule::divide => Some(BinaryOp::Divide),
            _ => None,
        })
    }

    fn negative(&mut self, chain: &mut Chain) -> Option<Expr> {
        match chain.next_if(|p| p.as_rule() == Rule::minus) {
            Some(minus) => {
                let operand = self.negative(chain)?;
                Some(self.unary(&minus, UnaryOp::Negate, operand))
            }
            None => self.primary(chain.next()?),
        }
    }

    fn unary(&self, sign: &Pair<Rule>, op: UnaryOp, operand: Expr) -> Expr {
        let span = self.span(sign).to(operand.span);
        Expr { kind: ExprKind::Unary { op, operand: Box::new(operand) }, span }
    }

    fn left_to_right(
        &mut self,
        chain: &mut Chain,
        operand: fn(&mut Self, &mut Chain) -> Option<Expr>,
        operator: fn(Rule) -> Option<BinaryOp>,
    ) -> Option<Expr> {
        let mut left = operand(self, chain)?;
        while let Some(sign) = chain.next_if(|p| operator(p.as_rule()).is_some()) {
            let op = Spanned::new(operator(sign.as_rule())?, self.span(&sign));
            let right = operand(self, chain)?;
            let span = left.span.to(right.span);
            left = Expr { kind: ExprKind::Binary { op, left: Box::new(left), right: Box::new(right) }, span };
        }
        Some(left)
    }

    fn primary(&mut self, pair: Pair<Rule>) -> Option<Expr> {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::number => ExprKind::Number(self.number(pair)?),
            Rule::string => ExprKind::String(self.string(&pair)?.node),
            Rule::boolean => ExprKind::Bool(pair.as_str() == "true"),
            Rule::reference => return self.reference(pair),
            Rule::list => ExprKind::List(self.exprs(pair.into_inner())?),
            Rule::set => ExprKind::Set(self.exprs(pair.into_inner())?),
            Rule::record => ExprKind::Record(
                pair.into_inner()
                    .filter(|p| p.as_rule() == Rule::setting)
                    .map(|p| self.setting(p))
                    .collect::<Option<_>>()?,
            ),
            Rule::paren => {
                let inner = skip_to(&mut pair.into_inner(), Rule::expr)?;
                return Some(Expr { span, ..self.expr(inner)? });
            }
            // `not` binds looser than its place here.
            Rule::kw_not => {
                let message = "`not` cannot stand after another operator";
                self.report(Diagnostic::new("E0102", span, message).help("put `not ..` in parentheses"));
                return None;
            }
            _ => return None,
        };
        Some(Expr { kind, span })
    }

    fn exprs(&mut self, parts: Pairs<Rule>) -> Option<Vec<Expr>> {
        parts.filter(|p| p.as_rule() == Rule::expr).map(|p| self.expr(p)).collect()
    }

    /// A name, a dotted name or a call.
    pub(super) fn reference(&mut self, pair: Pair<Rule>) -> Option<Expr> {
        let span = self.span(&pair);
        let mut parts = pair.into_inner();
        let path = self.path(&parts.next()?);
        let kind = match parts.next() {
            None => ExprKind::Path(path),
            Some(arguments) => {
                let arguments = arguments.into_inner().filter(|p| p.as_rule() == Rule::argument);
                let arguments = arguments.map(|p| self.argument(p)).collect::<Option<_>>()?;
                ExprKind::Call { callee: path, arguments }
            }
        };
        Some(Expr { kind, span })
    }

    fn argument(&mut self, pair: Pair<Rule>) -> Option<Argument> {
        let mut parts = pair.into_inner();
        let first = parts.next()?;
        if first.as_rule() == Rule::ident {
            let name = Some(self.ident(&first));
            let value = skip_to(&mut parts, Rule::expr)?;
            return Some(Argument { name, value: self.expr(value)? });
        }
        Some(Argument { name: None, value: self.expr(first)? })
    }

    pub(super) fn path(&self, pair: &Pair<Rule>) -> Path {
        let span = self.span(pair);
        let mut start = span.start;
        let segments = pair.as_str().split('.').map(|segment| {
            let place = Span::new(start, start + segment.len());
            start = place.end + 1;
            Spanned::new(segment.to_owned(), place)
        });
        Path { segments: segments.collect(), span }
    }
}

enum Comparison {
    In,
    Op(BinaryOp),
}

fn comparison(rule: Rule) -> Option<Comparison> {
    Some(match rule {
        Rule::kw_in => Comparison::In,
        Rule::equal => Comparison::Op(BinaryOp::Equal),
        Rule::not_equal => Comparison::Op(BinaryOp::NotEqual),
        Rule::less => Comparison::Op(BinaryOp::Less),
        Rule::less_equal => Comparison::Op(BinaryOp::LessEqual),
        Rule::greater => Comparison::Op(BinaryOp::Greater),
        Rule::greater_equal => Comparison::Op(BinaryOp::GreaterEqual),
        _ => return None,
    })
}
