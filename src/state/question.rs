//! Why a click goes where it goes: a click described in words, told step by step on what is live. One function for
//! whoever asks: the endpoint, the command, the console.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use rand::TryRng;
use rand::rngs::SysRng;

use crate::lookup::{Hints, device};
use crate::routing::{Choice, Outcome, TierStory, Values, explain};
use crate::types::{
    AffiliateId, Click, Country, Device, Draw, Language, LinkId, Place, Region, Subs, UnixMillis,
    referrer_host,
};

use super::caps::Caps;
use super::clock::now;
use super::geo::Geo;
use super::live::Published;

/// A click in the words of whoever asks. What is empty counts as absent, but for the User-Agent and the sub ids.
#[derive(Clone, Copy, Debug, Default)]
pub struct Question<'q> {
    pub id: Option<&'q str>,
    pub aff_id: Option<&'q str>,
    /// The visitor's address; 127.0.0.1 if absent.
    pub ip: Option<&'q str>,
    /// Instead of what the databases say of the address: then nothing but the country is known.
    pub country: Option<&'q str>,
    /// The User-Agent.
    pub ua: Option<&'q str>,
    /// As in `Accept-Language`.
    pub language: Option<&'q str>,
    /// As in `Referer`.
    pub referrer: Option<&'q str>,
    /// RFC 3339; now, if absent.
    pub at: Option<&'q str>,
    /// `0x` and hexadecimal, or decimal; a random one if absent.
    pub draw: Option<&'q str>,
    pub subs: Subs<'q>,
}

/// What becomes of the click, and why.
#[derive(Debug)]
pub struct Explained {
    pub outcome: Outcome,
    pub choice: Option<Choice>,
    /// Whose link it is, be it of the click's affiliate or not; `None`: there is no such link.
    pub affiliate: Option<AffiliateId>,
    /// With the click id `explained`. `None`: there is none, or it would be too long.
    pub destination: Option<String>,
    pub snapshot: String,
    pub generation: u64,
    pub draw: Draw,
    pub at: UnixMillis,
    pub visitor: Looked,
    pub tiers: Vec<TierStory>,
}

/// What was looked up of the visitor.
#[derive(Clone, Debug)]
pub struct Looked {
    pub address: IpAddr,
    pub country: Option<Country>,
    pub region: Option<Region>,
    pub city: Option<String>,
    pub asn: Option<u32>,
    pub device: Device,
    pub language: Option<Language>,
    pub referrer_host: Option<String>,
}

/// A parameter that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}` {problem}")]
pub struct ParameterError {
    pub parameter: &'static str,
    pub problem: String,
}

/// Every parameter that cannot be read; at least one.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct ParameterErrors(pub Vec<ParameterError>);

impl fmt::Display for ParameterErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            write!(f, "{}{error}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

impl Question<'_> {
    /// Explains the click on a table. Nothing is spent and nothing is counted.
    pub fn answer(&self, published: &Published, geo: &Geo) -> Result<Explained, ParameterErrors> {
        let mut wrong = Wrong(Vec::new());
        let link = wrong.required(self.id, "id", |id| LinkId::parse(id.as_bytes()));
        let affiliate = wrong.required(self.aff_id, "aff_id", |id| AffiliateId::parse(id.as_bytes()));
        let address = wrong.read(self.ip, "ip", "an IP address", |ip| ip.parse::<IpAddr>().ok());
        let country = wrong.read(
            self.country,
            "country",
            "an ISO 3166-1 alpha-2 country code in upper case, such as US",
            Country::parse,
        );
        let at = wrong.read(self.at, "at", "a moment in RFC 3339 such as 2026-11-22T14:30:00Z", read_moment);
        let draw = wrong.read(self.draw, "draw", "64 bits as 0x… or decimal", read_draw);
        let (Some(link), Some(affiliate), []) = (link, affiliate, &wrong.0[..]) else {
            return Err(ParameterErrors(wrong.0));
        };
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).to_canonical();
        let click = Click {
            link,
            affiliate,
            at: at.unwrap_or_else(now),
            address,
            place: match country {
                Some(country) => Place { country: Some(country), ..Place::default() },
                None => geo.place(address).1,
            },
            device: device(&Hints { user_agent: self.ua, ..Hints::default() }),
            language: self.language.and_then(Language::from_accept_language),
            referrer_host: self.referrer.and_then(referrer_host),
            subs: self.subs,
        };
        let draw = draw.unwrap_or_else(|| Draw(SysRng.try_next_u64().unwrap_or_default()));
        Ok(tell(&click, draw, published))
    }
}

fn tell(click: &Click<'_>, draw: Draw, published: &Published) -> Explained {
    let explanation = explain(published.table.of(click.link), &Caps::looking(&published.caps), click, draw);
    let decision = explanation.decision;
    let mut location = Vec::new();
    let filled = decision.destination.is_some_and(|template| {
        let offer = decision.choice.map(|choice| choice.offer);
        template.fill(&Values { click, click_id: "explained", offer }, &mut location).is_ok()
    });
    Explained {
        outcome: decision.outcome,
        choice: decision.choice,
        affiliate: explanation.affiliate,
        destination: filled.then(|| String::from_utf8_lossy(&location).into_owned()),
        snapshot: published.snapshot.clone(),
        generation: published.generation,
        draw,
        at: click.at,
        visitor: Looked {
            address: click.address,
            country: click.place.country,
            region: click.place.region,
            city: click.place.city.map(str::to_owned),
            asn: click.place.asn,
            device: click.device,
            language: click.language,
            referrer_host: click.referrer_host.map(str::to_owned),
        },
        tiers: explanation.tiers,
    }
}

/// What could not be read so far.
struct Wrong(Vec<ParameterError>);

impl Wrong {
    fn required<T>(
        &mut self,
        text: Option<&str>,
        parameter: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if text.is_none_or(str::is_empty) {
            self.0.push(ParameterError { parameter, problem: "is missing".to_owned() });
            return None;
        }
        self.read(text, parameter, "a number from 1 to 4294967295 in plain digits", parse)
    }

    /// `None`: there is nothing, or nothing that can be read.
    fn read<T>(
        &mut self,
        text: Option<&str>,
        parameter: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = text.filter(|text| !text.is_empty())?;
        let read = parse(text);
        if read.is_none() {
            self.0.push(ParameterError { parameter, problem: format!("is {text:?}; expected {expected}") });
        }
        read
    }
}

fn read_moment(text: &str) -> Option<UnixMillis> {
    text.parse::<jiff::Timestamp>().ok().map(|at| UnixMillis(at.as_millisecond()))
}

fn read_draw(text: &str) -> Option<Draw> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number.ok().map(Draw)
}

#[cfg(test)]
mod tests {
    use super::super::live::LiveTable;
    use super::*;
    use crate::routing::{BotPolicy, Table};

    fn answer(question: &Question<'_>) -> Result<Explained, String> {
        let live = LiveTable::new(Table::empty(None, BotPolicy::Fallback)).current();
        question.answer(&live, &Geo::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let question = Question {
            id: Some("x"),
            ip: Some("1.2.3"),
            country: Some("us"),
            at: Some("noon"),
            draw: Some("0xg"),
            ..Question::default()
        };
        let said = answer(&question).unwrap_err();
        let named: Vec<&str> = said.split("; `").map(|one| one.trim_matches('`')).collect();
        let parameters: Vec<&str> = named.iter().filter_map(|one| one.split('`').next()).collect();
        assert_eq!(parameters, ["id", "aff_id", "ip", "country", "at", "draw"], "{said}");
        assert!(
            said.contains("`aff_id` is missing") && said.contains("`ip` is \"1.2.3\"; expected"),
            "{said}"
        );
    }

    #[test]
    fn a_country_stands_for_itself_alone() {
        let question = Question {
            id: Some("1"),
            aff_id: Some("7"),
            ip: Some("::ffff:192.0.2.1"),
            country: Some("CA"),
            draw: Some("0x10"),
            at: Some("2026-11-22T14:30:00Z"),
            ..Question::default()
        };
        let told = answer(&question).unwrap();
        assert_eq!((told.outcome, told.draw, told.at.0), (Outcome::UnknownLink, Draw(16), 1_795_357_800_000));
        assert_eq!(told.visitor.country, Country::parse("CA"));
        assert_eq!(told.visitor.address.to_string(), "192.0.2.1");
        assert_eq!((told.visitor.region, told.visitor.asn), (None, None));
    }
}
