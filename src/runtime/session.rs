//! Sessions and the tensors that flow between them.
//!
//! Outputs of a run are tensors on the device that can be inputs of the next run without a copy.

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::GraphOptimizationLevel;
use ort::value::{DynTensor, PrimitiveTensorElementType, TensorElementType};

use super::{Activity, Runtime};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::tensor::{Data, Element, Tensor};

/// Where graphs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its number, through the CUDA provider.
    Cuda(i32),
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = match text {
            "cpu" => return Ok(Self::Cpu),
            "cuda" => Some(0),
            _ => text.strip_prefix("cuda:").and_then(|number| number.parse().ok()).filter(|number| *number >= 0),
        };
        number.map(Self::Cuda).ok_or_else(|| {
            Error::input(format!("unknown device `{text}`")).hint("known: cpu, cuda, cuda:<number of the GPU>")
        })
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// How a session is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// Where it runs.
    pub device: Device,
    /// How it uses threads and memory.
    pub sharing: Sharing,
}

impl SessionOptions {
    /// How the sessions of the updates beside a training session are set up: one per thread where the model is small,
    /// since operators on small tensors gain nothing from a second thread.
    pub fn for_updates(&self) -> Vec<Self> {
        match (self.device, self.sharing) {
            (Device::Cpu, Sharing::Training { threads, mapped: false }) => {
                vec![Self { sharing: Sharing::Updates { shared: false }, ..self.clone() }; threads.max(1)]
            }
            _ => vec![Self { sharing: Sharing::Updates { shared: true }, ..self.clone() }],
        }
    }
}

/// Ways to use several threads. The choice moves results in their last bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Every thread has a session of its own. Each rearranges the weights into a copy that is multiplied faster, and
    /// none waits for another: best for small models.
    Replicas,
    /// The threads of the runtime share each operator of one session, and all sessions read the mapped weights.
    Operators,
    /// As replicas or, if shared, as operators, for sessions whose outputs live on when they run again: memory comes from
    /// the process and goes back to it at once. A session's own store would keep what others need.
    Updates {
        /// Whether the threads share each operator.
        shared: bool,
    },
    /// The session that a training step spends its time in has threads of its own, which share each operator and wait
    /// for the next one without falling asleep: where nothing else wants the cores, a step of a small model takes up to
    /// a tenth less time. Between runs they sleep and leave the cores to updates and to the next batch.
    Training {
        /// How many threads.
        threads: usize,
        /// Whether frozen weights are read where they lie, as for `Operators`, or are rearranged, as for `Replicas`.
        mapped: bool,
    },
}

impl Runtime {
    /// Hands a host tensor over. On a GPU it is copied when it is first used.
    pub fn tensor(&self, tensor: Tensor) -> Result<DeviceTensor> {
        let shape = tensor.shape().to_vec();
        let value = match tensor.into_data() {
            Data::F64(values) => owned(shape, values),
            Data::F32(values) => owned(shape, values),
            Data::F16(values) => owned(shape, values),
            Data::BF16(values) => owned(shape, values),
            Data::I64(values) => owned(shape, values),
            Data::I32(values) => owned(shape, values),
            Data::U8(values) => owned(shape, values),
            Data::Bool(values) => owned(shape, values),
        };
        value
            .map(DeviceTensor)
            .map_err(|cause| Error::internal("cannot hand a tensor to ONNX Runtime").caused_by(cause))
    }
}

fn owned<T: PrimitiveTensorElementType + Clone + fmt::Debug + 'static>(
    shape: Vec<usize>,
    values: Vec<T>,
) -> ort::Result<DynTensor> {
    ort::value::Tensor::from_array((shape, values)).map(|tensor| tensor.upcast())
}

/// A tensor in the memory of the device (or of the host, which is the same for the CPU).
#[derive(Debug)]
pub struct DeviceTensor(DynTensor);

impl DeviceTensor {
    /// Its dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.0.shape().iter().map(|size| *size as usize).collect()
    }

    /// Its elements, if it lies in host memory and they are of type `T`.
    pub fn values<T: PrimitiveTensorElementType>(&self) -> Result<&[T]> {
        let (_, values) = self
            .0
            .try_extract_tensor::<T>()
            .map_err(|cause| Error::internal("cannot read a tensor of ONNX Runtime").caused_by(cause))?;
        Ok(values)
    }

    /// A copy in host memory, wherever it lies.
    pub fn to_host(&self) -> Result<Tensor> {
        if self.0.memory_info().is_cpu_accessible() {
            return self.copy();
        }
        let fetched = self.0.to(AllocationDevice::CPU, 0);
        let fetched =
            fetched.map_err(|cause| Error::internal("cannot fetch a tensor from the GPU").caused_by(cause))?;
        Self(fetched).copy()
    }

    fn copy(&self) -> Result<Tensor> {
        match *self.0.data_type() {
            TensorElementType::Float64 => self.copy_of::<f64>(),
            TensorElementType::Float32 => self.copy_of::<f32>(),
            TensorElementType::Float16 => self.copy_of::<half::f16>(),
            TensorElementType::Bfloat16 => self.copy_of::<half::bf16>(),
            TensorElementType::Int64 => self.copy_of::<i64>(),
            TensorElementType::Int32 => self.copy_of::<i32>(),
            TensorElementType::Uint8 => self.copy_of::<u8>(),
            TensorElementType::Bool => self.copy_of::<bool>(),
            other => Err(Error::internal(format!("a tensor of ONNX Runtime holds {other:?}"))),
        }
    }

    fn copy_of<T: PrimitiveTensorElementType + Element>(&self) -> Result<Tensor> {
        Tensor::new(self.shape(), self.values::<T>()?.to_vec())
    }
}

/// A graph ready to run.
#[derive(Debug)]
pub struct Session {
    inner: ort::session::Session,
    name: String,
    inputs: Vec<String>,
    device_memory: MemoryInfo<'static>,
    host_memory: MemoryInfo<'static>,
    activity: Arc<Activity>,
}

impl Session {
    /// Prepares `graph`, whose external initialisers lie in `folder`.
    ///
    /// # Errors
    ///
    /// Input error if the device is not there (never a silent fall-back to the CPU).
    pub fn new(runtime: &Runtime, graph: &Graph, folder: &Path, options: &SessionOptions) -> Result<Self> {
        let within = |cause: ort::Error| {
            let error = Error::internal(format!("cannot prepare the graph `{}` for {}", graph.name, options.device));
            error.caused_by(cause)
        };
        let folder = folder.to_str().ok_or_else(|| {
            Error::input(format!("the folder `{}` is not valid UTF-8", folder.display())).hint("rename it")
        })?;
        let mut builder = ort::session::Session::builder(&runtime.environment).map_err(within)?;
        if let Device::Cuda(number) = options.device {
            builder = builder
                .with_execution_providers([ort::ep::CUDA::default().with_device_id(number).build().error_on_failure()])
                .map_err(|error| no_cuda(number, error.into()))?;
        }
        let mut builder = configure(builder, folder, options).map_err(within)?;
        let inner = builder.commit_from_memory(&graph.to_onnx()).map_err(within)?;
        let device_memory = match options.device {
            Device::Cpu => host_memory(),
            Device::Cuda(number) => {
                MemoryInfo::new(AllocationDevice::CUDA, number, AllocatorType::Device, MemoryType::Default)
            }
        };
        Ok(Self {
            inner,
            name: graph.name.clone(),
            inputs: graph.inputs.iter().map(|input| graph.name_of(*input).to_owned()).collect(),
            device_memory: device_memory.map_err(within)?,
            host_memory: host_memory().map_err(within)?,
            activity: Arc::clone(&runtime.activity),
        })
    }

    /// Names of the graph's inputs.
    pub fn inputs(&self) -> &[String] {
        &self.inputs
    }

    /// Runs the graph; `device` outputs stay on the device, `host` outputs come back. Returned in that order.
    pub fn run(
        &mut self,
        inputs: &[(&str, &DeviceTensor)],
        device: &[&str],
        host: &[&str],
    ) -> Result<Vec<DeviceTensor>> {
        let activity = Arc::clone(&self.activity);
        let result = activity.during(|| self.run_bound(inputs, device, host));
        result.map_err(|cause| Error::internal(format!("cannot run the graph `{}`", self.name)).caused_by(cause))
    }

    fn run_bound(
        &mut self,
        inputs: &[(&str, &DeviceTensor)],
        device: &[&str],
        host: &[&str],
    ) -> ort::Result<Vec<DeviceTensor>> {
        let mut binding = self.inner.create_binding()?;
        for (name, tensor) in inputs {
            binding.bind_input(*name, &tensor.0)?;
        }
        for name in device {
            binding.bind_output_to_device(*name, &self.device_memory)?;
        }
        for name in host {
            binding.bind_output_to_device(*name, &self.host_memory)?;
        }
        let mut outputs = self.inner.run_binding(&binding)?;
        let mut tensors = Vec::with_capacity(device.len() + host.len());
        for name in device.iter().chain(host) {
            let value = outputs.remove(*name).ok_or_else(|| ort::Error::new(format!("no output `{name}`")))?;
            tensors.push(DeviceTensor(value.downcast()?));
        }
        Ok(tensors)
    }
}

fn host_memory() -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)
}

fn configure(
    builder: ort::session::builder::SessionBuilder,
    folder: &str,
    options: &SessionOptions,
) -> ort::Result<ort::session::builder::SessionBuilder> {
    let builder = builder
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_config_entry("session.model_external_initializers_file_folder_path", folder)?;
    match (options.device, options.sharing) {
        (Device::Cuda(_), _) => Ok(builder),
        (Device::Cpu, Sharing::Replicas) => Ok(builder.with_independent_thread_pool()?.with_intra_threads(1)?),
        (Device::Cpu, Sharing::Updates { shared }) => {
            let builder =
                builder.with_execution_providers([ort::ep::CPU::default().with_arena_allocator(false).build()])?;
            if shared { Ok(builder) } else { Ok(builder.with_independent_thread_pool()?.with_intra_threads(1)?) }
        }
        // Folding would transpose each weight into a private copy; unfolded transpositions are fused into the products.
        (Device::Cpu, Sharing::Operators) => {
            Ok(builder.with_prepacking(false)?.with_disabled_optimizers("ConstantFolding")?)
        }
        (Device::Cpu, Sharing::Training { threads, mapped }) => {
            let builder = builder.with_independent_thread_pool()?.with_intra_threads(threads)?;
            let builder =
                builder.with_intra_op_spinning(true)?.with_config_entry("session.force_spinning_stop", "1")?;
            match mapped {
                true => Ok(builder.with_prepacking(false)?.with_disabled_optimizers("ConstantFolding")?),
                false => Ok(builder),
            }
        }
    }
}

fn no_cuda(number: i32, cause: ort::Error) -> Error {
    Error::input(format!("the CUDA provider cannot use GPU {number}"))
        .caused_by(cause)
        .hint("install `onnxruntime-gpu` and point ORT_DYLIB_PATH at its library, or use `--device cpu`; `digrap-bench doctor` shows what is there")
}
