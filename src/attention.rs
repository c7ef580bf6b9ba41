//! `hotfire attention`: what each head of a trained Transformer looks at, as a picture.

use std::path::PathBuf;

use hotfire_core::CoreError;
use hotfire_core::heat_map::{HeatMap, heat_maps_png};
use hotfire_core::media::expect_ending;

use crate::cli::AttentionArgs;
use crate::train::{RunTask, load_run};

pub fn attention(args: &AttentionArgs) -> anyhow::Result<()> {
    let prepared = load_run(&args.run, &[], false)?;
    let RunTask::Model(task) = &prepared.task else {
        return Err(CoreError::Usage(format!("{}: holds an agent", args.run.display())).into());
    };
    if let Some(path) = &args.out {
        expect_ending("--out", path, &["png"])?;
    }
    let maps = task.model.attention(&args.text)?;
    if args.json {
        println!("{}", serde_json::json!({"text": args.text, "tokens": maps.tokens, "layers": maps.layers}));
    }
    let panels: Vec<Vec<HeatMap>> = maps
        .layers
        .into_iter()
        .enumerate()
        .map(|(layer, heads)| {
            let title = |head| format!("layer {}, head {}", layer + 1, head + 1);
            heads
                .into_iter()
                .enumerate()
                .map(|(head, weights)| HeatMap { title: title(head), values: weights })
                .collect()
        })
        .collect();
    let path = match &args.out {
        Some(path) => path.clone(),
        None if args.json => return Ok(()),
        None => PathBuf::from("attention.png"),
    };
    heat_maps_png(&path, &args.text, &maps.tokens, &panels).map_err(CoreError::io(&path, "write"))?;
    if !args.json {
        println!("{}", path.display());
    }
    Ok(())
}
