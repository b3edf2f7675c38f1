//! How questions are worded: the few templates of the narrow style, those that it never uses, and the many of the
//! broad style.

use super::dice::Dice;
use super::queries::{Line, Query, QueryKind};
use super::scene::{Color, Shape, Size};

/// The templates of one kind of question. `{shape}`, `{shapes}`, `{other}`, `{others}`, `{color}`, `{size}`, `{side}`
/// and `{cell}` stand for what is asked.
struct Wording {
    kind: QueryKind,
    /// In the narrow style.
    narrow: &'static [&'static str],
    /// Rephrasings; the broad style has all but the first.
    held_out: &'static [&'static str],
    /// In the broad style alone.
    broad: &'static [&'static str],
}

static WORDINGS: &[Wording] = &[
    Wording {
        kind: QueryKind::ColorOf,
        narrow: &["what color is the {shape}?", "what is the color of the {shape}?"],
        held_out: &[
            "which paint covers the {shape}?",
            "can you name the hue of the {shape}?",
            "tell me which hue the {shape} has",
            "the {shape} shows which hue?",
        ],
        broad: &[
            "which color does the {shape} have?",
            "name the color of the {shape}",
            "which hue has the {shape}?",
            "tell me the color of the {shape}",
        ],
    },
    Wording {
        kind: QueryKind::ShapeOf,
        narrow: &["what shape is the {color} object?", "what is the shape of the {color} object?"],
        held_out: &[
            "which outline belongs to the {color} thing?",
            "can you name the form of the {color} thing?",
            "tell me which form the {color} item has",
            "the {color} item has which form?",
        ],
        broad: &[
            "which shape does the {color} thing have?",
            "name the {color} thing",
            "which form has the {color} item?",
            "tell me the shape of the {color} thing",
        ],
    },
    Wording {
        kind: QueryKind::CountShape,
        narrow: &["how many {shapes} are there?", "how many {shapes} are in the picture?"],
        held_out: &[
            "give the amount of {shapes}",
            "can you count the {shapes}?",
            "tell me the number of {shapes} shown",
            "which number of {shapes} do you see?",
        ],
        broad: &[
            "count the {shapes}",
            "number of {shapes}?",
            "tell me how often a {shape} appears",
            "which number of {shapes} does the image show?",
        ],
    },
    Wording {
        kind: QueryKind::CountColor,
        narrow: &["how many {color} objects are there?", "how many objects are {color}?"],
        held_out: &[
            "give the amount of {color} things",
            "can you count the {color} things?",
            "tell me the number of {color} things shown",
            "which number of {color} items do you see?",
        ],
        broad: &[
            "count the {color} things",
            "number of {color} items?",
            "tell me how often {color} appears",
            "which number of {color} things does the image show?",
        ],
    },
    Wording {
        kind: QueryKind::Exists,
        narrow: &["is there a {color} {shape}?", "is there a {color} {shape} in the picture?"],
        held_out: &[
            "would you find some {color} {shape} here?",
            "can you see a {color} {shape} in this scene?",
            "does this scene show a {color} {shape}?",
            "do you see any {color} {shape}?",
        ],
        broad: &[
            "can you see a {color} {shape}?",
            "does the image show a {color} {shape}?",
            "any {color} {shape} here?",
            "do you see a {color} {shape} in the image?",
        ],
    },
    Wording {
        kind: QueryKind::HasSize,
        narrow: &["is the {shape} {size}?", "is the {shape} a {size} one?"],
        held_out: &[
            "would you call the {shape} {size}?",
            "does the {shape} look {size}?",
            "do you see a {size} {shape} here?",
            "can you say that the {shape} looks {size}?",
        ],
        broad: &[
            "does this {shape} appear {size}?",
            "does the image show a {size} {shape}?",
            "any {size} {shape} here?",
        ],
    },
    Wording {
        kind: QueryKind::Next,
        narrow: &["what is {side} the {shape}?", "what shape is {side} the {shape}?"],
        held_out: &[
            "which thing sits {side} the {shape}?",
            "can you name the thing {side} the {shape}?",
            "tell me which form is {side} the {shape}",
            "{side} the {shape} you see which thing?",
        ],
        broad: &[
            "which thing is {side} the {shape}?",
            "name the thing {side} the {shape}",
            "tell me the shape {side} the {shape}",
            "which form appears {side} the {shape}?",
        ],
    },
    Wording {
        kind: QueryKind::Compare,
        narrow: &["is the {shape} {side} the {other}?", "is the {shape} somewhere {side} the {other}?"],
        held_out: &[
            "would you find the {shape} {side} the {other}?",
            "does the {shape} appear {side} the {other}?",
            "do you see the {shape} {side} the {other}?",
            "can you see the {shape} {side} the {other}?",
        ],
        broad: &["does the image show the {shape} {side} the {other}?", "does this {shape} appear {side} the {other}?"],
    },
    Wording {
        kind: QueryKind::In,
        narrow: &[],
        held_out: &[],
        broad: &["which thing is in {cell}?", "name the thing in {cell}", "tell me what is in {cell}"],
    },
    Wording {
        kind: QueryKind::Along,
        narrow: &[],
        held_out: &[],
        broad: &["describe {cell}", "list the things in {cell}", "which things are in {cell}?"],
    },
    Wording {
        kind: QueryKind::SignWord,
        narrow: &[],
        held_out: &[],
        broad: &[
            "what does the sign say?",
            "what word is on the sign?",
            "which word is on the sign?",
            "what is written on the sign?",
            "read the sign",
        ],
    },
    Wording {
        kind: QueryKind::Material,
        narrow: &[],
        held_out: &[],
        broad: &["what are {shapes} made of?", "which material is a {shape} made of?", "name the material of {shapes}"],
    },
    Wording {
        kind: QueryKind::Home,
        narrow: &[],
        held_out: &[],
        broad: &["where do {color} things come from?", "which place sends {color} things?", "name the home of {color}"],
    },
    Wording {
        kind: QueryKind::MaterialOf,
        narrow: &[],
        held_out: &[],
        broad: &[
            "what is the {color} object made of?",
            "which material is the {color} thing made of?",
            "name the material of the {color} thing",
        ],
    },
    Wording {
        kind: QueryKind::HomeOf,
        narrow: &[],
        held_out: &[],
        broad: &["where does the {shape} come from?", "which place sends the {shape}?", "name the home of the {shape}"],
    },
    Wording {
        kind: QueryKind::ColorNext,
        narrow: &[],
        held_out: &[],
        broad: &[
            "what color is the object {side} the {shape}?",
            "what is the color of the object {side} the {shape}?",
            "which color has the thing {side} the {shape}?",
        ],
    },
    Wording {
        kind: QueryKind::CountBoth,
        narrow: &[],
        held_out: &[],
        broad: &["how many {color} {shapes} are there?", "count the {color} {shapes}"],
    },
    Wording {
        kind: QueryKind::CountSize,
        narrow: &[],
        held_out: &[],
        broad: &["how many {size} {shapes} are there?", "count the {size} {shapes}"],
    },
    Wording {
        kind: QueryKind::More,
        narrow: &[],
        held_out: &[],
        broad: &["are there more {shapes} than {others}?", "do you see more {shapes} than {others}?"],
    },
    Wording {
        kind: QueryKind::CountOthers,
        narrow: &[],
        held_out: &[],
        broad: &["how many objects are not {color}?", "count the things that are not {color}"],
    },
];

/// Beginnings of questions by which VQAv2 sorts them, as far as they occur here; the longest one that fits counts.
const QUESTION_TYPES: &[&str] = &[
    "are there",
    "can you",
    "do you",
    "does the",
    "does this",
    "how many",
    "how many objects are",
    "is the",
    "is there a",
    "what",
    "what are",
    "what color is the",
    "what does the",
    "what is",
    "what is the",
    "what is the color of the",
    "what shape is",
    "where do",
    "where does the",
    "which",
];

/// The type of a question: the beginning that it shares with others.
pub(super) fn question_type(text: &str) -> &'static str {
    let fits = |kind: &&&str| text.strip_prefix(**kind).is_some_and(|rest| rest.starts_with([' ', '?']));
    QUESTION_TYPES.iter().filter(fits).max_by_key(|kind| kind.len()).copied().unwrap_or("none of the above")
}

/// A question in the narrow style; in the broad one where that has no words for it.
pub(super) fn narrow(query: Query, dice: &mut Dice) -> String {
    let wording = wording(query.kind());
    match dice.pick(wording.narrow) {
        Some(template) => fill(template, query, &Words::plain()),
        None => dice.pick(wording.broad).map_or_else(String::new, |template| fill(template, query, &Words::plain())),
    }
}

/// Rephrasings that the narrow style never uses, all different.
pub(super) fn rephrasings(query: Query, count: usize, dice: &mut Dice) -> Vec<String> {
    let templates = wording(query.kind()).held_out;
    let order = dice.order(templates.len());
    order.into_iter().take(count).map(|at| fill(templates[at], query, &Words::drawn(30, dice))).collect()
}

/// A question in the broad style.
pub(super) fn broad(query: Query, dice: &mut Dice) -> String {
    let wording = wording(query.kind());
    let known = wording.held_out.get(1..).unwrap_or(&[]);
    let templates: Vec<&str> = [wording.narrow, known, wording.broad].concat();
    dice.pick(&templates).map_or_else(String::new, |template| fill(template, query, &Words::drawn(15, dice)))
}

fn wording(kind: QueryKind) -> &'static Wording {
    // A test holds that every kind has its row.
    WORDINGS.iter().find(|wording| wording.kind == kind).unwrap_or(&WORDINGS[0])
}

/// Which names are used.
struct Words {
    shape: bool,
    size: bool,
}

impl Words {
    fn plain() -> Self {
        Self { shape: false, size: false }
    }

    /// The other names in a percentage of the questions.
    fn drawn(percentage: usize, dice: &mut Dice) -> Self {
        Self { shape: dice.percent(percentage), size: dice.percent(50) }
    }

    fn one(&self, shape: Shape) -> &'static str {
        if self.shape { shape.synonym() } else { shape.word() }
    }

    fn several(&self, shape: Shape) -> &'static str {
        if self.shape { shape.plural_synonym() } else { shape.plural() }
    }

    fn size(&self, size: Size) -> &'static str {
        if self.size { size.synonym() } else { size.word() }
    }
}

/// What a query names.
#[derive(Default)]
struct Named {
    shape: Option<Shape>,
    other: Option<Shape>,
    color: Option<Color>,
    size: Option<Size>,
    side: &'static str,
    cell: String,
}

fn named(query: Query) -> Named {
    let none = Named::default();
    match query {
        Query::ColorOf(shape) | Query::CountShape(shape) | Query::Material(shape) | Query::HomeOf(shape) => {
            Named { shape: Some(shape), ..none }
        }
        Query::ShapeOf(color)
        | Query::CountColor(color)
        | Query::Home(color)
        | Query::MaterialOf(color)
        | Query::CountOthers(color) => Named { color: Some(color), ..none },
        Query::Exists(color, shape) | Query::CountBoth(color, shape) => {
            Named { color: Some(color), shape: Some(shape), ..none }
        }
        Query::HasSize(shape, size) | Query::CountSize(size, shape) => {
            Named { shape: Some(shape), size: Some(size), ..none }
        }
        Query::Next(side, shape) | Query::ColorNext(side, shape) => {
            Named { shape: Some(shape), side: side.words(), ..none }
        }
        Query::Compare(side, shape, other) => {
            Named { shape: Some(shape), other: Some(other), side: side.words(), ..none }
        }
        Query::More(shape, other) => Named { shape: Some(shape), other: Some(other), ..none },
        Query::In(cell) => Named { cell: format!("row {}, column {}", cell.row + 1, cell.column + 1), ..none },
        Query::Along(Line::Row(row)) => Named { cell: format!("row {}", row + 1), ..none },
        Query::Along(Line::Column(column)) => Named { cell: format!("column {}", column + 1), ..none },
        Query::SignWord => none,
    }
}

fn fill(template: &str, query: Query, words: &Words) -> String {
    let Named { shape, other, color, size, side, cell } = named(query);
    template
        .replace("{shape}", shape.map_or("", |shape| words.one(shape)))
        .replace("{shapes}", shape.map_or("", |shape| words.several(shape)))
        .replace("{other}", other.map_or("", |shape| words.one(shape)))
        .replace("{others}", other.map_or("", |shape| words.several(shape)))
        .replace("{color}", color.map_or("", Color::word))
        .replace(" a orange", " an orange")
        .replace("{size}", size.map_or("", |size| words.size(size)))
        .replace("{side}", side)
        .replace("{cell}", &cell)
}
