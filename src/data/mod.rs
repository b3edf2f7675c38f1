//! Questions, annotations and images on disk, whatever their format, as one [`Dataset`].

pub mod easy_vqa;
pub mod fetching;
pub mod fit_file;
pub mod image;
mod image_folder;
mod json;
pub mod miniature;
pub mod npy;
mod presence;
pub mod results;
mod shard_images;
mod shards;
pub mod thumbnail;
pub mod vqa_json;
mod vqa_sets;
mod whole_file;
mod whole_folder;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

pub use image_folder::{ImageFolder, ImageName};
pub use presence::{Presence, State, find};
pub use whole_file::WholeFile;
pub(crate) use whole_folder::{FolderKind, WholeFolder, write_error};

use self::image::RgbImage;
use crate::error::{Result, find_row};
use crate::random::Random;
use crate::score::References;

/// Identifier of a question or an image: a number in the COCO family, text elsewhere.
///
/// `7` and `"7"` are different identifiers, as they are in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Id {
    /// An integer identifier.
    Number(i64),
    /// A textual identifier.
    Text(Box<str>),
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Id {
    /// Its JSON text, in which `7` and `"7"` differ.
    pub fn to_json(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => serde_json::Value::from(&**text).to_string(),
        }
    }
}

/// One question about one image. The pair of its identifiers is unique within a dataset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Identifier of the question; may repeat with other images (IV-VQA, CV-VQA).
    pub question_id: Id,
    /// Identifier of the image.
    pub image_id: Id,
    /// The question as asked, untouched.
    pub text: Box<str>,
}

impl Question {
    /// The JSON texts of the question's and the image's identifier, under which its answer is stored.
    pub fn key(&self) -> (String, String) {
        (self.question_id.to_json(), self.image_id.to_json())
    }
}

/// Where images come from: files in folders, rows of a parquet file, a generator. Several threads read at once.
pub trait ImageSource: fmt::Debug + Send + Sync {
    /// Whether the source can tell where the image is, without looking for it.
    ///
    /// # Errors
    /// It cannot.
    fn check(&self, image_id: &Id) -> Result<()>;

    /// Bytes that tell this image from every other one and from most changed versions of itself, such as path, size and
    /// time of its file. Cheap: nothing is decoded.
    ///
    /// # Errors
    /// There is no such image.
    fn identity(&self, image_id: &Id) -> Result<Vec<u8>>;

    /// The image as 8-bit RGB.
    ///
    /// # Errors
    /// A missing or damaged image; the message says which.
    fn decode(&self, image_id: &Id) -> Result<RgbImage>;
}

/// What some datasets tell of their questions besides, which their own measures need. A list is empty where a dataset
/// does not tell, else as long as the questions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relations {
    /// `question_id` of the question that a question was made from by a change of image or words; none for originals.
    pub originals: Vec<Option<Id>>,
    /// The part that each question belongs to, as a position in `part_names`: the split of its image (VQA-CP), whether
    /// it can be answered (VizWiz), whether shortcuts answer it (VQA-CE).
    pub parts: Vec<u32>,
    /// Names of the parts.
    pub part_names: Vec<Box<str>>,
    /// Each question of the original dataset, by `question_id`, and the part it belongs to, where this dataset is one of
    /// its parts (VQA-CE).
    pub parts_of_originals: Vec<(Id, u32)>,
    /// Whether questions that share an image may be told to have one each, since the files do not say (the Hub's copy of
    /// OK-VQA).
    pub images_uncertain: bool,
}

impl Relations {
    fn select(&self, positions: &[usize]) -> Self {
        fn chosen<T: Clone>(list: &[T], positions: &[usize]) -> Vec<T> {
            if list.is_empty() { Vec::new() } else { positions.iter().map(|at| list[*at].clone()).collect() }
        }
        Self {
            originals: chosen(&self.originals, positions),
            parts: chosen(&self.parts, positions),
            part_names: self.part_names.clone(),
            parts_of_originals: self.parts_of_originals.clone(),
            images_uncertain: self.images_uncertain,
        }
    }
}

/// A loaded set of questions about images.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// Name in reports: that of its row in [`DATASETS`], or the stem of the question file.
    pub name: String,
    /// The questions in file order; pairs of `question_id` and `image_id` are unique.
    pub questions: Vec<Question>,
    /// The human answers, where known; position for position those of `questions`.
    pub references: Option<References>,
    /// What the dataset's own measures need beside these.
    pub relations: Relations,
    /// Where the images are.
    pub images: Arc<dyn ImageSource>,
}

impl Dataset {
    /// The number of each question's image, counted in order of first appearance.
    pub fn image_numbers(&self) -> Vec<u32> {
        let mut numbers: HashMap<&Id, u32> = HashMap::new();
        let mut number_of = |image_id| {
            let next = numbers.len() as u32;
            *numbers.entry(image_id).or_insert(next)
        };
        self.questions.iter().map(|question| number_of(&question.image_id)).collect()
    }

    /// How many images its questions are about.
    pub fn image_count(&self) -> usize {
        self.questions.iter().map(|question| &question.image_id).collect::<HashSet<_>>().len()
    }

    /// The number of each question's group of questions that stand and fall together, by which intervals are clustered: those
    /// about one image, and those that were made from one question by edits of image or words, and all that these are
    /// linked to.
    pub fn clusters(&self) -> Vec<u32> {
        let mut parents: Vec<usize> = (0..self.questions.len()).collect();
        let made_from_others = DATASETS.iter().any(|row| row.name == self.name && row.original.is_some());
        let edited = made_from_others || !self.relations.originals.is_empty();
        let (mut of_image, mut of_original) = (HashMap::new(), HashMap::new());
        for (position, question) in self.questions.iter().enumerate() {
            let original = self.relations.originals.get(position).and_then(Option::as_ref);
            let same_image = *of_image.entry(&question.image_id).or_insert(position);
            // An identifier that repeats in a set of one's own says nothing of edits.
            let same_original = match edited {
                true => *of_original.entry(original.unwrap_or(&question.question_id)).or_insert(position),
                false => position,
            };
            for other in [same_image, same_original] {
                let (one, other) = (root(&mut parents, position), root(&mut parents, other));
                parents[one.max(other)] = one.min(other);
            }
        }
        (0..parents.len()).map(|position| root(&mut parents, position) as u32).collect()
    }

    /// How much it is of what the row of this name in [`DATASETS`] expects; none where that is as much. Images are left
    /// out where their number is uncertain.
    pub fn portion(&self) -> Option<Portion> {
        let row = DATASETS.iter().find(|row| row.name == self.name)?;
        let certain = !self.relations.images_uncertain;
        let portion = Portion {
            questions: self.questions.len(),
            of_questions: row.n,
            images: certain.then(|| self.image_count()),
            of_images: row.images.filter(|_| certain),
        };
        let differs = |loaded, expected: Option<usize>| expected.is_some_and(|expected| expected != loaded);
        let told =
            differs(portion.questions, row.n) || portion.images.is_some_and(|images| differs(images, row.images));
        told.then_some(portion)
    }

    /// Whether some `question_id` occurs with several images, so that it does not name a question alone.
    pub fn question_ids_repeat(&self) -> bool {
        let mut seen = HashSet::with_capacity(self.questions.len());
        !self.questions.iter().all(|question| seen.insert(&question.question_id))
    }

    /// The questions at these positions.
    #[must_use]
    pub fn select(&self, positions: &[usize]) -> Self {
        Self {
            name: self.name.clone(),
            questions: positions.iter().map(|position| self.questions[*position].clone()).collect(),
            references: self.references.as_ref().map(|references| references.select(positions)),
            relations: self.relations.select(positions),
            images: Arc::clone(&self.images),
        }
    }

    /// So many questions by a seeded draw, in their order (all, where there are fewer).
    #[must_use]
    pub fn sample(&self, count: usize) -> Self {
        let order = Random::new(0).name("sample").permutation(self.questions.len());
        let mut chosen: Vec<usize> = order.into_iter().take(count).map(|index| index as usize).collect();
        chosen.sort_unstable();
        self.select(&chosen)
    }

    /// The first `count` questions (all, where there are fewer).
    #[must_use]
    pub fn limit(mut self, count: usize) -> Self {
        if count < self.questions.len() {
            self.questions.truncate(count);
            let kept: Vec<usize> = (0..count).collect();
            self.references = self.references.map(|references| references.select(&kept));
            self.relations = self.relations.select(&kept);
        }
        self
    }
}

/// The first member of the group that a member belongs to; the way there is shortened.
fn root(parents: &mut [usize], mut member: usize) -> usize {
    while parents[member] != member {
        parents[member] = parents[parents[member]];
        member = parents[member];
    }
    member
}

/// How much of a dataset there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Portion {
    /// Number of questions.
    pub questions: usize,
    /// Their number in the whole dataset, where it is certain.
    pub of_questions: Option<usize>,
    /// Number of distinct images, where the files tell it.
    pub images: Option<usize>,
    /// Their number in the whole dataset, where it is certain.
    pub of_images: Option<usize>,
}

/// One known dataset. Adding a dataset is adding a row to [`DATASETS`].
#[derive(Debug)]
pub struct DatasetRow {
    /// Name on the command line, in manifests and reports.
    pub name: &'static str,
    /// One sentence for `list datasets`.
    pub about: &'static str,
    /// Licence of questions, answers and images.
    pub licence: &'static str,
    /// Name of its own metric in [`crate::score::METRICS`].
    pub metric: &'static str,
    /// Number of questions of the evaluated part, where it is certain.
    pub n: Option<usize>,
    /// Number of distinct images of the evaluated part, where it is certain.
    pub images: Option<usize>,
    /// How to get the files.
    pub obtain: &'static str,
    /// The files of the evaluated part and the one to train on, as far as they are known one by one.
    pub files: &'static [SourceFile],
    /// Copies on the Hub, as parquet files.
    pub hub: &'static [HubCopy],
    /// Name of the dataset whose questions these were made from, where there is one.
    pub original: Option<&'static str>,
    /// Names of its own measures beside accuracy.
    pub measures: &'static [&'static str],
    /// Loads the evaluated part from a folder.
    pub load: fn(&Path) -> Result<Dataset>,
    /// Loads the part to train on from a folder, where there is one.
    pub load_training: Option<fn(&Path) -> Result<Dataset>>,
    /// Share of the training images that are held out to select checkpoints.
    pub validation_share: f64,
}

/// A file, or a folder of images, that a dataset needs.
#[derive(Debug)]
pub struct SourceFile {
    /// Path below the folder of the dataset.
    pub path: &'static str,
    /// Which part of the dataset needs it.
    pub part: Part,
    /// Where anybody can download it; where there is no such place, [`DatasetRow::obtain`] says how to get it.
    pub url: Option<&'static str>,
    /// What the download is.
    pub packing: Packing,
}

/// A part of a dataset as a split of a dataset on the Hub: parquet files `{split}-00000-of-00068.parquet` and so on, anywhere
/// below the folder of the dataset.
#[derive(Debug)]
pub struct HubCopy {
    /// Name on the Hub.
    pub repository: &'static str,
    /// Name of the split.
    pub split: &'static str,
    /// Which part it is.
    pub part: Part,
    /// Whether it holds the images.
    pub images: bool,
}

/// Which part of a dataset needs a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The part that is evaluated.
    Evaluation,
    /// The part to train on.
    Training,
    /// Both.
    Both,
}

/// How a file is packed for download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As it is.
    Plain,
    /// A zip archive that holds the file or folder, under any leading folders.
    Zip,
    /// A gzipped tar archive that holds it so.
    TarGz,
}

/// Every known dataset.
pub static DATASETS: &[DatasetRow] = &{
    let [id, iv, cv, rephrasings, cp, ce, adv, text, viz, ok, broad] = miniature::ROWS;
    [
        vqa_sets::VQAV2,
        vqa_sets::VQAV2_TEST_DEV,
        vqa_sets::IV_VQA,
        vqa_sets::CV_VQA,
        vqa_sets::VQA_REPHRASINGS,
        vqa_sets::VQA_CP_V2,
        vqa_sets::VQA_CE,
        vqa_sets::ADVQA,
        vqa_sets::TEXTVQA,
        vqa_sets::VIZWIZ,
        vqa_sets::OK_VQA,
        easy_vqa::ROW,
        id,
        iv,
        cv,
        rephrasings,
        cp,
        ce,
        adv,
        text,
        viz,
        ok,
        broad,
    ]
};

/// The dataset with this name.
///
/// # Errors
/// An unknown name; the hint lists all.
pub fn find_dataset(name: &str) -> Result<&'static DatasetRow> {
    find_row(DATASETS, "dataset", name, |row| vec![row.name])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(question_id: i64, image_id: &str) -> Question {
        Question { question_id: Id::Number(question_id), image_id: Id::Text(image_id.into()), text: "what?".into() }
    }

    #[test]
    fn images_are_numbered_in_order() {
        let mut builder = References::builder();
        for answer in ["a", "b", "c"] {
            builder.answer(answer, None, None).unwrap();
            builder.end_question(None, None).unwrap();
        }
        let dataset = Dataset {
            name: "tiny".to_owned(),
            questions: vec![question(1, "x"), question(2, "y"), question(1, "z")],
            references: Some(builder.finish()),
            relations: Relations::default(),
            images: Arc::new(ImageFolder::new("", ImageName::unknown())),
        };
        assert_eq!(dataset.image_numbers(), [0, 1, 2]);
        assert!(dataset.question_ids_repeat());
        let limited = dataset.limit(2);
        assert!(!limited.question_ids_repeat());
        assert_eq!((limited.questions.len(), limited.references.unwrap().len()), (2, 2));
    }

    #[test]
    fn rows_name_known_metrics() {
        for row in DATASETS {
            crate::score::find_metric(row.metric).unwrap();
            for measure in row.measures {
                crate::score::find_measure(measure).unwrap();
            }
        }
        let error = find_dataset("easy_vqa").unwrap_err();
        assert!(error.next_step().unwrap().starts_with("did you mean `easy-vqa`? known: vqav2, "));
    }
}
