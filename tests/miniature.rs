//! The miniature world: reproducible to the byte, true to its scenes, and shifted as its sets say.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};

use digrap_bench::data::miniature::{
    Asked, Cell, Color, Damage, Drawn, GRID, PIXELS, Query, SEED, SETS, Scene, Shape, Size, UNANSWERABLE, files,
};
use digrap_bench::data::{DATASETS, Dataset, Id, ImageSource, find_dataset, vqa_json};
use digrap_bench::score::{find_metric, score, summarise};
use sha2::{Digest, Sha256};

use crate::support::{fixture, program_at};

fn drawn(name: &str) -> Drawn {
    Drawn::find(name, SEED, 1.0).unwrap()
}

fn unshifted(name: &str) -> Drawn {
    Drawn::find(name, SEED, 0.0).unwrap()
}

fn number(id: &Id) -> i64 {
    match id {
        Id::Number(number) => *number,
        Id::Text(text) => panic!("`{text}` is no number"),
    }
}

fn pictures(questions: &[Asked]) -> Vec<&Id> {
    questions.iter().map(|question| &question.image_id).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Hashes of pictures, in the order of the list, drawn by so many threads.
fn hashes(set: &Drawn, pictures: &[&Id], threads: usize) -> Vec<[u8; 32]> {
    let next = AtomicUsize::new(0);
    let draw = || {
        let mut done = Vec::new();
        while let Some((index, id)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, pictures.get(i)?)))
        {
            done.push((index, <[u8; 32]>::from(Sha256::digest(set.decode(id).unwrap().as_raw()))));
        }
        done
    };
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(draw)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    all.sort_unstable();
    all.into_iter().map(|(_, hash)| hash).collect()
}

/// A digest of questions, answers and pictures.
fn digest(questions: &[Asked], pictures: &[[u8; 32]]) -> String {
    let mut hasher = Sha256::new();
    for question in questions {
        let Asked { question_id, image_id, text, answer_type, answers, original, part, .. } = question;
        hasher.update(format!("{question_id:?} {image_id:?} {text} {answer_type} {original:?} {part:?} {answers:?}\n"));
    }
    pictures.iter().for_each(|picture| hasher.update(picture));
    hasher.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Of the large sets every so manieth picture is drawn.
fn sample<'a>(set: &Drawn, pictures: &[&'a Id]) -> Vec<&'a Id> {
    let step = if set.set.name == "miniature-broad-training" { 60 } else { 1 };
    pictures.iter().step_by(step).copied().collect()
}

/// The digests belong to the world's version: where one changes, the version has to.
const DIGESTS: &[(&str, &str)] = &[
    ("miniature", "0db754be6cf1bfad"),
    ("miniature-training", "a18d6cbb6b145b82"),
    ("miniature-iv", "cf0ca819e8f282a2"),
    ("miniature-cv", "847505bf5ddc4a1c"),
    ("miniature-rephrasings", "5e9313248b9806f7"),
    ("miniature-text", "d36799c90d5ce238"),
    ("miniature-viz", "c7a76e8dda4a5a25"),
    ("miniature-ok", "f6615b8ff82ea262"),
    ("miniature-broad", "5e65505e95697b01"),
    ("miniature-broad-training", "c10ff8a8fa7aef7f"),
    ("miniature-cp", "4da560a31cff6ca6"),
    ("miniature-ce", "a6ff84ca45c16d23"),
    ("miniature-adv", "5de20a8b99fc5fc8"),
    ("miniature-pool", "67d9d23ed5e65385"),
    ("miniature-adversarial-pool", "5d9846aa63a84e55"),
];

#[test]
fn every_set_is_the_same_in_one_and_in_eight_threads() {
    let mut found = Vec::new();
    for set in SETS {
        let set = drawn(set.name);
        let (questions, again) = (set.questions(), set.questions());
        assert_eq!(questions, again);
        let all = pictures(&questions);
        let chosen = sample(&set, &all);
        let (alone, together) = (hashes(&set, &chosen, 1), hashes(&set, &chosen, 8));
        assert_eq!(alone, together, "{}", set.set.name);
        found.push((set.set.name, digest(&questions, &alone)));
    }
    let found: Vec<(&str, &str)> = found.iter().map(|(name, digest)| (*name, digest.as_str())).collect();
    assert_eq!(found, DIGESTS);
}

#[test]
fn a_picture_and_its_questions_follow_from_the_key_alone() {
    for name in ["miniature", "miniature-iv", "miniature-viz", "miniature-text"] {
        let (whole, questions) = (drawn(name), drawn(name).questions());
        for question in questions.iter().rev().step_by(97) {
            let alone = drawn(name);
            let image = alone.decode(&question.image_id).unwrap();
            assert_eq!(image, whole.decode(&question.image_id).unwrap());
            assert_eq!(image.dimensions(), (PIXELS, PIXELS));
        }
        let other = Drawn::find(name, SEED + 1, 1.0).unwrap();
        assert_ne!(other.questions()[0], questions[0]);
    }
}

#[test]
fn unknown_pictures_are_refused() {
    for (set, id, message) in [
        ("miniature", Id::Number(0), "`miniature` has no image 0"),
        ("miniature", Id::Number(601), "`miniature` has no image 601"),
        ("miniature", Id::Text("000000000001_1".into()), "`miniature` has no image \"000000000001_1\""),
        ("miniature-iv", Id::Text("000000000001_99".into()), "`miniature-iv` has no image \"000000000001_99\""),
        ("miniature-iv", Id::Text("1_1".into()), "`miniature-iv` has no image \"1_1\""),
    ] {
        assert_eq!(drawn(set).check(&id).unwrap_err().to_string(), message);
    }
}

#[test]
fn rows_state_their_numbers_and_are_large_enough() {
    let ten = ["", "-iv", "-cv", "-rephrasings", "-cp", "-ce", "-adv", "-text", "-viz", "-ok", "-broad"];
    let rows: Vec<_> = DATASETS.iter().filter(|row| row.name.starts_with("miniature")).collect();
    let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names, ten.map(|name| format!("miniature{name}")));
    for row in rows {
        let dataset = (row.load)(std::path::Path::new("")).unwrap();
        let images: HashSet<&Id> = dataset.questions.iter().map(|question| &question.image_id).collect();
        let (count, shown) = (dataset.questions.len(), images.len());
        assert_eq!((Some(count), Some(shown)), (row.n, row.images), "{}", row.name);
        assert!(count >= 500 && shown >= 150, "{}", row.name);
        let keys: HashSet<_> = dataset.questions.iter().map(|question| question.key()).collect();
        assert_eq!(keys.len(), count, "{}", row.name);
    }
}

/// No picture that is evaluated is trained on, in either mixture; edited pictures come from those of the evaluated part.
#[test]
fn no_picture_is_in_two_parts() {
    let mut owner: HashMap<[u8; 32], &str> = HashMap::new();
    for name in [
        "miniature-training",
        "miniature",
        "miniature-text",
        "miniature-viz",
        "miniature-ok",
        "miniature-broad",
        "miniature-pool",
        "miniature-adversarial-pool",
    ] {
        // Without damage, that pictures that show nothing are not taken for one another.
        let set = unshifted(name);
        let questions = set.questions();
        for hash in hashes(&set, &pictures(&questions), 2) {
            let before = owner.insert(hash, name);
            assert!(before.is_none_or(|before| before == name), "{name} shows a picture of {before:?}");
        }
    }
    let broad = drawn("miniature-broad-training");
    let scene = |set: &Drawn, key: i64| set.scene(&Id::Number(key)).unwrap();
    let evaluated: HashSet<_> = (1..=600).map(|key| scene(&drawn("miniature"), key).objects).collect();
    assert!((1..=60_000).all(|key| !evaluated.contains(&scene(&broad, key).objects)));
}

/// Answers a question of the narrow style from its words and the list of objects.
fn recount(text: &str, scene: &Scene) -> Option<String> {
    let words: Vec<&str> = text.trim_end_matches('?').split(' ').collect();
    let shape_of = |word: &str| Shape::ALL.into_iter().find(|shape| shape.word() == word || shape.plural() == word);
    let shapes: Vec<Shape> = words.iter().filter_map(|word| shape_of(word)).collect();
    let color = words.iter().find_map(|word| Color::ALL.into_iter().find(|color| color.word() == *word));
    let size = words.iter().find_map(|word| Size::ALL.into_iter().find(|size| size.word() == *word));
    let step: Option<(i8, i8)> = words.iter().find_map(|word| match *word {
        "left" => Some((0, -1)),
        "right" => Some((0, 1)),
        "above" => Some((-1, 0)),
        "below" => Some((1, 0)),
        _ => None,
    });
    let fits = |object: &&digrap_bench::data::miniature::Object, shape: Option<Shape>| {
        shape.is_none_or(|shape| object.shape == shape) && color.is_none_or(|color| object.color == color)
    };
    let found: Vec<_> = scene.objects.iter().filter(|object| fits(object, shapes.first().copied())).collect();
    let yes = |holds: bool| Some(if holds { "yes" } else { "no" }.to_owned());
    match (words[0], words[1], shapes.as_slice(), step) {
        ("how", "many", _, None) => Some(found.len().to_string()),
        ("is", "there", [_], None) => yes(!found.is_empty()),
        ("is", "the", [_], None) => yes(found[0].size == size?),
        ("is", "the", [_, other], Some((down, right))) => {
            let other = scene.objects.iter().find(|object| object.shape == *other)?;
            let [one, other] = [found[0].cell, other.cell].map(|Cell { row, column }| [row as i8, column as i8]);
            yes((one[0] - other[0]) * down > 0 || (one[1] - other[1]) * right > 0)
        }
        ("what", _, [_], Some((down, right))) => {
            let at = found[0].cell;
            let next = |object: &&digrap_bench::data::miniature::Object| {
                (object.cell.row as i8, object.cell.column as i8) == (at.row as i8 + down, at.column as i8 + right)
            };
            Some(scene.objects.iter().find(next)?.shape.word().to_owned())
        }
        ("what", _, [_], None) => Some(found[0].color.word().to_owned()),
        ("what", _, [], None) => Some(found[0].shape.word().to_owned()),
        _ => None,
    }
}

#[test]
fn answers_agree_with_a_recount() {
    for name in ["miniature", "miniature-training", "miniature-iv", "miniature-pool"] {
        let set = drawn(name);
        let mut clear = 0;
        for question in set.questions() {
            let scene = set.scene(&question.image_id).unwrap();
            let expected =
                recount(&question.text, &scene).unwrap_or_else(|| panic!("cannot recount {}", question.text));
            assert_eq!(question.query.answer(&scene).as_deref(), Some(expected.as_str()), "{}", question.text);
            if question.agreed() {
                clear += usize::from(question.answers[0].text == expected);
            }
        }
        assert!(clear > 400, "{name}");
    }
}

/// Which colour a cell shows and how long the longer side of it is, from pixels.
fn seen(image: &image::RgbImage, cell: Cell) -> Option<(Color, u32)> {
    let side = PIXELS / u32::from(GRID);
    let (left, top) = (u32::from(cell.column) * side, u32::from(cell.row) * side);
    let extent = |filled: Vec<u32>| Some(filled.last()? - filled.first()? + 1);
    Color::ALL.into_iter().find_map(|color| {
        let is_filled = |x: u32, y: u32| image.get_pixel(x, y).0 == color.rgb();
        let columns = (left..left + side).filter(|x| (top..top + side).any(|y| is_filled(*x, y))).collect();
        let rows = (top..top + side).filter(|y| (left..left + side).any(|x| is_filled(x, *y))).collect();
        Some((color, extent(columns)?.max(extent(rows)?)))
    })
}

#[test]
fn pixels_show_the_scene_and_answer_for_colours_and_sizes() {
    let set = drawn("miniature");
    let cells = || (0..GRID).flat_map(|row| (0..GRID).map(move |column| Cell { row, column }));
    let mut asked = 0;
    for question in set.questions() {
        let (scene, image) = (set.scene(&question.image_id).unwrap(), set.decode(&question.image_id).unwrap());
        for cell in cells() {
            let shown = scene.object_in(cell).map(|object| (object.color, object.size));
            let seen = seen(&image, cell).map(|(color, length)| (color, Size::ALL[usize::from(length > 11)]));
            assert_eq!(seen, shown, "{} {cell:?}", question.image_id);
        }
        if let Query::CountColor(color) = question.query {
            let count = cells().filter(|cell| seen(&image, *cell).is_some_and(|(shown, _)| shown == color)).count();
            assert_eq!(question.query.answer(&scene).unwrap(), count.to_string());
            asked += 1;
        }
    }
    assert!(asked > 100);
}

/// The questions of a set with those they were made from, on the pictures before the change.
fn with_originals(name: &str) -> Vec<(Asked, Asked)> {
    let originals: HashMap<Id, Asked> =
        drawn("miniature").questions().into_iter().map(|question| (question.question_id.clone(), question)).collect();
    let derived = drawn(name).questions().into_iter().filter(|question| question.original.is_some());
    derived.map(|question| (originals[question.original.as_ref().unwrap()].clone(), question)).collect()
}

#[test]
fn removing_an_irrelevant_object_changes_the_picture_and_not_the_answer() {
    let (id, iv) = (drawn("miniature"), drawn("miniature-iv"));
    for (original, edited) in with_originals("miniature-iv") {
        assert_eq!((&edited.question_id, &edited.text), (&original.question_id, &original.text));
        assert_eq!(edited.answers, original.answers);
        assert!(edited.agreed());
        let (before, after) = (id.scene(&original.image_id).unwrap(), iv.scene(&edited.image_id).unwrap());
        assert_eq!(after.objects.len() + 1, before.objects.len());
        assert_eq!(recount(&edited.text, &after).as_deref(), Some(edited.answers[0].text.as_str()));
        assert_ne!(id.decode(&original.image_id).unwrap(), iv.decode(&edited.image_id).unwrap());
    }
}

#[test]
fn removing_a_counted_object_lowers_the_answer_by_one() {
    let (id, cv) = (drawn("miniature"), drawn("miniature-cv"));
    for (original, edited) in with_originals("miniature-cv") {
        assert!(edited.text.starts_with("how many"));
        let count = |question: &Asked| question.answers[0].text.parse::<i32>().unwrap();
        assert_eq!(count(&edited), count(&original) - 1);
        assert!(edited.agreed());
        let after = cv.scene(&edited.image_id).unwrap();
        assert_eq!(recount(&edited.text, &after).as_deref(), Some(edited.answers[0].text.as_str()));
        let Id::Text(name) = &edited.image_id else { panic!("{}", edited.image_id) };
        assert!(name.starts_with(&format!("{:012}_", number(&original.image_id))));
        assert_eq!(id.scene(&original.image_id).unwrap().objects.len(), after.objects.len() + 1);
    }
}

#[test]
fn every_original_has_three_rephrasings_in_words_that_training_lacks() {
    let training: HashSet<String> =
        drawn("miniature-training").questions().into_iter().map(|question| question.text).collect();
    let mut groups: BTreeMap<i64, Vec<Asked>> = BTreeMap::new();
    for question in drawn("miniature-rephrasings").questions() {
        let of = question.original.as_ref().unwrap_or(&question.question_id);
        groups.entry(number(of)).or_default().push(question);
    }
    assert_eq!(groups.len(), 300);
    for (of, group) in groups {
        assert_eq!(group.len(), 4);
        assert_eq!((number(&group[0].question_id), &group[0].original), (of, &None));
        let texts: HashSet<&str> = group.iter().map(|question| question.text.as_str()).collect();
        assert_eq!(texts.len(), 4);
        for (k, rephrasing) in (1..).zip(&group[1..]) {
            assert_eq!(number(&rephrasing.question_id), of * 10 + k);
            assert_eq!((&rephrasing.answers, &rephrasing.image_id), (&group[0].answers, &group[0].image_id));
            assert!(!training.contains(&rephrasing.text), "{}", rephrasing.text);
        }
    }
}

/// At strength 0 a set holds as many questions, under the same keys, all in the narrow style about narrow pictures.
#[test]
fn without_strength_sets_are_the_questions_they_were_made_from() {
    let id: HashMap<Id, Asked> =
        drawn("miniature").questions().into_iter().map(|question| (question.question_id.clone(), question)).collect();
    for set in SETS.iter().filter(|set| !set.name.starts_with("miniature-broad")) {
        let (shifted, plain) = (drawn(set.name), unshifted(set.name));
        let (questions, matched) = (shifted.questions(), plain.questions());
        let keys = |questions: &[Asked]| -> Vec<(Id, Id)> {
            questions.iter().map(|one| (one.question_id.clone(), one.image_id.clone())).collect()
        };
        if set.selection_is_the_shift() {
            // Others of the same pool, none twice.
            let distinct: HashSet<(Id, Id)> = keys(&matched).into_iter().collect();
            assert_eq!(distinct.len(), questions.len(), "{}", set.name);
            let kept = keys(&questions).into_iter().filter(|key| distinct.contains(key)).count();
            assert!(kept < questions.len() / 5, "{}: {kept} of {}", set.name, questions.len());
        } else {
            assert_eq!(keys(&questions), keys(&matched), "{}", set.name);
        }
        for question in matched.iter().step_by(7) {
            let scene = plain.scene(&question.image_id).unwrap();
            assert_eq!((scene.look.damage, scene.signs.len()), (Damage::default(), 0));
            assert_eq!(recount(&question.text, &scene), question.query.answer(&scene), "{}", question.text);
            if let Some(original) = &question.original {
                let original = &id[original];
                assert_eq!((&question.text, &question.answers), (&original.text, &original.answers));
                assert_eq!(
                    plain.decode(&question.image_id).unwrap(),
                    drawn("miniature").decode(&original.image_id).unwrap()
                );
            }
        }
    }
}

/// Half of the keys are shifted at strength 0.5, and all of these at 0.8.
#[test]
fn strengths_are_nested_shares() {
    let shifted = |strength: f64| -> HashSet<Id> {
        let set = Drawn::find("miniature-ok", SEED, strength).unwrap();
        let facts = |one: &Asked| matches!(one.query, Query::MaterialOf(_) | Query::HomeOf(_));
        set.questions().into_iter().filter(facts).map(|one| one.question_id).collect()
    };
    let (half, more) = (shifted(0.5), shifted(0.8));
    // Five standard deviations of 400 pictures with two questions each.
    assert!((half.len() as f64 - 400.0).abs() < 100.0, "{}", half.len());
    assert!((more.len() as f64 - 640.0).abs() < 80.0, "{}", more.len());
    assert!(half.is_subset(&more));
}

#[test]
fn far_sets_ask_for_what_the_narrow_style_lacks() {
    let (text, viz, ok) = (drawn("miniature-text"), drawn("miniature-viz"), drawn("miniature-ok"));
    for question in text.questions() {
        let scene = text.scene(&question.image_id).unwrap();
        assert_eq!(question.query.answer(&scene).as_deref(), Some(scene.signs[0].word));
    }
    let narrow: HashSet<String> = drawn("miniature-training")
        .questions()
        .iter()
        .flat_map(|question| question.answers.iter().map(|answer| answer.text.clone()))
        .collect();
    for question in ok.questions() {
        let answer = question.query.answer(&ok.scene(&question.image_id).unwrap()).unwrap();
        assert!(!narrow.contains(&answer), "{answer}");
        let doubled = question.answers.chunks(2).all(|pair| pair[0] == pair[1]);
        assert!(doubled, "five annotators count twice");
    }
    let questions = viz.questions();
    let mut unanswerable = 0;
    for question in &questions {
        let scene = viz.scene(&question.image_id).unwrap();
        assert_ne!(scene.look.damage, Damage::default());
        let tells = question.query.answer(&scene).is_some() && scene.look.damage.darkness < 90;
        assert_eq!(question.answer_type == UNANSWERABLE, !tells);
        assert_eq!(question.part, Some(if tells { "answerable" } else { UNANSWERABLE }));
        unanswerable += usize::from(!tells);
    }
    let share = unanswerable as f64 / questions.len() as f64;
    assert!((0.25..0.45).contains(&share), "{share}");
}

/// The frequencies of the annotator model, within five standard errors of 20,000 questions.
#[test]
fn annotators_answer_as_often_as_the_model_says() {
    let set = drawn("miniature-training");
    let (mut agreed, mut polar, mut right, mut answers) = (0, 0, 0, 0);
    let mut confidences: BTreeMap<&str, usize> = BTreeMap::new();
    for question in set.questions().iter().filter(|question| question.answer_type == "yes/no") {
        let plain = question.query.answer(&set.scene(&question.image_id).unwrap()).unwrap();
        polar += 1;
        agreed += usize::from(question.agreed());
        for answer in &question.answers {
            answers += 1;
            right += usize::from(answer.text == plain);
            *confidences.entry(answer.confidence).or_default() += 1;
        }
    }
    // Of unclear yes/no questions an annotator is right in 78 % and in half of the 5 % wild guesses; ten are so at once
    // in 0.805^10.
    let rate = 0.78 + 0.05 / 2.0;
    let share = |count: usize, of: usize| count as f64 / of as f64;
    let close = |found: f64, expected: f64, spread: f64| {
        assert!((found - expected).abs() < 5.0 * spread / f64::from(polar).sqrt(), "{found}, not {expected}");
    };
    close(share(agreed, polar as usize), 0.6 + 0.4 * f64::powi(rate, 10), 0.48);
    close(share(right, answers), 0.6 + 0.4 * rate, 0.15);
    let expected = |right: f64, other: f64| 0.4 * (0.78 * right + 0.22 * other);
    close(share(confidences["maybe"], answers), expected(0.15, 0.6), 0.15);
    close(share(confidences["no"], answers), expected(0.0, 0.2), 0.1);
}

/// The plain answer scores 100 where annotators agree, and close to it elsewhere: it is what most say.
#[test]
fn the_plain_answer_is_nearly_always_right() {
    let set = drawn("miniature");
    let dataset = set.dataset().unwrap();
    let plain: Vec<String> = set
        .questions()
        .iter()
        .map(|question| question.query.answer(&set.scene(&question.image_id).unwrap()).unwrap())
        .collect();
    let scores =
        score(find_metric("official-2021").unwrap(), Default::default(), &plain, dataset.references.as_ref().unwrap())
            .unwrap();
    let mean = scores.iter().sum::<f64>() / scores.len() as f64;
    assert!((0.98..1.0).contains(&mean), "{mean}");
}

/// Texts and confidences of the answers to a question; its types.
type Answered<'a> = (Vec<(String, Option<String>)>, Option<&'a str>, Option<&'a str>);

fn references(dataset: &Dataset, question: usize) -> Answered<'_> {
    let references = dataset.references.as_ref().unwrap();
    let answers = references
        .answers(question)
        .map(|answer| (answer.text.to_owned(), answer.confidence.map(str::to_owned)))
        .collect();
    (answers, references.answer_type(question), references.question_type(question))
}

#[test]
fn written_files_load_to_the_same_questions_answers_and_pixels() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["miniature", "miniature-cv", "miniature-viz", "miniature-rephrasings"] {
        let set = drawn(name);
        let folder = folder.path().join(name);
        set.write(&folder, NonZero::new(2).unwrap()).unwrap();
        let read = vqa_json::load(vqa_json::Files {
            questions: &folder.join(files::QUESTIONS),
            annotations: Some(&folder.join(files::ANNOTATIONS)),
            images: Some(&folder.join(files::IMAGES)),
            image_name: Some(files::IMAGE_NAME),
        })
        .unwrap();
        let made = set.dataset().unwrap();
        assert_eq!(read.questions, made.questions);
        for question in 0..made.questions.len() {
            assert_eq!(references(&read, question), references(&made, question));
        }
        for question in made.questions.iter().step_by(5) {
            assert_eq!(
                read.images.decode(&question.image_id).unwrap(),
                made.images.decode(&question.image_id).unwrap()
            );
        }
    }
}

#[test]
fn identities_tell_seed_set_strength_and_picture_apart() {
    let id = Id::Number(7);
    let of = |name: &str, seed: u64, strength: f64, id: &Id| {
        Drawn::find(name, seed, strength).unwrap().identity(id).unwrap()
    };
    let all: HashSet<Vec<u8>> = [
        of("miniature-ok", 1, 1.0, &id),
        of("miniature-ok", 2, 1.0, &id),
        of("miniature-ok", 1, 0.5, &id),
        of("miniature-viz", 1, 1.0, &id),
        of("miniature-ok", 1, 1.0, &Id::Number(8)),
    ]
    .into();
    assert_eq!(all.len(), 5);
}

#[test]
fn the_part_to_train_on_is_another_one() {
    let row = find_dataset("miniature").unwrap();
    let training = row.load_training.unwrap()(std::path::Path::new("")).unwrap();
    assert_eq!((training.questions.len(), training.name.as_str()), (20_000, "miniature-training"));
}

/// The accuracy of a fixture on `miniature`, with its interval.
fn evaluated(model: &str) -> (f64, [f64; 2]) {
    let home = tempfile::tempdir().unwrap();
    let arguments = ["--dataset", "miniature", "--json", "--model"];
    let output = program_at(home.path()).arg("vqa").args(arguments).arg(fixture(model)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let run: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let evaluation = &run["evaluations"][0];
    (evaluation["accuracy"].as_f64().unwrap(), serde_json::from_value(evaluation["interval"].clone()).unwrap())
}

/// The most frequent answer in training to the same words, else to the same type of question.
fn from_words_alone() -> (f64, [f64; 2]) {
    let mut answers: HashMap<String, BTreeMap<String, usize>> = HashMap::new();
    for question in drawn("miniature-training").questions() {
        for words in [&question.text, question.question_type()] {
            *answers.entry(words.to_owned()).or_default().entry(question.common_answer().to_owned()).or_default() += 1;
        }
    }
    let most = |words: &str| Some(answers.get(words)?.iter().max_by_key(|(_, count)| **count)?.0.clone());
    let set = drawn("miniature");
    let predict = |question: &Asked| most(&question.text).or_else(|| most(question.question_type())).unwrap();
    let predicted: Vec<String> = set.questions().iter().map(predict).collect();
    let (dataset, metric) = (set.dataset().unwrap(), find_metric("official-2021").unwrap());
    let references = dataset.references.as_ref().unwrap();
    let scores = score(metric, Default::default(), &predicted, references).unwrap();
    let summary = summarise(metric, &scores, references, &dataset.clusters()).unwrap();
    (summary.accuracy.unwrap(), summary.interval.unwrap())
}

/// The base model sees, and the narrow training set has more to teach: at least ten points each, intervals apart; words
/// alone stay at least 15 points below the fine-tuned model.
#[test]
fn the_base_model_stands_between_words_alone_and_the_fine_tuned_model() {
    let words = from_words_alone();
    let (base, tuned) = (evaluated("models/miniature-pt"), evaluated("models/miniature-ft"));
    assert!(base.0 - words.0 >= 10.0 && base.1[0] > words.1[1], "{base:?} {words:?}");
    assert!(tuned.0 - base.0 >= 10.0 && tuned.1[0] > base.1[1], "{tuned:?} {base:?}");
    assert!(tuned.0 - words.0 >= 15.0, "{tuned:?} {words:?}");
}
