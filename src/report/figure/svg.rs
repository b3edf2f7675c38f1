//! A scene as SVG text.
//!
//! Colours are classes in one style sheet, with a second value for dark pages. A class is named after its values, so that
//! several figures in one page cannot disagree about it. Nothing is loaded and nothing has an id.

use std::fmt::Write;

use super::colour::{Colour, GROUND, Rgb};
use super::scene::{Anchor, Fill, Item, Point, Scene, Shape, Stroke, Text};

/// Fonts of the viewer.
const FONTS: &str = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif";

const CORNER: f64 = 6.0;

pub(super) fn write(scene: &Scene, title: &str, description: &str) -> String {
    let mut styles = Styles::default();
    let ground = Fill { colour: GROUND, opacity: 1.0 };
    let ground = format!(
        "<rect width=\"{}\" height=\"{}\" rx=\"{CORNER}\" class=\"{}\"/>\n",
        short(scene.width),
        short(scene.height),
        styles.fill(&ground)
    );
    let items: String = scene.items.iter().map(|item| element(item, &mut styles)).collect();
    let [width, height] = [scene.width, scene.height].map(short);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\">\n<title>{}</title>\n<desc>{}</desc>\n{}{ground}{items}</svg>\n",
        escaped(title),
        escaped(description),
        styles.sheet(),
    )
}

/// The classes that occur, in the order of their first use.
#[derive(Default)]
struct Styles(Vec<(&'static str, Colour)>);

impl Styles {
    fn fill(&mut self, fill: &Fill) -> String {
        self.class("fill", fill.colour)
    }

    fn stroke(&mut self, stroke: &Stroke) -> String {
        self.class("stroke", stroke.colour)
    }

    fn class(&mut self, property: &'static str, colour: Colour) -> String {
        if !self.0.contains(&(property, colour)) {
            self.0.push((property, colour));
        }
        class_name(property, colour)
    }

    fn sheet(&self) -> String {
        let rule = |property: &str, colour: Colour, value: Rgb| {
            format!(".{}{{{property}:#{}}}\n", class_name(property, colour), hexadecimal(value))
        };
        let light: String = self.0.iter().map(|&(property, colour)| rule(property, colour, colour.light)).collect();
        let differing = self.0.iter().filter(|(_, colour)| colour.light != colour.dark);
        let dark: String = differing.map(|&(property, colour)| rule(property, colour, colour.dark)).collect();
        format!(
            "<style>\ntext{{font-family:{FONTS};pointer-events:none}}\n.spot{{fill:none;stroke:none;pointer-events:all}}\n{light}\
             @media (prefers-color-scheme: dark){{\n{dark}}}\n</style>\n"
        )
    }
}

fn class_name(property: &str, colour: Colour) -> String {
    let initial = &property[..1];
    if colour.light == colour.dark {
        format!("{initial}{}", hexadecimal(colour.light))
    } else {
        format!("{initial}{}-{}", hexadecimal(colour.light), hexadecimal(colour.dark))
    }
}

fn hexadecimal(Rgb([red, green, blue]): Rgb) -> String {
    format!("{red:02x}{green:02x}{blue:02x}")
}

fn element(item: &Item, styles: &mut Styles) -> String {
    let (name, geometry, content) = match &item.shape {
        Shape::Path { points, closed } => ("path", format!(" d=\"{}\"", outline(points, *closed)), String::new()),
        Shape::Circle { centre: [x, y], radius } => {
            ("circle", format!(" cx=\"{}\" cy=\"{}\" r=\"{}\"", short(*x), short(*y), short(*radius)), String::new())
        }
        Shape::Text(text) => ("text", text_attributes(text), escaped(&text.content)),
    };
    let tooltip = item.tooltip.as_ref().map_or_else(String::new, |told| format!("<title>{}</title>", escaped(told)));
    let looks = looks(item, styles);
    if tooltip.is_empty() && content.is_empty() {
        return format!("<{name}{geometry}{looks}/>\n");
    }
    format!("<{name}{geometry}{looks}>{tooltip}{content}</{name}>\n")
}

fn looks(item: &Item, styles: &mut Styles) -> String {
    let classes: Vec<String> = match (&item.fill, &item.stroke) {
        (None, None) => vec!["spot".to_owned()],
        (fill, stroke) => {
            let fill = fill.as_ref().map(|fill| styles.fill(fill));
            fill.into_iter().chain(stroke.as_ref().map(|stroke| styles.stroke(stroke))).collect()
        }
    };
    let mut text = format!(" class=\"{}\"", classes.join(" "));
    if item.fill.is_none() && item.stroke.is_some() {
        text.push_str(" fill=\"none\"");
    }
    if let Some(fill) = item.fill.as_ref().filter(|fill| fill.opacity < 1.0) {
        let _ = write!(text, " fill-opacity=\"{}\"", short(fill.opacity));
    }
    if let Some(stroke) = &item.stroke {
        text.push_str(&pen(stroke, matches!(item.shape, Shape::Text(_))));
    }
    text
}

fn pen(stroke: &Stroke, below: bool) -> String {
    let mut text = format!(" stroke-width=\"{}\" stroke-linejoin=\"round\"", short(stroke.width));
    if !stroke.dashes.is_empty() {
        let dashes: Vec<String> = stroke.dashes.iter().map(|&length| short(length)).collect();
        let _ = write!(text, " stroke-dasharray=\"{}\"", dashes.join(" "));
    }
    if below {
        text.push_str(" paint-order=\"stroke\"");
    }
    text
}

fn text_attributes(text: &Text) -> String {
    let [x, y] = text.at.map(short);
    let anchor = match text.anchor {
        Anchor::Start => "",
        Anchor::Middle => " text-anchor=\"middle\"",
        Anchor::End => " text-anchor=\"end\"",
    };
    let weight = if text.bold { " font-weight=\"600\"" } else { "" };
    let turn = match text.turn {
        0.0 => String::new(),
        degrees => format!(" transform=\"rotate({} {x} {y})\"", short(degrees)),
    };
    format!(" x=\"{x}\" y=\"{y}\" font-size=\"{}\"{weight}{anchor}{turn}", short(text.size))
}

fn outline(points: &[Point], closed: bool) -> String {
    let places = points.iter().map(|point| point.map(short).join(" "));
    format!("M{}{}", places.collect::<Vec<_>>().join("L"), if closed { "Z" } else { "" })
}

/// A number with at most two decimals.
fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// The text with marks of XML and HTML written as references; characters that XML forbids become the replacement character.
pub(in crate::report) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(character),
            '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            character if character.is_control() => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::colour::TEXT;
    use super::*;

    #[test]
    fn marks_of_xml_and_forbidden_characters_do_not_get_through() {
        assert_eq!(escaped("a<b> & \"c\" 'd'\u{0}\u{b}"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39;\u{fffd}\u{fffd}");
        assert_eq!(escaped("画像 λ\n"), "画像 λ\n");
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([1.0, 0.125, -0.001, 12.345_6, 100.0].map(short), ["1", "0.12", "0", "12.35", "100"]);
    }

    #[test]
    fn a_scene_is_written_shape_by_shape() {
        let same: Colour = Rgb([1, 2, 3]).into();
        let items = vec![
            Item::line(vec![[0.0, 1.5], [2.0, 3.0]]).stroked(TEXT, 1.0, &[4.0, 2.0]),
            Item::area(vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]).tinted(same, 0.5).told("1 < 2"),
            Item::circle([5.0, 6.0], 2.0).told("here"),
            Item::text("a & b", [3.0, 4.0], Anchor::End, 12.0).filled(TEXT).bold().turned(-90.0),
        ];
        let svg = write(&Scene { width: 10.0, height: 20.0, items }, "t", "d");
        let expected = "\
<path d=\"M0 1.5L2 3\" class=\"s1f2328-e6edf3\" fill=\"none\" stroke-width=\"1\" stroke-linejoin=\"round\" stroke-dasharray=\"4 2\"/>
<path d=\"M0 0L1 0L1 1Z\" class=\"f010203\" fill-opacity=\"0.5\"><title>1 &lt; 2</title></path>
<circle cx=\"5\" cy=\"6\" r=\"2\" class=\"spot\"><title>here</title></circle>
<text x=\"3\" y=\"4\" font-size=\"12\" font-weight=\"600\" text-anchor=\"end\" transform=\"rotate(-90 3 4)\" class=\"f1f2328-e6edf3\">a &amp; b</text>
</svg>
";
        assert!(svg.ends_with(expected), "{svg}");
        assert!(svg.contains("<title>t</title>\n<desc>d</desc>\n"), "{svg}");
        let (light, dark) = svg.split_once("@media").unwrap();
        assert!(light.contains(".f010203{fill:#010203}") && !dark.contains(".f010203{"), "{svg}");
        assert!(light.contains(".f1f2328-e6edf3{fill:#1f2328}") && dark.contains(".f1f2328-e6edf3{fill:#e6edf3}"));
    }
}
