//! From an image file to pixel values.

use std::path::{Path, PathBuf};

use digrap_bench::data::image::{RgbImage, decode};
use digrap_bench::model::vision::ImageProcessor;
use divan::{Bencher, counter::ItemsCount};

const JPEG_640X480: (&str, u32) = ("pixels/images/photo_640x480.jpg", 224);
const PNG_64X64: (&str, u32) = ("images/exact_64.png", 64);

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn processor(side: u32) -> ImageProcessor {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let settings = format!(r#"{{"size": {{"height": {side}, "width": {side}}}}}"#);
    std::fs::write(folder.path().join("preprocessor_config.json"), settings).expect("a writable folder");
    ImageProcessor::read(folder.path()).expect("valid settings")
}

#[divan::bench(args = [JPEG_640X480.0, PNG_64X64.0])]
fn decoding(bencher: Bencher, name: &str) {
    let path = fixture(name);
    bencher.counter(ItemsCount::new(1_usize)).bench(|| decode(&path).expect("a readable image"));
}

#[divan::bench(args = [JPEG_640X480, PNG_64X64])]
fn processing(bencher: Bencher, (name, side): (&str, u32)) {
    let (image, processor): (RgbImage, _) = (decode(&fixture(name)).expect("a readable image"), processor(side));
    let mut values = vec![0.0; processor.output_len()];
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| processor.process(&image, &mut values));
}

#[divan::bench(args = [JPEG_640X480, PNG_64X64])]
fn decoding_and_processing(bencher: Bencher, (name, side): (&str, u32)) {
    let (path, processor) = (fixture(name), processor(side));
    let mut values = vec![0.0; processor.output_len()];
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench_local(|| processor.process(&decode(&path).expect("a readable image"), &mut values));
}
