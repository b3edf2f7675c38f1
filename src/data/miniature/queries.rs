//! What can be asked about a scene, and what the answer is.

use super::dice::Dice;
use super::scene::{Cell, Color, GRID, Object, SIGN_WORDS, Scene, Shape, Size};

/// A direction in the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Side {
    Left,
    Right,
    Above,
    Below,
}

impl Side {
    /// Every direction.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Above, Self::Below];

    /// How it is said.
    pub fn words(self) -> &'static str {
        ["left of", "right of", "above", "below"][self as usize]
    }

    /// The neighbouring cell on this side.
    fn of(self, cell: Cell) -> Option<Cell> {
        let (down, right) = [(0, -1), (0, 1), (-1, 0), (1, 0)][self as usize];
        let (row, column) = (cell.row.checked_add_signed(down)?, cell.column.checked_add_signed(right)?);
        (row < GRID && column < GRID).then_some(Cell { row, column })
    }

    /// Whether the first cell lies on this side of the second; none where they are level.
    fn compare(self, one: Cell, other: Cell) -> Option<bool> {
        let (one, other) = match self {
            Self::Left | Self::Right => (one.column, other.column),
            Self::Above | Self::Below => (one.row, other.row),
        };
        let before = matches!(self, Self::Left | Self::Above);
        (one != other).then_some((one < other) == before)
    }
}

/// A line of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Line {
    Row(u8),
    Column(u8),
}

/// A question without its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Query {
    /// The colour of the object, or of all objects, of this shape.
    ColorOf(Shape),
    /// The shape of the object, or of all objects, of this colour.
    ShapeOf(Color),
    /// The number of objects of this shape.
    CountShape(Shape),
    /// The number of objects of this colour.
    CountColor(Color),
    /// Whether there is an object of this colour and shape.
    Exists(Color, Shape),
    /// Whether the only object of this shape has this size.
    HasSize(Shape, Size),
    /// The shape of the object in the cell next to the only one of this shape.
    Next(Side, Shape),
    /// Whether the only object of the first shape lies on this side of the only one of the second.
    Compare(Side, Shape, Shape),
    /// What is in a cell.
    In(Cell),
    /// What is in a row or column.
    Along(Line),
    /// The word on the sign, or on all signs.
    SignWord,
    /// What objects of this shape are made of; the picture does not matter.
    Material(Shape),
    /// Where objects of this colour come from; the picture does not matter.
    Home(Color),
    /// What the only object of this colour is made of.
    MaterialOf(Color),
    /// Where the only object of this shape comes from.
    HomeOf(Shape),
    /// The colour of the object in the cell next to the only one of this shape.
    ColorNext(Side, Shape),
    /// The number of objects of this colour and shape.
    CountBoth(Color, Shape),
    /// The number of objects of this size and shape.
    CountSize(Size, Shape),
    /// Whether there are more objects of the first shape than of the second.
    More(Shape, Shape),
    /// The number of objects of another colour.
    CountOthers(Color),
}

/// The kind of a [`Query`], which decides how it is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are those of `Query`")]
pub enum QueryKind {
    ColorOf,
    ShapeOf,
    CountShape,
    CountColor,
    Exists,
    HasSize,
    Next,
    Compare,
    In,
    Along,
    SignWord,
    Material,
    Home,
    MaterialOf,
    HomeOf,
    ColorNext,
    CountBoth,
    CountSize,
    More,
    CountOthers,
}

/// The answer where a picture does not tell.
pub const UNANSWERABLE: &str = "unanswerable";

impl Query {
    /// Its kind.
    pub fn kind(self) -> QueryKind {
        match self {
            Self::ColorOf(..) => QueryKind::ColorOf,
            Self::ShapeOf(..) => QueryKind::ShapeOf,
            Self::CountShape(..) => QueryKind::CountShape,
            Self::CountColor(..) => QueryKind::CountColor,
            Self::Exists(..) => QueryKind::Exists,
            Self::HasSize(..) => QueryKind::HasSize,
            Self::Next(..) => QueryKind::Next,
            Self::Compare(..) => QueryKind::Compare,
            Self::In(..) => QueryKind::In,
            Self::Along(..) => QueryKind::Along,
            Self::SignWord => QueryKind::SignWord,
            Self::Material(..) => QueryKind::Material,
            Self::Home(..) => QueryKind::Home,
            Self::MaterialOf(..) => QueryKind::MaterialOf,
            Self::HomeOf(..) => QueryKind::HomeOf,
            Self::ColorNext(..) => QueryKind::ColorNext,
            Self::CountBoth(..) => QueryKind::CountBoth,
            Self::CountSize(..) => QueryKind::CountSize,
            Self::More(..) => QueryKind::More,
            Self::CountOthers(..) => QueryKind::CountOthers,
        }
    }

    /// The answer; none where the scene has none or several.
    pub fn answer(self, scene: &Scene) -> Option<String> {
        let only = |condition: &dyn Fn(&Object) -> bool| only(scene, condition);
        let count = |condition: &dyn Fn(&Object) -> bool| scene.objects.iter().filter(|one| condition(one)).count();
        let number = |count: usize| Some(count.to_string());
        let word = |word: &str| Some(word.to_owned());
        let truth = |holds: bool| Some(if holds { "yes" } else { "no" }.to_owned());
        match self {
            Self::ColorOf(shape) => {
                word(shared(scene.objects.iter().filter(|one| one.shape == shape).map(|one| one.color))?.word())
            }
            Self::ShapeOf(color) => {
                word(shared(scene.objects.iter().filter(|one| one.color == color).map(|one| one.shape))?.word())
            }
            Self::CountShape(shape) => number(count(&|one| one.shape == shape)),
            Self::CountColor(color) => number(count(&|one| one.color == color)),
            Self::Exists(color, shape) => truth(count(&|one| one.color == color && one.shape == shape) > 0),
            Self::HasSize(shape, size) => truth(only(&|one| one.shape == shape)?.size == size),
            Self::Next(side, shape) => word(next_to(scene, side, shape)?.shape.word()),
            Self::Compare(side, shape, other) => {
                let (one, other) = (only(&|one| one.shape == shape)?, only(&|one| one.shape == other)?);
                truth(side.compare(one.cell, other.cell)?)
            }
            Self::In(cell) => Some(content(scene, cell, true).unwrap_or_else(|| "nothing".to_owned())),
            Self::Along(line) => Some(listed(scene, line)),
            Self::SignWord => word(shared(scene.signs.iter().map(|sign| sign.word))?),
            Self::Material(shape) => word(shape.material()),
            Self::Home(color) => word(color.home()),
            Self::MaterialOf(color) => word(only(&|one| one.color == color)?.shape.material()),
            Self::HomeOf(shape) => word(only(&|one| one.shape == shape)?.color.home()),
            Self::ColorNext(side, shape) => word(next_to(scene, side, shape)?.color.word()),
            Self::CountBoth(color, shape) => number(count(&|one| one.color == color && one.shape == shape)),
            Self::CountSize(size, shape) => number(count(&|one| one.size == size && one.shape == shape)),
            Self::More(shape, other) => truth(count(&|one| one.shape == shape) > count(&|one| one.shape == other)),
            Self::CountOthers(color) => number(count(&|one| one.color != color)),
        }
    }

    /// Whether the answer rests on this object: it is named, counted or compared, or is the answer.
    pub fn concerns(self, scene: &Scene, object: &Object) -> bool {
        match self {
            Self::ColorOf(shape) | Self::HasSize(shape, _) | Self::HomeOf(shape) | Self::CountShape(shape) => {
                object.shape == shape
            }
            Self::ShapeOf(color) | Self::CountColor(color) | Self::MaterialOf(color) => object.color == color,
            Self::Exists(color, shape) | Self::CountBoth(color, shape) => {
                object.color == color || object.shape == shape
            }
            Self::CountSize(_, shape) => object.shape == shape,
            Self::Next(side, shape) | Self::ColorNext(side, shape) => {
                object.shape == shape || next_to(scene, side, shape).is_some_and(|next| next.cell == object.cell)
            }
            Self::Compare(_, shape, other) | Self::More(shape, other) => object.shape == shape || object.shape == other,
            Self::In(cell) => object.cell == cell,
            Self::Along(Line::Row(row)) => object.cell.row == row,
            Self::Along(Line::Column(column)) => object.cell.column == column,
            Self::CountOthers(_) => true,
            Self::SignWord | Self::Material(_) | Self::Home(_) => false,
        }
    }

    /// Whether the answer is the number of objects that meet a condition, and this is one of them.
    pub fn counts(self, object: &Object) -> bool {
        match self {
            Self::CountShape(shape) => object.shape == shape,
            Self::CountColor(color) => object.color == color,
            Self::CountBoth(color, shape) => object.color == color && object.shape == shape,
            Self::CountSize(size, shape) => object.size == size && object.shape == shape,
            Self::CountOthers(color) => object.color != color,
            _ => false,
        }
    }

    /// `yes/no`, `number` or `other`.
    pub fn answer_type(self) -> &'static str {
        match self.kind() {
            QueryKind::Exists | QueryKind::HasSize | QueryKind::Compare | QueryKind::More => "yes/no",
            QueryKind::CountShape
            | QueryKind::CountColor
            | QueryKind::CountBoth
            | QueryKind::CountSize
            | QueryKind::CountOthers => "number",
            _ => "other",
        }
    }
}

fn only<'a>(scene: &'a Scene, condition: &dyn Fn(&Object) -> bool) -> Option<&'a Object> {
    let mut found = scene.objects.iter().filter(|object| condition(object));
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// What all have in common.
fn shared<T: PartialEq>(mut all: impl Iterator<Item = T>) -> Option<T> {
    let first = all.next()?;
    all.all(|one| one == first).then_some(first)
}

fn next_to(scene: &Scene, side: Side, shape: Shape) -> Option<&Object> {
    scene.object_in(side.of(only(scene, &|object| object.shape == shape)?.cell)?)
}

/// What a cell shows, such as `large red square`.
fn content(scene: &Scene, cell: Cell, with_size: bool) -> Option<String> {
    if let Some(Object { shape, color, size, .. }) = scene.object_in(cell) {
        let size = if with_size { size.word().to_owned() + " " } else { String::new() };
        return Some(format!("{size}{} {}", color.word(), shape.word()));
    }
    scene.signs.iter().find(|sign| sign.cell == cell).map(|sign| format!("sign {}", sign.word))
}

fn listed(scene: &Scene, line: Line) -> String {
    let cells = (0..GRID).map(|at| match line {
        Line::Row(row) => Cell { row, column: at },
        Line::Column(column) => Cell { row: at, column },
    });
    let shown: Vec<String> = cells.filter_map(|cell| content(scene, cell, false)).collect();
    if shown.is_empty() { "nothing".to_owned() } else { shown.join(", ") }
}

/// How often the asker expects what, in percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Habits {
    /// Questions for an object that are answered by yes.
    pub yes: usize,
    /// Questions for a number that name what is not there.
    pub absent: usize,
    /// Questions for a size that ask for large.
    pub large: usize,
}

impl Habits {
    /// Those of the narrow style.
    pub(super) const NARROW: Self = Self { yes: 57, absent: 10, large: 70 };
    /// Those of the broad style.
    pub(super) const BROAD: Self = Self { yes: 50, absent: 15, large: 50 };
}

impl QueryKind {
    /// A question of this kind that the scene answers.
    pub(super) fn draw(self, scene: &Scene, habits: Habits, dice: &mut Dice) -> Option<Query> {
        let once: Vec<Shape> =
            Shape::ALL.into_iter().filter(|shape| only(scene, &|one| one.shape == *shape).is_some()).collect();
        let once_colored: Vec<Color> =
            Color::ALL.into_iter().filter(|color| only(scene, &|one| one.color == *color).is_some()).collect();
        let query = match self {
            Self::ColorOf if scene.is_pattern() => Query::ColorOf(dice.pick(&scene.objects)?.shape),
            Self::ShapeOf if scene.is_pattern() => Query::ShapeOf(dice.pick(&scene.objects)?.color),
            Self::ColorOf => Query::ColorOf(dice.pick(&once)?),
            Self::ShapeOf => Query::ShapeOf(dice.pick(&once_colored)?),
            Self::CountShape => Query::CountShape(counted_shape(scene, habits, dice)?),
            Self::CountColor => Query::CountColor(counted_color(scene, habits, dice)?),
            Self::Exists => exists(scene, habits, dice)?,
            Self::HasSize => {
                let size = if dice.percent(habits.large) { Size::Large } else { Size::Small };
                Query::HasSize(dice.pick(&once)?, size)
            }
            Self::Next | Self::ColorNext => {
                let sides = Side::ALL.into_iter().flat_map(|side| once.iter().map(move |shape| (side, *shape)));
                let sides: Vec<(Side, Shape)> =
                    sides.filter(|(side, shape)| next_to(scene, *side, *shape).is_some()).collect();
                let (side, shape) = dice.pick(&sides)?;
                if self == Self::Next { Query::Next(side, shape) } else { Query::ColorNext(side, shape) }
            }
            Self::Compare => {
                let order = dice.order(once.len());
                let [one, other, ..] = order.as_slice() else { return None };
                let (one, other) = (once[*one], once[*other]);
                let side = dice.one_of(&Side::ALL);
                let query = Query::Compare(side, one, other);
                // The asker names what is there in its order more often than not.
                match query.answer(scene)?.as_str() {
                    "no" if dice.percent(2 * habits.yes - 100) => Query::Compare(side, other, one),
                    _ => query,
                }
            }
            Self::In => {
                // Seven in ten are picked among the cells that hold something.
                let shown: Vec<Cell> = scene.objects.iter().map(|object| object.cell).collect();
                let any = Cell { row: dice.below(GRID.into()) as u8, column: dice.below(GRID.into()) as u8 };
                Query::In(if dice.percent(70) { dice.pick(&shown)? } else { any })
            }
            Self::Along => {
                let at = dice.below(GRID.into()) as u8;
                Query::Along(if dice.percent(60) { Line::Row(at) } else { Line::Column(at) })
            }
            Self::SignWord => Query::SignWord,
            Self::Material => Query::Material(dice.one_of(&Shape::ALL)),
            Self::Home => Query::Home(dice.one_of(&Color::ALL)),
            Self::MaterialOf => Query::MaterialOf(dice.pick(&once_colored)?),
            Self::HomeOf => Query::HomeOf(dice.pick(&once)?),
            Self::CountBoth => {
                let Object { color, shape, .. } = dice.pick(&scene.objects)?;
                let near = if dice.percent(50) { dice.one_of(&Color::ALL) } else { color };
                Query::CountBoth(near, shape)
            }
            Self::CountSize => Query::CountSize(dice.one_of(&Size::ALL), dice.pick(&scene.objects)?.shape),
            Self::More => {
                let (one, other) = (dice.pick(&scene.objects)?.shape, dice.one_of(&Shape::ALL));
                let (one, other) = if dice.percent(50) { (one, other) } else { (other, one) };
                (one != other).then_some(Query::More(one, other))?
            }
            Self::CountOthers => Query::CountOthers(dice.pick(&scene.objects)?.color),
        };
        query.answer(scene).is_some().then_some(query)
    }

    /// A question of this kind about an object that is not there.
    pub(super) fn draw_unanswerable(self, scene: &Scene, dice: &mut Dice) -> Option<Query> {
        let absent: Vec<Shape> =
            Shape::ALL.into_iter().filter(|shape| scene.objects.iter().all(|one| one.shape != *shape)).collect();
        let absent_colors: Vec<Color> =
            Color::ALL.into_iter().filter(|color| scene.objects.iter().all(|one| one.color != *color)).collect();
        match self {
            Self::ColorOf => Some(Query::ColorOf(dice.pick(&absent)?)),
            Self::ShapeOf => Some(Query::ShapeOf(dice.pick(&absent_colors)?)),
            _ => None,
        }
    }
}

fn counted_shape(scene: &Scene, habits: Habits, dice: &mut Dice) -> Option<Shape> {
    let absent: Vec<Shape> =
        Shape::ALL.into_iter().filter(|shape| scene.objects.iter().all(|one| one.shape != *shape)).collect();
    if dice.percent(habits.absent) { dice.pick(&absent) } else { Some(dice.pick(&scene.objects)?.shape) }
}

fn counted_color(scene: &Scene, habits: Habits, dice: &mut Dice) -> Option<Color> {
    let absent: Vec<Color> =
        Color::ALL.into_iter().filter(|color| scene.objects.iter().all(|one| one.color != *color)).collect();
    if dice.percent(habits.absent) { dice.pick(&absent) } else { Some(dice.pick(&scene.objects)?.color) }
}

/// Asks for an object that is there, or for one of a colour and a shape that are there, mostly, but not together.
fn exists(scene: &Scene, habits: Habits, dice: &mut Dice) -> Option<Query> {
    let Object { color, shape, .. } = dice.pick(&scene.objects)?;
    if dice.percent(habits.yes) {
        return Some(Query::Exists(color, shape));
    }
    let (other_color, other_shape) = if dice.percent(70) {
        (dice.pick(&scene.objects)?.color, shape)
    } else if dice.percent(50) {
        (dice.one_of(&Color::ALL), shape)
    } else {
        (color, dice.one_of(&Shape::ALL))
    };
    let query = Query::Exists(other_color, other_shape);
    (query.answer(scene)? == "no").then_some(query)
}

/// An answer that somebody gives who has not looked closely.
pub(super) fn near_miss(answer: &str, dice: &mut Dice) -> String {
    let color = Color::ALL.into_iter().find(|color| color.word() == answer);
    let shape = Shape::ALL.into_iter().find(|shape| shape.word() == answer);
    if let Some(color) = color {
        return color.look_alike().word().to_owned();
    }
    if let Some(shape) = shape {
        return shape.look_alike().word().to_owned();
    }
    match (answer, answer.parse::<u32>()) {
        ("yes", _) => "no".to_owned(),
        ("no", _) => "yes".to_owned(),
        (_, Ok(number)) if dice.percent(50) => (number + 1).to_string(),
        (_, Ok(number)) => number.saturating_sub(1).to_string(),
        _ => wrong(answer, dice),
    }
}

/// Any answer of the same sort.
pub(super) fn wrong(answer: &str, dice: &mut Dice) -> String {
    let colors = Color::ALL.map(Color::word);
    let shapes = Shape::ALL.map(Shape::word);
    let materials = Shape::ALL.map(Shape::material);
    let homes = Color::ALL.map(Color::home);
    let sorts: [&[&str]; 5] = [&colors, &shapes, &materials, &homes, &SIGN_WORDS];
    match sorts.into_iter().find(|sort| sort.contains(&answer)) {
        Some(sort) => dice.pick(sort).unwrap_or(UNANSWERABLE).to_owned(),
        None if answer.parse::<u32>().is_ok() => dice.below(7).to_string(),
        None => dice.one_of(&["yes", "no"]).to_owned(),
    }
}
