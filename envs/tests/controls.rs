//! Every registered environment can be played with the keyboard, and foreign ones mostly.

use hotfire_envs::{
    Actions, AutoresetMode, ENVS, EnvError, Key, Keymap, OptionValue, Space, VecEnv, make, make_wrapped, spec,
};

const ALL: [Key; 5] = [Key::Left, Key::Right, Key::Up, Key::Down, Key::Space];

#[test]
fn registered_keys_give_actions_of_the_space() {
    for spec in ENVS {
        assert!(!spec.controls.is_empty(), "{} registers no keys", spec.id);
        let mut used = Vec::new();
        // The options that choose other actions, where an environment has them.
        for option in
            [None, Some(("continuous", false)), Some(("continuous", true)), Some(("use_minimal_action_set", false))]
        {
            let given: Vec<_> = option.map(|(name, x)| (name.to_owned(), OptionValue::Bool(x))).into_iter().collect();
            let Ok(env) = make(spec.id, &given) else { continue };
            let space = env.action_space();
            let keymap = Keymap::new(spec, space).unwrap();
            let keys: Vec<_> = keymap.keys().map(|(key, _)| key).collect();
            for (i, key) in keys.iter().enumerate() {
                assert!(!keys[..i].contains(key), "{}: {key} is there twice", spec.id);
                assert!(![Key::Char('r'), Key::Char('q')].contains(key), "{}: {key} is the program's", spec.id);
                let action = keymap.action(&[*key]).unwrap();
                assert!(space.contains_action(action.as_row()), "{}: {key} gives {action:?}", spec.id);
                assert_ne!(Some(action), keymap.action(&[]), "{}: {key} does nothing", spec.id);
            }
            if let Some(idle) = keymap.action(&[]) {
                assert!(space.contains_action(idle.as_row()), "{}: {idle:?}", spec.id);
            }
            let default = |what: &str| what.starts_with("action ") || what.starts_with("element ");
            assert!(!keymap.keys().any(|(_, what)| default(what)), "{} has no keys for {space}", spec.id);
            used.push(space.to_string());
        }
        used.sort();
        used.dedup();
        assert!(used.len() >= spec.controls.len(), "{} registers keys that fit none of its spaces", spec.id);
    }
}

#[test]
fn other_spaces_get_a_default() {
    let spec = spec("CartPole-v1").unwrap();
    let five = Keymap::new(spec, &Space::discrete(5)).unwrap();
    assert!(five.waits() && five.action(&[]).is_none() && five.action(&ALL).is_none());
    assert_eq!(five.action(&[Key::Char('4')]).unwrap().as_i32(), Some(&[4][..]));
    assert!(five.conflict(Key::Char('0'), Key::Char('4')) && !five.contains(Key::Char('5')));
    let pair = Keymap::new(spec, &Space::bounded([0.5, f32::NEG_INFINITY], [2.0, f32::INFINITY], [2])).unwrap();
    assert_eq!(pair.action(&[]).unwrap().as_f32(), Some(&[0.5, 0.0][..]));
    assert_eq!(pair.action(&[Key::Char('w'), Key::Char('d')]).unwrap().as_f32(), Some(&[2.0, -1.0][..]));
    assert!(!pair.conflict(Key::Char('w'), Key::Char('d')) && pair.conflict(Key::Char('w'), Key::Char('s')));
    let wrapped = [("discretize_action".to_owned(), vec![("bins".to_owned(), OptionValue::Int(7))])];
    let wrapped = make_wrapped("Pendulum-v1", &[], &wrapped).unwrap();
    assert_eq!(Keymap::new(spec, wrapped.action_space()).unwrap().keys().count(), 7);
    for (space, expected) in [
        (Space::discrete(99), "CartPole-v1: the keyboard plays at most 34 actions, found Discrete(99)"),
        (Space::unbounded_box([3, 4]), "CartPole-v1: the keyboard plays at most 8 elements, found Box"),
        (Space::multi_discrete([2, 3]), "CartPole-v1: the keyboard plays a `Discrete` or a `Box`, found Multi"),
    ] {
        let error = Keymap::new(spec, &space).unwrap_err();
        assert!(matches!(error, EnvError::Keys { .. }) && error.to_string().starts_with(expected), "{error}");
    }
}

/// An arrow to the left moves, turns or drifts to the left.
#[test]
fn arrows_point_where_they_should() {
    // Element of the observation that grows to the right, or towards the left.
    for (id, element, sign, steps) in [
        ("CartPole-v1", 0, 1.0, 8),
        ("MountainCar-v0", 0, 1.0, 10),
        ("MountainCarContinuous-v0", 0, 1.0, 10),
        ("LunarLander-v3", 4, -1.0, 25),
        ("LunarLanderContinuous-v3", 4, -1.0, 25),
        ("Rocket-v0", 6, -1.0, 15),
    ] {
        let after = |key: Key| {
            let mut envs = VecEnv::make(id, 1, AutoresetMode::SameStep).unwrap();
            let keymap = Keymap::new(spec(id).unwrap(), envs.action_space()).unwrap();
            // The rocket turns by its engine alone.
            let held: &[Key] = if id == "Rocket-v0" { &[Key::Up, key] } else { &[key] };
            let action = keymap.action(held).unwrap();
            envs.reset(5);
            for _ in 0..steps {
                let action = action.as_i32().map_or_else(|| Actions::F32(action.as_f32().unwrap()), Actions::I32);
                envs.step(action).unwrap();
            }
            sign * envs.observations_f32()[element]
        };
        assert!(after(Key::Left) < after(Key::Right), "{id}: {} {}", after(Key::Left), after(Key::Right));
    }
}
