//! Convolution, and how windows move over an input.

use super::dims::{derived, remaining};
use super::{Attribute, Attributes, Builder, Case, Dim, Gradient, Op, Site, Tensor, Type, Use, Value, one};
use crate::error::{Error, Result};

/// The rows of this file.
pub(super) const ROWS: &[Op] = &[
    Op { name: "Conv", shape: conv, gradient: Gradient::Rule(conv_gradient), cases: conv_cases },
    Op {
        name: "ConvTranspose",
        shape: conv_transpose,
        gradient: Gradient::Rule(conv_transpose_gradient),
        cases: conv_transpose_cases,
    },
];

fn conv_cases() -> Vec<Case> {
    let image = |dims: &str, kernel: &str| Case::new().input(dims).input(kernel);
    let auto_pad = |case: Case, kind: &str| case.with("auto_pad", Attribute::Text(kind.to_owned()));
    vec![
        image("batch,3,16,15", "4,3,3,2")
            .input("4")
            .int_list("strides", &[2, 3])
            .int_list("pads", &[1, 0, 2, 1])
            .int_list("dilations", &[2, 1]),
        image("batch,4,9,10", "6,2,3,3").input("6").int("group", 2).int_list("strides", &[2, 2]),
        image("batch,4,9", "4,1,3").int("group", 4).int_list("pads", &[1, 1]),
        image("batch,4,tokens", "6,4,3").int_list("pads", &[1, 1]),
        Case::new()
            .input("batch,4,tokens,past")
            .constant(ramp(&[6, 2, 3, 1]))
            .input("6")
            .int("group", 2)
            .int_list("strides", &[3, 2])
            .unknown(),
        image("batch,10,9,10", "5,10,3,2")
            .int_list("strides", &[2, 3])
            .int_list("pads", &[1, 0, 2, 1])
            .int_list("dilations", &[2, 3]),
        image("batch,10,50", "3,10,4").int_list("strides", &[3]).int_list("pads", &[2, 1]),
        image("batch,4,8,9", "5,4,1,1").int_list("strides", &[2, 2]),
        auto_pad(image("batch,3,9,10", "4,3,3,2").int_list("strides", &[2, 3]), "SAME_UPPER"),
        auto_pad(image("batch,3,9,10", "4,3,4,2").int_list("strides", &[2, 1]), "SAME_LOWER"),
        auto_pad(image("batch,3,9", "4,3,2").int_list("strides", &[3]), "VALID"),
    ]
}

/// A constant kernel.
fn ramp(shape: &[usize]) -> Tensor {
    let values = (0..shape.iter().product()).map(|index: usize| (index as f32).sin()).collect();
    Tensor::new(shape, values).unwrap_or_else(|_| Tensor::scalar(0f32))
}

/// How a window moves along one spatial axis.
pub(super) struct Slide {
    pub kernel: i64,
    pub stride: i64,
    pub dilation: i64,
    /// Whether a window that ends past the padding counts.
    pub ceil: bool,
    /// Zeros before and after the input; `None` where they follow from a size that is not known.
    pub pads: Option<(i64, i64)>,
}

impl Slide {
    /// Elements from the first to the last that one window covers, both included.
    pub fn reach(&self) -> i64 {
        self.dilation * (self.kernel - 1) + 1
    }

    pub fn pads(&self) -> Result<(i64, i64)> {
        self.pads.ok_or_else(|| {
            Error::input("`auto_pad` makes the padding depend on a size that is not known before the model runs")
                .hint("export the model with fixed image sizes or with `pads`")
        })
    }

    /// Number of windows in an input of this size.
    pub fn windows(&self, size: &Dim) -> Result<Dim> {
        let Some((before, after)) = self.pads else { return Ok(Dim::Unknown) };
        let room = before + after - self.reach();
        match size {
            Dim::Fixed(size) if *size as i64 + room < 0 => {
                Err(Error::internal(format!("the kernel covers {} of {size} elements", self.reach())))
            }
            Dim::Fixed(size) => {
                let size = *size as i64;
                let mut last = (size + room) / self.stride;
                // A further window has to begin inside the input or the padding before it.
                if self.ceil && last * self.stride < size + room && (last + 1) * self.stride < size + before {
                    last += 1;
                }
                Ok(Dim::Fixed((last + 1) as usize))
            }
            Dim::Symbol(_) if self.ceil && self.stride != 1 => Ok(Dim::Unknown),
            Dim::Symbol(_) if room == -1 && self.stride == 1 => Ok(size.clone()),
            Dim::Symbol(name) => Ok(derived(format!("({name}{:+})/{}", room + self.stride, self.stride))),
            Dim::Unknown => Ok(Dim::Unknown),
        }
    }

    /// Elements at the end of the padded input that no window covers.
    fn rest(&self, size: &Dim) -> Result<Option<i64>> {
        let (before, after) = self.pads()?;
        Ok(match size {
            _ if self.stride == 1 => Some(0),
            Dim::Fixed(size) => Some((*size as i64 + before + after - self.reach()) % self.stride),
            _ => None,
        })
    }
}

/// How a kernel of sizes `kernel` moves over the spatial axes of sizes `sizes`.
pub(super) fn slides(attributes: Attributes, sizes: &[Dim], kernel: &[i64]) -> Result<Vec<Slide>> {
    let count = sizes.len();
    let list = |name, default: i64, count| {
        let values = attributes.int_list(name).map_or_else(|| vec![default; count], <[i64]>::to_vec);
        if values.len() == count { Ok(values) } else { Err(Error::internal(format!("`{name}` is {values:?}"))) }
    };
    let (strides, dilations, pads) =
        (list("strides", 1, count)?, list("dilations", 1, count)?, list("pads", 0, 2 * count)?);
    let ceil = attributes.int("ceil_mode").unwrap_or(0) != 0;
    let mut slides = Vec::with_capacity(count);
    for (axis, size) in sizes.iter().enumerate() {
        let (kernel, stride, dilation) = (kernel[axis], strides[axis], dilations[axis]);
        if kernel < 1 || stride < 1 || dilation < 1 {
            return Err(Error::internal(format!("kernel {kernel}, stride {stride} and dilation {dilation}")));
        }
        let mut slide = Slide { kernel, stride, dilation, ceil, pads: Some((pads[axis], pads[axis + count])) };
        match attributes.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" => {}
            "VALID" => slide.pads = Some((0, 0)),
            kind => slide.pads = same_pads(&slide, size, kind == "SAME_LOWER"),
        }
        slides.push(slide);
    }
    Ok(slides)
}

/// The padding with which there are as many windows as strides begin inside the input.
fn same_pads(slide: &Slide, size: &Dim, lower: bool) -> Option<(i64, i64)> {
    let last = match size {
        Dim::Fixed(size) => (*size as i64 - 1) % slide.stride + 1,
        _ if slide.stride == 1 => 1,
        _ => return None,
    };
    let total = (slide.reach() - last).max(0);
    let (less, more) = (total / 2, total - total / 2);
    Some(if lower { (more, less) } else { (less, more) })
}

/// The sizes of the spatial axes of a kernel.
fn kernel_sizes(weight: &Type) -> Result<Vec<i64>> {
    let size = |dim: &Dim| match dim {
        Dim::Fixed(size) => Ok(*size as i64),
        _ => Err(Error::internal(format!("the size of the kernel {weight} is not known"))),
    };
    weight.dims.iter().skip(2).map(size).collect()
}

fn conv(site: &Site) -> Result<Vec<Type>> {
    let (input, weight) = (site.input(0)?, site.input(1)?);
    if weight.dims.len() != input.dims.len() || input.dims.len() < 3 || weight.dtype != input.dtype {
        return Err(Error::internal(format!("{input} cannot be convolved with {weight}")));
    }
    let group = site.int("group").unwrap_or(1);
    if let (Dim::Fixed(channels), Dim::Fixed(part)) = (&input.dims[1], &weight.dims[1])
        && *channels as i64 != *part as i64 * group
    {
        return Err(Error::internal(format!("{input} cannot be convolved with {weight} in {group} groups")));
    }
    let mut dims = vec![input.dims[0].clone(), weight.dims[0].clone()];
    if kernel_sizes(weight).is_err() {
        dims.resize(input.dims.len(), Dim::Unknown);
        return one(input.dtype, dims);
    }
    let slides = slides(site.attributes, &input.dims[2..], &kernel_sizes(weight)?)?;
    for (slide, size) in slides.iter().zip(&input.dims[2..]) {
        dims.push(slide.windows(size)?);
    }
    one(input.dtype, dims)
}

/// The attributes of a convolution, from the strides, dilations and pads of each axis.
fn convolution(group: i64, of: &[(i64, i64, (i64, i64))]) -> Vec<(&'static str, Attribute)> {
    let list = |values: Vec<i64>| Attribute::Ints(values);
    let before = of.iter().map(|(_, _, pads)| pads.0);
    vec![
        ("group", Attribute::Int(group)),
        ("strides", list(of.iter().map(|(stride, _, _)| *stride).collect())),
        ("dilations", list(of.iter().map(|(_, dilation, _)| *dilation).collect())),
        ("pads", list(before.chain(of.iter().map(|(_, _, pads)| pads.1)).collect())),
    ]
}

/// `y[n,m,o] = sum of w[m,c,k] x[n,c,o*stride + k*dilation - before]`.
fn conv_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (x_type, kernel) = (builder.ty(x)?.clone(), kernel_sizes(builder.ty(weight)?)?);
    let slides = slides(site.attributes(), &x_type.dims[2..], &kernel)?;
    let group = site.attributes().int("group").unwrap_or(1);
    let of_x = spread(builder, (gradient, weight), x, &slides, group)?;
    builder.assume(of_x, x_type);
    let of_weight = kernel_gradient(builder, (x, gradient), weight, &slides, group)?;
    let of_bias = site.optional(2).map(|_| channel_sums(builder, gradient)).transpose()?;
    Ok(vec![Some(of_x), Some(of_weight), of_bias])
}

/// The gradient of the spatial axes of an input `x`, from those of the windows over it and the kernel: each window's gradient, times the kernel, is added where the window
/// lay.
pub(super) fn spread(
    builder: &mut Builder,
    of: (Value, Value),
    x: Value,
    slides: &[Slide],
    group: i64,
) -> Result<Value> {
    let x_type = builder.ty(x)?.clone();
    let (mut moves, mut rests, mut open) = (Vec::new(), Vec::new(), false);
    for (slide, size) in slides.iter().zip(&x_type.dims[2..]) {
        let rest = slide.rest(size)?;
        open |= rest.is_none();
        // Where the rest is not known, the largest possible is computed and cut.
        rests.push(rest.unwrap_or(slide.stride - 1));
        moves.push((slide.stride, slide.dilation, slide.pads()?));
    }
    let mut attributes = convolution(group, &moves);
    attributes.push(("output_padding", Attribute::Ints(rests)));
    let mut result = builder.op("ConvTranspose", &[of.0, of.1], &attributes)?;
    if open {
        let axes: Vec<i64> = (2..x_type.dims.len() as i64).collect();
        let (starts, ends) = (builder.ints(&vec![0; axes.len()])?, spatial_shape(builder, x)?);
        let axes = builder.ints(&axes)?;
        result = builder.op("Slice", &[result, starts, ends, axes], &[])?;
    }
    Ok(result)
}

/// The sizes of the spatial axes when the graph runs.
pub(super) fn spatial_shape(builder: &mut Builder, value: Value) -> Result<Value> {
    let shape = builder.op("Shape", &[value], &[])?;
    builder.slice(shape, 0, 2, i64::MAX)
}

/// The gradient of a kernel: a convolution of the input with the result's gradient in which examples are the channels
/// and strides and dilations swap their roles. Groups stay groups: the input is `[channels of a group, group * example,
/// ...]` in it.
///
/// That is one small product per channel. Where a kernel has fewer elements than channels, one product per element is
/// faster: 99 ms against 217 ms for 3 x 3 over `[8, 128, 28, 28]` on two threads.
fn kernel_gradient(
    builder: &mut Builder,
    (x, gradient): (Value, Value),
    weight: Value,
    slides: &[Slide],
    group: i64,
) -> Result<Value> {
    let (x_type, kernel_type) = (builder.ty(x)?.clone(), builder.ty(weight)?.clone());
    let elements: i64 = slides.iter().map(|slide| slide.kernel).product();
    let few = elements == 1 || matches!(kernel_type.dims[1], Dim::Fixed(channels) if elements <= channels as i64);
    if group == 1 && few {
        return element_gradients(builder, (x, gradient), weight, slides);
    }
    let swap: Vec<i64> = [1, 0].into_iter().chain(2..x_type.dims.len() as i64).collect();
    let examples = match group {
        1 => builder.transpose(x, &swap)?,
        _ => grouped_examples(builder, x, group, &kernel_type.dims[1])?,
    };
    let windows = builder.transpose(gradient, &swap)?;
    let moves = slides.iter().map(|slide| Ok((slide.dilation, slide.stride, slide.pads()?)));
    let attributes = convolution(group, &moves.collect::<Result<Vec<_>>>()?);
    let mut result = builder.op("Conv", &[examples, windows], &attributes)?;
    // What no window covers adds offsets past the kernel.
    for (axis, slide) in (2..).zip(slides) {
        if slide.rest(&x_type.dims[axis as usize])? != Some(0) {
            result = builder.slice(result, axis, 0, slide.kernel)?;
        }
    }
    result = builder.transpose(result, &swap)?;
    builder.assume(result, kernel_type);
    Ok(result)
}

/// The gradient of each element of a kernel is a product over all windows of what the element met and the windows'
/// gradients.
fn element_gradients(
    builder: &mut Builder,
    (x, gradient): (Value, Value),
    weight: Value,
    slides: &[Slide],
) -> Result<Value> {
    let swap: Vec<i64> = [1, 0].into_iter().chain(2..2 + slides.len() as i64).collect();
    let mut channels = builder.transpose(x, &swap)?;
    let pads = slides.iter().map(Slide::pads).collect::<Result<Vec<_>>>()?;
    if pads.iter().any(|pads| *pads != (0, 0)) {
        let mut sizes = vec![0, 0];
        sizes.extend(pads.iter().map(|pads| pads.0));
        sizes.extend([0, 0]);
        sizes.extend(pads.iter().map(|pads| pads.1));
        let sizes = builder.ints(&sizes)?;
        channels = builder.op("Pad", &[channels, sizes], &[])?;
    }
    let filters = builder.transpose(gradient, &swap)?;
    let filters = rows(builder, filters)?;
    let mut products = Vec::new();
    for place in places(slides) {
        let met = met_by(builder, channels, slides, &place)?;
        let met = rows(builder, met)?;
        let met = builder.transpose(met, &[1, 0])?;
        let product = builder.matmul(filters, met)?;
        products.push(builder.unsqueeze(product, &[2])?);
    }
    let ty = builder.ty(weight)?.clone();
    let (joined, shape) = (builder.concat(&products, 2)?, builder.op("Shape", &[weight], &[])?);
    let result = builder.op("Reshape", &[joined, shape], &[])?;
    builder.assume(result, ty);
    Ok(result)
}

/// The places in a kernel, in the order of its elements.
fn places(slides: &[Slide]) -> Vec<Vec<i64>> {
    slides.iter().fold(vec![Vec::new()], |places, slide| {
        let longer =
            |place: &Vec<i64>| (0..slide.kernel).map(|at| [place.as_slice(), &[at]].concat()).collect::<Vec<_>>();
        places.iter().flat_map(longer).collect()
    })
}

/// What one element of the kernel meets of the padded input, for each window.
fn met_by(builder: &mut Builder, padded: Value, slides: &[Slide], place: &[i64]) -> Result<Value> {
    if slides.iter().all(|slide| slide.kernel == 1 && slide.stride == 1) {
        return Ok(padded);
    }
    let at = || slides.iter().zip(place).map(|(slide, at)| (slide, slide.dilation * at));
    let starts: Vec<i64> = at().map(|(_, start)| start).collect();
    // Counted from the back, so that the size need not be known.
    let end = |(slide, start): (&Slide, i64)| match slide.reach() - 1 - start {
        0 => i64::MAX,
        rest => -rest,
    };
    let ends: Vec<i64> = at().map(end).collect();
    let steps: Vec<i64> = slides.iter().map(|slide| slide.stride).collect();
    let axes: Vec<i64> = (2..2 + slides.len() as i64).collect();
    let mut inputs = vec![padded];
    for numbers in [starts, ends, axes, steps] {
        inputs.push(builder.ints(&numbers)?);
    }
    builder.op("Slice", &inputs, &[])
}

/// One row per first dimension. How long they are is not stated: windows over sizes that are not known have other names.
fn rows(builder: &mut Builder, value: Value) -> Result<Value> {
    let ty = builder.ty(value)?.clone();
    let rows = builder.op("Flatten", &[value], &[])?;
    builder.assume(rows, Type::new(ty.dtype, vec![ty.dims[0].clone(), Dim::Unknown]));
    Ok(rows)
}

/// `[example, group * channel, ...]` as `[channel, group * example, ...]`.
fn grouped_examples(builder: &mut Builder, x: Value, group: i64, channels: &Dim) -> Result<Value> {
    let ty = builder.ty(x)?.clone();
    let spatial = spatial_shape(builder, x)?;
    let reshaped = |builder: &mut Builder, value: Value, leading: &[i64], dims: Vec<Dim>| {
        let leading = builder.ints(leading)?;
        let shape = builder.concat(&[leading, spatial], 0)?;
        let result = builder.op("Reshape", &[value, shape], &[])?;
        let dims = dims.into_iter().chain(ty.dims[2..].iter().cloned());
        builder.assume(result, Type::new(ty.dtype, dims.collect::<Vec<_>>()));
        Ok::<_, Error>(result)
    };
    let Dim::Fixed(parts) = channels else {
        return Err(Error::internal("the number of channels of a convolution's group is not known"));
    };
    let (groups, sizes) = (Dim::Fixed(group as usize), [group, *parts as i64]);
    let split = reshaped(builder, x, &[0, sizes[0], sizes[1]], vec![ty.dims[0].clone(), groups, channels.clone()])?;
    let order: Vec<i64> = [2, 1, 0].into_iter().chain(3..=ty.dims.len() as i64).collect();
    let moved = builder.transpose(split, &order)?;
    let all = remaining(&[Dim::Fixed(group as usize), ty.dims[0].clone()], &[])?;
    reshaped(builder, moved, &[sizes[1], -1], vec![channels.clone(), all])
}

fn conv_transpose_cases() -> Vec<Case> {
    let image = |dims: &str, kernel: &str| Case::new().input(dims).input(kernel);
    vec![
        image("batch,4,16,15", "4,3,3,2")
            .input("3")
            .int_list("strides", &[2, 3])
            .int_list("pads", &[1, 0, 2, 1])
            .int_list("dilations", &[2, 1])
            .int_list("output_padding", &[1, 2]),
        image("batch,4,6,5", "4,3,3,2").input("6").int("group", 2).int_list("strides", &[2, 2]),
        image("batch,4,tokens", "4,3,3").int_list("pads", &[1, 1]),
        image("batch,4,6", "4,1,3").int("group", 4).int_list("strides", &[2]),
    ]
}

/// How the kernel of a transposed convolution moves over its result, and the elements at the end that no window covers.
fn transposed_slides(attributes: Attributes, ty: &Type, kernel: &Type) -> Result<(Vec<Slide>, Vec<i64>)> {
    let auto_pad = attributes.text("auto_pad").unwrap_or("NOTSET");
    if !matches!(auto_pad, "NOTSET" | "VALID") || attributes.int_list("output_shape").is_some() {
        return Err(Error::input(
            "`ConvTranspose` with `output_shape` or an `auto_pad` of equal size is not supported",
        )
        .hint("export the model with `pads` and `output_padding`"));
    }
    let kernel = kernel_sizes(kernel)?;
    let rests = attributes.int_list("output_padding").map_or_else(|| vec![0; kernel.len()], <[i64]>::to_vec);
    Ok((slides(attributes, &ty.dims[2..], &kernel)?, rests))
}

fn conv_transpose(site: &Site) -> Result<Vec<Type>> {
    let (input, weight) = (site.input(0)?, site.input(1)?);
    if weight.dims.len() != input.dims.len() || input.dims.len() < 3 || weight.dtype != input.dtype {
        return Err(Error::internal(format!("{input} cannot be convolved with {weight}")));
    }
    let (slides, rests) = transposed_slides(site.attributes, input, weight)?;
    let channels = match &weight.dims[1] {
        Dim::Fixed(channels) => Dim::Fixed(channels * site.int("group").unwrap_or(1) as usize),
        _ => Dim::Unknown,
    };
    let mut dims = vec![input.dims[0].clone(), channels];
    for ((slide, rest), size) in slides.iter().zip(rests).zip(&input.dims[2..]) {
        let (before, after) = slide.pads()?;
        let more = slide.reach() - slide.stride - before - after + rest;
        dims.push(match size {
            Dim::Fixed(size) => match usize::try_from(*size as i64 * slide.stride + more) {
                Ok(size) => Dim::Fixed(size),
                Err(_) => return Err(Error::internal(format!("the padding of {input} leaves nothing"))),
            },
            Dim::Symbol(_) if slide.stride == 1 && more == 0 => size.clone(),
            Dim::Symbol(name) => derived(format!("{name}*{}{more:+}", slide.stride)),
            Dim::Unknown => Dim::Unknown,
        });
    }
    one(input.dtype, dims)
}

/// The reverse of [`conv_gradient`]: the input's gradient is a convolution, and in the kernel's gradient input and result
/// swap places.
fn conv_transpose_gradient(builder: &mut Builder, site: &Use) -> Result<Vec<Option<Value>>> {
    let (x, weight, gradient) = (site.input(0)?, site.input(1)?, site.gradient()?);
    let (x_type, weight_type) = (builder.ty(x)?.clone(), builder.ty(weight)?.clone());
    let (slides, _) = transposed_slides(site.attributes(), &x_type, &weight_type)?;
    let group = site.attributes().int("group").unwrap_or(1);
    let moves = slides.iter().map(|slide| Ok((slide.stride, slide.dilation, slide.pads()?)));
    let attributes = convolution(group, &moves.collect::<Result<Vec<_>>>()?);
    let of_x = builder.op("Conv", &[gradient, weight], &attributes)?;
    builder.assume(of_x, x_type);
    let of_weight = kernel_gradient(builder, (gradient, x), weight, &slides, group)?;
    let of_bias = site.optional(2).map(|_| channel_sums(builder, gradient)).transpose()?;
    Ok(vec![Some(of_x), Some(of_weight), of_bias])
}

/// The gradient of a bias: sums over everything but the channels.
fn channel_sums(builder: &mut Builder, gradient: Value) -> Result<Value> {
    let rank = builder.ty(gradient)?.dims.len() as i64;
    let axes: Vec<i64> = (0..rank).filter(|axis| *axis != 1).collect();
    let axes = builder.ints(&axes)?;
    builder.op("ReduceSum", &[gradient, axes], &[("keepdims", Attribute::Int(0))])
}
