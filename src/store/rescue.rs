//! Reads what can be read of a damaged store.
//!
//! The answers to a dataset are one range of the primary key, and leaves of its tree are reached one by one through the nodes
//! above. The range is read from both ends up to a fault. What lies between two faults is looked for by keys in the middle of
//! what is still unknown: a seek needs no key that exists, only one that lies there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rusqlite::{ErrorCode, Row, ToSql, params};

use super::{AnswerSettings, SettingsId, Store, StoredAnswer};
use crate::error::Result;

/// Seeks between two faults, most of which end at once.
const SEEKS: usize = 1000;

/// Sorts behind every identifier: JSON texts of numbers and texts begin with a digit, `-` or `"`.
const BEHIND: &str = "\u{7f}";

/// What was read of the answers to one dataset under one settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rescued {
    /// The answers, in the order of the identifiers as text.
    pub answers: Vec<StoredAnswer>,
    /// Where others were, or may have been.
    pub lost: Vec<LostRange>,
}

/// A range that cannot be read, between two answers that can: question and image of each, as JSON texts. None is before the
/// first answer, or behind the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRange {
    /// The last answer before it.
    pub after: Option<(String, String)>,
    /// The first answer behind it.
    pub before: Option<(String, String)>,
}

/// What can be read of that which answers refer to.
#[derive(Debug, Clone, Default)]
pub struct Readable {
    /// Settings.
    pub settings: Vec<(SettingsId, AnswerSettings)>,
    /// Names of datasets.
    pub datasets: Vec<String>,
    /// What cannot be read, in words.
    pub lost: Vec<String>,
}

impl Store {
    /// The settings and the names of datasets as far as they can be read.
    ///
    /// # Errors
    /// The store cannot be read for another reason than damage.
    pub fn readable(&self) -> Result<Readable> {
        let mut readable = Readable::default();
        let (settings, whole) = self.texts("settings", "json")?;
        if !whole {
            readable.lost.push("settings, with all answers under them".to_owned());
        }
        for (id, json) in settings {
            match json.and_then(|json| serde_json::from_str(&json).ok()) {
                Some(settings) => readable.settings.push((SettingsId(id), settings)),
                None => readable.lost.push(format!("the settings of answers:{id}, with all answers under them")),
            }
        }
        let (datasets, whole) = self.texts("dataset", "name")?;
        if !whole || datasets.values().any(Option::is_none) {
            readable.lost.push("names of datasets, with all answers to their questions".to_owned());
        }
        readable.datasets.extend(datasets.into_values().flatten());
        Ok(readable)
    }

    /// Numbers and texts of a table from both of its ends up to a fault, without texts that are none; and whether there was
    /// no fault.
    fn texts(&self, table: &str, column: &str) -> Result<(BTreeMap<i64, Option<String>>, bool)> {
        let mut found = BTreeMap::new();
        let mut whole = true;
        for order in ["ASC", "DESC"] {
            let sql = format!("SELECT id, {column} FROM {table} ORDER BY id {order}");
            let read_all = self.until_fault(&sql, &[], &mut |row| {
                if let Ok(id) = row.get::<_, i64>(0) {
                    found.insert(id, row.get::<_, String>(1).ok());
                }
            })?;
            whole &= read_all;
            if whole {
                break;
            }
        }
        Ok((found, whole))
    }

    /// The answers to a dataset's questions as far as the pages that hold them, and the texts in these, are whole.
    ///
    /// # Errors
    /// The store cannot be read for another reason than damage.
    pub fn rescue(&self, settings: SettingsId, dataset: &str) -> Result<Rescued> {
        let reader = Reader { store: self, settings, dataset };
        let forwards = reader.pass(["", BEHIND], true)?;
        // Also where there was no fault: a damaged row may look like the first one of others.
        let end = forwards.last().map_or("", |(question, _)| question).to_owned();
        let backwards = reader.pass([&end, BEHIND], false)?;
        let (at_start, at_end) = (forwards.begins, backwards.ends);
        if forwards.is_empty && backwards.is_empty {
            return Ok(Rescued::default());
        }
        let begin = backwards.first().map_or(BEHIND, |(question, _)| question).to_owned();
        let meet = backwards.first().is_some() && backwards.first() <= forwards.last();
        let mut pieces = [forwards.pieces, backwards.pieces].concat();
        if !meet {
            reader.search([end, begin], &mut pieces)?;
        }
        Ok(rescued(joined(pieces), at_start, at_end))
    }

    /// Hands rows to `visit` until there are no more, which is true, or until a fault, which is false.
    fn until_fault(&self, sql: &str, values: &[&dyn ToSql], visit: &mut dyn FnMut(&Row)) -> Result<bool> {
        let mut read = || {
            let mut all = self.connection.prepare_cached(sql)?;
            let mut rows = all.query(values)?;
            while let Some(row) = rows.next()? {
                visit(row);
            }
            Ok(true)
        };
        match read() {
            Err(cause) if is_damage(&cause) => Ok(false),
            outcome => outcome.map_err(|cause| self.failure("read", cause)),
        }
    }
}

/// Reads ranges of the answers to one dataset under one settings.
struct Reader<'a> {
    store: &'a Store,
    settings: SettingsId,
    dataset: &'a str,
}

/// Answers without damage between them, in their order; there is at least one.
type Piece = Vec<StoredAnswer>;

/// What was read in one direction.
struct Pass {
    /// In their order; between two of them was a row that is damaged.
    pieces: Vec<Piece>,
    /// Whether the range was read up to its end.
    whole: bool,
    /// Whether nothing at all is there.
    is_empty: bool,
    /// Whether the first row that was met in the range's order is whole.
    begins: bool,
    /// The same for the last one.
    ends: bool,
}

impl Pass {
    fn first(&self) -> Option<(&str, &str)> {
        self.pieces.first().and_then(|piece| piece.first()).map(key)
    }

    fn last(&self) -> Option<(&str, &str)> {
        self.pieces.last().and_then(|piece| piece.last()).map(key)
    }
}

impl Reader<'_> {
    /// Reads the questions from one text to another, both included, from the one end or from the other.
    fn pass(&self, [from, to]: [&str; 2], forwards: bool) -> Result<Pass> {
        let order = if forwards { "question, image" } else { "question DESC, image DESC" };
        // Without the index of names, which may be damaged too.
        let sql = format!(
            "SELECT question, image, content, answer, settings FROM answer
             WHERE settings = ?1 AND dataset = (SELECT id FROM dataset WHERE +name = ?2)
                AND question >= ?3 AND question <= ?4
             ORDER BY {order}"
        );
        let mut rows = Vec::new();
        let values = params![self.settings.0, self.dataset, from, to];
        let whole = self.store.until_fault(&sql, values, &mut |row| {
            // A page that was overwritten by another one of this store reads well, and is searched as if it were ours.
            let ours = row.get::<_, i64>(4).is_ok_and(|settings| settings == self.settings.0);
            rows.push(undamaged(row).filter(|_| ours));
        })?;
        if !forwards {
            rows.reverse();
        }
        drop_unordered(&mut rows);
        let (begins, ends) = (rows.first().is_some_and(Option::is_some), rows.last().is_some_and(Option::is_some));
        let pieces = rows.split(Option::is_none).filter(|piece| !piece.is_empty());
        let pieces = pieces.map(|piece| piece.iter().flatten().cloned().collect()).collect();
        Ok(Pass { pieces, whole, is_empty: whole && rows.is_empty(), begins, ends })
    }

    /// Looks for pieces between two questions, the widest of the unknown ranges first.
    fn search(&self, unknown: [String; 2], pieces: &mut Vec<Piece>) -> Result<()> {
        let letters = letters(pieces);
        let mut ranges = VecDeque::from([unknown]);
        for _ in 0..SEEKS {
            let Some([from, to]) = ranges.pop_front() else { break };
            let Some(middle) = middle(&from, &to, &letters) else { continue };
            let behind = self.pass([&middle, &to], true)?;
            let first = behind.first().map_or(&*middle, |(question, _)| question).to_owned();
            let before = self.pass([&from, &first], false)?;
            if !before.whole {
                let end = before.first().map_or(&*middle, |(question, _)| question);
                ranges.push_back([from, end.to_owned()]);
            }
            if !behind.whole {
                let begin = behind.last().map_or(&*middle, |(question, _)| question);
                ranges.push_back([begin.to_owned(), to]);
            }
            pieces.extend(behind.pieces);
            pieces.extend(before.pieces);
        }
        Ok(())
    }
}

/// A row, if it holds what somebody may have written.
fn undamaged(row: &Row) -> Option<StoredAnswer> {
    let read = || {
        let content = row.get::<_, i64>(2)?.cast_unsigned();
        Ok::<_, rusqlite::Error>(StoredAnswer {
            question_id: row.get(0)?,
            image_id: row.get(1)?,
            content,
            answer: row.get(3)?,
        })
    };
    let answer = read().ok()?;
    let is_identifier = |json: &str| {
        let value = serde_json::from_str::<serde_json::Value>(json);
        // As text: one with a blank before it is not what somebody has written.
        value.is_ok_and(|value| (value.is_number() || value.is_string()) && format!("{value}") == json)
    };
    (is_identifier(&answer.question_id) && is_identifier(&answer.image_id)).then_some(answer)
}

/// Takes out the fewest rows without which the others stand in their order: an identifier that has changed is still one at
/// times, and a page that was overwritten by another one of this store reads well.
fn drop_unordered(rows: &mut [Option<StoredAnswer>]) {
    // The longest ascending subsequence: the least last key of those of each length, and for each row the one before it.
    let mut ends: Vec<usize> = Vec::new();
    let mut before = vec![None; rows.len()];
    for (at, row) in rows.iter().enumerate() {
        let Some(row) = row else { continue };
        let length = ends.partition_point(|end| rows[*end].as_ref().is_some_and(|end| key(end) < key(row)));
        before[at] = length.checked_sub(1).map(|shorter| ends[shorter]);
        match ends.get_mut(length) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let kept: BTreeSet<usize> = std::iter::successors(ends.last().copied(), |at| before[*at]).collect();
    for (at, row) in rows.iter_mut().enumerate() {
        if !kept.contains(&at) {
            *row = None;
        }
    }
}

/// Pieces in their order, those that share an answer as one.
fn joined(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_by(|a, b| a.first().map(key).cmp(&b.first().map(key)));
    let mut joined: Vec<Piece> = Vec::new();
    for piece in pieces {
        match joined.last_mut() {
            Some(known) if known.last().map(key) >= piece.first().map(key) => {
                let end = known.last().cloned();
                known.extend(piece.into_iter().filter(|row| end.as_ref().is_none_or(|end| key(row) > key(end))));
            }
            _ => joined.push(piece),
        }
    }
    joined
}

fn rescued(pieces: Vec<Piece>, at_start: bool, at_end: bool) -> Rescued {
    let owned = |answer: &StoredAnswer| (answer.question_id.clone(), answer.image_id.clone());
    let first = |piece: &Piece| piece.first().map(owned);
    let last = |piece: &Piece| piece.last().map(owned);
    let mut lost = Vec::new();
    if !at_start {
        lost.push(LostRange { after: None, before: pieces.first().and_then(first) });
    }
    lost.extend(pieces.windows(2).map(|pair| LostRange { after: last(&pair[0]), before: first(&pair[1]) }));
    if !at_end && !pieces.is_empty() {
        lost.push(LostRange { after: pieces.last().and_then(last), before: None });
    }
    Rescued { answers: pieces.into_iter().flatten().collect(), lost }
}

/// The ASCII signs that identifiers of questions are made of, in their order.
fn letters(pieces: &[Piece]) -> Vec<u8> {
    let of_answers = pieces.iter().flatten().flat_map(|answer| answer.question_id.bytes());
    let all: BTreeSet<u8> = of_answers.filter(u8::is_ascii).chain(*b"\"0123456789").collect();
    all.into_iter().collect()
}

/// A text halfway between two, of these letters, if there is one that is not the first of them.
fn middle(from: &str, to: &str, letters: &[u8]) -> Option<String> {
    let shared = from.bytes().zip(to.bytes()).take_while(|(a, b)| a == b && a.is_ascii()).count();
    let base = letters.len() as u64;
    // As many digits as a number of 64 bits has.
    let digits = (u64::MAX.ilog(base) - 1) as usize;
    let number = |text: &str| {
        let mut bytes = text.bytes().skip(shared);
        let mut digit = || bytes.next().map_or(0, |byte| letters.partition_point(|letter| *letter < byte) as u64);
        // A sign behind all letters counts as one more than the last, so that the number of `BEHIND` is above all others.
        (0..digits).fold(0_u64, |number, _| number * base + digit())
    };
    let (low, high) = (number(from), number(to));
    let mut number = low + high.checked_sub(low)? / 2;
    if number == low {
        return None;
    }
    let mut signs = Vec::new();
    for _ in 0..digits {
        signs.push(*letters.get((number % base) as usize)?);
        number /= base;
    }
    signs.reverse();
    // The least letter at the end says nothing but "from here on".
    while signs.last() == letters.first() {
        signs.pop();
    }
    let middle = from.get(..shared)?.to_owned() + &String::from_utf8(signs).ok()?;
    // Signs beyond ASCII are not told apart.
    (from < &*middle && &*middle < to).then_some(middle)
}

fn key(answer: &StoredAnswer) -> (&str, &str) {
    (&answer.question_id, &answer.image_id)
}

/// Whether the error tells of a damaged page, or of a value that nobody has written.
fn is_damage(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        || matches!(
            cause,
            rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::Utf8Error(..)
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_lies_between() {
        let letters = letters(&[]);
        for (from, to) in [("", BEHIND), ("12", "13"), ("1234", "9"), ("\"a 1\"", "\"a 9\""), ("-5", "7")] {
            let middle = middle(from, to, &letters).unwrap();
            assert!(from < &*middle && &*middle < to, "{from} {middle} {to}");
        }
        assert_eq!(middle("12", "12", &letters), None);
    }

    #[test]
    fn the_fewest_rows_are_dropped() {
        let row = |question: &str| {
            let question_id = question.to_owned();
            Some(StoredAnswer { question_id, image_id: "1".into(), content: 0, answer: String::new() })
        };
        let mut rows = ["1", "2", "9", "3", "4", "0", "5"].map(row);
        drop_unordered(&mut rows);
        let kept: Vec<&str> = rows.iter().flatten().map(|row| &*row.question_id).collect();
        assert_eq!(kept, ["1", "2", "3", "4", "5"]);
    }
}
