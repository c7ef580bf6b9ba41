//! A chain of dense layers as one op.

use std::sync::Arc;

use burn::prelude::*;
use burn::tensor::activation::{gelu, sigmoid, silu};
use burn_flex::FlexTensor;

use super::host_op::{self, HostOp, Parent, on_host};
use super::kernel::{Activation, Dense};

/// Weight `[inputs, outputs]`, bias `[outputs]` and activation of one layer.
pub type Layer = (Tensor<2>, Tensor<1>, Activation);

/// `activation(x weight + bias)` for `x: [N, K]`, `weight: [K, M]`, `bias: [M]`; the result is `[N, M]`.
pub fn linear_act(x: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, activation: Activation) -> Tensor<2> {
    mlp(x, vec![(weight, bias, activation)])
}

/// Dense layers one after another: `x: [N, K]` to `[N, M]` with the last layer's `M`.
///
/// # Panics
/// If there is no layer, or neighbouring shapes don't fit.
pub fn mlp(x: Tensor<2>, mut layers: Vec<Layer>) -> Tensor<2> {
    assert!(!layers.is_empty(), "an MLP has at least one layer");
    if !on_host(&x) {
        return layers.into_iter().fold(x, stock_layer);
    }
    match layers.len() {
        1 => fused::<3>(x, layers),
        2 => fused::<5>(x, layers),
        3 => fused::<7>(x, layers),
        _ => {
            let rest = layers.split_off(3);
            mlp(fused::<7>(x, layers), rest)
        }
    }
}

/// One layer of stock Burn ops.
fn stock_layer(x: Tensor<2>, (weight, bias, activation): Layer) -> Tensor<2> {
    stock_activation(x.matmul(weight) + bias.unsqueeze(), activation)
}

/// The activation as stock Burn ops.
pub(crate) fn stock_activation<const D: usize>(z: Tensor<D>, activation: Activation) -> Tensor<D> {
    match activation {
        Activation::Identity => z,
        Activation::Tanh => z.tanh(),
        Activation::Relu => z.clamp_min(0.0),
        Activation::Silu => silu(z),
        Activation::Gelu => gelu(z),
        Activation::Sigmoid => sigmoid(z),
    }
}

/// The chain as a graph node with `N = 1 + 2 layers` parents: the input, then each layer's weight and bias.
fn fused<const N: usize>(x: Tensor<2>, layers: Vec<Layer>) -> Tensor<2> {
    let activations: Vec<Activation> = layers.iter().map(|layer| layer.2).collect();
    let mut parents = Vec::with_capacity(N);
    parents.push(Parent::new(x));
    for (weight, bias, _) in layers {
        parents.push(Parent::new(weight));
        parents.push(Parent::new(bias));
    }
    let Ok(parents) = <[Parent; N]>::try_from(parents) else { unreachable!("N is 1 + 2 layers") };
    host_op::apply(parents, |values| {
        let rows = values[0].layout().shape()[0];
        let mut op = Mlp { values: values.to_vec(), activations, kept: Vec::new() };
        let output = op.forward(rows);
        (output, op)
    })
}

/// Parents' values and, for each layer, what its activation's derivative is computed from.
#[derive(Clone, Debug)]
struct Mlp {
    values: Vec<FlexTensor>,
    activations: Vec<Activation>,
    kept: Vec<Kept>,
}

/// A layer's output and, where the activation needs it, the pre-activation: `[rows, outputs]`.
#[derive(Clone, Debug)]
struct Kept {
    output: FlexTensor,
    pre_activation: Option<Arc<Vec<f32>>>,
}

impl Mlp {
    fn layer(&self, l: usize) -> Dense<'_> {
        Dense {
            weight: self.values[1 + 2 * l].storage(),
            bias: self.values[2 + 2 * l].storage(),
            activation: self.activations[l],
        }
    }

    /// The input of layer `l`.
    fn input(&self, l: usize) -> &[f32] {
        match l {
            0 => self.values[0].storage(),
            _ => self.kept[l - 1].output.storage(),
        }
    }

    fn forward(&mut self, rows: usize) -> FlexTensor {
        for l in 0..self.activations.len() {
            let layer = self.layer(l);
            let inputs = self.input(l).len() / rows.max(1);
            assert_eq!(inputs, layer.inputs(), "layer {l} takes {} inputs, found {inputs}", layer.inputs());
            let n = layer.outputs();
            let mut y = vec![0.0f32; rows * n];
            let mut z = (!layer.activation.derivative_from_output()).then(|| vec![0.0f32; rows * n]);
            layer.forward(self.input(l), &mut y, z.as_deref_mut());
            self.kept.push(Kept { output: host_op::tensor(y, [rows, n]), pre_activation: z.map(Arc::new) });
        }
        self.kept[self.kept.len() - 1].output.clone()
    }
}

impl HostOp for Mlp {
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>> {
        let rows = self.values[0].layout().shape()[0];
        let mut gradients: Vec<Option<FlexTensor>> = vec![None; self.values.len()];
        let mut g: Vec<f32> = host_op::contiguous(&gradient).storage::<f32>().to_vec();
        for l in (0..self.activations.len()).rev() {
            let layer = self.layer(l);
            let (k, n) = (layer.inputs(), layer.outputs());
            let kept = match &self.kept[l].pre_activation {
                Some(z) => z.as_slice(),
                None => self.kept[l].output.storage(),
            };
            if !wanted[1 + 2 * l] && !wanted[2 + 2 * l] {
                let mut dx = vec![0.0f32; rows * k];
                layer.input_backward(kept, &mut g, &mut dx);
                g = dx;
                continue;
            }
            let (mut dw, mut db) = (vec![0.0f32; k * n], vec![0.0f32; n]);
            // Gradients further down the chain are needed by the layers below, or by the input.
            let mut dx = (l > 0 || wanted[0]).then(|| vec![0.0f32; rows * k]);
            layer.backward(self.input(l), kept, &mut g, &mut dw, &mut db, dx.as_deref_mut());
            gradients[1 + 2 * l] = Some(host_op::tensor(dw, [k, n]));
            gradients[2 + 2 * l] = Some(host_op::tensor(db, [n]));
            if let Some(dx) = dx {
                g = dx;
            }
        }
        if wanted[0] {
            let k = self.layer(0).inputs();
            gradients[0] = Some(host_op::tensor(g, [rows, k]));
        }
        gradients
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Param;
    use burn::tensor::Distribution;

    use super::*;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    /// The fused chain and the stock ops agree in value and in the gradients of input, weights and biases.
    #[test]
    fn agrees_with_the_stock_ops() {
        let device = Device::flex().autodiff();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 0.5), &device);
        use Activation::{Gelu, Identity, Relu, Sigmoid, Silu, Tanh};
        for activation in [Identity, Tanh, Relu, Silu, Gelu, Sigmoid] {
            for (rows, sizes) in
                [(5, vec![3, 7]), (33, vec![4, 64, 2]), (130, vec![4, 64, 64, 3]), (700, vec![8, 96, 96, 64, 40, 1])]
            {
                let x = random([rows, sizes[0]]).require_grad();
                let layers: Vec<(Tensor<2>, Tensor<1>)> = sizes
                    .windows(2)
                    .map(|s| {
                        (random([s[0], s[1]]).require_grad(), random([1, s[1]]).squeeze_dim::<1>(0).require_grad())
                    })
                    .collect();
                let chain = || -> Vec<Layer> {
                    layers.iter().map(|(weight, bias)| (weight.clone(), bias.clone(), activation)).collect()
                };
                let fused = mlp(x.clone(), chain());
                let stock = chain().into_iter().fold(x.clone(), stock_layer);
                let target = random([rows, sizes[sizes.len() - 1]]);
                let fused_gradients = (fused.clone() * target.clone()).sum().backward();
                let stock_gradients = (stock.clone() * target).sum().backward();
                let context = format!("{activation:?} {rows} rows {sizes:?}");
                let close = |a: Vec<f32>, b: Vec<f32>, what: &str| {
                    let scale = b.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                    for (a, b) in a.iter().zip(&b) {
                        assert!((a - b).abs() < 2e-5 * scale, "{context}: {what}: {a} against {b}");
                    }
                };
                close(values(fused), values(stock), "value");
                close(
                    values(x.grad(&fused_gradients).unwrap()),
                    values(x.grad(&stock_gradients).unwrap()),
                    "gradient of the input",
                );
                for (l, (weight, bias)) in layers.iter().enumerate() {
                    close(
                        values(weight.grad(&fused_gradients).unwrap()),
                        values(weight.grad(&stock_gradients).unwrap()),
                        &format!("gradient of weight {l}"),
                    );
                    close(
                        values(bias.grad(&fused_gradients).unwrap()),
                        values(bias.grad(&stock_gradients).unwrap()),
                        &format!("gradient of bias {l}"),
                    );
                }
            }
        }
    }

    #[test]
    fn constants_stay_off_the_graph() {
        let device = Device::flex();
        let weight = Param::from_tensor(Tensor::<2>::ones([3, 2], &device));
        let y = linear_act(
            Tensor::ones([4, 3], &device),
            weight.val().inner(),
            Tensor::zeros([2], &device),
            Activation::Relu,
        );
        assert!(!y.is_autodiff());
        assert_eq!(values(y), vec![3.0; 8]);
    }

    /// The gradient of the input does not depend on whether the weights are learned too.
    #[test]
    fn fixed_weights_leave_the_gradient_of_the_input() {
        let device = Device::flex().autodiff();
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 0.5), &device);
        for (rows, sizes) in [(5, [3, 7, 2]), (300, [4, 96, 64])] {
            for activation in [Activation::Relu, Activation::Tanh, Activation::Silu] {
                let x = random([rows, sizes[0]]).require_grad();
                let learned: Vec<Layer> = sizes
                    .windows(2)
                    .map(|s| (random([s[0], s[1]]).require_grad(), random([1, s[1]]).squeeze_dim::<1>(0), activation))
                    .collect();
                let fixed = learned.iter().map(|(w, b, a)| (w.clone().detach(), b.clone().detach(), *a)).collect();
                let gradient = |layers| values(x.grad(&mlp(x.clone(), layers).square().sum().backward()).unwrap());
                let (fixed, learned) = (gradient(fixed), gradient(learned));
                assert!(fixed.iter().zip(&learned).all(|(a, b)| (a - b).abs() <= 1e-5 * b.abs().max(1.0)));
            }
        }
    }

    #[test]
    fn a_transposed_input_is_read_in_its_own_order() {
        let device = Device::flex();
        let x = Tensor::<2>::from_floats([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], &device).transpose();
        let weight = Tensor::<2>::from_floats([[1.0], [10.0], [100.0]], &device);
        let y = linear_act(x, weight, Tensor::zeros([1], &device), Activation::Identity);
        assert_eq!(values(y), vec![531.0, 642.0]);
    }
}
