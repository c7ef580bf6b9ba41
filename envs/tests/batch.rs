//! What every registered batch stepper promises.

use hotfire_envs::{
    Actions, BatchEnv, Buffer, Dtype, ENVS, EnvError, NpRng, ObsMut, OptionValue, Space, make, make_batch,
};

fn limit(steps: i64) -> [(String, OptionValue); 1] {
    [("max_episode_steps".to_owned(), OptionValue::Int(steps))]
}

fn row(env: &dyn BatchEnv, i: usize) -> Vec<f64> {
    (0..env.observation_len()).map(|d| env.observation_column(d).get(i)).collect()
}

fn element(buffer: &Buffer, i: usize) -> f64 {
    match buffer {
        Buffer::F32(x) => x[i].into(),
        Buffer::U8(x) => x[i].into(),
        Buffer::I32(x) => x[i].into(),
    }
}

fn batch_of(buffer: &Buffer) -> Actions<'_> {
    match buffer {
        Buffer::F32(x) => Actions::F32(x),
        Buffer::U8(x) => Actions::U8(x),
        Buffer::I32(x) => Actions::I32(x),
    }
}

/// Fills all rows with samples of a space.
fn sample(rows: &mut Buffer, space: &Space, rng: &mut NpRng) {
    let width = space.len();
    match rows {
        Buffer::F32(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::F32(r)).unwrap()),
        Buffer::U8(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::U8(r)).unwrap()),
        Buffer::I32(x) => x.chunks_mut(width).for_each(|r| space.sample_into(rng, ObsMut::I32(r)).unwrap()),
    }
}

#[test]
fn batch_steppers_repeat_with_a_seed_and_refuse_bad_batches() {
    for id in ENVS.iter().filter(|spec| spec.make_batch.is_some()).map(|spec| spec.id) {
        let env = make(id, &[]).unwrap();
        let mut batch = make_batch(id, &limit(10), 40).unwrap();
        // The observations after a reset and some steps with random actions.
        let seeded = |batch: &mut dyn BatchEnv, seed| {
            batch.reset(seed);
            let mut rng = NpRng::seed(0);
            let mut actions = Buffer::new(env.action_space(), 40);
            let mut seen = Vec::new();
            for _ in 0..25 {
                let mut rows = Buffer::new(env.observation_space(), 40);
                batch.write_observations(rows.as_mut());
                seen.push(rows);
                sample(&mut actions, env.action_space(), &mut rng);
                batch.step(batch_of(&actions)).unwrap();
            }
            seen
        };
        let first = seeded(&mut *batch, 1);
        // Nothing is random on the dry cliff.
        assert_eq!(first == seeded(&mut *batch, 2), id == "CliffWalking-v1", "{id}");
        assert!(first == seeded(&mut *batch, 1), "{id}");
        let mut rows = Buffer::new(env.observation_space(), 40);
        batch.write_observations(rows.as_mut());
        let width = batch.observation_len();
        assert_eq!(width, env.observation_space().len(), "{id}");
        for i in 0..40 {
            let expected: Vec<f64> = (i * width..(i + 1) * width).map(|k| element(&rows, k)).collect();
            assert_eq!(row(&*batch, i), expected, "{id}");
        }
        let discrete = env.action_space().dtype() == Dtype::I32;
        let len = env.action_space().len();
        let expected = format!("40 actions of {len} {}", env.action_space().dtype());
        for (actions, found) in [
            (Actions::U8(&[0; 40]), "40 uint8"),
            (if discrete { Actions::I32(&[0; 39]) } else { Actions::F32(&[0.0; 39]) }, "39 "),
        ] {
            let Err(EnvError::BadBatch { env, expected: e, found: f }) = batch.step(actions) else {
                panic!("{id}: {actions:?} was accepted")
            };
            assert_eq!((env.as_str(), e.as_str()), (id, expected.as_str()));
            assert!(f.starts_with(found), "{id}: {f}");
        }
        // One bad value in the last row but one.
        let mut actions = Buffer::new(env.action_space(), 40);
        sample(&mut actions, env.action_space(), &mut NpRng::seed(1));
        let last = 40 * len - len - 1;
        let bad: &[f64] = if discrete { &[-1.0, 1e6] } else { &[f64::NAN, f64::INFINITY, f64::NEG_INFINITY] };
        for value in bad {
            match &mut actions {
                Buffer::F32(x) => x[last] = *value as f32,
                Buffer::I32(x) => x[last] = *value as i32,
                Buffer::U8(_) => panic!("{id}: bytes"),
            }
            let error = batch.step(batch_of(&actions)).unwrap_err().to_string();
            let start = format!("{id}: action [");
            let end = format!("of environment 38 is not in {}", env.action_space());
            assert!(error.starts_with(&start) && error.ends_with(&end), "{error}");
        }
        if let Buffer::F32(x) = &mut actions {
            // Finite ones are clipped, as Gymnasium's environments do.
            x[last] = f32::MAX;
            let mut other = make_batch(id, &limit(10), 40).unwrap();
            other.step(batch_of(&actions)).unwrap();
            assert!(other.rewards().iter().all(|x| x.is_finite()), "{id}");
        }
        let mut after = Buffer::new(env.observation_space(), 40);
        batch.write_observations(after.as_mut());
        assert!(rows == after, "{id}: a refused batch has stepped");
        assert!(matches!(make_batch(id, &[], 0), Err(EnvError::BadBatch { .. })), "{id}");
        let unknown = [("no_such_option".to_owned(), OptionValue::Int(1))];
        assert!(matches!(make_batch(id, &unknown, 4), Err(EnvError::UnknownOption { .. })), "{id}");
    }
}
