"""Parameters and multiply-accumulate operations of TFLite files, by the classes that the schema's compiler makes.

For the tests of `cargo xtask models`: an independent count, with the package `tflite` from PyPI. Prints one JSON object,
with a list [parameters, operations, operators that it does not know] for each file.
"""

import json
import math
import sys

import tflite

OPERATORS = {number: name for name, number in vars(tflite.BuiltinOperator).items() if isinstance(number, int)}
SMALL = {tflite.TensorType.FLOAT32, tflite.TensorType.FLOAT16, tflite.TensorType.INT8, tflite.TensorType.UINT8}
BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}


def shape(graph, at):
    tensor = graph.Tensors(at)
    return [tensor.Shape(i) for i in range(tensor.ShapeLength())]


def kind(model, operator):
    code = model.OperatorCodes(operator.OpcodeIndex())
    number = max(code.DeprecatedBuiltinCode(), code.BuiltinCode())
    return code.CustomCode().decode() if number == tflite.BuiltinOperator.CUSTOM else OPERATORS[number]


def operations(graph, name, operator):
    """Counts by position: for each element of the result, or of the image, how many weights it meets."""
    of = [operator.Inputs(i) for i in range(operator.InputsLength())]
    result = math.prod(shape(graph, operator.Outputs(0))) if operator.OutputsLength() else 0
    if name == "CONV_2D":
        _, height, width, channels = shape(graph, of[1])
        return result * height * width * channels
    if name == "DEPTHWISE_CONV_2D":
        _, height, width, _ = shape(graph, of[1])
        return result * height * width
    if name == "FULLY_CONNECTED":
        outputs, inputs = shape(graph, of[1])
        assert result % outputs == 0
        return result // outputs * outputs * inputs
    if name == "Convolution2DTransposeBias":
        batch, height, width, channels = shape(graph, of[0])
        outputs, window_height, window_width, _ = shape(graph, of[1])
        return batch * height * width * channels * outputs * window_height * window_width
    if name == "BATCH_MATMUL":
        options = tflite.BatchMatMulOptions()
        table = operator.BuiltinOptions()
        options.Init(table.Bytes, table.Pos)
        return result * shape(graph, of[0])[-2 if options.AdjX() else -1]
    return 0


def run(model, number, unknown):
    graph = model.Subgraphs(number)
    total = 0
    for at in range(graph.OperatorsLength()):
        operator = graph.Operators(at)
        name = kind(model, operator)
        if name == "IF":
            table, options = operator.BuiltinOptions(), tflite.IfOptions()
            options.Init(table.Bytes, table.Pos)
            sides = [run(model, side, []) for side in (options.ThenSubgraphIndex(), options.ElseSubgraphIndex())]
            total += min(sides)
            if sides[0] != sides[1]:
                unknown.append(name)
        elif name in ("WHILE", "TRANSPOSE_CONV", "CONV_3D") or name.startswith(("STABLEHLO", "LSTM", "UNI", "BIDI")):
            unknown.append(name)
        else:
            total += operations(graph, name, operator)
    return total


def parameters(model):
    weights = {}
    for number in range(model.SubgraphsLength()):
        graph = model.Subgraphs(number)
        for at in range(graph.OperatorsLength()):
            operator = graph.Operators(at)
            name = kind(model, operator)
            if name == "ASSIGN_VARIABLE":
                continue
            for position in range(operator.InputsLength()):
                index = operator.Inputs(position)
                if index < 0:
                    continue
                tensor = graph.Tensors(index)
                constant = model.Buffers(tensor.Buffer()).DataLength() > 0
                is_weight = tensor.Type() in SMALL or BIAS.get(name) == position
                if constant and is_weight and tensor.ShapeLength() > 0:
                    weights[tensor.Buffer()] = math.prod(shape(graph, index))
    return sum(weights.values())


counts = {}
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        model = tflite.Model.GetRootAs(file.read(), 0)
    unknown = []
    operations_of_pass = run(model, 0, unknown)
    counts[path] = [parameters(model), operations_of_pass, unknown]
print(json.dumps(counts))
