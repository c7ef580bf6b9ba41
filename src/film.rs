//! `hotfire env render`: a film of an environment under random actions or a trained agent.

use hotfire_agents::{EnvConfig, EnvView, Policy, open_video};
use hotfire_core::CoreError;
use hotfire_core::config::ConfigDocument;
use hotfire_envs::{AutoresetMode, Buffer, EnvError, NpRng, VecEnv};
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::RenderArgs;
use crate::train::{RunTask, load_run};

/// The environment of this id with overrides as on a config: `env.options.wind=12`, `env.wrappers=["clip_reward"]`.
pub fn env_config(id: &str, overrides: &[String]) -> Result<EnvConfig, CoreError> {
    let overrides = [&[format!("env.id={}", toml::Value::from(id))], overrides].concat();
    let mut document = ConfigDocument::parse("command line", "", &overrides)?;
    let config = EnvConfig::read(&mut document)?;
    document.finish()?;
    Ok(config)
}

/// One environment that stays at an episode's last state until it is reset.
pub fn one_env(config: &EnvConfig) -> Result<VecEnv, CoreError> {
    let env = config.spec.make_wrapped(&config.options, &config.wrappers, 0, open_video);
    env.and_then(|env| VecEnv::from_envs(config.spec.id, vec![env], AutoresetMode::Disabled)).map_err(failed)
}

fn failed(error: EnvError) -> CoreError {
    CoreError::Failed(error.to_string())
}

/// Who acts.
enum Pilot {
    Random(NpRng),
    Agent(Box<dyn Policy>),
}

impl Pilot {
    fn act(&mut self, envs: &VecEnv, actions: &mut Buffer) -> Result<(), EnvError> {
        match self {
            Self::Random(rng) => envs.action_space().sample_into(rng, actions.as_mut()),
            Self::Agent(policy) => {
                policy.act(EnvView::of(envs), actions);
                Ok(())
            }
        }
    }
}

pub fn render(args: &RenderArgs) -> anyhow::Result<()> {
    let seed = args.seed.unwrap_or(0);
    let (config, mut pilot) = match args.policy.as_str() {
        "random" => (env_config(&args.id, &args.overrides)?, Pilot::Random(NpRng::seed(!seed))),
        run => {
            let id = format!("env.id={}", toml::Value::from(args.id.as_str()));
            let overrides: Vec<_> = [id].into_iter().chain(args.overrides.iter().cloned()).collect();
            let RunTask::Agent(task) = load_run(run.as_ref(), &overrides, args.best)?.task else {
                return Err(
                    CoreError::Usage(format!("{run} is the run of a model, which acts in no environment")).into()
                );
            };
            (task.env_config().clone(), Pilot::Agent(task.agent().policy()))
        }
    };
    let mut envs = one_env(&config)?;
    envs.reset(seed);
    let mut actions = Buffer::new(envs.action_space(), 1);
    let frame = |envs: &VecEnv| {
        let frame = envs.env(0).render();
        frame.ok_or_else(|| CoreError::Usage(format!("{} has no pictures to film", args.id)))
    };
    let first = frame(&envs)?;
    let fps = args.fps.unwrap_or(config.spec.render_fps);
    let mut film = open_video(&args.gif, first.width, first.height, fps)?;
    film.push(&first)?;
    let progress = ProgressBar::new(args.steps.into()).with_style(
        ProgressStyle::with_template("{bar:30} {percent:>3}% {human_pos} pictures, {per_sec}, {eta} left")
            .expect("the template is well-formed"),
    );
    let (mut ends, mut steps) = (Vec::new(), 0);
    while ends.len() < args.episodes as usize && steps < args.steps {
        pilot.act(&envs, &mut actions)?;
        envs.step(actions.as_actions())?;
        steps += 1;
        progress.inc(1);
        let last = frame(&envs)?;
        film.push(&last)?;
        let ended = envs.ended_episodes().next();
        if let Some(episode) = ended {
            let how = if envs.terminated()[0] { "terminated" } else { "truncated" };
            ends.push(format!("{how} after {} steps with a return of {:.2}", episode.length, episode.episode_return));
            // The end stays in view for most of a second.
            (0..fps * 3 / 4).try_for_each(|_| film.push(&last))?;
            envs.reset_masked(&[true])?;
            if ends.len() < args.episodes as usize && steps < args.steps {
                film.push(&frame(&envs)?)?;
            }
        }
    }
    progress.finish_and_clear();
    film.finish()?;
    println!("{}: {steps} steps of {}", args.gif.display(), args.id);
    for (i, end) in ends.iter().enumerate() {
        println!("  episode {} {end}", i + 1);
    }
    Ok(())
}
