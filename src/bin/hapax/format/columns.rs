//! Which columns make key and time, by name or by number.

use crate::error::{FileProblem, excerpt};

/// A column as the user asked for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column(String);

impl Column {
    /// Takes the flag's value.
    pub(crate) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The flag's value.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// The column's place from 0, if it was given by number.
    pub(crate) fn by_number(&self) -> Option<usize> {
        self.0.parse::<usize>().ok()?.checked_sub(1)
    }

    /// The column's place under `header`. A name wins over a number, so that a
    /// column called `2024` can be meant.
    fn by_header(&self, header: &[&[u8]]) -> Result<usize, FileProblem> {
        let mut named = (0..header.len()).filter(|&place| header[place] == self.0.as_bytes());
        match (named.next(), named.next()) {
            (Some(place), None) => Ok(place),
            (Some(_), Some(_)) => {
                Err(FileProblem::SeveralColumns { wanted: self.0.clone(), columns: header.len() })
            }
            (None, _) => self
                .by_number()
                .filter(|place| *place < header.len())
                .ok_or_else(|| self.unknown(header)),
        }
    }

    fn unknown(&self, header: &[&[u8]]) -> FileProblem {
        let columns = excerpt(&header.join(&b", "[..]));
        FileProblem::NoColumn { wanted: self.0.clone(), columns }
    }
}

/// The places of key and time in a record.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    keys: Vec<Column>,
    time: Option<Column>,
    key_places: Vec<usize>,
    time_place: Option<usize>,
}

impl Columns {
    /// Columns whose places [`resolve`](Self::resolve) will find in a header.
    pub(crate) fn with_header(keys: Vec<Column>, time: Option<Column>) -> Self {
        Self { keys, time, ..Self::default() }
    }

    /// Columns by number; the first that is none comes back as the error.
    pub(crate) fn by_number(keys: Vec<Column>, time: Option<Column>) -> Result<Self, Column> {
        let place = |column: &Column| column.by_number().ok_or_else(|| column.clone());
        let key_places = keys.iter().map(place).collect::<Result<_, _>>()?;
        let time_place = time.as_ref().map(place).transpose()?;
        Ok(Self { keys, time, key_places, time_place })
    }

    /// Finds all columns in `header`.
    pub(crate) fn resolve(&mut self, header: &[&[u8]]) -> Result<(), FileProblem> {
        let places = self.keys.iter().map(|column| column.by_header(header));
        self.key_places = places.collect::<Result<_, _>>()?;
        self.time_place = self.time.as_ref().map(|column| column.by_header(header)).transpose()?;
        Ok(())
    }

    /// The key columns and their places.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (&Column, usize)> {
        self.keys.iter().zip(self.key_places.iter().copied())
    }

    /// The time column and its place.
    pub(crate) fn time(&self) -> Option<(&Column, usize)> {
        self.time.as_ref().zip(self.time_place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_wins_over_a_number() {
        let header: [&[u8]; 3] = [b"id", b"1", b"3"];
        let place = |text: &str| Column::new(text).by_header(&header).ok();
        assert_eq!(place("id"), Some(0));
        assert_eq!(place("1"), Some(1));
        assert_eq!(place("2"), Some(1));
        assert_eq!(place("3"), Some(2));
        assert_eq!(place("0"), None);
        assert_eq!(place("4"), None);
    }

    #[test]
    fn a_name_that_occurs_twice_is_refused() {
        let header: [&[u8]; 2] = [b"id", b"id"];
        let problem = Column::new("id").by_header(&header).unwrap_err();
        assert!(matches!(problem, FileProblem::SeveralColumns { columns: 2, .. }));
        assert!(matches!(Column::new("2").by_header(&header), Ok(1)));
    }
}
