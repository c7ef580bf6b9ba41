//! An exponential moving average of a module's parameters.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;

/// Moves `average` towards `module`: each parameter becomes `decay average + (1 - decay) module`.
///
/// `average` may lie on the plain device of `module`'s autodiff device. It is what Polyak averaging of target networks
/// does too.
///
/// # Panics
/// If the modules differ in shape.
pub fn ema<A: Module, M: Module>(average: A, module: &M, decay: f64) -> A {
    struct Collect(Vec<Tensor<1>>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let value = param.val();
            let value = if value.is_autodiff() { value.inner() } else { value };
            self.0.push(value.reshape([-1]));
        }
    }
    struct Move {
        towards: std::vec::IntoIter<Tensor<1>>,
        decay: f64,
    }
    impl ModuleMapper for Move {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let (id, tensor, mapper) = param.consume();
            let towards = self.towards.next().expect("the average has no more parameters than the module");
            let tensor = if tensor.is_autodiff() { tensor.inner() } else { tensor };
            let shape = tensor.shape();
            let moved = tensor.mul_scalar(self.decay) + towards.reshape(shape).mul_scalar(1.0 - self.decay);
            Param::from_mapped_value(id, moved, mapper)
        }
    }
    let mut collect = Collect(Vec::new());
    module.visit(&mut collect);
    average.map(&mut Move { towards: collect.0.into_iter(), decay })
}

/// The decay for the average after `step` updates: `min(decay, (1 + step) / (10 + step))`, so that the start is soon
/// forgotten.
pub fn warmed_up(decay: f64, step: u64) -> f64 {
    decay.min((1.0 + step as f64) / (10.0 + step as f64))
}

#[cfg(test)]
mod tests {
    use hotfire_core::seed::stream;

    use super::*;
    use crate::{Activation, Linear};

    #[test]
    fn the_average_is_the_geometric_sum() {
        let device = Device::flex();
        let layer =
            |seed, device: &Device| Linear::new([1, 1], Activation::Identity, &mut stream(seed, "test", 0), device);
        let at = |layer: &Linear, device: &Device| {
            let y = layer.forward(Tensor::<2>::ones([1, 1], device));
            f64::from(y.into_scalar::<f32>())
        };
        let mut average = layer(0, &device);
        let mut want = at(&average, &device);
        for seed in 1..5 {
            let module = layer(seed, &device.clone().autodiff());
            average = ema(average, &module, 0.75);
            want = 0.75 * want + 0.25 * at(&module, &device.clone().autodiff());
        }
        assert!((at(&average, &device) - want).abs() < 1e-6);
        assert_eq!([warmed_up(0.999, 0), warmed_up(0.999, 90), warmed_up(0.999, 100_000)], [0.1, 0.91, 0.999]);
    }
}
