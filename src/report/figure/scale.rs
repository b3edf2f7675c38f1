//! Where values lie on an axis, which of them are ticks, and how numbers are written.

use super::{Axis, Scale};

/// The values of an axis as lengths from `pixels[0]` to `pixels[1]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    logarithmic: bool,
    range: [f64; 2],
    pixels: [f64; 2],
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tick {
    pub value: f64,
    pub label: String,
}

impl Map {
    pub fn new(axis: &Axis, range: [f64; 2], pixels: [f64; 2]) -> Self {
        Self { logarithmic: matches!(axis.scale, Scale::Logarithmic), range, pixels }
    }

    /// NaN for a value that is missing.
    pub fn at(&self, value: f64) -> f64 {
        let length = |value: f64| if self.logarithmic { value.log10() } else { value };
        let [low, high] = self.range.map(length);
        let [first, last] = self.pixels;
        first + (length(value) - low) / (high - low) * (last - first)
    }
}

/// Share of the range that is left free on each side of the values.
const ROOM: f64 = 0.04;

/// What an axis shows of these values; none where there are none.
pub(super) fn range(axis: &Axis, values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    if let Scale::Categories(names) = &axis.scale {
        return (!names.is_empty()).then(|| axis.range.unwrap_or([-0.5, names.len() as f64 - 0.5]));
    }
    let [low, high] = ends(values)?;
    Some(axis.range.unwrap_or_else(|| match axis.scale {
        Scale::Logarithmic => with_room([low.log10(), high.log10()]).map(|exponent| 10f64.powf(exponent)),
        _ => {
            let [first, last] = with_room([low, high]);
            [if low >= 0.0 { first.max(0.0) } else { first }, if high <= 0.0 { last.min(0.0) } else { last }]
        }
    }))
}

/// The lowest and the highest value.
pub(super) fn ends(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let present = values.filter(|value| !value.is_nan());
    present.fold(None, |ends: Option<[f64; 2]>, value| {
        let [low, high] = ends.unwrap_or([value; 2]);
        Some([low.min(value), high.max(value)])
    })
}

fn with_room([low, high]: [f64; 2]) -> [f64; 2] {
    let room = if high > low { (high - low) * ROOM } else { (low.abs() * 0.05).max(0.5) };
    [low - room, high + room]
}

/// At most `most` ticks for an axis, in ascending order. Whole ones only, if the values are `whole`.
pub(super) fn ticks(axis: &Axis, range: [f64; 2], most: usize, whole: bool) -> Vec<Tick> {
    match &axis.scale {
        Scale::Categories(names) => {
            let ticks = (0..).zip(names).map(|(at, name)| Tick { value: f64::from(at), label: name.clone() });
            ticks.filter(|tick| (range[0]..=range[1]).contains(&tick.value)).collect()
        }
        Scale::Logarithmic => logarithmic(range, most),
        Scale::Linear => linear(range, most, whole),
    }
}

/// Multiples of 1, 2 or 5 times a power of ten.
pub(super) fn linear([low, high]: [f64; 2], most: usize, whole: bool) -> Vec<Tick> {
    let start = ((high - low) / (most + 1) as f64).log10().floor().max(-300.0) as i32;
    let steps = (start..start + 4).flat_map(|power| [1, 2, 5].map(|factor| (factor, power)));
    let fitting = steps.filter(|&(_, power)| !whole || power >= 0).find_map(|(factor, power)| {
        let size = times_ten_to(f64::from(factor), power);
        // A tick at an end of the range must survive the rounding of the division.
        let (first, last) = ((low / size - 1e-9).ceil(), (high / size + 1e-9).floor());
        let count = (last - first + 1.0).max(0.0) as usize;
        (count <= most)
            .then(|| (0..count).map(|index| (first + index as f64) * f64::from(factor)).collect::<Vec<_>>())
            .map(|multiples| (multiples, power))
    });
    let (multiples, power) = fitting.unwrap_or_default();
    multiples.into_iter().map(|count| Tick { value: times_ten_to(count, power), label: label(count, power) }).collect()
}

/// `count` times ten to the `power`, rounded once.
fn times_ten_to(count: f64, power: i32) -> f64 {
    if power < 0 { count / 10f64.powi(-power) } else { count * 10f64.powi(power) }
}

fn label(count: f64, power: i32) -> String {
    match power {
        _ if count == 0.0 => "0".to_owned(),
        -5..=5 => number(times_ten_to(count, power), (-power).max(0) as usize),
        _ => format!("{}×10{}", number(count, 0), superscript(power)),
    }
}

/// Powers of ten; where the range has fewer than two of them, their double and fivefold as well; else linear ones.
fn logarithmic([low, high]: [f64; 2], most: usize) -> Vec<Tick> {
    let [first, last] = [low.log10(), high.log10()];
    let decades: Vec<i32> = ((first - 1e-9).ceil() as i32..=(last + 1e-9).floor() as i32).collect();
    let plain = first >= -4.5 && last <= 5.5;
    let tick = |factor: i32, power: i32| {
        let value = times_ten_to(f64::from(factor), power);
        let label = match plain {
            true => number(value, (-power).max(0) as usize),
            false if factor == 1 => format!("10{}", superscript(power)),
            false => format!("{factor}×10{}", superscript(power)),
        };
        Tick { value, label }
    };
    if decades.len() > 1 {
        let every = decades.len().div_ceil(most.max(1));
        return decades.into_iter().step_by(every).map(|power| tick(1, power)).collect();
    }
    let fine =
        (first.floor() as i32..=last.floor() as i32).flat_map(|power| [1, 2, 5].map(|factor| tick(factor, power)));
    let fine: Vec<Tick> = fine.filter(|tick| (low..=high).contains(&tick.value)).collect();
    if (2..=most).contains(&fine.len()) { fine } else { linear([low, high], most, false) }
}

fn superscript(power: i32) -> String {
    let digit = |character: char| match character {
        '-' => '⁻',
        '1' => '¹',
        '2' => '²',
        '3' => '³',
        _ => char::from_u32(0x2070 + character.to_digit(10).unwrap_or(0)).unwrap_or(character),
    };
    power.to_string().chars().map(digit).collect()
}

/// A number with this many decimals, commas between thousands and a true minus sign.
pub(super) fn number(value: f64, decimals: usize) -> String {
    let text = format!("{:.decimals$}", value.abs());
    let negative = value < 0.0 && text.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let comma = |at: usize| if at > 0 && (whole.len() - at).is_multiple_of(3) { "," } else { "" };
    let whole: String = whole.char_indices().map(|(at, digit)| format!("{}{digit}", comma(at))).collect();
    format!("{}{whole}{fraction}", if negative { "\u{2212}" } else { "" })
}

/// A number to four significant digits, for tooltips.
pub(super) fn significant(value: f64) -> String {
    let exact = value.fract() == 0.0 && value.abs() < 1e9;
    if exact || value == 0.0 {
        return number(value, 0);
    }
    let power = value.abs().log10().floor() as i32;
    if !(-5..9).contains(&power) {
        return format!("{}×10{}", number(times_ten_to(value, -power), 3), superscript(power));
    }
    let text = number(value, (3 - power).max(0) as usize);
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ticks: Vec<Tick>) -> Vec<String> {
        ticks.into_iter().map(|tick| tick.label).collect()
    }

    #[test]
    fn ticks_are_multiples_of_one_two_or_five() {
        assert_eq!(labels(linear([0.0, 1.0], 6, false)), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"].map(zero));
        assert_eq!(labels(linear([-0.31, 0.29], 4, false)), ["\u{2212}0.2", "0", "0.2"]);
        assert_eq!(labels(linear([0.0, 21_000.0], 6, false)), ["0", "5,000", "10,000", "15,000", "20,000"]);
        assert_eq!(labels(linear([0.0, 3e7], 4, false)), ["0", "1×10⁷", "2×10⁷", "3×10⁷"]);
        assert_eq!(labels(linear([1e-7, 3.1e-7], 4, false)), ["1×10⁻⁷", "2×10⁻⁷", "3×10⁻⁷"]);
        assert_eq!(labels(linear([1.0, 3.0], 8, true)), ["1", "2", "3"]);
        assert_eq!(labels(linear([1.0, 3.0], 8, false)), ["1.0", "1.5", "2.0", "2.5", "3.0"].map(zero));
    }

    /// The label of 0 has no decimals.
    fn zero(label: &str) -> String {
        if label == "0.0" { "0".to_owned() } else { label.to_owned() }
    }

    #[test]
    fn ticks_are_few_enough_and_within_the_range() {
        for (low, width) in [(0.0, 1.0), (-3.7, 0.013), (99.0, 12_345.0), (-1e-9, 3e-9), (5e8, 1e3), (0.0, 1e300)] {
            for most in 1..12 {
                let found = linear([low, low + width], most, false);
                assert!(found.len() <= most, "{low} {width} {most}: {found:?}");
                assert!(most < 4 || found.len() >= 2, "{low} {width} {most}: {found:?}");
                let slack = width * 1e-6;
                assert!(
                    found.iter().all(|tick| (low - slack..=low + width + slack).contains(&tick.value)),
                    "{found:?}"
                );
            }
        }
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_where_there_are_some() {
        assert_eq!(labels(logarithmic([1e-3, 1e2], 8)), ["0.001", "0.01", "0.1", "1", "10", "100"]);
        assert_eq!(labels(logarithmic([1e-7, 1e-4], 8)), ["10⁻⁷", "10⁻⁶", "10⁻⁵", "10⁻⁴"]);
        assert_eq!(labels(logarithmic([1e-9, 1e3], 4)), ["10⁻⁹", "10⁻⁵", "10⁻¹", "10³"]);
        assert_eq!(labels(logarithmic([0.15, 6.0], 8)), ["0.2", "0.5", "1", "2", "5"]);
        assert_eq!(labels(logarithmic([3.0, 4.0], 8)).len(), 6);
    }

    #[test]
    fn values_lie_where_the_scale_says() {
        let map = Map::new(&Axis::linear(""), [10.0, 20.0], [100.0, 300.0]);
        assert_eq!(map.at(15.0), 200.0);
        let map = Map::new(&Axis::logarithmic(""), [1.0, 100.0], [300.0, 100.0]);
        assert_eq!([1.0, 10.0, 100.0].map(|value| map.at(value)), [300.0, 200.0, 100.0]);
        assert!(map.at(f64::NAN).is_nan());
    }

    #[test]
    fn an_automatic_range_has_room_but_does_not_cross_zero() {
        let of = |axis: Axis, values: &[f64]| range(&axis, values.iter().copied());
        assert_eq!(of(Axis::linear(""), &[0.0, 100.0, f64::NAN]), Some([0.0, 104.0]));
        assert_eq!(of(Axis::linear(""), &[50.0, 150.0]), Some([46.0, 154.0]));
        assert_eq!(of(Axis::linear("").between(0.0, 1.0), &[50.0]), Some([0.0, 1.0]));
        assert_eq!(of(Axis::linear(""), &[0.3]), Some([0.0, 0.8]));
        assert_eq!(of(Axis::linear(""), &[f64::NAN]), None);
        let [low, high] = of(Axis::logarithmic(""), &[0.01, 1.0]).unwrap();
        assert!(low > 0.008 && low < 0.01 && high > 1.0 && high < 1.3, "{low} {high}");
        let categories = Axis::categories("", ["a", "b", "c"].map(str::to_owned).to_vec());
        assert_eq!(of(categories.clone(), &[]), Some([-0.5, 2.5]));
        assert_eq!(labels(ticks(&categories, [0.5, 2.5], 9, false)), ["b", "c"]);
    }

    #[test]
    fn numbers_are_written_for_readers() {
        assert_eq!(number(-1_234_567.891, 2), "\u{2212}1,234,567.89");
        assert_eq!(number(-0.001, 2), "0.00");
        assert_eq!(["999", "1,000"], [number(999.0, 0), number(1000.0, 0)]);
        assert_eq!(
            [0.0, 12_345.0, 0.123_456, -2.5, 123_456.7, 1.5e-7].map(significant),
            ["0", "12,345", "0.1235", "\u{2212}2.5", "123,457", "1.500×10⁻⁷"]
        );
    }
}
