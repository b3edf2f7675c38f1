//! The tensors of a checkpoint: one or several safetensors files, mapped, never read as a whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::data::{WholeFile, write_error};
use crate::error::{Error, Result};
use crate::graph::{Dim, Initializer, Type};
use crate::tensor::{DType, Tensor};

pub(super) const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Between two reports of progress.
const PROGRESS_BYTES: usize = 16 << 20;
/// Alignment of the tensors that are converted for another compute dtype.
const ALIGNMENT: u64 = 64;

/// One tensor of a checkpoint.
#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    dtype: DType,
    shape: Vec<usize>,
    /// First byte within the file.
    offset: u64,
    length: u64,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    map: Mmap,
}

/// A tensor as it lies in its file.
#[derive(Debug, Clone, Copy)]
pub struct StoredTensor<'a> {
    /// Its element type.
    pub dtype: DType,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its elements, little-endian, in row-major order.
    pub bytes: &'a [u8],
}

impl StoredTensor<'_> {
    /// Its elements in f32.
    ///
    /// # Errors
    /// Internal error if it holds no floats.
    pub fn to_f32(self) -> Result<Tensor> {
        let mut bytes = Vec::with_capacity(self.bytes.len() / self.dtype.size() * DType::F32.size());
        write_converted(&mut bytes, self.dtype, self.bytes, DType::F32)
            .map_err(|cause| Error::internal("cannot convert a tensor").caused_by(cause))?;
        Tensor::from_bytes(DType::F32, self.shape, &bytes)
    }
}

/// The tensors of a checkpoint folder by their names there.
#[derive(Debug)]
pub struct Weights {
    folder: PathBuf,
    shards: Vec<Shard>,
    entries: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: HashMap<String, String>,
}

impl Weights {
    /// Maps `model.safetensors`, or the files that `model.safetensors.index.json` names.
    ///
    /// # Errors
    ///
    /// Input error naming the file where one is missing, truncated or no safetensors file, and the tensor where the
    /// index and the files disagree.
    pub fn open(folder: &Path) -> Result<Self> {
        let (files, index) = files_of(folder)?;
        let mut weights = Self { folder: folder.to_owned(), shards: Vec::new(), entries: HashMap::new() };
        for name in files {
            weights.add_file(name)?;
        }
        if let Some(tensor) = index.keys().filter(|tensor| !weights.entries.contains_key(*tensor)).min() {
            let file = folder.join(&index[tensor]);
            return Err(Error::input(format!(
                "`{}` lacks the tensor `{tensor}` that `{INDEX}` places there",
                file.display()
            ))
            .hint("fetch the checkpoint again"));
        }
        Ok(weights)
    }

    /// Maps one file of a folder.
    ///
    /// # Errors
    /// Input error naming the file, which is missing, truncated or no safetensors file.
    pub(super) fn open_file(folder: &Path, name: &str) -> Result<Self> {
        let mut weights = Self { folder: folder.to_owned(), shards: Vec::new(), entries: HashMap::new() };
        weights.add_file(name.to_owned())?;
        Ok(weights)
    }

    /// Whether the checkpoint holds this tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The elements of a tensor of these dimensions in f32.
    ///
    /// # Errors
    /// Input error for a tensor that is not there, has another shape or holds no floats.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let ty = Type::new(DType::F32, shape.iter().copied().map(Dim::Fixed).collect::<Vec<_>>());
        self.view(self.entry(name, &ty)?).to_f32()
    }

    /// A tensor as it is stored, if there is one of this name.
    pub fn stored(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.entries.get(name).map(|entry| self.view(entry))
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The dtype most of the weights are stored in.
    pub fn dtype(&self) -> DType {
        let mut bytes: HashMap<DType, u64> = HashMap::new();
        for entry in self.entries.values() {
            *bytes.entry(entry.dtype).or_default() += entry.length;
        }
        bytes.into_iter().max_by_key(|(dtype, bytes)| (*bytes, dtype.size())).map_or(DType::F32, |(dtype, _)| dtype)
    }

    /// Bytes of all tensors together, as stored.
    pub fn size(&self) -> u64 {
        self.entries.values().map(|entry| entry.length).sum()
    }

    /// The files that hold the tensors, in the order of their names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(|shard| shard.path.as_path())
    }

    /// SHA-256 of one of [`Weights::files`], as hexadecimal text; `on_bytes` hears of every further piece that is read.
    pub fn digest(&self, file: usize, on_bytes: &mut dyn FnMut(u64)) -> String {
        let mut hash = Sha256::new();
        for piece in self.shards[file].map.chunks(PROGRESS_BYTES) {
            hash.update(piece);
            on_bytes(piece.len() as u64);
        }
        crate::model::hex(&hash.finalize())
    }

    /// The tensor `name`, which must be there, hold floats and have the dimensions of `ty`.
    fn entry(&self, name: &str, ty: &Type) -> Result<&Entry> {
        let entry = self.entries.get(name).ok_or_else(|| {
            Error::input(format!("the checkpoint `{}` lacks the tensor `{name}`", self.folder.display()))
                .hint("the weights and config.json must belong together; fetch the checkpoint again")
        })?;
        if !entry.dtype.is_float() {
            let file = self.shards[entry.file].path.display();
            return Err(Error::input(format!("the tensor `{name}` in `{file}` holds {}, not floats", entry.dtype))
                .hint("quantised checkpoints are not supported; use one in f32, f16 or bf16"));
        }
        let expected: Vec<Dim> = entry.shape.iter().map(|size| Dim::Fixed(*size)).collect();
        if expected != ty.dims {
            let file = &self.shards[entry.file].path;
            let wanted: Vec<String> = ty.dims.iter().map(ToString::to_string).collect();
            return Err(Error::input(format!(
                "the tensor `{name}` in `{}` has shape {:?}, but config.json asks for [{}]",
                file.display(),
                entry.shape,
                wanted.join(", ")
            ))
            .hint("the weights and config.json must belong together"));
        }
        Ok(entry)
    }

    fn add_file(&mut self, name: String) -> Result<()> {
        let path = self.folder.join(&name);
        let within = |error: Error| error.hint("the file is damaged or incomplete; fetch the checkpoint again");
        let cannot = || Error::input(format!("cannot read the weights `{}`", path.display()));
        let map = map_file(&path)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|cause| within(cannot().caused_by(cause)))?;
        let start = header as u64 + 8;
        for (tensor, info) in metadata.tensors() {
            let entry = place(info, self.shards.len(), start)
                .map_err(|error| error.within(format!("tensor `{tensor}` in `{}`", path.display())))?;
            if self.entries.insert(tensor.clone(), entry).is_some() {
                return Err(Error::input(format!(
                    "the tensor `{tensor}` is in more than one file of `{}`",
                    self.folder.display()
                )));
            }
        }
        check_length(&metadata, start, map.len() as u64).map_err(|error| within(cannot().caused_by(error)))?;
        self.shards.push(Shard { path, map });
        Ok(())
    }

    fn view<'a>(&'a self, entry: &'a Entry) -> StoredTensor<'a> {
        StoredTensor { dtype: entry.dtype, shape: &entry.shape, bytes: self.bytes(entry) }
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.file].map[entry.offset as usize..(entry.offset + entry.length) as usize]
    }
}

fn files_of(folder: &Path) -> Result<(Vec<String>, HashMap<String, String>)> {
    if folder.join(SINGLE).is_file() {
        return Ok((vec![SINGLE.to_owned()], HashMap::new()));
    }
    let path = folder.join(INDEX);
    if !path.is_file() {
        return Err(Error::input(format!(
            "no weights in `{}`: neither `{SINGLE}` nor `{INDEX}` is there",
            folder.display()
        ))
        .hint("a model is a folder in the Hub's layout, with config.json, safetensors and tokenizer.json"));
    }
    let index: Index = crate::model::read_json(&path)?;
    let mut files: Vec<String> = index.weight_map.values().cloned().collect();
    files.sort();
    files.dedup();
    match files.iter().find(|file| file.contains(['/', '\\']) || file.as_str() == "..") {
        Some(outside) => {
            Err(Error::input(format!("`{}` names the file `{outside}` outside of its folder", path.display()))
                .hint("fetch the checkpoint again"))
        }
        None => Ok((files, index.weight_map)),
    }
}

fn map_file(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(|cause| {
        Error::input(format!("cannot open the weights `{}`", path.display()))
            .caused_by(cause)
            .hint("fetch the checkpoint again")
    })?;
    // SAFETY: the map is only read; a file that another process truncates meanwhile is the documented limit of
    // mapping, and ONNX Runtime maps the same file itself.
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|cause| Error::input(format!("cannot map the weights `{}`", path.display())).caused_by(cause))
}

fn place(info: &safetensors::tensor::TensorInfo, file: usize, start: u64) -> Result<Entry> {
    let dtype = match info.dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool,
        other => return Err(Error::input(format!("the element type {other:?} is not supported"))),
    };
    let (begin, end) = info.data_offsets;
    Ok(Entry { file, dtype, shape: info.shape.clone(), offset: start + begin as u64, length: (end - begin) as u64 })
}

fn check_length(metadata: &Metadata, start: u64, length: u64) -> Result<()> {
    let end = start + metadata.tensors().values().map(|info| info.data_offsets.1 as u64).max().unwrap_or(0);
    if end == length {
        return Ok(());
    }
    Err(Error::input(format!("its header promises {end} bytes, the file has {length}")))
}

/// Where the tensors of a checkpoint lie for graphs of one compute dtype.
///
/// To run graphs ([`Placement::new`]), a checkpoint stored in that dtype stays where it is. Another one is converted,
/// tensor by tensor as graphs name them, into one file in a folder of its own, which all sessions map. To write graphs
/// ([`Placement::written`]), the tensors that they name are put into a file beside them.
pub struct Placement<'a> {
    weights: &'a Weights,
    dtype: DType,
    target: Target,
    /// Bytes of the checkpoint that are converted so far, and who wants to know.
    done: u64,
    on_bytes: &'a mut dyn FnMut(u64),
}

enum Target {
    /// The checkpoint's own files.
    Stored,
    /// A file that lives as long as sessions need it.
    Scratch(tempfile::TempDir, Collected<BufWriter<File>>),
    /// A file beside the graphs, in this folder.
    Beside(PathBuf, Collected<WholeFile>),
}

/// Converted weights on disk, which go with this value.
pub struct ConvertedWeights {
    _folder: tempfile::TempDir,
    /// Its lock tells [`remove_abandoned`] that the folder is in use.
    _locked: File,
}

/// A file of tensors in the compute dtype, each once.
struct Collected<W> {
    file: W,
    /// What graphs call the file.
    name: String,
    places: HashMap<String, Initializer>,
    end: u64,
}

/// Folder that the files of a checkpoint are named from. In the Hub's cache they are links to files elsewhere, and ONNX
/// Runtime refuses external data that leaves the folder it is told.
const ROOT: &str = "/";

/// The file that a path really means, named from [`ROOT`].
fn below_root(path: &Path) -> Result<String> {
    let cannot = || Error::input(format!("cannot find the weights `{}`", path.display()));
    let real = path.canonicalize().map_err(|cause| cannot().caused_by(cause))?;
    let text = real.to_str().ok_or_else(|| cannot().caused_by(Error::input("the path is not valid UTF-8")))?;
    Ok(text.trim_start_matches('/').to_owned())
}

const CONVERTED: &str = "converted.bin";
/// Beginning of the names of the folders that hold such a file.
const CONVERTED_FOLDER: &str = "weights-";

impl<'a> Placement<'a> {
    /// Prepares to place the tensors for graphs that compute in `dtype`. A conversion is written below `scratch`;
    /// `on_bytes` hears how many bytes of the checkpoint are done.
    pub fn new(weights: &'a Weights, dtype: DType, scratch: &Path, on_bytes: &'a mut dyn FnMut(u64)) -> Result<Self> {
        let stored_so = weights.entries.values().all(|entry| entry.dtype == dtype || !entry.dtype.is_float());
        let target = if stored_so { Target::Stored } else { scratch_target(scratch)? };
        Ok(Self { weights, dtype, target, done: 0, on_bytes })
    }

    /// Prepares to write the tensors that graphs name into `file`, which appears with [`Placement::finish`] if there are
    /// any. Graphs call it by its name, so that they have to lie in the same folder.
    ///
    /// # Errors
    /// Input error naming the file that cannot be written.
    pub fn written(weights: &'a Weights, dtype: DType, file: &Path, on_bytes: &'a mut dyn FnMut(u64)) -> Result<Self> {
        let name = file.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
            Error::input(format!("`{}` has no file name in UTF-8", file.display())).hint("choose another name")
        })?;
        let opened = WholeFile::create(file).map_err(|cause| write_error(file, cause))?;
        let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let target = Target::Beside(folder, Collected::new(opened, name));
        Ok(Self { weights, dtype, target, done: 0, on_bytes })
    }

    /// Places nothing: graphs over these places cannot run, but a checkpoint that does not fit its configuration is
    /// found out.
    pub(crate) fn checked(weights: &'a Weights, dtype: DType, on_bytes: &'a mut dyn FnMut(u64)) -> Self {
        Self { weights, dtype, target: Target::Stored, done: 0, on_bytes }
    }

    /// The checkpoint.
    pub fn weights(&self) -> &'a Weights {
        self.weights
    }

    /// The compute dtype.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Place of the tensor `name`, which must have the dimensions of `ty`.
    pub fn place(&mut self, name: &str, ty: &Type) -> Result<Initializer> {
        let entry = self.weights.entry(name, ty)?;
        if let Some(place) = self.target.placed(name) {
            return Ok(place.clone());
        }
        let (from, bytes, to) = (entry.dtype, self.weights.bytes(entry), self.dtype);
        let place = match &mut self.target {
            Target::Stored => {
                let file = below_root(&self.weights.shards[entry.file].path)?;
                return Ok(Initializer::External { file, offset: entry.offset, length: entry.length });
            }
            Target::Scratch(folder, collected) => {
                collected.place(name, from, bytes, to).map_err(|cause| conversion_error(folder.path(), cause))?
            }
            Target::Beside(folder, collected) => {
                let placed = collected.place(name, from, bytes, to);
                placed.map_err(|cause| write_error(&folder.join(&collected.name), cause))?
            }
        };
        self.done += entry.length;
        (self.on_bytes)(self.done);
        Ok(place)
    }

    /// The folder that all places are relative to, and the converted weights to keep until sessions have mapped them.
    ///
    /// # Errors
    /// Input error naming the folder or file that cannot be written.
    pub fn finish(self) -> Result<(PathBuf, Option<ConvertedWeights>)> {
        match self.target {
            Target::Stored => Ok((PathBuf::from(ROOT), None)),
            Target::Scratch(folder, collected) => {
                let file = collected.file.into_inner();
                let file = file.map_err(|cause| conversion_error(folder.path(), cause.into_error()))?;
                Ok((folder.path().to_owned(), Some(ConvertedWeights { _folder: folder, _locked: file })))
            }
            Target::Beside(folder, collected) => {
                let path = folder.join(&collected.name);
                if !collected.places.is_empty() {
                    collected.file.finish().map_err(|cause| write_error(&path, cause))?;
                }
                Ok((folder, None))
            }
        }
    }
}

fn scratch_target(scratch: &Path) -> Result<Target> {
    let failed = |cause| conversion_error(scratch, cause);
    std::fs::create_dir_all(scratch).map_err(failed)?;
    // One process at a time removes and makes folders. Some network file systems have no locks; nothing is removed
    // there.
    let turn = File::open(scratch).map_err(failed)?;
    let locked = turn.lock().is_ok();
    if locked {
        remove_abandoned(scratch);
    }
    let folder = tempfile::Builder::new().prefix(CONVERTED_FOLDER).tempdir_in(scratch).map_err(failed)?;
    let file = File::create(folder.path().join(CONVERTED)).map_err(failed)?;
    if locked {
        file.lock().map_err(failed)?;
    }
    Ok(Target::Scratch(folder, Collected::new(BufWriter::new(file), CONVERTED)))
}

impl Target {
    /// The place of a tensor that is in the file already.
    fn placed(&self, name: &str) -> Option<&Initializer> {
        match self {
            Self::Stored => None,
            Self::Scratch(_, collected) => collected.places.get(name),
            Self::Beside(_, collected) => collected.places.get(name),
        }
    }
}

impl<W: Write> Collected<W> {
    fn new(file: W, name: &str) -> Self {
        Self { file, name: name.to_owned(), places: HashMap::new(), end: 0 }
    }

    fn place(&mut self, name: &str, from: DType, bytes: &[u8], to: DType) -> io::Result<Initializer> {
        let offset = self.end.next_multiple_of(ALIGNMENT);
        let length = (bytes.len() / from.size() * to.size()) as u64;
        self.file.write_all(&[0; ALIGNMENT as usize][..(offset - self.end) as usize])?;
        match from == to {
            true => self.file.write_all(bytes)?,
            false => write_converted(&mut self.file, from, bytes, to)?,
        }
        self.end = offset + length;
        let place = Initializer::External { file: self.name.clone(), offset, length };
        self.places.insert(name.to_owned(), place.clone());
        Ok(place)
    }
}

/// Removes what killed processes have left: conversions that nobody has locked. Failures do no harm but leave it there.
fn remove_abandoned(scratch: &Path) {
    for entry in std::fs::read_dir(scratch).into_iter().flatten().flatten() {
        let folder = entry.path();
        let ours = entry.file_name().to_string_lossy().starts_with(CONVERTED_FOLDER);
        let in_use = File::open(folder.join(CONVERTED)).is_ok_and(|file| file.try_lock().is_err());
        if ours && !in_use {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

fn conversion_error(folder: &Path, cause: std::io::Error) -> Error {
    Error::input(format!("cannot write the converted weights to `{}`", folder.display()))
        .caused_by(cause)
        .hint("free some space there, or choose the dtype that the checkpoint is stored in")
}

fn write_converted(file: &mut impl Write, from: DType, bytes: &[u8], to: DType) -> std::io::Result<()> {
    match from {
        DType::F64 => encode(file, bytes.as_chunks().0.iter().map(|value| f64::from_le_bytes(*value)), to),
        DType::F32 => encode(file, bytes.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value).into()), to),
        DType::F16 => encode(file, bytes.as_chunks().0.iter().map(|value| f16::from_le_bytes(*value).into()), to),
        DType::BF16 => encode(file, bytes.as_chunks().0.iter().map(|value| bf16::from_le_bytes(*value).into()), to),
        _ => Err(std::io::Error::other(format!("no conversion from {from}"))),
    }
}

fn encode(file: &mut impl Write, values: impl Iterator<Item = f64>, to: DType) -> std::io::Result<()> {
    match to {
        DType::F64 => write_all(file, values.map(f64::to_le_bytes)),
        DType::F32 => write_all(file, values.map(|value| (value as f32).to_le_bytes())),
        DType::F16 => write_all(file, values.map(|value| f16::from_f64(value).to_le_bytes())),
        DType::BF16 => write_all(file, values.map(|value| bf16::from_f64(value).to_le_bytes())),
        _ => Err(std::io::Error::other(format!("no conversion to {to}"))),
    }
}

fn write_all<const N: usize>(file: &mut impl Write, mut values: impl Iterator<Item = [u8; N]>) -> std::io::Result<()> {
    values.try_for_each(|value| file.write_all(&value))
}
