//! The book: its links lead somewhere, and its commands run and print what it says.
//!
//! Commands stand in blocks of `sh`. A comment above a block says how it is tested: `<!-- test: k=v ... -->` adds
//! overrides to its trainings, which cuts them short; `<!-- test: prints -->` compares what it prints with the block of
//! `text` that follows; `<!-- test: skip, WHY -->` leaves it out.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A block of a page, with the comment above it.
#[derive(Default)]
struct Block {
    language: String,
    comment: String,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let (mut blocks, mut comment, mut open) = (Vec::new(), String::new(), None::<Block>);
    for line in page.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.lines.push(line.to_owned()),
            (None, Some(language)) => {
                let comment = std::mem::take(&mut comment);
                open = Some(Block { language: language.to_owned(), comment, lines: Vec::new() });
            }
            (None, None) => {
                if let Some(said) = line.strip_prefix("<!-- test: ").and_then(|said| said.strip_suffix(" -->")) {
                    comment = said.to_owned();
                }
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    blocks
}

/// All pages below `docs`, but for those that are generated from the registries.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// Targets of `](...)` and `{{#include ...}}` that are files.
fn links(page: &str) -> Vec<String> {
    let mut links = Vec::new();
    for (start, end) in [("](", ')'), ("{{#include ", '}')] {
        for (at, _) in page.match_indices(start) {
            let rest = &page[at + start.len()..];
            let target = rest[..rest.find(end).expect("a link that ends")].split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") {
                links.push(target.to_owned());
            }
        }
    }
    links
}

#[test]
fn links_lead_somewhere_and_every_page_is_in_the_summary() {
    let mut found = Vec::new();
    pages(Path::new("docs"), &mut found);
    let mut missing = Vec::new();
    for page in found.iter().map(PathBuf::as_path).chain([Path::new("README.md"), Path::new("CONTRIBUTING.md")]) {
        for link in links(&fs::read_to_string(page).unwrap()) {
            if !page.parent().unwrap().join(&link).exists() {
                missing.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "links to nothing:\n{}", missing.join("\n"));
    let listed = links(&fs::read_to_string("docs/SUMMARY.md").unwrap());
    for page in found {
        let page = page.strip_prefix("docs").unwrap().to_str().unwrap().to_owned();
        let generated = page.starts_with("envs/") && page != "envs/README.md";
        assert!(generated || page == "SUMMARY.md" || listed.contains(&page), "docs/SUMMARY.md does not list {page}");
    }
}

/// Runs the commands of a page one after the other, in a folder that looks like the repository.
fn run_page(page: &str) {
    let path = Path::new("docs").join(page);
    let dir = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_hotfire"));
    for folder in ["configs", "data"] {
        std::os::unix::fs::symlink(fs::canonicalize(folder).unwrap(), dir.path().join(folder)).unwrap();
    }
    let search = [program.parent().unwrap().to_str().unwrap(), &std::env::var("PATH").unwrap()].join(":");
    let mut blocks = blocks(&fs::read_to_string(&path).unwrap()).into_iter().peekable();
    while let Some(block) = blocks.next() {
        if block.language != "sh" {
            continue;
        }
        if block.comment.starts_with("skip,") {
            eprintln!("{page}: skipped: {}", block.comment);
            continue;
        }
        let mut printed = String::new();
        for line in &block.lines {
            let line = match line.strip_prefix("hotfire train configs/") {
                Some(rest) => format!("hotfire train configs/{} --quiet {}", rest, short(rest, &block.comment)),
                None => line.clone(),
            };
            let output =
                Command::new("sh").args(["-c", &line]).current_dir(dir.path()).env("PATH", &search).output().unwrap();
            let problem = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{page}: {line}\n{problem}");
            printed += &String::from_utf8_lossy(&output.stdout);
        }
        if block.comment == "prints" {
            let said = blocks.next().filter(|said| said.language == "text").expect("a block of what is printed");
            let printed: Vec<_> = printed.lines().map(str::trim_end).collect();
            assert_eq!(printed.join("\n"), said.lines.join("\n"), "{page}: {:?}", block.lines);
        }
    }
}

/// Overrides that cut a training short: those of the page, and for an agent few episodes at the end.
fn short(config: &str, overrides: &str) -> String {
    let file = format!("configs/{}", config.split_whitespace().next().unwrap_or_default());
    match fs::read_to_string(file).unwrap().contains("[agent]") {
        true => format!("train.final_eval_episodes=2 {overrides}"),
        false => overrides.to_owned(),
    }
}

macro_rules! run_pages {
    ($($name:ident: $page:literal),* $(,)?) => {
        $(#[test] fn $name() { run_page($page); })*
        const RUN: &[&str] = &[$($page),*];
    };
}

run_pages! {
    dictionary: "learn/dictionary.md",
    recurrent: "learn/recurrent.md",
    attention: "learn/attention.md",
    transformer: "learn/transformer.md",
    bert: "learn/bert.md",
    autoencoder: "learn/autoencoder.md",
    vae: "learn/vae.md",
    vqvae: "learn/vqvae.md",
    diffusion: "learn/diffusion.md",
    policy_gradients: "learn/policy-gradients.md",
    values: "learn/values.md",
    continuous: "learn/continuous.md",
    runs: "use/runs.md",
    sweeps: "use/sweeps.md",
    reports: "use/reports.md",
    export: "use/export.md",
}

#[test]
fn every_page_with_commands_is_run() {
    let mut found = Vec::new();
    pages(Path::new("docs/learn"), &mut found);
    pages(Path::new("docs/use"), &mut found);
    for page in found {
        let commands = blocks(&fs::read_to_string(&page).unwrap()).iter().any(|block| block.language == "sh");
        let page = page.strip_prefix("docs").unwrap().to_str().unwrap().to_owned();
        assert!(!commands || RUN.contains(&page.as_str()), "tests/book.rs does not run {page}");
    }
}
