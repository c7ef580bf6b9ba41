//! Training and sampling of every registered model with its default settings: shapes of 28 x 28 for models of pictures,
//! made-up sentences for models of text. No files are needed.

use std::path::Path;

use burn::prelude::Device;
use hotfire_core::config::{ConfigDocument, ConfigError};
use hotfire_core::seed::{StreamRng, stream};
use hotfire_generative::{MODELS, Model, ModelSetting, ModelSpec, SampleRequest};

use crate::workload::Problem;
use crate::{Prepared, Workload};

const PICTURES: usize = 4;
const TOKENS: usize = 64;

/// A step of every model, and of the U-Net of the reference size.
pub fn training() -> Vec<Workload> {
    let of = |spec: &'static ModelSpec, name: String, settings: &'static str| {
        Workload::new("train", name, "batches", move || {
            let mut model = default_model(spec, settings)?;
            model.iterate()?;
            Ok(Prepared::new(1, move || {
                model.iterate().expect("it was iterated before");
            }))
        })
    };
    let wide = MODELS.iter().filter(|spec| spec.name == "diffusion");
    let wide = wide.map(|spec| of(spec, format!("{}, base 32", spec.name), "base_channels = 32"));
    MODELS.iter().map(|spec| of(spec, spec.name.to_owned(), "")).chain(wide).collect()
}

/// Drawing from every model: pictures, a continued text, or an answer to a sentence.
pub fn sampling() -> Vec<Workload> {
    let of = |spec: &'static ModelSpec| Workload::new("sample", spec.name, "calls", move || sampler(spec));
    MODELS.iter().map(of).collect()
}

/// Sentences of made-up words: as many letters as English uses, frequent and rare words.
pub fn sentences(seed: u64, count: usize) -> String {
    let mut rng = stream(seed, "bench text", 0);
    let letter = |rng: &mut StreamRng| char::from(b'a' + rng.below(26) as u8);
    let words: Vec<String> = (0..2000).map(|_| (0..2 + rng.below(7)).map(|_| letter(&mut rng)).collect()).collect();
    let mut text = String::new();
    for _ in 0..count {
        for at in 0..8 + rng.below(8) {
            // The square of a uniform number prefers the first words.
            let word = &words[(rng.uniform().powi(2) * words.len() as f32) as usize % words.len()];
            let word = if at == 0 { word[..1].to_uppercase() + &word[1..] } else { word.clone() };
            text += if at == 0 { "" } else { " " };
            text += &word;
        }
        text += ".\n";
    }
    text
}

/// The model with its default settings and further ones.
///
/// # Errors
/// If it takes neither pictures nor text.
pub fn default_model(spec: &ModelSpec, settings: &str) -> Result<Box<dyn Model>, Problem> {
    let dir = tempfile::tempdir()?;
    let files = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
    for (seed, file) in files.iter().enumerate() {
        std::fs::write(file, sentences(seed as u64, 1000))?;
    }
    let make = |data: String, settings: &str| -> Result<Box<dyn Model>, ConfigError> {
        let mut document = ConfigDocument::parse(spec.name, &format!("[data]\n{data}\n[model]\n{settings}\n"), &[])?;
        let setting = ModelSetting { seed: 0, device: &Device::flex(), total_steps: 1 << 40, epochs: 0, batch_size: 0 };
        (spec.make)(&mut document, &setting)
    };
    let text = |tokenizer| format!("files = {files:?}\ntokenizer = \"{tokenizer}\"\nvocab_size = 512");
    let shapes = "name = \"shapes\"\nsize = 28\ntrain_count = 2048\ntest_count = 64".to_owned();
    let made = [shapes, text("char"), text("wordpiece")].into_iter().map(|data| make(data, settings));
    let mut refused = None;
    for model in made {
        match model {
            Ok(model) => return Ok(model),
            Err(error) => refused = Some(error.into()),
        }
    }
    Err(refused.expect("there are data sets"))
}

/// A model that answers one of the requests that models answer.
fn sampler(spec: &ModelSpec) -> Result<Prepared, Problem> {
    let mut model = default_model(spec, "")?;
    model.iterate()?;
    let dir = tempfile::tempdir()?;
    let mut refused = None;
    for request in [Request::Pictures, Request::Text, Request::Answer] {
        match request.answer(model.as_mut(), dir.path()) {
            Ok(()) => {
                return Ok(Prepared::new(1, move || {
                    request.answer(model.as_mut(), dir.path()).expect("it was answered before");
                }));
            }
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.expect("there are requests"))
}

/// What may be asked of a model.
#[derive(Clone, Copy)]
enum Request {
    Pictures,
    Text,
    Answer,
}

impl Request {
    fn answer(self, model: &mut dyn Model, dir: &Path) -> Result<(), Problem> {
        let mut request =
            SampleRequest { count: None, out: None, seed: 0, prompt: None, options: Vec::new(), text: &mut |_| {} };
        match self {
            Self::Pictures => (request.count, request.out) = (Some(PICTURES), Some(dir.join("samples.png"))),
            Self::Text => request.options.push(("tokens".into(), TOKENS.to_string())),
            Self::Answer => request.prompt = Some("the [MASK] is here".into()),
        }
        model.sample(&mut request)?;
        Ok(())
    }
}
