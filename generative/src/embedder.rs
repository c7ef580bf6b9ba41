//! Sentence embeddings: the mean of an encoder's token vectors, brought to length one (Reimers & Gurevych 2019,
//! <https://arxiv.org/abs/1908.10084>).

use burn::prelude::*;
use hotfire_nn::transformer::Dropout;

use crate::encoder::{Batch, Encoder, Special};
use crate::text::Tokenizer;

/// An encoder with its tokenizer.
#[derive(Clone, Debug)]
pub struct Embedder {
    encoder: Encoder,
    tokenizer: Tokenizer,
    special: Special,
    block: usize,
    device: Device,
}

/// A sentence as numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedding {
    /// The tokens, with `[CLS]` and `[SEP]`.
    pub ids: Vec<u32>,
    /// A vector of length one.
    pub vector: Vec<f32>,
}

impl Embedder {
    /// An embedder of sentences of up to `block` tokens; `device` is without autodiff.
    pub fn new(encoder: Encoder, tokenizer: Tokenizer, special: Special, block: usize, device: Device) -> Self {
        Self { encoder, tokenizer, special, block, device }
    }

    /// The tokens of a sentence with the special ones around them. A sentence that is too long is cut.
    ///
    /// # Errors
    /// If the tokenizer can't read it.
    pub fn ids(&self, sentence: &str) -> Result<Vec<u32>, String> {
        let mut ids = self.tokenizer.encode(sentence)?;
        ids.truncate(self.block - 2);
        Ok(self.special.wrap(&ids, None).0)
    }

    /// Embeds sentences, `batch_size` at a time. Sentences of like length are computed together; an embedding does not
    /// depend on its company by more than rounding.
    ///
    /// # Errors
    /// If the tokenizer can't read a sentence.
    pub fn embed(&self, sentences: &[impl AsRef<str>], batch_size: usize) -> Result<Vec<Embedding>, String> {
        let ids: Vec<Vec<u32>> = sentences.iter().map(|s| self.ids(s.as_ref())).collect::<Result<_, _>>()?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|i| ids[*i].len());
        let mut embeddings: Vec<Embedding> = ids.into_iter().map(|ids| Embedding { ids, vector: Vec::new() }).collect();
        for rows in order.chunks(batch_size.max(1)) {
            let sequences: Vec<_> = rows.iter().map(|i| embeddings[*i].ids.clone()).collect();
            for (i, vector) in rows.iter().zip(self.vectors(sequences)) {
                embeddings[*i].vector = vector;
            }
        }
        Ok(embeddings)
    }

    fn vectors(&self, sequences: Vec<Vec<u32>>) -> Vec<Vec<f32>> {
        let zeros = |ids: &Vec<u32>| vec![0; ids.len()];
        let sequences: Vec<_> = sequences.into_iter().map(|ids| (ids.clone(), zeros(&ids))).collect();
        let batch = Batch::new(&sequences, self.special.pad, &self.device);
        let x = self.encoder.forward(&batch, &mut Dropout::off());
        let [_, length, width] = x.dims();
        let x: Vec<f32> = x.into_data().try_into_vec().expect("vectors are 32-bit floats");
        x.chunks_exact(length * width)
            .zip(batch.lengths())
            .map(|(rows, length)| {
                let mut sum = vec![0.0f64; width];
                for row in rows[..length * width].chunks_exact(width) {
                    sum.iter_mut().zip(row).for_each(|(sum, v)| *sum += f64::from(*v));
                }
                let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                sum.iter().map(|v| (v / norm) as f32).collect()
            })
            .collect()
    }

    /// The attention weights `[H, T, T]` of each block.
    pub fn attention_weights(&self, ids: &[u32]) -> Vec<Tensor<3>> {
        let batch = Batch::new(&[(ids.to_vec(), vec![0; ids.len()])], self.special.pad, &self.device);
        self.encoder.attention_weights(&batch)
    }
}

/// Lines of a text ranked by the cosine of their embedding with a query's: place and cosine, the likest first.
pub fn rank(query: &[f32], lines: &[Embedding]) -> Vec<(usize, f32)> {
    let cosine = |line: &Embedding| query.iter().zip(&line.vector).map(|(a, b)| a * b).sum::<f32>();
    let mut ranked: Vec<(usize, f32)> = lines.iter().map(cosine).enumerate().collect();
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranked
}
