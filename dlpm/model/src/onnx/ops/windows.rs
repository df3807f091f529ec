//! Operators that slide a window: convolutions and pooling.

use super::super::{
    call::{Call, Outcome},
    value::{Flow, Tensor, bad, product, show},
};

/// Evaluates an operator of this family.
pub fn evaluate(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Conv" | "ConvInteger" | "DeformConv" => conv(call, 1),
        "QLinearConv" => conv(call, 3),
        "ConvTranspose" => conv_transpose(call),
        "MaxPool" | "AveragePool" | "LpPool" => pool(call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global_pool(call),
        "MaxUnpool" => max_unpool(call),
        "MaxRoiPool" | "RoiAlign" => regions(call),
        "Col2Im" => col2im(call),
        _ => return None,
    })
}

/// Evaluates an operator of ONNX Runtime of this family.
pub fn evaluate_contrib(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "FusedConv" => conv(call, 1),
        "NhwcConv" | "NhwcFusedConv" => channels_last(call, 1),
        "NhwcMaxPool" => pool(call),
        "ConvTransposeWithDynamicPads" if call.input(2).is_none() => conv_transpose(call),
        _ => return None,
    })
}

/// Evaluates an operator whose channels lie in blocks, as ONNX Runtime's optimiser writes them for CPUs. Channels are padded to
/// whole blocks; the weights are, too, so that the operations of a padded channel are run and counted.
pub fn evaluate_blocked(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Conv" => blocked_conv(call),
        "MaxPool" | "AveragePool" => pool(call),
        "GlobalMaxPool" | "GlobalAveragePool" => global_pool(call),
        "ReorderInput" => reorder_input(call),
        "ReorderOutput" => reorder_output(call),
        "Upsample" => blocked_upsample(call),
        _ => return None,
    })
}

/// Evaluates an operator whose channels are the last dimension.
pub fn evaluate_channels_last(call: &Call<'_>) -> Option<Flow<Outcome>> {
    Some(match call.op {
        "Conv" => channels_last(call, 1),
        "QLinearConv" => channels_last(call, 3),
        "MaxPool" | "AveragePool" | "LpPool" | "QLinearAveragePool" => pool(call),
        "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => global_pool(call),
        "BatchNormalization" | "InstanceNormalization" | "LRN" => call.shape(0).map(Outcome::of),
        _ => return None,
    })
}

/// The domain of operators whose channels are the last dimension.
pub const CHANNELS_LAST: &str = "com.ms.internal.nhwc";

/// Largest kernel, stride or dilation: far beyond what exists, and far below what would overflow.
const LARGEST: u64 = 1 << 40;

/// What slides, for each spatial dimension.
struct Windows {
    kernel: Vec<u64>,
    strides: Vec<u64>,
    dilations: Vec<u64>,
    /// Begins, then ends.
    pads: Vec<i64>,
}

impl Windows {
    fn of(call: &Call<'_>, spatial: usize, kernel: &[u64]) -> Flow<Self> {
        let or_ones = |name: &str| -> Flow<Vec<u64>> {
            let values = call.counts(name)?.filter(|values| !values.is_empty());
            let values = values.unwrap_or_else(|| vec![1; spatial]);
            if values.len() != spatial || !values.iter().all(|value| (1..=LARGEST).contains(value)) {
                return bad(format!("`{name}` does not have {spatial} values above 0"));
            }
            Ok(values)
        };
        if kernel.len() != spatial || !kernel.iter().all(|size| (1..=LARGEST).contains(size)) {
            return bad(format!("a kernel of {} is not for {spatial} dimensions", show(kernel)));
        }
        let pads = call.ints("pads").filter(|pads| !pads.is_empty());
        let pads = pads.map_or_else(|| vec![0; 2 * spatial], <[i64]>::to_vec);
        if pads.len() != 2 * spatial {
            return bad(format!("`pads` does not have {} values", 2 * spatial));
        }
        Ok(Self {
            kernel: kernel.to_vec(),
            strides: or_ones("strides")?,
            dilations: or_ones("dilations")?,
            pads,
        })
    }

    /// Positions of the window along each dimension of `input`.
    fn positions(&self, call: &Call<'_>, input: &[u64]) -> Flow<Vec<u64>> {
        let ceil = call.flag("ceil_mode");
        let pads = self.pads.iter().zip(self.pads.iter().skip(input.len()));
        let sizes = input
            .iter()
            .zip(self.kernel.iter().zip(self.strides.iter().zip(&self.dilations)));
        sizes
            .zip(pads)
            .map(|((size, (kernel, (stride, dilation))), (begin, end))| {
                let (size, kernel, stride) = (i128::from(*size), i128::from(*kernel), i128::from(*stride));
                let window = (kernel - 1) * i128::from(*dilation) + 1;
                let same = || (size + stride - 1).div_euclid(stride);
                let positions = match call.text("auto_pad") {
                    "SAME_UPPER" | "SAME_LOWER" => same(),
                    "VALID" => (size - window).div_euclid(stride) + 1,
                    _ => {
                        let begin = i128::from(*begin);
                        let free = size + begin + i128::from(*end) - window;
                        let up = if ceil { stride - 1 } else { 0 };
                        let count = (free + up).div_euclid(stride) + 1;
                        // A window that would begin in the padding at the end does not count.
                        if ceil && (count - 1) * stride >= size + begin {
                            count - 1
                        } else {
                            count
                        }
                    }
                };
                match u64::try_from(positions) {
                    Ok(positions) if positions > 0 => Ok(positions),
                    _ => bad(format!("a window of {window} finds no place in a dimension of {size}")),
                }
            })
            .collect()
    }
}

/// Positions × weights of a position.
pub fn conv(call: &Call<'_>, weights_at: usize) -> Flow<Outcome> {
    if call.flag("channels_last") {
        return channels_last(call, weights_at);
    }
    let (input, weights) = (call.shape_of_rank(0, 3)?, call.shape_of_rank(weights_at, 3)?);
    let ([batch, channels, spatial @ ..], [features, per_group, kernel @ ..]) = (input, weights) else {
        return bad("it has no channels");
    };
    let groups = call.count("group").unwrap_or(1);
    if product([*per_group, groups])? != *channels {
        return bad(format!(
            "{} channels do not go with weights of {} in {groups} groups",
            channels,
            show(weights)
        ));
    }
    let windows = Windows::of(call, spatial.len(), kernel)?;
    let positions = windows.positions(call, spatial)?;
    let mut shape = vec![*batch, *features];
    shape.extend(positions);
    let mult_adds = product(shape.iter().chain(weights.iter().skip(1)).copied())?;
    Ok(Outcome::counted(shape, mult_adds))
}

/// Batch × space × channels; the weights are as elsewhere.
fn channels_last(call: &Call<'_>, weights_at: usize) -> Flow<Outcome> {
    let (input, weights) = (call.shape_of_rank(0, 3)?, call.shape_of_rank(weights_at, 3)?);
    let ([batch, spatial @ .., channels], [features, per_group, kernel @ ..]) = (input, weights) else {
        return bad("it has no channels");
    };
    let groups = call.count("group").unwrap_or(1);
    if product([*per_group, groups])? != *channels {
        return bad(format!(
            "{channels} channels do not go with weights of {} in {groups} groups",
            show(weights)
        ));
    }
    let windows = Windows::of(call, spatial.len(), kernel)?;
    let mut shape = vec![*batch];
    shape.extend(windows.positions(call, spatial)?);
    shape.push(*features);
    let mult_adds = product(shape.iter().chain(weights.iter().skip(1)).copied())?;
    Ok(Outcome::counted(shape, mult_adds))
}

/// The weights are blocked, too: their first dimension is that of all output channels. The channels of the input may be padded.
fn blocked_conv(call: &Call<'_>) -> Flow<Outcome> {
    let (input, weights) = (call.shape_of_rank(0, 3)?, call.shape_of_rank(1, 3)?);
    let ([batch, channels, spatial @ ..], [features, per_group, kernel @ ..]) = (input, weights) else {
        return bad("it has no channels");
    };
    let groups = call.count("group").unwrap_or(1);
    if product([*per_group, groups])? < *channels {
        return bad(format!(
            "{channels} channels do not go with weights of {} in {groups} groups",
            show(weights)
        ));
    }
    let windows = Windows::of(call, spatial.len(), kernel)?;
    let mut shape = vec![*batch, *features];
    shape.extend(windows.positions(call, spatial)?);
    let mult_adds = product(shape.iter().chain(weights.iter().skip(1)).copied())?;
    Ok(Outcome::counted(shape, mult_adds))
}

/// Blocked from channels at their usual place, or as the last dimension.
fn reorder_input(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 3)?;
    let mut shape = input.to_vec();
    if call.flag("channels_last") {
        shape.remove(shape.len() - 1);
        shape.insert(1, input.last().copied().unwrap_or_default());
    }
    Ok(Outcome::of(shape))
}

/// Back from blocks, without the channels that were padding.
fn reorder_output(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 3)?;
    let Some(channels) = call.count("channels") else {
        return bad("it has no attribute `channels`");
    };
    let mut shape = input.to_vec();
    shape.remove(1);
    if call.flag("channels_last") {
        shape.push(channels);
    } else {
        shape.insert(1, channels);
    }
    Ok(Outcome::of(shape))
}

fn blocked_upsample(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape(0)?;
    let scales = call.counts("scales")?.unwrap_or_else(|| vec![1; input.len()]);
    if scales.len() != input.len() {
        return bad(format!(
            "{} scales are not for {} dimensions",
            scales.len(),
            input.len()
        ));
    }
    let shape: Vec<u64> = input
        .iter()
        .zip(&scales)
        .map(|(dim, scale)| product([*dim, *scale]))
        .collect::<Flow<_>>()?;
    Ok(Outcome::of(shape))
}

/// Every element of the input meets every weight of its group.
fn conv_transpose(call: &Call<'_>) -> Flow<Outcome> {
    let (input, weights) = (call.shape_of_rank(0, 3)?, call.shape_of_rank(1, 3)?);
    let ([batch, channels, spatial @ ..], [weight_channels, per_group, kernel @ ..]) = (input, weights) else {
        return bad("it has no channels");
    };
    if channels != weight_channels {
        return bad(format!(
            "{channels} channels do not go with weights of {}",
            show(weights)
        ));
    }
    let features = product([*per_group, call.count("group").unwrap_or(1)])?;
    let windows = Windows::of(call, spatial.len(), kernel)?;
    let extra = call.counts("output_padding")?.unwrap_or_default();
    let wanted = call.counts("output_shape")?.unwrap_or_default();
    let mut shape = vec![*batch, features];
    for (at, size) in spatial.iter().enumerate() {
        if let Some(wanted) = wanted.get(wanted.len().saturating_sub(spatial.len()) + at) {
            shape.push(*wanted);
            continue;
        }
        let of = |values: &[u64], default| i128::from(values.get(at).copied().unwrap_or(default));
        let pad = |at: usize| i128::from(windows.pads.get(at).copied().unwrap_or(0));
        let (size, stride) = (i128::from(*size), of(&windows.strides, 1));
        let window = (of(&windows.kernel, 1) - 1) * of(&windows.dilations, 1) + 1;
        let length = match call.text("auto_pad") {
            "SAME_UPPER" | "SAME_LOWER" => size * stride,
            "VALID" => stride * (size - 1) + of(&extra, 0) + window,
            _ => stride * (size - 1) + of(&extra, 0) + window - pad(at) - pad(at + spatial.len()),
        };
        match u64::try_from(length) {
            Ok(length) if length > 0 => shape.push(length),
            _ => return bad("its padding leaves nothing of the result"),
        }
    }
    let mult_adds = product(
        std::iter::once(*batch)
            .chain(spatial.iter().copied())
            .chain(weights.iter().copied()),
    )?;
    Ok(Outcome::counted(shape, mult_adds))
}

pub fn pool(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 3)?;
    let last = is_channels_last(call);
    let spatial = if last {
        input.get(1..input.len() - 1).unwrap_or_default()
    } else {
        input.get(2..).unwrap_or_default()
    };
    let kernel = call.counts("kernel_shape")?.unwrap_or_default();
    let positions = Windows::of(call, spatial.len(), &kernel)?.positions(call, spatial)?;
    let begin = if last { 1 } else { 2 };
    let mut shape = input.get(..begin).unwrap_or_default().to_vec();
    shape.extend(positions);
    shape.extend(input.get(begin + spatial.len()..).unwrap_or_default());
    let output = Tensor::of(shape);
    Ok(Outcome {
        outputs: vec![output; call.outputs.clamp(1, 2)],
        mult_adds: None,
    })
}

pub fn global_pool(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 2)?;
    let channels = if is_channels_last(call) { input.len() - 1 } else { 1 };
    let dims = input.iter().enumerate();
    let shape: Vec<u64> = dims
        .map(|(at, dim)| if at == 0 || at == channels { *dim } else { 1 })
        .collect();
    Ok(Outcome::of(shape))
}

fn is_channels_last(call: &Call<'_>) -> bool {
    call.flag("channels_last") || call.op == "NhwcMaxPool" || call.domain == CHANNELS_LAST
}

fn max_unpool(call: &Call<'_>) -> Flow<Outcome> {
    if call.input(2).is_some() {
        let wanted = call.ints_of(2)?.iter();
        let shape: Vec<u64> = wanted
            .map(|dim| super::super::call::count(*dim, "output_shape"))
            .collect::<Flow<_>>()?;
        return Ok(Outcome::of(shape));
    }
    let input = call.shape_of_rank(0, 3)?;
    let [batch, channels, spatial @ ..] = input else {
        return bad("it has no channels");
    };
    let kernel = call.counts("kernel_shape")?.unwrap_or_default();
    let windows = Windows::of(call, spatial.len(), &kernel)?;
    let mut shape = vec![*batch, *channels];
    for (at, size) in spatial.iter().enumerate() {
        let of = |values: &[u64]| i128::from(values.get(at).copied().unwrap_or(1));
        let pads = [at, at + spatial.len()].map(|at| i128::from(windows.pads.get(at).copied().unwrap_or(0)));
        let length = (i128::from(*size) - 1) * of(&windows.strides) + of(&windows.kernel) - pads[0] - pads[1];
        match u64::try_from(length) {
            Ok(length) => shape.push(length),
            Err(_) => return bad("its padding leaves nothing of the result"),
        }
    }
    Ok(Outcome::of(shape))
}

fn regions(call: &Call<'_>) -> Flow<Outcome> {
    let (input, regions) = (call.shape_of_rank(0, 4)?, call.shape_of_rank(1, 1)?);
    let (height, width) = match (call.counts("pooled_shape")?.as_deref(), call.op) {
        (Some([height, width]), _) => (*height, *width),
        (_, "RoiAlign") => (
            call.count("output_height").unwrap_or(1),
            call.count("output_width").unwrap_or(1),
        ),
        _ => return bad("`pooled_shape` does not have two values"),
    };
    match (input, regions) {
        ([_, channels, ..], [regions, ..]) => Ok(Outcome::of([*regions, *channels, height, width])),
        _ => bad("it has no channels"),
    }
}

fn col2im(call: &Call<'_>) -> Flow<Outcome> {
    let input = call.shape_of_rank(0, 2)?;
    let block = call
        .ints_of(2)?
        .iter()
        .map(|size| super::super::call::count(*size, "block_shape"));
    let block = product(block.collect::<Flow<Vec<u64>>>()?)?;
    let image = call
        .ints_of(1)?
        .iter()
        .map(|size| super::super::call::count(*size, "image_shape"));
    let [batch, channels, ..] = input else {
        return bad("it has no channels");
    };
    let Some(channels) = channels.checked_div(block) else {
        return bad("its blocks are empty");
    };
    let mut shape = vec![*batch, channels];
    shape.extend(image.collect::<Flow<Vec<u64>>>()?);
    Ok(Outcome::of(shape))
}
