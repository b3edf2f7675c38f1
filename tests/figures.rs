//! Whole figures, as SVG text and as PNG images: those of the papers whose methods and measures are here, with made-up
//! numbers. With `FIGURES=folder` in the environment, the files are left there for a look.

use std::collections::BTreeMap;

use digrap_bench::random::Random;
use digrap_bench::report::figure::{Axis, Chart, Estimate, Figure, Heatmap, Mark, Panel, Scale, Series, Shade, Spot};

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn estimates(points: impl IntoIterator<Item = (f64, f64, Option<[f64; 2]>)>) -> Vec<Estimate> {
    points.into_iter().map(|(x, y, bounds)| Estimate { x, y, bounds }).collect()
}

const OUT: [&str; 10] =
    ["VQAv2", "IV-VQA", "CV-VQA", "VQA-Rephrasings", "VQA-CP v2", "VQA-CE", "AdVQA", "TextVQA", "VizWiz", "OK-VQA"];

/// Projection strength of the tensors of both towers, as in Figure 4 of the DiGraP paper.
fn strength_over_steps() -> Figure {
    let random = Random::new(4);
    let line = |name: &str, end: f64, pace: f64, branch: u64| {
        let point = |step: u64| {
            let x = step as f64 * 10.0;
            let noise = 0.02 * (random.number(branch).uniform(step) - 0.5);
            let y = (end * (1.0 - (-x / pace).exp()) + noise).clamp(0.0, 1.0);
            let spread = 0.04 + 0.12 * y;
            (x, y, Some([(y - spread * 1.3).max(0.0), (y + spread).min(1.0)]))
        };
        Mark::Line { name: name.to_owned(), points: estimates((0..240).map(point)) }
    };
    Figure {
        title: "Projection strength while fine-tuning".into(),
        description: "Strength rises from 0; vision tensors are held back more than language tensors.".into(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(Chart {
            title: String::new(),
            x: Axis::linear("step"),
            y: Axis::linear("projection strength (0 to 1)").between(0.0, 1.0),
            marks: vec![
                line("vision tensors (mean, least to most)", 0.72, 420.0, 1),
                line("language tensors (mean, least to most)", 0.36, 700.0, 2),
            ],
        })],
    }
}

/// Strength per layer, one line for each epoch, as in Figure 5 of the DiGraP paper.
fn strength_per_layer() -> Figure {
    let panel = |title: &str, layers: u32, height: f64| {
        let line = |epoch: u32| {
            let end = height * (1.0 - (-f64::from(epoch) / 3.5).exp());
            let point = |layer: u32| {
                let x = f64::from(layer);
                let wave = 0.06 * (x * 0.9 + f64::from(epoch) * 0.25).sin();
                (x, (end * (1.0 - 0.55 * x / f64::from(layers)) + wave * end).clamp(0.0, 1.0), None)
            };
            Mark::Line { name: epoch.to_string(), points: estimates((0..layers).map(point)) }
        };
        Panel::Chart(Chart {
            title: title.into(),
            x: Axis::linear("layer"),
            y: Axis::linear("projection strength (0 to 1)").between(0.0, 1.0),
            marks: (1..=10).map(line).collect(),
        })
    };
    Figure {
        title: "Projection strength per layer and epoch".into(),
        description: "Strength grows with epochs and falls with depth.".into(),
        series: Series::Ordered("epoch".into()),
        columns: 2,
        panels: vec![panel("Vision tower", 27, 0.9), panel("Language decoder", 18, 0.6)],
    }
}

/// Correlations of shift and accuracy, as in Figure 6 of the DiGraP paper.
fn correlations() -> Figure {
    let random = Random::new(6);
    let panel = |title: &str, branch: u64| {
        let value = |at: u64| match at {
            17 => None,
            _ => Some((random.number(branch).uniform(at) * 1.7 - 1.0 + 0.01 * at as f64).clamp(-0.97, 0.97)),
        };
        let rows = names(&["zero-shot", "vanilla FT", "linear probe", "LP-FT", "WiSE-FT", "FTP", "SPD", "DiGraP"]);
        Panel::Heatmap(Heatmap {
            title: title.into(),
            values: (0..rows.len() as u64 * 10).map(value).collect(),
            rows,
            columns: names(&OUT),
            shade: Shade::Diverging,
            range: Some([-1.0, 1.0]),
            decimals: 2,
            label: "correlation (Pearson)".into(),
        })
    };
    Figure {
        title: "Correlation of shift and accuracy".into(),
        description: "Most correlations are negative.".into(),
        series: Series::Categories,
        columns: 2,
        panels: vec![panel("Visual shift", 1), panel("Question shift", 2)],
    }
}

fn normal_density(x: f64, mean: f64, deviation: f64) -> f64 {
    (-0.5 * ((x - mean) / deviation).powi(2)).exp() / (deviation * (2.0 * std::f64::consts::PI).sqrt())
}

/// Distances of training and test features, as in the appendix of the DiGraP paper.
fn distances() -> Figure {
    let edges: Vec<f64> = (0..=32).map(|edge| 10.0 + f64::from(edge) * 2.0).collect();
    let bars = |name: &str, mean: f64, deviation: f64| {
        let middle = |pair: &[f64]| normal_density((pair[0] + pair[1]) / 2.0, mean, deviation);
        Mark::Histogram { name: name.into(), edges: edges.clone(), densities: edges.windows(2).map(middle).collect() }
    };
    let panel = |(index, title): (usize, &&str)| {
        let index = index as f64;
        Panel::Chart(Chart {
            title: (*title).into(),
            x: Axis::linear("Mahalanobis distance (standard deviations)").between(10.0, 74.0),
            y: Axis::linear("density").between(0.0, 0.1),
            marks: vec![bars("train (VQAv2)", 30.0, 5.0), bars("test", 30.5 + 2.1 * index, 5.0 + 0.35 * index)],
        })
    };
    Figure {
        title: "Distance of visual features from those of the training set".into(),
        description: "Test sets move to the right of the training set.".into(),
        series: Series::Categories,
        columns: 5,
        panels: OUT.iter().enumerate().map(panel).collect(),
    }
}

/// Shift against accuracy with a line that the caller fitted.
fn shift_and_accuracy() -> Figure {
    let random = Random::new(8);
    let spots = |part: &[(&str, f64, f64)]| {
        part.iter().map(|&(label, x, y)| Spot { x, y, label: label.into() }).collect::<Vec<_>>()
    };
    let at = |(index, name): (usize, &&'static str)| {
        let x = 29.0 + 1.9 * index as f64 + 1.5 * random.uniform(index as u64);
        (*name, x, 86.0 - 1.7 * (x - 29.0) + 14.0 * (random.uniform(50 + index as u64) - 0.5))
    };
    let all: Vec<(&str, f64, f64)> = OUT.iter().enumerate().map(at).collect();
    Figure {
        title: "Accuracy falls with shift".into(),
        description: "Accuracy against the mean Mahalanobis distance of joint features, one point for each dataset."
            .into(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(Chart {
            title: String::new(),
            x: Axis::linear("shift: mean Mahalanobis distance (standard deviations)"),
            y: Axis::linear("accuracy (%)"),
            marks: vec![
                Mark::Points { name: "in distribution".into(), points: spots(&all[..1]) },
                Mark::Points { name: "near".into(), points: spots(&all[1..7]) },
                Mark::Points { name: "far".into(), points: spots(&all[7..]) },
                Mark::Reference { name: "least squares".into(), from: [29.0, 86.0], to: [48.0, 53.7] },
                Mark::Note("r = \u{2212}0.74 (95 % \u{2212}0.93 to \u{2212}0.20)".into()),
            ],
        })],
    }
}

/// Accuracy over a hyper-parameter.
fn sensitivity() -> Figure {
    let line = |name: &str, best: f64, curve: f64| {
        let point = |step: i32| {
            let exponent = f64::from(step) / 2.0 - 4.0;
            let y = best - curve * (exponent + 2.0).powi(2);
            (10f64.powf(exponent), y, Some([y - 0.9, y + 0.8]))
        };
        Mark::Line { name: name.into(), points: estimates((0..9).map(point)) }
    };
    Figure {
        title: "Sensitivity to the step size μ".into(),
        description: "Accuracy in distribution hardly depends on the step size; that out of distribution does.".into(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(Chart {
            title: String::new(),
            x: Axis::logarithmic("step size μ"),
            y: Axis::linear("accuracy (%)"),
            marks: vec![line("in distribution", 86.2, 0.35), line("out of distribution (mean of 9)", 64.4, 2.1)],
        })],
    }
}

/// More points than have room for labels side by side.
fn crowd() -> Figure {
    let random = Random::new(11);
    let spots = |branch: u64| {
        let place = |at: u64| {
            (random.number(branch).normal(at) * 6.0 + 40.0, random.number(branch).normal(90 + at) * 9.0 + 60.0)
        };
        let spot = |at: u64| Spot {
            x: place(at).0,
            y: place(at).1,
            label: format!("dataset-{}{at}", ["a", "b"][branch as usize]),
        };
        Mark::Points { name: ["vision", "language"][branch as usize].into(), points: (0..11).map(spot).collect() }
    };
    Figure {
        title: "Twenty-two points that have labels, under a title that is long enough to need two lines, as some do"
            .into(),
        description: "Two clouds.".into(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(Chart {
            title: String::new(),
            x: Axis::linear("shift (standard deviations)"),
            y: Axis::linear("accuracy (%)"),
            marks: vec![spots(0), spots(1), Mark::Note("n = 22\nr = 0.01".into())],
        })],
    }
}

/// Unlike panels beside each other.
fn mixture() -> Figure {
    let random = Random::new(12);
    let accuracy = |at: u64| 30.0 + 60.0 * random.uniform(at);
    let line = |name: &str, from: u64| {
        let point =
            |at: u64| (at as f64, accuracy(at + from), Some([accuracy(at + from) - 4.0, accuracy(at + from) + 3.0]));
        Mark::Line { name: name.into(), points: estimates((0..10).map(point)) }
    };
    let chart = Chart {
        title: "By dataset".into(),
        x: Axis::categories("", names(&OUT)),
        y: Axis::linear("accuracy (%)").between(0.0, 100.0),
        marks: vec![line("vanilla FT", 0), line("DiGraP", 100)],
    };
    let values = (0..60).map(|at| Some(accuracy(at)).filter(|_| at != 31)).collect();
    let rows =
        names(&["vanilla FT", "linear probe", "WiSE-FT", "FTP", "SPD", "a method whose name is long beyond reason"]);
    let columns = names(&OUT);
    let label = "accuracy (%)".into();
    let title = "By method".into();
    let heatmap = Heatmap { title, rows, columns, values, shade: Shade::Sequential, range: None, decimals: 1, label };
    let empty = Chart { marks: vec![], title: "Not measured".into(), ..chart.clone() };
    Figure {
        title: "Accuracy".into(),
        description: "Accuracy by dataset and by method.".into(),
        series: Series::Categories,
        columns: 2,
        panels: vec![Panel::Chart(chart), Panel::Heatmap(heatmap), Panel::Chart(empty)],
    }
}

/// Small panels with long numbers at their ticks.
fn small_panels() -> Figure {
    let panel = |high: f64| {
        let points = estimates((0..20).map(|step| (high * f64::from(step), 1e5 * f64::from(step) + 0.5, None)));
        let (x, y) = (Axis::linear("training step"), Axis::linear("loss"));
        Panel::Chart(Chart { title: format!("{high}"), x, y, marks: vec![Mark::Line { name: "l".into(), points }] })
    };
    Figure {
        title: "Long numbers".into(),
        description: "Lines that rise.".into(),
        series: Series::Categories,
        columns: 5,
        panels: [1.0, 50.0, 1234.0, 123_456.0, 0.000_01].map(panel).to_vec(),
    }
}

fn figures() -> Vec<(&'static str, Figure)> {
    vec![
        ("a", strength_over_steps()),
        ("b", strength_per_layer()),
        ("c", correlations()),
        ("d", distances()),
        ("e", shift_and_accuracy()),
        ("f", sensitivity()),
        ("g", crowd()),
        ("h", mixture()),
        ("i", small_panels()),
    ]
}

/// A start tag with its attributes, and the text up to the next tag.
#[derive(Debug)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
}

impl Element {
    fn number(&self, attribute: &str) -> f64 {
        self.attributes[attribute].parse().unwrap()
    }
}

/// The elements of XML text; panics where tags do not match or a mark is not escaped.
fn elements(xml: &str) -> Vec<Element> {
    let (mut found, mut open): (Vec<Element>, Vec<String>) = (Vec::new(), Vec::new());
    let mut rest = xml.strip_prefix('<').expect("begins with a tag");
    loop {
        let (tag, after) = rest.split_once('>').expect("a tag that ends");
        let (text, next) = after.split_once('<').map_or((after, None), |(text, next)| (text, Some(next)));
        assert!(!text.contains('>') && !tag.contains('<'), "<{tag}>{text}");
        for reference in text.split('&').skip(1).chain(tag.split('&').skip(1)) {
            let name = reference.split(';').next().unwrap();
            assert!(["lt", "gt", "amp", "quot", "#39"].contains(&name), "&{name} in {text}");
        }
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name), "</{name}>"),
            None => {
                let (head, rest) = tag.trim_end_matches('/').split_once(' ').unwrap_or((tag.trim_end_matches('/'), ""));
                let pairs: Vec<&str> = rest.split('"').collect();
                let attributes = pairs.chunks_exact(2).map(|pair| {
                    (pair[0].trim().strip_suffix('=').expect("an attribute").to_owned(), pair[1].to_owned())
                });
                let collected: BTreeMap<String, String> = attributes.collect();
                assert_eq!(collected.len(), pairs.len() / 2, "twice the same attribute in <{tag}>");
                found.push(Element { name: head.into(), attributes: collected, text: text.into() });
                if !tag.ends_with('/') {
                    open.push(head.to_owned());
                }
            }
        }
        match next {
            Some(next) => rest = next,
            None => break,
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
    found
}

/// Places of an outline such as `M1 2L3 4Z`.
fn outline(element: &Element) -> Vec<[f64; 2]> {
    let places = element.attributes["d"].trim_matches(['M', 'Z']).split('L');
    places.map(|place| place.split_once(' ').map(|(x, y)| [x.parse().unwrap(), y.parse().unwrap()]).unwrap()).collect()
}

/// The width of a text by the font's own table.
fn text_width(face: &ttf_parser::Face, text: &str, size: f64) -> f64 {
    let advance = |letter| face.glyph_hor_advance(face.glyph_index(letter).unwrap_or_default()).unwrap_or(0);
    let plain = text.replace("&amp;", "&").replace("&lt;", "<");
    plain.chars().map(|letter| f64::from(advance(letter))).sum::<f64>() / f64::from(face.units_per_em()) * size
}

/// Left, top, right and bottom of a text that may be turned by 90 degrees; none for a slanted one.
fn text_box(face: &ttf_parser::Face, element: &Element) -> Option<[f64; 4]> {
    let (x, y, size) = (element.number("x"), element.number("y"), element.number("font-size"));
    let width = text_width(face, &element.text, size);
    let start = match element.attributes.get("text-anchor").map(String::as_str) {
        Some("middle") => -width / 2.0,
        Some("end") => -width,
        _ => 0.0,
    };
    match element.attributes.get("transform") {
        None => Some([x + start, y - 0.73 * size, x + start + width, y + 0.2 * size]),
        Some(turn) if turn.starts_with("rotate(-90 ") => {
            Some([x - 0.73 * size, y - start - width, x + 0.2 * size, y - start])
        }
        Some(_) => None,
    }
}

fn decoded(png: &[u8]) -> image::RgbImage {
    image::load_from_memory(png).unwrap().into_rgb8()
}

#[test]
fn figures_are_whole_and_the_same_each_time() {
    for (name, figure) in figures() {
        let (svg, png) = (figure.svg().unwrap(), figure.png().unwrap());
        if let Some(folder) = std::env::var_os("FIGURES") {
            let file = std::path::Path::new(&folder).join(name);
            std::fs::write(file.with_extension("svg"), &svg).unwrap();
            std::fs::write(file.with_extension("png"), &png).unwrap();
        }
        assert_eq!(svg, figure.svg().unwrap(), "{name}");
        assert_eq!(png, figure.png().unwrap(), "{name}");
        let elements = elements(&svg);
        assert_eq!(elements[0].attributes["role"], "img");
        assert_eq!((&*elements[1].name, &elements[1].text), ("title", &figure.title));
        assert_eq!((&*elements[2].name, &elements[2].text), ("desc", &figure.description));
        assert!(elements.iter().filter(|element| element.name == "title").count() > 8, "{name} has no tooltips");
        for forbidden in ["NaN", "inf", "http://www.w3.org/1999", "<image", "url(", " id=\""] {
            assert!(!svg.contains(forbidden), "{name} has {forbidden}");
        }
        assert!(svg.len() < 150_000, "{name}: {} bytes", svg.len());
        let image = decoded(&png);
        let size = ["width", "height"].map(|side| 2 * elements[0].number(side) as u32);
        assert_eq!([image.width(), image.height()], size, "{name}");
    }
}

#[test]
fn texts_stay_in_the_figure_and_apart_from_each_other() {
    let font = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/src/report/figure/font/figures.ttf")).unwrap();
    let face = ttf_parser::Face::parse(&font, 0).unwrap();
    for (name, figure) in figures() {
        let elements = elements(&figure.svg().unwrap());
        let [width, height] = ["width", "height"].map(|side| elements[0].number(side));
        let texts = elements.iter().filter(|element| element.name == "text");
        let boxes: Vec<(&str, [f64; 4])> =
            texts.filter_map(|text| Some((&*text.text, text_box(&face, text)?))).collect();
        assert!(boxes.len() > 12, "{name}");
        for (at, (text, one)) in boxes.iter().enumerate() {
            assert!(one[0] >= 0.0 && one[1] >= 0.0 && one[2] <= width && one[3] <= height, "{name}: {text} {one:?}");
            let over = |two: &[f64; 4]| one[0] < two[2] && two[0] < one[2] && one[1] < two[3] && two[1] < one[3];
            let hit = boxes[at + 1..].iter().find(|(_, two)| over(two));
            assert!(hit.is_none(), "{name}: {text} {one:?} and {hit:?}");
        }
    }
}

/// One panel with fixed ranges, so that places follow from the ends of the axes alone.
fn single(x: Axis, y: Axis, marks: Vec<Mark>) -> Figure {
    Figure {
        title: "One".into(),
        description: "One panel.".into(),
        series: Series::Categories,
        columns: 1,
        panels: vec![Panel::Chart(Chart { title: String::new(), x, y, marks })],
    }
}

/// Left, top, right and bottom of the axes: the only outline of three points that is not filled and not dashed.
fn axes(elements: &[Element]) -> [f64; 4] {
    let mut outlines =
        elements.iter().filter(|element| element.name == "path" && element.attributes.contains_key("fill"));
    let corners = outlines.find_map(|path| Some(outline(path)).filter(|places| places.len() == 3)).unwrap();
    [corners[0][0], corners[0][1], corners[2][0], corners[2][1]]
}

#[test]
fn marks_are_where_their_values_say_on_both_canvases() {
    let spot = |x, y| Spot { x, y, label: String::new() };
    let marks =
        vec![Mark::Points { name: "p".into(), points: vec![spot(0.25, 100.0), spot(0.9, 10.0), spot(2.0, 10.0)] }];
    let figure = single(Axis::linear("x").between(0.0, 1.0), Axis::logarithmic("y").between(1.0, 10_000.0), marks);
    let elements = elements(&figure.svg().unwrap());
    let [left, top, right, bottom] = axes(&elements);
    let expected = [[0.25, 0.5], [0.9, 0.25]];
    let expected = expected.map(|[x, y]| [left + x * (right - left), bottom - y * (bottom - top)]);
    let circles: Vec<[f64; 2]> = elements
        .iter()
        .filter(|element| element.name == "circle")
        .map(|circle| [circle.number("cx"), circle.number("cy")])
        .collect();
    assert_eq!(circles.len(), 2, "a point beyond the axis is left out");
    let image = decoded(&figure.png().unwrap());
    for ([x, y], [wanted_x, wanted_y]) in circles.into_iter().zip(expected) {
        assert!((x - wanted_x).abs() < 0.011 && (y - wanted_y).abs() < 0.011, "{x} {y} {wanted_x} {wanted_y}");
        let pixel = |x: f64, y: f64| image.get_pixel((2.0 * x) as u32, (2.0 * y) as u32).0;
        assert_eq!(pixel(wanted_x, wanted_y), [0x00, 0x72, 0xb2]);
        assert_ne!(pixel(wanted_x + 9.0, wanted_y - 9.0), [0x00, 0x72, 0xb2]);
    }
    assert_eq!(image.get_pixel(2, 2).0, [255; 3]);
}

/// The colour of a class such as `f0072b2` or `s1f2328-e6edf3`: that of light pages, or of dark ones.
fn colour(element: &Element, property: char, dark: bool) -> Option<[u8; 3]> {
    let classes = element.attributes.get("class")?.split(' ');
    let mut values = classes.filter_map(|class| class.strip_prefix(property)).filter(|class| class.len() >= 6);
    let (light, other) = values.next().map(|class| class.split_once('-').unwrap_or((class, class)))?;
    let code = u32::from_str_radix(if dark { other } else { light }, 16).ok()?;
    Some([(code >> 16) as u8, (code >> 8) as u8, code as u8])
}

/// Contrast ratio of WCAG 2.2.
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let luminance = |channels: [u8; 3]| {
        let linear = channels.map(|channel| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05
    };
    let (one, other) = (luminance(one), luminance(other));
    one.max(other) / one.min(other)
}

#[test]
fn cells_have_the_colours_of_their_values_and_letters_that_are_read() {
    let mut figure = correlations();
    figure.panels.truncate(1);
    let heatmap = heatmap_of(&mut figure);
    heatmap.values[..3].copy_from_slice(&[Some(-1.0), Some(0.0), Some(1.0)]);
    let elements = elements(&figure.svg().unwrap());
    let cells = elements.windows(3).filter(|three| three[1].name == "title" && three[0].name == "path");
    let cells: Vec<&[Element]> = cells.collect();
    assert_eq!(cells.len(), 80);
    let fill = |cell: usize| colour(&cells[cell][0], 'f', false).unwrap();
    assert_eq!([fill(0), fill(1), fill(2)], [[0x08, 0x40, 0x6f], [0xf5, 0xf5, 0xf3], [0x7a, 0x2f, 0x02]]);
    for cell in cells {
        if cell[1].text.ends_with("no value") {
            continue;
        }
        assert!(cell[1].text.ends_with(&cell[2].text), "{cell:?}");
        for dark in [false, true] {
            let [ground, letters] = [0, 2].map(|part| colour(&cell[part], 'f', dark).unwrap());
            assert!(contrast(ground, letters) >= 4.5, "{cell:?}");
        }
    }
}

#[test]
fn series_differ_in_more_than_their_colours() {
    let elements = elements(&strength_over_steps().svg().unwrap());
    let wide = |element: &&Element| element.attributes.get("stroke-width").is_some_and(|width| width == "1.8");
    let lines: Vec<&Element> = elements.iter().filter(wide).collect();
    // Two signs in the legend, then two lines.
    let dashes: Vec<Option<&String>> = lines.iter().map(|line| line.attributes.get("stroke-dasharray")).collect();
    assert_eq!(dashes.len(), 4);
    assert!(dashes[0].is_none() && dashes[1].is_some() && dashes[..2] == dashes[2..], "{dashes:?}");
    let colours: Vec<_> = lines.iter().map(|line| colour(line, 's', false)).collect();
    assert_eq!(colours, [[0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00], [0x00, 0x72, 0xb2], [0xd5, 0x5e, 0x00]].map(Some));
    let circles = elements.iter().filter(|element| element.name == "circle").count();
    assert_eq!(circles, 1 + 8, "only the first series has circles");
}

#[test]
fn a_gap_in_the_values_is_a_gap_in_the_line() {
    let line = |values: &[f64]| {
        let points = estimates((0..).zip(values).map(|(x, &y)| (f64::from(x), y, None)));
        let marks = vec![Mark::Line { name: "l".into(), points }];
        let figure = single(Axis::linear("x").between(0.0, 5.0), Axis::linear("y").between(0.0, 1.0), marks);
        let elements = elements(&figure.svg().unwrap());
        let wide = |element: &&Element| element.attributes.get("stroke-width").is_some_and(|width| width == "1.8");
        elements.iter().filter(wide).map(|path| outline(path).len()).collect::<Vec<_>>()
    };
    assert_eq!(line(&[0.1, 0.5, 0.2, 0.4, 0.3, 0.9]), [6]);
    assert_eq!(line(&[0.1, 0.5, f64::NAN, 0.4, 0.3, 0.9]), [2, 3]);
    assert_eq!(line(&[0.1, f64::NAN, 0.2, f64::NAN]), [0; 0]);
}

#[test]
fn tooltips_tell_values_with_their_units() {
    let told = |figure: &Figure| {
        let elements = elements(&figure.svg().unwrap());
        elements
            .into_iter()
            .skip(2)
            .filter(|element| element.name == "title")
            .map(|title| title.text)
            .collect::<Vec<_>>()
    };
    let all = told(&shift_and_accuracy());
    assert!(
        all.iter().any(|told| told.starts_with("VQAv2, in distribution\nshift: mean Mahalanobis distance (standard"))
    );
    let cells = told(&correlations());
    assert_eq!(cells.len(), 160);
    assert_eq!(cells[17], "vanilla FT, TextVQA\ncorrelation (Pearson): no value");
    let bars = told(&distances());
    // The density of N(30, 5) at 15; bars further left are too low to be pointed at.
    let first = "train (VQAv2)\nMahalanobis distance (standard deviations): 14 to 16\ndensity: 0.0008864";
    assert_eq!(bars[0], first);
    let points = told(&sensitivity());
    assert_eq!(points[0], "in distribution\nstep size μ: 0.0001\naccuracy (%): 84.8 (83.9 to 85.6)");
}

#[test]
fn names_of_any_script_and_with_marks_are_written() {
    let spot = Spot { x: 1.0, y: 2.0, label: "画像 <b> & \"q\" 'r'".into() };
    let marks = vec![Mark::Points { name: "Über < λ".into(), points: vec![spot] }, Mark::Note("x & y\u{1}".into())];
    let mut figure = single(Axis::linear("<x>"), Axis::linear("y"), marks);
    figure.title = "a < b & c".into();
    let svg = figure.svg().unwrap();
    let texts: Vec<String> = elements(&svg).into_iter().map(|element| element.text).collect();
    for expected in
        ["a &lt; b &amp; c", "画像 &lt;b&gt; &amp; &quot;q&quot; &#39;r&#39;", "&lt;x&gt;", "x &amp; y\u{fffd}"]
    {
        assert!(texts.iter().any(|text| text == expected), "{expected} not in {texts:?}");
    }
    assert!(decoded(&figure.png().unwrap()).width() > 0);
}

#[test]
fn a_dark_page_has_colours_of_its_own() {
    for (name, figure) in figures() {
        let svg = figure.svg().unwrap();
        let (light, dark) = svg.split_once("@media (prefers-color-scheme: dark)").unwrap();
        assert!(light.contains("{fill:#ffffff}") && dark.contains("{fill:#0d1117}"), "{name}: the ground");
        assert!(light.contains("{fill:#1f2328}") && dark.contains("{fill:#e6edf3}"), "{name}: the texts");
        let drawn = dark.split_once("</style>").unwrap().1;
        assert!(!drawn.contains('#') || drawn.contains("&#39;"), "{name}: a colour beside the style sheet");
    }
}

#[test]
fn no_values_are_no_data() {
    let nothing = |marks| {
        let svg = single(Axis::linear("x"), Axis::linear("y"), marks).svg().unwrap();
        elements(&svg).iter().any(|element| element.text == "no data")
    };
    let missing = Estimate { x: 1.0, y: f64::NAN, bounds: None };
    let densities = vec![f64::NAN; 2];
    assert!(nothing(vec![]));
    assert!(nothing(vec![Mark::Line { name: "l".into(), points: vec![missing] }]));
    assert!(nothing(vec![Mark::Histogram { name: "h".into(), edges: vec![0.0, 1.0, 2.0], densities }]));
    assert!(nothing(vec![Mark::Histogram { name: "h".into(), edges: vec![], densities: vec![] }]));
    assert!(nothing(vec![Mark::Note("words".into())]));
    let categories = Axis::categories("x", names(&["a", "b"]));
    let unmeasured = single(categories.clone(), categories, vec![]);
    assert!(elements(&unmeasured.svg().unwrap()).iter().any(|element| element.text == "no data"));
    assert!(!nothing(vec![Mark::Line { name: "l".into(), points: vec![Estimate { y: 1.0, ..missing }] }]));
    let mut figure = correlations();
    let Panel::Heatmap(heatmap) = &mut figure.panels[0] else { panic!() };
    heatmap.values.fill(Some(f64::NAN));
    figure.png().unwrap();
    heatmap_of(&mut figure).rows.clear();
    heatmap_of(&mut figure).values.clear();
    assert!(elements(&figure.svg().unwrap()).iter().any(|element| element.text == "no data"));
    figure.panels.clear();
    assert!(elements(&figure.svg().unwrap()).iter().any(|element| element.text == "no data"));
    figure.png().unwrap();
}

fn heatmap_of(figure: &mut Figure) -> &mut Heatmap {
    match &mut figure.panels[0] {
        Panel::Heatmap(heatmap) => heatmap,
        Panel::Chart(_) => panic!("the first panel is a chart"),
    }
}

#[test]
fn numbers_without_a_place_are_errors() {
    let error = |figure: &Figure| {
        let error = figure.svg().unwrap_err();
        assert_eq!(format!("{error:?}"), format!("{:?}", figure.png().unwrap_err()));
        format!("{error:?}").split_once("cannot draw the figure `One`: ").expect("names the figure").1.to_owned()
    };
    let point = |x, y, bounds| vec![Mark::Line { name: "l".into(), points: vec![Estimate { x, y, bounds }] }];
    let plain = |marks| single(Axis::linear("x"), Axis::linear("y"), marks);
    let infinite = error(&plain(point(0.0, f64::INFINITY, None)));
    assert_eq!(infinite, "the y axis of panel ``: inf is too large to be drawn");
    assert!(error(&plain(point(0.0, 1.0, Some([f64::NEG_INFINITY, 1.0])))).contains("the y axis"));
    let logarithmic = single(Axis::logarithmic("x"), Axis::linear("y"), point(0.0, 1.0, None));
    assert_eq!(error(&logarithmic), "the x axis of panel ``: 0 is not above 0, as a logarithmic axis asks");
    let categories = Axis::categories("x", names(&["a", "b"]));
    assert_eq!(
        error(&single(categories, Axis::linear("y"), point(2.0, 1.0, None))),
        "the x axis of panel ``: 2 is no position in a list of 2"
    );
    for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (-1e308, 1e308)] {
        let figure = single(Axis::linear("x").between(low, high), Axis::linear("y"), vec![]);
        assert!(error(&figure).contains("is no range"), "{low} {high}");
    }
    let bars = |edges: &[f64], densities: &[f64]| {
        let (edges, densities) = (edges.to_vec(), densities.to_vec());
        error(&plain(vec![Mark::Histogram { name: "h".into(), edges, densities }]))
    };
    assert_eq!(bars(&[0.0, 1.0], &[0.5, 0.5]), "the histogram `h` of panel `` has 2 edges and 2 densities");
    assert!(bars(&[0.0, 0.0], &[0.5]).ends_with("edges that do not ascend"));
    assert!(bars(&[0.0, f64::NAN], &[0.5]).ends_with("edges that do not ascend"));
    assert!(bars(&[0.0, 1.0], &[-0.5]).ends_with("a density below 0"));
    let mut figure = Figure { title: "One".into(), ..correlations() };
    heatmap_of(&mut figure).values.pop();
    assert_eq!(error(&figure), "the heatmap of panel `Visual shift`: 79 values for 8 rows of 10");
    heatmap_of(&mut figure).values.push(Some(f64::INFINITY));
    assert_eq!(error(&figure), "the heatmap of panel `Visual shift`: inf is too large to be drawn");
    let many = Figure { title: "One".into(), columns: 10, ..correlations() };
    let many = Figure { panels: many.panels.iter().cycle().take(10).cloned().collect(), ..many };
    assert_eq!(error(&many), "10 panels side by side have no room");
    assert_eq!(error(&Figure { columns: 0, ..many }), "no columns for the panels");
}

#[test]
fn an_extreme_figure_is_drawn() {
    let points = (0..20_000).map(|step| (f64::from(step), Random::new(1).uniform(step as u64), Some([0.0, 1e300])));
    let marks = vec![Mark::Line { name: "long".into(), points: estimates(points) }];
    let figure = single(Axis::linear("step"), Axis::linear("value").between(0.0, 1.0), marks);
    assert!(figure.svg().unwrap().len() < 600_000);
    let long = "a very long name of a dataset that no margin has room for, however it is laid out";
    let categories = Axis::categories("dataset", vec![long.into(); 12]);
    let marks = vec![Mark::Line { name: long.into(), points: estimates((0..12).map(|x| (f64::from(x), 1e-9, None))) }];
    let mut figure = single(categories, Axis::linear(long), marks);
    assert!(matches!(&figure.panels[0], Panel::Chart(Chart { x: Axis { scale: Scale::Categories(_), .. }, .. })));
    figure.title = long.repeat(3);
    elements(&figure.svg().unwrap());
    figure.png().unwrap();
}
