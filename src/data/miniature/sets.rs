//! The sets of the world: which scenes, which questions, and what is shifted.
//!
//! Everything that belongs to one picture follows from (version, seed, branch of the set, key of the picture). A shifted
//! set starts from the narrow scene and the narrow questions of its key and changes them; with a strength below 1, only
//! that share of the keys is changed, and those that are changed at a strength are changed at every higher one.

use std::collections::HashSet;

use super::annotators::{Answer, Panel, answers};
use super::dice::Dice;
use super::queries::{Habits, Query, QueryKind, UNANSWERABLE};
use super::scene::{Damage, Scene};
use super::wording;
use crate::data::Id;
use crate::error::{Error, Result};
use crate::random::Random;

/// Version of the world: it changes with any image, question or answer.
pub const VERSION: u64 = 1;

/// One set of questions about pictures.
#[derive(Debug)]
pub struct Set {
    /// Its name.
    pub name: &'static str,
    /// The branch of random numbers that its pictures come from; sets that share it show the same pictures.
    branch: &'static str,
    /// Keys of its pictures: from 1 to this number.
    pictures: u32,
    /// Questions about each picture before the shift.
    each: usize,
    shift: Shift,
    /// The identifiers of the questions of a selected set, one a line. All questions where there is none.
    chosen: Option<&'static str>,
}

/// What is different from the narrow style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shift {
    /// Nothing.
    None,
    /// Scenes and questions of every kind.
    Broad,
    /// An object is taken away that the question is not about.
    IrrelevantRemoved,
    /// One of the counted objects is taken away.
    CountedRemoved,
    /// Questions in other words, after the original.
    Rephrased,
    /// Harder questions.
    Composite,
    /// Signs, and questions about their words.
    Signs,
    /// Bad photographs, and questions that cannot be answered.
    BadPhotographs,
    /// Questions about what no picture shows.
    Facts,
}

/// Every set. Those whose names end in `training` are the parts to train on; the two pools hold the candidates for
/// selected sets.
pub static SETS: &[Set] = &[
    set("miniature", "evaluation", 600, 4, Shift::None),
    set("miniature-training", "training", 5000, 4, Shift::None),
    set("miniature-iv", "evaluation", 400, 4, Shift::IrrelevantRemoved),
    set("miniature-cv", "evaluation", 600, 4, Shift::CountedRemoved),
    set("miniature-rephrasings", "evaluation", 300, 4, Shift::Rephrased),
    set("miniature-text", "signs", 700, 1, Shift::Signs),
    set("miniature-viz", "photographs", 400, 2, Shift::BadPhotographs),
    set("miniature-ok", "facts", 400, 2, Shift::Facts),
    set("miniature-broad", "broad-evaluation", 400, 3, Shift::Broad),
    set("miniature-broad-training", "broad", 60_000, 3, Shift::Broad),
    selected("miniature-cp", POOL, include_str!("selection/miniature-cp.txt")),
    selected("miniature-ce", POOL, include_str!("selection/miniature-ce.txt")),
    selected("miniature-adv", ADVERSARIAL_POOL, include_str!("selection/miniature-adv.txt")),
    POOL,
    ADVERSARIAL_POOL,
];

/// Candidates for sets that are selected from questions like those in training.
const POOL: Set = set("miniature-pool", "pool", 5000, 4, Shift::None);

/// Candidates for the set that models select.
const ADVERSARIAL_POOL: Set = set("miniature-adversarial-pool", "adversarial", 2000, 3, Shift::Composite);

const fn selected(name: &'static str, pool: Set, chosen: &'static str) -> Set {
    Set { name, chosen: Some(chosen), ..pool }
}

const fn set(name: &'static str, branch: &'static str, pictures: u32, each: usize, shift: Shift) -> Set {
    Set { name, branch, pictures, each, shift, chosen: None }
}

/// Kinds of questions in the narrow style, with weights.
const NARROW: [(QueryKind, usize); 8] = [
    (QueryKind::ColorOf, 22),
    (QueryKind::ShapeOf, 16),
    (QueryKind::CountShape, 18),
    (QueryKind::CountColor, 8),
    (QueryKind::Exists, 16),
    (QueryKind::HasSize, 7),
    (QueryKind::Next, 7),
    (QueryKind::Compare, 6),
];

/// Kinds of questions in the broad style, with weights.
const BROAD: [(QueryKind, usize); 19] = [
    (QueryKind::In, 8),
    (QueryKind::Along, 8),
    (QueryKind::ColorOf, 18),
    (QueryKind::ShapeOf, 9),
    (QueryKind::CountShape, 12),
    (QueryKind::CountColor, 7),
    (QueryKind::Exists, 9),
    (QueryKind::HasSize, 5),
    (QueryKind::Next, 6),
    (QueryKind::Compare, 4),
    (QueryKind::SignWord, 26),
    (QueryKind::Material, 1),
    (QueryKind::Home, 1),
    (QueryKind::MaterialOf, 4),
    (QueryKind::HomeOf, 4),
    (QueryKind::ColorNext, 2),
    (QueryKind::CountBoth, 1),
    (QueryKind::CountSize, 1),
    (QueryKind::More, 1),
];

/// Kinds of questions about patterns, with weights.
const PATTERN: [(QueryKind, usize); 4] =
    [(QueryKind::In, 40), (QueryKind::ColorOf, 30), (QueryKind::ShapeOf, 15), (QueryKind::Exists, 15)];

/// Kinds of harder questions, with weights.
const COMPOSITE: [(QueryKind, usize); 6] = [
    (QueryKind::ColorNext, 25),
    (QueryKind::Next, 20),
    (QueryKind::CountBoth, 15),
    (QueryKind::CountSize, 15),
    (QueryKind::More, 15),
    (QueryKind::CountOthers, 10),
];

const FACTS: [(QueryKind, usize); 2] = [(QueryKind::MaterialOf, 50), (QueryKind::HomeOf, 50)];
const SIGNS: [(QueryKind, usize); 1] = [(QueryKind::SignWord, 1)];
const ABSENT: [(QueryKind, usize); 2] = [(QueryKind::ColorOf, 50), (QueryKind::ShapeOf, 50)];

/// How often a question of a kind is drawn before a picture gets no more questions.
const ATTEMPTS: usize = 60;

/// Questions are numbered by ten times the key of their picture plus their position.
const NUMBERS: u32 = 10;

/// A question with its answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Its identifier: ten times the key of the picture plus its position, or for a rephrasing ten times the
    /// identifier of its original plus its number.
    pub question_id: Id,
    /// The picture.
    pub image_id: Id,
    /// What is asked.
    pub query: Query,
    /// How it is asked.
    pub text: String,
    /// `yes/no`, `number`, `other` or `unanswerable`.
    pub answer_type: &'static str,
    /// The ten answers.
    pub answers: Vec<Answer>,
    /// The question that this one was made from by a change of picture or words.
    pub original: Option<Id>,
    /// The part of the set that it belongs to, where the set has parts.
    pub part: Option<&'static str>,
}

impl Asked {
    /// The beginning that it shares with other questions.
    pub fn question_type(&self) -> &'static str {
        wording::question_type(&self.text)
    }

    /// Whether the ten answers are the same.
    pub fn agreed(&self) -> bool {
        self.answers.iter().all(|answer| answer.text == self.answers[0].text)
    }

    /// The most frequent answer; of several the first.
    pub fn common_answer(&self) -> &str {
        let count = |text: &str| self.answers.iter().filter(|answer| answer.text == text).count();
        let most = self.answers.iter().rev().max_by_key(|answer| count(&answer.text));
        most.map_or("", |answer| answer.text.as_str())
    }
}

/// A set with the numbers that make it.
#[derive(Debug, Clone, Copy)]
pub struct Drawn {
    /// The set.
    pub set: &'static Set,
    /// The seed of the world.
    pub seed: u64,
    /// The share of the keys that is shifted, from 0 to 1.
    pub strength: f64,
}

/// A picture before it is drawn.
pub(super) struct Picture {
    pub scene: Scene,
    /// Decides noise and bars.
    pub random: Random,
}

/// What a key of a set stands for.
struct Page {
    picture: Picture,
    questions: Vec<Asked>,
}

impl Set {
    /// Whether the set is shifted by which questions of a pool it has, and by nothing else.
    pub fn selection_is_the_shift(&self) -> bool {
        self.is_selected() && self.shift == Shift::None
    }

    /// Whether the set has some questions of a pool, by a list.
    pub fn is_selected(&self) -> bool {
        self.chosen.is_some()
    }
}

impl Drawn {
    /// Every question of the set, in the order of the pictures' keys or of its list.
    pub fn questions(&self) -> Vec<Asked> {
        match self.set.chosen {
            None => (1..=self.set.pictures).flat_map(|key| self.questions_of(key)).collect(),
            Some(list) => self.chosen(list),
        }
    }

    /// The questions of a list. Where the list alone is the shift, a question that is not shifted is any other one of
    /// the pool.
    fn chosen(&self, list: &'static str) -> Vec<Asked> {
        let numbers = || list.lines().filter_map(|line| line.parse::<u32>().ok());
        if !self.set.selection_is_the_shift() {
            return numbers().filter_map(|number| self.question(number)).collect();
        }
        let random = Random::new(self.seed).name("miniature").number(VERSION).name(self.set.name);
        let is_kept = |number: u32| self.is_shifted(random.number(number.into()));
        let kept: HashSet<u32> = numbers().filter(|number| is_kept(*number)).collect();
        let count = self.set.pictures as usize * self.set.each;
        let numbered = |at: u32| (1 + at / self.set.each as u32) * NUMBERS + at % self.set.each as u32;
        let order = random.name("others").permutation(if kept.len() < numbers().count() { count } else { 0 });
        let mut others = order.into_iter().map(numbered).filter(|number| !kept.contains(number));
        let select = |number| {
            let number = if is_kept(number) { number } else { others.next()? };
            self.question(number)
        };
        numbers().filter_map(select).collect()
    }

    /// The question of this number.
    fn question(&self, number: u32) -> Option<Asked> {
        let (key, position) = (number / NUMBERS, (number % NUMBERS) as usize);
        self.questions_of(key).into_iter().nth(position)
    }

    /// The part of a question in a set that tells which ones can be answered.
    fn part(&self, answerable: bool) -> Option<&'static str> {
        let part = if answerable { "answerable" } else { UNANSWERABLE };
        (self.set.shift == Shift::BadPhotographs).then_some(part)
    }

    /// What a picture shows.
    ///
    /// # Errors
    /// There is no such picture.
    pub fn scene(&self, image_id: &Id) -> Result<Scene> {
        Ok(self.picture(image_id)?.scene)
    }

    fn random(&self, key: u32) -> Random {
        Random::new(self.seed).name("miniature").number(VERSION).name(self.set.branch).number(key.into())
    }

    fn is_shifted(&self, random: Random) -> bool {
        random.name("shift").uniform(0) < self.strength
    }

    /// The picture of this identifier.
    pub(super) fn picture(&self, image_id: &Id) -> Result<Picture> {
        let unknown = || {
            Error::input(format!("`{}` has no image {}", self.set.name, image_id.to_json()))
                .hint("the images of a set are those that its questions name")
        };
        match image_id {
            Id::Number(key) => {
                let key = u32::try_from(*key).ok().filter(|key| (1..=self.set.pictures).contains(key));
                Ok(self.page(key.ok_or_else(unknown)?).picture)
            }
            Id::Text(text) => {
                let (key, object) = edited(text).ok_or_else(unknown)?;
                let edits = matches!(self.set.shift, Shift::IrrelevantRemoved | Shift::CountedRemoved);
                if !edits || !(1..=self.set.pictures).contains(&key) {
                    return Err(unknown());
                }
                let Picture { scene, random } = self.page(key).picture;
                let removed = object.checked_sub(1).filter(|removed| *removed < scene.objects.len());
                let removed = removed.ok_or_else(unknown)?;
                let scene = if self.removes(key, object) { scene.without(removed) } else { scene };
                Ok(Picture { scene, random })
            }
        }
    }

    fn questions_of(&self, key: u32) -> Vec<Asked> {
        match self.set.shift {
            Shift::IrrelevantRemoved => self.irrelevant_removed(key),
            Shift::CountedRemoved => self.counted_removed(key),
            Shift::Rephrased => self.rephrased(key),
            _ => self.page(key).questions,
        }
    }

    /// The picture of a key and the questions about it, before objects are removed or words changed.
    fn page(&self, key: u32) -> Page {
        let random = self.random(key);
        if self.set.shift == Shift::Broad {
            return self.broad_page(key);
        }
        let mut page = self.narrow_page(key);
        if self.is_shifted(random) {
            self.shift(key, &mut page);
        }
        page
    }

    fn narrow_page(&self, key: u32) -> Page {
        let random = self.random(key);
        let scene = Scene::narrow(&mut Dice::new(random.name("scene")));
        let mut dice = Dice::new(random.name("questions"));
        let queries = draw(&scene, &NARROW, self.set.each, Habits::NARROW, &mut dice);
        let ask = |(position, query)| self.ask(key, position, query, &scene, Panel::Ten, wording::narrow);
        let questions = (0..).zip(queries).map(ask).collect();
        Page { picture: Picture { scene, random }, questions }
    }

    fn broad_page(&self, key: u32) -> Page {
        let random = self.random(key);
        let mut dice = Dice::new(random.name("scene"));
        let mut scene = Scene::broad(&mut dice);
        let nothing_to_see = dice.below(60) == 0;
        let mut dice = Dice::new(random.name("questions"));
        let mut queries = if scene.is_pattern() {
            draw(&scene, &PATTERN, self.set.each, Habits::BROAD, &mut dice)
        } else if scene.objects.is_empty() {
            draw(&scene, &SIGNS, self.set.each, Habits::BROAD, &mut dice)
        } else {
            draw(&scene, &BROAD, self.set.each, Habits::BROAD, &mut dice)
        };
        if dice.percent(6)
            && let (Some(last), [query]) = (queries.last_mut(), absent(&scene, 1, &mut dice).as_slice())
        {
            *last = *query;
        }
        let ask = |(position, query)| self.ask(key, position, query, &scene, Panel::Agreed, wording::broad);
        let mut questions: Vec<Asked> = (0..).zip(queries).map(ask).collect();
        if nothing_to_see {
            scene.look.damage = Damage::total(&mut dice);
            for question in &mut questions {
                self.make_unanswerable(question, key, Panel::Agreed);
            }
        }
        Page { picture: Picture { scene, random }, questions }
    }

    fn shift(&self, key: u32, page: &mut Page) {
        let random = self.random(key);
        let mut dice = Dice::new(random.name("shifted"));
        let scene = &mut page.picture.scene;
        let count = page.questions.len();
        let mut replace = |scene: &Scene, queries: Vec<Query>, panel| {
            let ask = |(position, query)| self.ask(key, position, query, scene, panel, wording::broad);
            page.questions = (0..).zip(queries).map(ask).collect();
        };
        match self.set.shift {
            Shift::Signs => {
                scene.add_sign(&mut dice);
                replace(scene, draw(scene, &SIGNS, count, Habits::BROAD, &mut dice), Panel::Ten);
            }
            Shift::Facts => {
                replace(scene, draw(scene, &FACTS, count, Habits::BROAD, &mut dice), Panel::FiveTwice);
            }
            Shift::Composite => {
                replace(scene, draw(scene, &COMPOSITE, count, Habits::BROAD, &mut dice), Panel::Ten);
            }
            Shift::BadPhotographs => self.spoil(key, page, &mut dice),
            _ => {}
        }
    }

    /// Damages a picture, and makes about a third of the questions unanswerable: nothing can be seen, or what they ask
    /// about is not there.
    fn spoil(&self, key: u32, page: &mut Page, dice: &mut Dice) {
        let scene = &mut page.picture.scene;
        if dice.percent(20) {
            scene.look.damage = Damage::total(dice);
            for question in &mut page.questions {
                self.make_unanswerable(question, key, Panel::Ten);
            }
            return;
        }
        scene.look.damage = Damage::strong(dice);
        for (position, question) in (0..).zip(&mut page.questions) {
            if dice.percent(20)
                && let [query] = absent(scene, 1, dice).as_slice()
            {
                *question = self.ask(key, position, *query, scene, Panel::Ten, wording::narrow);
            }
        }
    }

    /// A question with its answers; one without an answer is unanswerable.
    fn ask(
        &self,
        key: u32,
        position: u32,
        query: Query,
        scene: &Scene,
        panel: Panel,
        words: fn(Query, &mut Dice) -> String,
    ) -> Asked {
        let number = key * NUMBERS + position;
        let random = self.random(key).name("question").number(position.into());
        let plain = query.answer(scene);
        let given = plain.as_deref().unwrap_or(UNANSWERABLE);
        Asked {
            question_id: Id::Number(number.into()),
            image_id: Id::Number(key.into()),
            query,
            text: words(query, &mut Dice::new(random.name("words"))),
            answer_type: if plain.is_some() { query.answer_type() } else { UNANSWERABLE },
            answers: answers(given, panel, &mut Dice::new(random.name("answers"))),
            original: None,
            part: self.part(plain.is_some()),
        }
    }

    fn make_unanswerable(&self, question: &mut Asked, key: u32, panel: Panel) {
        let random = self.random(key).name("unanswerable").name(&question.text);
        question.answer_type = UNANSWERABLE;
        question.part = self.part(false);
        question.answers = answers(UNANSWERABLE, panel, &mut Dice::new(random));
    }

    /// Whether this edit of a picture is made at the set's strength.
    fn removes(&self, key: u32, object: usize) -> bool {
        self.is_shifted(self.random(key).name("object").number(object as u64))
    }

    /// Questions that everybody answers alike, each with up to one object taken away that it is not about.
    fn irrelevant_removed(&self, key: u32) -> Vec<Asked> {
        let Page { picture: Picture { scene, random }, questions } = self.page(key);
        let mut edits = Vec::new();
        for (position, question) in (0..).zip(questions.into_iter().filter(Asked::agreed)) {
            let mut dice = Dice::new(random.name("irrelevant").number(position));
            let answer = question.query.answer(&scene);
            let is_irrelevant = |removed: &usize| {
                !question.query.concerns(&scene, &scene.objects[*removed])
                    && question.query.answer(&scene.without(*removed)) == answer
            };
            let irrelevant: Vec<usize> = (0..scene.objects.len()).filter(is_irrelevant).collect();
            if let Some(removed) = dice.pick(&irrelevant) {
                edits.push(Asked { image_id: edited_id(key, removed + 1), ..question.clone() }.derived(&question));
            }
        }
        edits
    }

    /// Questions for a number that everybody answers alike, once for each counted object, which is taken away.
    fn counted_removed(&self, key: u32) -> Vec<Asked> {
        let Page { picture: Picture { scene, .. }, questions } = self.page(key);
        let mut edits = Vec::new();
        for question in questions.into_iter().filter(|question| question.agreed()) {
            for (removed, _) in scene.objects.iter().enumerate().filter(|(_, object)| question.query.counts(object)) {
                let object = removed + 1;
                let mut edit = Asked { image_id: edited_id(key, object), ..question.clone() }.derived(&question);
                if self.removes(key, object) {
                    for answer in &mut edit.answers {
                        let fewer = answer.text.parse::<u32>().ok().and_then(|number| number.checked_sub(1));
                        answer.text = fewer.map_or_else(|| answer.text.clone(), |number| number.to_string());
                    }
                }
                edits.push(edit);
            }
        }
        edits
    }

    /// The first question about a picture and its three rephrasings.
    fn rephrased(&self, key: u32) -> Vec<Asked> {
        let page = self.page(key);
        let random = page.picture.random;
        let Some(original) = page.questions.into_iter().next() else { return Vec::new() };
        let texts = wording::rephrasings(original.query, REPHRASINGS, &mut Dice::new(random.name("rephrasings")));
        let mut questions = vec![original.clone()];
        for (number, text) in (1..).zip(texts) {
            let Id::Number(of) = original.question_id else { continue };
            let shifted = self.is_shifted(random.name("rephrasing").number(number));
            let text = if shifted { text } else { original.text.clone() };
            let question_id = Id::Number(of * i64::from(NUMBERS) + number as i64);
            questions.push(Asked { question_id, text, ..original.clone() }.derived(&original));
        }
        questions
    }
}

/// Rephrasings of each question.
const REPHRASINGS: usize = 3;

impl Asked {
    fn derived(mut self, original: &Self) -> Self {
        self.original = Some(original.question_id.clone());
        self
    }
}

/// The identifier of a picture with one object less, as IV-VQA and CV-VQA write it.
fn edited_id(key: u32, object: usize) -> Id {
    Id::Text(format!("{key:012}_{object}").into())
}

/// Key and object of such an identifier.
fn edited(text: &str) -> Option<(u32, usize)> {
    let (key, object) = text.split_once('_')?;
    let (key, object): (u32, usize) = (key.parse().ok()?, object.parse().ok()?);
    (edited_id(key, object) == Id::Text(text.into())).then_some((key, object))
}

/// Different questions of these kinds; fewer where the scene has no more.
fn draw<const N: usize>(
    scene: &Scene,
    kinds: &[(QueryKind, usize); N],
    count: usize,
    habits: Habits,
    dice: &mut Dice,
) -> Vec<Query> {
    let mut queries = Vec::with_capacity(count);
    for _ in 0..ATTEMPTS {
        if queries.len() < count
            && let Some(query) = dice.weighted(kinds).draw(scene, habits, dice)
            && !queries.contains(&query)
        {
            queries.push(query);
        }
    }
    queries
}

/// Questions about objects that are not there.
fn absent(scene: &Scene, count: usize, dice: &mut Dice) -> Vec<Query> {
    let drawn = (0..count).filter_map(|_| dice.weighted(&ABSENT).draw_unanswerable(scene, dice));
    drawn.collect()
}
