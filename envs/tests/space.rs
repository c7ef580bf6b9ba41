//! Spaces against Gymnasium 1.4.0, and their laws.

mod common;

use hotfire_envs::{ActionRef, Buffer, Dtype, EnvError, NpRng, Sampler, Space, Value};
use proptest::prelude::*;

const INF: f32 = f32::INFINITY;

fn value(space: &Space, json: &serde_json::Value) -> Value {
    let list = || json.as_array().expect("a list").iter();
    match (space, space.dtype()) {
        (Space::Discrete { .. }, _) => Value::Int(json.as_i64().expect("an integer") as i32),
        (_, Dtype::F32) => Value::F32(list().map(|x| x.as_f64().expect("a number") as f32).collect()),
        (_, Dtype::U8) => Value::U8(list().map(|x| x.as_u64().expect("a bit") as u8).collect()),
        (_, Dtype::I32) => Value::I32(list().map(|x| x.as_i64().expect("an integer") as i32).collect()),
    }
}

#[test]
fn samples_equal_gymnasiums() {
    let spaces = [
        ("Discrete(6)", Space::discrete(6)),
        ("Discrete(5,start=-2)", Space::Discrete { n: 5, start: -2 }),
        ("Box(-2,2,(3,),float32)", Space::bounded([-2.0; 3], [2.0; 3], [3])),
        ("Box(-inf,inf,(3,),float32)", Space::unbounded_box([3])),
        ("Box([0,-inf],[inf,1],float32)", Space::bounded([0.0, -INF], [INF, 1.0], [2])),
        ("MultiDiscrete([5,2,9])", Space::multi_discrete([5, 2, 9])),
        ("MultiBinary(6)", Space::multi_binary([6])),
    ];
    let records = common::read_kinds("numpy_rng.jsonl", &["space_sample"]);
    assert_eq!(records.len(), 6);
    for record in &records {
        let seed: u64 = record["seed"].as_str().unwrap().parse().unwrap();
        for (name, space) in &spaces {
            let expected: Vec<_> = record[name].as_array().unwrap().iter().map(|x| value(space, x)).collect();
            let mut sampler = Sampler::new(space.clone(), seed);
            let mut rng = NpRng::seed(seed);
            for (i, expected) in expected.iter().enumerate() {
                assert_eq!(&sampler.sample(), expected, "{name}, seed {seed}, sample {i}");
                assert_eq!(&space.sample(&mut rng), expected, "{name}, seed {seed}, sample {i}");
            }
        }
    }
}

/// Values printed by Gymnasium 1.4.0 with numpy 2.4.6 after `space.seed(seed)`.
#[test]
fn nested_and_integer_samples_equal_gymnasiums() {
    let parts = vec![Space::discrete(5), Space::bounded([-1.0; 2], [1.0; 2], [2]), Space::multi_binary([3])];
    let mut sampler = Sampler::new(Space::Tuple(parts), 7);
    for (n, x, bits) in [(2, [-0.19897221, -0.25686243], [0, 1, 0]), (1, [-0.18157241, -0.5950309], [0, 1, 1])] {
        let expected = vec![Value::Int(n), Value::F32(x.into()), Value::U8(bits.into())];
        assert_eq!(sampler.sample(), Value::Tuple(expected));
    }

    let inner = Space::Tuple(vec![Space::discrete(9), Space::multi_discrete([4, 3])]);
    let position = Space::bounded([0.0; 2], [1.0; 2], [2]);
    let space = Space::dict([("pos", position), ("inner", inner), ("flag", Space::multi_binary([5]))]);
    let mut sampler = Sampler::new(space, 11);
    for (x, n, bits) in [([0.8249338, 0.39440286], 3, [0, 1, 0, 0, 0]), ([0.6488161, 0.5299076], 8, [0, 0, 0, 1, 0])] {
        let expected = vec![
            ("pos".into(), Value::F32(x.into())),
            ("inner".into(), Value::Tuple(vec![Value::Int(n), Value::I32(vec![2, 2])])),
            ("flag".into(), Value::U8(bits.into())),
        ];
        assert_eq!(sampler.sample(), Value::Dict(expected));
    }

    let mut sampler = Sampler::new(Space::boxed(vec![0.0, 10.0], vec![255.0, 20.0], vec![2], Dtype::U8), 3);
    for x in [[21, 12], [205, 16], [24, 14]] {
        assert_eq!(sampler.sample(), Value::U8(x.into()));
    }
    let (low, high) = (vec![-5.0, -INF, -3.0, -INF], vec![5.0, INF, INF, 7.0]);
    let mut sampler = Sampler::new(Space::boxed(low, high, vec![4], Dtype::I32), 3);
    for x in [[1, 2, -3, 6], [-4, -1, -3, 7], [0, -1, -3, 7]] {
        assert_eq!(sampler.sample(), Value::I32(x.into()));
    }
}

#[test]
fn text_reads_like_gymnasiums() {
    let nested = Space::Tuple(vec![
        Space::Discrete { n: 5, start: -2 },
        Space::multi_discrete([3, 4]),
        Space::multi_binary([2, 3]),
    ]);
    let cases = [
        (nested, "Tuple(Discrete(5, start=-2), MultiDiscrete([3 4]), MultiBinary((2, 3)))"),
        (Space::image([4, 4, 3]), "Box(0, 255, (4, 4, 3), uint8)"),
        (Space::bounded([-2.0], [2.0], [1]), "Box(-2.0, 2.0, (1,), float32)"),
        (Space::bounded([-1.0, -8.0], [10.0, INF], [2]), "Box([-1. -8.], [10. inf], (2,), float32)"),
        (Space::bounded([-4.8, 0.1], [0.41887903, 0.1], [2]), "Box([-4.8 0.1], [0.41887903 0.1], (2,), float32)"),
        (
            Space::dict([("pos", Space::unbounded_box([2])), ("n", Space::discrete(9))]),
            "Dict('pos': Box(-inf, inf, (2,), float32), 'n': Discrete(9))",
        ),
    ];
    for (space, text) in cases {
        assert_eq!(space.to_string(), text);
    }
}

#[test]
fn rows_are_leaves_side_by_side() {
    let integers = Space::Tuple(vec![Space::discrete(3), Space::multi_discrete([4, 5])]);
    assert_eq!((integers.len(), integers.dtype(), integers.shape()), (3, Dtype::I32, vec![3]));
    let mixed = Space::Tuple(vec![Space::discrete(3), Space::bounded([0.0; 6], [1.0; 6], [2, 3])]);
    assert_eq!((mixed.len(), mixed.dtype(), mixed.flat_len()), (7, Dtype::F32, 9));
    assert_eq!(Space::image([2, 2, 3]).shape(), [2, 2, 3]);
    assert_eq!((Space::discrete(4).len(), Space::discrete(4).shape()), (1, vec![]));

    let row = [2.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0];
    assert!(mixed.contains_action(ActionRef::F32(&row)));
    assert!(!mixed.contains_action(ActionRef::F32(&[1.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0])), "1.5 is no integer");
    assert!(!mixed.contains_action(ActionRef::F32(&[3.0, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0])), "3 is outside");
    assert!(!mixed.contains_action(ActionRef::F32(&row[1..])), "one element is missing");
    assert!(!integers.contains_action(ActionRef::F32(&[0.0; 3])), "floats are not integers");
}

#[test]
fn membership_ends_at_the_bounds() {
    let discrete = Space::Discrete { n: 3, start: -1 };
    let inside = |x| discrete.contains_action(ActionRef::I32(&[x]));
    assert_eq!([-2, -1, 0, 1, 2, i32::MIN, i32::MAX].map(inside), [false, true, true, true, false, false, false]);
    let values = [-2, -1, 1, 2].map(|x| discrete.contains(&Value::Int(x)));
    assert_eq!(values, [false, true, true, false]);
    assert!(!discrete.contains(&Value::I32(vec![0])));

    let bounded = Space::bounded([-1.0], [1.0], [1]);
    for (x, contained, accepted) in
        [(1.0, true, true), (1.1, false, true), (-1e30, false, true), (f32::NAN, false, false), (INF, false, false)]
    {
        assert_eq!(bounded.contains_action(ActionRef::F32(&[x])), contained, "{x}");
        assert_eq!(bounded.accepts_action(ActionRef::F32(&[x])), accepted, "{x}");
        assert_eq!(bounded.contains(&Value::F32(vec![x])), contained, "{x}");
    }
    assert!(!Space::unbounded_box([1]).contains(&Value::F32(vec![f32::NAN])));
    assert!(!bounded.contains(&Value::F32(vec![])));
    assert!(Space::multi_binary([2]).contains(&Value::U8(vec![0, 1])));
    assert!(!Space::multi_binary([2]).contains(&Value::U8(vec![0, 2])));

    let one = || vec![("a".to_owned(), Value::Int(0))];
    let dict = Space::dict([("a", Space::discrete(1))]);
    assert!(dict.contains(&Value::Dict(one())));
    assert!(!dict.contains(&Value::Dict(vec![("b".to_owned(), Value::Int(0))])));
    assert!(!dict.contains(&Value::Tuple(vec![Value::Int(0)])));
}

#[test]
fn flattening_is_one_hot() {
    let space = Space::Tuple(vec![
        Space::Discrete { n: 3, start: 5 },
        Space::multi_discrete([2, 3]),
        Space::bounded([0.0, 0.0], [1.0, 1.0], [2]),
    ]);
    let value = Value::Tuple(vec![Value::Int(6), Value::I32(vec![1, 2]), Value::F32(vec![0.5, 0.25])]);
    let flat = [0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.5, 0.25];
    assert_eq!(space.flatten(&value).unwrap(), flat);
    assert_eq!(space.unflatten(&flat).unwrap(), value);

    let refused = |flat: &[f32]| assert!(matches!(space.unflatten(flat), Err(EnvError::Space { .. })), "{flat:?}");
    refused(&flat[1..]);
    refused(&[0.0; 10]);
    refused(&[1.0; 10]);
    let mut outside = flat;
    outside[9] = 1.5;
    refused(&outside);
    assert!(space.flatten(&Value::Int(6)).is_err());
}

fn leaf() -> impl Strategy<Value = Space> {
    let bound = prop_oneof![3 => -1e6f32..1e6, 1 => Just(f32::INFINITY)];
    let bounds = (prop_oneof![Just(Dtype::F32), Just(Dtype::I32)], prop::collection::vec((bound, 0f32..100.0), 1..6));
    let boxed = bounds.prop_map(|(dtype, bounds)| {
        let round = |x: f32| if dtype == Dtype::I32 { x.round() } else { x };
        let low: Vec<f32> = bounds.iter().map(|(low, _)| round(if *low == INF { -INF } else { *low })).collect();
        let high = bounds.iter().zip(&low).map(|((_, w), low)| if *w > 80.0 { INF } else { low.max(-1e6) + w.round() });
        let (len, high) = (low.len(), high.collect());
        Space::boxed(low, high, vec![len], dtype)
    });
    prop_oneof![
        boxed,
        (1..40i32, -100..100i32).prop_map(|(n, start)| Space::Discrete { n, start }),
        prop::collection::vec(1..9i32, 1..5).prop_map(Space::multi_discrete),
        (1..4usize, 1..4usize).prop_map(|(a, b)| Space::multi_binary([a, b])),
        Just(Space::image([2, 3])),
    ]
}

fn space() -> impl Strategy<Value = Space> {
    leaf().prop_recursive(3, 12, 4, |inner| {
        let parts = prop::collection::vec(inner, 1..4);
        prop_oneof![
            parts.clone().prop_map(Space::Tuple),
            parts.prop_map(|parts| {
                Space::Dict(parts.into_iter().enumerate().map(|(i, part)| (format!("k{i}"), part)).collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn a_space_contains_its_samples(space in space(), seed: u64) {
        let value = space.sample(&mut NpRng::seed(seed));
        prop_assert!(space.contains(&value), "{space} does not contain {value:?}");
        let value = Sampler::new(space.clone(), seed).sample();
        prop_assert!(space.contains(&value), "{space} does not contain {value:?}");
    }

    #[test]
    fn a_sampled_row_is_a_sampled_value(space in space(), seed: u64) {
        let mut row = Buffer::new(&space, 1);
        let (mut a, mut b) = (NpRng::seed(seed), NpRng::seed(seed));
        space.sample_into(&mut a, row.as_mut()).unwrap();
        space.sample(&mut b);
        prop_assert_eq!(a, b);
        prop_assert!(space.contains_action(row.as_row()), "{space} does not contain {row:?}");
        let mut long = Buffer::new(&space, 2);
        prop_assert!(space.sample_into(&mut NpRng::seed(seed), long.as_mut()).is_err());
    }

    #[test]
    fn unflattening_undoes_flattening(space in space(), seed: u64) {
        let value = space.sample(&mut NpRng::seed(seed));
        let flat = space.flatten(&value).unwrap();
        prop_assert_eq!(flat.len(), space.flat_len());
        prop_assert_eq!(space.unflatten(&flat).unwrap(), value);
    }
}
