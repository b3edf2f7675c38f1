//! Cuts lines and areas at the edges of a rectangle, so that neither canvas needs to.

use super::scene::{Point, Rect};

/// The parts of a line within the rectangle. A point with NaN ends one part.
pub(super) fn line(points: &[Point], within: &Rect) -> Vec<Vec<Point>> {
    let mut parts: Vec<Vec<Point>> = Vec::new();
    for pair in points.windows(2) {
        let Some([from, to]) = segment([pair[0], pair[1]], within) else { continue };
        match parts.last_mut() {
            Some(part) if part.last() == Some(&from) => part.push(to),
            _ => parts.push(vec![from, to]),
        }
    }
    parts
}

/// The part of a straight line within the rectangle, after Liang and Barsky (1984).
pub(super) fn segment([from, to]: [Point; 2], within: &Rect) -> Option<[Point; 2]> {
    let step = [to[0] - from[0], to[1] - from[1]];
    let edges = [
        (-step[0], from[0] - within.left),
        (step[0], within.right - from[0]),
        (-step[1], from[1] - within.top),
        (step[1], within.bottom - from[1]),
    ];
    let (mut enter, mut leave) = (0.0f64, 1.0f64);
    for (outwards, distance) in edges {
        if outwards.is_nan() || distance.is_nan() || (outwards == 0.0 && distance < 0.0) {
            return None;
        }
        if outwards < 0.0 {
            enter = enter.max(distance / outwards);
        } else if outwards > 0.0 {
            leave = leave.min(distance / outwards);
        }
    }
    let at = |share: f64| match share {
        0.0 => from,
        1.0 => to,
        _ => [from[0] + step[0] * share, from[1] + step[1] * share],
    };
    (enter <= leave).then(|| [at(enter), at(leave)])
}

/// The part of an area within the rectangle, after Sutherland and Hodgman (1974).
pub(super) fn area(points: &[Point], within: &Rect) -> Vec<Point> {
    let edges = [(0, 1.0, within.left), (0, -1.0, -within.right), (1, 1.0, within.top), (1, -1.0, -within.bottom)];
    edges.iter().fold(points.to_vec(), |points, &(direction, sign, bound)| {
        let depth = |point: Point| sign * point[direction] - bound;
        let nexts = points.iter().cycle().skip(1);
        let cut = points.iter().zip(nexts).flat_map(|(&from, &to)| {
            let (start, end) = (depth(from), depth(to));
            let share = start / (start - end);
            let crossing = [from[0] + (to[0] - from[0]) * share, from[1] + (to[1] - from[1]) * share];
            let kept = (start >= 0.0).then_some(from);
            kept.into_iter().chain(((start >= 0.0) != (end >= 0.0)).then_some(crossing))
        });
        cut.collect()
    })
}

/// The line without points that lie closer than this to what is left, after Ramer (1972), Douglas and Peucker (1973).
pub(super) fn simplified(points: &[Point], tolerance: f64) -> Vec<Point> {
    let mut kept = vec![false; points.len()];
    let mut open = vec![(0, points.len().saturating_sub(1))];
    while let Some((first, last)) = open.pop() {
        for end in [first, last] {
            kept.get_mut(end).into_iter().for_each(|kept| *kept = true);
        }
        let between = points.iter().enumerate().take(last).skip(first + 1);
        let distances = between.map(|(at, &point)| (at, distance(point, [points[first], points[last]])));
        if let Some((at, far)) = distances.max_by(|one, other| one.1.total_cmp(&other.1))
            && far > tolerance
        {
            open.extend([(first, at), (at, last)]);
        }
    }
    points.iter().zip(kept).filter_map(|(&point, kept)| kept.then_some(point)).collect()
}

/// Distance of a point from a straight line between two others.
fn distance(point: Point, [from, to]: [Point; 2]) -> f64 {
    let (step, offset) = ([to[0] - from[0], to[1] - from[1]], [point[0] - from[0], point[1] - from[1]]);
    let square = step[0] * step[0] + step[1] * step[1];
    let along = if square > 0.0 { (offset[0] * step[0] + offset[1] * step[1]) / square } else { 0.0 };
    let share = along.clamp(0.0, 1.0);
    (offset[0] - step[0] * share).hypot(offset[1] - step[1] * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SQUARE: Rect = Rect { left: 0.0, top: 0.0, right: 10.0, bottom: 10.0 };

    #[test]
    fn lines_end_at_the_edges_and_at_gaps() {
        let through = line(&[[-5.0, 5.0], [5.0, 5.0], [15.0, 15.0]], &SQUARE);
        assert_eq!(through, [vec![[0.0, 5.0], [5.0, 5.0], [10.0, 10.0]]]);
        let gap = line(&[[1.0, 1.0], [2.0, 2.0], [f64::NAN, 3.0], [4.0, 4.0], [5.0, 4.0]], &SQUARE);
        assert_eq!(gap, [vec![[1.0, 1.0], [2.0, 2.0]], vec![[4.0, 4.0], [5.0, 4.0]]]);
        let twice = line(&[[2.0, 5.0], [2.0, 20.0], [4.0, 20.0], [4.0, 5.0]], &SQUARE);
        assert_eq!(twice, [vec![[2.0, 5.0], [2.0, 10.0]], vec![[4.0, 10.0], [4.0, 5.0]]]);
        assert_eq!(segment([[-1.0, 3.0], [-1.0, 4.0]], &SQUARE), None);
    }

    #[test]
    fn areas_are_cut_on_all_sides() {
        let cut = area(&[[-5.0, -5.0], [15.0, -5.0], [15.0, 15.0], [-5.0, 15.0]], &SQUARE);
        let (mut cut, mut corners) = (cut, SQUARE.corners());
        let order = |one: &Point, other: &Point| one.partial_cmp(other).unwrap();
        cut.sort_by(order);
        corners.sort_by(order);
        assert_eq!(cut, corners);
        assert_eq!(area(&[[20.0, 20.0], [30.0, 20.0], [30.0, 30.0]], &SQUARE), [[0.0; 2]; 0]);
    }

    #[test]
    fn what_is_left_of_a_line_is_close_to_all_of_it() {
        let points: Vec<Point> =
            (0..2000).map(|at| f64::from(at) / 10.0).map(|x| [x, 30.0 * (x / 20.0).sin()]).collect();
        let left = simplified(&points, 0.2);
        assert!(left.len() < 100 && left[0] == points[0] && left.last() == points.last(), "{}", left.len());
        for point in points {
            let nearest = left.windows(2).map(|pair| distance(point, [pair[0], pair[1]])).fold(f64::MAX, f64::min);
            assert!(nearest <= 0.2, "{point:?}: {nearest}");
        }
        assert_eq!(simplified(&[[1.0, 2.0]], 0.2), [[1.0, 2.0]]);
        assert_eq!(simplified(&[], 0.2), [[0.0; 2]; 0]);
    }
}
