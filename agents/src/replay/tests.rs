//! Replay memories against a plain log of what was put in.

use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_core::seed::stream;
use proptest::prelude::*;

use super::*;

/// Elements of an action mask.
const MASK_LEN: usize = 3;

/// Lanes whose observations count frames, so that every element tells where it comes from.
struct Source {
    lanes: usize,
    frames: usize,
    width: usize,
    count: u8,
    stacks: Vec<Vec<u8>>,
    /// Each lane's transitions, oldest first.
    log: Vec<Vec<Logged>>,
}

#[derive(Clone)]
struct Logged {
    observation: Vec<u8>,
    action: i32,
    reward: f32,
    terminated: bool,
    truncated: bool,
    next: Vec<u8>,
}

impl Source {
    fn new(lanes: usize, frames: usize, width: usize) -> Self {
        let mut source = Self { lanes, frames, width, count: 0, stacks: Vec::new(), log: vec![Vec::new(); lanes] };
        source.stacks = (0..lanes).map(|_| source.frame().repeat(frames)).collect();
        source
    }

    fn frame(&mut self) -> Vec<u8> {
        self.count = self.count.wrapping_add(1);
        (0..self.width).map(|i| self.count.wrapping_mul(31).wrapping_add(i as u8)).collect()
    }

    fn observations(&self) -> Buffer {
        Buffer::U8(self.stacks.concat())
    }

    fn masks(&self) -> Vec<bool> {
        self.stacks.iter().flat_map(|stack| self.mask(stack)).collect()
    }

    /// The mask of a stack: bits of its newest frame.
    fn mask(&self, stack: &[u8]) -> [bool; MASK_LEN] {
        let newest = stack[stack.len() - self.width];
        std::array::from_fn(|action| newest >> action & 1 == 1)
    }

    /// Steps all lanes; `ends` says how for each.
    fn step(&mut self, replay: &mut Replay, ends: &[(bool, bool)]) {
        let mut finals = Vec::new();
        let (mut actions, mut rewards) = (Vec::new(), Vec::new());
        for lane in 0..self.lanes {
            let observation = self.stacks[lane].clone();
            let mut next = observation[self.width..].to_vec();
            next.extend(self.frame());
            let (terminated, truncated) = ends[lane];
            self.stacks[lane] = if terminated || truncated { self.frame().repeat(self.frames) } else { next.clone() };
            finals.extend(&next);
            actions.push(i32::from(self.count));
            rewards.push(f32::from(self.count) / 8.0);
            let (action, reward) = (actions[lane], rewards[lane]);
            self.log[lane].push(Logged { observation, action, reward, terminated, truncated, next });
        }
        let (terminated, truncated): (Vec<bool>, Vec<bool>) = ends.iter().copied().unzip();
        let result = StepResult {
            rewards: &rewards,
            terminated: &terminated,
            truncated: &truncated,
            observations: &self.observations(),
            final_observations: &Buffer::U8(finals),
            action_masks: Some(&self.masks()),
        };
        replay.push(&Buffer::I32(actions), result);
    }

    /// The `n`-step transition from step `t` of a lane: return, discount, next observation, and whether the episode
    /// goes on there.
    fn follow(&self, lane: usize, t: usize, n: usize, gamma: f64) -> (f32, f32, Option<&[u8]>, bool) {
        let (mut sum, mut discount) = (0.0, 1.0);
        let mut next = None;
        for step in self.log[lane][t..].iter().take(n) {
            sum += discount * f64::from(step.reward);
            discount *= gamma;
            next = Some(&step.next[..]);
            if step.terminated {
                return (sum as f32, 0.0, None, false);
            }
            if step.truncated {
                return (sum as f32, discount as f32, next, false);
            }
        }
        (sum as f32, discount as f32, next, true)
    }
}

fn config(capacity: usize, n_step: usize, frames: usize) -> ReplayConfig {
    ReplayConfig { capacity, n_step, gamma: 0.9, frames, mask_len: 0, priority_exponent: None, directory: None }
}

fn spaces(frames: usize, width: usize) -> (Space, Space) {
    (Space::image([frames, width]), Space::discrete(256))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Every transition that can be drawn equals the one of a plain log of full stacks.
    #[test]
    fn equals_a_plain_log(
        lanes in 1usize..4,
        frames in 1usize..5,
        n_step in 1usize..5,
        capacity in 1usize..40,
        prioritized in any::<bool>(),
        masked in any::<bool>(),
        ends in prop::collection::vec((0u8..8, 0u8..8), 3..180),
    ) {
        let (observations, actions) = spaces(frames, 2);
        let config = ReplayConfig {
            priority_exponent: prioritized.then_some(0.5),
            mask_len: if masked { MASK_LEN } else { 0 },
            ..config(capacity, n_step, frames)
        };
        let mut replay = Replay::new(&observations, &actions, lanes, config).unwrap();
        let mut source = Source::new(lanes, frames, 2);
        replay.begin(&source.observations(), Some(&source.masks()));
        for ends in ends.chunks_exact(lanes) {
            let ends: Vec<_> = ends.iter().map(|(a, b)| (*a == 0, *b == 0)).collect();
            source.step(&mut replay, &ends);
            let steps = source.log[0].len();
            let kept = steps.min(capacity.div_ceil(lanes));
            prop_assert_eq!(replay.len(), kept * lanes);
            for (age, lane) in (1..=kept).flat_map(|age| (0..lanes).map(move |lane| (age, lane))) {
                let index = replay.slot_before_head(age) * lanes + lane;
                let mut batch = Batch::new(&observations, &actions, 1);
                batch.indices[0] = index as u32;
                replay.gather(&mut batch);
                let logged = &source.log[lane][steps - age];
                prop_assert_eq!(batch.observations.as_u8().unwrap(), &logged.observation);
                prop_assert_eq!(batch.actions.as_i32().unwrap(), &[logged.action]);
                let (sum, discount, next, goes_on) = source.follow(lane, steps - age, n_step, 0.9);
                prop_assert_eq!((batch.returns[0], batch.discounts[0]), (sum, discount));
                if let Some(next) = next {
                    prop_assert_eq!(batch.next_observations.as_u8().unwrap(), next);
                    let mask = if goes_on { source.mask(next) } else { [true; MASK_LEN] };
                    prop_assert_eq!(&batch.next_masks[..], if masked { &mask[..] } else { &[] });
                }
                if let Some(priorities) = &replay.priorities {
                    prop_assert_eq!(priorities.tree.get(index), 1.0);
                }
            }
            if let Some(priorities) = &replay.priorities {
                prop_assert_eq!(priorities.tree.total(), replay.len() as f64, "nothing else can be drawn");
            }
            let cut = |step: &&Logged| step.truncated && !step.terminated;
            let finals: usize = source.log.iter().map(|log| log[steps - kept..].iter().filter(cut).count()).sum();
            prop_assert_eq!(replay.finals.len(), finals, "final observations go with their transitions");
        }
    }
}

/// A run that goes on without its memory is in the middle of an episode, whose stacks are not of one frame.
#[test]
fn a_memory_that_begins_amid_an_episode_knows_the_older_frames() {
    let (observations, actions) = spaces(3, 2);
    let mut source = Source::new(2, 3, 2);
    let mut replay = Replay::new(&observations, &actions, 2, config(12, 1, 3)).unwrap();
    replay.begin(&source.observations(), None);
    (0..4).for_each(|_| source.step(&mut replay, &[(false, false); 2]));
    source.log.iter_mut().for_each(Vec::clear);
    replay.begin(&source.observations(), None);
    for steps in 1..10 {
        source.step(&mut replay, &[(false, false); 2]);
        let mut batch = Batch::new(&observations, &actions, 1);
        for (age, lane) in (1..=steps.min(6)).flat_map(|age| [(age, 0), (age, 1)]) {
            batch.indices[0] = (replay.slot_before_head(age) * 2 + lane) as u32;
            replay.gather(&mut batch);
            let logged = &source.log[lane][steps - age];
            assert_eq!(batch.observations.as_u8().unwrap(), &logged.observation, "{steps} steps, {age} ago");
            assert_eq!(batch.next_observations.as_u8().unwrap(), &logged.next, "{steps} steps, {age} ago");
        }
    }
}

/// Rewards 1, 2, 3, ... in one lane, discount 0.5, 3-step returns; worked out by hand.
#[test]
fn three_step_returns_by_hand() {
    let (observations, actions) = (Space::unbounded_box([1]), Space::discrete(2));
    let mut replay = Replay::new(&observations, &actions, 1, ReplayConfig { gamma: 0.5, ..config(9, 3, 1) }).unwrap();
    replay.begin(&Buffer::F32(vec![0.0]), None);
    // Steps 0 to 5 lead to observations 1 to 6. Step 2 is truncated in 30, step 4 terminates.
    for t in 0..6 {
        let (terminated, truncated) = (t == 4, t == 2);
        replay.push(
            &Buffer::I32(vec![t % 2]),
            StepResult {
                rewards: &[(t + 1) as f32],
                terminated: &[terminated],
                truncated: &[truncated],
                observations: &Buffer::F32(vec![(t + 1) as f32]),
                final_observations: &Buffer::F32(vec![(t + 1) as f32 * 10.0]),
                action_masks: None,
            },
        );
    }
    let mut batch = Batch::new(&observations, &actions, 6);
    batch.indices = (0..6).collect();
    replay.gather(&mut batch);
    assert_eq!(batch.returns, [1.0 + 1.0 + 0.75, 2.0 + 1.5, 3.0, 4.0 + 2.5, 5.0, 6.0]);
    assert_eq!(batch.discounts, [0.125, 0.25, 0.5, 0.0, 0.0, 0.5]);
    assert_eq!(batch.next_observations.as_f32().unwrap()[..3], [30.0, 30.0, 30.0]);
    assert_eq!(batch.next_observations.as_f32().unwrap()[5], 6.0);
    assert_eq!(batch.actions.as_i32().unwrap(), [0, 1, 0, 1, 0, 1]);
}

#[test]
fn draws_follow_the_priorities_and_weights_undo_them() {
    let (observations, actions) = spaces(1, 1);
    let config = ReplayConfig { priority_exponent: Some(0.5), ..config(4, 1, 1) };
    let mut replay = Replay::new(&observations, &actions, 1, config).unwrap();
    let mut source = Source::new(1, 1, 1);
    replay.begin(&source.observations(), Some(&source.masks()));
    (0..4).for_each(|_| source.step(&mut replay, &[(false, false)]));
    replay.update_priorities(&[0, 1, 2, 3], &[1.0, -4.0, 9.0, 16.0]);
    // Priorities to the power of one half: 1, 2, 3, 4 of 10.
    let mut batch = Batch::new(&observations, &actions, 10);
    let mut rng = stream(1, "test", 0);
    let mut counts = [0; 4];
    for _ in 0..1000 {
        replay.sample(&mut rng, 1.0, &mut batch);
        batch.indices.iter().for_each(|index| counts[*index as usize] += 1);
        for (index, weight) in batch.indices.iter().zip(&batch.weights) {
            let want = 1.0 / (*index as f32 + 1.0);
            assert!((weight - want).abs() < 1e-4, "weights over the largest, that of index 0");
        }
    }
    // Ten equal shares fit these priorities exactly, up to the floor.
    for (count, want) in counts.iter().zip([1000i32, 2000, 3000, 4000]) {
        assert!((count - want).abs() < 5, "{counts:?}");
    }
    replay.sample(&mut rng, 0.0, &mut batch);
    assert_eq!(batch.weights, [1.0; 10]);
    source.step(&mut replay, &[(false, false)]);
    let tree = &replay.priorities.as_ref().unwrap().tree;
    assert!((tree.get(4) - 4.0).abs() < 1e-6, "a new transition gets the largest priority");
    assert_eq!(tree.get(0), 0.0, "the oldest is gone");
}

#[test]
fn a_loaded_memory_goes_on_like_the_saved_one() {
    let dir = tempfile::tempdir().unwrap();
    let (observations, actions) = spaces(3, 2);
    for (step, mapped) in [(1, false), (2, true)] {
        let crowded = config(22, 2, 3);
        let config = ReplayConfig {
            priority_exponent: Some(0.6),
            mask_len: MASK_LEN,
            directory: mapped.then(|| dir.path().to_path_buf()),
            ..config(20, 2, 3)
        };
        let make = || Replay::new(&observations, &actions, 2, config.clone()).unwrap();
        let (mut replay, mut source) = (make(), Source::new(2, 3, 2));
        replay.begin(&source.observations(), Some(&source.masks()));
        let ends = |t: usize| [(t % 7 == 6, false), (false, t % 5 == 4)];
        (0..17).for_each(|t| source.step(&mut replay, &ends(t)));
        replay.update_priorities(&[5, 9], &[0.5, 3.0]);
        let mut writer = CheckpointWriter::create(dir.path(), step).unwrap();
        replay.save(&mut writer).unwrap();
        let path = writer.commit().unwrap();
        let reader = CheckpointReader::open(&path).unwrap();
        let mut loaded = make();
        loaded.load(&reader).unwrap();
        let (mut rng, mut same_rng) = (stream(2, "test", 0), stream(2, "test", 0));
        for t in 17..40 {
            let mut other = Source { log: source.log.clone(), stacks: source.stacks.clone(), ..source };
            source.step(&mut replay, &ends(t));
            other.step(&mut loaded, &ends(t));
            let (mut a, mut b) = (Batch::new(&observations, &actions, 8), Batch::new(&observations, &actions, 8));
            replay.sample(&mut rng, 0.5, &mut a);
            loaded.sample(&mut same_rng, 0.5, &mut b);
            assert_eq!(format!("{a:?}"), format!("{b:?}"));
        }
        let mut other = Replay::new(&observations, &actions, 2, crowded).unwrap();
        assert!(other.load(&reader).unwrap_err().to_string().contains("expected a replay memory like"));
    }
}
