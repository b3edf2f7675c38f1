//! Curves of a training run as an event file of TensorBoard.
//!
//! The records are those of TFRecord (`tensorflow/core/lib/io/record_writer.h`), each an `Event` of `event.proto` with the
//! numbers of one step. What TensorBoard calls the time of an event is its step, in seconds, so that the same curves are the
//! same bytes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message;

use crate::error::Result;
use crate::store::{CurvePoint, Store};

/// Name of the event file in the folder of a run: TensorBoard reads files whose names hold `tfevents`.
const EVENT_FILE: &str = "events.out.tfevents.0.digrap-bench";

/// What the first record of a file says about the others.
const FILE_VERSION: &str = "brain.Event:2";

/// Added to rotated checksums, so that a checksum over checksums means something (`crc32c.h`, `kMaskDelta`).
const MASK_DELTA: u32 = 0xa282_ead8;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, so that a zero is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// An event file for each training run of a store: its path below the folder of all, and its bytes.
///
/// # Errors
/// The store cannot be read.
pub fn event_files(store: &Store) -> Result<Vec<(PathBuf, Vec<u8>)>> {
    let runs = store.training_runs()?.into_iter();
    let file = |(run, settings): (crate::store::TrainingRunId, String)| {
        let folder = training_name(run.number(), &settings);
        Ok((Path::new(&folder).join(EVENT_FILE), event_file(&store.curves(run)?)))
    };
    runs.map(file).collect()
}

/// Number and method of a training run, in signs that a path may have.
pub(super) fn training_name(number: i64, settings: &str) -> String {
    let settings: serde_json::Value = serde_json::from_str(settings).unwrap_or_default();
    let sign = |sign: char| if sign.is_alphanumeric() || "_-.".contains(sign) { sign } else { '_' };
    let method = |method: &str| format!("{number}-{}", method.chars().map(sign).collect::<String>());
    settings["method"].as_str().map_or_else(|| number.to_string(), method)
}

/// The bytes of an event file with these points, in single precision as TensorBoard keeps them.
pub fn event_file(points: &[CurvePoint]) -> Vec<u8> {
    let mut steps: BTreeMap<u64, BTreeMap<&str, f64>> = BTreeMap::new();
    for CurvePoint { series, step, value } in points {
        steps.entry(*step).or_default().insert(series, *value);
    }
    let first = Event { file_version: Some(FILE_VERSION.to_owned()), ..Event::default() };
    let of_step = |(step, values): (u64, BTreeMap<&str, f64>)| {
        let value = |(tag, value): (&str, f64)| Value { tag: tag.to_owned(), simple_value: Some(value as f32) };
        let summary = Some(Summary { value: values.into_iter().map(value).collect() });
        Event { wall_time: step as f64, step: step.cast_signed(), file_version: None, summary }
    };
    let mut bytes = Vec::new();
    for event in std::iter::once(first).chain(steps.into_iter().map(of_step)) {
        append_record(&mut bytes, &event.encode_to_vec());
    }
    bytes
}

fn append_record(bytes: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    bytes.extend(length);
    bytes.extend(masked_checksum(&length).to_le_bytes());
    bytes.extend(record);
    bytes.extend(masked_checksum(record).to_le_bytes());
}

fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(MASK_DELTA)
}
