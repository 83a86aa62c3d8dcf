//! The network that the clicks are for, as the test has made it: every state that it was in, and since when and until when a
//! node may have answered by it. An answer is right if one of the states that were live while the click was on its way has it.
//!
//! Everything that a destination is made of is in it: the offer, the version of its URL, the link that was clicked. So an answer
//! that is put together from two states is none of them.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use rand::{Rng, RngExt};
use serde_json::json;

use crate::support::http::{Answer, CRAWLER, Request};
use crate::support::node::{Node, Setup};

pub struct Network {
    /// Those without caps. They come first, and change.
    plain_links: usize,
    states: Mutex<Vec<State>>,
}

struct State {
    offers: Vec<Offer>,
    links: Vec<Link>,
    /// Before this, nobody can have heard of it.
    since: Instant,
    /// From this on, every answer is of a later one.
    until: Option<Instant>,
}

#[derive(Clone)]
struct Offer {
    /// In its URL.
    version: u32,
    has_cap: bool,
}

#[derive(Clone)]
struct Link {
    is_active: bool,
    /// By their indexes.
    offers: Vec<usize>,
}

/// Who clicks on what.
#[derive(Clone, Copy, Debug)]
pub struct Click {
    link: usize,
    visitor: Visitor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Visitor {
    Person,
    /// HEAD: no click, and the same answer.
    Probe,
    Bot,
    /// By the link of another affiliate.
    Stray,
    /// By a link that there never was.
    Lost,
}

impl Network {
    /// As many links as that, two or more, each with its own offer and that of the next. Where caps are given, further links: each
    /// with one offer that takes so many clicks, ever.
    pub fn make(node: &Node, links: usize, caps: &[u64]) -> Self {
        let since = Instant::now();
        let offers = vec![Offer { version: 0, has_cap: false }; links];
        let plain = (0..links).map(|nth| Link { is_active: true, offers: vec![nth, (nth + 1) % links] });
        let mut state = State { offers, links: plain.collect(), since, until: None };
        for _ in caps {
            state.links.push(Link { is_active: true, offers: vec![state.offers.len()] });
            state.offers.push(Offer { version: 0, has_cap: true });
        }
        for index in 0..state.offers.len() {
            assert_eq!(node.create_offer(&offer_url(index, 0)), id(index));
        }
        for (index, link) in state.links.iter().enumerate() {
            let fallback = fallback(index) + "{click_id}";
            let made = node.create_link(json!({"affiliate_id": AFFILIATE, "fallback_url": fallback}));
            assert_eq!(made, id(index));
            link.offers.iter().for_each(|&offer| node.attach(made, id(offer)));
        }
        let first = state.offers.len() - caps.len();
        for (nth, amount) in caps.iter().enumerate() {
            let cap = json!({"offer_id": id(first + nth), "cap_type": "click", "cap_interval": "lifetime", "cap_amount": amount});
            node.post("offer_cap.json", cap);
        }
        node.refresh();
        Self { plain_links: links, states: Mutex::new(vec![state]) }
    }

    /// What a node needs to know that is not in the network.
    pub fn configure(setup: Setup) -> Setup {
        setup.setting(&format!("network.default_fallback_url = \"{NOWHERE}{{click_id}}\""))
    }

    /// Says a change of some kind to the API. From now on it may be live, and what was may be so, too.
    pub fn change(&self, node: &Node, random: &mut impl Rng) {
        let (index, kind, call, fields);
        {
            let mut states = self.states();
            let last = states.last().expect("there is always one");
            let mut next = State {
                offers: last.offers.clone(),
                links: last.links.clone(),
                since: Instant::now(),
                until: None,
            };
            index = random.random_range(0..self.plain_links);
            kind = random.random_range(0..4);
            let link = &mut next.links[index];
            (call, fields) = match kind {
                0 => {
                    link.is_active = !link.is_active;
                    let status = if link.is_active { "active" } else { "inactive" };
                    (
                        "update_smart_link.json",
                        json!({"smart_link_id": id(index), "smart_link_status": status}),
                    )
                }
                1 => {
                    let fields = json!({"smart_link_id": id(index), "offer_id": id(index)});
                    match link.offers.iter().position(|&offer| offer == index) {
                        Some(place) => {
                            link.offers.remove(place);
                            ("remove_smart_link_offer.json", fields)
                        }
                        None => {
                            link.offers.push(index);
                            ("smart_link_offer.json", fields)
                        }
                    }
                }
                _ => {
                    let offer = &mut next.offers[index];
                    offer.version += 1;
                    let url = offer_url(index, offer.version);
                    ("update_offer.json", json!({"offer_id": id(index), "offer_url": url}))
                }
            };
            states.push(next);
        }
        node.post(call, fields);
    }

    /// The node has published the last change: whatever was before it is over.
    pub fn settle(&self) {
        let now = Instant::now();
        let mut states = self.states();
        for state in states.iter_mut().rev().skip(1) {
            if state.until.is_some() {
                break;
            }
            state.until = Some(now);
        }
    }

    /// Someone, on some link.
    pub fn draw(&self, random: &mut impl Rng) -> Click {
        let link = random.random_range(0..self.states().last().expect("there is always one").links.len());
        let visitor = match random.random_range(0..20) {
            0 => Visitor::Bot,
            1 => Visitor::Probe,
            2 => Visitor::Stray,
            3 => Visitor::Lost,
            _ => Visitor::Person,
        };
        Click { link, visitor }
    }

    /// The click id of an answer, or what is wrong with it. It was asked for and answered at these times.
    pub fn check(
        &self,
        click: Click,
        asked: Instant,
        answered: Instant,
        answer: &Answer,
    ) -> Result<String, String> {
        let location = answer.header("location").filter(|_| answer.status == 302);
        let Some((destination, click_id)) = location.and_then(|location| location.split_once("r=")) else {
            return Err(format!("no redirect of this network to {click:?}: {answer:?}"));
        };
        let destination = format!("{destination}r=");
        let states = self.states();
        let mut live = states
            .iter()
            .rev()
            .skip_while(|state| state.since > answered)
            .take_while(|state| state.until.is_none_or(|until| until >= asked));
        let is_right = live.any(|state| state.leads(click, &destination));
        if is_right && click_id.len() > 20 {
            return Ok(click_id.to_owned());
        }
        let now: Vec<_> =
            states.last().map(|state| state.destinations(click)).into_iter().flatten().collect();
        Err(format!("{click:?} went to {destination} (click id {click_id:?}), and now should go to {now:?}"))
    }

    /// The offers with caps, by their ids.
    pub fn capped(&self) -> Vec<i64> {
        let states = self.states();
        let offers = states.last().expect("there is always one").offers.iter().enumerate();
        offers.filter(|(_, offer)| offer.has_cap).map(|(index, _)| id(index)).collect()
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap()
    }
}

impl State {
    fn leads(&self, click: Click, destination: &str) -> bool {
        self.destinations(click).iter().any(|one| one == destination)
    }

    /// Where the click may go, up to its click id.
    fn destinations(&self, click: Click) -> Vec<String> {
        let link = &self.links[click.link];
        let offers =
            || link.offers.iter().map(|&offer| destination(offer, self.offers[offer].version, click.link));
        match click.visitor {
            Visitor::Lost => vec![NOWHERE.to_owned()],
            _ if !link.is_active => vec![fallback(click.link)],
            Visitor::Stray => vec![NOWHERE.to_owned()],
            Visitor::Bot => vec![fallback(click.link)],
            Visitor::Person | Visitor::Probe
                if link.offers.iter().all(|&offer| self.offers[offer].has_cap) =>
            {
                offers().chain([fallback(click.link)]).collect()
            }
            Visitor::Person | Visitor::Probe => offers().collect(),
        }
    }
}

impl Click {
    /// The bytes of its request.
    pub fn request(self) -> Vec<u8> {
        let (link, affiliate) = match self.visitor {
            Visitor::Lost => (id(self.link) + 1_000_000, AFFILIATE),
            Visitor::Stray => (id(self.link), AFFILIATE + 1),
            _ => (id(self.link), AFFILIATE),
        };
        let request = Request::click(&format!("/sl?id={link}&aff_id={affiliate}&s1=chaos"));
        match self.visitor {
            Visitor::Bot => request.with("User-Agent", CRAWLER),
            Visitor::Probe => request.method("HEAD"),
            _ => request,
        }
        .to_bytes()
    }

    pub fn is_probe(self) -> bool {
        self.visitor == Visitor::Probe
    }
}

/// Of the API, which counts from 1.
fn id(index: usize) -> i64 {
    index as i64 + 1
}

fn offer_url(offer: usize, version: u32) -> String {
    format!("https://o{}.example.com/v{version}?l={{smart_link_id}}&r={{click_id}}", id(offer))
}

fn destination(offer: usize, version: u32, link: usize) -> String {
    format!("https://o{}.example.com/v{version}?l={}&r=", id(offer), id(link))
}

fn fallback(link: usize) -> String {
    format!("https://f{}.example.com/?r=", id(link))
}

/// Where clicks go that no link takes.
const NOWHERE: &str = "https://nowhere.example.com/?r=";

const AFFILIATE: i64 = 7;
