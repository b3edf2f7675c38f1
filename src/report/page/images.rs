//! The images of a dataset as small files.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::{Folder, PageEvent};
use crate::data::thumbnail::{Format, thumbnail};
use crate::data::{Dataset, Id};
use crate::error::{Error, Result};

/// What the file of an image is, as the explorer's data say it.
pub(super) const NO_FILE: u8 = 0;
const PNG: u8 = 1;
const JPEG: u8 = 2;

/// Decoding is bound by memory beyond this many threads.
const THREADS: usize = 8;

/// Writes each image once, under its number in [`Dataset::clusters`], and tells of each what its file is. An image that
/// cannot be read has none.
pub(super) fn write(
    output: &Folder,
    (dataset, folder): (&Dataset, &str),
    on_event: &mut dyn FnMut(PageEvent),
) -> Result<Vec<u8>> {
    let images = distinct(dataset);
    let mut files = vec![NO_FILE; images.len()];
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS).min(images.len());
    std::thread::scope(|scope| {
        let (sender, written) = mpsc::sync_channel(THREADS);
        for _ in 0..threads {
            let (sender, images, next) = (sender.clone(), &images, &next);
            scope.spawn(move || {
                while let Some((number, image)) = take(images, next) {
                    // Nobody listens any more after an error.
                    if sender.send((number, write_one(output, dataset, (folder, number), image))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (done, (number, file)) in written.into_iter().enumerate() {
            files[number] = file?;
            on_event(PageEvent::Images { dataset: &dataset.name, done: done + 1, total: images.len() });
        }
        Ok::<_, Error>(())
    })?;
    Ok(files)
}

/// The images in the order of their numbers.
fn distinct(dataset: &Dataset) -> Vec<&Id> {
    let mut images = Vec::new();
    for (number, question) in dataset.clusters().into_iter().zip(&dataset.questions) {
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

fn write_one(output: &Folder, dataset: &Dataset, (folder, number): (&str, usize), image: &Id) -> Result<u8> {
    let Ok(decoded) = dataset.images.decode(image) else { return Ok(NO_FILE) };
    let small = thumbnail(&decoded)?;
    output.write(&format!("images/{folder}/{number}.{}", small.format.ending()), &small.bytes)?;
    Ok(match small.format {
        Format::Png => PNG,
        Format::Jpeg => JPEG,
    })
}
