//! Images inside parquet files, read when they are asked for.
//!
//! The values of a column lie in pages, compressed as a whole, and a page is the least that can be read. Of a page those
//! images are kept that some question is read from, which for several questions on one image is one of several equal ones,
//! and no more pages than threads read from, or a budget of smaller ones. So the memory is bounded by the largest pages,
//! however long files and row groups are.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedPageReader;
use parquet::schema::types::ColumnDescPtr;

use super::image::{self, RgbImage};
use super::shards::{Place, Positioned, Shard, damaged, holds_bytes};
use super::{Id, ImageSource};
use crate::error::{Error, Result};

/// Bytes of images that are kept at most, where pages are small.
const BUDGET: usize = 64 << 20;

/// Pages that are kept beside one for each thread: threads that read on both sides of a page's end need both.
const FURTHER_PAGES: usize = 2;

/// Places where reading can go on; at least as many as threads that each read in order.
const CURSORS: usize = 64;

/// The images of a split.
pub(super) struct ShardImages {
    files: Vec<ImageFile>,
    places: HashMap<Id, Place>,
    pages: Mutex<Pages>,
}

struct ImageFile {
    path: PathBuf,
    reader: Arc<Positioned>,
    column: ColumnDescPtr,
    groups: Vec<Group>,
    /// Rows whose images are asked for, in order.
    wanted: Vec<u32>,
}

/// The images of a row group.
struct Group {
    first_row: usize,
    rows: usize,
    chunk: ColumnChunkMetaData,
}

impl fmt::Debug for ShardImages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.files.iter().map(|file| &file.path).collect();
        f.debug_struct("ShardImages").field("files", &paths).field("images", &self.places.len()).finish()
    }
}

impl ShardImages {
    /// # Errors
    /// A file without a column of images, or one of another type.
    pub(super) fn new(shards: Vec<Shard>, places: HashMap<Id, Place>) -> Result<Self> {
        let mut files = shards.into_iter().map(ImageFile::new).collect::<Result<Vec<_>>>()?;
        for place in places.values() {
            files[place.file as usize].wanted.push(place.row);
        }
        files.iter_mut().for_each(|file| file.wanted.sort_unstable());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self { files, places, pages: Mutex::new(Pages::of(BUDGET, threads + FURTHER_PAGES)) })
    }

    fn place(&self, image_id: &Id) -> Result<(&ImageFile, Place)> {
        let place = self.places.get(image_id).copied();
        let place = place.ok_or_else(|| Error::input(format!("no parquet file holds an image `{image_id}`")))?;
        Ok((&self.files[place.file as usize], place))
    }
}

impl ImageFile {
    fn new(Shard { path, file, reader, images }: Shard) -> Result<Self> {
        let lacking = || Error::input(format!("`{}` has no column of images, `image.bytes`", path.display()));
        let metadata = reader.metadata();
        let number = images.ok_or_else(lacking)?;
        let column = metadata.file_metadata().schema_descr().column(number);
        if !holds_bytes(&column) {
            return Err(lacking());
        }
        let mut first_row = 0;
        let mut groups = Vec::with_capacity(metadata.num_row_groups());
        for group in metadata.row_groups() {
            let rows = usize::try_from(group.num_rows()).unwrap_or(0);
            groups.push(Group { first_row, rows, chunk: group.column(number).clone() });
            first_row += rows;
        }
        Ok(Self { reader: Arc::new(file), path, column, groups, wanted: Vec::new() })
    }
}

impl ImageSource for ShardImages {
    fn check(&self, image_id: &Id) -> Result<()> {
        self.place(image_id).map(drop)
    }

    fn identity(&self, image_id: &Id) -> Result<Vec<u8>> {
        let (file, place) = self.place(image_id)?;
        let mut identity = image::file_identity(&file.path)?;
        identity.extend(place.row.to_le_bytes());
        Ok(identity)
    }

    fn decode(&self, image_id: &Id) -> Result<RgbImage> {
        let (file, place) = self.place(image_id)?;
        let bytes = {
            let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
            pages.value(file, place)
        };
        let image = bytes.and_then(|bytes| match bytes {
            Some(bytes) => image::decode_bytes(&bytes),
            None => Err(Error::input("the row has no bytes of an image")),
        });
        let path = file.path.display();
        image.map_err(|error| {
            error.within(format!("cannot decode the image `{image_id}`, row {} of `{path}`", place.row))
        })
    }
}

/// Pages that were read, and where reading can go on.
struct Pages {
    /// Bytes that are kept at most, beyond the fewest pages.
    budget: usize,
    /// Pages that are kept however large they are.
    fewest: usize,
    /// The one that was used last comes first.
    kept: VecDeque<ReadPage>,
    cursors: VecDeque<Cursor>,
}

/// A row group of a file.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Address {
    file: u32,
    group: usize,
}

struct ReadPage {
    address: Address,
    /// Rows of the group.
    rows: Range<usize>,
    /// The bytes in the wanted rows that have any.
    values: HashMap<usize, Bytes>,
    bytes: usize,
}

/// A place between two pages of a row group.
struct Cursor {
    address: Address,
    next_row: usize,
    reader: SerializedPageReader<Positioned>,
    dictionary: Option<Page>,
}

impl Pages {
    fn of(budget: usize, fewest: usize) -> Self {
        Self { budget, fewest, kept: VecDeque::new(), cursors: VecDeque::new() }
    }

    /// The bytes in a row of a file; none where the row has none.
    fn value(&mut self, file: &ImageFile, place: Place) -> Result<Option<Bytes>> {
        let row = place.row as usize;
        let group = file.groups.partition_point(|group| group.first_row + group.rows <= row);
        let early = || Error::input("the file ends before this row");
        let rows = file.groups.get(group).ok_or_else(early)?;
        let (address, row) = (Address { file: place.file, group }, row - rows.first_row);
        let known = self.kept.iter().position(|page| page.address == address && page.rows.contains(&row));
        let page = match known.and_then(|at| self.kept.remove(at)) {
            Some(page) => page,
            None => self.read(file, address, row).map_err(damaged)?.ok_or_else(early)?,
        };
        let value = page.values.get(&row).cloned();
        self.kept.push_front(page);
        while self.kept.len() > self.fewest && self.bytes() > self.budget {
            self.kept.pop_back();
        }
        Ok(value)
    }

    fn bytes(&self) -> usize {
        self.kept.iter().map(|page| page.bytes).sum()
    }

    /// Reads the page with a row, from the nearest place before it.
    fn read(&mut self, file: &ImageFile, address: Address, row: usize) -> ParquetResult<Option<ReadPage>> {
        let before = |cursor: &&Cursor| cursor.address == address && cursor.next_row <= row;
        let nearest = self.cursors.iter().filter(before).map(|cursor| cursor.next_row).max();
        let found =
            self.cursors.iter().position(|cursor| cursor.address == address && Some(cursor.next_row) == nearest);
        let mut cursor = match found.and_then(|at| self.cursors.remove(at)) {
            Some(cursor) => cursor,
            None => Cursor::new(file, address)?,
        };
        let page = cursor.read(file, row)?;
        self.cursors.push_front(cursor);
        self.cursors.truncate(CURSORS);
        Ok(page)
    }
}

impl Cursor {
    fn new(file: &ImageFile, address: Address) -> ParquetResult<Self> {
        let Group { rows, chunk, .. } = &file.groups[address.group];
        let reader = SerializedPageReader::new(Arc::clone(&file.reader), chunk, *rows, None)?;
        Ok(Self { address, next_row: 0, reader, dictionary: None })
    }

    /// Skips to the page with a row, of which only heads are read, and reads it.
    fn read(&mut self, file: &ImageFile, row: usize) -> ParquetResult<Option<ReadPage>> {
        while let Some(PageMetadata { num_levels, num_rows, is_dict }) = self.reader.peek_next_page()? {
            if is_dict {
                self.dictionary = self.reader.get_next_page()?;
                continue;
            }
            let count = num_levels.or(num_rows).unwrap_or(0);
            let rows = self.next_row..self.next_row + count;
            self.next_row = rows.end;
            if !rows.contains(&row) {
                self.reader.skip_next_page()?;
                continue;
            }
            let Some(page) = self.reader.get_next_page()? else { break };
            let values = self.wanted(file, &rows, page)?;
            let bytes = values.values().map(Bytes::len).sum();
            return Ok(Some(ReadPage { address: self.address, rows, values, bytes }));
        }
        Ok(None)
    }

    /// Copies of the values in wanted rows, so that the page can go.
    fn wanted(&self, file: &ImageFile, rows: &Range<usize>, page: Page) -> ParquetResult<HashMap<usize, Bytes>> {
        let first = file.groups[self.address.group].first_row;
        let values = values(file, self.dictionary.clone(), page, rows.len())?;
        let position = |row: usize| file.wanted.partition_point(|wanted| (*wanted as usize) < first + row);
        let wanted = file.wanted[position(rows.start)..position(rows.end)].iter().map(|row| *row as usize - first);
        let copied = wanted.filter_map(|row| {
            let value = values[row - rows.start].as_ref()?;
            Some((row, Bytes::copy_from_slice(value.data())))
        });
        Ok(copied.collect())
    }
}

/// The values of a page. They are parts of its bytes.
fn values(
    file: &ImageFile,
    dictionary: Option<Page>,
    page: Page,
    count: usize,
) -> ParquetResult<Vec<Option<ByteArray>>> {
    let pages = OnePage(dictionary.into_iter().chain([page]).collect());
    let mut reader = ColumnReaderImpl::<ByteArrayType>::new(Arc::clone(&file.column), Box::new(pages));
    let (mut defined, mut values) = (Vec::new(), Vec::new());
    let (read, ..) = reader.read_records(count, Some(&mut defined), None, &mut values)?;
    if read != count {
        return Err(ParquetError::General(format!("a page of {count} rows has {read}")));
    }
    let mut values = values.into_iter();
    let present = |row: usize| defined.get(row).is_none_or(|level| *level == file.column.max_def_level());
    Ok((0..count).map(|row| if present(row) { values.next() } else { None }).collect())
}

/// A page, after its dictionary if there is one.
struct OnePage(VecDeque<Page>);

impl Iterator for OnePage {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.pop_front().map(Ok)
    }
}

impl PageReader for OnePage {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        Ok(self.0.pop_front())
    }

    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        let metadata = |page: &Page| PageMetadata {
            num_rows: None,
            num_levels: Some(page.num_values() as usize),
            is_dict: page.is_dictionary_page(),
        };
        Ok(self.0.front().map(metadata))
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.0.pop_front();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::path::Path;

    use parquet::file::properties::{EnabledStatistics, WriterProperties};
    use parquet::file::serialized_reader::SerializedFileReader;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    use super::*;

    const ROWS: usize = 600;

    fn content(row: usize) -> Vec<u8> {
        (0..2_000 + row % 7).map(|at| (row * 31 + at * 17) as u8).collect()
    }

    /// One row group of pages of about eight rows; every 50th row has no bytes.
    fn file(folder: &Path) -> ImageFile {
        let path = folder.join("images.parquet");
        let schema = "message m { optional group image { optional binary bytes; } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_data_page_size_limit(16_000)
            .set_write_batch_size(1)
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true);
        let file = File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build())).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let present = |row: &usize| row % 50 != 49;
        let values: Vec<ByteArray> = (0..ROWS).filter(present).map(|row| content(row).into()).collect();
        let levels: Vec<i16> = (0..ROWS).map(|row| if present(&row) { 2 } else { 1 }).collect();
        column.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        let file = Positioned::open(&path).unwrap();
        let reader = SerializedFileReader::new(file.clone()).unwrap();
        let file = ImageFile::new(Shard { path, file, reader, images: Some(0) }).unwrap();
        ImageFile { wanted: (0..ROWS as u32).collect(), ..file }
    }

    fn value(pages: &mut Pages, file: &ImageFile, row: usize) -> Option<Vec<u8>> {
        let value = pages.value(file, Place { file: 0, row: row as u32 }).unwrap();
        value.map(|value| value.to_vec())
    }

    #[test]
    fn rows_are_read_in_any_order_and_few_pages_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let mut pages = Pages::of(100_000, 4);
        let expected = |row: usize| (row % 50 != 49).then(|| content(row));
        // Two readers side by side, then backwards, then all over the place.
        let side_by_side = (0..ROWS / 2).flat_map(|row| [row, row + ROWS / 2]);
        let order = side_by_side.chain((0..ROWS).rev()).chain((0..ROWS).map(|at| at * 389 % ROWS));
        let mut most = 0;
        for row in order {
            assert_eq!(value(&mut pages, &file, row), expected(row), "row {row}");
            most = most.max(pages.bytes());
            assert!(pages.cursors.len() <= CURSORS);
        }
        assert!((60_000..=100_000).contains(&most), "{most} bytes were kept");
        let error = pages.value(&file, Place { file: 0, row: ROWS as u32 }).unwrap_err();
        assert_eq!(error.to_string(), "the file ends before this row");
    }

    #[test]
    fn only_rows_that_are_asked_for_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = ImageFile { wanted: vec![3, 5, 300], ..file(folder.path()) };
        let mut pages = Pages::of(100_000, 4);
        assert_eq!(value(&mut pages, &file, 3), Some(content(3)));
        let kept: Vec<usize> = pages.kept[0].values.keys().copied().collect();
        assert!(pages.kept[0].rows.len() > 5 && kept.len() == 2 && kept.contains(&5), "{kept:?}");
        assert_eq!(pages.bytes(), content(3).len() + content(5).len());
    }

    /// Readers that each go forward do not begin anew, whatever the others do.
    #[test]
    fn each_reader_goes_on_where_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let file = file(folder.path());
        let mut pages = Pages::of(0, 5);
        for row in 0..100 {
            for reader in 0..5 {
                assert!(value(&mut pages, &file, reader * 110 + row).is_some() || row % 10 == 9);
            }
        }
        assert_eq!(pages.cursors.len(), 5);
        assert_eq!(pages.kept.len(), 5);
    }
}
