use super::*;
use crate::cost;
use crate::hir::Quantity;
use crate::model::LayerKind;
use crate::plan::fixture;
use minic_grammar::Span;

fn require(quantity: Quantity, lo: f64, hi: f64) -> Require {
    Require { quantity, lo, hi, span: Span::default() }
}

/// What a model has, by the family's own formulas over its layers in order.
fn value(quantity: &Quantity, desc: &ModelDesc) -> f64 {
    match *quantity {
        Quantity::Params => desc.params() as f64,
        Quantity::Memory { batch, sequence } => cost::memory(desc, batch, sequence) as f64,
        Quantity::Flops { sequence } => (cost::flops_per_token(desc, sequence) * sequence as u64) as f64,
        ref other => panic!("{other}"),
    }
}

/// Every choice of surviving layers that the rules allow, one by one.
fn survivors(desc: &ModelDesc, total: usize, rules: &LayerRules) -> Vec<Vec<usize>> {
    let n = desc.layers.len();
    let subsets =
        (0..1usize << n).map(|set| (0..n).filter(|layer| set >> layer & 1 == 1).collect::<Vec<_>>());
    let allowed = |left: &Vec<usize>| {
        let count = |kind| left.iter().filter(|layer| desc.layers[**layer] == kind).count();
        let gone: Vec<usize> = (0..n).filter(|layer| !left.contains(layer)).collect();
        left.len() == total
            && rules.protect.iter().all(|layer| left.contains(layer))
            && rules.keep.iter().all(|(kind, n)| count(*kind) == *n)
            && (count(LayerKind::Attention) > 0 || rules.keep.contains_key(&LayerKind::Attention))
            && (!rules.block || gone.windows(2).all(|pair| pair[0] + 1 == pair[1]))
    };
    subsets.filter(allowed).collect()
}

/// [`Feasible`] and [`Relaxed`] by their definitions.
fn by_force(
    desc: &ModelDesc,
    space: &Space,
    rules: &LayerRules,
    require: &[Require],
) -> (Feasible, Vec<Relaxed>) {
    let mut found =
        Feasible { removed: vec![0; require.len()], left: vec![0; require.len()], ..Feasible::default() };
    let mut relaxed = vec![Relaxed::default(); require.len()];
    for point in 0..space.len() {
        let sizes = space.sizes(point);
        let total = sizes.get(&Dim::NumLayers).copied().unwrap_or(desc.layers.len());
        let cut = |layers: &Vec<usize>| desc.resized(&sizes, layers);
        let models: Vec<ModelDesc> = survivors(desc, total, rules).iter().map(cut).collect();
        let larger = sizes.iter().any(|(dim, size)| desc.dim(*dim).is_some_and(|whole| *size > whole));
        let legal = |model: &ModelDesc| model.family().constraint(model).is_ok();
        if larger || models.is_empty() || !models.iter().all(legal) {
            continue;
        }
        found.legal += 1;
        let meets = |model: &ModelDesc, require: &Require| {
            (require.lo..=require.hi).contains(&value(&require.quantity, model))
        };
        for n in 0..require.len() {
            let some = |part: &[Require]| models.iter().any(|model| part.iter().all(|r| meets(model, r)));
            found.left[n] += u64::from(some(&require[..=n]));
            found.removed[n] += u64::from(!some(&require[n..=n]));
        }
        if models.iter().any(|model| require.iter().all(|r| meets(model, r))) {
            found.points.push(point);
            found.certain += u64::from(models.iter().all(|model| require.iter().all(|r| meets(model, r))));
        }
        for model in &models {
            let broken: Vec<usize> = (0..require.len()).filter(|n| !meets(model, &require[*n])).collect();
            let [only] = broken[..] else { continue };
            let value = value(&require[only].quantity, model);
            let (lo, hi) = (relaxed[only].lo, relaxed[only].hi);
            if value < require[only].lo && lo.is_none_or(|(best, _)| value > best) {
                relaxed[only].lo = Some((value, point));
            }
            if value > require[only].hi && hi.is_none_or(|(best, _)| value < best) {
                relaxed[only].hi = Some((value, point));
            }
        }
    }
    (found, relaxed)
}

/// M-M-*-M*, and narrow.
fn small() -> ModelDesc {
    let sizes = [
        (Dim::HiddenSize, 64),
        (Dim::FfnHiddenSize, 480),
        (Dim::MambaNumHeads, 16),
        (Dim::MambaHeadDim, 8),
        (Dim::VocabSize, 100),
    ];
    let mut desc = fixture::desc("8b").resized(&sizes.into(), &[0, 1, 2, 3, 7, 8, 9, 18]);
    desc.config.clear();
    assert_eq!(desc.pattern(), "M-M-*-M*");
    desc
}

fn axes() -> Vec<(Dim, Vec<usize>)> {
    vec![
        // 12 heads break the eight groups, and 500 neurons would enlarge.
        (Dim::MambaNumHeads, vec![8, 12, 16]),
        (Dim::NumLayers, vec![4, 6, 8]),
        (Dim::FfnHiddenSize, vec![240, 480, 500]),
    ]
}

#[test]
fn the_points_that_are_left_are_those_of_which_some_model_meets_everything() {
    let desc = small();
    let whole = desc.params() as f64;
    let memory = Quantity::Memory { batch: 3, sequence: 512 };
    let bytes = cost::memory(&desc, 3, 512) as f64;
    let flops = Quantity::Flops { sequence: 64 };
    let operations = value(&flops, &desc);
    let ends = [0.4, 0.5, 0.65, 0.8];
    let rules = [
        LayerRules::default(),
        LayerRules { protect: [0, 1].into(), ..LayerRules::default() },
        LayerRules { keep: [(LayerKind::Mamba, 2)].into(), ..LayerRules::default() },
        LayerRules { block: true, ..LayerRules::default() },
        LayerRules { block: true, protect: [2].into(), ..LayerRules::default() },
    ];
    let (mut empty, mut partial) = (0, 0);
    for rules in rules {
        let space = Space::new(&Outline::of(desc.clone()), axes(), &rules);
        for (at, lo) in ends.iter().enumerate() {
            for hi in &ends[at..] {
                let require = [
                    require(Quantity::Params, lo * whole, hi * whole),
                    require(memory.clone(), 0.0, (lo + 0.15) * bytes),
                    require(flops.clone(), (hi - 0.3) * operations, f64::INFINITY),
                ];
                let (found, relaxed) = by_force(&desc, &space, &rules, &require);
                assert_eq!(space.feasible(&require), found, "{rules:?} {lo} {hi}");
                assert_eq!(space.relaxed(&require), relaxed, "{rules:?} {lo} {hi}");
                empty += usize::from(found.points.is_empty());
                partial += usize::from(found.certain < found.points.len() as u64);
            }
        }
    }
    assert!(empty > 5 && partial > 5, "{empty} {partial}");
}

#[test]
fn where_the_survivors_are_known_a_point_is_one_model() {
    let desc = small();
    let space = Space::new(&Outline::of(desc.clone()), axes(), &LayerRules::default());
    // The first layers go: both attention layers are left at any depth.
    let last = |total: usize| 8 - total..8;
    let model = |point| {
        let sizes = space.sizes(point);
        desc.resized(&sizes, &last(sizes[&Dim::NumLayers]).collect::<Vec<_>>())
    };
    let all = space.feasible(&[]).points;
    let mut params: Vec<u64> = all.iter().map(|point| model(*point).params()).collect();
    params.sort_unstable();
    let limit = params[params.len() / 2] as f64;
    let require = [require(Quantity::Params, 0.0, limit)];
    let exact = space.feasible_exact(&require, |total| crate::check::counts_of(&desc.layers[last(total)]));
    let expected: Vec<u64> = all.into_iter().filter(|point| model(*point).params() as f64 <= limit).collect();
    assert_eq!(exact.points, expected);
    assert_eq!(exact.certain, expected.len() as u64);
    assert!(expected.len() < space.feasible(&require).points.len());
}

/// The points of these whose model is one of those wanted.
fn entered(space: &Space, points: &[u64], wanted: impl Fn(&Outline) -> bool) -> Vec<u64> {
    let mut model = space.parent().clone();
    let mut kept = points.to_vec();
    kept.retain(|point| {
        space.enter(&mut model, *point);
        wanted(&model)
    });
    kept
}

#[test]
fn any_number_of_threads_finds_the_same() {
    let values = |dim: Dim| (1..=fixture::desc("8b").size(dim)).step_by(64).collect::<Vec<_>>();
    let axes = vec![
        (Dim::FfnHiddenSize, values(Dim::FfnHiddenSize)),
        (Dim::NumLayers, vec![44, 52]),
        (Dim::HiddenSize, values(Dim::HiddenSize)),
    ];
    let space = Space::new(&Outline::of(fixture::desc("8b")), axes, &LayerRules::default());
    let require = [
        require(Quantity::Params, 4.3e9, 4.5e9),
        require(Quantity::Memory { batch: 4, sequence: 65536 }, 0.0, 12e9),
    ];
    let found = [1, 2, 3, 7].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (space.feasible(&require), space.relaxed(&require)))
    });
    assert!(found[0].0.points.len() > 1000 && found[0].0.points.is_sorted());
    assert!(found.iter().all(|one| *one == found[0]));
    let small = |outline: &Outline| outline.desc.size(Dim::HiddenSize) < 3072 && outline.layers.total == 44;
    let kept = entered(&space, &found[0].0.points, small);
    let by_sizes = |point: &u64| {
        let sizes = space.sizes(*point);
        sizes[&Dim::HiddenSize] < 3072 && sizes[&Dim::NumLayers] == 44
    };
    let expected: Vec<u64> = found[0].0.points.iter().copied().filter(by_sizes).collect();
    assert!(!kept.is_empty() && kept == expected);
}

#[test]
fn a_space_with_too_many_points_has_none() {
    let many = (1..=4096).collect::<Vec<_>>();
    let axes = vec![(Dim::FfnHiddenSize, many.clone()), (Dim::HiddenSize, many)];
    let space = Space::new(&Outline::of(fixture::desc("8b")), axes, &LayerRules::default());
    assert_eq!((space.len(), space.feasible(&[]).legal), (4096 * 4096, 0));
}

#[test]
fn a_loader_leaves_the_points_that_it_accepts_and_gives_no_way() {
    let parent = Outline::of(fixture::desc("8b"));
    let axes = vec![
        (Dim::MambaNumHeads, vec![96, 104, 112, 120, 128]),
        (Dim::MambaHeadDim, vec![56, 60, 64]),
        (Dim::NumLayers, vec![48, 52]),
    ];
    let space = Space::new(&parent, axes, &LayerRules::default());
    let target = crate::targets::find("llama_cpp").expect("a loader");
    let require = Require {
        quantity: Quantity::Refusals { target: target.name, given: Vec::new() },
        lo: f64::NEG_INFINITY,
        hi: 0.0,
        span: Span::default(),
    };
    let found = space.feasible(std::slice::from_ref(&require));
    let all: Vec<u64> = (0..space.len()).collect();
    let accepted = entered(&space, &all, |model| target.refusals(&model.desc, &Vec::new()) == 0);
    assert_eq!(found.points, accepted);
    assert_eq!(found.removed, [space.len() - accepted.len() as u64]);
    // llama.cpp#20335: with 128 states 112 x 64 and 96 x 60 pass, 120 x 60 and 104 x 56 do not.
    let passes = |heads: usize, channels: usize| {
        accepted.iter().any(|point| {
            let sizes = space.sizes(*point);
            (sizes[&Dim::MambaNumHeads], sizes[&Dim::MambaHeadDim]) == (heads, channels)
        })
    };
    assert!(passes(112, 64) && passes(96, 60) && !passes(120, 60) && !passes(104, 56));
    let exact =
        space.feasible_exact(&[require], |total| crate::check::counts_of(&parent.desc.layers[..total]));
    assert_eq!(exact.points, accepted);
}
