//! How wide texts are, and the outlines of their letters.
//!
//! The font is measured for SVG files as well, which name whatever font the viewer has: it is a wide one, so that texts
//! rarely need more room than is left for them.

use ttf_parser::{Face, GlyphId, OutlineBuilder};

use crate::error::{Error, Result};

const FONT: &[u8] = include_bytes!("font/figures.ttf");

/// Width of bold letters relative to others.
pub(super) const BOLD: f64 = 1.12;

/// Height of capital letters, and depth of what hangs below the baseline, relative to the size.
pub(super) const CAPITAL: f64 = 0.73;
pub(super) const DEPTH: f64 = 0.21;

/// How far below the middle of a line its baseline is, relative to the size.
pub(super) const BASELINE: f64 = CAPITAL / 2.0;

pub(super) struct Font(Face<'static>);

impl Font {
    pub fn load() -> Result<Self> {
        let unreadable = |error| Error::internal("cannot read the font of figures").caused_by(error);
        Face::parse(FONT, 0).map(Self).map_err(unreadable)
    }

    /// Width of a text in pixels, at this size.
    pub fn width(&self, text: &str, size: f64) -> f64 {
        text.chars().map(|character| self.advance(self.glyph(character))).sum::<f64>() * size
    }

    /// Calls `draw` with each letter and its distance from the start, in pixels.
    pub fn letters(&self, text: &str, size: f64, mut draw: impl FnMut(GlyphId, f64)) {
        let mut at = 0.0;
        for glyph in text.chars().map(|character| self.glyph(character)) {
            draw(glyph, at);
            at += self.advance(glyph) * size;
        }
    }

    /// Draws the outline of a letter, in units of which one em has [`Font::units`].
    pub fn outline(&self, glyph: GlyphId, pen: &mut dyn OutlineBuilder) {
        self.0.outline_glyph(glyph, pen);
    }

    pub fn units(&self) -> f64 {
        f64::from(self.0.units_per_em())
    }

    /// Lines of whole words that are at most this wide; a word that is wider has a line of its own.
    pub fn wrap(&self, text: &str, size: f64, width: f64) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width(&format!("{line} {word}"), size) <= width => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }

    /// The text, or its beginning with an ellipsis where it is wider than this.
    pub fn shorten(&self, text: &str, size: f64, width: f64) -> String {
        if self.width(text, size) <= width {
            return text.to_owned();
        }
        let ends = text.char_indices().map(|(at, _)| format!("{}…", text[..at].trim_end()));
        ends.take_while(|text| self.width(text, size) <= width).last().unwrap_or_default()
    }

    /// The box of the font stands for a letter that it lacks.
    fn glyph(&self, character: char) -> GlyphId {
        self.0.glyph_index(character).unwrap_or(GlyphId(0))
    }

    /// In ems; a letter that the font lacks is taken as square, as those of many scripts are.
    fn advance(&self, glyph: GlyphId) -> f64 {
        let units = self.0.glyph_hor_advance(glyph).map_or(0.0, f64::from);
        if glyph == GlyphId(0) { 1.0 } else { units / self.units() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advances of DejaVu Sans, in units of 2048, read with fontTools: a 1255, space 651, W 2025, minus 1716.
    #[test]
    fn widths_are_those_of_the_font() {
        let font = Font::load().unwrap();
        let units = |text: &str| font.width(text, 2048.0).round();
        assert_eq!(units("a W\u{2212}"), 1255.0 + 651.0 + 2025.0 + 1716.0);
        assert_eq!(units("画"), 2048.0);
        assert_eq!(font.width("", 12.0), 0.0);
    }

    #[test]
    fn the_font_has_the_letters_of_figures() {
        let font = Font::load().unwrap();
        let lacking: Vec<char> =
            "AZaz09 %()éßłαωΔ×−–—‘’“”→≥≤≈±²¹⁰⁻⁹₀₂…µ".chars().filter(|&c| font.glyph(c) == GlyphId(0)).collect();
        assert_eq!(lacking, []);
    }

    #[test]
    fn texts_are_broken_between_words_and_shortened_at_the_end() {
        let font = Font::load().unwrap();
        let width = font.width("one two", 12.0) + 0.01;
        assert_eq!(font.wrap("one two  three extraordinarily", 12.0, width), ["one two", "three", "extraordinarily"]);
        assert_eq!(font.wrap(" ", 12.0, width), [""; 0]);
        let short = font.shorten("extraordinarily long", 12.0, 60.0);
        assert!(short.ends_with('…') && short.starts_with("ext") && font.width(&short, 12.0) <= 60.0, "{short}");
        assert_eq!(font.shorten("short", 12.0, 60.0), "short");
    }
}
