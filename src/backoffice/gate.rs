//! Who may call: the keys that came with a call are checked before anything else is looked at.

use jiff::Timestamp;

use super::answer::Refusal;
use super::parameters::PresentedKeys;
use super::{Backoffice, keys};

/// Lets the call in, or refuses it. Blocks: the keys are in the store, and are read there for each call, so that a
/// key which another process revoked is refused at once.
pub fn admit(backoffice: &Backoffice, presented: &PresentedKeys) -> Result<(), Refusal> {
    if presented.is_empty() {
        return Err(Refusal::Key("missing"));
    }
    // Where several came, none may be wrong: a stale one beside the right one is a mistake worth hearing of.
    for key in presented.iter() {
        let key = key.ok_or(Refusal::Key("wrong"))?;
        if !backoffice.options().api_key.matches(key.as_bytes()) {
            admit_named(backoffice, key)?;
        }
    }
    Ok(())
}

/// A key that is not the node's own.
fn admit_named(backoffice: &Backoffice, key: &str) -> Result<(), Refusal> {
    let hash = keys::hash(key);
    let last_used = backoffice.store().read(|transaction| keys::last_used(transaction, &hash))?;
    let last_used_on = last_used.ok_or(Refusal::Key("wrong"))?;
    let today = Timestamp::now().strftime("%Y-%m-%d").to_string();
    if last_used_on.as_deref() != Some(&today) {
        let noted = backoffice.store().write_aside(|transaction| keys::note_use(transaction, &hash, &today));
        if let Err(error) = noted {
            // The day is for people who tidy up; the call need not fail for it.
            tracing::warn!(%error, "the day on which an API key was used could not be noted");
        }
    }
    Ok(())
}
