//! Style and script, embedded, under names that change with their content, so that browsers keep them for good.

use std::sync::OnceLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Where they are.
pub struct Urls {
    pub style: String,
    pub script: String,
    pub chart_style: String,
    pub chart_script: String,
    pub icon: String,
}

struct Asset {
    name: &'static str,
    extension: &'static str,
    kind: &'static str,
    content: &'static str,
}

/// `GET /console/assets/{name}`
pub async fn serve(Path(asked): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.file() == asked) {
        Some(asset) => {
            let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, FOR_GOOD)];
            (headers, asset.content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

pub fn urls() -> &'static Urls {
    static URLS: OnceLock<Urls> = OnceLock::new();
    URLS.get_or_init(|| {
        let [style, script, chart_style, chart_script, icon] =
            ASSETS.each_ref().map(|asset| format!("/console/assets/{}", asset.file()));
        Urls { style, script, chart_style, chart_script, icon }
    })
}

impl Asset {
    /// `console-0123456789abcdef.css`
    fn file(&self) -> String {
        let hash = blake3::hash(self.content.as_bytes()).to_hex();
        format!("{}-{}.{}", self.name, &hash[..16], self.extension)
    }
}

/// In the order of [`Urls`].
const ASSETS: [Asset; 5] = [
    Asset {
        name: "console",
        extension: "css",
        kind: "text/css; charset=utf-8",
        content: include_str!("assets/console.css"),
    },
    Asset {
        name: "console",
        extension: "js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("assets/console.js"),
    },
    Asset {
        name: "uplot",
        extension: "css",
        kind: "text/css; charset=utf-8",
        content: include_str!("../assets/uplot/uPlot.min.css"),
    },
    Asset {
        name: "uplot",
        extension: "js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("../assets/uplot/uPlot.iife.min.js"),
    },
    Asset { name: "icon", extension: "svg", kind: "image/svg+xml", content: include_str!("assets/icon.svg") },
];

const FOR_GOOD: &str = "public, max-age=31536000, immutable";
