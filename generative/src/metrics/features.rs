//! The digit classifier whose features the sample metrics compare.
//!
//! conv 1->32 (3x3), ReLU, max-pool; conv 32->64 (3x3), ReLU, max-pool; dense 3136->128, ReLU: the features; dense
//! 128->10: the logits. Trained on the 60,000 MNIST training images; 98.7 % of the test images are classified correctly.
//! The weights are a part of the program (`data/eval/`).

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use burn::tensor::module::max_pool2d;
use burn::tensor::ops::MaxPoolOptions;
use hotfire_nn::Activation;
use hotfire_nn::ops::{conv2d, linear_act};
use safetensors::SafeTensors;

use crate::codec::numbers;

/// Numbers of a picture's features.
pub const FEATURES: usize = 128;

const WEIGHTS: &[u8] = include_bytes!("../../../data/eval/mnist_cnn.safetensors");
const SIDE: usize = 28;
/// Pictures of one pass.
const PASS: usize = 250;

/// The classifier, on the CPU.
#[derive(Debug)]
pub struct DigitClassifier {
    device: Device,
    convolutions: [(Param<Tensor<4>>, Param<Tensor<1>>); 2],
    dense: [(Param<Tensor<2>>, Param<Tensor<1>>); 2],
}

/// What the classifier makes of pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Classified {
    /// `[N, 128]`
    pub features: Vec<f32>,
    /// `[N, 10]`
    pub logits: Vec<f32>,
}

impl Classified {
    /// The likeliest digit of each picture.
    pub fn digits(&self) -> Vec<u32> {
        let likeliest = |row: &[f32]| (0..10u32).max_by(|a, b| row[*a as usize].total_cmp(&row[*b as usize]));
        self.logits.chunks_exact(10).map(|row| likeliest(row).unwrap_or(0)).collect()
    }
}

impl Default for DigitClassifier {
    fn default() -> Self {
        Self::new()
    }
}

impl DigitClassifier {
    /// The trained classifier.
    pub fn new() -> Self {
        let device = Device::flex();
        let file = SafeTensors::deserialize(WEIGHTS).expect("the weights are a part of the program");
        let read = |name: &str| -> (Vec<f32>, Vec<usize>) {
            let view = file.tensor(name).expect("the weights are a part of the program");
            let floats = view.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
            (floats.collect(), view.shape().to_vec())
        };
        let vector = |name: &str| {
            let (values, shape) = read(name);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device))
        };
        let kernel = |name: &str| {
            let (values, shape) = read(name);
            Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &device))
        };
        // PyTorch keeps a dense layer's weight as [outputs, inputs].
        let matrix = |name: &str| {
            let (values, shape) = read(name);
            let weight = Tensor::<2>::from_data(TensorData::new(values, shape), &device).transpose();
            let shape = weight.dims();
            Param::from_tensor(Tensor::from_data(TensorData::new(numbers(weight), shape), &device))
        };
        Self {
            convolutions: ["conv1", "conv2"].map(|l| (kernel(&format!("{l}.weight")), vector(&format!("{l}.bias")))),
            dense: ["fc1", "fc2"].map(|l| (matrix(&format!("{l}.weight")), vector(&format!("{l}.bias")))),
            device,
        }
    }

    /// Features and logits of pictures `[N, 28, 28]` with numbers from 0 to 1; none of other sizes.
    pub fn classify(&self, pictures: &[f32]) -> Classified {
        let mut all = Classified { features: Vec::new(), logits: Vec::new() };
        for chunk in pictures.chunks(PASS * SIDE * SIDE) {
            let n = chunk.len() / (SIDE * SIDE);
            let mut x = Tensor::<4>::from_data(TensorData::new(chunk.to_vec(), [n, 1, SIDE, SIDE]), &self.device);
            for (weight, bias) in &self.convolutions {
                x = conv2d(x, weight.val(), bias.val(), 1, 1, Activation::Relu);
                x = max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([2, 2]));
            }
            let [(w0, b0), (w1, b1)] = &self.dense;
            let features = linear_act(x.flatten(1, 3), w0.val(), b0.val(), Activation::Relu);
            let logits = linear_act(features.clone(), w1.val(), b1.val(), Activation::Identity);
            all.features.extend(numbers(features));
            all.logits.extend(numbers(logits));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use hotfire_core::config::ConfigDocument;

    use super::*;
    use crate::data::{self, ImageSets};
    use crate::metrics::{fid, kid, precision_recall};

    fn mnist() -> ImageSets {
        let text = "[data]\nname = \"mnist\"\ndir = \"../data/mnist\"\ntrain_limit = 2500";
        data::load_images(&mut ConfigDocument::parse("a.toml", text, &[]).unwrap(), 1).unwrap()
    }

    /// The numbers of the PyTorch implementation that trained the classifier.
    #[test]
    fn agrees_with_the_reference() {
        let classifier = DigitClassifier::new();
        let sets = mnist();
        let real = classifier.classify(&sets.test.floats(0..sets.test.len()));
        let logits = [-2.94628, -2.95458, 2.69781, 4.92682, -6.05408, -2.93531, -18.39453, 16.88934, 0.12841, 4.67206];
        for (got, want) in real.logits.iter().zip(logits) {
            assert!((got - want).abs() < 1e-3, "{got} against {want}");
        }
        let sum: f32 = real.features[..FEATURES].iter().sum();
        assert!((sum - 366.0902).abs() < 0.01, "{sum}");
        let labels = sets.test.labels.as_ref().unwrap();
        let correct = real.digits().iter().zip(labels).filter(|(a, b)| a == b).count();
        assert!((correct as f64 / 2500.0 - 0.9884).abs() < 1e-9, "{correct}");
        let train = classifier.classify(&sets.train.floats(0..2500));
        let (f, k) = (fid(&train.features, &real.features, FEATURES), kid(&train.features, &real.features, FEATURES));
        assert!((f - 4.6747).abs() < 0.01, "FID {f}");
        assert!((k - 1.9271).abs() < 0.01, "KID {k}");
        let (precision, recall) = precision_recall(&train.features, &real.features, FEATURES, 3);
        assert!((precision - 0.8868).abs() < 0.002 && (recall - 0.8732).abs() < 0.002, "{precision} {recall}");
    }
}
