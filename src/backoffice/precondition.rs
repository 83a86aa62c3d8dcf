//! `If-Match` (RFC 9110, 13.1.1): a change that is to be done only while the network is in a state that the caller has
//! read. Whoever reads, decides and writes so overwrites nobody's change unseen.

use http::{HeaderMap, header};
use rusqlite::Transaction;

use super::answer::Refusal;
use super::store;

/// In which states of the network a change may be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Precondition(Option<Vec<String>>);

impl Precondition {
    /// Without the header, any state will do.
    pub fn read(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
        if lines.peek().is_none() {
            return Self(None);
        }
        // What cannot be read names no state: the change is refused rather than done in a state that was not meant.
        let tags = lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        Self(Some(tags.map(|tag| tag.trim().to_owned()).collect()))
    }

    /// Refuses the change in any other state. Within its transaction, so that nothing comes in between.
    pub fn check(&self, transaction: &Transaction<'_>) -> Result<(), Refusal> {
        let Some(tags) = &self.0 else { return Ok(()) };
        let tag = format!("\"{}\"", store::revision(transaction)?);
        if tags.iter().any(|named| named == "*" || *named == tag) { Ok(()) } else { Err(Refusal::Outdated) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_named_with_commas_and_on_several_lines() {
        let mut headers = HeaderMap::new();
        assert_eq!(Precondition::read(&headers), Precondition(None));
        headers.append(header::IF_MATCH, "\"a\", \"b\"".parse().unwrap());
        headers.append(header::IF_MATCH, "*".parse().unwrap());
        let named = ["\"a\"", "\"b\"", "*"].map(str::to_owned).to_vec();
        assert_eq!(Precondition::read(&headers), Precondition(Some(named)));
    }
}
