//! `dlpm model`, and the options of `dlpm trace` about a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use dlpm_model::{
    Options,
    input::{InputShape, InputValue, NamedDim},
    language::{CacheType, Settings, size},
};

const HELP: &str = "\
Formats:
  .onnx         parameters and operations; also what TensorFlow (tf2onnx), JAX and scikit-learn export
  .pt2          parameters, those that are trained, and operations (torch.export.save)
  .pt, .pth     parameters only (TorchScript, torch.save of a model or its state_dict); nothing in the file is executed
  .safetensors  parameters only
  .tflite       parameters and operations, for the shapes in the file
  .keras        parameters, those that are trained, and operations, for the shapes in the file
  FOLDER        of Hugging Face (config.json and .safetensors): the same as of .gguf
  .gguf         parameters, weights by type, operations of a prompt and of each new token, the KV cache
The format is recognised from the file's contents, not from its name. Weights are not loaded.

What is counted:
  Multiply-accumulate operations of one forward pass: convolutions, matrix products, Einstein sums, recurrent layers and
  attention, without biases, elementwise operations, normalisation and pooling. That is PyTorch's FlopCounterMode
  divided by 2; other tools count differently. Operators that cannot be counted are listed, and the total is then a
  lower bound. Tensors that are not parameters are listed with the reason.

Exit status: 0 if everything was counted; 3 if parameters or operations are a lower bound; 1 if the file cannot be read
or its shapes are not known; 2 for an invalid command line.

Examples:
  dlpm model resnet50.onnx
  dlpm model detector.onnx --input 1,3,320,320 --per-layer
  dlpm model decoder.onnx --dim batch=1 --dim sequence=128 --dim past=0
  dlpm model encoder.pt2 --modules --top 10
  dlpm model silero_vad.onnx --input input=1,576 --input state=2,1,128 --value sr=16000
  dlpm model llama-3.2-1b-q4_k_m.gguf --batch 1,8 --context 512,4096
  dlpm model resnet50.onnx --output run1      # model_summary.json next to the log, for `dlpm report`";

/// `dlpm model`
#[derive(Debug, Args)]
#[command(after_long_help = HELP, after_help = "`dlpm model --help` describes formats and what is counted.")]
pub struct ModelArgs {
    /// The model: a file, or a folder with config.json.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Shape of an input, with the batch. Without a name, for the inputs in their order. Needed if the file leaves a
    /// dimension open. May be repeated.
    #[arg(long, value_name = "[NAME=]N,N,…")]
    pub input: Vec<InputShape>,
    /// Size of a dimension that the file leaves open under this name, wherever the name occurs. 0 is possible. May be
    /// repeated.
    #[arg(long, value_name = "NAME=N")]
    pub dim: Vec<NamedDim>,
    /// Value of an input on which a branch, a loop or a size depends, as in sr=16000; of a vector all values, as in
    /// size=1,3,224,224. May be repeated.
    #[arg(long, value_name = "NAME=N[,N…]")]
    pub value: Vec<InputValue>,
    /// Also list every operator that counts.
    #[arg(long)]
    pub per_layer: bool,
    /// Show the modules of the model as a tree, under the author's names, with the parameters and operations of each.
    #[arg(long)]
    pub modules: bool,
    /// Show only the N operators, layers and modules with the most operations (or parameters, if operations are unknown).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub top: Option<u32>,
    /// For language models.
    #[command(flatten)]
    pub language: LanguageArgs,
    /// How the result is printed; json has the contents of model_summary.json.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub format: ModelFormat,
    /// Write model_summary.json into this folder, which may contain a log.
    #[arg(long, short, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// What is asked of a language model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Language models")]
pub struct LanguageArgs {
    /// Number of sequences that are processed together; several numbers make a sweep [default: 1]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = size)]
    pub batch: Vec<u64>,
    /// Tokens in the context of a new token, including the token itself; several numbers make a sweep [default: as many
    /// as the model was trained for, but at most 4096]
    #[arg(long, value_name = "N,…", value_delimiter = ',', value_parser = size)]
    pub context: Vec<u64>,
    /// Tokens of the prompt of each sequence [default: as many as --context]
    #[arg(long, value_name = "N", value_parser = size)]
    pub tokens: Option<u64>,
    /// Type of the KV cache: f32, f16, bf16, fp8, q8_0 or q4_0
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    pub kv_type: CacheType,
}

impl LanguageArgs {
    fn settings(&self) -> Settings {
        Settings {
            batches: self.batch.clone(),
            contexts: self.context.clone(),
            prompt_tokens: self.tokens,
            cache: self.kv_type,
        }
    }
}

/// How a model is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ModelFormat {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

impl ModelArgs {
    /// What was asked for.
    pub fn options(&self) -> Options {
        Options {
            inputs: self.input.clone(),
            dims: self.dim.clone(),
            values: self.value.clone(),
            per_layer: self.per_layer,
            modules: self.modules,
            language: self.language.settings(),
        }
    }
}

/// The options of `dlpm trace` about the model that is traced.
#[derive(Clone, Debug, Default, Args)]
pub struct TracedModel {
    /// Count the parameters and operations of this model, and write model_summary.json next to the log, so that
    /// `dlpm report` can relate joules to them. `dlpm model --help` describes formats.
    #[arg(long = "model", id = "model_file", value_name = "FILE", help_heading = "Model")]
    pub file: Option<PathBuf>,
    /// Shape of an input of the model, as for `dlpm model`.
    #[arg(long, value_name = "[NAME=]N,N,…", requires = "model_file", help_heading = "Model")]
    pub input: Vec<InputShape>,
    /// Size of a named dimension of the model's inputs, as for `dlpm model`.
    #[arg(long, value_name = "NAME=N", requires = "model_file", help_heading = "Model")]
    pub dim: Vec<NamedDim>,
    /// Value of an input of the model, as for `dlpm model`.
    #[arg(long, value_name = "NAME=N[,N…]", requires = "model_file", help_heading = "Model")]
    pub value: Vec<InputValue>,
}

impl TracedModel {
    /// What was asked for.
    pub fn options(&self) -> Options {
        Options {
            inputs: self.input.clone(),
            dims: self.dim.clone(),
            values: self.value.clone(),
            per_layer: false,
            ..Options::default()
        }
    }
}
