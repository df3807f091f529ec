"""Multiply-accumulate operations of ONNX files, from the shapes with which ONNX Runtime ran them.

count_onnx.py FOLDER < a list of {"path", "feeds": {input: [dimensions, value]}}

Each file is run once without optimisation, and ONNX Runtime's profile tells the shapes of every operator that ran. Into
FOLDER goes the same file as ONNX Runtime's optimiser writes it, with its fused operators. Printed is, by path:
[operations, operators that ran, path of the optimised file].
"""

import json
import math
import os
import sys

import numpy
import onnxruntime

TYPES = {
    "tensor(bool)": "bool",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


def product_of_matrices(inputs, outputs):
    """Elements of the result, each a sum over the rest of a row."""
    result = outputs[0]
    rows = result[-2] if len(result) > 1 else 1
    left = inputs[0]
    return math.prod(result) * (math.prod(left[-2:]) // rows if len(left) > 1 else left[0])


def convolution(weights_at):
    return lambda inputs, outputs: math.prod(outputs[0]) * math.prod(inputs[weights_at][1:])


def transposed_convolution(inputs, outputs):
    return inputs[0][0] * math.prod(inputs[0][2:]) * math.prod(inputs[1])


def recurrent(inputs, outputs):
    steps, sequences = inputs[0][:2]
    return steps * sequences * (math.prod(inputs[1]) + math.prod(inputs[2]))


RULES = {
    "Conv": convolution(1),
    "FusedConv": convolution(1),
    "ConvInteger": convolution(1),
    "QLinearConv": convolution(3),
    "ConvTranspose": transposed_convolution,
    "MatMul": product_of_matrices,
    "MatMulInteger": product_of_matrices,
    "QLinearMatMul": product_of_matrices,
    "Gemm": product_of_matrices,
    "LSTM": recurrent,
    "DynamicQuantizeLSTM": recurrent,
    "GRU": recurrent,
}


def session(path, level, more):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # Packed weights would be missing among the shapes.
    options.add_session_config_entry("session.disable_prepacking", "1")
    for name, value in more.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def count(path, feeds, folder, number):
    levels = onnxruntime.GraphOptimizationLevel
    optimised = os.path.join(folder, f"{number}-{os.path.basename(path)}")
    session(path, levels.ORT_ENABLE_EXTENDED, {"optimized_model_filepath": optimised})
    profile = {"enable_profiling": True, "profile_file_prefix": os.path.join(folder, f"profile-{number}")}
    plain = session(path, levels.ORT_DISABLE_ALL, profile)
    values = {}
    for wanted in plain.get_inputs():
        dims, value = feeds[wanted.name]
        values[wanted.name] = numpy.full(dims, value, TYPES[wanted.type])
    plain.run(None, values)
    operations, operators = 0, 0
    with open(plain.end_profiling()) as profile:
        events = json.load(profile)
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        arguments = event["args"]
        inputs, outputs = (
            [next(iter(shape.values())) for shape in arguments[key]] for key in ("input_type_shape", "output_type_shape")
        )
        operators += 1
        rule = RULES.get(arguments["op_name"])
        if rule:
            operations += rule(inputs, outputs)
    return [operations, operators, optimised]


def main():
    files = json.load(sys.stdin)
    results = {file["path"]: count(file["path"], file["feeds"], sys.argv[1], at) for at, file in enumerate(files)}
    print(json.dumps(results))


main()
