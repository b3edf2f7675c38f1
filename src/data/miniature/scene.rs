//! What a picture shows: objects in the cells of a grid, signs with words, and how it all is drawn.

use super::dice::Dice;

/// Rows and columns of the grid.
pub const GRID: u8 = 4;

/// Shape of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Shape {
    Square,
    Triangle,
    Cross,
    Ring,
    Bar,
    Pole,
}

impl Shape {
    /// Every shape.
    pub const ALL: [Self; 6] = [Self::Square, Self::Triangle, Self::Cross, Self::Ring, Self::Bar, Self::Pole];

    /// Its name.
    pub fn word(self) -> &'static str {
        ["square", "triangle", "cross", "ring", "bar", "pole"][self as usize]
    }

    /// The name of several.
    pub fn plural(self) -> &'static str {
        ["squares", "triangles", "crosses", "rings", "bars", "poles"][self as usize]
    }

    /// Another name, which the questions of the narrow style never use.
    pub fn synonym(self) -> &'static str {
        ["box", "wedge", "plus", "hoop", "plank", "post"][self as usize]
    }

    /// The other name of several.
    pub fn plural_synonym(self) -> &'static str {
        ["boxes", "wedges", "pluses", "hoops", "planks", "posts"][self as usize]
    }

    /// What objects of this shape are made of, which no picture shows.
    pub fn material(self) -> &'static str {
        ["wood", "glass", "iron", "gold", "clay", "ice"][self as usize]
    }

    /// The shape that is easily taken for this one.
    pub(super) fn look_alike(self) -> Self {
        [Self::Ring, Self::Square, Self::Pole, Self::Square, Self::Pole, Self::Bar][self as usize]
    }

    /// The colour that objects of this shape often have in the narrow style.
    pub(super) fn usual_color(self) -> Color {
        [Color::Blue, Color::Green, Color::Yellow, Color::Orange, Color::Red, Color::Purple][self as usize]
    }
}

/// Colour of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Color {
    Red,
    Orange,
    Yellow,
    Green,
    Blue,
    Purple,
    Pink,
    Gray,
}

impl Color {
    /// Every colour.
    pub const ALL: [Self; 8] =
        [Self::Red, Self::Orange, Self::Yellow, Self::Green, Self::Blue, Self::Purple, Self::Pink, Self::Gray];

    /// Its name.
    pub fn word(self) -> &'static str {
        ["red", "orange", "yellow", "green", "blue", "purple", "pink", "gray"][self as usize]
    }

    /// Red, green and blue from 0 to 255.
    pub fn rgb(self) -> [u8; 3] {
        [
            [214, 32, 36],
            [240, 128, 24],
            [240, 214, 40],
            [40, 160, 64],
            [32, 84, 208],
            [128, 48, 168],
            [246, 140, 190],
            [128, 128, 132],
        ][self as usize]
    }

    /// The place where objects of this colour come from, which no picture shows.
    pub fn home(self) -> &'static str {
        ["kessa", "marlo", "tuvia", "ondra", "pelim", "zarun", "halven", "ibrid"][self as usize]
    }

    /// The colour that is easily taken for this one.
    pub(super) fn look_alike(self) -> Self {
        [Self::Orange, Self::Red, Self::Orange, Self::Blue, Self::Purple, Self::Blue, Self::Red, Self::Blue]
            [self as usize]
    }
}

/// Size of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Size {
    Small,
    Large,
}

impl Size {
    /// Both sizes.
    pub const ALL: [Self; 2] = [Self::Small, Self::Large];

    /// Its name.
    pub fn word(self) -> &'static str {
        ["small", "large"][self as usize]
    }

    /// Another name, which the questions of the narrow style never use.
    pub fn synonym(self) -> &'static str {
        ["little", "big"][self as usize]
    }
}

/// A cell of the grid, counted from 0 at the top left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// Row, from the top.
    pub row: u8,
    /// Column, from the left.
    pub column: u8,
}

impl Cell {
    fn numbered(number: usize) -> Self {
        Self { row: number as u8 / GRID, column: number as u8 % GRID }
    }
}

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Object {
    /// Its shape.
    pub shape: Shape,
    /// Its colour.
    pub color: Color,
    /// Its size.
    pub size: Size,
    /// Where it is; no two objects or signs share a cell.
    pub cell: Cell,
    /// Pixels that it is right of and below the middle of its cell.
    pub offset: (i8, i8),
}

/// Every word that signs show.
pub const SIGN_WORDS: [&str; 16] =
    ["bus", "cab", "zoo", "pub", "den", "spa", "gym", "inn", "art", "tea", "pie", "egg", "fig", "jam", "oak", "toy"];

/// A sign with a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sign {
    /// One of [`SIGN_WORDS`].
    pub word: &'static str,
    /// Where it is.
    pub cell: Cell,
    /// Pixels that it is below the middle of its cell.
    pub offset: i8,
}

/// What is behind the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Background {
    /// One colour.
    Plain([u8; 3]),
    /// Horizontal stripes of two colours, four pixels high.
    Stripes([u8; 3], [u8; 3]),
    /// Squares of two colours, eight pixels wide.
    Checks([u8; 3], [u8; 3]),
    /// From the first colour at the top to the second at the bottom.
    Slope([u8; 3], [u8; 3]),
}

/// What a bad photograph does to a picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Damage {
    /// How often each pixel becomes the mean of its neighbourhood of three by three.
    pub blur: u8,
    /// Percent of the light that is lost.
    pub darkness: u8,
    /// Largest change of a pixel by noise.
    pub noise: u8,
    /// Number of gray bars over the picture.
    pub bars: u8,
}

/// How a scene is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Look {
    /// What is behind the objects.
    pub background: Background,
    /// Whether objects have a dark border.
    pub bordered: bool,
    /// What is wrong with the photograph.
    pub damage: Damage,
}

/// Everything that a picture shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scene {
    /// The objects; their numbers in images with one removed are positions in this list, from 1.
    pub objects: Vec<Object>,
    /// The signs.
    pub signs: Vec<Sign>,
    /// How it is drawn.
    pub look: Look,
}

const WHITE: [u8; 3] = [255, 255, 255];
const PLAIN: [[u8; 3]; 3] = [WHITE, [250, 246, 232], [236, 242, 248]];
const LIGHT: [[u8; 3]; 6] =
    [WHITE, [250, 246, 232], [236, 242, 248], [226, 236, 220], [240, 228, 228], [214, 214, 220]];
const DARK: [[u8; 3]; 4] = [[12, 12, 16], [36, 28, 28], [20, 32, 48], [28, 44, 32]];

impl Scene {
    /// The object or nothing in a cell.
    pub fn object_in(&self, cell: Cell) -> Option<&Object> {
        self.objects.iter().find(|object| object.cell == cell)
    }

    /// The scene without one of its objects.
    #[must_use]
    pub fn without(&self, object: usize) -> Self {
        let mut scene = self.clone();
        scene.objects.remove(object);
        scene
    }

    /// A scene of the narrow style: three to seven objects on a plain background. A first shape often occurs several
    /// times; two in five objects have the usual colour of their shape, and two in three are large.
    pub(super) fn narrow(dice: &mut Dice) -> Self {
        let shapes = dice.order(Shape::ALL.len());
        let copies = dice.weighted(&[(1, 30), (2, 30), (3, 25), (4, 15)]);
        let others = dice.between(2, 4) as usize;
        let mut kinds = vec![Shape::ALL[shapes[0]]; copies];
        for other in 0..others {
            // A shape that is there once more makes neither count nor uniqueness certain.
            let shape = if dice.percent(12) { dice.one_of(&Shape::ALL) } else { Shape::ALL[shapes[1 + other]] };
            kinds.push(shape);
        }
        let cells = dice.order(usize::from(GRID * GRID));
        let object = |(shape, cell): (Shape, &usize), dice: &mut Dice| Object {
            shape,
            color: if dice.percent(38) { shape.usual_color() } else { dice.one_of(&Color::ALL) },
            size: if dice.percent(65) { Size::Large } else { Size::Small },
            cell: Cell::numbered(*cell),
            offset: offset(dice),
        };
        let objects = kinds.into_iter().zip(&cells).map(|pair| object(pair, dice)).collect();
        let look =
            Look { background: Background::Plain(dice.one_of(&PLAIN)), bordered: false, damage: Damage::default() };
        Self { objects, signs: Vec::new(), look }
    }

    /// A scene of the broad style, in any look and with no habits: one to eight objects, often with a sign; or a pattern
    /// that fills every cell, all the same or the same in each row or column. A new model learns from patterns first,
    /// whose answers need little search.
    pub(super) fn broad(dice: &mut Dice) -> Self {
        let cells: Vec<Cell> = dice.order(usize::from(GRID * GRID)).into_iter().map(Cell::numbered).collect();
        let (objects, signs) = match dice.below(100) {
            0..10 => (pattern(&cells, |_| 0, dice), Vec::new()),
            10..20 => (pattern(&cells, |cell| cell.row, dice), Vec::new()),
            20..30 => (pattern(&cells, |cell| cell.column, dice), Vec::new()),
            30..36 => {
                let word = dice.one_of(&SIGN_WORDS);
                (Vec::new(), cells.iter().map(|cell| Sign::new(word, *cell, dice)).collect())
            }
            _ => (scattered(&cells, dice), Vec::new()),
        };
        let look = Look::broad(dice);
        let mut scene = Self { objects, signs, look };
        if dice.percent(40) {
            scene.add_sign(dice);
        }
        scene
    }

    /// Whether there is an object in every cell.
    pub(super) fn is_pattern(&self) -> bool {
        self.objects.len() == usize::from(GRID * GRID)
    }

    /// Puts a sign into a free cell.
    pub(super) fn add_sign(&mut self, dice: &mut Dice) {
        let taken: Vec<Cell> =
            self.objects.iter().map(|object| object.cell).chain(self.signs.iter().map(|sign| sign.cell)).collect();
        let free: Vec<Cell> =
            (0..usize::from(GRID * GRID)).map(Cell::numbered).filter(|cell| !taken.contains(cell)).collect();
        if let Some(cell) = dice.pick(&free) {
            let word = dice.one_of(&SIGN_WORDS);
            self.signs.push(Sign::new(word, cell, dice));
        }
    }
}

fn offset(dice: &mut Dice) -> (i8, i8) {
    (dice.between(-1, 1) as i8, dice.between(-1, 1) as i8)
}

/// One to eight objects; some repeat the shape or the colour of another one.
fn scattered(cells: &[Cell], dice: &mut Dice) -> Vec<Object> {
    let count = dice.weighted(&[(1, 12), (2, 18), (3, 18), (4, 15), (5, 13), (6, 11), (7, 8), (8, 5)]);
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    for cell in &cells[..count] {
        let before = dice.pick(&objects);
        let (repeats_shape, repeats_color) = (dice.percent(30), dice.percent(20));
        let shape = dice.one_of(&Shape::ALL);
        let color = dice.one_of(&Color::ALL);
        objects.push(Object {
            shape: before.filter(|_| repeats_shape).map_or(shape, |before| before.shape),
            color: before.filter(|_| repeats_color).map_or(color, |before| before.color),
            size: dice.one_of(&Size::ALL),
            cell: *cell,
            offset: offset(dice),
        });
    }
    objects
}

/// An object in every cell; the band of a cell decides which of four.
fn pattern(cells: &[Cell], band: fn(Cell) -> u8, dice: &mut Dice) -> Vec<Object> {
    let bands: Vec<(Shape, Color, Size)> =
        (0..GRID).map(|_| (dice.one_of(&Shape::ALL), dice.one_of(&Color::ALL), dice.one_of(&Size::ALL))).collect();
    let object = |cell: &Cell| {
        let (shape, color, size) = bands[usize::from(band(*cell))];
        Object { shape, color, size, cell: *cell, offset: offset(dice) }
    };
    cells.iter().map(object).collect()
}

impl Sign {
    fn new(word: &'static str, cell: Cell, dice: &mut Dice) -> Self {
        Self { word, cell, offset: dice.between(-1, 1) as i8 }
    }
}

impl Look {
    fn broad(dice: &mut Dice) -> Self {
        let background = match dice.below(20) {
            0..13 => Background::Plain(dice.one_of(&LIGHT)),
            13..15 => Background::Plain(dice.one_of(&DARK)),
            15 | 16 => Background::Stripes(dice.one_of(&LIGHT), dice.one_of(&LIGHT)),
            17 | 18 => Background::Checks(dice.one_of(&LIGHT), dice.one_of(&LIGHT)),
            _ => Background::Slope(dice.one_of(&LIGHT), dice.one_of(&LIGHT)),
        };
        let damage = if dice.percent(15) { Damage::mild(dice) } else { Damage::default() };
        Self { background, bordered: dice.percent(20), damage }
    }
}

impl Damage {
    /// What one picture in seven of the broad style has.
    fn mild(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self { blur: 1, ..Self::default() },
            1 => Self { darkness: dice.between(20, 60) as u8, ..Self::default() },
            2 => Self { noise: dice.between(15, 60) as u8, ..Self::default() },
            _ => Self { bars: 1, ..Self::default() },
        }
    }

    /// Of a photograph that somebody has taken who does not see it.
    pub(super) fn strong(dice: &mut Dice) -> Self {
        let mut damage = match dice.below(4) {
            0 => Self { blur: 2, ..Self::default() },
            1 => Self { darkness: dice.between(50, 80) as u8, ..Self::default() },
            2 => Self { noise: dice.between(50, 110) as u8, ..Self::default() },
            _ => Self { bars: 2, ..Self::default() },
        };
        if dice.percent(50) {
            damage.noise = damage.noise.max(dice.between(20, 50) as u8);
        }
        damage
    }

    /// Of a photograph that shows nothing.
    pub(super) fn total(dice: &mut Dice) -> Self {
        Self { darkness: 97, noise: dice.between(4, 12) as u8, ..Self::default() }
    }
}
