//! A form: its fields as they are, as they were typed, and what is wrong with each. `form.html` shows one.
//!
//! Nothing is judged here. What is typed goes to the API as it is, and what the API says of a parameter is shown at the
//! field of that name.

use serde_json::{Map, Value};

use super::posted::Fields;
use crate::cake::wire::FieldError;
use crate::cake::{CallError, read_value_list, write_value_list};

/// The fields of a page, in the order in which they are gone through.
pub struct Form {
    pub parts: Vec<Part>,
    /// What is wrong, and with none of the fields.
    pub problems: Vec<String>,
}

/// Fields that belong together.
pub struct Part {
    /// Empty: they need no heading.
    pub legend: &'static str,
    pub note: &'static str,
    pub fields: Vec<Field>,
}

/// One field.
pub struct Field {
    /// The parameter, as the API calls it.
    pub name: &'static str,
    pub label: &'static str,
    pub hint: String,
    pub input: Input,
    pub value: String,
    /// Of what is changed: what it was when the page was shown, so that only what somebody changed is sent.
    pub was: Option<String>,
    pub error: Option<String>,
    /// What somebody else made of it since the page was shown: a sentence.
    pub news: Option<String>,
}

/// How it is filled in.
pub enum Input {
    Text,
    /// With values to choose from, or any other.
    Suggested(Vec<(String, String)>),
    Choice(Vec<(String, String)>),
    /// `true` or `false`.
    Tick,
    /// Some of a few, with commas between them.
    Ticks(&'static [&'static str]),
    /// A list with commas, and whether the click's value must be in it; both go by the field's name.
    Listed {
        mode: String,
    },
}

impl Field {
    pub fn new(name: &'static str, label: &'static str) -> Self {
        Self {
            name,
            label,
            hint: String::new(),
            input: Input::Text,
            value: String::new(),
            was: None,
            error: None,
            news: None,
        }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub fn input(self, input: Input) -> Self {
        Self { input, ..self }
    }

    /// One of these, each called by its own name.
    pub fn one_of(self, values: &[&str]) -> Self {
        let values = values.iter().map(|value| ((*value).to_owned(), (*value).to_owned()));
        self.input(Input::Choice(values.collect()))
    }

    /// What it has when the page is shown.
    pub fn value(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// What it is, if it is of something that is changed.
    pub fn is(self, value: impl Into<String>) -> Self {
        let field = Self { value: value.into(), ..self };
        Self { was: Some(field.state()), ..field }
    }

    /// What it says, in the one way in which it is compared: `not in DE,FR` of a list, however it was typed.
    fn state(&self) -> String {
        let value = self.value.trim();
        match &self.input {
            Input::Listed { .. } if value.is_empty() => String::new(),
            Input::Listed { mode } => {
                let list = read_value_list(self.name, value);
                let list = list.map_or_else(|_| value.to_owned(), |list| write_value_list(&list.into()));
                format!("{} {list}", if mode == "not_in" { "not in" } else { "in" })
            }
            Input::Ticks(all) => {
                all.iter().copied().filter(|one| self.has(one)).collect::<Vec<_>>().join(",")
            }
            Input::Text | Input::Suggested(_) | Input::Choice(_) | Input::Tick => value.to_owned(),
        }
    }

    /// Whether somebody changed it here.
    fn is_changed(&self) -> bool {
        self.was.as_ref().is_some_and(|was| *was != self.state())
    }

    /// Takes up what it has come to be at the upstream: what nobody typed into is as it is now, and what somebody did
    /// stays as it was typed. Either is told, and saving it is from then on a decision about what is there now.
    fn meet(&mut self, present: &Field) {
        let (Some(was), now) = (&self.was, present.state()) else { return };
        let typed = self.state();
        if *was != now && typed != now {
            let changed = format!("{} was changed from {} to {}", self.label, shown(was), shown(&now));
            self.news = Some(if typed == *was {
                self.value.clone_from(&present.value);
                if let (Input::Listed { mode }, Input::Listed { mode: of_now }) =
                    (&mut self.input, &present.input)
                {
                    mode.clone_from(of_now);
                }
                format!("{changed} by somebody else. It stands here as it is now.")
            } else {
                format!("{changed} by somebody else. Saving again makes it {}.", shown(&typed))
            });
        }
        self.was = Some(now);
    }

    /// As an id in the page.
    pub fn id(&self) -> String {
        format!("field-{}", self.name.replace('.', "-"))
    }

    /// Whether what is typed into it is an address, or as long as one.
    pub fn is_long(&self) -> bool {
        self.name.ends_with("_url") || self.name == "ua"
    }

    /// What describes it: its hint, what somebody else made of it, and what is wrong.
    pub fn described_by(&self) -> String {
        let parts =
            [("hint", !self.hint.is_empty()), ("news", self.news.is_some()), ("error", self.error.is_some())];
        let ids = parts.iter().filter(|(_, is)| *is).map(|(part, _)| format!("{}-{part}", self.id()));
        ids.collect::<Vec<_>>().join(" ")
    }

    /// Whether the value is this one, of those to choose from.
    pub fn has(&self, value: &str) -> bool {
        match self.input {
            Input::Ticks(_) => self.value.split(',').any(|one| one == value),
            _ => self.value == value,
        }
    }

    fn type_in(&mut self, posted: &Fields) {
        self.value = match &mut self.input {
            Input::Tick => posted.is_set(self.name).to_string(),
            Input::Ticks(_) => posted.all(self.name).collect::<Vec<_>>().join(","),
            Input::Listed { mode } => {
                posted.text(&format!("{MODE}{}", self.name)).clone_into(mode);
                posted.text(self.name).trim().to_owned()
            }
            Input::Text | Input::Suggested(_) | Input::Choice(_) => posted.text(self.name).trim().to_owned(),
        };
        if self.was.is_some() {
            self.was = Some(posted.text(&format!("{WAS}{}", self.name)).trim().to_owned());
        }
    }
}

impl Form {
    pub fn new(fields: Vec<Field>) -> Self {
        Self { parts: vec![Part { legend: "", note: "", fields }], problems: Vec::new() }
    }

    pub fn part(mut self, legend: &'static str, note: &'static str, fields: Vec<Field>) -> Self {
        self.parts.push(Part { legend, note, fields });
        self
    }

    /// With what was typed in place of what there is.
    pub fn typed(mut self, posted: &Fields) -> Self {
        self.each_mut().for_each(|field| field.type_in(posted));
        self
    }

    /// With what a parameter of the page's address says, where it says something.
    pub fn prefilled(mut self, asked: &Fields) -> Self {
        for field in self.each_mut().filter(|field| asked.is_set(field.name)) {
            field.type_in(asked);
        }
        self
    }

    pub fn each(&self) -> impl Iterator<Item = &Field> {
        self.parts.iter().flat_map(|part| &part.fields)
    }

    fn each_mut(&mut self) -> impl Iterator<Item = &mut Field> {
        self.parts.iter_mut().flat_map(|part| &mut part.fields)
    }

    /// What was typed into a field.
    pub fn text(&self, name: &str) -> &str {
        self.each().find(|field| field.name == name).map_or("", |field| &field.value)
    }

    /// What was typed, as parameters of something new; what was left empty is for the API to fill in.
    pub fn filled_in(&self) -> Map<String, Value> {
        let filled = self.each().filter(|field| !field.value.is_empty());
        filled.map(|field| (field.name.to_owned(), field.value.clone().into())).collect()
    }

    /// What was changed, as parameters; also what was emptied.
    pub fn changed(&self) -> Map<String, Value> {
        let changed = self.each().filter(|field| field.is_changed());
        changed.map(|field| (field.name.to_owned(), field.value.clone().into())).collect()
    }

    /// What was changed, for people.
    pub fn changes(&self) -> String {
        let change = |field: &Field| {
            let was = field.was.as_ref().filter(|_| field.is_changed())?;
            Some(format!("{} from {} to {}", field.label, shown(was), shown(&field.state())))
        };
        self.each().filter_map(change).collect::<Vec<_>>().join(", ")
    }

    /// Compares what the form was filled from with what is there now, and tells at each field what somebody else
    /// changed meanwhile. To be followed by [`is_overtaken`](Self::is_overtaken).
    pub fn meeting(mut self, present: &Form) -> Self {
        for field in self.each_mut() {
            if let Some(present) = present.each().find(|other| other.name == field.name) {
                field.meet(present);
            }
        }
        self
    }

    /// The same where nothing is typed: what somebody else has changed since the page came from which this was posted.
    pub fn changed_since(&self, posted: &Fields) -> Vec<String> {
        let change = |field: &Field| {
            let (name, now) = (format!("was.{}", field.name), field.state());
            let was = posted.is_set(&name).then(|| posted.text(&name)).filter(|was| *was != now)?;
            Some(format!(
                "{} was changed from {} to {} by somebody else.",
                field.label,
                shown(was),
                shown(&now)
            ))
        };
        self.each().filter_map(change).collect()
    }

    /// Whether somebody else has changed what the form was filled from.
    pub fn is_overtaken(&self) -> bool {
        self.each().any(|field| field.news.is_some())
    }

    /// Where somebody else has changed something, and what.
    pub fn news(&self) -> Vec<(String, &str)> {
        self.each().filter_map(|field| Some((field.id(), field.news.as_deref()?))).collect()
    }

    /// With what the API said of it.
    pub fn refused(self, error: &CallError) -> Self {
        match error {
            CallError::Refused { message, errors, .. } if errors.is_empty() => self.with_problem(message),
            CallError::Refused { errors, .. } => errors.iter().fold(self, Form::unreadable),
            other => self.with_problem(other),
        }
    }

    /// With what the wire says of it.
    pub fn unreadable(self, error: &FieldError) -> Self {
        self.wrong(&error.parameter, &error.problem, &error.to_string())
    }

    pub fn with_problem(mut self, problem: impl ToString) -> Self {
        self.problems.push(problem.to_string());
        self
    }

    /// `whole`: what to say if there is no such field.
    pub fn wrong(mut self, parameter: &str, problem: &str, whole: &str) -> Self {
        let named = parameter.strip_prefix("conditions.").unwrap_or(parameter);
        // `country.in` is of the field `country`; hours have one each.
        let of_list = named.split('.').next().unwrap_or(named);
        let place = self
            .each()
            .position(|field| field.name == named)
            .or_else(|| self.each().position(|field| field.name == of_list))
            .or_else(|| self.each().position(|field| field.name.split('.').next() == Some(of_list)));
        match place.and_then(|place| self.each_mut().nth(place)) {
            // Of a field in several parts, the first that is wrong.
            Some(field) if field.error.is_some() => {}
            Some(field) => field.error = Some(format!("{} {problem}", field.label)),
            None => self.problems.push(whole.to_owned()),
        }
        self
    }

    pub fn is_wrong(&self) -> bool {
        !self.problems.is_empty() || self.each().any(|field| field.error.is_some())
    }

    /// The fields that are wrong: where each is, and what to say of it.
    pub fn errors(&self) -> Vec<(String, &str)> {
        let wrong = |field: &'_ Field| field.error.is_some();
        self.each()
            .filter(|field| wrong(field))
            .map(|field| (field.id(), field.error.as_deref().unwrap_or_default()))
            .collect()
    }

    /// Where somebody begins to type: the first field that is wrong, or of which there is something to be told.
    pub fn has_focus(&self, field: &Field) -> bool {
        let first = self.each().find(|field| field.error.is_some());
        let first = first.or_else(|| self.each().find(|field| field.news.is_some()));
        first.is_some_and(|first| first.name == field.name)
    }
}

/// A value in a sentence.
fn shown(value: &str) -> String {
    if value.is_empty() { "none".to_owned() } else { format!("“{value}”") }
}

/// Before the name of a field: what it was.
const WAS: &str = "was.";

/// Before the name of a list: whether the value must be in it.
const MODE: &str = "mode.";

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn form() -> Form {
        Form::new(vec![
            Field::new("offer_weight", "Weight").is("60"),
            Field::new("priority", "Priority").is("1"),
            Field::new("cap_aware", "Looks at caps").input(Input::Tick).is("true"),
        ])
        .part(
            "Conditions",
            "",
            vec![
                Field::new("country", "Country").input(Input::Listed { mode: "in".to_owned() }),
                Field::new("hours.from", "From"),
                Field::new("hours.to", "To"),
            ],
        )
    }

    fn refused(errors: &[(&str, &str)]) -> Form {
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let errors =
            errors.iter().map(|(parameter, problem)| FieldError::new(*parameter, *problem)).collect();
        form().refused(&CallError::Refused { status, message: "no".to_owned(), errors })
    }

    #[test]
    fn only_what_somebody_changed_is_sent() {
        let posted = Fields::read(
            b"offer_weight=40&was.offer_weight=60&priority=1&was.priority=1&cap_aware=true&was.cap_aware=true\
              &country=+US,CA&mode.country=not_in&hours.from=",
        );
        let form = form().typed(&posted);
        assert_eq!(Value::Object(form.changed()), serde_json::json!({"offer_weight": "40"}));
        assert_eq!(form.changes(), "Weight from “60” to “40”");
        assert_eq!(form.text("country"), "US,CA");
        assert!(matches!(&form.parts[1].fields[0].input, Input::Listed { mode } if mode == "not_in"));
        // A box that is not ticked is not sent, and what is emptied is.
        let form = self::form().typed(&Fields::read(b"was.cap_aware=true&was.offer_weight=60&was.priority="));
        assert_eq!(
            Value::Object(form.changed()),
            serde_json::json!({"cap_aware": "false", "offer_weight": ""})
        );
        assert_eq!(form.changes(), "Weight from “60” to none, Looks at caps from “true” to “false”");
    }

    #[test]
    fn what_the_api_says_stands_at_the_field_that_it_names() {
        for (parameter, problem, id, said) in [
            ("offer_weight", "is 101; expected …", "field-offer_weight", "Weight is 101; expected …"),
            ("conditions.country.in", "is \"ZZ\"", "field-country", "Country is \"ZZ\""),
            ("conditions.hours.to", "is missing", "field-hours-to", "To is missing"),
            ("conditions.hours", "is empty", "field-hours-from", "From is empty"),
        ] {
            let form = refused(&[(parameter, problem)]);
            assert_eq!(form.errors(), [(id.to_owned(), said)], "{parameter}");
            assert!(form.is_wrong() && form.problems.is_empty());
        }
        let form =
            refused(&[("offer_name", "is missing"), ("priority", "is -1"), ("conditions.hours.to", "is x")]);
        assert_eq!(form.errors().len(), 2, "each at its field");
        assert_eq!(form.problems, ["`offer_name` is missing"]);
        assert_eq!(refused(&[]).problems, ["no"]);
    }
}
