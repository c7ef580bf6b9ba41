//! The page: data as JSON inside a template with its style, its script and the plotting library, so that it needs no
//! network and no second file.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::compare::{Keys, Pair, Profile, Row};
use super::curves::Curves;
use super::pictures;
use super::runs::Group;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const UPLOT_STYLE: &str = include_str!("../../assets/uplot/uPlot.min.css");
const UPLOT_SCRIPT: &str = include_str!("../../assets/uplot/uPlot.iife.min.js");
/// All pictures together, so that the page stays one that a browser opens at once.
const MOST_MEDIA_BYTES: usize = 24 << 20;

/// What the page shows of one task.
#[derive(Serialize)]
pub struct Section {
    pub name: String,
    pub objective: String,
    pub maximize: bool,
    pub target: Option<f64>,
    pub rows: Vec<Row>,
    pub curves: Vec<Curves>,
    pub profile: Option<Profile>,
    pub pairs: Vec<Pair>,
    pub keys: Option<Keys>,
    pub difference: Vec<[String; 3]>,
    pub media: Vec<Medium>,
}

/// A picture in the page.
#[derive(Serialize)]
pub struct Medium {
    pub caption: String,
    pub uri: String,
}

/// The pictures of each group's first run that has some.
pub fn media(groups: &[Group]) -> Vec<Medium> {
    let mut total = 0;
    let mut media = Vec::new();
    for group in groups {
        let Some((run, files)) = pictures(group) else { continue };
        for path in files {
            let Ok(bytes) = fs::read(&path) else { continue };
            total += bytes.len();
            if total > MOST_MEDIA_BYTES {
                return media;
            }
            let kind = if path.extension().is_some_and(|extension| extension == "gif") { "gif" } else { "png" };
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            media.push(Medium {
                caption: format!("{}: {name}", run.name()),
                uri: format!("data:image/{kind};base64,{}", STANDARD.encode(bytes)),
            });
        }
    }
    media
}

/// The whole page.
pub fn html(
    title: &str,
    sections: &[Section],
    environment: &[[String; 2]],
    failed: &[String],
) -> anyhow::Result<String> {
    let data = serde_json::json!({
        "title": title,
        "sections": sections,
        "environment": environment,
        "failed": failed,
    });
    // No text of a run may end the script element, or begin a comment or a second one in it.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    Ok(PAGE
        .replace("{{title}}", &escaped(title))
        .replace("{{style}}", &format!("{UPLOT_STYLE}\n{STYLE}"))
        .replace("{{uplot}}", UPLOT_SCRIPT)
        .replace("{{script}}", SCRIPT)
        .replace("{{data}}", &data))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_run_is_markup() {
        let failed = ["<!--<script>".to_owned(), "</script>".to_owned()];
        let page = html("runs", &[], &[], &failed).unwrap();
        let data = page.split("id=\"data\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert!(!data.contains('<'), "{data}");
        let data: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["failed"], serde_json::json!(failed));
    }
}
