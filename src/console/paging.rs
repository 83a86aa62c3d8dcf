//! A part of a long list: which rows, and the links to the others. Pure.

/// Where in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub number: usize,
    pub pages: usize,
    pub rows: usize,
}

impl Page {
    /// The page that was asked for, or the nearest that there is.
    pub fn of(rows: usize, asked: Option<usize>) -> Self {
        let pages = rows.div_ceil(ROWS).max(1);
        Self { number: asked.unwrap_or(1).clamp(1, pages), pages, rows }
    }

    /// Which rows of the list.
    pub fn range(self) -> std::ops::Range<usize> {
        let start = (self.number - 1) * ROWS;
        start..(start + ROWS).min(self.rows)
    }

    /// `1–50`, counted from 1.
    pub fn shown(self) -> String {
        let range = self.range();
        format!("{}–{}", super::show::count((range.start + 1) as u64), super::show::count(range.end as u64))
    }

    pub fn previous(self) -> Option<usize> {
        (self.number > 1).then(|| self.number - 1)
    }

    pub fn next(self) -> Option<usize> {
        (self.number < self.pages).then_some(self.number + 1)
    }
}

/// A query of a path, from those parameters that say something.
pub fn query(parameters: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
    query.extend_pairs(parameters.iter().filter(|(_, value)| !value.is_empty()));
    query.finish()
}

/// On a page.
pub const ROWS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_on_one_page() {
        for rows in [0, 1, ROWS - 1, ROWS, ROWS + 1, 10 * ROWS, 10 * ROWS + 7] {
            let mut next = 0;
            let pages = Page::of(rows, None).pages;
            for number in 1..=pages {
                let page = Page::of(rows, Some(number));
                assert_eq!(page.range().start, next, "{rows}");
                next = page.range().end;
                assert_eq!((page.previous().is_some(), page.next().is_some()), (number > 1, number < pages));
            }
            assert_eq!(next, rows);
        }
    }

    #[test]
    fn a_page_that_is_not_there_is_the_nearest() {
        let number = |asked| Page::of(3 * ROWS, asked).number;
        assert_eq!([None, Some(0), Some(2), Some(9)].map(number), [1, 1, 2, 3]);
        assert_eq!(Page::of(ROWS + 1, Some(2)).shown(), "51–51");
    }

    #[test]
    fn queries_are_encoded_and_short() {
        assert_eq!(query(&[("q", "a&b ü"), ("sort", ""), ("page", "2")]), "?q=a%26b+%C3%BC&page=2");
        assert_eq!(query(&[]), "?");
    }
}
