//! What was done, told once more on the page to which a form leads. The address names it by a number that nobody
//! guesses, and never says it: nobody can have another's console say something by a link.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::session::random_text;

/// The newest of them.
#[derive(Debug, Default)]
pub struct Notices(Mutex<VecDeque<(String, String)>>);

impl Notices {
    /// Keeps it, and answers how the address names it; empty if the system has no randomness.
    pub fn keep(&self, text: String) -> String {
        let Some(name) = random_text() else { return String::new() };
        let name = name[..NAME_CHARS].to_owned();
        let mut notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notices.push_back((name.clone(), text));
        if notices.len() > NOTICES_MAX {
            notices.pop_front();
        }
        name
    }

    pub fn text(&self, name: &str) -> Option<String> {
        let notices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notices.iter().find(|(other, _)| other == name).map(|(_, text)| text.clone())
    }
}

const NOTICES_MAX: usize = 64;

/// 80 bits.
const NAME_CHARS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept() {
        let notices = Notices::default();
        let names: Vec<String> =
            (0..=NOTICES_MAX).map(|index| notices.keep(format!("notice {index}"))).collect();
        assert_eq!(notices.text(&names[0]), None);
        assert_eq!(notices.text(&names[1]).as_deref(), Some("notice 1"));
        assert_eq!(notices.text(&names[NOTICES_MAX]), Some(format!("notice {NOTICES_MAX}")));
        assert_eq!((names[1].len(), notices.text("")), (NAME_CHARS, None));
    }
}
