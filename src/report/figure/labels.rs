//! Places for labels beside their points, where they cover neither points nor each other.

use super::clip;
use super::scene::{Point, Rect};

/// A label and its point.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub point: Point,
    /// Width and height of the label; without a width, its point is only an obstacle.
    pub size: [f64; 2],
}

/// What is there already.
pub(super) struct Obstacles<'a> {
    /// The labels stay within.
    pub frame: Rect,
    /// Never covered.
    pub boxes: &'a [Rect],
    /// Covered only where there is no other place.
    pub lines: &'a [[Point; 2]],
}

/// Extent of a marker with some room around it.
const MARKER: [f64; 2] = [12.0, 12.0];

/// Directions from a point in the order of preference, and distances.
const DIRECTIONS: [Point; 8] =
    [[1.0, 0.0], [-1.0, 0.0], [0.0, -1.0], [0.0, 1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, -1.0], [-1.0, 1.0]];
pub(super) const DISTANCES: [f64; 5] = [7.0, 14.0, 24.0, 36.0, 50.0];

/// For each label its place, or none where there is no room for it. Crowded points choose first.
pub(super) fn place(wanted: &[Wanted], obstacles: &Obstacles) -> Vec<Option<Rect>> {
    let crowd = |at: usize| {
        let [x, y] = wanted[at].point;
        let near = Rect::around([x, y], [140.0, 70.0]);
        wanted.iter().filter(|other| near.overlaps(&Rect::around(other.point, [1.0; 2]))).count()
    };
    let mut order: Vec<usize> = (0..wanted.len()).filter(|&at| wanted[at].size[0] > 0.0).collect();
    order.sort_by_key(|&at| (std::cmp::Reverse(crowd(at)), at));
    let markers: Vec<Rect> = wanted.iter().map(|label| Rect::around(label.point, MARKER)).collect();
    let mut places: Vec<Option<Rect>> = vec![None; wanted.len()];
    for at in order {
        let free = |place: &Rect| {
            let taken = markers.iter().chain(obstacles.boxes).chain(places.iter().flatten());
            obstacles.frame.holds(place) && !taken.into_iter().any(|other| place.overlaps(other))
        };
        let candidates: Vec<Rect> = candidates(&wanted[at]).filter(free).collect();
        let clear = |place: &&Rect| !obstacles.lines.iter().any(|&line| clip::segment(line, place).is_some());
        let chosen = candidates.iter().find(clear).or(candidates.first()).copied();
        places[at] = chosen;
    }
    places
}

fn candidates(&Wanted { point: [x, y], size: [width, height] }: &Wanted) -> impl Iterator<Item = Rect> {
    let beside = move |distance: f64, [right, down]: Point| {
        // Diagonal ones are nearer, since their corner is what is close to the point.
        let distance = if right * down == 0.0 { distance } else { distance * 0.6 };
        let middle = [x + right * (distance + width / 2.0), y + down * (distance + height / 2.0)];
        Rect::around(middle, [width, height])
    };
    DISTANCES.into_iter().flat_map(move |distance| DIRECTIONS.map(|direction| beside(distance, direction)))
}

/// The line from a point to its label, where that is not close to it.
pub(super) fn leader([x, y]: Point, place: &Rect) -> Option<[Point; 2]> {
    let nearest = [x.clamp(place.left, place.right), y.clamp(place.top, place.bottom)];
    let distance = (nearest[0] - x).hypot(nearest[1] - y);
    let share = 6.0 / distance;
    let start = [x + (nearest[0] - x) * share, y + (nearest[1] - y) * share];
    (distance > DISTANCES[1] + 2.0).then_some([start, nearest])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    const FRAME: Rect = Rect { left: 0.0, top: 0.0, right: 600.0, bottom: 320.0 };

    fn cloud(seed: u64, count: u64) -> Vec<Wanted> {
        let random = Random::new(seed);
        let place = |at: u64, extent: f64| 30.0 + extent * random.uniform(at);
        (0..count)
            .map(|at| Wanted { point: [place(2 * at, 540.0), place(2 * at + 1, 260.0)], size: [62.0, 12.0] })
            .collect()
    }

    #[test]
    fn labels_cover_neither_points_nor_each_other() {
        for seed in 0..20 {
            let wanted = cloud(seed, 18);
            let note = [Rect { left: 450.0, top: 4.0, right: 596.0, bottom: 40.0 }];
            let places = place(&wanted, &Obstacles { frame: FRAME, boxes: &note, lines: &[] });
            let placed: Vec<Rect> = places.into_iter().flatten().collect();
            assert!(placed.len() >= 17, "seed {seed}: only {} of 18 labels", placed.len());
            for (at, one) in placed.iter().enumerate() {
                assert!(FRAME.holds(one) && !one.overlaps(&note[0]), "seed {seed}: {one:?}");
                assert!(!placed[at + 1..].iter().any(|other| one.overlaps(other)), "seed {seed}: {one:?}");
                assert!(!wanted.iter().any(|label| one.overlaps(&Rect::around(label.point, [8.0; 2]))), "seed {seed}");
            }
        }
    }

    #[test]
    fn a_lone_label_stands_to_the_right_unless_a_line_is_there() {
        let wanted = [Wanted { point: [100.0, 100.0], size: [40.0, 12.0] }];
        let of = |lines: &[[Point; 2]], frame| place(&wanted, &Obstacles { frame, boxes: &[], lines })[0];
        assert_eq!(of(&[], FRAME), Some(Rect { left: 107.0, top: 94.0, right: 147.0, bottom: 106.0 }));
        let line = [[110.0, 0.0], [110.0, 300.0]];
        assert_eq!(of(&[line], FRAME), Some(Rect { left: 53.0, top: 94.0, right: 93.0, bottom: 106.0 }));
        assert_eq!(of(&[], Rect { left: 90.0, top: 90.0, right: 110.0, bottom: 110.0 }), None);
    }

    #[test]
    fn a_far_label_has_a_line_to_its_point() {
        let near = Rect { left: 107.0, top: 94.0, right: 147.0, bottom: 106.0 };
        assert_eq!(leader([100.0, 100.0], &near), None);
        let far = Rect { left: 130.0, top: 94.0, right: 170.0, bottom: 106.0 };
        assert_eq!(leader([100.0, 100.0], &far), Some([[106.0, 100.0], [130.0, 100.0]]));
    }
}
