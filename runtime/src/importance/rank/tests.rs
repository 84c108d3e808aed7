use super::*;
use crate::importance::{DepthRule, random};
use crate::random::SplitMix64;
use crate::testing;
use minic_compiler::axes;
use serde_json::json;

/// M-M of the given heads, channels and groups; 6 neurons, 4 hidden channels.
fn desc(heads: usize, channels: usize, groups: usize) -> ModelDesc {
    let mut config = testing::config();
    let sizes = [("mamba_num_heads", heads), ("mamba_head_dim", channels), ("n_groups", groups)];
    for (key, size) in sizes.into_iter().chain([("intermediate_size", 6), ("hidden_size", 4)]) {
        config[key] = json!(size);
    }
    config["hybrid_override_pattern"] = json!("M-M");
    testing::desc(&config)
}

fn axis(name: &str) -> &'static Axis {
    axes::find(name).expect("a known axis")
}

/// The same scores in every Mamba layer, at a tap of heads x channels.
fn at_mamba(desc: &ModelDesc, name: &str, keep: usize, values: &[f64]) -> AxisScores {
    let tap = axes::find_tap("mamba.x").expect("a known tap");
    let scores = Scores::at(tap, desc, values.to_vec());
    let table = Table::Layers([0, 2].into_iter().map(|l| (l, scores.clone())).collect());
    AxisScores { axis: axis(name), keep, reverse: false, table }
}

fn kept(desc: &ModelDesc, axes: &[AxisScores], constraints: &Constraints) -> (Keep, Keep) {
    let plan = choose(desc, &[0, 1, 2], axes, constraints, false).expect("ranks");
    assert_eq!(plan.by_layer.get(&0), plan.by_layer.get(&2));
    (plan.keep(0, Dim::MambaNumHeads).clone(), plan.keep(0, Dim::MambaHeadDim).clone())
}

fn draw(seed: u64, n: usize) -> Vec<f64> {
    random(seed, "test", None, n)
}

/// Two groups of two heads, three channels. Squares of the scores:
///
/// | head | c0 | c1 | c2 |
/// |------|----|----|----|
/// | 0    | 9  | 0  | 1  |
/// | 1    | 1  | 16 | 4  |
/// | 2    | 4  | 0  | 4  |
/// | 3    | 1  | 1  | 9  |
///
/// Channels over all heads: 15, 17, 18, so two kept ones are 1 and 2. Heads over those: 1, 20, 4, 10, so each
/// group keeps its second. Over all channels the heads were 10, 21, 8, 11.
const BY_HAND: [f64; 12] = [3.0, 0.0, -1.0, 1.0, 4.0, 2.0, 2.0, 0.0, 2.0, 1.0, -1.0, 3.0];

#[test]
fn the_nested_ranking_of_a_small_case() {
    let desc = desc(4, 3, 2);
    let channels = at_mamba(&desc, "mamba_head_dim", 2, &BY_HAND);
    let heads = |keep| at_mamba(&desc, "mamba_num_heads", keep, &BY_HAND);
    let both = kept(&desc, &[channels.clone(), heads(2)], &Constraints::default());
    assert_eq!(both, (Keep::Flat(vec![1, 3]), Keep::Flat(vec![1, 2])));
    // The order of the list does not matter; an axis that is not cut, or keeps everything, stays whole.
    assert_eq!(kept(&desc, &[heads(2), channels.clone()], &Constraints::default()), both);
    assert_eq!(kept(&desc, &[heads(4), channels], &Constraints::default()), (Keep::All, both.1));
    assert_eq!(kept(&desc, &[heads(2)], &Constraints::default()), (both.0, Keep::All));
}

#[test]
fn heads_see_only_surviving_channels() {
    let desc = desc(2, 2, 1);
    // Channel 0 is the greater one over both heads; without channel 1, head 1 is the greater head.
    let scores = [3.0, 5.0, 5.0, 0.0];
    let channels = at_mamba(&desc, "mamba_head_dim", 1, &scores);
    let heads = at_mamba(&desc, "mamba_num_heads", 1, &scores);
    let both = [channels, heads];
    let channels_first = kept(&desc, &both, &Constraints::default());
    assert_eq!(channels_first, (Keep::Flat(vec![1]), Keep::Flat(vec![0])));
    // The other way round, head 0 is kept for both its channels, and its greater channel is 1.
    let constraints = Constraints { heads_before_channels: true, ..Constraints::default() };
    assert_eq!(kept(&desc, &both, &constraints), (Keep::Flat(vec![0]), Keep::Flat(vec![1])));
}

#[test]
fn every_head_may_keep_its_own_channels() {
    let desc = desc(4, 3, 2);
    let channels = at_mamba(&desc, "mamba_head_dim", 1, &BY_HAND);
    let heads = at_mamba(&desc, "mamba_num_heads", 2, &BY_HAND);
    let own = Constraints { channels_per_head: true, ..Constraints::default() };
    // The best channel of each head by its signed score: 0, 1, 0 (a tie with 2), 2; squares 9, 16, 4, 9.
    let lists = |lists: &[usize]| Keep::PerHead(lists.iter().map(|&c| vec![c]).collect());
    assert_eq!(kept(&desc, std::slice::from_ref(&channels), &own), (Keep::All, lists(&[0, 1, 0, 2])));
    assert_eq!(kept(&desc, &[channels, heads], &own), (Keep::Flat(vec![1, 3]), lists(&[1, 2])));
}

#[test]
fn axes_may_be_scored_at_different_taps_and_by_scores_of_their_own_members() {
    let desc = desc(4, 3, 2);
    let channels = at_mamba(&desc, "mamba_head_dim", 1, &[0.0, 0.0, 1.0].repeat(4));
    // Heads over channel 2 alone: 1, 4, 4, 9 squared.
    let heads = at_mamba(&desc, "mamba_num_heads", 2, &BY_HAND);
    let mixed = kept(&desc, &[channels.clone(), heads], &Constraints::default());
    assert_eq!(mixed, (Keep::Flat(vec![1, 3]), Keep::Flat(vec![2])));
    let own = Scores::of(Dim::MambaNumHeads, vec![-1.0, -2.0, 7.0, 7.0]);
    let table = Table::Layers([0, 2].into_iter().map(|l| (l, own.clone())).collect());
    let heads = AxisScores { axis: axis("mamba_num_heads"), keep: 2, reverse: false, table };
    assert_eq!(kept(&desc, &[channels, heads.clone()], &Constraints::default()).0, Keep::Flat(vec![0, 2]));
    let reversed = AxisScores { reverse: true, ..heads };
    assert_eq!(kept(&desc, &[reversed], &Constraints::default()).0, Keep::Flat(vec![1, 2]));
}

/// The algorithm box of the paper, line by line, on s [m_h][m_d].
fn algorithm_box(s: &[Vec<f64>], k_d: usize, k_g: usize, groups: usize) -> (Vec<usize>, Vec<usize>) {
    let (m_h, m_d) = (s.len(), s[0].len());
    let descending = |mut order: Vec<usize>, f: &[f64]| {
        order.sort_by(|&a, &b| f[b].total_cmp(&f[a]));
        order
    };
    let s_d: Vec<f64> = (0..m_d).map(|d| (0..m_h).map(|h| s[h][d].powi(2)).sum::<f64>().sqrt()).collect();
    let d_top = descending((0..m_d).collect(), &s_d)[..k_d].to_vec();
    let f_h: Vec<f64> =
        (0..m_h).map(|h| d_top.iter().map(|&d| s[h][d].powi(2)).sum::<f64>().sqrt()).collect();
    let mut r = Vec::new();
    for g in 0..groups {
        let members = (g * m_h / groups..(g + 1) * m_h / groups).collect();
        r.extend(&descending(members, &f_h)[..k_g]);
    }
    let sorted = |mut list: Vec<usize>| {
        list.sort_unstable();
        list
    };
    (sorted(r), sorted(d_top))
}

#[test]
fn the_nested_ranking_is_the_papers_algorithm() {
    for (seed, (groups, per_group, channels)) in
        [(1, 4, 5), (2, 3, 7), (4, 4, 20), (8, 2, 3)].into_iter().enumerate()
    {
        let heads = groups * per_group;
        let desc = desc(heads, channels, groups);
        let values = draw(seed as u64, heads * channels);
        let rows: Vec<Vec<f64>> = values.chunks(channels).map(<[f64]>::to_vec).collect();
        for (k_d, k_g) in [(1, 1), (channels / 2, per_group - 1), (channels - 1, 1)] {
            let axes = [
                at_mamba(&desc, "mamba_head_dim", k_d, &values),
                at_mamba(&desc, "mamba_num_heads", k_g * groups, &values),
            ];
            let (heads, channels) = algorithm_box(&rows, k_d, k_g, groups);
            let expected = (Keep::Flat(heads), Keep::Flat(channels));
            assert_eq!(kept(&desc, &axes, &Constraints::default()), expected);
        }
    }
}

/// Ranking commutes with permutations of the heads within their groups and of the channels (paper eqs. 17, 18).
#[test]
fn ranking_is_equivariant_within_groups() {
    let (groups, per_group, channels) = (3, 4, 6);
    let desc = desc(groups * per_group, channels, groups);
    for seed in 0..20 {
        let values = draw(seed, groups * per_group * channels);
        let mut rng = SplitMix64::stream(seed, 1);
        let by_channel = rng.sample(channels, channels);
        let by_head: Vec<usize> = (0..groups)
            .flat_map(|g| rng.sample(per_group, per_group).into_iter().map(move |h| g * per_group + h))
            .collect();
        let moved: Vec<f64> = by_head
            .iter()
            .flat_map(|&h| by_channel.iter().map(move |&c| h * channels + c))
            .map(|element| values[element])
            .collect();
        let rank = |values: &[f64]| {
            let axes =
                [at_mamba(&desc, "mamba_head_dim", 4, values), at_mamba(&desc, "mamba_num_heads", 6, values)];
            kept(&desc, &axes, &Constraints::default())
        };
        let back = |keep: &Keep, places: &[usize]| {
            let Keep::Flat(kept) = keep else { panic!("one list") };
            let mut kept: Vec<usize> = kept.iter().map(|&i| places[i]).collect();
            kept.sort_unstable();
            Keep::Flat(kept)
        };
        let (heads, channels) = rank(&moved);
        assert_eq!((back(&heads, &by_head), back(&channels, &by_channel)), rank(&values));
    }
}

#[test]
fn neurons_are_ranked_by_layer_and_hidden_channels_for_the_model() {
    let desc = desc(4, 3, 2);
    let neurons = Scores::of(Dim::FfnHiddenSize, vec![1.0, 5.0, 5.0, 0.0, 5.0, 2.0]);
    let hidden = |values: [f64; 4]| Scores::of(Dim::HiddenSize, values.to_vec());
    let axes = [
        AxisScores {
            axis: axis("ffn_hidden_size"),
            keep: 2,
            reverse: false,
            table: Table::Layers(BTreeMap::from([(1, neurons)])),
        },
        AxisScores {
            axis: axis("hidden_size"),
            keep: 2,
            reverse: false,
            table: Table::Model(vec![hidden([3.0, 1.0, 0.0, 0.0]), hidden([0.0, 1.0, 0.0, 4.0])]),
        },
    ];
    let plan = choose(&desc, &[1], &axes, &Constraints::default(), false).unwrap();
    assert_eq!(plan.layers, [1]);
    assert_eq!(plan.model, BTreeMap::from([(Dim::HiddenSize, vec![0, 3])]));
    // Three equal scores: the lower indices are kept.
    let kept = BTreeMap::from([(Dim::FfnHiddenSize, Keep::Flat(vec![1, 2]))]);
    assert_eq!(plan.by_layer, BTreeMap::from([(1, kept)]));
}

#[test]
fn what_cannot_be_ranked_is_told() {
    let desc = desc(4, 3, 2);
    let heads = |keep, values: &[f64]| at_mamba(&desc, "mamba_num_heads", keep, values);
    let error =
        |axes: AxisScores| choose(&desc, &[0, 1, 2], &[axes], &Constraints::default(), false).unwrap_err();
    let mut broken = BY_HAND;
    broken[7] = f64::NAN;
    let missing = AxisScores { table: Table::Layers(BTreeMap::new()), ..heads(2, &BY_HAND) };
    let errors = [
        error(heads(2, &broken)),
        error(heads(2, &BY_HAND[..11])),
        error(heads(3, &BY_HAND)),
        error(heads(0, &BY_HAND)),
        error(heads(6, &BY_HAND)),
        error(missing),
    ];
    insta::assert_snapshot!(errors.map(|e| e.to_string()).join("\n"));
}

/// What PyTorch keeps from the scores that PyTorch measured.
#[test]
fn the_golden_model_keeps_what_the_oracle_keeps() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/importance");
    let read = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(format!("{folder}/{name}")).unwrap()).unwrap()
    };
    let (golden, desc) = (read("scores.json"), testing::desc(&read("config.json")));
    let floats = |v: &serde_json::Value| -> Vec<f64> { serde_json::from_value(v.clone()).unwrap() };
    let indices = |v: &serde_json::Value| -> Vec<usize> { serde_json::from_value(v.clone()).unwrap() };
    let size = |name: &str| golden["kept"]["sizes"][name].as_u64().unwrap() as usize;
    let scores = |tap: &str, layer: usize| {
        let metric = "l2(mean(abs(x), over = sequence), over = batch)";
        let values = &golden["taps"][tap][layer.to_string()][metric];
        values.is_array().then(|| Scores::at(axes::find_tap(tap).unwrap(), &desc, floats(values)))
    };
    let all: Vec<usize> = (0..desc.layers.len()).collect();
    let by_layer = |tap: &str| {
        let places = all.iter().filter_map(|&l| Some((l, scores(tap, l)?)));
        Table::Layers(places.collect())
    };
    let entry = |name: &str, keep, table| AxisScores { axis: axis(name), keep, reverse: false, table };
    let norms = Table::Model(all.iter().filter_map(|&l| scores("norm.out", l)).collect());
    let axes = [
        entry("mamba_head_dim", size("channels"), by_layer("mamba.x")),
        entry("mamba_num_heads", size("heads_per_group") * desc.size(Dim::NGroups), by_layer("mamba.x")),
        entry("ffn_hidden_size", size("neurons"), by_layer("ffn.up")),
        entry("hidden_size", size("hidden"), norms),
    ];
    let plan = choose(&desc, &all, &axes, &Constraints::default(), false).unwrap();
    let golden_layers = [("mamba", "heads", Dim::MambaNumHeads), ("mamba", "channels", Dim::MambaHeadDim)];
    let mut compared = 0;
    for (kind, what, dim) in golden_layers {
        for (layer, kept) in golden["kept"][kind].as_object().unwrap() {
            assert_eq!(plan.keep(layer.parse().unwrap(), dim), &Keep::Flat(indices(&kept[what])));
            compared += 1;
        }
    }
    for (layer, kept) in golden["kept"]["ffn"].as_object().unwrap() {
        assert_eq!(plan.keep(layer.parse().unwrap(), Dim::FfnHiddenSize), &Keep::Flat(indices(kept)));
        compared += 1;
    }
    assert_eq!(compared, 8);
    assert_eq!(plan.model[&Dim::HiddenSize], indices(&golden["kept"]["hidden"]));
    let rule = DepthRule::new(&desc.layers, size("layers"), &Constraints::default()).unwrap();
    let layers = rule.choose(&floats(&golden["layers"]["kld"])).unwrap();
    assert_eq!(layers, indices(&golden["kept"]["layers"]));
}
