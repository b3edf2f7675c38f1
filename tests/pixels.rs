//! Image files against Pillow, and processed images against the SigLIP processor (fixtures/make_pixels.py and
//! fixtures/make_images.py).

use std::fs;
use std::path::{Path, PathBuf};

use digrap_bench::data::image::{RgbImage, decode, stamp};
use digrap_bench::error::Kind;
use digrap_bench::model::vision::{ImageProcessor, SIGLIP, VIT};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

fn entries(name: &str) -> Vec<Value> {
    let entries: Vec<Value> = serde_json::from_slice(&fs::read(fixture(name)).unwrap()).unwrap();
    assert!(!entries.is_empty());
    entries
}

fn text<'a>(entry: &'a Value, key: &str) -> &'a str {
    entry[key].as_str().unwrap_or_else(|| panic!("no `{key}` in {entry}"))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A processor with these settings, read as from a checkpoint.
fn processor(settings: &Value) -> Result<ImageProcessor, digrap_bench::error::Error> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
    ImageProcessor::read(folder.path())
}

fn assert_equal(name: &str, found: &RgbImage, expected: &RgbImage) {
    assert_eq!(found.dimensions(), expected.dimensions(), "{name}");
    let differences = || found.as_raw().iter().zip(expected.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let count = differences().filter(|&difference| difference > 0).count();
    assert_eq!(count, 0, "{name}: {count} levels differ, by up to {}", differences().max().unwrap());
}

#[test]
fn decoded_files_equal_pillow() {
    let mut wrong = Vec::new();
    for entry in entries("pixels/decoded.json") {
        let image = decode(&fixture(text(&entry, "image"))).unwrap();
        let size = json!([image.width(), image.height()]) == json!([entry["width"], entry["height"]]);
        if !size || sha256(image.as_raw()) != text(&entry, "sha256") {
            wrong.push(format!("{} ({})", text(&entry, "image"), text(&entry, "kind")));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn resized_images_equal_pillow() {
    for entry in entries("pixels/resized.json") {
        let size = json!({"height": entry["height"], "width": entry["width"]});
        let processor = processor(&json!({"size": size, "resample": entry["resample"]})).unwrap();
        let image = decode(&fixture(text(&entry, "image"))).unwrap();
        let found = processor.resize(&image).unwrap();
        let expected = decode(&fixture(text(&entry, "expected"))).unwrap();
        assert_equal(text(&entry, "expected"), &found, &expected);
    }
}

/// These come from files as opened, which the processor puts onto white where they are transparent; files
/// with transparency are compared after decoding instead.
#[test]
fn the_pipeline_equals_the_processor() {
    let transparent: Vec<String> = entries("pixels/decoded.json")
        .iter()
        .filter(|entry| entry["transparent"] == json!(true))
        .map(|entry| text(entry, "image").to_owned())
        .collect();
    let mut compared = 0;
    for entry in entries("parity/pixels.json") {
        let image = format!("images/{}", text(&entry, "image"));
        if transparent.contains(&image) {
            continue;
        }
        let processor = processor(&json!({"size": {"height": entry["size"], "width": entry["size"]}})).unwrap();
        let image = decode(&fixture(&image)).unwrap();
        let found = processor.resize(&image).unwrap();
        let expected = decode(&fixture(&format!("parity/{}", text(&entry, "expected")))).unwrap();
        assert_equal(text(&entry, "expected"), &found, &expected);
        compared += 1;
    }
    assert!(compared > 60, "only {compared} images");
}

#[test]
fn values_equal_the_processor_to_the_last_bit() {
    let image = RgbImage::from_fn(16, 16, |x, y| {
        let level = |row: u32, column: u32| (row * 16 + column) as u8;
        image_pixel([level(y, x), level(15 - y, x), level(x, y)])
    });
    for entry in entries("pixels/values.json") {
        let processor = processor(&entry["settings"]).unwrap();
        let mut values = vec![0.0; processor.output_len()];
        processor.process(&image, &mut values).unwrap();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        assert_eq!(sha256(&bytes), text(&entry, "sha256"), "{}", processor.describe());
    }
}

fn image_pixel(levels: [u8; 3]) -> <RgbImage as std::ops::Index<(u32, u32)>>::Output {
    levels.into()
}

#[test]
fn settings_are_read_from_either_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = ImageProcessor::read(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("no image settings in `{}`", folder.path().display()));

    let write = |name: &str, value: Value| fs::write(folder.path().join(name), value.to_string()).unwrap();
    write(
        "preprocessor_config.json",
        json!({"size": {"height": 10, "width": 20}, "image_processor_type": "SiglipImageProcessor"}),
    );
    write("processor_config.json", json!({"processor_class": "PaliGemmaProcessor"}));
    let legacy = ImageProcessor::read(folder.path()).unwrap();
    assert_eq!((legacy.size(), legacy.output_len()), ((10, 20), 600));
    let defaults = "rgb pillow-13-bicubic 20x10 rescale 0.00392156862745098 mean [0.5, 0.5, 0.5] std [0.5, 0.5, 0.5]";
    assert_eq!(legacy.describe(), defaults);

    write("processor_config.json", json!({"image_processor": {"resample": 2, "do_normalize": false}}));
    let nested = ImageProcessor::read(folder.path()).unwrap();
    assert_eq!(nested.describe(), "rgb pillow-13-bilinear 224x224 rescale 0.00392156862745098");
}

/// What `ViTImageProcessor` does where a file does not say, in files of transformers before 4.26 as well.
#[test]
fn the_vit_processor_has_defaults_of_its_own() {
    let bilinear = "rgb pillow-13-bilinear 16x16 rescale 0.00392156862745098 mean [0.5, 0.5, 0.5] std [0.5, 0.5, 0.5]";
    for key in ["image_processor_type", "feature_extractor_type"] {
        let name = if key == "image_processor_type" { "ViTImageProcessor" } else { "ViTFeatureExtractor" };
        let processor = processor(&json!({key: name, "size": 16})).unwrap();
        assert_eq!((processor.describe().as_str(), processor.size()), (bilinear, (16, 16)));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("preprocessor_config.json"), json!({"size": 16}).to_string()).unwrap();
    assert_eq!(ImageProcessor::read_for(folder.path(), &VIT).unwrap().describe(), bilinear);
    assert!(ImageProcessor::read_for(folder.path(), &SIGLIP).is_err());
    let named = json!({"image_processor_type": "SiglipImageProcessor", "size": {"height": 16, "width": 16}});
    fs::write(folder.path().join("preprocessor_config.json"), named.to_string()).unwrap();
    let bicubic = bilinear.replace("bilinear", "bicubic");
    assert_eq!(ImageProcessor::read_for(folder.path(), &VIT).unwrap().describe(), bicubic);
}

#[test]
fn settings_that_would_change_the_pixels_are_refused() {
    let cases = [
        (json!({"resample": 0}), "`resample` 0 is not supported"),
        (json!({"size": 224}), "`size` 224 is not supported"),
        (json!({"size": {"shortest_edge": 224}}), "`size` {\"shortest_edge\":224} is not supported"),
        (json!({"size": {"height": 0, "width": 4}}), "`size` {\"height\":0,\"width\":4} is not supported"),
        (json!({"do_center_crop": true}), "`do_center_crop` is not supported"),
        (json!({"image_processor_type": "CLIPImageProcessor"}), "unknown image processor `CLIPImageProcessor`"),
        (json!({"image_std": 0.0}), "`image_std` must be positive, not [0.0, 0.0, 0.0]"),
        (json!({"image_mean": [0.5, 0.5]}), "the JSON is not valid"),
        (json!([]), "the JSON is not valid"),
    ];
    for (settings, expected) in cases {
        let error = processor(&settings).expect_err(expected);
        assert_eq!(error.kind(), Kind::Input);
        assert!(error.to_string().starts_with("cannot use the image settings in `"), "{error}");
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), expected);
    }
}

#[test]
fn images_of_another_size_are_refused_where_resizing_is_off() {
    let processor = processor(&json!({"do_resize": false, "size": {"height": 2, "width": 2}})).unwrap();
    let mut values = vec![0.0; 12];
    processor.process(&RgbImage::new(2, 2), &mut values).unwrap();
    assert_eq!(values, [-1.0; 12]);
    let error = processor.process(&RgbImage::new(0, 2), &mut values).unwrap_err();
    assert_eq!(error.to_string(), "an image of 0 x 2 pixels");
    let error = processor.process(&RgbImage::new(3, 2), &mut values).unwrap_err();
    assert_eq!(error.to_string(), "an image of 3 x 2 pixels where 2 x 2 are needed");
    assert_eq!(processor.process(&RgbImage::new(2, 2), &mut values[1..]).unwrap_err().kind(), Kind::Internal);
}

/// Writes the bytes to a file, decodes it and returns the error as one line.
fn decode_error(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = decode(&path).expect_err(name);
    assert_eq!(error.kind(), Kind::Input, "{error:?}");
    assert_eq!(error.to_string(), format!("cannot decode the image `{}`", path.display()));
    std::error::Error::source(&error).unwrap().to_string()
}

#[test]
fn truncated_files_are_refused() {
    let names = [
        "photo_420_97x61.jpg",
        "progressive_420.jpg",
        "cmyk.jpg",
        "interlaced.png",
        "bits_32.bmp",
        "lossy.webp",
        "interlaced.gif",
    ];
    for name in names {
        let bytes = fs::read(fixture("pixels/images").join(name)).unwrap();
        for length in [bytes.len() / 3, bytes.len() / 2, bytes.len() - 20, bytes.len() - 13] {
            decode_error(name, &bytes[..length]);
        }
    }
    let jpeg = fs::read(fixture("pixels/images/photo_420_97x61.jpg")).unwrap();
    for length in [10, jpeg.len() / 2, jpeg.len() - 1] {
        assert_eq!(decode_error("cut.jpg", &jpeg[..length]), "the file is truncated");
    }
}

/// Damage inside a file may go unnoticed, as in Pillow, but never ends the process.
#[test]
fn damaged_files_are_decoded_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let names = ["progressive_420.jpg", "restart_420.jpg", "cmyk.jpg", "interlaced.png", "palette_4.png"];
    for name in names.into_iter().chain(["interlaced.gif", "bits_32.bmp", "lossy.webp", "lossy_alpha.webp"]) {
        let intact = fs::read(fixture("pixels/images").join(name)).unwrap();
        let mut refused = 0;
        for round in 0_usize..60 {
            let mut bytes = intact.clone();
            // Every third round damages the header, where the dangerous numbers are.
            let range = if round % 3 == 0 { 60.min(bytes.len()) } else { bytes.len() };
            let position = round.wrapping_mul(2_654_435_761) % range;
            bytes[position] ^= (round as u8).wrapping_mul(29) | 1;
            fs::write(&path, &bytes).unwrap();
            refused += usize::from(decode(&path).is_err());
        }
        assert!(refused > 0, "{name}: no damage was noticed");
    }
}

#[test]
fn files_that_are_no_images_are_refused() {
    assert_eq!(decode_error("empty.jpg", b""), "the file is empty");
    let unknown = "it is not a JPEG, PNG, GIF, BMP or WebP file";
    assert_eq!(decode_error("page.jpg", b"<!DOCTYPE html><html></html>"), unknown);
    assert_eq!(decode_error("image.tiff", b"II*\0\x08\0\0\0\0\0"), unknown);
    assert_eq!(decode_error("only.png", b"\x89PNG\r\n\x1a\n"), "the Png data are damaged or truncated");
    let missing = fixture("pixels/images/no_such_file.jpg");
    for error in [decode(&missing).unwrap_err(), stamp(&missing).unwrap_err()] {
        assert_eq!(error.to_string(), format!("cannot read the image `{}`", missing.display()));
        assert_eq!(error.kind(), Kind::Input);
    }
}

#[test]
fn absurd_sizes_are_refused_before_decoding() {
    let mut jpeg = fs::read(fixture("pixels/images/photo_420_97x61.jpg")).unwrap();
    // Height and width follow the length and precision of the frame header.
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
    assert_eq!(decode_error("huge.jpg", &jpeg), "65500 x 65500 pixels are more than the limit of 178956970");
    let mut bitmap = fs::read(fixture("pixels/images/bits_32.bmp")).unwrap();
    bitmap[18..22].copy_from_slice(&60_000_u32.to_le_bytes());
    bitmap[22..26].copy_from_slice(&60_000_u32.to_le_bytes());
    assert_eq!(decode_error("huge.bmp", &bitmap), "60000 x 60000 pixels are more than the limit of 178956970");
}

#[test]
fn stamps_follow_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    fs::write(&path, "12345").unwrap();
    let first = stamp(&path).unwrap();
    assert_eq!(first.size, 5);
    assert!(first.modified_ns > 1_600_000_000_000_000_000);
    assert_eq!(stamp(&path).unwrap(), first);
    let later = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123);
    fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(stamp(&path).unwrap().modified_ns, 1_700_000_000_000_000_123);
}
