"""Makes the models of this folder, and the figures that dlpm is tested against.

    python -m venv VENV && VENV/bin/pip install torch==2.15.0 onnx==1.23.2 onnxscript
    VENV/bin/python export.py

Weights are random and few. What dlpm does not read is taken out, so that the files are small: stack traces and, from the
.pt2 archives, weights, strides and devices.
"""

import json
import pathlib
import zipfile

import onnx
import torch
from torch import nn
from torch.export import Dim
from torch.utils.flop_counter import FlopCounterMode

FOLDER = pathlib.Path(__file__).parent


class Dynamic(nn.Module):
    """Convolutions on an image of any size, and attention from words to its parts."""

    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.up = nn.ConvTranspose2d(8, 4, 2, stride=2)
        self.words = nn.Embedding(10, 6)
        self.queries = nn.Linear(6, 4)
        self.logits = nn.Linear(6, 10, bias=False)
        self.logits.weight = self.words.weight
        self.frozen = nn.Linear(4, 4)
        for parameter in self.frozen.parameters():
            parameter.requires_grad_(False)

    def forward(self, image, words):
        image = torch.relu(self.norm(self.down(image)))
        image = self.up(self.depthwise(nn.functional.pad(image, (1, 0, 1, 0))))
        parts = self.frozen(image.flatten(2).transpose(1, 2))
        words = self.words(words)
        scores = torch.einsum("bwc,bpc->bwp", self.queries(words), parts)
        return scores.softmax(-1) @ parts, self.logits(words[:, ::2])


class Recurrent(nn.Module):
    """Both recurrent layers of PyTorch; for .pt2 only, whose operators they are."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(6, 5, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(10, 7, 2, batch_first=True, proj_size=3)

    def forward(self, steps):
        return self.lstm(self.gru(steps)[0])[0]


def randomize(model):
    """Makes all weights different: the ONNX exporter joins equal ones."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def slim_onnx(path):
    model = onnx.load(path)
    del model.metadata_props[:]
    for graph in [model.graph, *model.functions]:
        del graph.metadata_props[:]
        for item in [*graph.node, *graph.value_info, *getattr(graph, "input", []), *getattr(graph, "output", [])]:
            if hasattr(item, "metadata_props"):
                del item.metadata_props[:]
                item.doc_string = ""
    onnx.save(model, path)


def slim_pt2(path):
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if "/models/" in name:
                program = json.loads(content)
                graph = program["graph_module"]["graph"]
                for node in graph["nodes"]:
                    node["metadata"] = {}
                for tensor in graph["tensor_values"].values():
                    tensor["strides"] = []
                    del tensor["device"]
                program["graph_module"]["module_call_graph"] = []
                program["guards_code"] = []
                content = json.dumps(program, separators=(",", ":"))
            elif not name.endswith("_config.json"):
                continue
            archive.writestr(zipfile.ZipInfo(name), content)


def main():
    torch.manual_seed(7)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    cases = {
        "encoder": (nn.TransformerEncoder(layer, 2), (torch.randn(2, 7, 16),), None),
        "dynamic": (
            Dynamic(),
            (torch.randn(2, 3, 16, 20), torch.randint(0, 10, (2, 9))),
            ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}, {0: Dim.AUTO, 1: Dim.AUTO}),
        ),
        "recurrent": (Recurrent(), (torch.randn(2, 9, 6),), None),
    }
    # Sizes other than those of the export.
    others = {"dynamic": (torch.randn(3, 3, 33, 14), torch.randint(0, 10, (3, 5)))}
    figures = {}
    for name, (model, inputs, dynamic) in cases.items():
        randomize(model)
        torch.export.save(torch.export.export(model, inputs, dynamic_shapes=dynamic), FOLDER / f"{name}.pt2")
        slim_pt2(FOLDER / f"{name}.pt2")
        if name != "recurrent":
            torch.onnx.export(
                model, inputs, FOLDER / f"{name}.onnx", dynamo=True, external_data=False, dynamic_shapes=dynamic
            )
            slim_onnx(FOLDER / f"{name}.onnx")
        parameters = list(model.parameters())
        passes = []
        for run in [inputs, *([others[name]] if name in others else [])]:
            with FlopCounterMode(display=False) as counter:
                model(*run)
            flops = counter.get_total_flops()
            assert flops % 2 == 0
            passes.append({"inputs": [list(tensor.shape) for tensor in run], "mult_adds": flops // 2})
        figures[name] = {
            "total_params": sum(parameter.numel() for parameter in parameters),
            "trainable_params": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "passes": passes,
        }
    figures["torch"] = torch.__version__
    (FOLDER / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
