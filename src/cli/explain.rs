//! `smartlink explain`: asks a running node, or a snapshot file, why a click goes where it goes.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueHint};

use super::node;
use super::one_line::OneLine;
use crate::admin::{self, EntryAnswer, ExplainAnswer, ExplainQuery};
use crate::config::{Config, Flags};
use crate::routing::{Outcome, compile};
use crate::state::{Published, now};
use crate::sync::{Kept, read_last_good};

/// The click, and whom to ask.
#[derive(Clone, Debug, Args)]
pub struct ExplainArgs {
    /// The link
    #[arg(long, value_name = "ID")]
    id: String,
    /// The affiliate
    #[arg(long, value_name = "ID")]
    aff_id: String,
    /// The visitor's address [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    ip: Option<String>,
    /// The visitor's User-Agent
    #[arg(long, value_name = "TEXT")]
    user_agent: Option<String>,
    /// As in Accept-Language
    #[arg(long, value_name = "TAGS")]
    language: Option<String>,
    /// As in Referer
    #[arg(long, value_name = "URL")]
    referrer: Option<String>,
    /// The moment of the click, RFC 3339 [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// The draw, 0x… or decimal [default: a random one]
    #[arg(long, value_name = "NUMBER")]
    draw: Option<String>,
    /// Sub id s1
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    s1: Option<String>,
    /// Sub id s2
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    s2: Option<String>,
    /// Sub id s3
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    s3: Option<String>,
    /// Sub id s4
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    s4: Option<String>,
    /// Sub id s5
    #[arg(long, value_name = "TEXT", hide_short_help = true)]
    s5: Option<String>,
    /// The admin listener of a running node; its token, if it has one, from SMARTLINK_ADMIN_TOKEN or SMARTLINK_ADMIN_TOKEN_FILE
    #[arg(long, value_name = "ADDR", env = "SMARTLINK_ADMIN", default_value = "127.0.0.1:9180")]
    admin: String,
    /// Ask this snapshot file instead: a last good file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    snapshot: Option<PathBuf>,
    /// With --snapshot: the configuration by which it is compiled
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// With --snapshot: the geo database
    #[arg(long, value_name = "FILE", env = "SMARTLINK_GEO", value_hint = ValueHint::FilePath)]
    geo: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Explains and prints.
pub fn run(args: &ExplainArgs) -> anyhow::Result<ExitCode> {
    let query = ExplainQuery {
        id: Some(args.id.clone()),
        aff_id: Some(args.aff_id.clone()),
        ip: args.ip.clone(),
        ua: args.user_agent.clone(),
        language: args.language.clone(),
        referrer: args.referrer.clone(),
        at: args.at.clone(),
        draw: args.draw.clone(),
        s1: args.s1.clone(),
        s2: args.s2.clone(),
        s3: args.s3.clone(),
        s4: args.s4.clone(),
        s5: args.s5.clone(),
    };
    let answer = match &args.snapshot {
        Some(path) => ask_snapshot(path, args, &query)?,
        None => ask_node(&args.admin, &query)?,
    };
    if args.json {
        super::print(format!("{}\n", serde_json::to_string_pretty(&answer)?).as_bytes())
    } else {
        super::print(tell(&answer).as_bytes())
    }
}

fn ask_snapshot(path: &Path, args: &ExplainArgs, query: &ExplainQuery) -> anyhow::Result<ExplainAnswer> {
    let flags = Flags { config: args.config.clone(), geo: args.geo.clone(), ..Flags::default() };
    let config = Config::load(&flags)?;
    let Kept { network, name: snapshot, unread_changes, .. } =
        read_last_good(path)?.with_context(|| format!("there is no snapshot {}", path.display()))?;
    if let Some(problem) = unread_changes {
        eprintln!("smartlink: warning: {}; the answer is that of the snapshot before them", OneLine(problem));
    }
    let (table, _) = compile(&network.to_snapshot(&config.refresh.zone).0, &config.refresh.compile);
    // How caps stand is known to a node, and not to a file.
    let published =
        Published { generation: 0, snapshot, published_at: now(), table: table.into(), caps: Arc::default() };
    Ok(admin::explain(query, &published, &config.geo.load()?)?)
}

fn ask_node(address: &str, query: &ExplainQuery) -> anyhow::Result<ExplainAnswer> {
    let mut url = node::url(address, "/explain")?;
    let parameters = serde_json::to_value(query)?;
    for (name, value) in parameters.as_object().into_iter().flatten() {
        if let Some(value) = value.as_str() {
            url.query_pairs_mut().append_pair(name, value);
        }
    }
    let (status, body) = node::ask(&url, PATIENCE)?;
    if !status.is_success() {
        let text = String::from_utf8_lossy(&body);
        let message = serde_json::from_slice::<serde_json::Value>(&body)
            .ok()
            .and_then(|error| error["message"].as_str().map(str::to_owned))
            .unwrap_or_else(|| text.trim().to_owned());
        bail!("{message} (HTTP {status})");
    }
    serde_json::from_slice(&body).context("the node's answer is not an explanation; is it the same version?")
}

/// A node answers in milliseconds; one that does not is not there.
const PATIENCE: Duration = Duration::from_secs(10);

fn tell(answer: &ExplainAnswer) -> String {
    let mut text = String::new();
    let unknown = || "unknown".to_owned();
    let visitor = &answer.visitor;
    let _ = writeln!(
        text,
        "visitor   {}: country {}, region {}, city {}, AS {}; {} {} {}{}",
        visitor.ip,
        visitor.country.clone().unwrap_or_else(unknown),
        visitor.region.clone().unwrap_or_else(unknown),
        visitor.city.as_deref().map_or_else(unknown, printable),
        visitor.asn.map_or_else(unknown, |asn| asn.to_string()),
        visitor.device,
        visitor.os,
        visitor.browser,
        if visitor.bot { ", a bot" } else { "" },
    );
    let _ = writeln!(text, "at        {}, draw {}", answer.at, answer.draw);
    let _ = writeln!(text, "snapshot  {} (generation {})", answer.snapshot, answer.generation);
    for tier in &answer.tiers {
        let _ = writeln!(text, "\npriority {}", tier.priority);
        for entry in &tier.entries {
            let _ = writeln!(text, "  {}", tell_entry(entry));
        }
    }
    let whose = answer.affiliate_id.filter(|_| answer.outcome == Outcome::AffiliateMismatch.as_str());
    let whose = whose.map(|affiliate| format!(": the link is affiliate {affiliate}’s")).unwrap_or_default();
    let _ = writeln!(text, "\noutcome   {}{whose}", answer.outcome);
    let _ = writeln!(text, "goes to   {}", answer.destination.as_deref().unwrap_or("nowhere: 404"));
    text
}

fn tell_entry(entry: &EntryAnswer) -> String {
    let mark = match (entry.chosen, entry.open) {
        (true, _) => "→",
        (false, true) => "·",
        (false, false) => "✗",
    };
    let rule = entry.rule_id.map(|rule| format!(" by rule {rule}")).unwrap_or_default();
    let why = entry.failed.as_ref().map(|failed| format!(": {}", printable(failed))).unwrap_or_default();
    format!("{mark} offer {}{rule}, weight {}{why}", entry.offer_id, entry.offer_weight)
}

/// What a rule or a database says, fit for a terminal: no control characters, and not without end.
pub(super) fn printable(text: &str) -> String {
    const SHOWN_CHARS: usize = 300;
    let cut = text.char_indices().nth(SHOWN_CHARS);
    match cut {
        Some((end, _)) => format!("{}…", OneLine(&text[..end])),
        None => OneLine(text).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_cannot_write_on_the_terminal() {
        assert_eq!(printable("s1 must be in \u{1b}[31mEVIL\r\nü"), "s1 must be in \\u{1b}[31mEVIL\\r\\nü");
        assert_eq!(printable(&"x".repeat(5000)).chars().count(), 301);
    }
}
