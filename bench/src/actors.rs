//! Acting with PPO's network of CartPole (two networks of 64 x 64 tanh units): the compiled actor beside Burn's forward
//! pass of the same module.

use std::hint::black_box;

use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_agents::{ActorCritic, ActorCriticShape, Head};
use hotfire_core::seed::stream;
use hotfire_envs::{Buffer, Space};
use hotfire_nn::{Activation, InputShape, Network, Torso};

use crate::{Prepared, Workload};

const OBSERVATION: usize = 4;
const ACTIONS: i32 = 2;

fn network() -> (ActorCritic, Head) {
    let (device, mut rng) = (Device::flex(), stream(0, "bench", 0));
    let head = Head::of(&Space::discrete(ACTIONS)).expect("discrete actions have a head");
    let shape = ActorCriticShape {
        recurrent_units: None,
        hidden: &[64, 64],
        activation: Activation::Tanh,
        value_heads: 1,
        initial_log_std: 0.0,
    };
    let torso = Torso::new(Network::Mlp, InputShape::Flat(OBSERVATION), &mut rng, &device).expect("no convolution");
    (ActorCritic::new(torso, &head, shape, &mut rng, &device), head)
}

fn observations(size: usize) -> Vec<f32> {
    let mut rng = stream(1, "bench", 0);
    (0..size * OBSERVATION).map(|_| rng.normal()).collect()
}

/// Draws actions and values for `size` observations with the compiled network.
pub fn compiled(size: usize) -> Prepared {
    let (net, head) = network();
    let (mut net, x, mut rng) = (net.compile(&head), observations(size), stream(2, "bench", 0));
    let (mut actions, mut log_probs) = (Buffer::I32(vec![0; size]), vec![0.0; size]);
    Prepared::new(size, move || {
        net.sample(&x, &mut [], None, &mut rng, &mut actions, &mut log_probs);
        black_box(net.values(&x, &mut []));
    })
}

fn burn_forward(size: usize) -> Prepared {
    let (net, _) = network();
    let x = observations(size);
    Prepared::new(size, move || {
        let x = Tensor::<2>::from_data(TensorData::new(x.clone(), [size, OBSERVATION]), &Device::flex());
        let (logits, values) = net.forward(x, None);
        black_box((logits.into_data(), values.into_data()));
    })
}

/// Both, for these batch sizes.
pub fn workloads(sizes: &[usize]) -> Vec<Workload> {
    let both = |size: &usize| {
        let size = *size;
        [
            Workload::new("actor", "compiled, with drawing", "actions", move || Ok(compiled(size))).sized(size),
            Workload::new("actor", "Burn forward", "actions", move || Ok(burn_forward(size))).sized(size),
        ]
    };
    sizes.iter().flat_map(both).collect()
}
