//! A question to the admin listener of a running node.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http::StatusCode;
use http::header::AUTHORIZATION;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use url::Url;

use crate::config;

/// What is asked of the node on an address, as the log prints it or as the configuration has it.
pub fn url(address: &str, path: &str) -> anyhow::Result<Url> {
    let address = address.trim_start_matches("http://").trim_end_matches('/');
    Url::parse(&format!("http://{address}{path}"))
        .with_context(|| format!("--admin {address:?} is no address such as 127.0.0.1:9180"))
}

/// Asks, with the admin token, if there is one in the environment.
pub fn ask(url: &Url, patience: Duration) -> anyhow::Result<(StatusCode, Bytes)> {
    let mut request = http::Request::get(url.as_str());
    if let Some(token) = config::admin_token()? {
        request = request.header(AUTHORIZATION, format!("Bearer {}", token.reveal()));
    }
    let request = request.body(Empty::<Bytes>::new())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asked = runtime.block_on(async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        tokio::time::timeout(patience, async {
            let answer = client.request(request).await?;
            let status = answer.status();
            anyhow::Ok((status, answer.into_body().collect().await?.to_bytes()))
        })
        .await
    });
    let address = url.authority();
    match asked {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => bail!("no node answers on {address} ({}); {ADVICE}", error.root_cause()),
        Err(_) => bail!("no node answers on {address} within {} s; {ADVICE}", patience.as_secs_f32()),
    }
}

const ADVICE: &str = "is `smartlink serve` running, with this --admin address?";
