//! Adam over a whole module, with global-norm clipping.
//!
//! Kingma & Ba 2015, <https://arxiv.org/abs/1412.6980>; decoupled weight decay as in Loshchilov & Hutter 2019,
//! <https://arxiv.org/abs/1711.05101>. Two departures from Burn's own optimizer, both for speed and exact repeats:
//! the moments lie in the order in which the module shows its parameters, so a saved state holds no random parameter
//! ids, and on the CPU a parameter's step is one pass over memory instead of a dozen tensor ops.

use std::collections::HashMap;

use burn::backend::Flex;
use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::{Gradients, TensorData};
use hotfire_core::CoreError;
use hotfire_core::checkpoint::{CheckpointReader, CheckpointWriter};
use rayon::prelude::*;

use crate::ops::host;
use crate::ops::kernel::{AdamScalars, adam_step, sum_of_squares};

/// Elements of one unit of parallel work: a small parameter is stepped on one thread.
const BLOCK: usize = 1 << 14;

/// Settings of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// Decay of the first moment.
    pub beta_1: f64,
    /// Decay of the second moment.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Decoupled weight decay, as a rate times the learning rate.
    pub weight_decay: f64,
    /// Whether only matrices decay, not vectors (biases, gains of normalisations).
    pub decay_matrices_only: bool,
    /// Largest global gradient norm; longer gradients are scaled down to it.
    pub max_grad_norm: Option<f64>,
    /// Whether steps are rectified while the second moment is not yet to be trusted: RAdam, Liu et al. 2020,
    /// <https://arxiv.org/abs/1908.03265>, algorithm 2.
    pub rectified: bool,
}

impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            beta_1: 0.9,
            beta_2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            decay_matrices_only: false,
            max_grad_norm: None,
            rectified: false,
        }
    }
}

/// The optimizer and its state for one module.
#[derive(Clone, Debug)]
pub struct Adam {
    config: AdamConfig,
    steps: u64,
    moments: Vec<Moments>,
}

/// First and second moment of one parameter, flattened: on the CPU in host memory, else as tensors.
// One value a parameter: the size of the larger variant does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug)]
enum Moments {
    Host { first: Vec<f32>, second: Vec<f32> },
    Device { first: Tensor<1>, second: Tensor<1> },
}

/// The optimizer's state in plain numbers.
#[derive(Clone, Debug, Default, PartialEq)]
struct AdamRecord {
    /// Number of steps taken.
    steps: u64,
    /// The moments under their parameter's path in the module, as in `actor.weights.0.moment_1`.
    moments: Vec<(String, Vec<f32>)>,
}

impl Adam {
    /// An optimizer with no steps taken.
    pub fn new(config: AdamConfig) -> Self {
        Self { config, steps: 0, moments: Vec::new() }
    }

    /// Moves the module's parameters one step against `gradients`; returns the module and the global gradient norm
    /// before clipping. The norm is on the host: where the device is not the CPU, this waits for it.
    ///
    /// Parameters without a gradient, as where a head takes no part in the loss, count as having gradient zero.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Gradients, learning_rate: f64) -> (M, f64) {
        let mut norm = GradientNorm { gradients: &gradients, sum: 0.0 };
        module.visit(&mut norm);
        let norm = norm.sum.sqrt();
        let gradient_scale = match self.config.max_grad_norm {
            Some(limit) if norm > limit => limit / (norm + 1e-6),
            _ => 1.0,
        };
        self.steps += 1;
        let c = &self.config;
        let (correction_1, correction_2) =
            (1.0 - c.beta_1.powf(self.steps as f64), (1.0 - c.beta_2.powf(self.steps as f64)).sqrt());
        let rectification = if c.rectified { rectification(c.beta_2, self.steps as f64) } else { Some(1.0) };
        let step_size = learning_rate / correction_1 * rectification.map_or(1.0, |r| r * correction_2);
        let scalars = AdamScalars {
            beta_1: c.beta_1 as f32,
            beta_2: c.beta_2 as f32,
            gradient_scale: gradient_scale as f32,
            step_size: step_size as f32,
            epsilon: (c.epsilon * correction_2) as f32,
            decay: (1.0 - learning_rate * c.weight_decay) as f32,
            unscaled: rectification.is_none(),
        };
        let vectors = AdamScalars { decay: if c.decay_matrices_only { 1.0 } else { scalars.decay }, ..scalars };
        let scalars = [vectors, scalars];
        let mut step = Step { gradients: &mut gradients, moments: &mut self.moments, at: 0, scalars };
        let module = module.map(&mut step);
        (module, norm)
    }

    /// The state in plain numbers, for the module that was stepped.
    fn record<M: Module>(&self, module: &M) -> AdamRecord {
        let read =
            |tensor: &Tensor<1>| tensor.clone().into_data().try_into_vec::<f32>().expect("moments are 32-bit floats");
        let moments = self.moments.iter().zip(parameters(module)).flat_map(|(moments, parameter)| {
            let (first, second) = match moments {
                Moments::Host { first, second } => (first.clone(), second.clone()),
                Moments::Device { first, second } => (read(first), read(second)),
            };
            [(parameter.first_moment(), first), (parameter.second_moment(), second)]
        });
        AdamRecord { steps: self.steps, moments: moments.collect() }
    }

    /// Goes on from a recorded state of an equal module.
    ///
    /// # Errors
    /// If an array is missing or has another length than its parameter; nothing is changed then.
    fn load<M: Module>(&mut self, module: &M, record: AdamRecord) -> Result<(), String> {
        let mut arrays: HashMap<String, Vec<f32>> = record.moments.into_iter().collect();
        let mut take = |name: String, len: usize| match arrays.remove(&name) {
            Some(values) if values.len() == len => Ok(values),
            Some(values) => Err(format!("{name}: expected {len} numbers, found {}", values.len())),
            None => Err(format!("{name} is missing")),
        };
        // No step taken, no moments kept.
        let parameters = if record.steps == 0 { Vec::new() } else { parameters(module) };
        let moments = parameters.into_iter().map(|parameter| {
            Ok(Moments::Host {
                first: take(parameter.first_moment(), parameter.len)?,
                second: take(parameter.second_moment(), parameter.len)?,
            })
        });
        self.moments = moments.collect::<Result<_, String>>()?;
        self.steps = record.steps;
        Ok(())
    }

    /// Writes the moments as the file `name`; returns the step count, to be kept with the caller's numbers.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn save<M: Module>(&self, to: &mut CheckpointWriter, name: &str, module: &M) -> Result<u64, CoreError> {
        let record = self.record(module);
        let moments: Vec<(&str, &[f32])> = record.moments.iter().map(|(name, m)| (name.as_str(), &m[..])).collect();
        to.arrays(name, &moments)?;
        Ok(record.steps)
    }

    /// Goes on from what [`Adam::save`] wrote for an equal module.
    ///
    /// # Errors
    /// If the file can't be read or is that of another module; nothing is changed then.
    pub fn restore<M: Module>(
        &mut self,
        from: &CheckpointReader,
        name: &str,
        module: &M,
        steps: u64,
    ) -> Result<(), CoreError> {
        let moments = from.arrays(name)?.into_iter().collect();
        let misfit = |problem| CoreError::Checkpoint { path: from.path().join(name), problem };
        self.load(module, AdamRecord { steps, moments }).map_err(misfit)
    }
}

/// RAdam's factor of a step; `None` as long as the second moment is left out. The bound is 5, as in the authors' code.
fn rectification(beta_2: f64, steps: f64) -> Option<f64> {
    let limit = 2.0 / (1.0 - beta_2) - 1.0;
    let decayed = beta_2.powf(steps);
    let length = limit - 2.0 * steps * decayed / (1.0 - decayed);
    (length >= 5.0).then(|| {
        let of = |length: f64| (length - 4.0) * (length - 2.0) / length;
        (of(length) / of(limit)).sqrt()
    })
}

/// A parameter's path in its module, and its number of elements.
struct Parameter {
    path: String,
    len: usize,
}

impl Parameter {
    fn first_moment(&self) -> String {
        format!("{}.moment_1", self.path)
    }

    fn second_moment(&self) -> String {
        format!("{}.moment_2", self.path)
    }
}

/// The module's parameters in the order in which a step meets them.
fn parameters<M: Module>(module: &M) -> Vec<Parameter> {
    #[derive(Default)]
    struct Paths {
        path: Vec<String>,
        found: Vec<Parameter>,
    }
    impl ModuleVisitor for Paths {
        fn enter_module(&mut self, name: &str, _container: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.found.push(Parameter { path: self.path.join("."), len: param.val().shape().num_elements() });
        }
    }
    let mut paths = Paths::default();
    module.visit(&mut paths);
    paths.found
}

struct GradientNorm<'a> {
    gradients: &'a Gradients,
    sum: f64,
}

impl ModuleVisitor for GradientNorm<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad(self.gradients) else { return };
        self.sum += match host(gradient.clone()) {
            Some(gradient) => sum_of_squares(gradient.storage()),
            None => gradient.square().sum().into_scalar::<f32>().into(),
        };
    }
}

struct Step<'a> {
    gradients: &'a mut Gradients,
    moments: &'a mut Vec<Moments>,
    at: usize,
    /// Of vectors and of parameters of two dimensions or more.
    scalars: [AdamScalars; 2],
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        let gradient = tensor.grad_remove(self.gradients);
        let required = tensor.is_require_grad();
        let tensor = tensor.inner();
        if self.at == self.moments.len() {
            let zeros = || vec![0.0f32; tensor.shape().num_elements()];
            self.moments.push(Moments::Host { first: zeros(), second: zeros() });
        }
        let moments = &mut self.moments[self.at];
        self.at += 1;
        let gradient = gradient.unwrap_or_else(|| tensor.zeros_like());
        let scalars = self.scalars[usize::from(D >= 2)];
        let stepped = if host(tensor.clone()).is_some() {
            host_step(tensor, gradient, moments, scalars)
        } else {
            device_step(tensor, gradient, moments, scalars)
        };
        let stepped = Tensor::from_inner(stepped).set_require_grad(required);
        Param::from_mapped_value(id, stepped, mapper)
    }
}

fn host_step<const D: usize>(
    tensor: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut Moments,
    scalars: AdamScalars,
) -> Tensor<D> {
    let (Some(mut parameter), Some(gradient)) = (host(tensor), host(gradient)) else {
        unreachable!("parameter and gradient lie on the CPU backend")
    };
    let Moments::Host { first, second } = moments else { unreachable!("moments follow their parameter") };
    let (p, g): (&mut [f32], &[f32]) = (parameter.storage_mut(), gradient.storage());
    p.par_chunks_mut(BLOCK)
        .zip(g.par_chunks(BLOCK))
        .zip(first.par_chunks_mut(BLOCK).zip(second.par_chunks_mut(BLOCK)))
        .for_each(|((p, g), (m, v))| adam_step(p, g, m, v, scalars));
    Tensor::from_primitive::<Flex>(parameter)
}

fn device_step<const D: usize>(
    tensor: Tensor<D>,
    gradient: Tensor<D>,
    moments: &mut Moments,
    s: AdamScalars,
) -> Tensor<D> {
    let device = tensor.device();
    if let Moments::Host { first, second } = moments {
        let upload = |v: &Vec<f32>| Tensor::from_data(TensorData::new(v.clone(), [v.len()]), &device);
        *moments = Moments::Device { first: upload(first), second: upload(second) };
    }
    let Moments::Device { first, second } = moments else { unreachable!("moments were just moved to the device") };
    let shape = tensor.shape();
    let g: Tensor<1> = gradient.flatten::<1>(0, D.saturating_sub(1)).mul_scalar(s.gradient_scale);
    *first = first.clone().mul_scalar(s.beta_1) + g.clone().mul_scalar(1.0 - s.beta_1);
    *second = second.clone().mul_scalar(s.beta_2) + g.square().mul_scalar(1.0 - s.beta_2);
    let update = match s.unscaled {
        true => first.clone(),
        false => first.clone() / second.clone().sqrt().add_scalar(s.epsilon),
    };
    tensor.mul_scalar(s.decay) - update.mul_scalar(s.step_size).reshape(shape)
}

#[cfg(test)]
mod tests {
    use burn::module::Module;
    use burn::optim::{AdamConfig as BurnAdam, GradientsParams};
    use hotfire_core::seed::stream;

    use super::*;
    use crate::{Activation, Mlp};

    fn values(module: &Mlp) -> Vec<f32> {
        struct Collect(Vec<f32>);
        impl ModuleVisitor for Collect {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                self.0.extend(param.val().into_data().try_to_vec::<f32>().unwrap());
            }
        }
        let mut collect = Collect(Vec::new());
        module.visit(&mut collect);
        collect.0
    }

    fn network() -> (Mlp, Tensor<2>) {
        let device = Device::flex().autodiff();
        let mut rng = stream(5, "test", 0);
        let net = Mlp::orthogonal(&[3, 16, 2], Activation::Tanh, 1.0, &mut rng, &device);
        let x = Tensor::from_floats([[0.1, -0.4, 0.9], [1.0, 0.3, -0.2], [-0.7, 0.5, 0.6]], &device);
        (net, x)
    }

    fn loss(net: &Mlp, x: &Tensor<2>) -> Tensor<1> {
        net.forward(x.clone()).sub_scalar(0.5).square().mean()
    }

    #[test]
    fn equals_burns_adam_without_clipping() {
        let (mut ours, x) = network();
        let mut burns = ours.clone();
        let mut adam = Adam::new(AdamConfig { epsilon: 1e-5, ..AdamConfig::default() });
        let mut burn_adam = BurnAdam::new().with_epsilon(1e-5).init();
        for _ in 0..20 {
            let gradients = loss(&ours, &x).backward();
            ours = adam.step(ours, gradients, 1e-2).0;
            let gradients = GradientsParams::from_grads(loss(&burns, &x).backward(), &burns);
            burns = burn_adam.step(1e-2, burns, gradients);
        }
        for (a, b) in values(&ours).iter().zip(values(&burns)) {
            assert!((a - b).abs() < 1e-5, "{a} against {b}");
        }
    }

    #[test]
    fn the_host_step_equals_the_tensor_step() {
        let device = Device::flex();
        let numbers =
            |seed: usize| -> Vec<f32> { (0..50).map(|i| (((i + seed) * 7919) % 211) as f32 / 100.0 - 1.0).collect() };
        let tensor = |seed| Tensor::<1>::from_data(TensorData::new(numbers(seed), [50]), &device);
        let scalars = AdamScalars {
            beta_1: 0.9,
            beta_2: 0.99,
            gradient_scale: 0.3,
            step_size: 0.02,
            epsilon: 1e-5,
            decay: 0.999,
            unscaled: false,
        };
        let squares = || numbers(9).iter().map(|v| v * v).collect::<Vec<f32>>();
        let start = || Moments::Host { first: numbers(8), second: squares() };
        let (mut on_host, mut on_device) = (start(), start());
        let a: Vec<f32> = host_step(tensor(1), tensor(2), &mut on_host, scalars).into_data().try_to_vec().unwrap();
        let b: Vec<f32> = device_step(tensor(1), tensor(2), &mut on_device, scalars).into_data().try_to_vec().unwrap();
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn rectified_steps_start_as_momentum() {
        assert!((1..=5).all(|t| rectification(0.999, f64::from(t)).is_none()));
        // By the paper's formulas at t = 6: limit 1999, length 5.9930...
        let (limit, decayed) = (1999.0f64, 0.999f64.powi(6));
        let length = limit - 12.0 * decayed / (1.0 - decayed);
        let want = ((length - 4.0) * (length - 2.0) * limit / ((limit - 4.0) * (limit - 2.0) * length)).sqrt();
        assert!((rectification(0.999, 6.0).unwrap() - want).abs() < 1e-12);
        assert!(rectification(0.999, 1e6).unwrap() > 0.999_999);
        let (mut net, x) = network();
        let before = values(&net);
        let mut adam = Adam::new(AdamConfig { rectified: true, ..AdamConfig::default() });
        let gradients = loss(&net, &x).backward();
        net = adam.step(net, gradients, 0.1).0;
        // The first step is the learning rate times the gradient: the first moment over its bias correction.
        let moments = adam.record(&net).moments;
        let gradient = moments.iter().step_by(2).flat_map(|m| &m.1).map(|m| m / 0.1);
        for ((before, after), g) in before.iter().zip(values(&net)).zip(gradient) {
            assert!((before - 0.1 * g - after).abs() < 1e-6);
        }
    }

    #[test]
    fn clipping_bounds_the_step_that_the_moments_see() {
        let (net, x) = network();
        let gradients = || loss(&net, &x).mul_scalar(1e4).backward();
        let mut adam = Adam::new(AdamConfig { max_grad_norm: Some(0.5), ..AdamConfig::default() });
        let norm = adam.step(net.clone(), gradients(), 1e-3).1;
        assert!(norm > 100.0);
        let squared: f64 =
            adam.record(&net).moments.iter().step_by(2).flat_map(|m| &m.1).map(|v| f64::from(*v / 0.1).powi(2)).sum();
        assert!((squared.sqrt() - 0.5).abs() < 1e-3, "clipped norm {}", squared.sqrt());
    }

    #[test]
    fn vectors_can_be_left_undecayed() {
        let (net, _) = network();
        let zeros = |net: &Mlp| net.forward(Tensor::zeros([1, 3], &Device::flex().autodiff())).mul_scalar(0.0).sum();
        let biases = |net: Mlp| {
            struct Ones;
            impl ModuleMapper for Ones {
                fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
                    param.map(|tensor| tensor.ones_like().set_require_grad(true))
                }
            }
            net.map(&mut Ones)
        };
        let net = biases(net);
        let config = AdamConfig { weight_decay: 0.5, decay_matrices_only: true, ..AdamConfig::default() };
        let (stepped, _) = Adam::new(config).step(net.clone(), zeros(&net).backward(), 0.1);
        let values = values(&stepped);
        assert_eq!(values.iter().filter(|v| **v == 1.0).count(), 16 + 2, "biases keep their values");
        assert_eq!(values.iter().filter(|v| (**v - 0.95).abs() < 1e-6).count(), 3 * 16 + 16 * 2);
    }

    #[test]
    fn a_loaded_state_goes_on_bit_for_bit() {
        let (mut net, x) = network();
        let mut adam = Adam::new(AdamConfig::default());
        for _ in 0..3 {
            let gradients = loss(&net, &x).backward();
            net = adam.step(net, gradients, 1e-2).0;
        }
        let mut resumed = Adam::new(AdamConfig::default());
        let record = adam.record(&net);
        assert_eq!(record.moments[0].0, "weights.0.moment_1");
        let mut wrong = record.clone();
        wrong.moments[3].1.pop();
        assert!(resumed.load(&net, wrong).unwrap_err().contains("expected"));
        resumed.load(&net, record).unwrap();
        let a = adam.step(net.clone(), loss(&net, &x).backward(), 1e-2).0;
        let b = resumed.step(net.clone(), loss(&net, &x).backward(), 1e-2).0;
        assert_eq!(values(&a), values(&b));
    }
}
