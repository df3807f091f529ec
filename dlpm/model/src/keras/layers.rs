//! Parameters and operations of Keras' layers, from their configuration and the shape that they were made for.

use serde_json::Value;

/// What a layer costs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Its parameters, without statistics.
    pub params: u64,
    /// Multiply-accumulate operations for one element of a batch.
    pub mult_adds: u64,
    /// Dimensions of its output, where they are known.
    pub output: Vec<u64>,
    /// Why the operations are not known, where they are not.
    pub open: Option<String>,
}

/// Why a layer cannot be counted.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown(pub String);

type Flow<T> = Result<T, Unknown>;

fn unknown<T>(why: impl Into<String>) -> Flow<T> {
    Err(Unknown(why.into()))
}

/// Layers without parameters and products, by class.
const FREE: &str = "Activation ActivityRegularization Add AlphaDropout AutoContrast Average AveragePooling1D \
    AveragePooling2D AveragePooling3D CategoryEncoding CenterCrop Concatenate Cropping1D Cropping2D Cropping3D Dropout ELU \
    Flatten GaussianDropout GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D \
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D Identity LeakyReLU Masking MaxPooling1D MaxPooling2D \
    MaxPooling3D Maximum Minimum Multiply Permute RandomBrightness RandomContrast RandomCrop RandomFlip RandomRotation \
    RandomTranslation RandomZoom ReLU RepeatVector Rescaling Reshape Resizing Softmax SpatialDropout1D SpatialDropout2D \
    SpatialDropout3D Subtract ThresholdedReLU UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D \
    ZeroPadding2D ZeroPadding3D GetItem NotEqual Any All Relu";

/// A layer's configuration, and the shape of its input without the batch.
struct Layer<'a> {
    class: &'a str,
    config: &'a Value,
    shape: Vec<Option<u64>>,
}

/// What a layer costs.
///
/// # Errors
///
/// Where dlpm does not know its class, or its configuration lacks what is needed.
pub fn cost(layer: &Value) -> Flow<Cost> {
    let class = layer.get("class_name").and_then(Value::as_str).unwrap_or_default();
    let config = layer.get("config").unwrap_or(&Value::Null);
    if FREE.split(' ').any(|free| free == class) {
        return Ok(Cost::default());
    }
    let build = layer.get("build_config").unwrap_or(&Value::Null);
    if class == "MultiHeadAttention" {
        return attention(config, build);
    }
    if class == "Bidirectional" {
        return both_directions(config, build);
    }
    let of = Layer {
        class,
        config,
        shape: shape(build.get("input_shape")).unwrap_or_default(),
    };
    match class {
        "Dense" => of.dense(),
        "Conv1D" | "Conv2D" | "Conv3D" | "Convolution1D" | "Convolution2D" | "Convolution3D" => of.convolution(),
        "DepthwiseConv1D" | "DepthwiseConv2D" => of.depthwise(),
        "SeparableConv1D" | "SeparableConv2D" => of.separable(),
        "Conv1DTranspose" | "Conv2DTranspose" | "Conv3DTranspose" => of.transposed(),
        "Embedding" => {
            let params = checked([of.number("input_dim")?, of.number("output_dim")?])?;
            Ok(Cost {
                params,
                ..Cost::default()
            })
        }
        "BatchNormalization" => of.normalisation(&["scale", "center"]),
        "LayerNormalization" | "GroupNormalization" => of.normalisation(&["scale", "center"]),
        "RMSNormalization" => of.normalisation(&[""]),
        "LSTM" | "GRU" | "SimpleRNN" => of.recurrent(),
        _ => unknown("dlpm has no rule for this layer"),
    }
}

/// Dimensions without the batch; `None` for those that are open.
fn shape(value: Option<&Value>) -> Option<Vec<Option<u64>>> {
    let dims = value?.as_array()?;
    let (_, dims) = dims.split_first()?;
    Some(dims.iter().map(Value::as_u64).collect())
}

fn checked(factors: impl IntoIterator<Item = u64>) -> Flow<u64> {
    let product = factors.into_iter().try_fold(1u64, u64::checked_mul);
    product.map_or_else(|| unknown("its sizes have more than 64 bits"), Ok)
}

fn sum(parts: impl IntoIterator<Item = u64>) -> Flow<u64> {
    let sum = parts.into_iter().try_fold(0u64, u64::checked_add);
    sum.map_or_else(|| unknown("its sizes have more than 64 bits"), Ok)
}

impl Layer<'_> {
    fn number(&self, key: &str) -> Flow<u64> {
        let number = self.config.get(key).and_then(Value::as_u64);
        number.map_or_else(|| unknown(format!("its configuration has no {key}")), Ok)
    }

    fn flag(&self, key: &str, usual: bool) -> bool {
        self.config.get(key).and_then(Value::as_bool).unwrap_or(usual)
    }

    fn text(&self, key: &str) -> &str {
        self.config.get(key).and_then(Value::as_str).unwrap_or_default()
    }

    /// Numbers of each dimension of space: a list, or one number for all.
    fn numbers(&self, key: &str, rank: usize) -> Flow<Vec<u64>> {
        match self.config.get(key) {
            Some(Value::Array(all)) if all.len() == rank => {
                let all: Option<Vec<u64>> = all.iter().map(Value::as_u64).collect();
                all.map_or_else(|| unknown(format!("its configuration has no {key}")), Ok)
            }
            Some(Value::Number(one)) => {
                let one = one.as_u64();
                one.map_or_else(
                    || unknown(format!("its configuration has no {key}")),
                    |one| Ok(vec![one; rank]),
                )
            }
            _ => unknown(format!("its configuration has no {key}")),
        }
    }

    fn last(&self) -> Flow<u64> {
        let last = self.shape.last().copied().flatten();
        last.map_or_else(
            || unknown("the file does not tell for which shape the layer was made"),
            Ok,
        )
    }

    /// Channels and the dimensions of space.
    fn image(&self) -> Flow<(u64, Vec<Option<u64>>)> {
        let is_first = self.text("data_format") == "channels_first";
        let parts = match self.shape.as_slice() {
            [channels, space @ ..] if is_first && !space.is_empty() => Some((*channels, space)),
            [space @ .., channels] if !space.is_empty() => Some((*channels, space)),
            _ => None,
        };
        let Some((Some(channels), space)) = parts else {
            return unknown("the file does not tell for which shape the layer was made");
        };
        Ok((channels, space.to_vec()))
    }

    /// The result of windows over space; `None` where a dimension is open.
    fn windows(&self, space: &[Option<u64>], kernel: &[u64]) -> Flow<Option<Vec<u64>>> {
        let strides = self.numbers("strides", kernel.len())?;
        let dilation = self
            .numbers("dilation_rate", kernel.len())
            .unwrap_or_else(|_| vec![1; kernel.len()]);
        if space.len() != kernel.len() || strides.contains(&0) {
            return unknown("its windows do not fit its input");
        }
        let is_valid = self.text("padding") == "valid";
        let mut result = Vec::new();
        for (((size, kernel), stride), dilation) in space.iter().zip(kernel).zip(&strides).zip(&dilation) {
            let Some(size) = size else { return Ok(None) };
            let reach = if is_valid {
                kernel.saturating_sub(1).saturating_mul(*dilation)
            } else {
                0
            };
            result.push(size.saturating_sub(reach).div_ceil(*stride));
        }
        Ok(Some(result))
    }

    fn bias(&self, units: u64) -> u64 {
        if self.flag("use_bias", true) { units } else { 0 }
    }

    /// Operations of so many at each place, where the places are known.
    fn places(params: u64, per_place: u64, places: Option<Vec<u64>>, channels: u64) -> Flow<Cost> {
        let Some(places) = places else {
            return Ok(open(params));
        };
        let mult_adds = checked(places.iter().copied().chain([per_place]))?;
        let output = [vec![1], places, vec![channels]].concat();
        Ok(Cost {
            params,
            mult_adds,
            output,
            open: None,
        })
    }

    fn dense(&self) -> Flow<Cost> {
        let (units, last) = (self.number("units")?, self.last()?);
        let matrix = checked([units, last])?;
        let params = sum([matrix, self.bias(units)])?;
        let places = self
            .shape
            .split_last()
            .map(|(_, places)| places.iter().copied().collect())
            .unwrap_or_default();
        Self::places(params, matrix, places, units)
    }

    fn convolution(&self) -> Flow<Cost> {
        let (channels, space) = self.image()?;
        let kernel = self.numbers("kernel_size", space.len())?;
        let filters = self.number("filters")?;
        let groups = self.config.get("groups").and_then(Value::as_u64).unwrap_or(1);
        let Some(of_group) = channels.checked_div(groups) else {
            return unknown("it has no groups");
        };
        let weights = checked(kernel.iter().copied().chain([filters, of_group]))?;
        let params = sum([weights, self.bias(filters)])?;
        Self::places(params, weights, self.windows(&space, &kernel)?, filters)
    }

    fn depthwise(&self) -> Flow<Cost> {
        let (channels, space) = self.image()?;
        let kernel = self.numbers("kernel_size", space.len())?;
        let made = checked([channels, self.number("depth_multiplier")?])?;
        let weights = checked(kernel.iter().copied().chain([made]))?;
        let params = sum([weights, self.bias(made)])?;
        Self::places(params, weights, self.windows(&space, &kernel)?, made)
    }

    fn separable(&self) -> Flow<Cost> {
        let (channels, space) = self.image()?;
        let kernel = self.numbers("kernel_size", space.len())?;
        let made = checked([channels, self.number("depth_multiplier")?])?;
        let filters = self.number("filters")?;
        let weights = sum([
            checked(kernel.iter().copied().chain([made]))?,
            checked([made, filters])?,
        ])?;
        let params = sum([weights, self.bias(filters)])?;
        Self::places(params, weights, self.windows(&space, &kernel)?, filters)
    }

    fn transposed(&self) -> Flow<Cost> {
        let (channels, space) = self.image()?;
        let kernel = self.numbers("kernel_size", space.len())?;
        let filters = self.number("filters")?;
        let weights = checked(kernel.iter().copied().chain([filters, channels]))?;
        let params = sum([weights, self.bias(filters)])?;
        // Every place of the input meets every weight.
        Self::places(params, weights, space.iter().copied().collect(), filters)
    }

    /// A factor and a term for each channel; the statistics are not parameters.
    fn normalisation(&self, parts: &[&str]) -> Flow<Cost> {
        let axes: Vec<i64> = match self.config.get("axis") {
            Some(Value::Array(axes)) => axes.iter().filter_map(Value::as_i64).collect(),
            Some(axis) => axis.as_i64().into_iter().collect(),
            None => vec![-1],
        };
        let rank = i64::try_from(self.shape.len()).unwrap_or(i64::MAX).saturating_add(1);
        let mut size = 1u64;
        for axis in axes {
            let axis = if axis < 0 { axis.saturating_add(rank) } else { axis };
            let dim = usize::try_from(axis.saturating_sub(1))
                .ok()
                .and_then(|at| self.shape.get(at).copied().flatten());
            let Some(dim) = dim else {
                return unknown("the file does not tell for which shape the layer was made");
            };
            size = checked([size, dim])?;
        }
        let count = parts
            .iter()
            .filter(|part| part.is_empty() || self.flag(part, true))
            .count() as u64;
        Ok(Cost {
            params: checked([size, count])?,
            ..Cost::default()
        })
    }

    fn recurrent(&self) -> Flow<Cost> {
        let (units, inputs) = (self.number("units")?, self.last()?);
        let gates = match self.class {
            "LSTM" => 4,
            "GRU" => 3,
            _ => 1,
        };
        let matrices = checked([gates, units, sum([inputs, units])?])?;
        // Of a GRU, the state has biases of its own where the reset comes after its product.
        let biases = if self.class == "GRU" && self.flag("reset_after", true) {
            2
        } else {
            1
        };
        let params = sum([matrices, self.bias(checked([gates, units, biases])?)])?;
        let steps = match self.shape.as_slice() {
            [steps, _] => *steps,
            _ => return unknown("the file does not tell for which shape the layer was made"),
        };
        Self::places(params, matrices, steps.map(|steps| vec![steps]), units)
    }
}

fn open(params: u64) -> Cost {
    Cost {
        params,
        open: Some("a dimension is open; save the model with a fixed input shape".to_owned()),
        ..Cost::default()
    }
}

/// A recurrent layer that runs forwards and backwards.
fn both_directions(config: &Value, build: &Value) -> Flow<Cost> {
    let Some(inner) = config.get("layer") else {
        return unknown("its configuration has no layer");
    };
    let class = inner.get("class_name").and_then(Value::as_str).unwrap_or_default();
    if !matches!(class, "LSTM" | "GRU" | "SimpleRNN") {
        return unknown("dlpm has no rule for the layer in it");
    }
    let of = Layer {
        class,
        config: inner.get("config").unwrap_or(&Value::Null),
        shape: shape(build.get("input_shape")).unwrap_or_default(),
    };
    let one = of.recurrent()?;
    Ok(Cost {
        params: checked([one.params, 2])?,
        mult_adds: checked([one.mult_adds, 2])?,
        ..one
    })
}

/// Products for queries, keys, values and the result, and the attention between them.
fn attention(config: &Value, build: &Value) -> Flow<Cost> {
    let number = |key: &str| config.get(key).and_then(Value::as_u64);
    let Some((heads, key_width)) = number("num_heads").zip(number("key_dim")) else {
        return unknown("its configuration has no num_heads or key_dim");
    };
    let value_width = number("value_dim").unwrap_or(key_width);
    let shapes = build.get("shapes_dict").unwrap_or(build);
    let query = shape(shapes.get("query_shape"));
    let value = shape(shapes.get("value_shape"));
    let key = shape(shapes.get("key_shape")).or_else(|| value.clone());
    if config.get("output_shape").is_some_and(|shape| !shape.is_null()) {
        return unknown("dlpm has no rule for it with another output_shape");
    }
    let (Some([queries, Some(query)]), Some([keys, Some(key)]), Some([_, Some(value)])) =
        (query.as_deref(), key.as_deref(), value.as_deref())
    else {
        return unknown("the file does not tell for which shapes the layer was made");
    };
    let (key_columns, value_columns) = (checked([heads, key_width])?, checked([heads, value_width])?);
    let (of_query, of_key) = (checked([*query, key_columns])?, checked([*key, key_columns])?);
    let (of_value, of_result) = (checked([*value, value_columns])?, checked([value_columns, *query])?);
    let has_bias = config.get("use_bias").and_then(Value::as_bool).unwrap_or(true);
    let biases = sum([key_columns, key_columns, value_columns, *query])?;
    let params = sum([of_query, of_key, of_value, of_result, if has_bias { biases } else { 0 }])?;
    let (Some(queries), Some(keys)) = (queries, keys) else {
        return Ok(open(params));
    };
    let mult_adds = sum([
        checked([*queries, sum([of_query, of_result])?])?,
        checked([*keys, sum([of_key, of_value])?])?,
        checked([*queries, *keys, sum([key_columns, value_columns])?])?,
    ])?;
    Ok(Cost {
        params,
        mult_adds,
        output: vec![1, *queries, *query],
        open: None,
    })
}
