//! Text from a language model, a token at a time.

use std::path::{Path, PathBuf};
use std::time::Instant;

use hotfire_core::CoreError;
use hotfire_core::metrics::Metrics;
use hotfire_core::seed::{StreamRng, stream};

use super::tokenizer::Tokenizer;
use crate::sampling::Options;
use crate::{Model, SampleReport, SampleRequest};

/// How the next token is drawn from the logits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f64,
    /// Only this many of the likeliest tokens are drawn from; 0 means all.
    pub top_k: usize,
    /// Only the fewest tokens whose probabilities reach this sum are drawn from (Holtzman et al. 2020).
    pub top_p: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 0.8, top_k: 0, top_p: 1.0 }
    }
}

impl Sampling {
    /// Draws a token. Equal logits are taken in the order of their numbers.
    pub fn pick(&self, logits: &[f32], rng: &mut StreamRng) -> u32 {
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let logit = |id: u32| f64::from(logits[id as usize]);
        order.sort_by(|a, b| logit(*b).total_cmp(&logit(*a)).then(a.cmp(b)));
        if self.temperature == 0.0 {
            return order[0];
        }
        if self.top_k > 0 {
            order.truncate(self.top_k);
        }
        let largest = logit(order[0]);
        let weights: Vec<f64> = order.iter().map(|id| ((logit(*id) - largest) / self.temperature).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut kept = 0.0;
        let mut count = 0;
        for weight in &weights {
            kept += weight;
            count += 1;
            if kept >= self.top_p * total {
                break;
            }
        }
        let mut left = rng.uniform_f64() * kept;
        for (id, weight) in order[..count].iter().zip(&weights) {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        order[count - 1]
    }
}

/// A language model that reads a text once, from left to right.
pub trait NextToken {
    /// Forgets what was read.
    fn restart(&mut self);

    /// Reads on and returns the logits of the token after the last one.
    fn read(&mut self, ids: &[u32]) -> Vec<f32>;

    /// How many tokens it can have read at most.
    fn context(&self) -> Option<usize>;
}

/// Answers a request for text: streams `count` continuations of the prompt to `request.text`. Options: `tokens=`,
/// `temperature=`, `top_k=`, `top_p=`.
///
/// Beyond the model's context it reads the last half of the context anew, so that a token costs one reading step.
///
/// # Errors
/// For options out of range and prompts that the model can't read.
pub fn generate(
    request: &mut SampleRequest<'_>,
    tokenizer: &Tokenizer,
    model: &mut dyn NextToken,
) -> Result<SampleReport, CoreError> {
    if request.out.is_some() {
        return Err(CoreError::Usage(
            "--out: a language model writes text to the standard output, not a picture".into(),
        ));
    }
    let mut options = Options::of(request);
    let usual = Sampling::default();
    let length = options.value("tokens", "a whole number above 0", |n| *n > 0)?.unwrap_or(200usize);
    let sampling = Sampling {
        temperature: options
            .value("temperature", "a number not below 0", |t: &f64| *t >= 0.0 && t.is_finite())?
            .unwrap_or(usual.temperature),
        top_k: options.value("top_k", "a whole number; 0 means all", |_| true)?.unwrap_or(usual.top_k),
        top_p: options
            .value("top_p", "a number above 0 and not above 1", |p| *p > 0.0 && *p <= 1.0)?
            .unwrap_or(usual.top_p),
    };
    options.finish()?;
    let prompt = match &request.prompt {
        Some(prompt) => {
            tokenizer.encode_known(prompt).map_err(|problem| CoreError::Usage(format!("--prompt: {problem}")))?
        }
        None => Vec::new(),
    };
    if let Some(context) = model.context().filter(|context| prompt.len() > *context) {
        let problem =
            format!("--prompt: expected at most {context} tokens (the model's block), found {}", prompt.len());
        return Err(CoreError::Usage(problem));
    }
    // Encoded, since the token of a line break has another name where bytes have stand-ins.
    let line_break = || tokenizer.encode("\n").ok().and_then(|ids| ids.last().copied()).unwrap_or(0);
    let start = if prompt.is_empty() { vec![line_break()] } else { prompt.clone() };

    let count = request.count.unwrap_or(1);
    let started = Instant::now();
    for sample in 0..count {
        if count > 1 {
            (request.text)(&format!("--- {}\n", sample + 1));
        }
        let mut rng = stream(request.seed, "text", sample as u64);
        let mut ids = start.clone();
        // Without a prompt the text begins after the line break that stands for it.
        let shown_from = if prompt.is_empty() { 1 } else { 0 };
        let mut shown = String::new();
        let mut show = |ids: &[u32], last: bool| {
            let text = tokenizer.decode(&ids[shown_from..]);
            // A character may still lack bytes.
            let whole = last || !text.ends_with('\u{FFFD}');
            if whole && let Some(more) = text.strip_prefix(shown.as_str()) {
                (request.text)(more);
                shown = text;
            }
        };
        show(&ids, false);
        model.restart();
        let mut logits = model.read(&ids);
        let mut read = ids.len();
        for i in 0..length {
            ids.push(sampling.pick(&logits, &mut rng));
            show(&ids, i + 1 == length);
            if i + 1 == length {
                break;
            }
            logits = match model.context() {
                Some(context) if read == context => {
                    model.restart();
                    read = context.div_ceil(2);
                    model.read(&ids[ids.len() - read..])
                }
                _ => {
                    read += 1;
                    model.read(&ids[ids.len() - 1..])
                }
            };
        }
        (request.text)("\n");
    }
    let mut metrics = Metrics::new();
    metrics.push("tokens", (count * length) as f64);
    metrics.push("tokens_per_second", (count * length) as f64 / started.elapsed().as_secs_f64().max(1e-9));
    Ok(SampleReport { files: Vec::new(), metrics })
}

/// Writes 500 tokens of a language model to a file, which it returns.
///
/// # Errors
/// If the file can't be written.
pub fn write_sample(model: &mut dyn Model, path: &Path, seed: u64) -> Result<Vec<PathBuf>, CoreError> {
    let mut text = String::new();
    let mut take = |more: &str| text.push_str(more);
    let mut request = SampleRequest {
        count: None,
        out: None,
        seed,
        prompt: None,
        options: vec![("tokens".into(), "500".into())],
        text: &mut take,
    };
    model.sample(&mut request)?;
    std::fs::write(path, text).map_err(CoreError::io(path, "write"))?;
    Ok(vec![path.to_path_buf()])
}

#[cfg(test)]
mod tests {
    use super::super::{TokenizerKind, TokenizerSetting};
    use super::*;

    fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut rng = stream(1, "test", 0);
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampling.pick(logits, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn draws_follow_temperature_top_k_and_top_p() {
        let logits = [1.0f32, 3.0, 2.0, 0.0];
        let close = |got: Vec<f64>, want: [f64; 4]| {
            assert!(got.iter().zip(&want).all(|(a, b)| (a - b).abs() < 0.015), "{got:?} against {want:?}");
        };
        let all = Sampling { temperature: 1.0, top_k: 0, top_p: 1.0 };
        close(frequencies(all, &logits), [0.087, 0.644, 0.237, 0.032]);
        close(frequencies(Sampling { temperature: 0.5, ..all }, &logits), [0.016, 0.865, 0.117, 0.002]);
        close(frequencies(Sampling { top_k: 2, ..all }, &logits), [0.0, 0.731, 0.269, 0.0]);
        close(frequencies(Sampling { top_p: 0.6, ..all }, &logits), [0.0, 1.0, 0.0, 0.0]);
        close(frequencies(Sampling { top_p: 0.7, ..all }, &logits), [0.0, 0.731, 0.269, 0.0]);
        close(frequencies(Sampling { temperature: 0.0, ..all }, &logits), [0.0, 1.0, 0.0, 0.0]);
    }

    /// Prefers the token after the last one it read, and counts what it read.
    struct Successor {
        read: usize,
        longest: usize,
    }

    impl NextToken for Successor {
        fn restart(&mut self) {
            self.read = 0;
        }
        fn read(&mut self, ids: &[u32]) -> Vec<f32> {
            self.read += ids.len();
            self.longest = self.longest.max(self.read);
            let next = (ids[ids.len() - 1] as usize + 1) % 5;
            (0..5).map(|id| if id == next { 9.0 } else { 0.0 }).collect()
        }
        fn context(&self) -> Option<usize> {
            Some(6)
        }
    }

    fn tokenizer(kind: TokenizerKind, text: &str) -> Tokenizer {
        let setting = TokenizerSetting { kind, vocab_size: 300, min_count: 1, lowercase: false };
        Tokenizer::train(&setting, text).unwrap()
    }

    fn answer(prompt: &str, options: &[(&str, &str)]) -> Result<(String, usize), CoreError> {
        let mut text = String::new();
        let mut model = Successor { read: 0, longest: 0 };
        let mut take = |more: &str| text.push_str(more);
        let mut request = SampleRequest {
            count: None,
            out: None,
            seed: 1,
            prompt: Some(prompt.into()),
            options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            text: &mut take,
        };
        generate(&mut request, &tokenizer(TokenizerKind::Char, "abcde"), &mut model)?;
        Ok((text, model.longest))
    }

    #[test]
    fn goes_on_beyond_the_context() {
        let (text, longest) = answer("abc", &[("tokens", "12"), ("temperature", "0")]).unwrap();
        assert_eq!(text, "abcdeabcdeabcde\n");
        assert_eq!(longest, 6);
    }

    /// Keeps what it read first.
    struct Listener(Vec<u32>);

    impl NextToken for Listener {
        fn restart(&mut self) {}
        fn read(&mut self, ids: &[u32]) -> Vec<f32> {
            if self.0.is_empty() {
                self.0 = ids.to_vec();
            }
            vec![0.0; 5]
        }
        fn context(&self) -> Option<usize> {
            None
        }
    }

    #[test]
    fn without_a_prompt_a_text_begins_after_a_line_break() {
        for kind in [TokenizerKind::Char, TokenizerKind::Word, TokenizerKind::Bpe] {
            let tokenizer = tokenizer(kind, "one\ntwo\n");
            let mut model = Listener(Vec::new());
            let mut request = SampleRequest {
                count: None,
                out: None,
                seed: 1,
                prompt: None,
                options: vec![("tokens".into(), "2".into())],
                text: &mut |_| {},
            };
            generate(&mut request, &tokenizer, &mut model).unwrap();
            assert_eq!(tokenizer.decode(&model.0), "\n", "{kind:?}");
        }
    }

    #[test]
    fn wrong_requests_are_refused() {
        let problem = |prompt: &str, options: &[(&str, &str)]| answer(prompt, options).unwrap_err().to_string();
        assert_eq!(problem("abcabca", &[]), "--prompt: expected at most 6 tokens (the model's block), found 7");
        assert_eq!(problem("ax", &[]), "--prompt: byte 1: the character 'x' is not in the dictionary of 5");
        assert_eq!(problem("a", &[("top_p", "2")]), "top_p=2: expected a number above 0 and not above 1");
        assert!(problem("a", &[("steps", "3")]).starts_with("steps=3: this model has no such option"));
    }
}
