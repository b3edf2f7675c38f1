//! Colours: for kinds, for ordered values, and contrast.
//!
//! Kinds have the colours of M. Okabe and K. Ito, "Color Universal Design" (2008), which people with any common colour
//! vision tell apart. Ordered values have `viridis` (S. van der Walt and N. Smith, CC0), whose lightness ascends evenly.

/// Red, green and blue of sRGB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rgb(pub [u8; 3]);

/// A colour for light and one for dark ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour {
    pub light: Rgb,
    pub dark: Rgb,
}

const fn rgb(code: u32) -> Rgb {
    Rgb([(code >> 16) as u8, (code >> 8) as u8, code as u8])
}

const fn colour(light: u32, dark: u32) -> Colour {
    Colour { light: rgb(light), dark: rgb(dark) }
}

pub(super) const GROUND: Colour = colour(0xffffff, 0x0d1117);
pub(super) const TEXT: Colour = colour(0x1f2328, 0xe6edf3);
/// For what is read second: ticks, notes, reference lines.
pub(super) const MUTED: Colour = colour(0x59636e, 0x9198a1);
pub(super) const AXIS: Colour = colour(0x818b98, 0x7d8590);
/// Fainter than anything that carries a value.
pub(super) const GRID: Colour = colour(0xe4e7eb, 0x262c36);
/// Behind a cell without a value.
pub(super) const MISSING: Colour = colour(0xf3f4f6, 0x1b212a);

/// Least contrast of kinds to the ground. WCAG 2.2 asks for 3 (1.4.11); thin lines on dark ground are read better with more.
const LIGHT_CONTRAST: f64 = 3.0;
const DARK_CONTRAST: f64 = 4.5;

impl From<Rgb> for Colour {
    fn from(colour: Rgb) -> Self {
        Self { light: colour, dark: colour }
    }
}

/// Blue, vermilion, bluish green, reddish purple, sky blue, orange, yellow.
const OKABE_ITO: [Rgb; 7] =
    [rgb(0x0072b2), rgb(0xd55e00), rgb(0x009e73), rgb(0xcc79a7), rgb(0x56b4e9), rgb(0xe69f00), rgb(0xf0e442)];

/// The colour of a kind; kinds beyond the last colour begin again.
pub(super) fn category(index: usize) -> Colour {
    let base = OKABE_ITO[index % OKABE_ITO.len()];
    Colour {
        light: legible(base, GROUND.light, Rgb([0; 3]), LIGHT_CONTRAST),
        dark: legible(base, GROUND.dark, Rgb([255; 3]), DARK_CONTRAST),
    }
}

/// The colour, moved towards another one until it stands out from the ground.
fn legible(base: Rgb, ground: Rgb, towards: Rgb, least: f64) -> Rgb {
    let steps = (0..=20).map(|step| mix(base, towards, f64::from(step) / 20.0));
    steps.into_iter().find(|&colour| contrast(colour, ground) >= least).unwrap_or(towards)
}

/// The part of the sequential colours that stands out from light ground, and that from dark ground.
const ORDERED: [[f64; 2]; 2] = [[0.0, 0.59], [0.34, 1.0]];

/// The colour of one of several values in ascending order.
pub(super) fn ordered(index: usize, count: usize) -> Colour {
    let share = index as f64 / (count.max(2) - 1) as f64;
    let [light, dark] = ORDERED.map(|[first, last]| sequential(first + (last - first) * share));
    Colour { light, dark }
}

const VIRIDIS: [Rgb; 17] = [
    rgb(0x440154),
    rgb(0x48186a),
    rgb(0x472d7b),
    rgb(0x424086),
    rgb(0x3b528b),
    rgb(0x33638d),
    rgb(0x2c728e),
    rgb(0x26828e),
    rgb(0x21918c),
    rgb(0x1fa088),
    rgb(0x28ae80),
    rgb(0x3fbc73),
    rgb(0x5ec962),
    rgb(0x84d44b),
    rgb(0xaddc30),
    rgb(0xd8e219),
    rgb(0xfde725),
];

/// Blue and brown with near white between them, which differ for all common colour vision.
const BLUE_BROWN: [Rgb; 7] =
    [rgb(0x08406f), rgb(0x2a78b5), rgb(0x93c0e0), rgb(0xf5f5f3), rgb(0xf0ac7c), rgb(0xc75f1e), rgb(0x7a2f02)];

/// From 0, dark, to 1, bright.
pub(super) fn sequential(share: f64) -> Rgb {
    along(&VIRIDIS, share)
}

/// From 0 over near white at 0.5 to 1.
pub(super) fn diverging(share: f64) -> Rgb {
    along(&BLUE_BROWN, share)
}

fn along(stops: &[Rgb], share: f64) -> Rgb {
    let place = share.clamp(0.0, 1.0) * (stops.len() - 1) as f64;
    let index = (place as usize).min(stops.len() - 2);
    mix(stops[index], stops[index + 1], place - index as f64)
}

fn mix(Rgb(from): Rgb, Rgb(to): Rgb, share: f64) -> Rgb {
    let channel = |index: usize| f64::from(from[index]) + (f64::from(to[index]) - f64::from(from[index])) * share;
    Rgb([0, 1, 2].map(|index| channel(index).round() as u8))
}

/// Black or white, whichever is read better on this ground.
pub(super) fn letters_on(ground: Rgb) -> Rgb {
    let (black, white) = (Rgb([0; 3]), Rgb([255; 3]));
    if contrast(black, ground) >= contrast(white, ground) { black } else { white }
}

/// Contrast ratio by WCAG 2.2: from 1, equal, to 21, black and white.
pub(super) fn contrast(one: Rgb, other: Rgb) -> f64 {
    let [one, other] = [one, other].map(luminance);
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

/// Relative luminance of sRGB, 0 to 1 (WCAG 2.2).
fn luminance(Rgb(channels): Rgb) -> f64 {
    let linear = |channel: u8| {
        let value = f64::from(channel) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let [red, green, blue] = channels.map(linear);
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stands_out(colour: Colour, least: f64) {
        let found = [contrast(colour.light, GROUND.light), contrast(colour.dark, GROUND.dark)];
        assert!(found.iter().all(|found| *found >= least), "{colour:?}: {found:?}");
    }

    /// Reference values from the definition's own examples: black on white is 21, and #777 on white just misses 4.5.
    #[test]
    fn contrast_is_that_of_the_definition() {
        assert!((contrast(rgb(0), rgb(0xffffff)) - 21.0).abs() < 1e-9);
        assert!((contrast(rgb(0x777777), rgb(0xffffff)) - 4.478).abs() < 1e-3);
        assert_eq!(contrast(rgb(0x123456), rgb(0x123456)), 1.0);
    }

    #[test]
    fn what_carries_a_value_stands_out_from_both_grounds() {
        (0..9).for_each(|index| stands_out(category(index), 3.0));
        for count in 1..30 {
            (0..count).for_each(|index| stands_out(ordered(index, count), 3.0));
        }
        stands_out(AXIS, 3.0);
        stands_out(TEXT, 4.5);
        stands_out(MUTED, 4.5);
    }

    #[test]
    fn letters_are_read_on_every_cell() {
        for step in 0..=1000 {
            for cell in [sequential, diverging].map(|shade| shade(f64::from(step) / 1000.0)) {
                let found = contrast(letters_on(cell), cell);
                assert!(found >= 4.5, "{cell:?}: {found}");
            }
        }
        let missing = [contrast(MUTED.light, MISSING.light), contrast(MUTED.dark, MISSING.dark)];
        assert!(missing.iter().all(|found| *found >= 4.5), "{missing:?}");
    }

    #[test]
    fn ordered_colours_ascend_and_diverging_ones_are_symmetric() {
        let light = |share: f64| luminance(sequential(share));
        assert!((0..100).all(|step| light(f64::from(step) / 100.0) < light(f64::from(step + 1) / 100.0)));
        for step in 0..50 {
            let (low, high) = (diverging(f64::from(step) / 100.0), diverging(1.0 - f64::from(step) / 100.0));
            assert!((luminance(low) - luminance(high)).abs() < 0.06, "{step}: {low:?} {high:?}");
        }
        assert!(luminance(diverging(0.5)) > 0.9);
        assert_eq!((sequential(-1.0), sequential(9.0)), (VIRIDIS[0], VIRIDIS[16]));
    }

    #[test]
    fn colours_that_stand_out_are_left_as_they_are() {
        assert_eq!(category(1), OKABE_ITO[1].into());
        assert_ne!(category(6).light, OKABE_ITO[6]);
        assert_eq!(category(6).dark, OKABE_ITO[6]);
        assert_eq!(category(7), category(0));
    }
}
