//! What people call links and offers, read from the upstream's API: the table has no names. Kept while somebody looks,
//! and brought up to date by what has changed, where the upstream tells.
//!
//! A page does not wait long for it: it is shown with what is known, and says so.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::HeaderValue;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Console;
use crate::cake::wire::{OfferItem, SmartLink};
use crate::cake::{CallError, Client, FetchError, Haste, Rows, Update};
use crate::types::LinkId;

/// The names of a network, as of a moment.
#[derive(Debug, Default)]
pub struct Names {
    links: Links,
    /// In the order of their ids.
    offers: Vec<(i64, NamedOffer)>,
    /// Which state of the network this is, if the upstream tells: then it is smartlink's own.
    state: Option<HeaderValue>,
}

/// In the order of their ids. As long as none of them has changed, it is the same list.
pub type Links = Arc<Vec<NamedLink>>;

/// A link as the upstream lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedLink {
    pub id: u32,
    pub affiliate: u32,
    pub name: Box<str>,
    /// The name in lower case, to search in.
    folded: Box<str>,
}

/// An offer as the upstream lists it.
#[derive(Clone, Debug)]
pub struct NamedOffer {
    pub name: Box<str>,
    /// In lower case, as the API spells it.
    pub status: Box<str>,
    /// Where its clicks go, with the tokens in it.
    pub url: Box<str>,
    /// Name and URL in lower case, to search in.
    folded: [Box<str>; 2],
}

/// The names that are known, and what was the matter when they were asked for last.
#[derive(Debug, Default)]
pub struct NameBook {
    known: Mutex<Known>,
    /// Held by the one who reads.
    reading: tokio::sync::Mutex<()>,
}

#[derive(Clone, Debug, Default)]
struct Known {
    names: Option<Arc<Names>>,
    problem: Option<String>,
    checked_at: Option<Instant>,
    read_at: Option<Instant>,
    /// How often something was changed from here.
    changes: u64,
}

/// For a page.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Without names, if none could be read yet.
    pub names: Arc<Names>,
    /// Why they may be old, or are missing: a sentence.
    pub problem: Option<String>,
}

impl Names {
    pub fn links(&self) -> &Links {
        &self.links
    }

    pub fn link(&self, id: u32) -> Option<&NamedLink> {
        self.links.binary_search_by_key(&id, |link| link.id).ok().map(|index| &self.links[index])
    }

    pub fn offer(&self, id: u32) -> Option<&NamedOffer> {
        let found = self.offers.binary_search_by_key(&i64::from(id), |(id, _)| *id);
        found.ok().map(|index| &self.offers[index].1)
    }

    /// In the order of their ids.
    pub fn offers(&self) -> impl Iterator<Item = (i64, &NamedOffer)> {
        self.offers.iter().map(|(id, offer)| (*id, offer))
    }

    /// Whether the upstream has our calls, so that links, entries, rules and caps can be changed through it.
    pub fn can_be_changed(&self) -> bool {
        self.state.is_some()
    }
}

impl NamedLink {
    pub fn named(id: u32, affiliate: u32, name: String) -> Self {
        Self { id, affiliate, folded: fold(&name).into(), name: name.into() }
    }

    /// Of a link of which nothing but its numbers is known.
    pub fn unnamed(id: u32, affiliate: u32) -> Self {
        Self { id, affiliate, name: Box::default(), folded: Box::default() }
    }

    /// Whether the link is meant by what was typed, which is folded: a part of its name, its number or its affiliate's.
    pub fn is_meant(&self, typed: &str, number: Option<u32>) -> bool {
        number.is_some_and(|number| self.id == number || self.affiliate == number)
            || self.folded.contains(typed)
    }

    /// To sort by.
    pub fn folded(&self) -> &str {
        &self.folded
    }
}

impl From<OfferItem> for NamedOffer {
    fn from(offer: OfferItem) -> Self {
        Self {
            folded: [fold(&offer.offer_name).into(), fold(&offer.offer_url).into()],
            name: offer.offer_name.into(),
            status: offer.offer_status.to_ascii_lowercase().into(),
            url: offer.offer_url.into(),
        }
    }
}

impl NamedOffer {
    /// Whether the offer is meant by what was typed, which is folded: a part of its name or of its URL.
    pub fn is_meant(&self, typed: &str) -> bool {
        self.folded.iter().any(|folded| folded.contains(typed))
    }

    /// The name, to sort by.
    pub fn folded(&self) -> &str {
        &self.folded[0]
    }
}

impl NameBook {
    /// The names, as fresh as they are to be had in a moment.
    pub async fn look(&self, console: &Console) -> Seen {
        let reader = console.clone();
        let reading = tokio::spawn(async move {
            reader.names().bring_up_to_date(&reader.parts().client).await;
        });
        let in_time = tokio::time::timeout(PATIENCE, reading).await.is_ok();
        let known = self.lock().clone();
        let problem = match (&known.names, known.problem) {
            (_, Some(problem)) => Some(format!("Names cannot be brought up to date: {problem}")),
            (None, None) if !in_time => {
                Some("Names are being read, and will be here in a moment.".to_owned())
            }
            _ => None,
        };
        Seen { names: known.names.unwrap_or_default(), problem }
    }

    /// Something was changed: whoever looks next sees it.
    pub fn look_again(&self) {
        let mut known = self.lock();
        known.checked_at = None;
        known.changes += 1;
    }

    async fn bring_up_to_date(&self, client: &Client) {
        let _alone = self.reading.lock().await;
        let before = self.lock().clone();
        if before.checked_at.is_some_and(|at| at.elapsed() < CHECK_EVERY) {
            return;
        }
        let done = match &before.names {
            None => read_all(client).await.map(Some),
            Some(names) => match &names.state {
                Some(state) => changed(client, names, state).await,
                None if before.read_at.is_some_and(|at| at.elapsed() < READ_EVERY) => Ok(None),
                None => read_all(client).await.map(Some),
            },
        };
        let mut known = self.lock();
        // What was changed meanwhile may not be in it.
        known.checked_at = (known.changes == before.changes).then(Instant::now);
        match done {
            Ok(None) => known.problem = None,
            Ok(Some(names)) => {
                known.names = Some(Arc::new(names));
                known.problem = None;
                known.read_at = Some(Instant::now());
            }
            Err(problem) => known.problem = Some(problem),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        // Right after any panic: what is known is replaced whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads every list.
async fn read_all(client: &Client) -> Result<Names, String> {
    // First, so that what changes while it is read is found by the next look.
    let state = match client.revision(&HeaderValue::from_static(NO_STATE), Duration::ZERO).await {
        Ok(state) => state,
        // A CAKE that is not smartlink's has no such call.
        Err(FetchError::Status { .. }) => None,
        Err(error) => return Err(error.to_string()),
    };
    let links = rows(client, "smart_links.json", "smart_links", &Map::new()).await?;
    let read = move || {
        let mut links: Vec<NamedLink> = read_rows(&links).filter_map(named_link).collect();
        links.sort_unstable_by_key(|link| link.id);
        links.dedup_by_key(|link| link.id);
        Arc::new(links)
    };
    let links = apart(read).await?;
    Ok(Names { links, offers: read_offers(client).await?, state })
}

/// What has changed since a state; `None`: nothing.
async fn changed(client: &Client, names: &Arc<Names>, state: &HeaderValue) -> Result<Option<Names>, String> {
    let told = |error: FetchError| error.to_string();
    match client.revision(state, Duration::ZERO).await.map_err(told)? {
        Some(now) if now == *state => return Ok(None),
        Some(_) => {}
        None => return read_all(client).await.map(Some),
    }
    let changes = match client.update(Some(state), Haste::Full).await.map_err(told)? {
        Update::Changes(changes) if changes.links.len() <= SINGLY_MAX => changes,
        _ => return read_all(client).await.map(Some),
    };
    let mut changed = Vec::with_capacity(changes.links.len());
    for link in &changes.links {
        let asked = Map::from_iter([("smart_link_id".to_owned(), Value::from(link.value()))]);
        let read = rows(client, "smart_links.json", "smart_links", &asked).await?;
        changed.extend(read_rows(&read).filter_map(named_link));
    }
    let (before, gone) = (Arc::clone(names), changes.links);
    let join = move || joined(&before.links, &gone, changed);
    let links = apart(join).await?;
    Ok(Some(Names { links, offers: read_offers(client).await?, state: Some(changes.revision) }))
}

/// The links after some were changed. Most changes are of what hangs on a link: then the list is the same.
fn joined<S: BuildHasher>(before: &Links, changed: &HashSet<LinkId, S>, now: Vec<NamedLink>) -> Links {
    let is_changed = |link: &NamedLink| LinkId::new(link.id).is_some_and(|id| changed.contains(&id));
    let were = changed.iter().filter_map(|id| {
        before.binary_search_by_key(&id.value(), |link| link.id).ok().map(|index| &before[index])
    });
    if were.clone().count() == now.len() && were.into_iter().all(|link| now.contains(link)) {
        return Arc::clone(before);
    }
    let mut links: Vec<NamedLink> =
        before.iter().filter(|link| !is_changed(link)).cloned().chain(now).collect();
    links.sort_by_key(|link| link.id);
    Arc::new(links)
}

/// In the order of their ids.
async fn read_offers(client: &Client) -> Result<Vec<(i64, NamedOffer)>, String> {
    #[derive(Deserialize)]
    struct Wrapped {
        offer: OfferItem,
    }
    let offers = rows(client, "offers.json", "offers", &Map::new()).await?;
    let read = move || {
        let mut offers: Vec<_> =
            read_rows(&offers).map(|Wrapped { offer }| (offer.offer_id, NamedOffer::from(offer))).collect();
        offers.sort_by_key(|(id, _)| *id);
        offers.dedup_by_key(|(id, _)| *id);
        offers
    };
    apart(read).await
}

/// Does what takes long with a large network on a thread that answers nobody.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| format!("reading them broke off: {error}"))
}

async fn rows(client: &Client, call: &str, list: &str, asked: &Map<String, Value>) -> Result<Rows, String> {
    client.rows(call, list, asked, None, |_| ()).await.map_err(|error: CallError| error.to_string())
}

/// Those that can be read; the others are not in the table either, and the snapshot's warnings name them.
fn read_rows<T: DeserializeOwned>(rows: &Rows) -> impl Iterator<Item = T> {
    rows.rows.iter().filter_map(|row| serde_json::from_str(row.get()).ok())
}

fn named_link(link: SmartLink) -> Option<NamedLink> {
    let id = u32::try_from(link.smart_link_id).ok()?;
    Some(NamedLink::named(id, u32::try_from(link.affiliate_id).ok()?, link.smart_link_name))
}

/// As it is searched.
pub fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// A page does not wait longer.
const PATIENCE: Duration = Duration::from_millis(1500);

/// A page asks for itself again every few seconds.
const CHECK_EVERY: Duration = Duration::from_millis(500);

/// From an upstream that does not tell whether anything has changed.
const READ_EVERY: Duration = Duration::from_secs(300);

/// With more changed links, all of them are read: page by page it is less.
const SINGLY_MAX: usize = 100;

/// The name of no state.
const NO_STATE: &str = "none";

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::Router;
    use axum::http::StatusCode;

    use super::*;
    use crate::cake::{ClientOptions, KeySource};

    #[tokio::test]
    async fn what_is_changed_while_names_are_read_is_looked_at_again() {
        let book = Arc::new(NameBook::default());
        let (changed, is_first) = (Arc::clone(&book), Arc::new(AtomicBool::new(true)));
        let upstream = Router::new().fallback(move || {
            if is_first.swap(false, Ordering::SeqCst) {
                changed.look_again();
            }
            async { StatusCode::INTERNAL_SERVER_ERROR }
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, upstream).await });
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, "key").unwrap();
        let client = Client::new(ClientOptions {
            upstream: format!("http://{address}").parse().unwrap(),
            key: KeySource::File(key),
            call_timeout: Duration::from_secs(30),
            body_bytes_max: 1000,
            ca_file: None,
            rows_max: 1,
        });
        let client = client.unwrap();
        book.bring_up_to_date(&client).await;
        let known = book.lock().clone();
        assert!(known.problem.is_some());
        assert_eq!((known.changes, known.checked_at), (1, None));
        book.bring_up_to_date(&client).await;
        assert_eq!(book.lock().changes, 1);
        assert!(book.lock().checked_at.is_some());
    }

    #[test]
    fn a_link_is_found_by_a_part_of_its_name_and_by_numbers() {
        let link = SmartLink {
            smart_link_id: 301,
            smart_link_name: "Finance ROTATOR – Österreich".to_owned(),
            affiliate_id: 67_890,
            smart_link_status: "Active".to_owned(),
            rotation_type: "weighted".to_owned(),
            cap_aware: true,
            fallback_url: None,
            tracking_url: None,
        };
        let link = named_link(link).unwrap();
        let is_meant = |typed: &str| link.is_meant(&fold(typed), typed.parse().ok());
        for typed in ["", "rotator", "ÖSTER", "301", "67890"] {
            assert!(is_meant(typed), "{typed}");
        }
        for typed in ["30", "rotators", "6789"] {
            assert!(!is_meant(typed), "{typed}");
        }
    }

    #[test]
    fn a_list_in_which_nothing_has_changed_is_the_same_one() {
        let link = |id, name: &str| NamedLink::named(id, 7, name.to_owned());
        let ids = |ids: &[u32]| ids.iter().filter_map(|&id| LinkId::new(id)).collect::<HashSet<_>>();
        let before = Links::new(vec![link(1, "one"), link(2, "two"), link(5, "five")]);
        assert!(Arc::ptr_eq(&before, &joined(&before, &ids(&[5, 1]), vec![link(5, "five"), link(1, "one")])));
        assert!(Arc::ptr_eq(&before, &joined(&before, &ids(&[9]), Vec::new())), "it was not there before");
        let joined = |changed: &[u32], now: Vec<NamedLink>| {
            let names = joined(&before, &ids(changed), now);
            names.iter().map(|link| format!("{} {}", link.id, link.name)).collect::<Vec<_>>()
        };
        assert_eq!(joined(&[2], vec![link(2, "II")]), ["1 one", "2 II", "5 five"]);
        assert_eq!(
            joined(&[3, 2], vec![link(3, "three"), link(2, "two")]),
            ["1 one", "2 two", "3 three", "5 five"]
        );
        assert_eq!(joined(&[1, 5], vec![link(5, "five")]), ["2 two", "5 five"]);
    }
}
