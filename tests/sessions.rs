//! Sessions: mapped weights, outputs that become inputs, the same bytes from every run.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use digrap_bench::graph::{Builder, Dim, Graph, Initializer, Type};
use digrap_bench::runtime::{Device, DeviceTensor, Session, SessionOptions, Sharing};
use digrap_bench::tensor::{DType, Tensor};

use crate::support::{runtime, session_options};

const WIDTH: usize = 64;

/// `y = x W` with `W` of `[WIDTH, WIDTH]` in `weights.bin` at `offset`.
fn product(offset: u64) -> Graph {
    let mut builder = Builder::new("product");
    let x = builder.input("x", Type::new(DType::F32, [Dim::from("rows"), WIDTH.into()])).unwrap();
    let length = (WIDTH * WIDTH * 4) as u64;
    let place = || Ok(Initializer::External { file: "weights.bin".into(), offset, length });
    let weight = builder.parameter("weight", &Type::new(DType::F32, [WIDTH.into(), WIDTH.into()]), place).unwrap();
    let y = builder.matmul(x, weight).unwrap();
    builder.output("y", y).unwrap();
    builder.finish()
}

/// A permutation matrix at `offset`: each product moves every column one place to the right.
fn write_rotation(folder: &Path, offset: u64) {
    let mut file = File::create(folder.join("weights.bin")).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    for row in 0..WIDTH {
        for column in 0..WIDTH {
            let value: f32 = if column == (row + 1) % WIDTH { 1.0 } else { 0.0 };
            file.write_all(&value.to_le_bytes()).unwrap();
        }
    }
}

fn first_unit() -> DeviceTensor {
    let mut values = vec![0f32; WIDTH];
    values[0] = 1.0;
    runtime().tensor(Tensor::new([1, WIDTH], values).unwrap()).unwrap()
}

#[test]
fn weights_beyond_two_gigabytes_are_mapped_where_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    // The file is sparse: nothing before the weights takes room on the disk.
    let offset = (2u64 << 30) + 4096;
    write_rotation(folder.path(), offset);
    for sharing in [Sharing::Replicas, Sharing::Operators] {
        let options = SessionOptions { sharing, ..session_options() };
        let mut session = Session::new(&runtime(), &product(offset), folder.path(), &options).unwrap();
        let outputs = session.run(&[("x", &first_unit())], &[], &["y"]).unwrap();
        let values = outputs[0].values::<f32>().unwrap();
        assert_eq!(values.iter().position(|value| *value == 1.0), Some(1), "{sharing:?}");
    }
}

#[test]
fn outputs_become_inputs_of_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    write_rotation(folder.path(), 0);
    let mut session = Session::new(&runtime(), &product(0), folder.path(), &session_options()).unwrap();
    let mut state = first_unit();
    for step in 1..=100 {
        state = session.run(&[("x", &state)], &["y"], &[]).unwrap().remove(0);
        let values = state.values::<f32>().unwrap();
        assert_eq!(values.iter().position(|value| *value == 1.0), Some(step % WIDTH));
    }
}

#[test]
fn a_missing_file_of_weights_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Session::new(&runtime(), &product(0), folder.path(), &session_options()).unwrap_err();
    assert_eq!(error.to_string(), "cannot prepare the graph `product` for cpu");
}

#[test]
fn devices_are_read_and_cuda_is_never_replaced_by_the_cpu() {
    assert_eq!("cuda:1".parse::<Device>().unwrap(), Device::Cuda(1));
    for wrong in ["gpu", "cuda:", "cuda:-1", "cuda:x", ""] {
        assert_eq!(wrong.parse::<Device>().unwrap_err().to_string(), format!("unknown device `{wrong}`"));
    }
    if !runtime().info.providers.iter().any(|provider| provider == "CUDAExecutionProvider") {
        let folder = tempfile::tempdir().unwrap();
        write_rotation(folder.path(), 0);
        let options = SessionOptions { device: Device::Cuda(0), ..session_options() };
        let error = Session::new(&runtime(), &product(0), folder.path(), &options).unwrap_err();
        assert_eq!(error.to_string(), "the CUDA provider cannot use GPU 0");
    }
}
