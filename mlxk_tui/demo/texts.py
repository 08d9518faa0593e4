"""The text files of the sample: model cards, tokenizers, chat templates, generation configs."""

from __future__ import annotations

import json
from typing import Any

CHATML = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""ChatML, the chat template of the Qwen family."""

INST = (
    "{{- bos_token }}{%- for message in messages %}{%- if message['role'] == 'user' %}"
    "{{- '[INST] ' + message['content'] + ' [/INST]' }}{%- else %}"
    "{{- ' ' + message['content'] + eos_token }}{%- endif %}{%- endfor %}"
)
"""The chat template of the Mistral family."""

HEADERS = (
    "{{- bos_token }}{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\\n\\n' + message['content'] + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""The chat template of the Llama 3 family."""


def to_json(document: Any) -> bytes:
    """Return a document as JSON, formatted like the files of Hugging Face tools."""
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def card(
    name: str,
    summary: str,
    *,
    base: str | None = None,
    license_id: str = "apache-2.0",
    library: str | None = "mlx",
    pipeline: str = "text-generation",
    tags: tuple[str, ...] = (),
    usage: str | None = None,
    notes: tuple[str, ...] = (),
) -> bytes:
    """Return a model card: a README.md with YAML front matter.

    Args:
        name: the repo.
        summary: one paragraph about the model.
        base: the repo of the original model.
        license_id: the identifier of the license on the Hub.
        library: `library_name`; None to omit it.
        pipeline: `pipeline_tag`.
        tags: additional tags.
        usage: a shell command that uses the model; None for the default of the library.
        notes: bullet points.
    """
    front = ["---", "language:", "- en", f"license: {license_id}", f"pipeline_tag: {pipeline}"]
    if library is not None:
        front.append(f"library_name: {library}")
    if base is not None:
        front += ["base_model:", f"- {base}"]
    all_tags = (*((library,) if library else ()), *tags)
    if all_tags:
        front += ["tags:", *(f"- {tag}" for tag in all_tags)]
    lines = [*front, "---", "", f"# {name}", "", summary, ""]
    if base is not None and library == "mlx":
        lines += [f"Converted to MLX format from [{base}](https://huggingface.co/{base}).", ""]
    if notes:
        lines += ["## Good to know", "", *(f"- {note}" for note in notes), ""]
    if usage is None and library == "mlx":
        usage = f'mlx_lm.generate --model {name} --prompt "Why is the sky blue?"'
    if usage is not None:
        lines += ["## Use it", "", "```bash", usage, "```", ""]
    lines += ["> This card belongs to the sample of mlxk-tui; the weights beside it are zeros.", ""]
    return "\n".join(lines).encode()


def tokenizer(name: str, special: tuple[str, ...]) -> bytes:
    """Return a small, valid tokenizer.json: one token per byte, and the special tokens."""
    vocab = {letter: byte for byte, letter in enumerate(_byte_letters())}
    added = [
        {
            "id": 256 + number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, token in enumerate(dict.fromkeys((*special, f"<|{name.rpartition('/')[2]}|>")))
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {"type": "BPE", "unk_token": None, "fuse_unk": False, "vocab": vocab, "merges": []},
    }
    return json.dumps(document, ensure_ascii=False).encode()


def tokenizer_config(
    bos: str | None,
    eos: str,
    context: int,
    *,
    template: str | None = None,
    kind: str = "PreTrainedTokenizerFast",
) -> bytes:
    """Return tokenizer_config.json; a chat `template` makes the model a chat model."""
    document: dict[str, Any] = {
        "add_bos_token": bos is not None,
        "bos_token": bos,
        "clean_up_tokenization_spaces": False,
        "eos_token": eos,
        "model_max_length": context,
        "tokenizer_class": kind,
    }
    if template is not None:
        document["chat_template"] = template
    return to_json(document)


def generation_config(temperature: float = 0.6, top_p: float = 0.9) -> bytes:
    """Return generation_config.json with these sampling defaults."""
    return to_json(
        {
            "_from_model_config": True,
            "bos_token_id": 1,
            "do_sample": True,
            "eos_token_id": 2,
            "temperature": temperature,
            "top_p": top_p,
            "transformers_version": "4.53.2",
        }
    )


def _byte_letters() -> list[str]:
    """Return the visible character of each byte in byte-level BPE, as defined by GPT-2."""
    visible = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]
