//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::sweep::Direction;

/// Reinforcement learning and generative models on simulators, in Rust.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train from a config; writes a run directory.
    Train(TrainArgs),
    /// Measure the trained agent or model of a run, or film the agent.
    Eval(EvalArgs),
    /// Draw pictures or text from the trained model of a run.
    Sample(SampleArgs),
    /// Write the trained agent's policy as safetensors, JSON and ONNX.
    Export(ExportArgs),
    /// Search over configurations with many runs; the same command goes on with a sweep that was stopped.
    Sweep(SweepArgs),
    /// Show a text as tokens, their numbers and the dictionary.
    Tokens(TokensArgs),
    /// Draw what each attention head of a trained model looks at in a text.
    Attention(AttentionArgs),
    /// Turn the lines of a file into vectors.
    Embed(EmbedArgs),
    /// Rank the lines of a file by their likeness to a query.
    Similar(SimilarArgs),
    /// Compare runs, or show a sweep, as one HTML page with plots and numbers.
    Report(ReportArgs),
    /// Measure how fast this machine is, and compare with a record or another program.
    Bench(BenchArgs),
    /// List environments, wrappers, algorithms, models and data sets.
    List(ListArgs),
    /// Look at an environment.
    Env(EnvArgs),
    /// Get data sets.
    Data(DataArgs),
    /// Show devices, CPU features and what is wrong with them.
    Doctor,
}

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// The config file, for example configs/ppo-cartpole.toml; not needed with --resume.
    #[arg(required_unless_present = "resume")]
    pub config: Option<PathBuf>,
    /// Overrides, as in agent.gamma=0.98.
    #[arg(value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Go on with this run directory from its newest checkpoint.
    #[arg(long, value_name = "RUN")]
    pub resume: Option<PathBuf>,
    /// Where to learn: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The run directory.
    pub run: PathBuf,
    /// Number of episodes.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    /// Seed of the episodes; the run's own without it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Measure the best checkpoint (train.save_best) instead of the newest.
    #[arg(long)]
    pub best: bool,
    /// Film an episode into this GIF.
    #[arg(long, value_name = "FILE")]
    pub gif: Option<PathBuf>,
    /// Measure a model on the data in this folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// The run directory.
    pub run: PathBuf,
    /// The folder for policy.safetensors, policy.json and policy.onnx.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Export the best checkpoint (train.save_best) instead of the newest.
    #[arg(long)]
    pub best: bool,
}

#[derive(Debug, Args)]
pub struct SampleArgs {
    /// The run directory.
    pub run: PathBuf,
    /// The model's own options, as in steps=50.
    #[arg(value_name = "KEY=VALUE")]
    pub options: Vec<String>,
    /// Number of samples.
    #[arg(long, value_parser = at_least_one)]
    pub count: Option<usize>,
    /// The picture to write.
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// Seed of the samples; the run's own without it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// The text to go on from.
    #[arg(long)]
    pub prompt: Option<String>,
}

#[derive(Debug, Args)]
pub struct SweepArgs {
    /// The sweep file, for example configs/sweeps/ppo-cartpole.toml.
    pub file: PathBuf,
    /// The sweep's directory; runs/sweeps/NAME without it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Trials at once: 1 here without it, 64 on a cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub jobs: Option<u16>,
    /// Where trials run.
    #[arg(long, value_enum, default_value_t = LauncherKind::Local)]
    pub launcher: LauncherKind,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LauncherKind {
    /// Child processes on this machine.
    Local,
    /// A job array on a Slurm cluster.
    Slurm,
}

#[derive(Debug, Args)]
pub struct TokensArgs {
    /// The text.
    pub text: String,
    /// char, word, bpe or wordpiece; or a tokenizer.json, or a folder or run that has one.
    #[arg(long, default_value = "word")]
    pub tokenizer: String,
    /// The texts to learn the dictionary from; the text itself without them.
    #[arg(long, value_name = "FILE.txt", num_args = 1..)]
    pub train: Vec<PathBuf>,
    /// Number of tokens that bpe and wordpiece learn.
    #[arg(long, default_value_t = 1000)]
    pub vocab_size: usize,
    /// Words that are rarer are unknown.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub min_count: u64,
    /// Bring words to lower case.
    #[arg(long)]
    pub lowercase: bool,
    /// Write the tokenizer to this file.
    #[arg(long, value_name = "FILE.json")]
    pub save: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct AttentionArgs {
    /// The run directory.
    pub run: PathBuf,
    /// The text to look at.
    pub text: String,
    /// The picture to write; attention.png without it, and none with --json.
    #[arg(long, value_name = "FILE.png")]
    pub out: Option<PathBuf>,
    /// Print tokens and weights as one JSON object.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// The run of a bert, or a folder with config.json, model.safetensors and tokenizer.json.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The text file, a sentence a line.
    #[arg(long, value_name = "FILE.txt")]
    pub input: PathBuf,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Print only how many sentences a second were embedded.
    #[arg(long, conflicts_with = "json")]
    pub time: bool,
}

#[derive(Debug, Args)]
pub struct SimilarArgs {
    /// The run of a bert, or a folder with config.json, model.safetensors and tokenizer.json.
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// What to look for.
    pub query: String,
    /// The text file, a sentence a line.
    pub file: PathBuf,
    /// Number of lines to show.
    #[arg(long, default_value_t = 10, value_parser = at_least_one)]
    pub count: usize,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long)]
    pub device: Option<String>,
    /// Print one JSON object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Run directories, sweeps, or folders of them.
    #[arg(required = true, value_name = "RUN|SWEEP")]
    pub paths: Vec<PathBuf>,
    /// Where to write; the folder report in the first path without it.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// What runs are judged by, a dotted key of summary.json; without it, eval.mean for agents, for models their loss.
    #[arg(long, value_name = "KEY")]
    pub objective: Option<String>,
    /// Which way is better; without it, losses and times are minimized, returns, accuracies and the like maximized.
    #[arg(long, value_enum)]
    pub direction: Option<Better>,
    /// The score from which the optimality gap is measured; the environment's threshold without it.
    #[arg(long, value_name = "SCORE", allow_negative_numbers = true)]
    pub target: Option<f64>,
    /// Print nothing but errors.
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Better {
    Maximize,
    Minimize,
}

impl From<Better> for Direction {
    fn from(better: Better) -> Self {
        match better {
            Better::Maximize => Self::Maximize,
            Better::Minimize => Self::Minimize,
        }
    }
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Parts of benchmarks' names, as in vec_env/CartPole or algorithm; everything without them.
    #[arg(value_name = "FILTER")]
    pub filters: Vec<String>,
    /// Print the names of the benchmarks and measure nothing.
    #[arg(long)]
    pub list: bool,
    /// Numbers of threads, as in 1,2; one and all without it.
    #[arg(long, value_name = "N,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Vec<u16>,
    /// Environments of a batch.
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = num_envs)]
    pub num_envs: usize,
    /// Few and short samples.
    #[arg(long)]
    pub quick: bool,
    /// Samples of each benchmark: 10, or 5 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub rounds: Option<u16>,
    /// Length of a sample in milliseconds: 50, or 10 with --quick.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub sample_ms: Option<u64>,
    /// Count processor time instead of wall time, for machines that others use: rates are then those of one core.
    #[arg(long)]
    pub cpu_time: bool,
    /// Keep the measurements under this name.
    #[arg(long, value_name = "NAME")]
    pub save: Option<String>,
    /// Keep a copy of this program beside them, to measure in turn with a later one.
    #[arg(long, requires = "save")]
    pub keep_program: bool,
    /// Compare with the measurements of this name; in turn with the program where a copy of it was kept.
    #[arg(long, value_name = "NAME", group = "comparison")]
    pub against: Option<String>,
    /// Compare with this other hotfire program, in turn.
    #[arg(long, value_name = "PATH", group = "comparison")]
    pub against_binary: Option<PathBuf>,
    /// Where measurements are kept.
    #[arg(long, value_name = "DIR", default_value = "runs/bench")]
    pub dir: PathBuf,
    /// End with exit code 1 if a benchmark is slower.
    #[arg(long, requires = "comparison")]
    pub fail_if_slower: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
    /// For comparisons: the filters are whole names, those that are not known are left out, the answer is JSON.
    #[arg(long, hide = true)]
    pub round: bool,
}

fn num_envs(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=1 << 20).contains(n)).ok_or_else(|| "expected a number from 1 to 1048576".into())
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// What to list; everything without it.
    pub what: Option<Listing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    Envs,
    Wrappers,
    Algorithms,
    Models,
    Data,
}

#[derive(Debug, Args)]
pub struct DataArgs {
    #[command(subcommand)]
    pub command: DataCommand,
}

#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Download a whole data set and check it.
    Fetch(FetchArgs),
    /// Write pictures of a run's trained agent at work, for the data set `folder`.
    Frames(FramesArgs),
}

#[derive(Debug, Args)]
pub struct FetchArgs {
    /// The set: mnist or fashion-mnist.
    pub name: String,
    /// The folder to write; datasets/NAME without it.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Addresses of folders that hold the files, in place of the known ones.
    #[arg(long = "mirror", value_name = "URL")]
    pub mirrors: Vec<String>,
}

#[derive(Debug, Args)]
pub struct FramesArgs {
    /// The run directory.
    pub run: PathBuf,
    /// The folder to write.
    #[arg(long)]
    pub out: PathBuf,
    /// Number of pictures.
    #[arg(long, default_value_t = 1000, value_parser = at_least_one)]
    pub count: usize,
    /// Environment steps between two pictures.
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    pub every: usize,
    /// Seed of the episodes; the run's own without it.
    #[arg(long)]
    pub seed: Option<u64>,
}

#[derive(Debug, Args)]
pub struct EnvArgs {
    #[command(subcommand)]
    pub command: EnvCommand,
}

#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Film an environment under random actions or a trained agent.
    Render(RenderArgs),
    /// Play an environment with the keyboard, in the terminal.
    Play(PlayArgs),
    /// Check that an environment keeps its contract.
    Check {
        /// The environment's id, for example CartPole-v1.
        id: String,
        /// Replay the episodes recorded in this file instead.
        #[arg(long, value_name = "FILE.jsonl")]
        trace: Option<PathBuf>,
        /// Difference of an observation or reward that the replay allows.
        #[arg(long, default_value_t = 0.0, requires = "trace")]
        tolerance: f64,
    },
}

#[derive(Debug, Args)]
pub struct RenderArgs {
    /// The environment's id, for example CartPole-v1.
    pub id: String,
    /// Options and wrappers, as in env.options.wind=12 or 'env.wrappers=["sticky_action"]'.
    #[arg(value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Who acts: random, or the run directory of a trained agent.
    #[arg(long, value_name = "random|RUN", default_value = "random")]
    pub policy: String,
    /// The film to write: a GIF, or a video by `ffmpeg` for another ending, such as .mp4.
    #[arg(long, value_name = "FILE")]
    pub gif: PathBuf,
    /// Number of episodes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub episodes: u32,
    /// Most steps, of all episodes together.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    pub steps: u32,
    /// Seed of the first episode, later ones go on from it, and of random actions: 0 without it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Pictures a second; the environment's own number without it.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub fps: Option<u32>,
    /// Let the agent of the best checkpoint (train.save_best) act instead of the newest.
    #[arg(long)]
    pub best: bool,
}

#[derive(Debug, Args)]
pub struct PlayArgs {
    /// The environment's id, for example CartPole-v1.
    pub id: String,
    /// Options and wrappers, as in env.options.wind=12 or 'env.wrappers=["sticky_action"]'.
    #[arg(value_name = "SECTION.KEY=VALUE")]
    pub overrides: Vec<String>,
    /// Seed of the first episode, later ones go on from it; the clock's without it.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Steps a second; the environment's own number without it. Games that wait for a key have none.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub fps: Option<u32>,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "expected a whole number above 0".into())
}
