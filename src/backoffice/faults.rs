//! Everything that is wrong with the parameters of a call: whoever filled in a form hears of every field at once, and not
//! of one after the other.

use super::answer::Refusal;
use crate::cake::wire::FieldError;

/// What was found wrong so far, in the order in which it was looked at; of each parameter, the first that was found.
#[derive(Debug, Default)]
pub struct Faults {
    /// With the status of the whole refusal.
    first: Option<Refusal>,
    others: Vec<FieldError>,
}

impl Faults {
    /// What was read; `None`, and kept in mind, if its parameter is wrong. What has to do with no parameter ends the call.
    pub fn read<T>(&mut self, read: Result<T, Refusal>) -> Result<Option<T>, Refusal> {
        match read {
            Ok(value) => Ok(Some(value)),
            Err(refusal) if refusal.field().is_some() => {
                self.add(refusal);
                Ok(None)
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// The same, of what need not be there.
    pub fn sent<T>(&mut self, read: Result<Option<T>, Refusal>) -> Result<Option<T>, Refusal> {
        Ok(self.read(read)?.flatten())
    }

    /// Keeps these in mind, too.
    pub fn extend(&mut self, errors: impl IntoIterator<Item = FieldError>) {
        errors.into_iter().for_each(|error| self.add(Refusal::Value(error)));
    }

    /// Refuses the call if anything was wrong, with the status and in the words of the first.
    pub fn end(self) -> Result<(), Refusal> {
        match self.first {
            None => Ok(()),
            Some(first) if self.others.is_empty() => Err(first),
            Some(first) => Err(Refusal::Several { first: Box::new(first), others: self.others }),
        }
    }

    fn add(&mut self, refusal: Refusal) {
        let Some(error) = refusal.field() else { return };
        let is_known = |known: &FieldError| known.parameter == error.parameter;
        match &self.first {
            None => self.first = Some(refusal),
            Some(first) if first.field().is_some_and(is_known) || self.others.iter().any(is_known) => {}
            Some(_) => self.others.push(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_parameter_is_told_once_and_the_first_gives_the_status() {
        let mut faults = Faults::default();
        assert_eq!(faults.sent(Ok(Some(1))).unwrap(), Some(1));
        assert_eq!(faults.sent::<i64>(Err(Refusal::malformed("a", "is no number"))).unwrap(), None);
        faults.extend([FieldError::new("b", "is too high"), FieldError::new("a", "is 0")]);
        assert!(faults.read::<()>(Err(Refusal::Broken("the disk".to_owned()))).is_err());
        let refusal = faults.end().unwrap_err();
        assert_eq!((refusal.status().as_u16(), refusal.to_string().as_str()), (400, "`a` is no number"));
        let told: Vec<String> = refusal.fields().map(ToString::to_string).collect();
        assert_eq!(told, ["`a` is no number", "`b` is too high"]);
        assert!(Faults::default().end().is_ok());
    }
}
