//! What the heads of a Transformer look at in a text.

use burn::prelude::*;

use super::tokenizer::Tokenizer;

/// The attention weights of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionMaps {
    /// The text's `T` tokens, as people read them.
    pub tokens: Vec<String>,
    /// For each layer and head, `[T, T]`: a row are the weights with which a token attends to each.
    pub layers: Vec<Vec<Vec<f32>>>,
}

impl AttentionMaps {
    /// Maps from the weights `[H, T, T]` of each layer.
    pub fn new(tokenizer: &Tokenizer, ids: &[u32], layers: Vec<Tensor<3>>) -> Self {
        let read = |weights: Tensor<3>| {
            let [_, rows, columns] = weights.dims();
            let values: Vec<f32> = weights.into_data().try_into_vec().expect("weights are 32-bit floats");
            values.chunks_exact(rows * columns).map(<[f32]>::to_vec).collect()
        };
        let mut maps = Self { tokens: Vec::new(), layers: layers.into_iter().map(read).collect() };
        let names: Vec<String> = ids.iter().map(|id| tokenizer.token(*id).unwrap_or_default()).collect();
        maps.name_tokens(names.iter().map(String::as_str));
        maps
    }

    /// Gives the tokens names; blanks and line breaks become visible.
    pub fn name_tokens<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let visible = |name: &str| match name {
            "\n" => "¶".to_owned(),
            " " => "·".to_owned(),
            name => name.to_owned(),
        };
        self.tokens = names.map(visible).collect();
    }
}
