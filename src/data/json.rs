//! Lists of records in JSON files, read record by record without an intermediate copy.

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::Id;
use crate::error::{Error, Result};

/// Takes the records of one file one by one.
pub(super) trait Records<'de> {
    /// The keys that the list can have where the file wraps it in an object, the usual one first.
    const LISTS: &'static [&'static str];

    /// Reads one record, keeping `place` up to date for error messages.
    fn record<A: MapAccess<'de>>(&mut self, record: A, place: &mut Place) -> Result<(), A::Error>;
}

/// Where in a file the reader is, shown as in `annotations[3].answers[2].answer`.
#[derive(Debug, Default)]
pub(super) struct Place {
    list: &'static str,
    record: Option<usize>,
    /// Field of the record that is being read.
    pub(super) field: Option<&'static str>,
    /// Position within the field, where that is a list.
    pub(super) item: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.list)?;
        self.record.map_or(Ok(()), |record| write!(f, "[{record}]"))?;
        self.field.map_or(Ok(()), |field| write!(f, ".{field}"))?;
        self.item.map_or(Ok(()), |item| write!(f, "[{item}]"))
    }
}

/// A file mapped into memory.
///
/// # Errors
/// A file that cannot be opened or mapped.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let failed = |error: std::io::Error| Error::input(format!("cannot read `{}`", path.display())).caused_by(error);
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_dir() {
        return Err(Error::input(format!("cannot read `{}`: it is a folder", path.display())));
    }
    // SAFETY: the map is only read, and input files are not changed while the program runs.
    unsafe { Mmap::map(&file) }.map_err(failed)
}

/// Records between two releases of the pages that are read already.
const RELEASE_RECORDS: usize = 16_384;

/// Gives the pages of a map that are in memory back to the system. Whatever is read again comes back from the file.
fn release(map: &Mmap) {
    // SAFETY: the pages of a file map that is never written hold what the file holds, so borrowed texts stay as they are.
    // A refusal only keeps them in memory.
    let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
}

/// Reads all records of a JSON file: a list of objects, bare or wrapped in an object under one of `R::LISTS`.
/// Returns `data_subtype` of the wrapping object, where it has one.
///
/// # Errors
/// Damaged JSON, or a record that `records` refuses; the message names `path`, record and field.
pub(super) fn read<'de, R: Records<'de>>(path: &Path, map: &'de Mmap, records: &mut R) -> Result<Option<String>> {
    let mut place = Place::default();
    let mut json = serde_json::Deserializer::from_slice(map);
    let outcome = json.deserialize_any(TopLevel { map, records, place: &mut place });
    let outcome = outcome.and_then(|subtype| {
        place = Place::default();
        json.end().map(|()| subtype)
    });
    outcome.map_err(|error| {
        let at = place.to_string();
        let where_in_file = if at.is_empty() { String::new() } else { format!(", at `{at}`") };
        Error::input(format!("cannot read `{}`{where_in_file}", path.display())).caused_by(error)
    })
}

struct TopLevel<'a, R> {
    map: &'a Mmap,
    records: &'a mut R,
    place: &'a mut Place,
}

impl<'de, R: Records<'de>> Visitor<'de> for TopLevel<'_, R> {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of records, or an object that holds one as `{}`", R::LISTS[0])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        List { map: self.map, records: self.records, place: self.place }.visit_seq(list)?;
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut subtype = None;
        let mut found = false;
        while let Some(key) = map.next_key_seed(Text)? {
            if let Some(list) = R::LISTS.iter().find(|list| **list == key) {
                self.place.list = list;
                map.next_value_seed(List { map: self.map, records: self.records, place: self.place })?;
                self.place.list = "";
                found = true;
            } else if key == "data_subtype" {
                self.place.list = "data_subtype";
                subtype = Some(map.next_value_seed(Text)?.into_owned());
                self.place.list = "";
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        if found { Ok(subtype) } else { Err(serde::de::Error::missing_field(R::LISTS[0])) }
    }
}

struct List<'a, R> {
    map: &'a Mmap,
    records: &'a mut R,
    place: &'a mut Place,
}

impl<'de, R: Records<'de>> DeserializeSeed<'de> for List<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de, R: Records<'de>> Visitor<'de> for List<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        for record in 0.. {
            self.place.record = Some(record);
            if record % RELEASE_RECORDS == RELEASE_RECORDS - 1 {
                release(self.map);
            }
            if list.next_element_seed(One { records: &mut *self.records, place: &mut *self.place })?.is_none() {
                break;
            }
            (self.place.field, self.place.item) = (None, None);
        }
        self.place.record = None;
        Ok(())
    }
}

struct One<'a, R> {
    records: &'a mut R,
    place: &'a mut Place,
}

impl<'de, R: Records<'de>> DeserializeSeed<'de> for One<'_, R> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, record: D) -> Result<(), D::Error> {
        record.deserialize_map(self)
    }
}

impl<'de, R: Records<'de>> Visitor<'de> for One<'_, R> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, record: A) -> Result<(), A::Error> {
        self.records.record(record, self.place)
    }
}

/// A string, borrowed from the file where it has no escapes.
pub(super) struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        text.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// A string, or null for none.
pub(super) struct OptionalText;

impl<'de> DeserializeSeed<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        text.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for OptionalText {
    type Value = Option<Cow<'de, str>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, text: D) -> Result<Self::Value, D::Error> {
        Text.deserialize(text).map(Some)
    }
}

/// An integer or a string, borrowed where possible.
pub(super) enum RawId<'de> {
    Number(i64),
    Text(Cow<'de, str>),
}

impl From<RawId<'_>> for Id {
    fn from(id: RawId<'_>) -> Self {
        match id {
            RawId::Number(number) => Self::Number(number),
            RawId::Text(text) => Self::Text(text.into()),
        }
    }
}

/// Reads a [`RawId`].
pub(super) struct Identifier;

impl<'de> DeserializeSeed<'de> for Identifier {
    type Value = RawId<'de>;

    fn deserialize<D: Deserializer<'de>>(self, id: D) -> Result<Self::Value, D::Error> {
        id.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Identifier {
    type Value = RawId<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer or a string")
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(RawId::Number(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Self::Value, E> {
        let signed = i64::try_from(number);
        signed.map(RawId::Number).map_err(|_| E::custom(format_args!("identifier {number} is above 2^63 - 1")))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(RawId::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(RawId::Text(Cow::Owned(text.to_owned())))
    }
}
