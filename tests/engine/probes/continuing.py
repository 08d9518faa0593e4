"""Splits texts at every token, for each kind of tokenizer, and decodes the second part as a continuation.

`python -m tests.engine.probes.continuing` prints the differences to the tokenizer's decoding of the whole
text: [kind, text, position, expected, actual]; and the number of positions.
"""

# ruff: noqa: T201 - what a probe prints is its result

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mlxk_tui.engine.inference.detokenizing import TokenDecoder, completion_decoder

TEXTS = (
    "The capital of France is Paris.",
    "  two blanks,  and two more; a tab\tand\n\nlines \n",
    "naïve café 🙂🙃 日本語 \u0000 – “quotes” e\u0301",
    "a <tool> b<tool>  c",
    " ",
)
_BLANK = "\u2581"


def byte_level() -> Tokenizer:
    """Return a tokenizer like those of GPT-2, Llama 3 and Qwen."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return made


def sentencepiece(*, prefix: bool) -> Tokenizer:
    """Return a tokenizer with byte fallback: with a leading space like Llama 2, or like Gemma."""
    pieces = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), _BLANK, *"TheapitlofrncsPdwob.,;uks"]
    pieces = [*dict.fromkeys(pieces), "Th", "The", f"{_BLANK}T", f"{_BLANK}The", f"{_BLANK}P", _BLANK * 2]
    merges = [("T", "h"), ("Th", "e"), (_BLANK, "T"), (_BLANK, "The"), (_BLANK, "P"), (_BLANK, _BLANK)]
    made = Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    steps: list[Any] = [decoders.Replace(_BLANK, " "), decoders.ByteFallback(), decoders.Fuse()]
    replace = normalizers.Replace(" ", _BLANK)
    if prefix:
        made.normalizer = normalizers.Sequence([normalizers.Prepend(_BLANK), replace])
        steps.append(decoders.Strip(" ", 1, 0))
    else:
        made.normalizer = replace
    made.decoder = decoders.Sequence(steps)
    return made


def metaspace() -> Tokenizer:
    """Return a tokenizer without a fast decoder in mlx-lm."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=200, show_progress=False))
    return made


def wrapped(made: Tokenizer, folder: Path) -> Any:
    """Return the tokenizer in mlx-lm's wrapper."""
    made.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False})
    )
    (folder / "config.json").write_text("{}")
    load: Any = load_tokenizer
    return load(folder)


def main() -> dict[str, Any]:
    """Test all texts at all positions."""
    wrong, cuts = [], 0
    kinds = {
        "byte level": byte_level(),
        "Llama 2": sentencepiece(prefix=True),
        "Gemma": sentencepiece(prefix=False),
        "metaspace": metaspace(),
    }
    for kind, made in kinds.items():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = wrapped(made, Path(folder))
        token_decoder = TokenDecoder(tokenizer)
        assert token_decoder.byte_level is (kind != "metaspace"), kind
        for text in TEXTS:
            tokens = tokenizer.encode(text)
            wanted = tokenizer.decode(tokens)
            for cut in range(1, len(tokens)):
                cuts += 1
                said, _ = token_decoder.decode(tokens[:cut])
                decoder = completion_decoder(token_decoder, tokens[:cut])
                said += "".join(map(decoder.push, tokens[cut:])) + decoder.finish()
                if said != wanted:
                    wrong.append([kind, text, cut, wanted, said])
    return {"wrong": wrong, "cuts": cuts}


if __name__ == "__main__":
    print(json.dumps(main()))
