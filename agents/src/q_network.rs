//! Networks that estimate a value for each action, as a Burn module for learning and compiled for acting.

use burn::prelude::*;
use hotfire_core::seed::StreamRng;
use hotfire_envs::Buffer;
use hotfire_nn::export::ExportLayer;
use hotfire_nn::ops::mlp;
use hotfire_nn::{Activation, CompiledMlp, CompiledTorso, InputShape, Mlp, Network, Noise, NoisyMlp, Torso};

use crate::export::{ExportExample, ExportOutput};
use crate::observation::{EnvView, ObservationEncoder};
use crate::q_head::{QHead, best_action, best_actions};
use crate::{Policy, PolicyExport};

/// Shape of a [`QNetwork`].
#[derive(Clone, Debug)]
pub struct QNetworkConfig<'a> {
    /// Shape of an encoded observation.
    pub input: InputShape,
    /// What looks at it first.
    pub network: Network,
    /// Number of actions `A`.
    pub num_actions: usize,
    /// Outputs `M` for each action.
    pub width: usize,
    /// Widths of the hidden layers after the torso. Streams and noise begin after the last but one.
    pub hidden: &'a [usize],
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Whether value and advantage are separate streams.
    pub dueling: bool,
    /// The initial scale of the noise in the last two layers; `None` for none.
    pub noise: Option<f64>,
    /// Whether hidden layers are normalised; not with `dueling` or `noise`.
    pub layer_norm: bool,
}

/// A torso for images, dense layers, then one stream of two layers for the actions' outputs, or two: of the value and of the advantages, as
/// in Wang et al. 2016, "Dueling network architectures", <https://arxiv.org/abs/1511.06581>, equation 9.
#[derive(Module, Debug)]
pub struct QNetwork {
    torso: Torso,
    /// The layers that the streams share; none for a single hidden layer.
    shared: Mlp,
    /// `[N, H]` to advantages, or plain outputs, `[N, A M]`.
    advantage: NoisyMlp,
    /// `[N, H]` to values `[N, M]`.
    value: Option<NoisyMlp>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    num_actions: usize,
}

/// Noise for the streams of a [`QNetwork`].
#[derive(Clone, Debug)]
pub struct QNoise {
    advantage: Noise,
    value: Option<Noise>,
}

impl QNetwork {
    /// Dense layers with PyTorch's default initialisation.
    ///
    /// # Errors
    /// If the torso can't look at such an input.
    pub fn new(config: &QNetworkConfig<'_>, rng: &mut StreamRng, device: &Device) -> Result<Self, String> {
        let torso = Torso::new(config.network, config.input, rng, device)?;
        let split = if config.layer_norm { 0 } else { config.hidden.len().saturating_sub(1) };
        let (shared, own) = config.hidden.split_at(split);
        let shared = [&[torso.features()], shared].concat();
        let inputs = shared[shared.len() - 1];
        let activation = config.activation;
        let stream = |outputs: usize, rng: &mut StreamRng| {
            let sizes = [&[inputs], own, &[outputs]].concat();
            match config.noise {
                Some(std) => NoisyMlp::noisy(&sizes, activation, std, rng, device),
                None => NoisyMlp::plain(&sizes, activation, rng, device),
            }
        };
        let shared = Mlp::uniform(&shared, activation, rng, device);
        let advantage = stream(config.num_actions * config.width, rng);
        Ok(Self {
            torso,
            shared,
            advantage: if config.layer_norm { advantage.with_layer_norm() } else { advantage },
            value: config.dueling.then(|| stream(config.width, rng)),
            activation,
            num_actions: config.num_actions,
        })
    }

    /// Draws noise; nothing for a network without.
    pub fn draw_noise(&self, rng: &mut StreamRng, device: &Device) -> QNoise {
        QNoise {
            advantage: self.advantage.draw(rng, device),
            value: self.value.as_ref().map(|value| value.draw(rng, device)),
        }
    }

    /// Outputs `[N, A M]` for encoded observations `[N, D]`, under this noise or under none.
    pub fn forward(&self, x: Tensor<2>, noise: Option<&QNoise>) -> Tensor<2> {
        let x = self.torso.forward(x);
        if self.advantage.is_normalized() {
            return self.advantage.forward(x, None);
        }
        let mut shared = self.shared.layers(self.activation);
        let advantage = self.advantage.layers(noise.map(|noise| &noise.advantage));
        let Some(value) = &self.value else {
            shared.extend(advantage);
            return mlp(x, shared);
        };
        let x = if shared.is_empty() { x } else { mlp(x, shared) };
        let value = value.forward(x.clone(), noise.and_then(|noise| noise.value.as_ref()));
        let [n, m] = value.dims();
        let advantage: Tensor<3> = mlp(x, advantage).reshape([n, self.num_actions, m]);
        let advantage = advantage.clone() - advantage.mean_dim(1);
        (value.reshape([n, 1, m]) + advantage).reshape([n, self.num_actions * m])
    }

    /// A snapshot for acting, under this noise or under none.
    pub fn compile(&self, head: &QHead, noise: Option<&QNoise>) -> CompiledQNetwork {
        let shared = self.shared.layers(self.activation);
        CompiledQNetwork {
            torso: self.torso.compile(),
            shared: (!shared.is_empty()).then(|| CompiledMlp::new(shared)),
            advantage: self.advantage.compile(noise.map(|noise| &noise.advantage)),
            value: self.value.as_ref().map(|value| value.compile(noise.and_then(|noise| noise.value.as_ref()))),
            head: head.clone(),
            num_actions: self.num_actions,
            outputs: Vec::new(),
            q: Vec::new(),
        }
    }

    /// The layers from an encoded observation to values `[N, A]`, without noise, for use outside.
    pub fn export(&self, head: &QHead) -> Vec<ExportLayer> {
        let mut layers = self.torso.export();
        layers.extend(self.shared.export(self.activation));
        let advantage = self.advantage.export(Activation::Identity);
        match &self.value {
            None => layers.extend(advantage),
            Some(value) => layers.push(ExportLayer::Dueling {
                value: value.export(Activation::Identity),
                advantage,
                actions: self.num_actions,
            }),
        }
        match head {
            QHead::Value(_) => {}
            QHead::Categorical(atoms) => {
                layers.push(ExportLayer::Expectation { values: atoms.clone(), softmax: true });
            }
            QHead::Quantiles(count) => {
                let values = vec![1.0 / *count as f32; *count];
                layers.push(ExportLayer::Expectation { values, softmax: false });
            }
        }
        layers
    }

    /// Mean size of the noise scales; `None` without noise.
    pub fn mean_noise_scale(&self) -> Option<f64> {
        self.advantage.mean_scale()
    }
}

/// A [`QNetwork`] as plain matrices.
#[derive(Clone, Debug)]
pub struct CompiledQNetwork {
    torso: CompiledTorso,
    shared: Option<CompiledMlp>,
    advantage: CompiledMlp,
    value: Option<CompiledMlp>,
    head: QHead,
    num_actions: usize,
    outputs: Vec<f32>,
    q: Vec<f32>,
}

impl CompiledQNetwork {
    /// Expected returns `[N, A]` for encoded observations `[N, D]`; valid until the next call.
    pub fn q_values(&mut self, observations: &[f32]) -> &[f32] {
        let mut features = self.torso.forward(observations);
        if let Some(shared) = &mut self.shared {
            features = shared.forward(features);
        }
        let advantage = self.advantage.forward(features);
        let outputs = match &mut self.value {
            None => advantage,
            Some(value) => {
                let value = value.forward(features);
                self.outputs.resize(advantage.len(), 0.0);
                duel(value, advantage, self.head.width(), self.num_actions, &mut self.outputs);
                &self.outputs
            }
        };
        self.q.resize(outputs.len() / self.head.width(), 0.0);
        self.head.q_values(outputs, &mut self.q);
        &self.q
    }
}

/// `value + advantage - mean advantage`, for values `[N, M]` and advantages `[N, A, M]`.
fn duel(value: &[f32], advantage: &[f32], m: usize, num_actions: usize, out: &mut [f32]) {
    let rows = value.chunks_exact(m).zip(advantage.chunks_exact(num_actions * m));
    for ((value, advantage), out) in rows.zip(out.chunks_exact_mut(num_actions * m)) {
        for j in 0..m {
            let mean = advantage.iter().skip(j).step_by(m).sum::<f32>() / num_actions as f32;
            for a in 0..num_actions {
                out[a * m + j] = value[j] + advantage[a * m + j] - mean;
            }
        }
    }
}

/// The greedy policy of a network for use outside; `input` is an encoded observation.
pub(crate) fn export(net: &QNetwork, head: &QHead, shape: InputShape, input: Vec<f32>, start: i32) -> PolicyExport {
    let output = net.compile(head, None).q_values(&input).to_vec();
    PolicyExport {
        input: shape,
        layers: net.export(head),
        output: ExportOutput::Values { actions: output.len(), start },
        example: ExportExample { input, output, states: None },
    }
}

/// Takes the action of the largest value.
#[derive(Clone, Debug)]
pub(crate) struct GreedyQ {
    pub net: CompiledQNetwork,
    pub encoder: ObservationEncoder,
    /// The least action.
    pub start: i32,
}

impl Policy for GreedyQ {
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer) {
        let Buffer::I32(actions) = actions else { unreachable!("the buffer is made for a Discrete space") };
        let mut scratch = Vec::new();
        let input = self.encoder.input(view.observations, 0..actions.len(), &mut scratch);
        let num_actions = self.net.num_actions;
        let best = best_actions(self.net.q_values(input), num_actions, view.action_masks);
        actions.iter_mut().zip(best).for_each(|(action, best)| *action = self.start + best as i32);
    }
}

impl GreedyQ {
    /// The largest value at each of the observations `[N, D]`.
    pub fn state_values(&mut self, observations: &Buffer) -> Vec<f32> {
        let rows = observations.as_row().len() / self.encoder.row_len();
        let mut scratch = Vec::new();
        let input = self.encoder.input(observations, 0..rows, &mut scratch);
        let num_actions = self.net.num_actions;
        self.net.q_values(input).chunks_exact(num_actions).map(|q| q[best_action(q)]).collect()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;
    use hotfire_core::seed::stream;

    use super::*;
    use crate::q_head::ErrorLoss;

    /// For every combination of streams, noise, depth and head.
    #[test]
    fn the_compiled_network_equals_the_module() {
        let device = Device::flex();
        let mut rng = stream(1, "test", 0);
        let heads = [QHead::Value(ErrorLoss::Huber), QHead::categorical(5, -1.0, 1.0), QHead::Quantiles(3)];
        for head in &heads {
            for (dueling, noise, hidden) in [
                (false, None, &[16, 8][..]),
                (true, None, &[16, 16, 8]),
                (true, Some(0.5), &[8]),
                (false, Some(0.5), &[]),
            ] {
                let config = QNetworkConfig {
                    input: InputShape::Flat(4),
                    network: Network::Auto,
                    num_actions: 3,
                    width: head.width(),
                    hidden,
                    activation: Activation::Relu,
                    dueling,
                    noise,
                    layer_norm: !dueling && noise.is_none(),
                };
                let net = QNetwork::new(&config, &mut rng, &device).unwrap();
                let noise = net.draw_noise(&mut rng, &device);
                for noise in [None, Some(&noise)] {
                    let x = Tensor::<2>::random([7, 4], Distribution::Normal(0.0, 1.0), &device);
                    let outputs: Vec<f32> = net.forward(x.clone(), noise).into_data().try_to_vec().unwrap();
                    let mut want = vec![0.0; 21];
                    head.q_values(&outputs, &mut want);
                    let x: Vec<f32> = x.into_data().try_to_vec().unwrap();
                    let mut compiled = net.compile(head, noise);
                    let found = compiled.q_values(&x);
                    assert_eq!(found.len(), 21);
                    let near = want.iter().zip(found).all(|(a, b)| (a - b).abs() < 5e-6);
                    assert!(near, "{head:?} {config:?}: {want:?} {found:?}");
                }
            }
        }
    }

    #[test]
    fn advantages_have_mean_zero() {
        let mut out = [0.0; 4];
        // Two outputs for each of two actions: means of (1, 3) and (10, 20).
        duel(&[100.0, 200.0], &[1.0, 10.0, 3.0, 20.0], 2, 2, &mut out);
        assert_eq!(out, [99.0, 195.0, 101.0, 205.0]);
    }
}
