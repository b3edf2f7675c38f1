//! Which questions are answered together: a pure function of the question list.
//!
//! Questions on one image stay close, so that its features are computed once; within a window they are sorted by
//! length, so that little is padded. Because nothing else decides the batches, a run that goes on after a kill
//! computes exactly the batches it would have computed.

use crate::data::Dataset;

/// Batches of a window share their image features.
const BATCHES_PER_WINDOW: usize = 4;
/// Upper bound of images per window, in batches.
const IMAGES_PER_WINDOW: usize = 2;
/// Upper bound of image patch pairs per window. The scores of the image tower grow with them: at 16 heads in f32 they
/// take one gigabyte then.
const PATCH_PAIRS_PER_WINDOW: usize = 1 << 24;

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
    /// The schedule for batches of `batch_size` questions about images of `patches` patches.
    pub(super) fn new(dataset: &Dataset, batch_size: usize, patches: usize) -> Self {
        let images_of = dataset.image_numbers();
        let mut order: Vec<u32> = (0..images_of.len() as u32).collect();
        order.sort_by_key(|index| images_of[*index as usize]);
        let most_questions = batch_size.saturating_mul(BATCHES_PER_WINDOW);
        let fitting = PATCH_PAIRS_PER_WINDOW / patches.saturating_mul(patches).max(1);
        let most_images = batch_size.saturating_mul(IMAGES_PER_WINDOW).min(fitting).max(1);
        let image_at = |at: usize| images_of[order[at] as usize];
        let mut windows = Vec::new();
        let (mut start, mut images) = (0, 0);
        for at in 0..order.len() {
            let new_image = at == start || image_at(at) != image_at(at - 1);
            if at - start >= most_questions || (new_image && images >= most_images) {
                windows.push(start..at);
                (start, images) = (at, 0);
            }
            images += usize::from(new_image || at == start);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use crate::data::{Id, ImageFolder, ImageName, Question, Relations};

    fn dataset(images: &[i64]) -> Dataset {
        let question = |(index, image): (usize, &i64)| Question {
            question_id: Id::Number(index as i64),
            image_id: Id::Number(*image),
            text: "q".into(),
        };
        Dataset {
            name: "set".to_owned(),
            questions: images.iter().enumerate().map(question).collect(),
            references: None,
            relations: Relations::default(),
            images: Arc::new(ImageFolder::new("", ImageName::unknown())),
        }
    }

    #[test]
    fn every_question_is_in_one_window_and_images_stay_together() {
        let images: Vec<i64> = (0..1000).map(|index| (index * 7919) % 61).collect();
        let schedule = Schedule::new(&dataset(&images), 8, 16);
        let mut seen: Vec<usize> = schedule.windows.iter().flat_map(|window| schedule.questions(window)).collect();
        let changes = seen.windows(2).filter(|two| images[two[0]] != images[two[1]]).count();
        assert_eq!(changes, 60, "61 images change 60 times");
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
        assert!(schedule.windows.iter().all(|window| window.len() <= 32));
    }

    fn window_sizes(images: &[i64], batch_size: usize, patches: usize) -> Vec<usize> {
        Schedule::new(&dataset(images), batch_size, patches).windows.iter().map(|window| window.len()).collect()
    }

    #[test]
    fn windows_of_one_question_per_image_hold_two_batches() {
        let images: Vec<i64> = (0..100).collect();
        assert_eq!(window_sizes(&images, 8, 16), [16, 16, 16, 16, 16, 16, 4]);
    }

    #[test]
    fn windows_of_large_images_hold_few() {
        let images: Vec<i64> = (0..5).flat_map(|image| [image, image]).collect();
        assert_eq!(window_sizes(&images, 8, 4096), [2, 2, 2, 2, 2]);
        assert_eq!(window_sizes(&images, usize::MAX, 16), [10]);
    }
}
