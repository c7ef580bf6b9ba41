//! What actor-critics that learn from a replay memory share: the critics and their gradients, the greedy actor.

use burn::module::Module;
use burn::prelude::*;
use hotfire_core::seed::StreamRng;
use hotfire_envs::Buffer;
use hotfire_nn::distributions::categorical;
use hotfire_nn::export::ExportLayer;
use hotfire_nn::{Activation, Adam, CompiledMlp, Mlp};

use crate::experience::{ActionMap, Experience, stretch};
use crate::export::{ExportExample, ExportOutput};
use crate::host_loss::{carry, to_tensor, to_vec};
use crate::observation::{EnvView, ObservationEncoder};
use crate::{Policy, PolicyExport};

/// Networks that value observations and actions, each on its own.
#[derive(Module, Debug)]
pub(crate) struct Critics {
    nets: Vec<Mlp>,
}

/// How good the critics were before a step.
pub(crate) struct CriticStep {
    /// Half the mean squared error, summed over the critics.
    pub loss: f64,
    /// Mean value that the first critic gave.
    pub value: f64,
}

impl Critics {
    /// `count` networks from observations and actions to values.
    pub fn new(
        count: usize,
        observation_len: usize,
        hidden: &[usize],
        activation: Activation,
        actions: &ActionMap,
        rng: &mut StreamRng,
        device: &Device,
    ) -> Self {
        let sizes = [&[observation_len + actions.critic_inputs()], hidden, &[actions.critic_outputs()]].concat();
        Self { nets: (0..count).map(|_| Mlp::uniform(&sizes, activation, rng, device)).collect() }
    }

    /// The least of the critics' values `[B, M]` for inputs `[B, D]`.
    pub fn least(&self, inputs: Vec<f32>, rows: usize, device: &Device) -> Vec<f32> {
        let x = to_tensor(inputs, rows, device);
        let mut values = self.nets.iter().map(|net| to_vec(net.forward(x.clone())));
        let first = values.next().expect("there is a critic");
        values.fold(first, |mut least, values| {
            least.iter_mut().zip(values).for_each(|(least, value)| *least = least.min(value));
            least
        })
    }

    /// One step of all critics towards targets `[B]` for the values of column `taken: [B]`.
    pub fn step(
        &mut self,
        optimizer: &mut Adam,
        learning_rate: f64,
        inputs: Vec<f32>,
        taken: &[usize],
        targets: &[f32],
        device: &Device,
    ) -> CriticStep {
        let rows = targets.len();
        let x = to_tensor(inputs, rows, device);
        let mut found = CriticStep { loss: 0.0, value: 0.0 };
        let losses = self.nets.iter().enumerate().map(|(c, net)| {
            let outputs = net.forward(x.clone());
            let values = to_vec(outputs.clone().inner());
            let width = values.len() / rows;
            let mut gradient = vec![0.0; values.len()];
            for (row, (column, target)) in taken.iter().zip(targets).enumerate() {
                let at = row * width + column;
                let error = values[at] - target;
                gradient[at] = error / rows as f32;
                found.loss += 0.5 * f64::from(error * error) / rows as f64;
                if c == 0 {
                    found.value += f64::from(values[at]) / rows as f64;
                }
            }
            carry(outputs, gradient, device)
        });
        let gradients = losses.reduce(|a, b| a + b).expect("there is a critic").backward();
        *self = optimizer.step(self.clone(), gradients, learning_rate).0;
        found
    }

    /// The least value `[B]` that the first `count` critics give to observations `[B, D]` and actions `[B, A]`, and its
    /// gradient `[B, A]` by the actions.
    pub fn least_and_action_gradient(
        &self,
        count: usize,
        observations: &[f32],
        actions: &[f32],
        rows: usize,
        device: &Device,
    ) -> (Vec<f32>, Vec<f32>) {
        let x = to_tensor(join(observations, actions, rows), rows, device).require_grad();
        let nets = self.clone().no_grad().nets;
        let outputs: Vec<Tensor<2>> = nets[..count].iter().map(|net| net.forward(x.clone())).collect();
        let values: Vec<Vec<f32>> = outputs.iter().map(|output| to_vec(output.clone().inner())).collect();
        let mut least = values[0].clone();
        let mut owner = vec![0; rows];
        for (c, values) in values.iter().enumerate() {
            for ((least, owner), value) in least.iter_mut().zip(&mut owner).zip(values) {
                if value < least {
                    (*least, *owner) = (*value, c);
                }
            }
        }
        let sums = outputs.into_iter().enumerate().map(|(c, output)| {
            let ones = owner.iter().map(|owner| f32::from(u8::from(*owner == c))).collect();
            carry(output, ones, device)
        });
        let gradients = sums.reduce(|a, b| a + b).expect("there is a critic").backward();
        let by_input = to_vec(x.grad(&gradients).expect("the input takes part in the values"));
        let (inputs, action_len) = (by_input.len() / rows, actions.len() / rows);
        let by_action = by_input.chunks_exact(inputs).flat_map(|row| &row[inputs - action_len..]).copied().collect();
        (least, by_action)
    }
}

/// Targets `[B]` of the critics. A terminal transition's next value does not count, whatever it is.
pub(crate) fn targets(returns: &[f32], discounts: &[f32], next_values: &[f32]) -> Vec<f32> {
    let target = |((r, discount), value): ((&f32, &f32), &f32)| if *discount > 0.0 { r + discount * value } else { *r };
    returns.iter().zip(discounts).zip(next_values).map(target).collect()
}

/// Rows of `a: [rows, A]` and `b: [rows, B]` side by side: `[rows, A + B]`.
pub(crate) fn join(a: &[f32], b: &[f32], rows: usize) -> Vec<f32> {
    let (a, b) = (a.chunks_exact(a.len() / rows), b.chunks_exact(b.len() / rows));
    a.zip(b).flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}

/// An actor that takes the best action it knows.
pub(crate) struct GreedyActor {
    net: CompiledMlp,
    encoder: ObservationEncoder,
    actions: ActionMap,
    inputs: Vec<f32>,
    scaled: Vec<f32>,
}

impl GreedyActor {
    pub fn new(actor: &Mlp, experience: &Experience) -> Self {
        Self {
            net: actor.compile(),
            encoder: experience.encoder.clone(),
            actions: experience.actions.clone(),
            inputs: Vec::new(),
            scaled: Vec::new(),
        }
    }
}

/// The squashed means `[N, A]` in outputs whose rows begin with the means.
pub(crate) fn squash(outputs: &[f32], rows: usize, action_len: usize, out: &mut Vec<f32>) {
    out.clear();
    let rows = outputs.chunks_exact(outputs.len() / rows);
    out.extend(rows.flat_map(|row| &row[..action_len]).map(|mean| mean.tanh()));
}

impl Policy for GreedyActor {
    fn act(&mut self, view: EnvView<'_>, actions: &mut Buffer) {
        let rows = view.terminated.len();
        let outputs = self.net.forward(self.encoder.input(view.observations, 0..rows, &mut self.inputs));
        match (actions, &self.actions) {
            (Buffer::F32(actions), ActionMap::Box { low, high }) => {
                squash(outputs, rows, low.len(), &mut self.scaled);
                stretch(&self.scaled, low, high, actions);
            }
            (Buffer::I32(actions), ActionMap::Discrete { n, start }) => {
                let rows = outputs.chunks_exact(*n);
                actions.iter_mut().zip(rows).for_each(|(action, row)| *action = start + categorical::mode(row));
            }
            _ => unreachable!("the buffer is made for the action space"),
        }
    }
}

/// The greedy policy of an actor, for use outside.
pub(crate) fn export(actor: &Mlp, experience: &Experience) -> PolicyExport {
    let input = experience.example();
    let mut layers = actor.export(Activation::Identity);
    let mut output = actor.compile().forward(&input).to_vec();
    let meaning = match &experience.actions {
        ActionMap::Box { low, high } => {
            let mut scaled = Vec::new();
            squash(&output, 1, low.len(), &mut scaled);
            output.truncate(low.len());
            stretch(&scaled, low, high, &mut output);
            layers.push(ExportLayer::Squash { low: low.clone(), high: high.clone() });
            ExportOutput::Actions { low: low.clone(), high: high.clone() }
        }
        ActionMap::Discrete { n, start } => ExportOutput::Logits { sizes: vec![*n], start: *start },
    };
    let example = ExportExample { input, output, states: None };
    PolicyExport { input: experience.encoder.shape(), layers, output: meaning, example }
}

/// Values `[N]` of the greedy actions for observations `[N, D]` as the environments give them.
pub(crate) fn greedy_values(
    actor: &Mlp,
    critics: &Critics,
    experience: &Experience,
    observations: &Buffer,
) -> Vec<f32> {
    let rows = observations.len() / experience.encoder.row_len();
    let mut inputs = Vec::new();
    let inputs = experience.encoder.input(observations, 0..rows, &mut inputs);
    let mut net = actor.compile();
    let outputs = net.forward(inputs);
    let critics = critics.valid();
    let device = critics.devices().remove(0);
    match &experience.actions {
        ActionMap::Box { low, .. } => {
            let mut actions = Vec::new();
            squash(outputs, rows, low.len(), &mut actions);
            critics.least(join(inputs, &actions, rows), rows, &device)
        }
        ActionMap::Discrete { n, .. } => {
            let values = critics.least(inputs.to_vec(), rows, &device);
            let rows = values.chunks_exact(*n).zip(outputs.chunks_exact(*n));
            rows.map(|(values, logits)| values[categorical::mode(logits) as usize]).collect()
        }
    }
}
