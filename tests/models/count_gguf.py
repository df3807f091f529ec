"""Parameters and operations of a GGUF file of the family llama, by the package `gguf` and the numbers in the metadata.

For the tests of `cargo xtask models`: the elements are those that the package's own reader finds, and the operations are the
formula of docs/model.md, with the numbers of the metadata and not with the tensors. Prints one JSON object: for each file
parameters, operations of two prompts of 300 tokens, of one new token of each, and bytes of the cache of both.
"""

import json
import sys

import gguf

TOKENS, BATCH = 300, 2


def count(path):
    reader = gguf.GGUFReader(path)

    def number(key):
        return int(reader.get_field(key).contents())

    assert reader.get_field("general.architecture").contents() == "llama"
    blocks, width = number("llama.block_count"), number("llama.embedding_length")
    inner = number("llama.feed_forward_length")
    heads, kv_heads = number("llama.attention.head_count"), number("llama.attention.head_count_kv")
    words = len(reader.get_field("tokenizer.ggml.tokens").data)
    keys = width // heads * kv_heads
    weights = blocks * (2 * width * width + 2 * width * keys + 3 * width * inner)
    logits, pair = words * width, blocks * 2 * width
    parameters = sum(int(tensor.n_elements) for tensor in reader.tensors)
    prompt = BATCH * (TOKENS * weights + logits + pair * TOKENS**2)
    token = BATCH * (weights + logits + pair * TOKENS)
    cache = BATCH * TOKENS * blocks * 2 * keys * 2
    return [parameters, prompt, token, cache]


print(json.dumps({path: count(path) for path in sys.argv[1:]}))
