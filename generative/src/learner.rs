//! What the trainers share: a network with its optimizer and its step, saved and restored as one.

use burn::module::Module;
use burn::prelude::*;
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use hotfire_nn::{Adam, AdamConfig};
use serde::{Deserialize, Serialize};

/// A network in training.
#[derive(Clone, Debug)]
pub(crate) struct Learner<M> {
    /// The network; it is away only during an update, which can so change its numbers in place.
    net: Option<M>,
    /// Updates done.
    pub step: u64,
    /// What the files of a checkpoint begin with.
    name: &'static str,
    optimizer: Adam,
}

/// What a checkpoint holds besides network and moments.
#[derive(Serialize, Deserialize)]
struct State {
    step: u64,
    optimizer_steps: u64,
}

impl<M: Module> Learner<M> {
    /// A network before its first update. `name` tells its files from those of other networks of the model.
    pub fn new(name: &'static str, net: M, optimizer: AdamConfig) -> Self {
        Self { net: Some(net), step: 0, name, optimizer: Adam::new(optimizer) }
    }

    /// The network, on an autodiff device.
    pub fn net(&self) -> &M {
        self.net.as_ref().expect("the network is away only during an update")
    }

    /// One update against the gradient of `loss`; returns the loss and the gradient's norm.
    pub fn descend(&mut self, loss: Tensor<1>, learning_rate: f64) -> (f64, f64) {
        let value = f64::from(loss.clone().into_scalar::<f32>());
        let gradients = loss.backward();
        let net = self.net.take().expect("the network is away only during an update");
        let (net, norm) = self.optimizer.step(net, gradients, learning_rate);
        self.net = Some(net);
        self.step += 1;
        (value, norm)
    }

    /// Writes network, moments and step.
    pub fn save(&self, to: &mut CheckpointWriter) -> Result<(), CoreError> {
        to.module(&format!("{}.safetensors", self.name), self.net())?;
        let optimizer_steps = self.optimizer.save(to, &format!("{}-optimizer.safetensors", self.name), self.net())?;
        to.json(&format!("{}.json", self.name), &State { step: self.step, optimizer_steps })
    }

    /// Restores what [`save`](Self::save) wrote; on an error nothing has changed.
    pub fn load(&mut self, from: &CheckpointReader) -> Result<(), CoreError> {
        let state: State = from.json(&format!("{}.json", self.name))?;
        let net = from.module(&format!("{}.safetensors", self.name), self.net().clone())?;
        let moments = format!("{}-optimizer.safetensors", self.name);
        self.optimizer.restore(from, &moments, &net, state.optimizer_steps)?;
        self.net = Some(net);
        self.step = state.step;
        Ok(())
    }
}
