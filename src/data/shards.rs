//! Parquet files of questions as the Hub has them: a split in numbered files, images beside the questions.
//!
//! Columns are found by name, in the shapes that the Hub's copies have: answers as objects or as plain strings, identifiers
//! as numbers or as their digits, `category` for the answer type. Bytes of images are left where they are.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::from_utf8;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Repetition, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, DataType, Int32Type, Int64Type};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::reader::{ChunkReader, FileReader, Length, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use super::presence::{entries, level_by_level};
use super::{Id, Question, vqa_json};
use crate::error::{Error, Result};
use crate::score::{AnswerId, Builder, References};

/// Rows that are read in one go.
const ROWS: usize = 4096;

/// Folders are searched down to this depth.
const DEEPEST: usize = 4;

/// The files of a split, by number; none for those that are missing.
pub(super) struct Split {
    folder: PathBuf,
    name: &'static str,
    files: Vec<Option<PathBuf>>,
}

impl Split {
    /// The files of a split below a folder, where there are any: `{name}-00000-of-00068.parquet`, `{name}-00001-of-...`,
    /// with or without a further part behind the numbers.
    ///
    /// # Errors
    /// Files of two copies, or a folder that cannot be read.
    pub(super) fn find(root: &Path, name: &'static str) -> Result<Option<Self>> {
        level_by_level(root, DEEPEST, |level| {
            let within = |folder: &PathBuf| Self::within(folder, name).transpose();
            level.iter().filter(|folder| folder.is_dir()).find_map(within).transpose()
        })
    }

    fn within(folder: &Path, name: &'static str) -> Result<Option<Self>> {
        let mut found: BTreeMap<usize, Vec<Option<PathBuf>>> = BTreeMap::new();
        let mut paths: Vec<PathBuf> = entries(folder)?.into_iter().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            let file_name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
            let Some((number, count)) = numbers(&file_name, name) else { continue };
            let files = found.entry(count).or_insert_with(|| vec![None; count]);
            if let Some(other) = files[number].replace(path.clone()) {
                return Err(two_copies(&other, &path));
            }
        }
        let mut copies = found.into_values();
        match (copies.next(), copies.next()) {
            (Some(first), Some(second)) => {
                let [first, second] =
                    [first, second].map(|files| files.into_iter().flatten().next().unwrap_or_default());
                Err(two_copies(&first, &second))
            }
            (Some(files), None) => Ok(Some(Self { folder: folder.to_owned(), name, files })),
            (None, _) => Ok(None),
        }
    }

    /// Names of the files that are missing.
    pub(super) fn missing(&self) -> Vec<PathBuf> {
        let count = self.files.len();
        let absent = self.files.iter().enumerate().filter(|(_, file)| file.is_none());
        absent.map(|(at, _)| self.folder.join(format!("{}-{at:05}-of-{count:05}.parquet", self.name))).collect()
    }

    /// Whether the first file that is there holds images; a damaged one does not.
    pub(super) fn holds_images(&self) -> bool {
        let columns = |path: &PathBuf| {
            let reader = SerializedFileReader::new(Positioned::open(path)?).map_err(damaged)?;
            Columns::of(reader.metadata().file_metadata().schema_descr())
        };
        self.files
            .iter()
            .flatten()
            .next()
            .is_some_and(|path| columns(path).is_ok_and(|columns| columns.image.is_some()))
    }

    /// All files.
    ///
    /// # Errors
    /// Some are missing: how many, and the first.
    fn whole(&self) -> Result<Vec<PathBuf>> {
        let missing = self.missing();
        let Some(first) = missing.first() else { return Ok(self.files.iter().flatten().cloned().collect()) };
        let (missing, count, first) = (missing.len(), self.files.len(), first.display());
        let message =
            format!("{missing} of the {count} files of the split `{}` are missing, first: `{first}`", self.name);
        Err(Error::incomplete(message).hint("download all files of the split into one folder"))
    }
}

fn two_copies(first: &Path, second: &Path) -> Error {
    let message = format!("`{}` and `{}` are of two copies of one split", first.display(), second.display());
    Error::input(message).hint("leave the files of one copy in the folder")
}

/// The number of a file and the count of all, as its name tells.
pub(super) fn numbers(file_name: &str, split: &str) -> Option<(usize, usize)> {
    let rest = file_name.strip_prefix(split)?.strip_prefix('-')?.strip_suffix(".parquet")?;
    let (number, rest) = rest.split_once("-of-")?;
    let count = rest.split('-').next()?;
    let parsed = |digits: &str| if digits.len() == 5 { digits.parse::<usize>().ok() } else { None };
    let (number, count) = (parsed(number)?, parsed(count)?);
    (number < count).then_some((number, count))
}

/// What the files of a split say, and where the images are.
pub(super) struct Content {
    pub questions: Vec<Question>,
    pub references: Option<References>,
    pub files: Vec<Shard>,
    /// The first row that has each image; none of any, where the files hold no images.
    pub places: HashMap<Id, Place>,
    /// Whether all rows tell their image, so that it is known which questions share one.
    pub images_told: bool,
}

/// A file that holds images.
pub(super) struct Shard {
    pub path: PathBuf,
    pub file: Positioned,
    pub reader: SerializedFileReader<Positioned>,
    /// Number of the column with the bytes of images.
    pub images: Option<usize>,
}

/// A row of a file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub file: u32,
    pub row: u32,
}

/// Reads the questions of a split.
///
/// # Errors
/// Missing or damaged files, with column; columns that are missing or of another type; rows with the same key.
pub(super) fn read(split: &Split) -> Result<Content> {
    let mut content = Content {
        questions: Vec::new(),
        references: None,
        files: Vec::new(),
        places: HashMap::new(),
        images_told: true,
    };
    let mut builder = References::builder();
    let mut answered = 0;
    for path in split.whole()? {
        let failed = |error: Error| error.within(format!("cannot read `{}`", path.display()));
        let opened = Positioned::open(&path).map_err(failed)?;
        let reader = SerializedFileReader::new(opened.clone()).map_err(damaged).map_err(failed)?;
        let columns = Columns::of(reader.metadata().file_metadata().schema_descr()).map_err(failed)?;
        let file = content.files.len() as u32;
        let mut row = 0;
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(damaged).map_err(failed)?;
            let mut rows = Rows::of(&*group, &columns).map_err(failed)?;
            while let Some(read) = rows.next().map_err(failed)? {
                for question in 0..read.len() {
                    answered += usize::from(read.answers(question, &mut builder).map_err(failed)?);
                    let (question, own_image) = read.question(question).map_err(failed)?;
                    content.images_told &= !own_image;
                    if columns.image.is_some() {
                        content.places.entry(question.image_id.clone()).or_insert(Place { file, row });
                    }
                    content.questions.push(question);
                    row += 1;
                }
            }
        }
        let images = columns.image;
        content.files.push(Shard { path, file: opened, reader, images });
    }
    let count = content.questions.len();
    let folder = split.folder.display();
    if count == 0 {
        return Err(Error::input(format!("the split `{}` in `{folder}` holds no questions", split.name)));
    }
    if answered != 0 && answered != count {
        let message =
            format!("only {answered} of {count} questions of the split `{}` in `{folder}` have answers", split.name);
        return Err(Error::input(message));
    }
    let keys = content.questions.iter().map(|question| (&question.question_id, &question.image_id));
    vqa_json::check_unique(&split.folder, keys)?;
    content.questions.shrink_to_fit();
    content.references = (answered > 0).then(|| builder.finish());
    Ok(content)
}

pub(super) fn damaged(error: ParquetError) -> Error {
    Error::input("the parquet data are damaged").caused_by(error)
}

/// Numbers of the columns that questions are made of.
struct Columns {
    question_id: Leaf,
    question: Leaf,
    image_id: Option<Leaf>,
    /// Name of the image's file.
    image_path: Option<Leaf>,
    answer: Option<Leaf>,
    confidence: Option<Leaf>,
    answer_id: Option<Leaf>,
    answer_type: Option<Leaf>,
    question_type: Option<Leaf>,
    image: Option<usize>,
}

/// A column of values.
#[derive(Clone, Copy)]
struct Leaf {
    column: usize,
    /// Definition level from which on a list has an element, null or not; 0 for a column without lists.
    element: i16,
    /// Definition level of a value.
    value: i16,
}

impl Columns {
    fn of(schema: &SchemaDescriptor) -> Result<Self> {
        let find = |wanted: &dyn Fn(&[String]) -> bool| {
            (0..schema.num_columns()).find(|column| wanted(schema.column(*column).path().parts()))
        };
        let plain = |name: &str| find(&|parts| parts.len() == 1 && parts[0] == name).map(|column| leaf(schema, column));
        let required = |name: &str| plain(name).ok_or_else(|| Error::input(format!("it has no column `{name}`")));
        let answers = |field: &str| {
            find(&|parts| parts[0] == "answers" && parts[1..].iter().any(|part| part == field))
                .map(|column| leaf(schema, column))
        };
        let texts = || find(&|parts| parts[0] == "answers" && parts.len() == 3).map(|column| leaf(schema, column));
        let of_image = |field: &str| find(&|parts| parts.len() == 2 && parts[0] == "image" && parts[1] == field);
        let image_id = plain("image_id");
        Ok(Self {
            question_id: required("question_id")?,
            question: required("question")?,
            image_path: if image_id.is_some() { None } else { of_image("path").map(|column| leaf(schema, column)) },
            image_id,
            answer: answers("answer").or_else(texts),
            confidence: answers("answer_confidence"),
            answer_id: answers("answer_id"),
            answer_type: plain("answer_type").or_else(|| plain("category")),
            question_type: plain("question_type"),
            image: of_image("bytes"),
        })
    }
}

fn leaf(schema: &SchemaDescriptor, column: usize) -> Leaf {
    let descriptor = schema.column(column);
    let (mut level, mut element) = (0, 0);
    let mut fields = schema.root_schema().get_fields();
    for part in descriptor.path().parts() {
        let Some(field) = fields.iter().find(|field| field.name() == part) else { break };
        level += i16::from(field.get_basic_info().repetition() != Repetition::REQUIRED);
        if field.get_basic_info().repetition() == Repetition::REPEATED {
            element = level;
        }
        fields = if field.is_group() { field.get_fields() } else { &[] };
    }
    Leaf { column, element, value: descriptor.max_def_level() }
}

/// The rows of a row group, some at a time.
struct Rows {
    question_id: Reader,
    question: Reader,
    image_id: Option<Reader>,
    image_path: Option<Reader>,
    answer: Option<Reader>,
    confidence: Option<Reader>,
    answer_id: Option<Reader>,
    answer_type: Option<Reader>,
    question_type: Option<Reader>,
    left: usize,
}

impl Rows {
    fn of(group: &dyn RowGroupReader, columns: &Columns) -> Result<Self> {
        let reader = |leaf: Leaf| Reader::of(group, leaf);
        let optional = |leaf: Option<Leaf>| leaf.map(reader).transpose();
        Ok(Self {
            question_id: reader(columns.question_id)?,
            question: reader(columns.question)?,
            image_id: optional(columns.image_id)?,
            image_path: optional(columns.image_path)?,
            answer: optional(columns.answer)?,
            confidence: optional(columns.confidence)?,
            answer_id: optional(columns.answer_id)?,
            answer_type: optional(columns.answer_type)?,
            question_type: optional(columns.question_type)?,
            left: usize::try_from(group.metadata().num_rows()).unwrap_or(0),
        })
    }

    fn next(&mut self) -> Result<Option<ReadRows>> {
        let count = self.left.min(ROWS);
        if count == 0 {
            return Ok(None);
        }
        self.left -= count;
        let optional = |reader: &mut Option<Reader>| reader.as_mut().map(|reader| reader.read(count)).transpose();
        Ok(Some(ReadRows {
            question_id: self.question_id.read(count)?,
            question: self.question.read(count)?,
            image_id: optional(&mut self.image_id)?,
            image_path: optional(&mut self.image_path)?,
            answer: optional(&mut self.answer)?,
            confidence: optional(&mut self.confidence)?,
            answer_id: optional(&mut self.answer_id)?,
            answer_type: optional(&mut self.answer_type)?,
            question_type: optional(&mut self.question_type)?,
        }))
    }
}

/// A column of a row group, from a row on.
struct Reader {
    leaf: Leaf,
    name: String,
    values: Values,
}

enum Values {
    Texts(Box<ColumnReaderImpl<parquet::data_type::ByteArrayType>>),
    Short(Box<ColumnReaderImpl<Int32Type>>),
    Long(Box<ColumnReaderImpl<Int64Type>>),
}

/// A value of a column.
enum Value {
    Text(ByteArray),
    Number(i64),
}

/// Values of some rows.
struct Column {
    name: String,
    /// Where the values of each row end.
    ends: Vec<usize>,
    values: Vec<Option<Value>>,
}

impl Reader {
    fn of(group: &dyn RowGroupReader, leaf: Leaf) -> Result<Self> {
        let name = group.metadata().column(leaf.column).column_path().string();
        let values = match group.get_column_reader(leaf.column).map_err(damaged)? {
            ColumnReader::ByteArrayColumnReader(reader) => Values::Texts(Box::new(reader)),
            ColumnReader::Int32ColumnReader(reader) => Values::Short(Box::new(reader)),
            ColumnReader::Int64ColumnReader(reader) => Values::Long(Box::new(reader)),
            _ => return Err(Error::input(format!("its column `{name}` holds neither texts nor integers"))),
        };
        Ok(Self { leaf, name, values })
    }

    fn read(&mut self, rows: usize) -> Result<Column> {
        let read = match &mut self.values {
            Values::Texts(reader) => read_column(reader, self.leaf, rows, Value::Text),
            Values::Short(reader) => read_column(reader, self.leaf, rows, |number| Value::Number(number.into())),
            Values::Long(reader) => read_column(reader, self.leaf, rows, Value::Number),
        };
        let (ends, values) = read.map_err(|error| damaged(error).within(format!("its column `{}`", self.name)))?;
        if ends.len() != rows {
            return Err(Error::input(format!("its column `{}` ends early", self.name)));
        }
        Ok(Column { name: self.name.clone(), ends, values })
    }
}

fn read_column<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    leaf: Leaf,
    rows: usize,
    wrap: impl Fn(T::T) -> Value,
) -> ParquetResult<(Vec<usize>, Vec<Option<Value>>)> {
    let (mut defined, mut repeated, mut values) = (Vec::new(), Vec::new(), Vec::new());
    let (_, _, levels) = reader.read_records(rows, Some(&mut defined), Some(&mut repeated), &mut values)?;
    let mut values = values.into_iter();
    let (mut ends, mut column): (Vec<usize>, Vec<Option<Value>>) = (Vec::with_capacity(rows), Vec::new());
    for level in 0..levels {
        // Columns without nulls have no definition levels, those without lists no repetition levels.
        let defined = defined.get(level).copied().unwrap_or(leaf.value);
        if repeated.get(level).is_none_or(|repeated| *repeated == 0) {
            ends.push(column.len());
        }
        if defined >= leaf.element {
            column.push(if defined == leaf.value { values.next().map(&wrap) } else { None });
        }
        if let Some(end) = ends.last_mut() {
            *end = column.len();
        }
    }
    Ok((ends, column))
}

impl Column {
    fn row(&self, row: usize) -> &[Option<Value>] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.values[start..self.ends[row]]
    }

    fn only(&self, row: usize) -> Option<&Value> {
        self.row(row).first().and_then(Option::as_ref)
    }

    fn text<'a>(&self, value: Option<&'a Value>) -> Result<Option<&'a str>> {
        match value {
            None => Ok(None),
            Some(Value::Text(bytes)) => text_of(bytes, &self.name).map(Some),
            Some(Value::Number(_)) => Err(Error::input(format!("its column `{}` holds no texts", self.name))),
        }
    }

    fn id(&self, row: usize) -> Result<Option<Id>> {
        Ok(match self.only(row) {
            None => None,
            Some(Value::Number(number)) => Some(Id::Number(*number)),
            Some(Value::Text(bytes)) => Some(Id::Text(text_of(bytes, &self.name)?.into())),
        })
    }
}

fn text_of<'a>(bytes: &'a ByteArray, column: &str) -> Result<&'a str> {
    from_utf8(bytes.data())
        .map_err(|cause| Error::input(format!("its column `{column}` holds no text")).caused_by(cause))
}

/// Some rows, column by column.
struct ReadRows {
    question_id: Column,
    question: Column,
    image_id: Option<Column>,
    image_path: Option<Column>,
    answer: Option<Column>,
    confidence: Option<Column>,
    answer_id: Option<Column>,
    answer_type: Option<Column>,
    question_type: Option<Column>,
}

impl ReadRows {
    fn len(&self) -> usize {
        self.question_id.ends.len()
    }

    /// A question of a row, and whether it has an image of its own, for want of an image's identifier or name.
    fn question(&self, row: usize) -> Result<(Question, bool)> {
        let null = |column: &str| Error::input(format!("its column `{column}` has a row without a value"));
        let question_id = number_of(self.question_id.id(row)?.ok_or_else(|| null("question_id"))?);
        let text = self.question.text(self.question.only(row))?.ok_or_else(|| null("question"))?;
        let told = |column: &Option<Column>| column.as_ref().map_or(Ok(None), |column| column.id(row));
        let image_id = match told(&self.image_id)? {
            Some(image_id) => Some(image_id),
            None => told(&self.image_path)?,
        };
        let own_image = image_id.is_none();
        let image_id = image_id.unwrap_or_else(|| question_id.clone());
        Ok((Question { question_id, image_id, text: text.into() }, own_image))
    }

    /// Adds the human answers of a row, if it has any.
    fn answers(&self, row: usize, builder: &mut Builder) -> Result<bool> {
        let Some(answers) = &self.answer else { return Ok(false) };
        let texts = answers.row(row);
        for (at, text) in texts.iter().enumerate() {
            let text = answers.text(text.as_ref())?;
            let text =
                text.ok_or_else(|| Error::input(format!("its column `{}` has an answer without text", answers.name)))?;
            fn beside(column: &Option<Column>, row: usize, at: usize) -> Option<(&Column, &Value)> {
                let column = column.as_ref()?;
                Some((column, column.row(row).get(at)?.as_ref()?))
            }
            let confidence = match beside(&self.confidence, row, at) {
                Some((column, value)) => column.text(Some(value))?,
                None => None,
            };
            let id = beside(&self.answer_id, row, at).and_then(|(_, value)| match value {
                Value::Number(number) => Some(AnswerId::Number(*number)),
                Value::Text(_) => None,
            });
            builder.answer(text, confidence, id)?;
        }
        if texts.is_empty() {
            return Ok(false);
        }
        let kind = |column: &Option<Column>| match column {
            Some(column) => column.text(column.only(row)).map(|text| text.map(str::to_owned)),
            None => Ok(None),
        };
        builder.end_question(kind(&self.answer_type)?.as_deref(), kind(&self.question_type)?.as_deref())?;
        Ok(true)
    }
}

/// Numbers that a copy has as text are numbers in the official files.
fn number_of(id: Id) -> Id {
    match &id {
        Id::Text(text) => match text.parse::<i64>() {
            Ok(number) if number.to_string() == **text => Id::Number(number),
            _ => id,
        },
        Id::Number(_) => id,
    }
}

/// A file that several threads read at positions of their own.
#[derive(Debug, Clone)]
pub(super) struct Positioned {
    file: Arc<File>,
    length: u64,
}

impl Positioned {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?.len(), file)));
        let (length, file) = opened.map_err(|cause| Error::input("the file cannot be opened").caused_by(cause))?;
        Ok(Self { file: Arc::new(file), length })
    }
}

impl Length for Positioned {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Positioned {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        Ok(BufReader::with_capacity(1024, From { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        if start.saturating_add(length as u64) > self.length {
            return Err(ParquetError::EOF(format!(
                "the file ends before byte {}",
                start.saturating_add(length as u64)
            )));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// A file from a position on.
pub(super) struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Whether a column holds bytes.
pub(super) fn holds_bytes(column: &ColumnDescPtr) -> bool {
    column.physical_type() == Type::BYTE_ARRAY && column.max_rep_level() == 0
}
