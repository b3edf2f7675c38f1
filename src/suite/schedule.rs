//! Which questions are answered together: a pure function of the question list.
//!
//! Questions on one image stay close, so that its features are computed once; within a window they are sorted by
//! length, so that little is padded. Because nothing else decides the batches, a run that goes on after a kill
//! computes exactly the batches it would have computed.

use std::collections::HashMap;

use crate::data::{Id, Question};

/// Batches of a window share their image features.
const BATCHES_PER_WINDOW: usize = 4;
/// Upper bound of images per window, in batches, which bounds the memory of pixels and features.
const IMAGES_PER_WINDOW: usize = 2;

/// A run of questions whose images are prepared together: a range of [`Schedule::order`].
pub(super) type Window = std::ops::Range<usize>;

/// The order in which questions are answered.
pub(super) struct Schedule {
    /// Positions in the question list, those of one image side by side.
    pub order: Vec<u32>,
    /// Consecutive parts of `order`.
    pub windows: Vec<Window>,
}

impl Schedule {
    pub(super) fn new(questions: &[Question], batch_size: usize) -> Self {
        let order = by_image(questions);
        let mut windows = Vec::new();
        let (mut start, mut images) = (0, 0);
        for at in 0..order.len() {
            let new_image = at == start || image(questions, &order, at) != image(questions, &order, at - 1);
            let full = at - start >= BATCHES_PER_WINDOW * batch_size
                || (new_image && images >= IMAGES_PER_WINDOW * batch_size);
            if full {
                windows.push(start..at);
                (start, images) = (at, 0);
            }
            images += usize::from(new_image || full);
        }
        if start < order.len() {
            windows.push(start..order.len());
        }
        Self { order, windows }
    }

    /// The questions of a window.
    pub(super) fn questions(&self, window: &Window) -> impl Iterator<Item = usize> {
        self.order[window.clone()].iter().map(|index| *index as usize)
    }
}

fn image<'a>(questions: &'a [Question], order: &[u32], at: usize) -> &'a Id {
    &questions[order[at] as usize].image_id
}

/// Positions sorted by the first appearance of their image; equal images keep the order of their questions.
fn by_image(questions: &[Question]) -> Vec<u32> {
    let mut rank: HashMap<&Id, u32> = HashMap::new();
    let ranks: Vec<u32> = questions
        .iter()
        .map(|question| {
            let next = rank.len() as u32;
            *rank.entry(&question.image_id).or_insert(next)
        })
        .collect();
    let mut order: Vec<u32> = (0..questions.len() as u32).collect();
    order.sort_by_key(|index| ranks[*index as usize]);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn questions(images: &[i64]) -> Vec<Question> {
        let question = |(index, image): (usize, &i64)| Question {
            question_id: Id::Number(index as i64),
            image_id: Id::Number(*image),
            text: "q".into(),
        };
        images.iter().enumerate().map(question).collect()
    }

    #[test]
    fn every_question_is_in_one_window_and_images_stay_together() {
        let images: Vec<i64> = (0..1000).map(|index| (index * 7919) % 61).collect();
        let questions = questions(&images);
        let schedule = Schedule::new(&questions, 8);
        let mut seen: Vec<usize> = schedule.windows.iter().flat_map(|window| schedule.questions(window)).collect();
        let changes = seen.windows(2).filter(|two| images[two[0]] != images[two[1]]).count();
        assert_eq!(changes, 60, "61 images change 60 times");
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert!(schedule.windows.iter().all(|window| window.len() <= 32));
    }

    #[test]
    fn windows_of_one_question_per_image_hold_two_batches() {
        let questions = questions(&(0..100).collect::<Vec<_>>());
        let sizes: Vec<usize> = Schedule::new(&questions, 8).windows.iter().map(|window| window.len()).collect();
        assert_eq!(sizes, [16, 16, 16, 16, 16, 16, 4]);
    }
}
