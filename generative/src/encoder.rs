//! BERT's network: the Transformer encoder and the heads of its pre-training (Devlin et al. 2019,
//! <https://arxiv.org/abs/1810.04805>).

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::TensorData;
use hotfire_core::seed::StreamRng;
use hotfire_nn::init::normal;
use hotfire_nn::ops::{self, AttentionMask};
use hotfire_nn::transformer::{BlockConfig, Dropout, LayerNorm, NormPlace, Projection, TransformerBlock};

use crate::text::Tokenizer;

const STD: f64 = 0.02;

/// The encoder's shape.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EncoderConfig {
    /// Number of tokens.
    pub vocab_size: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads, which divide the width.
    pub heads: usize,
    /// Channels of a token.
    pub width: usize,
    /// Units of the network in a block.
    pub hidden: usize,
    /// Largest number of tokens.
    pub block: usize,
    /// Epsilon of the normalisations.
    pub epsilon: f64,
}

/// Token sequences as tensors: ids and segments `[B, T]`, padded at the end.
#[derive(Clone, Debug)]
pub struct Batch {
    ids: Tensor<2, Int>,
    segments: Tensor<2, Int>,
    lengths: Vec<usize>,
}

impl Batch {
    /// Pads sequences of ids and segments to the longest.
    pub fn new(sequences: &[(Vec<u32>, Vec<u32>)], pad: u32, device: &Device) -> Self {
        let lengths: Vec<usize> = sequences.iter().map(|(ids, _)| ids.len()).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let padded = |rows: &mut dyn Iterator<Item = &Vec<u32>>, fill: u32| {
            let values: Vec<i32> = rows
                .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(fill, longest - row.len())))
                .map(|id| id as i32)
                .collect();
            Tensor::from_data(TensorData::new(values, [sequences.len(), longest]), device)
        };
        let ids = padded(&mut sequences.iter().map(|(ids, _)| ids), pad);
        let segments = padded(&mut sequences.iter().map(|(_, segments)| segments), 0);
        Self { ids, segments, lengths }
    }

    /// Number of tokens of each sequence.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Number of tokens of the longest sequence, to which the others are padded.
    pub fn length(&self) -> usize {
        self.ids.dims()[1]
    }
}

/// Embeddings and blocks.
#[derive(Module, Debug)]
pub struct Encoder {
    /// `[V, C]`
    pub words: Param<Tensor<2>>,
    /// `[block, C]`
    pub positions: Param<Tensor<2>>,
    /// `[2, C]`
    pub segments: Param<Tensor<2>>,
    /// Normalisation of their sum.
    pub norm: LayerNorm,
    /// The Transformer.
    pub blocks: Vec<TransformerBlock>,
}

impl Encoder {
    /// An encoder with random weights.
    pub fn new(config: &EncoderConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let table = |rows, rng: &mut StreamRng| Param::from_tensor(normal([rows, config.width], STD, rng, device));
        let block = BlockConfig {
            width: config.width,
            heads: config.heads,
            hidden: config.hidden,
            bias: true,
            rotary: false,
            norm: NormPlace::After,
            epsilon: config.epsilon,
            std: STD,
            residual_std: STD,
        };
        Self {
            words: table(config.vocab_size, rng),
            positions: table(config.block, rng),
            segments: table(2, rng),
            norm: LayerNorm::new(config.width, true, config.epsilon, device),
            blocks: (0..config.layers).map(|_| TransformerBlock::new(&block, rng, device)).collect(),
        }
    }

    fn embed(&self, batch: &Batch, dropout: &mut Dropout) -> Tensor<3> {
        let length = batch.ids.dims()[1];
        let words = ops::embedding(self.words.val(), batch.ids.clone());
        let segments = ops::embedding(self.segments.val(), batch.segments.clone());
        let positions = self.positions.val().narrow(0, 0, length).unsqueeze();
        dropout.apply(self.norm.forward(words + positions + segments))
    }

    /// The vectors `[B, T, C]` of a batch's tokens.
    pub fn forward(&self, batch: &Batch, dropout: &mut Dropout) -> Tensor<3> {
        let mask = AttentionMask { causal: false, lengths: Some(&batch.lengths) };
        let x = self.embed(batch, dropout);
        self.blocks.iter().fold(x, |x, block| block.forward(x, mask, dropout, None))
    }

    /// The attention weights `[H, T, T]` of each block on a batch of one sequence.
    pub fn attention_weights(&self, batch: &Batch) -> Vec<Tensor<3>> {
        let mask = AttentionMask { causal: false, lengths: Some(&batch.lengths) };
        let mut x = self.embed(batch, &mut Dropout::off());
        let mut maps = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            maps.push(block.attention_weights(&x, mask).squeeze_dim(0));
            x = block.forward(x, mask, &mut Dropout::off(), None);
        }
        maps
    }
}

/// What pre-training adds to the encoder.
#[derive(Module, Debug)]
pub struct Heads {
    /// From the first token's vector to the sequence's, `[C, C]`, before a tanh.
    pub pooler: Projection,
    /// Whether the second passage follows the first: `[C, 2]`, class 0 being that it does.
    pub next: Projection,
    /// `[C, C]`, before GELU and a normalisation.
    pub transform: Projection,
    /// The normalisation.
    pub transform_norm: LayerNorm,
    /// Bias `[V]` of the logits, whose weights are the word embeddings.
    pub bias: Param<Tensor<1>>,
}

impl Heads {
    /// Heads with random weights.
    pub fn new(config: &EncoderConfig, rng: &mut StreamRng, device: &Device) -> Self {
        let mut square = || Projection::new([config.width, config.width], true, STD, rng, device);
        let (pooler, transform) = (square(), square());
        Self {
            pooler,
            next: Projection::new([config.width, 2], true, STD, rng, device),
            transform,
            transform_norm: LayerNorm::new(config.width, true, config.epsilon, device),
            bias: Param::from_tensor(Tensor::zeros([config.vocab_size], device)),
        }
    }

    /// The sequences' vectors `[B, C]` from their tokens' `[B, T, C]`.
    pub fn pool(&self, x: Tensor<3>) -> Tensor<2> {
        self.pooler.forward(x.narrow(1, 0, 1).squeeze_dim::<2>(1)).tanh()
    }

    /// Logits `[M, V]` of the tokens at `places` of `x: [B, T, C]`, counted over `B T`.
    pub fn fill_in(&self, x: Tensor<3>, places: &[u32], words: Tensor<2>) -> Tensor<2> {
        let [batch, length, width] = x.dims();
        let places: Vec<i32> = places.iter().map(|place| *place as i32).collect();
        let count = places.len();
        let places = Tensor::from_data(TensorData::new(places, [1, count]), &x.device());
        let chosen = ops::embedding(x.reshape([batch * length, width]), places).squeeze_dim::<2>(0);
        let y = self.transform_norm.forward(ops::gelu(self.transform.forward(chosen)));
        y.matmul(words.transpose()) + self.bias.val().unsqueeze()
    }
}

/// Encoder and heads.
#[derive(Module, Debug)]
pub struct BertNet {
    /// The encoder.
    pub encoder: Encoder,
    /// The pre-training heads.
    pub heads: Heads,
}

/// The numbers of the special tokens.
#[derive(Clone, Copy, Debug)]
pub struct Special {
    /// `[PAD]`
    pub pad: u32,
    /// `[CLS]`
    pub cls: u32,
    /// `[SEP]`
    pub sep: u32,
    /// `[MASK]`
    pub mask: u32,
}

impl Special {
    /// Looks them up.
    ///
    /// # Errors
    /// If the tokenizer lacks one.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self, String> {
        let id = |token: &str| tokenizer.id(token).ok_or_else(|| format!("the tokenizer has no token {token}"));
        Ok(Self { pad: id("[PAD]")?, cls: id("[CLS]")?, sep: id("[SEP]")?, mask: id("[MASK]")? })
    }

    /// `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` with its segments.
    pub fn wrap(&self, a: &[u32], b: Option<&[u32]>) -> (Vec<u32>, Vec<u32>) {
        let mut ids = vec![self.cls];
        ids.extend(a);
        ids.push(self.sep);
        let mut segments = vec![0; ids.len()];
        if let Some(b) = b {
            ids.extend(b);
            ids.push(self.sep);
            segments.resize(ids.len(), 1);
        }
        (ids, segments)
    }
}
