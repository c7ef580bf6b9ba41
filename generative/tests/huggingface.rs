//! Folders in Hugging Face's form: a small one of our own is read, and each kind of damage is named.

use std::collections::BTreeMap;
use std::path::Path;

use burn::prelude::Device;
use hotfire_generative::huggingface::Pretrained;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

const WIDTH: usize = 8;
const VOCABULARY: &str = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\ncat\n##s\nsat\n";

type Tensors = BTreeMap<String, Vec<usize>>;

fn tensors() -> Tensors {
    let mut tensors = Tensors::new();
    let mut add = |name: &str, shape: &[usize]| tensors.insert(name.to_owned(), shape.to_vec());
    add("embeddings.position_ids", &[1, 16]);
    add("embeddings.word_embeddings.weight", &[9, WIDTH]);
    add("embeddings.position_embeddings.weight", &[16, WIDTH]);
    add("embeddings.token_type_embeddings.weight", &[2, WIDTH]);
    let mut norms = vec!["embeddings.LayerNorm".to_owned()];
    let mut dense = Vec::new();
    for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        dense.push((format!("encoder.layer.0.{part}"), [WIDTH, WIDTH]));
    }
    dense.push(("encoder.layer.0.intermediate.dense".into(), [4 * WIDTH, WIDTH]));
    dense.push(("encoder.layer.0.output.dense".into(), [WIDTH, 4 * WIDTH]));
    norms.push("encoder.layer.0.attention.output.LayerNorm".into());
    norms.push("encoder.layer.0.output.LayerNorm".into());
    for (name, [outputs, inputs]) in dense {
        add(&format!("{name}.weight"), &[outputs, inputs]);
        add(&format!("{name}.bias"), &[outputs]);
    }
    for name in norms {
        add(&format!("{name}.weight"), &[WIDTH]);
        add(&format!("{name}.bias"), &[WIDTH]);
    }
    tensors
}

fn write(dir: &Path, tensors: &Tensors) {
    let config = r#"{"model_type": "bert", "hidden_act": "gelu", "vocab_size": 9, "hidden_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 16}"#;
    std::fs::write(dir.join("config.json"), config).unwrap();
    std::fs::write(dir.join("vocab.txt"), VOCABULARY).unwrap();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, shape)| {
            let count: usize = shape.iter().product();
            let values = (0..count).flat_map(|i| (((i * 37 + name.len()) % 19) as f32 / 19.0 - 0.4).to_le_bytes());
            (name.clone(), shape.clone(), values.collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    std::fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

fn load(dir: &Path) -> Result<Pretrained, String> {
    Pretrained::load(dir, &Device::flex()).map_err(|error| error.to_string())
}

#[test]
fn a_folder_is_read_and_embeds() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &tensors());
    let embedder = load(dir.path()).unwrap().into_embedder(Device::flex());
    let embeddings = embedder.embed(&["The cats sat", "dog"], 2).unwrap();
    assert_eq!(embeddings[0].ids, [2, 5, 6, 7, 8, 3]);
    assert_eq!(embeddings[1].ids, [2, 1, 3]);
    let length: f32 = embeddings[0].vector.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-5);
    // A prefix, as the files of models with heads have, changes nothing.
    let prefixed: Tensors = tensors().into_iter().map(|(name, shape)| (format!("bert.{name}"), shape)).collect();
    write(dir.path(), &prefixed);
    load(dir.path()).unwrap();
}

#[test]
fn damage_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors();
        change(&mut tensors);
        write(dir.path(), &tensors);
        load(dir.path()).unwrap_err()
    };
    let missing = problem(&|t| drop(t.remove("encoder.layer.0.output.dense.bias")));
    assert!(
        missing.ends_with("model.safetensors: encoder.layer.0.output.dense.bias is missing, expected with shape [8]"),
        "{missing}"
    );
    let shape = problem(&|t| drop(t.insert("embeddings.word_embeddings.weight".into(), vec![9, 7])));
    assert!(shape.ends_with("embeddings.word_embeddings.weight: expected shape [9, 8], found [9, 7]"), "{shape}");
    let extra = problem(&|t| drop(t.insert("encoder.layer.1.output.dense.bias".into(), vec![8])));
    assert!(extra.contains("found encoder.layer.1.output.dense.bias of shape [8]"), "{extra}");

    write(dir.path(), &tensors());
    let config = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("config.json"), config.replace("embeddings\": 16", "embeddings\": 2")).unwrap();
    let short = load(dir.path()).unwrap_err();
    assert!(short.ends_with("config.json: max_position_embeddings: expected at least 3, found 2"), "{short}");
    std::fs::write(dir.path().join("config.json"), &config).unwrap();
    let truncation = hotfire_generative::text::Tokenizer::load(&dir.path().join("vocab.txt")).unwrap().to_json().replace(
        "\"truncation\": null",
        "\"truncation\": {\"direction\": \"Right\", \"max_length\": 2, \"strategy\": \"LongestFirst\", \"stride\": 0}",
    );
    std::fs::write(dir.path().join("tokenizer.json"), truncation).unwrap();
    let short = load(dir.path()).unwrap_err();
    assert!(short.ends_with("tokenizer.json: truncation.max_length: expected at least 3, found 2"), "{short}");
    std::fs::remove_file(dir.path().join("tokenizer.json")).unwrap();

    std::fs::write(dir.path().join("vocab.txt"), VOCABULARY.replace("sat\n", "")).unwrap();
    assert!(load(dir.path()).unwrap_err().ends_with("vocab.txt: expected 9 tokens, as config.json says, found 8"));
    std::fs::write(dir.path().join("config.json"), r#"{"model_type": "t5"}"#).unwrap();
    assert!(load(dir.path()).unwrap_err().contains("config.json"));
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(load(dir.path()).unwrap_err().contains("config.json: cannot read"));
}
