//! Axes and marks as shapes.

use super::clip;
use super::colour::{AXIS, Colour, GRID, GROUND, MUTED, TEXT};
use super::labels::{self, Obstacles, Wanted};
use super::layout::{LABEL, LINE, Sheet, TICK, TURNED, WIDEST, overhang};
use super::legend::{Look, REFERENCE, TINT};
use super::scale::{self, Map, Tick, significant};
use super::scene::{Anchor, Item, Point, Rect};
use super::text::{BASELINE, CAPITAL, DEPTH, Font};
use super::{Axis, Chart, Estimate, Mark, Scale, Spot};

/// Most points of a line that have error bars in place of a band.
const FEW: usize = 12;
/// Markers of a line that has no room for one on each of its points.
const MARKS: usize = 8;
/// Error of simplified lines in pixels, which nobody sees.
const TOLERANCE: f64 = 0.15;
/// Room between ticks and their labels.
const TICK_GAP: f64 = 7.0;
const NOTE: f64 = 12.5;

/// One axis: what it shows, and its ticks.
struct Direction<'a> {
    axis: &'a Axis,
    range: Option<[f64; 2]>,
    whole: bool,
}

impl Chart {
    fn direction(&self, direction: usize) -> Direction<'_> {
        let axis = [&self.x, &self.y][direction];
        let values: Vec<f64> = self.marks.iter().flat_map(|mark| mark.values(direction)).collect();
        let there = values.iter().copied().filter(|value| !value.is_nan());
        let whole = there.clone().all(|value| value.fract() == 0.0);
        Direction { axis, range: scale::range(axis, there), whole }
    }

    fn has_data(&self) -> bool {
        let values = |direction| self.marks.iter().flat_map(move |mark| mark.values(direction));
        scale::ends(values(0)).is_some() && scale::ends(values(1)).is_some()
    }

    /// Width of what stands to the left of the y axis, without its label.
    pub(super) fn left(&self, sheet: &Sheet, height: f64) -> f64 {
        let labels = self.vertical(sheet.font, height).1.into_iter().map(|tick| sheet.font.width(&tick.label, TICK));
        let beside = labels.fold(0.0, f64::max) + TICK_GAP;
        let Scale::Categories(names) = &self.x.scale else { return beside };
        let widths: Vec<f64> = names.iter().map(|name| sheet.font.width(name, TICK).min(WIDEST)).collect();
        beside.max(overhang(&widths))
    }

    /// Height of what stands below the x axis, without its label.
    pub(super) fn below(&self, sheet: &Sheet, width: f64) -> f64 {
        if !self.has_data() {
            return TICK_GAP;
        }
        let (_, ticks, slanted) = self.horizontal(sheet.font, width);
        let widest = ticks.iter().map(|tick| sheet.font.width(&tick.label, TICK)).fold(0.0, f64::max);
        TICK_GAP + if slanted { widest * TURNED + LINE / 2.0 } else { LINE - 3.0 }
    }

    /// The ticks of the y axis from the bottom up, for this height.
    fn vertical(&self, font: &Font, height: f64) -> (Option<Map>, Vec<Tick>) {
        self.direction(1).fitting(font, [height, 0.0], 7, |_| TICK + 14.0)
    }

    /// The ticks of the x axis, for this width, and whether their labels are slanted for lack of room.
    fn horizontal(&self, font: &Font, width: f64) -> (Option<Map>, Vec<Tick>, bool) {
        let extent = |label: &str| font.width(label, TICK) + 8.0;
        let (map, ticks) = self.direction(0).fitting(font, [0.0, width], 9, extent);
        let slanted = map.is_some_and(|map| !apart(&map, &ticks, extent));
        (map, ticks, slanted)
    }

    /// Everything between the axes, and the axes with their ticks.
    pub(super) fn draw(&self, sheet: &Sheet, plot: &Rect) -> Vec<Item> {
        let (x, x_ticks, slanted) = self.horizontal(sheet.font, plot.width());
        let (y, y_ticks) = self.vertical(sheet.font, plot.height());
        let (Some(x), Some(y), true) = (x, y, self.has_data()) else {
            return axes(plot).into_iter().chain([no_data(plot)]).collect();
        };
        let plane = Plane { chart: self, sheet, plot: *plot, x, y };
        let mut items = plane.grid(&x_ticks, &y_ticks);
        items.extend(self.marks.iter().flat_map(|mark| plane.behind(mark)));
        items.extend(axes(plot));
        items.extend(plane.tick_labels(&x_ticks, &y_ticks, slanted));
        items.extend(self.marks.iter().flat_map(|mark| plane.before(mark)));
        items.extend(plane.words());
        items
    }
}

pub(super) fn no_data(plot: &Rect) -> Item {
    let [x, y] = plot.middle();
    Item::text("no data", [x, y + LABEL * BASELINE], Anchor::Middle, LABEL).filled(MUTED)
}

fn axes(plot: &Rect) -> [Item; 1] {
    let corners = vec![[plot.left, plot.top], [plot.left, plot.bottom], [plot.right, plot.bottom]];
    [Item::line(corners).stroked(AXIS, 1.0, &[])]
}

impl Direction<'_> {
    /// The most ticks, at most `most`, whose labels do not meet; `extent` is that of a label along the axis.
    fn fitting(
        &self,
        font: &Font,
        pixels: [f64; 2],
        most: usize,
        extent: impl Fn(&str) -> f64 + Copy,
    ) -> (Option<Map>, Vec<Tick>) {
        let Some(range) = self.range else { return (None, Vec::new()) };
        let map = Map::new(self.axis, range, pixels);
        let cut = |tick: Tick| Tick { label: font.shorten(&tick.label, TICK, WIDEST), ..tick };
        let ticks = |most| scale::ticks(self.axis, range, most, self.whole).into_iter().map(cut).collect::<Vec<_>>();
        let found = (2..=most).rev().map(ticks).find(|ticks| apart(&map, ticks, extent));
        (Some(map), found.unwrap_or_else(|| ticks(1)))
    }
}

/// Whether no label meets the next one.
fn apart(map: &Map, ticks: &[Tick], extent: impl Fn(&str) -> f64) -> bool {
    ticks.windows(2).all(|pair| {
        let room = pair.iter().map(|tick| extent(&tick.label)).sum::<f64>() / 2.0;
        (map.at(pair[1].value) - map.at(pair[0].value)).abs() >= room
    })
}

/// A chart with its place.
struct Plane<'a> {
    chart: &'a Chart,
    sheet: &'a Sheet<'a>,
    plot: Rect,
    /// From the left edge.
    x: Map,
    /// From the upper edge.
    y: Map,
}

impl Plane<'_> {
    fn at(&self, x: f64, y: f64) -> Point {
        [self.plot.left + self.x.at(x), self.plot.top + self.y.at(y)]
    }

    fn shows(&self, [x, y]: Point) -> bool {
        self.plot.grown(1e-6).holds(&Rect { left: x, top: y, right: x, bottom: y })
    }

    fn look(&self, name: &str) -> Look {
        self.sheet.legend.look(name)
    }

    fn grid(&self, x_ticks: &[Tick], y_ticks: &[Tick]) -> Vec<Item> {
        let Rect { left, top, right, bottom } = self.plot;
        let upright = x_ticks.iter().filter(|_| !matches!(self.chart.x.scale, Scale::Categories(_))).map(|tick| {
            let x = left + self.x.at(tick.value);
            [[x, top], [x, bottom]]
        });
        let level = y_ticks.iter().map(|tick| {
            let y = top + self.y.at(tick.value);
            [[left, y], [right, y]]
        });
        upright.chain(level).map(|ends| Item::line(ends.to_vec()).stroked(GRID, 1.0, &[])).collect()
    }

    fn tick_labels(&self, x_ticks: &[Tick], y_ticks: &[Tick], slanted: bool) -> Vec<Item> {
        let below = x_ticks.iter().map(|tick| {
            let x = self.plot.left + self.x.at(tick.value);
            let label = tick.label.as_str();
            match slanted {
                true => {
                    Item::text(label, [x + 4.0, self.plot.bottom + TICK_GAP + 6.0], Anchor::End, TICK).turned(-45.0)
                }
                false => Item::text(label, [x, self.plot.bottom + TICK_GAP + TICK * CAPITAL], Anchor::Middle, TICK),
            }
        });
        let beside = y_ticks.iter().map(|tick| {
            let y = self.plot.top + self.y.at(tick.value) + TICK * BASELINE;
            Item::text(tick.label.as_str(), [self.plot.left - TICK_GAP, y], Anchor::End, TICK)
        });
        below.chain(beside).map(|label| label.filled(MUTED)).collect()
    }

    /// What lies behind the axes: areas and lines.
    fn behind(&self, mark: &Mark) -> Vec<Item> {
        match mark {
            Mark::Line { name, points } => self.line(self.look(name), points),
            Mark::Histogram { name, edges, densities } => self.histogram(self.look(name), edges, densities),
            Mark::Reference { name, from, to } => {
                let ends = [from, to].map(|&[x, y]| self.at(x, y));
                let (colour, width, dashes) = REFERENCE;
                let part = clip::segment(ends, &self.plot).map(|part| Item::line(part.to_vec()));
                part.map(|line| told(line.stroked(colour, width, dashes), name)).into_iter().collect()
            }
            Mark::Points { .. } | Mark::Note(_) => Vec::new(),
        }
    }

    /// What lies before the axes: markers and places of tooltips.
    fn before(&self, mark: &Mark) -> Vec<Item> {
        match mark {
            Mark::Line { name, points } => self.line_markers(name, points),
            Mark::Points { name, points } => {
                let look = self.look(name);
                let seen = points.iter().filter(|spot| self.shows(self.at(spot.x, spot.y)));
                seen.map(|spot| look.marker(self.at(spot.x, spot.y)).told(self.spot_told(name, spot))).collect()
            }
            Mark::Histogram { name, edges, densities } => self.bars_told(name, edges, densities),
            Mark::Reference { .. } | Mark::Note(_) => Vec::new(),
        }
    }

    fn line(&self, look: Look, points: &[Estimate]) -> Vec<Item> {
        let mut items = if points.len() > FEW { self.bands(look, points) } else { self.error_bars(look, points) };
        let places: Vec<Point> = points.iter().map(|point| self.at(point.x, point.y)).collect();
        items.extend(
            clip::line(&places, &self.plot).into_iter().map(|part| {
                Item::line(clip::simplified(&part, TOLERANCE)).stroked(look.colour, look.width, look.dashes)
            }),
        );
        items
    }

    /// An area for each run of points that have bounds.
    fn bands(&self, look: Look, points: &[Estimate]) -> Vec<Item> {
        let bounded = |point: &Estimate| {
            let [low, high] = point.bounds?.map(|bound| self.at(point.x, bound));
            (low[0].is_finite() && low[1].is_finite() && high[1].is_finite()).then_some([low, high])
        };
        let bounds: Vec<Option<[Point; 2]>> = points.iter().map(bounded).collect();
        let areas = bounds.split(Option::is_none).map(|run| {
            let side = |side: usize| {
                clip::simplified(&run.iter().flatten().map(|pair| pair[side]).collect::<Vec<_>>(), TOLERANCE)
            };
            let outline: Vec<Point> = side(0).into_iter().chain(side(1).into_iter().rev()).collect();
            clip::area(&outline, &self.plot)
        });
        areas.filter(|area| area.len() > 2).map(|area| Item::area(area).tinted(look.colour, TINT)).collect()
    }

    fn error_bars(&self, look: Look, points: &[Estimate]) -> Vec<Item> {
        let bars = points.iter().filter_map(|point| {
            let [low, high] = point.bounds?.map(|bound| self.at(point.x, bound));
            clip::segment([low, high], &self.plot)
        });
        let strokes = bars.flat_map(|[low, high]| {
            let cap = |[x, y]: Point| vec![[x - 3.5, y], [x + 3.5, y]];
            [vec![low, high], cap(low), cap(high)]
        });
        strokes.map(|stroke| Item::line(stroke).stroked(look.colour, 1.2, &[])).collect()
    }

    /// Markers on all points of a line, or on some where they are close, at other places for each series.
    fn line_markers(&self, name: &str, points: &[Estimate]) -> Vec<Item> {
        let look = self.look(name);
        let roomy = points.len() as f64 * look.room() <= self.plot.width();
        let every = if roomy { 1 } else { points.len().div_ceil(MARKS) };
        let first = every * (2 * look.index + 1) / (2 * self.sheet.legend.series().max(1)) % every;
        let marked = points.iter().skip(first).step_by(every).map(|point| (point, self.at(point.x, point.y)));
        marked
            .filter(|(_, at)| self.shows(*at))
            .map(|(point, at)| look.marker(at).told(self.estimate_told(name, point)))
            .collect()
    }

    fn histogram(&self, look: Look, edges: &[f64], densities: &[f64]) -> Vec<Item> {
        let foot = self.plot.top + self.y.at(0.0);
        let steps = densities.iter().zip(edges.windows(2)).flat_map(|(&density, edge)| {
            let density = if density.is_nan() { 0.0 } else { density };
            [self.at(edge[0], density), self.at(edge[1], density)]
        });
        let steps: Vec<Point> = steps.collect();
        let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return Vec::new() };
        let outline: Vec<Point> =
            [[first[0], foot]].into_iter().chain(steps.iter().copied()).chain([[last[0], foot]]).collect();
        let area = Item::area(clip::area(&outline, &self.plot)).tinted(look.colour, TINT);
        let lines = clip::line(&outline, &self.plot).into_iter();
        let lines = lines.map(|part| Item::line(clip::simplified(&part, 0.0)).stroked(look.colour, 1.5, look.dashes));
        [area].into_iter().chain(lines).collect()
    }

    /// A place of a tooltip for each bar that is high enough to be pointed at.
    fn bars_told(&self, name: &str, edges: &[f64], densities: &[f64]) -> Vec<Item> {
        let spots = densities.iter().zip(edges.windows(2)).filter_map(|(&density, edge)| {
            let [left, top] = self.at(edge[0], density);
            let [right, bottom] = self.at(edge[1], 0.0);
            let area = clip::area(&Rect { left, top, right, bottom }.corners(), &self.plot);
            let place = format!("{} to {}", significant(edge[0]), significant(edge[1]));
            let seen = bottom - top >= 1.0 && area.len() > 2;
            seen.then(|| Item::area(area).told(self.told(name, place, significant(density))))
        });
        spots.collect()
    }

    fn told(&self, name: &str, x: String, y: String) -> String {
        let lines = [(&self.chart.x.label, x), (&self.chart.y.label, y)];
        let lines = lines.map(|(label, value)| if label.is_empty() { value } else { format!("{label}: {value}") });
        let name = (!name.is_empty()).then(|| name.to_owned());
        name.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
    }

    fn estimate_told(&self, name: &str, point: &Estimate) -> String {
        let bounds = point.bounds.map(|bounds| bounds.map(significant));
        let bounds = bounds.map_or_else(String::new, |[low, high]| format!(" ({low} to {high})"));
        self.told(name, value(&self.chart.x, point.x), format!("{}{bounds}", value(&self.chart.y, point.y)))
    }

    fn spot_told(&self, name: &str, spot: &Spot) -> String {
        let names: Vec<&str> = [spot.label.as_str(), name].into_iter().filter(|name| !name.is_empty()).collect();
        self.told(&names.join(", "), value(&self.chart.x, spot.x), value(&self.chart.y, spot.y))
    }

    /// Notes and labels of points, above all marks.
    fn words(&self) -> Vec<Item> {
        let (notes, boxes) = self.notes();
        notes.into_iter().chain(self.point_labels(&boxes)).collect()
    }

    fn notes(&self) -> (Vec<Item>, Vec<Rect>) {
        let lines = self.chart.marks.iter().filter_map(|mark| match mark {
            Mark::Note(text) => Some(text.lines()),
            _ => None,
        });
        let lines: Vec<&str> = lines.flatten().collect();
        if lines.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let widest = lines.iter().map(|line| self.sheet.font.width(line, NOTE)).fold(0.0, f64::max);
        let place = self.emptiest_corner([widest, lines.len() as f64 * (NOTE + 5.0)]);
        let items = (1..).zip(&lines).map(|(number, line)| {
            let at = [place.left, place.top + f64::from(number) * (NOTE + 5.0) - 5.0];
            readable(Item::text(*line, at, Anchor::Start, NOTE), TEXT)
        });
        (items.collect(), vec![place])
    }

    /// The corner of the plot where a box of this size covers fewest of the marks.
    fn emptiest_corner(&self, [width, height]: [f64; 2]) -> Rect {
        let inner = self.plot.grown(-9.0);
        let corners = [[inner.right - width, inner.top], [inner.left, inner.top]];
        let lower = [[inner.right - width, inner.bottom - height], [inner.left, inner.bottom - height]];
        let boxes = corners.into_iter().chain(lower);
        let boxes = boxes.map(|[left, top]| Rect { left, top, right: left + width, bottom: top + height });
        let ink: Vec<Point> = self.chart.marks.iter().flat_map(|mark| self.ink(mark)).collect();
        let covered = |place: &Rect| {
            let place = place.grown(8.0);
            ink.iter().filter(|&&[x, y]| place.holds(&Rect { left: x, top: y, right: x, bottom: y })).count()
        };
        boxes.min_by_key(covered).unwrap_or(inner)
    }

    /// Points on a mark, close enough to each other to tell where it is.
    fn ink(&self, mark: &Mark) -> Vec<Point> {
        let along = |ends: [Point; 2]| {
            let step = move |at: i32| f64::from(at) / 24.0;
            (0..=24).map(move |at| [0, 1].map(|side| ends[0][side] + (ends[1][side] - ends[0][side]) * step(at)))
        };
        match mark {
            Mark::Line { points, .. } => {
                let bounds =
                    |point: &Estimate| point.bounds.unwrap_or([point.y; 2]).map(|bound| self.at(point.x, bound));
                points.iter().flat_map(|point| along(bounds(point))).collect()
            }
            Mark::Points { points, .. } => points.iter().map(|spot| self.at(spot.x, spot.y)).collect(),
            Mark::Histogram { edges, densities, .. } => {
                let bars = densities.iter().zip(edges);
                bars.flat_map(|(&density, &edge)| along([self.at(edge, 0.0), self.at(edge, density)])).collect()
            }
            Mark::Reference { from, to, .. } => along([from, to].map(|&[x, y]| self.at(x, y))).collect(),
            Mark::Note(_) => Vec::new(),
        }
    }

    fn point_labels(&self, boxes: &[Rect]) -> Vec<Item> {
        let spots = self.chart.marks.iter().filter_map(|mark| match mark {
            Mark::Points { points, .. } => Some(points),
            _ => None,
        });
        let spots: Vec<(&Spot, Point)> =
            spots.flatten().map(|spot| (spot, self.at(spot.x, spot.y))).filter(|(_, at)| self.shows(*at)).collect();
        let size = |label: &str| [self.sheet.font.width(label, TICK), TICK * (CAPITAL + 2.0 * DEPTH)];
        let wanted: Vec<Wanted> =
            spots.iter().map(|(spot, point)| Wanted { point: *point, size: size(&spot.label) }).collect();
        let obstacles = Obstacles { frame: self.plot.grown(-2.0), boxes, lines: &self.strokes() };
        let places = labels::place(&wanted, &obstacles).into_iter().zip(&spots);
        let placed = places.filter_map(|(place, (spot, point))| Some((place?, spot, *point)));
        let words = placed.flat_map(|(place, spot, point)| {
            let leader = labels::leader(point, &place).map(|ends| Item::line(ends.to_vec()).stroked(MUTED, 0.8, &[]));
            let at = [place.left, place.bottom - DEPTH * TICK];
            let label = readable(Item::text(spot.label.as_str(), at, Anchor::Start, TICK), TEXT);
            leader.into_iter().chain([label])
        });
        words.collect()
    }

    /// The straight parts of lines, which labels rather do not cover.
    fn strokes(&self) -> Vec<[Point; 2]> {
        let parts = self.chart.marks.iter().flat_map(|mark| match mark {
            Mark::Reference { from, to, .. } => vec![[from, to].map(|&[x, y]| self.at(x, y))],
            Mark::Line { points, .. } => {
                points.windows(2).map(|pair| [&pair[0], &pair[1]].map(|point| self.at(point.x, point.y))).collect()
            }
            _ => Vec::new(),
        });
        parts.collect()
    }
}

/// A text with a rim of the ground's colour, so that lines behind it do not disturb.
fn readable(text: Item, colour: Colour) -> Item {
    text.filled(colour).stroked(GROUND, 3.0, &[])
}

fn told(item: Item, name: &str) -> Item {
    if name.is_empty() { item } else { item.told(name) }
}

/// A value of an axis in words.
fn value(axis: &Axis, value: f64) -> String {
    match &axis.scale {
        Scale::Categories(names) => names.get(value.round() as usize).cloned().unwrap_or_else(|| significant(value)),
        _ => significant(value),
    }
}
