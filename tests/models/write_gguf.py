"""Writes small GGUF files of several families with the package `gguf`, into the folder that is named.

For the tests of `cargo xtask models`. Names of tensors and keys, types and the count of parameters are the package's; the
operations are the formula of docs/model.md, with the numbers of the family and not with the tensors. Prints one JSON object: for
each file parameters, operations of two prompts of 300 tokens, of one new token of each, and bytes of the cache of both.
"""

import json
import pathlib
import sys

import gguf
import numpy

TENSOR = gguf.MODEL_TENSOR
TOKENS, BATCH, WORDS, BLOCKS = 300, 2, 288, 4


def write(folder, family, *, width, heads, kv_heads, head, inner, tied=False, fused=False, gate=True, experts=0,
          used=0, window=None, slides=lambda block: False, encoder=False, quant=gguf.GGMLQuantizationType.Q8_0):
    path = folder / f"{family}.gguf"
    writer = gguf.GGUFWriter(path, family)
    writer.add_block_count(BLOCKS)
    writer.add_context_length(512)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if head * heads != width:
        writer.add_key_length(head)
        writer.add_value_length(head)
    if window:
        writer.add_sliding_window(window)
    if experts:
        writer.add_expert_count(experts)
        writer.add_expert_used_count(used)
    writer.add_token_list([f"word {i}" for i in range(WORDS)])

    def add(tensor, *shape, block=None, suffix=".weight"):
        values = numpy.zeros(shape, dtype=numpy.float32)
        name = gguf.TENSOR_NAMES[tensor].format(bid=block) + suffix
        if len(shape) > 1 and shape[-1] % 32 == 0:
            writer.add_tensor(name, gguf.quants.quantize(values, quant), raw_dtype=quant)
        else:
            writer.add_tensor(name, values)

    queries, keys = heads * head, kv_heads * head
    add(TENSOR.TOKEN_EMBD, WORDS, width)
    if encoder:
        add(TENSOR.POS_EMBD, 512, width)
        add(TENSOR.TOKEN_TYPES, 2, width)
    for block in range(BLOCKS):
        add(TENSOR.ATTN_NORM, width, block=block)
        if fused:
            add(TENSOR.ATTN_QKV, queries + 2 * keys, width, block=block)
            add(TENSOR.ATTN_QKV, queries + 2 * keys, block=block, suffix=".bias")
        else:
            add(TENSOR.ATTN_Q, queries, width, block=block)
            add(TENSOR.ATTN_K, keys, width, block=block)
            add(TENSOR.ATTN_V, keys, width, block=block)
        add(TENSOR.ATTN_OUT, width, queries, block=block)
        add(TENSOR.FFN_NORM, width, block=block)
        if experts:
            add(TENSOR.FFN_GATE_INP, experts, width, block=block)
            add(TENSOR.FFN_GATE_EXP, experts, inner, width, block=block)
            add(TENSOR.FFN_UP_EXP, experts, inner, width, block=block)
            add(TENSOR.FFN_DOWN_EXP, experts, width, inner, block=block)
        else:
            if gate:
                add(TENSOR.FFN_GATE, inner, width, block=block)
            add(TENSOR.FFN_UP, inner, width, block=block)
            add(TENSOR.FFN_DOWN, width, inner, block=block)
    if not encoder:
        add(TENSOR.OUTPUT_NORM, width)
        if not tied:
            add(TENSOR.OUTPUT, WORDS, width)
    parameters = writer.get_total_parameter_count()[0]
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    matrices = (3 if gate else 2) * width * inner
    feed_forward = matrices * used + width * experts if experts else matrices
    weights = BLOCKS * (2 * width * queries + 2 * width * keys + feed_forward)
    pair, logits = 2 * heads * head, 0 if encoder else WORDS * width
    reach = [min(TOKENS, window) if window and slides(block) else TOKENS for block in range(BLOCKS)]
    prompt = BATCH * (TOKENS * weights + logits + BLOCKS * pair * TOKENS**2)
    token = BATCH * (weights + logits + pair * sum(reach))
    cache = BATCH * sum(reach) * kv_heads * 2 * head * 2
    return str(path), [parameters, prompt, None if encoder else token, None if encoder else cache]


folder = pathlib.Path(sys.argv[1])
models = [
    write(folder, "llama", width=64, heads=4, kv_heads=2, head=16, inner=96),
    write(folder, "qwen2", width=64, heads=4, kv_heads=1, head=16, inner=96, tied=True),
    write(folder, "gemma2", width=64, heads=4, kv_heads=2, head=32, inner=96, tied=True, window=100,
          slides=lambda block: block % 2 == 0),
    write(folder, "phi3", width=96, heads=6, kv_heads=6, head=16, inner=128, fused=True),
    write(folder, "gpt2", width=64, heads=4, kv_heads=4, head=16, inner=256, fused=True, gate=False),
    write(folder, "qwen3moe", width=64, heads=4, kv_heads=2, head=32, inner=32, experts=8, used=3,
          quant=gguf.GGMLQuantizationType.Q4_0),
    write(folder, "bert", width=64, heads=4, kv_heads=4, head=16, inner=256, gate=False, encoder=True),
]
print(json.dumps(dict(models)))
