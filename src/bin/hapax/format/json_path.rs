//! Paths into JSON documents, and finding several of them in one pass.

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use std::ops::Range;

/// One step into a document.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(String),
    Item(usize),
}

/// A path such as `.a.b[0]` or `.["a b"]`; the leading dot may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JsonPath {
    text: String,
    steps: Vec<Step>,
}

impl JsonPath {
    /// Reads a path; the error says how one is written.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let steps = steps(text).filter(|steps| !steps.is_empty());
        let advice = || format!("`{text}` is no JSON path: write it like .a.b[0] or .[\"a b\"]");
        Ok(Self { text: text.to_owned(), steps: steps.ok_or_else(advice)? })
    }

    /// The path as it was given.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

fn steps(text: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text.strip_prefix('.').unwrap_or(text);
    while !rest.is_empty() {
        let (step, after) = if let Some(inside) = rest.strip_prefix('[') {
            bracket(inside)?
        } else {
            let (name, after) = rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()));
            (!name.is_empty()).then(|| (Step::Member(name.to_owned()), after))?
        };
        steps.push(step);
        rest = match after.strip_prefix('.') {
            Some("") => return None,
            Some(next) => next,
            None => after,
        };
    }
    Some(steps)
}

/// Reads `0]` or `"a b"]`, and gives what follows.
fn bracket(inside: &str) -> Option<(Step, &str)> {
    if !inside.starts_with('"') {
        let (digits, after) = inside.split_once(']')?;
        return Some((Step::Item(digits.parse().ok()?), after));
    }
    let mut names = serde_json::Deserializer::from_str(inside).into_iter::<String>();
    let name = names.next()?.ok()?;
    let after = inside[names.byte_offset()..].strip_prefix(']')?;
    Some((Step::Member(name), after))
}

/// Several paths as a tree, so that one pass over a document finds them all.
#[derive(Debug, Default)]
pub(crate) struct PathTree {
    /// The paths that end here, by number.
    ends: Vec<usize>,
    members: Vec<(String, PathTree)>,
    items: Vec<(usize, PathTree)>,
}

/// Where in the document each path leads, if anywhere.
pub(crate) type Found = [Option<Range<usize>>];

impl PathTree {
    /// The tree of `paths`, which keep their numbers.
    pub(crate) fn new<'a>(paths: impl Iterator<Item = &'a JsonPath>) -> Self {
        let mut tree = Self::default();
        for (number, path) in paths.enumerate() {
            tree.at(&path.steps).ends.push(number);
        }
        tree
    }

    /// The place at the end of `steps`, made if need be.
    fn at(&mut self, steps: &[Step]) -> &mut Self {
        match steps {
            [] => self,
            [Step::Member(name), rest @ ..] => child(&mut self.members, name).at(rest),
            [Step::Item(index), rest @ ..] => child(&mut self.items, index).at(rest),
        }
    }

    /// Says in `found` where in `document` each path leads. Where a member
    /// occurs twice, the last one counts.
    ///
    /// # Errors
    ///
    /// The document is not JSON.
    pub(crate) fn find(&self, document: &[u8], found: &mut Found) -> serde_json::Result<()> {
        found.fill(None);
        let mut reader = serde_json::Deserializer::from_slice(document);
        let origin = document.as_ptr() as usize;
        Walk { place: self, origin, found }.deserialize(&mut reader)?;
        reader.end()
    }

    /// Forgets what was found here and below.
    fn clear(&self, found: &mut Found) {
        for &number in &self.ends {
            found[number] = None;
        }
        self.members.iter().for_each(|(_, below)| below.clear(found));
        self.items.iter().for_each(|(_, below)| below.clear(found));
    }

    fn is_leaf(&self) -> bool {
        self.members.is_empty() && self.items.is_empty()
    }
}

fn child<'a, N: PartialEq + Clone>(
    children: &'a mut Vec<(N, PathTree)>,
    name: &N,
) -> &'a mut PathTree {
    let place = children.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        children.push((name.clone(), PathTree::default()));
        children.len() - 1
    });
    &mut children[place].1
}

/// Reads one value at `place` of the tree.
struct Walk<'a> {
    place: &'a PathTree,
    /// Address of the document's first byte: places in it are told by the
    /// difference to that of a borrowed value.
    origin: usize,
    found: &'a mut Found,
}

impl Walk<'_> {
    fn below<'a>(&'a mut self, place: &'a PathTree) -> Walk<'a> {
        Walk { place, origin: self.origin, found: self.found }
    }

    /// Notes the value for the paths that end here.
    fn note(&mut self, value: &RawValue) {
        let start = value.get().as_ptr() as usize - self.origin;
        for &number in &self.place.ends {
            self.found[number] = Some(start..start + value.get().len());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(mut self, reader: D) -> Result<(), D::Error> {
        if self.place.ends.is_empty() {
            return reader.deserialize_any(self);
        }
        let value = <&'de RawValue as serde::Deserialize>::deserialize(reader)?;
        self.note(value);
        if self.place.is_leaf() {
            return Ok(());
        }
        let mut inside = serde_json::Deserializer::from_str(value.get());
        inside.deserialize_any(self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        let place = self.place;
        while let Some(known) = members.next_key_seed(Known(&place.members))? {
            match known {
                Some(below) => {
                    below.clear(self.found);
                    members.next_value_seed(self.below(below))?;
                }
                None => drop(members.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let place = self.place;
        for index in 0.. {
            let below = place.items.iter().find(|(wanted, _)| *wanted == index);
            let more = match below {
                Some((_, below)) => items.next_element_seed(self.below(below))?.is_some(),
                None => items.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Finds a member's name among the known ones, without keeping it.
struct Known<'a>(&'a [(String, PathTree)]);

impl<'de, 'a> DeserializeSeed<'de> for Known<'a> {
    type Value = Option<&'a PathTree>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Known<'a> {
    type Value = Option<&'a PathTree>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|(known, _)| known == name).map(|(_, below)| below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(path: &str, document: &str) -> Option<String> {
        let path = JsonPath::parse(path).unwrap();
        let mut found = [None];
        PathTree::new([&path].into_iter()).find(document.as_bytes(), &mut found).unwrap();
        found[0].clone().map(|range| document[range].to_owned())
    }

    #[test]
    fn paths_lead_to_values_as_written() {
        let document = r#" {"a": {"b": [ 1.0 , {"c d": "x\ty"}]}, "": 7, "a]": 8, "é": true} "#;
        assert_eq!(find(".a.b[0]", document).unwrap(), "1.0");
        assert_eq!(find("a.b[1].[\"c d\"]", document).unwrap(), r#""x\ty""#);
        assert_eq!(find("a.b[1][\"c\\u0020d\"]", document).unwrap(), r#""x\ty""#);
        assert_eq!(find(".a.b", document).unwrap(), r#"[ 1.0 , {"c d": "x\ty"}]"#);
        assert_eq!(find("[\"\"]", document).unwrap(), "7");
        assert_eq!(find(".[\"a]\"]", document).unwrap(), "8");
        assert_eq!(find(".é", document).unwrap(), "true");
        assert_eq!(find(".a.b[2]", document), None);
        assert_eq!(find(".a[0]", document), None);
        assert_eq!(find(".é.b", document), None);
    }

    #[test]
    fn the_last_of_equal_members_counts() {
        assert_eq!(find(".a.b", r#"{"a": {"b": 1}, "\u0061": {"b": 2}}"#).unwrap(), "2");
        assert_eq!(find(".a.b", r#"{"a": {"b": 1}, "a": 5}"#), None);
    }

    #[test]
    fn a_path_may_lead_through_another() {
        let paths = [".a", ".a.b", ".a"].map(|path| JsonPath::parse(path).unwrap());
        let mut found = vec![None; 3];
        PathTree::new(paths.iter()).find(br#"{"a": {"b": 1}}"#, &mut found).unwrap();
        assert_eq!(found, [Some(6..14), Some(12..13), Some(6..14)]);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for wrong in ["", ".", "..a", ".a.", ".a..b", ".a[", ".a[x]", ".a[-1]", ".[\"a\"", "a[\"b]"]
        {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn deep_documents_do_not_overflow_the_stack() {
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
        assert_eq!(find(".b", &deep), None);
        assert!(find(".a", &deep).is_some());
    }
}
