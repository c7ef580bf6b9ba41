//! How an op of our own, with its own backward, joins Burn's autodiff graph on the CPU backend.
//!
//! An op is a function on [`FlexTensor`]s that returns its output and what its backward needs ([`HostOp`]).
//! [`apply`] runs it on high-level tensors: with a graph node where a parent is tracked, plainly where none is.

use burn::backend::Flex;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, DispatchDevice};
use burn::prelude::*;
use burn::tensor::TensorData;
use burn_flex::FlexTensor;

type Tracked = FloatTensor<Autodiff<Flex>>;

/// What an op keeps for its backward pass.
pub(crate) trait HostOp: Clone + Send + std::fmt::Debug + 'static {
    /// Gradients of the parents from the gradient of the output, in the parents' order; `None` where `wanted` is false.
    fn backward(self, gradient: FlexTensor, wanted: &[bool]) -> Vec<Option<FlexTensor>>;
}

/// Whether the tensor lies on the CPU backend, where host ops run.
pub(crate) fn on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    match tensor.device().as_dispatch() {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(device) => matches!(**device, DispatchDevice::Flex(_)),
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// The primitive of a tensor on the plain CPU backend, contiguous; `None` on any other device or with autodiff.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Option<FlexTensor> {
    match tensor.device().as_dispatch() {
        DispatchDevice::Flex(_) => tensor.try_into_primitive::<Flex>().ok().map(|tensor| contiguous(&tensor)),
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

/// A parent of a host op: its node in the graph, or a constant.
pub(crate) enum Parent {
    Tracked(Tracked),
    Constant(FlexTensor),
}

impl Parent {
    /// Takes the primitive out of a tensor for which [`on_host`] holds.
    pub fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        if tensor.is_autodiff() {
            Self::Tracked(
                tensor.try_into_primitive::<Autodiff<Flex>>().expect("a host op's parents lie on the CPU backend"),
            )
        } else {
            Self::Constant(tensor.try_into_primitive::<Flex>().expect("a host op's parents lie on the CPU backend"))
        }
    }

    fn value(&self) -> &FlexTensor {
        match self {
            Self::Tracked(tensor) => tensor.primitive(),
            Self::Constant(tensor) => tensor,
        }
    }
}

/// Runs `forward` on the parents' values and records the op it returns if a parent is tracked.
pub(crate) fn apply<const D: usize, const N: usize, O: HostOp>(
    parents: [Parent; N],
    forward: impl FnOnce(&[FlexTensor; N]) -> (FlexTensor, O),
) -> Tensor<D> {
    let values = parents.each_ref().map(|p| contiguous(p.value()));
    if parents.iter().all(|p| matches!(p, Parent::Constant(_))) {
        return Tensor::from_primitive::<Flex>(forward(&values).0);
    }
    let nodes = parents.map(|parent| match parent {
        Parent::Tracked(tensor) => tensor.node(),
        Parent::Constant(tensor) => Tracked::new(tensor).node(),
    });
    let output = match Node::<O>::new().prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prep) => {
            let (output, op) = forward(&values);
            prep.finish(op, output)
        }
        OpsKind::UnTracked(prep) => prep.finish(forward(&values).0),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

struct Node<O>(std::marker::PhantomData<fn() -> O>);

impl<O> Node<O> {
    fn new() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<O> std::fmt::Debug for Node<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<O>())
    }
}

impl<O: HostOp, const N: usize> Backward<Flex, N> for Node<O> {
    type State = O;

    fn backward(self, ops: Ops<O, N>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let wanted = ops.parents.each_ref().map(Option::is_some);
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state.backward(gradient, &wanted)) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}

/// The tensor with its elements in row-major order from the start of its storage.
pub(crate) fn contiguous(tensor: &FlexTensor) -> FlexTensor {
    tensor.to_contiguous()
}

/// A tensor that owns `values`.
pub(crate) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}
