//! The search space of Minitron-SSM (arXiv:2504.11409), enumerated: every row of its table 1 is a point of it, with the
//! number of parameters that the paper's architecture has.

use minic_compiler::check::{Counts, LayerRules, Outline, counts_of};
use minic_compiler::dim::Dim;
use minic_compiler::hir::{Quantity, Require};
use minic_compiler::model::ModelDesc;
use minic_compiler::space::Space;
use minic_compiler::{config, families};
use minic_grammar::Span;
use std::collections::BTreeMap;

/// A row of table 1 with all 52 layers: embedding channels, neurons, heads, channels of a head; and its parameters,
/// by hand, from d = heads x channels:
///
/// - a Mamba2 layer: e (2 d + 2 x 8 x 128 + heads) + d e + 5 (d + 2 x 8 x 128) + 3 heads + d + e,
/// - a feed-forward layer: 2 e f + e, an attention layer: 48 x 128 e + 32 x 128 e + e,
/// - 24, 24 and 4 of them, and 2 x 131072 e + e for embedding, head and last norm.
const WHOLE: [([usize; 4], u64); 17] = [
    ([3072, 12288, 112, 64], 4_489_223_040),
    ([3072, 10752, 128, 64], 4_490_551_296),
    ([3328, 9984, 112, 64], 4_495_167_616),
    ([3072, 12288, 112, 60], 4_390_068_096),
    ([3072, 12288, 120, 56], 4_390_658_496),
    ([3072, 13056, 112, 56], 4_404_159_360),
    ([3072, 11520, 112, 64], 4_375_976_832),
    ([3072, 13056, 96, 64], 4_374_648_576),
    ([3072, 13824, 128, 48], 4_490_256_384),
    ([3072, 12288, 104, 62], 4_329_276_480),
    ([3072, 13056, 104, 60], 4_396_486_464),
    ([3072, 13056, 96, 62], 4_332_153_600),
    ([3072, 14592, 96, 56], 4_431_161_088),
    ([3072, 13824, 96, 58], 4_360_409_856),
    ([3072, 11520, 128, 56], 4_377_157_632),
    ([3072, 16128, 64, 64], 4_371_992_064),
    ([4096, 21504, 128, 64], 8_100_852_736),
];

/// A row with fewer layers: their number, the sizes; the fewest and the most parameters that some choice of layers
/// with at least one attention layer has, by hand as above; and billions, to a hundredth, with the layers that figure 4
/// ranks last left out.
const SHALLOW: [(usize, [usize; 4], [u64; 2], f64); 9] = [
    (44, [3072, 14592, 128, 64], [4_339_531_776, 4_551_176_320], 4.43),
    (44, [3584, 10752, 120, 64], [4_382_608_512, 4_610_373_568], 4.48),
    (48, [3072, 12288, 128, 64], [4_388_063_744, 4_547_162_112], 4.44),
    (48, [3328, 9984, 128, 64], [4_385_585_920, 4_573_257_984], 4.44),
    (44, [3328, 11648, 128, 64], [4_295_024_896, 4_517_866_752], 4.39),
    (48, [3072, 13824, 112, 64], [4_375_964_544, 4_548_581_936], 4.47),
    (48, [3328, 11648, 112, 64], [4_445_738_816, 4_581_203_072], 4.49),
    (26, [4096, 21504, 128, 64], [3_653_615_872, 5_453_289_856], 4.52),
    (36, [4096, 21504, 128, 64], [5_282_214_912, 6_549_690_496], 6.08),
];

/// Figure 4, in thousandths of a nat: what the logits of the 8B lose without each of its layers. What lies beyond its
/// scale is written as 400.
const LOST: [u32; 52] = [
    400, 159, 93, 70, 146, 89, 181, 21, 41, 36, 48, 46, 43, 55, 58, 75, 46, 59, 65, 40, 25, 32, 23, 28, 27,
    32, 30, 45, 54, 105, 51, 40, 49, 40, 50, 37, 62, 44, 68, 72, 84, 64, 38, 57, 37, 55, 51, 58, 146, 88,
    400, 194,
];

fn parent() -> ModelDesc {
    let text = include_str!("configs/Nemotron-H-8B-Base-8K.json");
    families::describe(&config::parse(text).expect("a config")).expect("a model")
}

/// The published ranges, on the coarsest grid that holds all rows.
fn space(parent: &Outline) -> Space {
    let axes = vec![
        (Dim::NumLayers, vec![26, 36, 40, 44, 48, 52]),
        (Dim::MambaHeadDim, (32..=64).step_by(2).collect()),
        (Dim::MambaNumHeads, (64..=128).step_by(8).collect()),
        (Dim::FfnHiddenSize, (9984..=21504).step_by(128).collect()),
        (Dim::HiddenSize, (3072..=4096).step_by(256).collect()),
    ];
    Space::new(parent, axes, &LayerRules::default())
}

fn sizes(layers: usize, [hidden, ffn, heads, channels]: [usize; 4]) -> BTreeMap<Dim, usize> {
    [
        (Dim::NumLayers, layers),
        (Dim::MambaHeadDim, channels),
        (Dim::MambaNumHeads, heads),
        (Dim::FfnHiddenSize, ffn),
        (Dim::HiddenSize, hidden),
    ]
    .into()
}

fn params(lo: u64, hi: u64) -> [Require; 1] {
    [Require { quantity: Quantity::Params, lo: lo as f64, hi: hi as f64, span: Span::default() }]
}

/// The layers that are left where those that figure 4 ranks last go.
fn ranked(parent: &ModelDesc, layers: usize) -> Counts {
    let mut order: Vec<usize> = (0..52).collect();
    order.sort_by_key(|layer| std::cmp::Reverse(LOST[*layer]));
    counts_of(order[..layers].iter().map(|layer| &parent.layers[*layer]))
}

#[test]
fn every_row_of_the_table_is_a_point_with_the_parameters_of_its_architecture() {
    let desc = parent();
    let outline = Outline::of(desc.clone());
    let space = space(&outline);
    assert_eq!(space.len(), 6 * 17 * 9 * 91 * 5);
    let budget = space.feasible(&params(4_290_000_000, 4_620_000_000));
    assert_eq!(budget.legal, space.len());
    let holds = |points: &[u64], sizes: &BTreeMap<Dim, usize>| {
        points.iter().any(|point| space.sizes(*point) == *sizes)
    };
    // A space of the row alone, judged by what it must have and no parameter more or less.
    let row = |layers: usize, widths: [usize; 4]| {
        let axes = sizes(layers, widths).into_iter().map(|(dim, size)| (dim, vec![size])).collect();
        Space::new(&outline, axes, &LayerRules::default())
    };
    for (widths, expected) in WHOLE {
        let found = row(52, widths).feasible(&params(expected, expected));
        assert_eq!((found.points.len(), found.certain), (1, 1), "{widths:?}");
        let cut = desc.resized(&sizes(52, widths), &(0..52).collect::<Vec<_>>());
        assert_eq!(cut.params(), expected, "{widths:?}");
        assert_eq!(holds(&budget.points, &sizes(52, widths)), expected < 5_000_000_000, "{widths:?}");
    }
    for (layers, widths, [least, most], published) in SHALLOW {
        let row = row(layers, widths);
        assert_eq!(row.feasible(&params(least, most)).certain, 1, "{layers} {widths:?}");
        for end in [params(least, least), params(most, most)] {
            let found = row.feasible(&end);
            assert_eq!((found.points.len(), found.certain), (1, 0), "{layers} {widths:?}");
        }
        // What the figure's axis leaves open is worth a hundredth of a billion.
        let near = params((published * 1e9) as u64 - 10_000_000, (published * 1e9) as u64 + 10_000_000);
        let survivors = |total| ranked(&desc, total);
        assert_eq!(row.feasible_exact(&near, survivors).certain, 1, "{layers} {widths:?}");
        assert_eq!(
            holds(&budget.points, &sizes(layers, widths)),
            least < 5_000_000_000,
            "{layers} {widths:?}"
        );
    }
}

/// "Over a hundred candidate architectures meet the parameter constraints": many more on this grid.
#[test]
fn the_space_of_the_papers_ranges_is_enumerated() {
    let desc = parent();
    let space = space(&Outline::of(desc.clone()));
    let budget = params(4_329_276_480, 4_495_167_616);
    let (open, known) =
        (space.feasible(&budget), space.feasible_exact(&budget, |total| ranked(&desc, total)));
    assert!(known.points.len() > 100 && known.points.len() < open.points.len());
    assert_eq!(known.certain, known.points.len() as u64);
    assert!(open.certain <= known.certain, "{} {}", open.certain, known.certain);
    // One in a thousand, by the family's formula for the whole model.
    for point in (0..space.len()).step_by(997) {
        let sizes = space.sizes(point);
        let mut order: Vec<usize> = (0..52).collect();
        order.sort_by_key(|layer| std::cmp::Reverse(LOST[*layer]));
        let model = desc.resized(&sizes, &order[..sizes[&Dim::NumLayers]]);
        let meets = (4_329_276_480..=4_495_167_616).contains(&model.params());
        assert_eq!(known.points.binary_search(&point).is_ok(), meets, "{sizes:?}");
    }
}
