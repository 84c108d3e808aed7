use super::*;
use LayerKind::{Attention, Mamba, Mlp};

/// M-M*M-*-: 3 Mamba, 3 feed-forward, 2 attention.
const KINDS: [LayerKind; 8] = [Mamba, Mlp, Mamba, Attention, Mamba, Mlp, Attention, Mlp];
const SCORES: [f64; 8] = [8.0, 3.0, 5.0, 0.5, 5.0, 2.0, 1.0, 7.0];

fn constraints(protect: &[usize], keep: &[(LayerKind, usize)]) -> Constraints {
    let (protect, keep) = (protect.iter().copied().collect(), keep.iter().copied().collect());
    Constraints { protect, keep, ..Constraints::default() }
}

fn chosen(target: usize, protect: &[usize], keep: &[(LayerKind, usize)]) -> Result<Vec<usize>, DepthError> {
    DepthRule::new(&KINDS, target, &constraints(protect, keep))?.choose(&SCORES)
}

#[test]
fn the_greatest_scores_survive_and_one_attention_layer() {
    assert_eq!(chosen(8, &[], &[]).unwrap(), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(chosen(4, &[], &[]).unwrap(), [0, 2, 6, 7]);
    // Layers 2 and 4 are equal: the lower one survives.
    assert_eq!(chosen(3, &[], &[]).unwrap(), [0, 6, 7]);
    assert_eq!(chosen(1, &[], &[]).unwrap(), [6]);
    assert_eq!(chosen(3, &[], &[(Attention, 0)]).unwrap(), [0, 2, 7]);
    let no_attention = DepthRule::new(&[Mamba, Mlp, Mlp], 1, &Constraints::default()).unwrap();
    assert_eq!(no_attention.choose(&[1.0, 3.0, 2.0]).unwrap(), [1]);
}

#[test]
fn protected_layers_and_exact_numbers_are_honoured() {
    assert_eq!(chosen(4, &[5, 3], &[]).unwrap(), [0, 3, 5, 7]);
    assert_eq!(chosen(4, &[], &[(Attention, 2)]).unwrap(), [0, 3, 6, 7]);
    assert_eq!(chosen(4, &[3], &[(Attention, 1), (Mlp, 3)]).unwrap(), [1, 3, 5, 7]);
    assert_eq!(chosen(5, &[1], &[(Mlp, 1)]).unwrap(), [0, 1, 2, 4, 6]);
}

#[test]
fn what_no_choice_can_meet_is_told() {
    let errors = [
        chosen(0, &[], &[]),
        chosen(9, &[], &[]),
        chosen(4, &[8], &[]),
        chosen(1, &[0, 1], &[]),
        chosen(4, &[], &[(Attention, 3)]),
        chosen(4, &[3, 6], &[(Attention, 1)]),
        chosen(3, &[], &[(Attention, 2), (Mlp, 2)]),
        chosen(2, &[0, 1], &[]),
        chosen(7, &[], &[(Attention, 0)]),
        DepthRule::new(&KINDS, 4, &Constraints::default()).unwrap().choose(&SCORES[1..]),
        DepthRule::new(&KINDS, 4, &Constraints::default()).unwrap().choose(&[f64::NAN; 8]),
    ];
    insta::assert_snapshot!(errors.map(|e| e.unwrap_err().to_string()).join("\n"));
}

/// Whatever the order in which layers go, the target is met and the constraints hold.
#[test]
fn removing_one_layer_at_a_time_ends_where_the_constraints_allow() {
    type Case = (&'static [usize], &'static [(LayerKind, usize)]);
    let cases: [Case; 4] =
        [(&[], &[]), (&[5], &[]), (&[3], &[(Attention, 1)]), (&[1], &[(Attention, 2), (Mlp, 1)])];
    for (protect, keep) in cases {
        for target in 4..8 {
            let Ok(rule) = DepthRule::new(&KINDS, target, &constraints(protect, keep)) else { continue };
            let mut remaining: Vec<usize> = (0..8).collect();
            loop {
                let candidates = rule.droppable(&remaining).into_iter().map(|l| (l, SCORES[l])).collect();
                let Some(layer) = DepthRule::least(&candidates).unwrap() else { break };
                remaining.retain(|&l| l != layer);
            }
            // Scores that do not change between removals give the one-shot choice.
            assert_eq!(remaining, rule.choose(&SCORES).unwrap(), "{target} {protect:?} {keep:?}");
        }
    }
}

#[test]
fn of_equals_the_higher_index_goes() {
    let scores = BTreeMap::from([(1, 2.0), (4, 2.0), (6, 3.0)]);
    assert_eq!(DepthRule::least(&scores), Ok(Some(4)));
    assert_eq!(DepthRule::least(&BTreeMap::new()), Ok(None));
    assert_eq!(DepthRule::least(&BTreeMap::from([(5, f64::NAN)])), Err(DepthError::NotANumber { layer: 5 }));
}

#[test]
fn a_block_goes_where_the_constraints_allow_it() {
    let without = |scores: &[f64], target, protect: &[usize], keep: &[(LayerKind, usize)]| {
        DepthRule::new(&KINDS, target, &constraints(protect, keep)).unwrap().without_block(scores)
    };
    let scores = [5.0, 4.0, 3.0, 1.0, 1.0, 9.0, 2.0];
    // Places 3 and 4 are equal: the later one goes.
    assert_eq!(without(&scores, 6, &[], &[]).unwrap(), [0, 1, 2, 3, 6, 7]);
    assert_eq!(without(&scores, 6, &[5], &[]).unwrap(), [0, 1, 2, 5, 6, 7]);
    assert_eq!(without(&scores, 6, &[], &[(Attention, 2)]).unwrap(), [0, 1, 2, 3, 6, 7]);
    assert_eq!(without(&scores, 6, &[], &[(Attention, 2), (Mamba, 3)]), Err(DepthError::NoBlock { span: 2 }));
    // Both attention layers may not go, whatever is said.
    let scores = [5.0, 4.0, 3.0, 1.0, 1.5];
    assert_eq!(without(&scores, 4, &[], &[]).unwrap(), [0, 1, 2, 3]);
    assert_eq!(without(&scores, 4, &[], &[(Attention, 0)]).unwrap(), [0, 1, 2, 7]);
    assert!(matches!(without(&[f64::NAN; 7], 6, &[], &[]), Err(DepthError::NotANumber { layer: 0 })));
    assert!(matches!(without(&scores, 6, &[], &[]), Err(DepthError::WrongLength { .. })));
    assert_eq!(without(&[1.0; 9], 8, &[], &[]).unwrap().len(), 8, "nothing goes");
}
