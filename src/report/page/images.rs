//! The images of a dataset as small files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::{PageEvent, SetFolder};
use crate::data::thumbnail::{Format, thumbnail};
use crate::data::{Dataset, Id};
use crate::error::{Error, Result};

/// What the file of an image is, as the explorer's data say it.
pub(super) const NO_FILE: u8 = 0;
const PNG: u8 = 1;
const JPEG: u8 = 2;

/// Decoding is bound by memory beyond this many threads.
const THREADS: usize = 8;

/// What became of an image.
enum Written {
    /// What its file is.
    File(u8),
    Unreadable(Error),
}

/// What could not be read of a dataset's images.
#[derive(Default)]
struct Unreadable<'a> {
    images: usize,
    /// The first image in the order of the questions, with its number.
    first: Option<(usize, &'a Id, Error)>,
}

/// Writes each image once, under its number in [`Dataset::image_numbers`], and returns what the file of each is. An image that
/// cannot be read has none, which is told at the end.
pub(super) fn write(folder: &SetFolder, dataset: &Dataset, on_event: &mut dyn FnMut(PageEvent)) -> Result<Vec<u8>> {
    let images = distinct(dataset);
    let mut files = vec![NO_FILE; images.len()];
    let mut unreadable = Unreadable::default();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(images.len());
    std::thread::scope(|scope| {
        let (sender, written) = mpsc::sync_channel(THREADS);
        for _ in 0..threads {
            let (sender, images, next) = (sender.clone(), &images, &next);
            scope.spawn(move || {
                while let Some((number, image)) = take(images, next) {
                    // Nobody listens any more after an error.
                    if sender.send((number, write_one(folder, dataset, number, image))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (number, written)) in written.into_iter().enumerate() {
            match written? {
                Written::File(file) => files[number] = file,
                Written::Unreadable(error) => unreadable.add(number, images[number], error),
            }
            on_event(PageEvent::Images { dataset: &dataset.name, done: done + 1, total: images.len() });
        }
        Ok::<_, Error>(())
    })?;
    unreadable.tell(dataset, on_event);
    Ok(files)
}

impl<'a> Unreadable<'a> {
    /// Images are done in any order.
    fn add(&mut self, number: usize, image: &'a Id, error: Error) {
        self.images += 1;
        if self.first.as_ref().is_none_or(|(first, ..)| number < *first) {
            self.first = Some((number, image, error));
        }
    }

    fn tell(&self, dataset: &Dataset, on_event: &mut dyn FnMut(PageEvent)) {
        if let Some((_, image, error)) = &self.first {
            let (first, cause) = (image.to_string(), told(error));
            on_event(PageEvent::Unreadable {
                dataset: &dataset.name,
                images: self.images,
                first: &first,
                cause: &cause,
            });
        }
    }
}

/// An error with its causes in one line.
fn told(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    std::iter::once(error.to_string()).chain(causes.map(ToString::to_string)).collect::<Vec<_>>().join(": ")
}

/// The images in the order of their numbers.
fn distinct(dataset: &Dataset) -> Vec<&Id> {
    let mut images = Vec::new();
    for (number, question) in dataset.image_numbers().into_iter().zip(&dataset.questions) {
        if number as usize == images.len() {
            images.push(&question.image_id);
        }
    }
    images
}

fn take<'a>(images: &[&'a Id], next: &AtomicUsize) -> Option<(usize, &'a Id)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    images.get(number).map(|image| (number, *image))
}

fn write_one(folder: &SetFolder, dataset: &Dataset, number: usize, image: &Id) -> Result<Written> {
    let decoded = match dataset.images.decode(image) {
        Ok(decoded) => decoded,
        Err(error) => return Ok(Written::Unreadable(error)),
    };
    let small = thumbnail(&decoded)?;
    folder.write_image(&format!("{number}.{}", small.format.ending()), &small.bytes)?;
    Ok(Written::File(match small.format {
        Format::Png => PNG,
        Format::Jpeg => JPEG,
    }))
}
