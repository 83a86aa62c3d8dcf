//! `smartlink key`: creates, lists and revokes keys of the embedded API, in the data directory's store.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Subcommand, ValueHint};
use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::SysRng;

use crate::backoffice::{ApiKey, Keys};
use crate::cake::Key;
use crate::config::{DATABASE, Flags, data_dir};

/// What to do, and in which data directory.
#[derive(Clone, Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    action: Action,
    /// Configuration file; only its data_dir is used
    #[arg(long, global = true, value_name = "FILE", env = "SMARTLINK_CONFIG", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
    /// The data directory of the node [default: ./smartlink-data]
    #[arg(long, global = true, value_name = "DIR", env = "SMARTLINK_DATA_DIR", value_hint = ValueHint::DirPath)]
    data_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Clone, Debug, Subcommand)]
enum Action {
    /// Make a new key, and show it, this once.
    Create {
        /// Who it is for: 1 to 64 letters, digits, `.`, `_` or `-`
        name: String,
    },
    /// Show the names of the keys, and when they were made and last used.
    List,
    /// Refuse a key from now on.
    Revoke {
        /// The name of the key
        name: String,
    },
}

/// Does it, and prints what came of it.
pub fn run(args: &KeyArgs) -> anyhow::Result<ExitCode> {
    let flags = Flags { config: args.config.clone(), data_dir: args.data_dir.clone(), ..Flags::default() };
    let keys = Keys::open(&data_dir(&flags)?.join(DATABASE))?;
    match &args.action {
        Action::Create { name } => {
            let key = random()?;
            let made = keys.create(name, &key, Timestamp::now())?;
            if args.json {
                let shown = serde_json::json!({
                    "name": made.name, "key": key.reveal(), "created_at": made.created_at,
                });
                println!("{shown}");
            } else {
                // The key alone on standard output, so that it can go to a file without passing a screen.
                eprintln!("This is the key `{name}`. It is shown this once and kept nowhere.");
                println!("{}", key.reveal());
            }
        }
        Action::List => {
            let keys = keys.list()?;
            if args.json { println!("{}", serde_json::to_string(&keys)?) } else { print_table(&keys) }
        }
        Action::Revoke { name } => {
            keys.revoke(name)?;
            if args.json {
                println!("{}", serde_json::json!({ "name": name, "revoked": true }));
            } else {
                println!("revoked `{name}`; calls with it are refused from now on");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// A key that nobody guesses: 128 bits from the system, in hexadecimal digits.
pub fn random() -> anyhow::Result<Key> {
    let mut random = [0; 16];
    SysRng.try_fill_bytes(&mut random).context("the system gives no random numbers for an API key")?;
    let key: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    Key::new(&key).context("a key of hexadecimal digits is well-formed")
}

fn print_table(keys: &[ApiKey]) {
    if keys.is_empty() {
        println!("There are no keys beside the node's own; make one with `smartlink key create NAME`.");
        return;
    }
    let width = keys.iter().map(|key| key.name.len()).max().unwrap_or_default().max("NAME".len());
    println!("{:width$}  {:20}  LAST USED", "NAME", "CREATED");
    for key in keys {
        let last_used = key.last_used_on.as_deref().unwrap_or("never");
        println!("{:width$}  {:20}  {last_used}", key.name, key.created_at);
    }
}
