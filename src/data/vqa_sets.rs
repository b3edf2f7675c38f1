//! The ten VQA datasets of the DiGraP paper and VQAv2's test-dev part, as their authors publish them.
//!
//! Most are VQAv2's pair of files with a few differences, so that each part is a [`Layout`] and one loader reads all. In
//! the place of its files a folder may hold a "combined" list as LAVIS and FRAMES-VQA have them, or the Hub's parquet files.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::image_folder::Names;
use super::presence::{find, find_below, places};
use super::shard_images::ShardImages;
use super::shards::{self, Split};
use super::vqa_json::{self, ANSWERABLE, Content, UNANSWERABLE};
use super::{DATASETS, Dataset, DatasetRow, HubCopy, Id, ImageFolder, ImageSource};
use super::{Packing, Part, Question, Relations, SourceFile, json};
use crate::error::{Error, Result};

/// How a part of a dataset lies on disk.
struct Layout {
    /// Name of the dataset.
    dataset: &'static str,
    questions: &'static SourceFile,
    /// None where the question file holds the answers, or there are none.
    annotations: Option<&'static SourceFile>,
    /// Folders of the images.
    images: &'static [SourceFile],
    /// Paths of the images below what holds these folders, where records do not name them.
    image_name: &'static str,
    /// Whether a combined list can stand in for the files.
    combined: bool,
    /// The split of the Hub's parquet files that can stand in for them.
    split: Option<&'static str>,
    relation: Relation,
}

/// What is known of all questions of a dataset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Relation {
    /// Nothing but what records say.
    Stated,
    /// Each was made from the question of VQAv2 that has its `question_id`.
    SameId,
    /// The part of each is the folder of its image, where records do not tell it.
    ImageFolder,
    /// The part of each is whether its answer type is `unanswerable`, where records do not tell it.
    AnswerType,
}

const fn file(path: &'static str, part: Part, url: Option<&'static str>) -> SourceFile {
    SourceFile { path, part, url, packing: Packing::Plain }
}

const fn zip(path: &'static str, part: Part, url: &'static str) -> SourceFile {
    SourceFile { path, part, url: Some(url), packing: Packing::Zip }
}

const fn tar(path: &'static str, part: Part, url: &'static str) -> SourceFile {
    SourceFile { path, part, url: Some(url), packing: Packing::TarGz }
}

const fn coco_train(part: Part) -> SourceFile {
    zip("train2014", part, "http://images.cocodataset.org/zips/train2014.zip")
}

const fn coco_val(part: Part) -> SourceFile {
    zip("val2014", part, "http://images.cocodataset.org/zips/val2014.zip")
}

const COCO_TEST: SourceFile = zip("test2015", Part::Evaluation, "http://images.cocodataset.org/zips/test2015.zip");

const COCO_TRAIN_NAME: &str = "train2014/COCO_train2014_{image_id:012}.jpg";
const COCO_VAL_NAME: &str = "val2014/COCO_val2014_{image_id:012}.jpg";

const VQAV2_VAL_QUESTIONS: SourceFile = zip(
    "v2_OpenEnded_mscoco_val2014_questions.json",
    Part::Evaluation,
    "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Questions_Val_mscoco.zip",
);
const VQAV2_VAL_ANNOTATIONS: SourceFile = zip(
    "v2_mscoco_val2014_annotations.json",
    Part::Evaluation,
    "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Annotations_Val_mscoco.zip",
);
const VQAV2_TRAIN_QUESTIONS: SourceFile = zip(
    "v2_OpenEnded_mscoco_train2014_questions.json",
    Part::Training,
    "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Questions_Train_mscoco.zip",
);
const VQAV2_TRAIN_ANNOTATIONS: SourceFile = zip(
    "v2_mscoco_train2014_annotations.json",
    Part::Training,
    "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Annotations_Train_mscoco.zip",
);
const VQAV2_TEST_DEV_QUESTIONS: SourceFile = zip(
    "v2_OpenEnded_mscoco_test-dev2015_questions.json",
    Part::Evaluation,
    "https://s3.amazonaws.com/cvmlp/vqa/mscoco/vqa/v2_Questions_Test_mscoco.zip",
);

const VQAV2_VAL: Layout = Layout {
    dataset: "vqav2",
    questions: &VQAV2_VAL_QUESTIONS,
    annotations: Some(&VQAV2_VAL_ANNOTATIONS),
    images: &[coco_val(Part::Evaluation)],
    image_name: COCO_VAL_NAME,
    combined: true,
    split: Some("validation"),
    relation: Relation::Stated,
};

const VQAV2_TRAIN: Layout = Layout {
    questions: &VQAV2_TRAIN_QUESTIONS,
    annotations: Some(&VQAV2_TRAIN_ANNOTATIONS),
    images: &[coco_train(Part::Training)],
    image_name: COCO_TRAIN_NAME,
    combined: false,
    split: Some("train"),
    ..VQAV2_VAL
};

pub(super) const VQAV2: DatasetRow = DatasetRow {
    name: "vqav2",
    about: "VQAv2, validation part: everyday photos of COCO, ten answers to each question (in distribution)",
    licence: "annotations CC BY 4.0; images under the terms of Flickr",
    metric: "official-2021",
    n: Some(214_354),
    images: Some(40_504),
    obtain: "`digrap-bench fetch vqav2`, or unpack the files of visualqa.org/download.html",
    files: &[
        VQAV2_VAL_QUESTIONS,
        VQAV2_VAL_ANNOTATIONS,
        coco_val(Part::Evaluation),
        VQAV2_TRAIN_QUESTIONS,
        VQAV2_TRAIN_ANNOTATIONS,
        coco_train(Part::Training),
    ],
    hub: &[
        HubCopy { repository: "lmms-lab/VQAv2", split: "validation", part: Part::Evaluation, images: true },
        HubCopy { repository: "pminervini/VQAv2", split: "validation", part: Part::Evaluation, images: false },
        HubCopy { repository: "pminervini/VQAv2", split: "train", part: Part::Training, images: false },
    ],
    original: None,
    measures: &[],
    load: |root| load(&VQAV2_VAL, root),
    load_training: Some(|root| load(&VQAV2_TRAIN, root)),
    validation_share: 0.1,
};

const VQAV2_TEST_DEV_LAYOUT: Layout = Layout {
    dataset: "vqav2-test-dev",
    questions: &VQAV2_TEST_DEV_QUESTIONS,
    annotations: None,
    images: &[COCO_TEST],
    image_name: "test2015/COCO_test2015_{image_id:012}.jpg",
    combined: false,
    split: Some("testdev"),
    ..VQAV2_VAL
};

pub(super) const VQAV2_TEST_DEV: DatasetRow = DatasetRow {
    name: "vqav2-test-dev",
    about: "VQAv2, test-dev part: its answers are not public, so nothing is scored here",
    n: Some(107_394),
    images: None,
    obtain: "`digrap-bench fetch vqav2-test-dev`, or unpack the files of visualqa.org/download.html",
    files: &[VQAV2_TEST_DEV_QUESTIONS, COCO_TEST],
    hub: &[
        HubCopy { repository: "lmms-lab/VQAv2", split: "testdev", part: Part::Evaluation, images: true },
        HubCopy { repository: "pminervini/VQAv2", split: "testdev", part: Part::Evaluation, images: false },
    ],
    load: |root| load(&VQAV2_TEST_DEV_LAYOUT, root),
    load_training: None,
    ..VQAV2
};

/// A file of the annotations of IV-VQA or CV-VQA; both name theirs as VQAv2 does.
const fn edited(path: &'static str, part: Part, iv: bool) -> SourceFile {
    let url = if iv {
        "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/annotations_0.1_0.1.tar.gz"
    } else {
        "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/CV_VQA_annotations_0.1_0.0.tar.gz"
    };
    tar(path, part, url)
}

const IV_VAL_QUESTIONS: SourceFile = edited("v2_OpenEnded_mscoco_val2014_questions.json", Part::Evaluation, true);
const IV_VAL_ANNOTATIONS: SourceFile = edited("v2_mscoco_val2014_annotations.json", Part::Evaluation, true);
const IV_TRAIN_QUESTIONS: SourceFile = edited("v2_OpenEnded_mscoco_train2014_questions.json", Part::Training, true);
const IV_TRAIN_ANNOTATIONS: SourceFile = edited("v2_mscoco_train2014_annotations.json", Part::Training, true);
const IV_VAL_IMAGES: SourceFile = tar(
    "val2014",
    Part::Evaluation,
    "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/val2014_edited.tar.gz",
);
const IV_TRAIN_IMAGES: SourceFile = tar(
    "train2014",
    Part::Training,
    "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/train2014_edited.tar.gz",
);

const IV_VAL: Layout = Layout {
    dataset: "iv-vqa",
    questions: &IV_VAL_QUESTIONS,
    annotations: Some(&IV_VAL_ANNOTATIONS),
    images: &[IV_VAL_IMAGES],
    image_name: COCO_VAL_NAME,
    combined: true,
    split: None,
    relation: Relation::SameId,
};

const IV_TRAIN: Layout = Layout {
    questions: &IV_TRAIN_QUESTIONS,
    annotations: Some(&IV_TRAIN_ANNOTATIONS),
    images: &[IV_TRAIN_IMAGES],
    image_name: COCO_TRAIN_NAME,
    combined: false,
    ..IV_VAL
};

pub(super) const IV_VQA: DatasetRow = DatasetRow {
    name: "iv-vqa",
    about: "IV-VQA, validation part: VQAv2 with an object removed that the question is not about (vision shift)",
    licence: "none stated; made from VQAv2 and COCO",
    metric: "official-2021",
    n: None,
    images: None,
    obtain: "`digrap-bench fetch iv-vqa`, or unpack the archives of Invariant-VQA from the CausalVQA page",
    files: &[
        IV_VAL_QUESTIONS,
        IV_VAL_ANNOTATIONS,
        IV_VAL_IMAGES,
        IV_TRAIN_QUESTIONS,
        IV_TRAIN_ANNOTATIONS,
        IV_TRAIN_IMAGES,
    ],
    hub: &[],
    original: Some("vqav2"),
    measures: &["flips"],
    load: |root| load(&IV_VAL, root),
    load_training: Some(|root| load(&IV_TRAIN, root)),
    validation_share: 0.1,
};

const CV_VAL_QUESTIONS: SourceFile = edited("v2_OpenEnded_mscoco_val2014_questions.json", Part::Evaluation, false);
const CV_VAL_ANNOTATIONS: SourceFile = edited("v2_mscoco_val2014_annotations.json", Part::Evaluation, false);
const CV_TRAIN_QUESTIONS: SourceFile = edited("v2_OpenEnded_mscoco_train2014_questions.json", Part::Training, false);
const CV_TRAIN_ANNOTATIONS: SourceFile = edited("v2_mscoco_train2014_annotations.json", Part::Training, false);
const CV_VAL_IMAGES: SourceFile = tar(
    "val2014",
    Part::Evaluation,
    "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/CV_VQA_val2014.tar.gz",
);
const CV_TRAIN_IMAGES: SourceFile = tar(
    "train2014",
    Part::Training,
    "https://datasets.d2.mpi-inf.mpg.de/rakshith/causalvqa/rawdata/CV_VQA_train2014.tar.gz",
);

const CV_VAL: Layout = Layout {
    dataset: "cv-vqa",
    questions: &CV_VAL_QUESTIONS,
    annotations: Some(&CV_VAL_ANNOTATIONS),
    images: &[CV_VAL_IMAGES],
    ..IV_VAL
};

const CV_TRAIN: Layout = Layout {
    questions: &CV_TRAIN_QUESTIONS,
    annotations: Some(&CV_TRAIN_ANNOTATIONS),
    images: &[CV_TRAIN_IMAGES],
    image_name: COCO_TRAIN_NAME,
    combined: false,
    ..CV_VAL
};

pub(super) const CV_VQA: DatasetRow = DatasetRow {
    name: "cv-vqa",
    about: "CV-VQA, validation part: counting questions of VQAv2 with one counted object removed (vision shift)",
    obtain: "`digrap-bench fetch cv-vqa`, or unpack the archives of CoVariant-VQA from the CausalVQA page",
    files: &[
        CV_VAL_QUESTIONS,
        CV_VAL_ANNOTATIONS,
        CV_VAL_IMAGES,
        CV_TRAIN_QUESTIONS,
        CV_TRAIN_ANNOTATIONS,
        CV_TRAIN_IMAGES,
    ],
    measures: &["count-flips"],
    load: |root| load(&CV_VAL, root),
    load_training: Some(|root| load(&CV_TRAIN, root)),
    ..IV_VQA
};

const REPHRASINGS_QUESTIONS: SourceFile =
    file("v2_OpenEnded_mscoco_valrep2014_humans_og_questions.json", Part::Evaluation, None);
const REPHRASINGS_ANNOTATIONS: SourceFile =
    file("v2_mscoco_valrep2014_humans_og_annotations.json", Part::Evaluation, None);

const REPHRASINGS_LAYOUT: Layout = Layout {
    dataset: "vqa-rephrasings",
    questions: &REPHRASINGS_QUESTIONS,
    annotations: Some(&REPHRASINGS_ANNOTATIONS),
    split: None,
    ..VQAV2_VAL
};

pub(super) const VQA_REPHRASINGS: DatasetRow = DatasetRow {
    name: "vqa-rephrasings",
    about: "VQA-Rephrasings: questions of VQAv2 with three rephrasings of each by people (question shift)",
    licence: "none found; images under the terms of Flickr",
    metric: "official-2021",
    n: Some(162_016),
    images: None,
    obtain: "download both files from facebookresearch.github.io/VQA-Rephrasings",
    files: &[REPHRASINGS_QUESTIONS, REPHRASINGS_ANNOTATIONS, coco_val(Part::Evaluation)],
    hub: &[],
    original: None,
    measures: &["consensus"],
    load: |root| load(&REPHRASINGS_LAYOUT, root),
    load_training: None,
    validation_share: 0.1,
};

const CP_TEST_QUESTIONS: SourceFile = file(
    "vqacp_v2_test_questions.json",
    Part::Evaluation,
    Some("https://computing.ece.vt.edu/~aish/vqacp/vqacp_v2_test_questions.json"),
);
const CP_TEST_ANNOTATIONS: SourceFile = file(
    "vqacp_v2_test_annotations.json",
    Part::Evaluation,
    Some("https://computing.ece.vt.edu/~aish/vqacp/vqacp_v2_test_annotations.json"),
);
const CP_TRAIN_QUESTIONS: SourceFile = file(
    "vqacp_v2_train_questions.json",
    Part::Training,
    Some("https://computing.ece.vt.edu/~aish/vqacp/vqacp_v2_train_questions.json"),
);
const CP_TRAIN_ANNOTATIONS: SourceFile = file(
    "vqacp_v2_train_annotations.json",
    Part::Training,
    Some("https://computing.ece.vt.edu/~aish/vqacp/vqacp_v2_train_annotations.json"),
);

const CP_TEST: Layout = Layout {
    dataset: "vqa-cp-v2",
    questions: &CP_TEST_QUESTIONS,
    annotations: Some(&CP_TEST_ANNOTATIONS),
    images: &[coco_train(Part::Both), coco_val(Part::Both)],
    image_name: COCO_VAL_NAME,
    combined: true,
    split: None,
    relation: Relation::ImageFolder,
};

const CP_TRAIN: Layout =
    Layout { questions: &CP_TRAIN_QUESTIONS, annotations: Some(&CP_TRAIN_ANNOTATIONS), combined: false, ..CP_TEST };

pub(super) const VQA_CP_V2: DatasetRow = DatasetRow {
    name: "vqa-cp-v2",
    about: "VQA-CP v2, test part: VQAv2 split anew, so that answers differ by question type (answer shift)",
    licence: "none stated; made from VQAv2 and COCO",
    metric: "official-2021",
    n: Some(219_928),
    images: None,
    obtain: "`digrap-bench fetch vqa-cp-v2`, or download the files of computing.ece.vt.edu/~aish/vqacp",
    files: &[
        CP_TEST_QUESTIONS,
        CP_TEST_ANNOTATIONS,
        coco_train(Part::Both),
        coco_val(Part::Both),
        CP_TRAIN_QUESTIONS,
        CP_TRAIN_ANNOTATIONS,
    ],
    hub: &[],
    original: None,
    measures: &["seen-images"],
    load: |root| load(&CP_TEST, root),
    load_training: Some(|root| load(&CP_TRAIN, root)),
    validation_share: 0.1,
};

const CE_COUNTEREXAMPLES: SourceFile = file(
    "counterexamples.json",
    Part::Evaluation,
    Some("https://github.com/cdancette/detect-shortcuts/releases/download/v1.0/counterexamples.json"),
);
const CE_HARD: SourceFile = file(
    "hard.json",
    Part::Evaluation,
    Some("https://github.com/cdancette/detect-shortcuts/releases/download/v1.0/hard.json"),
);

const CE_WHOLE: Layout = Layout { dataset: "vqa-ce", combined: false, ..VQAV2_VAL };

pub(super) const VQA_CE: DatasetRow = DatasetRow {
    name: "vqa-ce",
    about: "VQA-CE, counterexamples: questions of VQAv2 that shortcuts answer wrongly (multimodal shift)",
    licence: "none stated; made from VQAv2 and COCO",
    metric: "official-2021",
    n: Some(63_298),
    images: None,
    obtain: "`digrap-bench fetch vqa-ce`, or download the files of github.com/cdancette/detect-shortcuts/releases; VQAv2's files can be in the folder of vqav2",
    files: &[CE_COUNTEREXAMPLES, CE_HARD, VQAV2_VAL_QUESTIONS, VQAV2_VAL_ANNOTATIONS, coco_val(Part::Evaluation)],
    hub: &[],
    original: Some("vqav2"),
    measures: &["shortcuts"],
    load: load_counterexamples,
    load_training: None,
    validation_share: 0.1,
};

const ADVQA_QUESTIONS: SourceFile = file(
    "v1_OpenEnded_mscoco_val2017_advqa_questions.json",
    Part::Evaluation,
    Some("https://dl.fbaipublicfiles.com/advqa/v1_OpenEnded_mscoco_val2017_advqa_questions.json"),
);
const ADVQA_ANNOTATIONS: SourceFile = file(
    "v1_mscoco_val2017_advqa_annotations.json",
    Part::Evaluation,
    Some("https://dl.fbaipublicfiles.com/advqa/v1_mscoco_val2017_advqa_annotations.json"),
);

const ADVQA_VAL_LAYOUT: Layout = Layout {
    dataset: "advqa",
    questions: &ADVQA_QUESTIONS,
    annotations: Some(&ADVQA_ANNOTATIONS),
    split: None,
    ..VQAV2_VAL
};

pub(super) const ADVQA: DatasetRow = DatasetRow {
    name: "advqa",
    about: "AdVQA, validation part: questions that people asked to make a model fail (adversarial shift)",
    licence: "CC BY-NC 4.0; images under the terms of Flickr",
    metric: "official-2021",
    n: Some(10_000),
    images: Some(5_000),
    obtain: "`digrap-bench fetch advqa`, or download the files of adversarialvqa.org",
    files: &[ADVQA_QUESTIONS, ADVQA_ANNOTATIONS, coco_val(Part::Evaluation)],
    hub: &[],
    original: None,
    measures: &[],
    load: |root| load(&ADVQA_VAL_LAYOUT, root),
    load_training: None,
    validation_share: 0.1,
};

const TEXTVQA_VAL_QUESTIONS: SourceFile = file(
    "TextVQA_0.5.1_val.json",
    Part::Evaluation,
    Some("https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_val.json"),
);
const TEXTVQA_TRAIN_QUESTIONS: SourceFile = file(
    "TextVQA_0.5.1_train.json",
    Part::Training,
    Some("https://dl.fbaipublicfiles.com/textvqa/data/TextVQA_0.5.1_train.json"),
);
const TEXTVQA_IMAGES: SourceFile =
    zip("train_images", Part::Both, "https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip");

const TEXTVQA_VAL: Layout = Layout {
    dataset: "textvqa",
    questions: &TEXTVQA_VAL_QUESTIONS,
    annotations: None,
    images: &[TEXTVQA_IMAGES],
    image_name: "train_images/{image_id}.jpg",
    combined: true,
    split: Some("validation"),
    relation: Relation::Stated,
};

const TEXTVQA_TRAIN: Layout =
    Layout { questions: &TEXTVQA_TRAIN_QUESTIONS, combined: false, split: Some("train"), ..TEXTVQA_VAL };

pub(super) const TEXTVQA: DatasetRow = DatasetRow {
    name: "textvqa",
    about: "TextVQA, validation part: questions about text in photos of OpenImages (far shift)",
    licence: "CC BY 4.0",
    metric: "evalai",
    n: Some(5_000),
    images: None,
    obtain: "`digrap-bench fetch textvqa`, or download the files of textvqa.org/dataset",
    files: &[TEXTVQA_VAL_QUESTIONS, TEXTVQA_IMAGES, TEXTVQA_TRAIN_QUESTIONS],
    hub: &[
        HubCopy { repository: "lmms-lab/textvqa", split: "validation", part: Part::Evaluation, images: true },
        HubCopy { repository: "lmms-lab/textvqa", split: "train", part: Part::Training, images: true },
    ],
    original: None,
    measures: &[],
    load: |root| load(&TEXTVQA_VAL, root),
    load_training: Some(|root| load(&TEXTVQA_TRAIN, root)),
    validation_share: 0.1,
};

const VIZWIZ_VAL_QUESTIONS: SourceFile = zip(
    "Annotations/val.json",
    Part::Evaluation,
    "https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip",
);
const VIZWIZ_TRAIN_QUESTIONS: SourceFile = zip(
    "Annotations/train.json",
    Part::Training,
    "https://vizwiz.cs.colorado.edu/VizWiz_final/vqa_data/Annotations.zip",
);
const VIZWIZ_VAL_IMAGES: SourceFile =
    zip("val", Part::Evaluation, "https://vizwiz.cs.colorado.edu/VizWiz_final/images/val.zip");
const VIZWIZ_TRAIN_IMAGES: SourceFile =
    zip("train", Part::Training, "https://vizwiz.cs.colorado.edu/VizWiz_final/images/train.zip");

const VIZWIZ_VAL: Layout = Layout {
    dataset: "vizwiz",
    questions: &VIZWIZ_VAL_QUESTIONS,
    annotations: None,
    images: &[VIZWIZ_VAL_IMAGES],
    image_name: "val/{image_id}",
    combined: true,
    split: Some("val"),
    relation: Relation::AnswerType,
};

const VIZWIZ_TRAIN: Layout = Layout {
    questions: &VIZWIZ_TRAIN_QUESTIONS,
    images: &[VIZWIZ_TRAIN_IMAGES],
    image_name: "train/{image_id}",
    combined: false,
    split: None,
    ..VIZWIZ_VAL
};

pub(super) const VIZWIZ: DatasetRow = DatasetRow {
    name: "vizwiz",
    about: "VizWiz-VQA, validation part: what blind people asked about photos they took (far shift)",
    licence: "CC BY 4.0",
    metric: "vizwiz",
    n: Some(4_319),
    images: Some(4_319),
    obtain: "`digrap-bench fetch vizwiz`, or unpack the files of vizwiz.org/tasks-and-datasets/vqa",
    files: &[VIZWIZ_VAL_QUESTIONS, VIZWIZ_VAL_IMAGES, VIZWIZ_TRAIN_QUESTIONS, VIZWIZ_TRAIN_IMAGES],
    hub: &[HubCopy { repository: "lmms-lab/VizWiz-VQA", split: "val", part: Part::Evaluation, images: true }],
    original: None,
    measures: &["unanswerability"],
    load: |root| load(&VIZWIZ_VAL, root),
    load_training: Some(|root| load(&VIZWIZ_TRAIN, root)),
    validation_share: 0.1,
};

const OK_VAL_QUESTIONS: SourceFile = zip(
    "OpenEnded_mscoco_val2014_questions.json",
    Part::Evaluation,
    "https://okvqa.allenai.org/static/data/OpenEnded_mscoco_val2014_questions.json.zip",
);
const OK_VAL_ANNOTATIONS: SourceFile = zip(
    "mscoco_val2014_annotations.json",
    Part::Evaluation,
    "https://okvqa.allenai.org/static/data/mscoco_val2014_annotations.json.zip",
);
const OK_TRAIN_QUESTIONS: SourceFile = zip(
    "OpenEnded_mscoco_train2014_questions.json",
    Part::Training,
    "https://okvqa.allenai.org/static/data/OpenEnded_mscoco_train2014_questions.json.zip",
);
const OK_TRAIN_ANNOTATIONS: SourceFile = zip(
    "mscoco_train2014_annotations.json",
    Part::Training,
    "https://okvqa.allenai.org/static/data/mscoco_train2014_annotations.json.zip",
);

const OK_VAL: Layout = Layout {
    dataset: "ok-vqa",
    questions: &OK_VAL_QUESTIONS,
    annotations: Some(&OK_VAL_ANNOTATIONS),
    split: Some("val2014"),
    ..VQAV2_VAL
};

const OK_TRAIN: Layout = Layout {
    questions: &OK_TRAIN_QUESTIONS,
    annotations: Some(&OK_TRAIN_ANNOTATIONS),
    images: &[coco_train(Part::Training)],
    image_name: COCO_TRAIN_NAME,
    combined: false,
    split: None,
    ..OK_VAL
};

pub(super) const OK_VQA: DatasetRow = DatasetRow {
    name: "ok-vqa",
    about: "OK-VQA, validation part: questions on photos of COCO that need knowledge of the world (far shift)",
    licence: "CC BY 4.0, to be checked with the authors; images under the terms of Flickr",
    metric: "official-2021",
    n: Some(5_046),
    images: Some(5_033),
    obtain: "`digrap-bench fetch ok-vqa`, or unpack the files of okvqa.allenai.org/download.html",
    files: &[
        OK_VAL_QUESTIONS,
        OK_VAL_ANNOTATIONS,
        coco_val(Part::Evaluation),
        OK_TRAIN_QUESTIONS,
        OK_TRAIN_ANNOTATIONS,
        coco_train(Part::Training),
    ],
    hub: &[HubCopy { repository: "lmms-lab/OK-VQA", split: "val2014", part: Part::Evaluation, images: true }],
    original: None,
    measures: &[],
    load: |root| load(&OK_VAL, root),
    load_training: Some(|root| load(&OK_TRAIN, root)),
    validation_share: 0.1,
};

/// Loads a part of a dataset whose folder is `root`.
///
/// # Errors
/// No files of it, or damaged ones.
fn load(layout: &Layout, root: &Path) -> Result<Dataset> {
    if let Some(questions) = find(root, layout.questions)? {
        let annotations = layout.annotations.map(|file| required(layout, root, file)).transpose()?;
        let content = vqa_json::read(&questions, annotations.as_deref())?;
        let names = match &content.names {
            Names::Listed(_) => content.names.clone(),
            Names::Pattern(_) => Names::Pattern(layout.image_name.parse()?),
        };
        return dataset(layout, root, content, names);
    }
    if let Some(combined) = combined(root)?.filter(|_| layout.combined) {
        return load_combined(layout, root, &combined);
    }
    if let Some(name) = layout.split {
        for place in places(root, layout.questions) {
            if let Some(split) = Split::find(&place, name)? {
                return of_shards(layout, root, &split);
            }
        }
    }
    Err(lacking(layout, root, layout.questions))
}

/// A combined list, which names its images.
fn load_combined(layout: &Layout, root: &Path, combined: &Path) -> Result<Dataset> {
    let content = vqa_json::read(combined, None)?;
    let names = content.names.clone();
    dataset(layout, root, content, names)
}

/// A dataset whose images are files.
fn dataset(layout: &Layout, root: &Path, content: Content, names: Names) -> Result<Dataset> {
    let images = Arc::new(ImageFolder::among(image_roots(layout, root)?, names));
    let Content { questions, references, relations, .. } = content;
    let mut dataset = Dataset { name: layout.dataset.to_owned(), questions, references, relations, images };
    relate(layout.relation, &mut dataset)?;
    Ok(dataset)
}

/// A dataset in parquet files, with the images inside or, where they hold texts alone, in files.
fn of_shards(layout: &Layout, root: &Path, split: &Split) -> Result<Dataset> {
    let shards::Content { questions, references, files, places, images_told } = shards::read(split)?;
    let images: Arc<dyn ImageSource> = if places.is_empty() {
        let names = Names::Pattern(layout.image_name.parse()?);
        Arc::new(ImageFolder::among(image_roots(layout, root)?, names))
    } else {
        Arc::new(ShardImages::new(files, places)?)
    };
    // Where a dataset has as many images as questions, none is shared.
    let one_each = DATASETS.iter().any(|row| row.name == layout.dataset && row.n == row.images);
    let relations = Relations { images_uncertain: !images_told && !one_each, ..Relations::default() };
    let mut dataset = Dataset { name: layout.dataset.to_owned(), questions, references, relations, images };
    relate(layout.relation, &mut dataset)?;
    Ok(dataset)
}

/// The combined list below the folder of a dataset, as FRAMES-VQA names it.
///
/// # Errors
/// Two of them equally deep, or a folder that cannot be read.
pub(super) fn combined(root: &Path) -> Result<Option<PathBuf>> {
    find_below(root, "combined_data.json")
}

fn required(layout: &Layout, root: &Path, file: &SourceFile) -> Result<PathBuf> {
    find(root, file)?.ok_or_else(|| lacking(layout, root, file))
}

fn lacking(layout: &Layout, root: &Path, file: &SourceFile) -> Error {
    let places: Vec<String> = places(root, file).iter().map(|place| format!("below `{}`", place.display())).collect();
    let places = match &*places {
        [only] => format!(" {only}"),
        several => format!(", neither {}", several.join(" nor ")),
    };
    let obtain = DATASETS.iter().find(|row| row.name == layout.dataset).map_or("", |row| row.obtain);
    Error::input(format!("{} has no `{}`{places}", layout.dataset, file.path)).hint(obtain)
}

/// What can hold the folders of the images: what does, or else all that may.
fn image_roots(layout: &Layout, root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut possible = Vec::new();
    for folder in layout.images {
        for place in places(root, folder) {
            if let Some(holder) = find_below(&place, folder.path)?.and_then(|path| path.parent().map(Path::to_owned)) {
                found.push(holder);
            }
            possible.push(place);
        }
    }
    let mut seen = HashSet::new();
    let roots = if found.is_empty() { possible } else { found };
    Ok(roots.into_iter().filter(|root| seen.insert(root.clone())).collect())
}

/// Adds what is known of all questions of a dataset to what records say.
///
/// # Errors
/// Images with the numbers of originals where all should be edited, whose names are texts.
fn relate(relation: Relation, dataset: &mut Dataset) -> Result<()> {
    let Dataset { name, questions, references, relations, .. } = dataset;
    if relation == Relation::SameId {
        if let Some(original) = questions.iter().find(|question| matches!(question.image_id, Id::Number(_))) {
            let message = format!("`{name}` has the image {}, which is no edited one", original.image_id);
            return Err(Error::input(message).hint("the file is VQAv2's: give the folder of the dataset itself"));
        }
        relations.originals = questions.iter().map(|question| Some(question.question_id.clone())).collect();
    }
    if !relations.parts.is_empty() {
        return Ok(());
    }
    let parts: Option<Vec<&str>> = match (relation, references) {
        (Relation::ImageFolder, _) => questions.iter().map(folder_of_image).collect(),
        (Relation::AnswerType, Some(references)) => {
            (0..references.len()).map(|question| references.answer_type(question).map(answerable)).collect()
        }
        _ => None,
    };
    for part in parts.unwrap_or_default() {
        let known = relations.part_names.iter().position(|name| **name == *part);
        relations.parts.push(known.unwrap_or(relations.part_names.len()) as u32);
        if known.is_none() {
            relations.part_names.push(part.into());
        }
    }
    Ok(())
}

fn answerable(answer_type: &str) -> &'static str {
    if answer_type == UNANSWERABLE { UNANSWERABLE } else { ANSWERABLE }
}

/// The first folder of an image that is named by its path.
fn folder_of_image(question: &Question) -> Option<&str> {
    let Id::Text(path) = &question.image_id else { return None };
    path.split_once('/').map(|(folder, _)| folder)
}

/// The parts of VQAv2's validation questions that VQA-CE tells apart.
const KINDS: [&str; 3] = ["counterexamples", "easy", "hard"];
const COUNTEREXAMPLES: u32 = 0;
const EASY: u32 = 1;
const HARD: u32 = 2;

/// Loads the counterexamples; the relations tell the kind of every question of VQAv2.
///
/// # Errors
/// As [`load`]; lists that name one question twice, or one that VQAv2 does not have.
fn load_counterexamples(root: &Path) -> Result<Dataset> {
    let Some(counterexamples) = find(root, &CE_COUNTEREXAMPLES)? else {
        return match combined(root)? {
            Some(combined) => load_combined(&CE_WHOLE, root, &combined),
            None => Err(lacking(&CE_WHOLE, root, &CE_COUNTEREXAMPLES)),
        };
    };
    let hard = required(&CE_WHOLE, root, &CE_HARD)?;
    let whole = load(&CE_WHOLE, root)?;
    let mut kinds: HashMap<&Id, u32> = whole.questions.iter().map(|question| (&question.question_id, EASY)).collect();
    for (path, kind) in [(&counterexamples, COUNTEREXAMPLES), (&hard, HARD)] {
        for question_id in identifiers(path)? {
            let wrong = match kinds.get_mut(&question_id) {
                Some(known) if *known == EASY => {
                    *known = kind;
                    continue;
                }
                Some(_) => "is listed twice",
                None => "is no validation question of VQAv2",
            };
            let message = format!("`{}`: question {} {wrong}", path.display(), question_id.to_json());
            return Err(Error::incomplete(message).hint("take all files whole, from one release"));
        }
    }
    let kind_of = |at: &usize| kinds[&whole.questions[*at].question_id];
    let positions: Vec<usize> =
        (0..whole.questions.len()).filter(|position| kind_of(position) == COUNTEREXAMPLES).collect();
    if positions.is_empty() {
        return Err(Error::input(format!("`{}` holds no questions", counterexamples.display())));
    }
    let mut dataset = whole.select(&positions);
    dataset.relations = Relations {
        parts: vec![COUNTEREXAMPLES; positions.len()],
        part_names: KINDS.map(Box::from).into(),
        parts_of_originals: whole
            .questions
            .iter()
            .map(|one| (one.question_id.clone(), kinds[&one.question_id]))
            .collect(),
        ..Relations::default()
    };
    Ok(dataset)
}

/// A JSON list of question identifiers.
fn identifiers(path: &Path) -> Result<Vec<Id>> {
    let bytes = json::map(path)?;
    let numbers: Vec<i64> = serde_json::from_slice(&bytes).map_err(|cause| {
        Error::input(format!("cannot read `{}`: expected a list of question identifiers", path.display()))
            .caused_by(cause)
    })?;
    Ok(numbers.into_iter().map(Id::Number).collect())
}
