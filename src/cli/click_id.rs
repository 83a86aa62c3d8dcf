//! `smartlink click-id`: looks into click ids, and tells whether they are genuine.

use std::fmt::Write;
use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueHint};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::click_id::{ClickIdKeys, Contents, Refused, Signer, VERSION};
use crate::config::{ClickIdKeyFile, Flags, KeptKeys, click_id_keys};
use crate::types::OfferId;

use super::explain::printable;

/// What to do with them.
#[derive(Clone, Debug, Args)]
pub struct ClickIdArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Show what is in click ids, and whether this network's key has signed them.
    #[command(after_help = DECODE_EXAMPLES)]
    Decode(Decode),
}

#[derive(Clone, Debug, Args)]
struct Decode {
    /// Click ids; `-` reads them from standard input, one a line
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// The file of the keys [default: as for serve, SMARTLINK_CLICK_ID_KEY_FILE, edge.click_id_key_file, or click-id-key
    /// in the data directory]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    key_file: Option<PathBuf>,
    /// Do not verify, though there is a key: for ids of a key that is gone
    #[arg(long)]
    unverified: bool,
    /// Configuration file; only its data_dir and edge.click_id_key_file are used
    #[arg(long, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data directory of the node [default: ./smartlink-data]
    #[arg(long, value_name = "DIR", env = "SMARTLINK_DATA_DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

/// By what ids are judged.
struct Judge {
    keys: Option<ClickIdKeys>,
    /// Where the keys are, or why there are none.
    told: String,
}

/// Decodes and prints.
pub fn run(args: &ClickIdArgs) -> anyhow::Result<ExitCode> {
    let Action::Decode(args) = &args.action;
    let judge = args.judge()?;
    let mut refused = 0_usize;
    let mut shown = 0_usize;
    let mut show = |id: &str| -> anyhow::Result<()> {
        let text = match judge.decode(id) {
            Ok((contents, signer)) if args.json => format!("{}\n", to_json(id, &contents, signer)),
            Ok((contents, signer)) => {
                let gap = if shown == 0 { "" } else { "\n" };
                format!("{gap}{}", judge.tell(id, &contents, signer))
            }
            Err(problem) => {
                refused += 1;
                if !args.json {
                    eprintln!("smartlink: {} is no valid click id: {problem}", shortened(id));
                    return Ok(());
                }
                format!("{}\n", json!({"click_id": id, "verified": false, "problem": problem.to_string()}))
            }
        };
        shown += 1;
        super::print(text.as_bytes()).map(drop)
    };
    for id in &args.ids {
        if id != "-" {
            show(id)?;
            continue;
        }
        for line in io::stdin().lock().split(b'\n') {
            let line = line.context("cannot read click ids from standard input")?;
            let id = String::from_utf8_lossy(line.trim_ascii());
            if !id.is_empty() {
                show(&id)?;
            }
        }
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

impl Decode {
    /// The keys, if they are at hand. A file that was named and cannot be used is an error; a node that has made no key yet
    /// is none.
    fn judge(&self) -> anyhow::Result<Judge> {
        if self.unverified {
            return Ok(Judge { keys: None, told: "--unverified was given".to_owned() });
        }
        let file = match &self.key_file {
            Some(path) => ClickIdKeyFile::Named(path.clone()),
            None => {
                let (config, data_dir) = (self.config.clone(), self.data_dir.clone());
                click_id_keys(&Flags { config, data_dir, ..Flags::default() })?
            }
        };
        let path = file.path().display();
        Ok(match file.read()? {
            // Who may read the file is told by serve and check.
            Some(KeptKeys { keys, .. }) => Judge { keys: Some(keys), told: path.to_string() },
            None => Judge { keys: None, told: format!("there is no key {path}; --key-file names another") },
        })
    }
}

impl Judge {
    /// What an id says, and, if there are keys, which of them has signed it.
    fn decode(&self, id: &str) -> Result<(Contents, Option<Signer>), Refused> {
        match &self.keys {
            Some(keys) => keys.verify(id.as_bytes()).map(|(contents, signer)| (contents, Some(signer))),
            None => Ok((Contents::read_unverified(id.as_bytes())?, None)),
        }
    }

    fn tell(&self, id: &str, contents: &Contents, signer: Option<Signer>) -> String {
        let verified = match signer {
            Some(signer) => format!("yes, with the {} key of {}", name(signer), self.told),
            None => format!("no: {}", self.told),
        };
        let mut text = String::new();
        for (field, value) in [
            ("click id", id.to_owned()),
            ("version", VERSION.to_string()),
            ("time", moment(contents)),
            ("node", format!("{}, thread {}", contents.node, contents.worker.value())),
            ("sequence", contents.sequence.to_string()),
            ("link", contents.link.to_string()),
            ("affiliate", contents.affiliate.to_string()),
            ("offer", contents.offer.map_or("none".to_owned(), |offer| offer.to_string())),
            ("verified", verified),
        ] {
            let _ = writeln!(text, "{field:9}  {value}");
        }
        text
    }
}

fn to_json(id: &str, contents: &Contents, signer: Option<Signer>) -> Value {
    json!({
        "click_id": id,
        "version": VERSION,
        "time": moment(contents),
        "node": contents.node.to_string(),
        "thread": contents.worker.value(),
        "sequence": contents.sequence,
        "smart_link_id": contents.link.value(),
        "affiliate_id": contents.affiliate.value(),
        "offer_id": contents.offer.map(OfferId::value),
        "verified": signer.is_some(),
        "key": signer.map(name),
    })
}

/// RFC 3339, in UTC, with milliseconds.
fn moment(contents: &Contents) -> String {
    let moment = Timestamp::from_millisecond(contents.at.0).unwrap_or_default();
    format!("{moment:.3}")
}

fn name(signer: Signer) -> &'static str {
    match signer {
        Signer::First => "first",
        Signer::Second => "second",
    }
}

/// In a sentence: what was pasted may be anything.
fn shortened(id: &str) -> String {
    let shown: String = id.chars().take(SHOWN_CHARS).collect();
    let end = if shown.len() < id.len() { "…" } else { "" };
    format!("`{}{end}`", printable(&shown))
}

/// The exit code if an id is not genuine.
const REFUSED: u8 = 1;

/// Longer than a click id.
const SHOWN_CHARS: usize = 60;

pub const EXAMPLES: &str = "\
Examples:
  smartlink click-id decode EaDEUGx7nzoBAsTVAMAAABEAAAEtAAEJMgAABBLJnQl6f8odGQ
  smartlink click-id decode --help
      more of them";

const DECODE_EXAMPLES: &str = "\
Exit code: 0 if all ids are genuine, or could be decoded where there is no key to verify them; 1 if one is forged or \
damaged; 2 if the key cannot be read.

Examples:
  smartlink click-id decode EaDEUGx7nzoBAsTVAMAAABEAAAEtAAEJMgAABBLJnQl6f8odGQ
  smartlink click-id decode --key-file /etc/smartlink/click-id-key - < ids.txt
  smartlink click-id decode --json - < ids.txt | jq -r .offer_id
  smartlink click-id decode --unverified \\
      EaDEUGx7nzoBAsTVAMAAABEAAAEtAAEJMgAABBLJnQl6f8odGQ";
