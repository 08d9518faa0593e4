"""Turns tokens into text as they come, byte for byte.

mlx-lm's streaming detokenizers (0.32) drop the blank that a text begins with. That is right for a turn of a
chat, which the template has begun, and wrong for a text that is gone on with: there the text is what the
tokens add to the prompt. Here the decoder knows what came before.

Byte-level BPE and SentencePiece tokens are bytes, so a character that is spread over tokens comes out when
it is complete, also where the prompt holds its beginning. Other tokenizers are asked to decode.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

_BLANK = "\u2581"
"""How SentencePiece writes a blank."""
_CONTEXT = 16
"""Tokens of a prompt that may change how the next one is decoded."""


class TokenTexts:
    """What each token of one tokenizer stands for.

    Args:
        tokenizer: mlx-lm's TokenizerWrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        detokenizer = tokenizer.detokenizer
        self._bpe = isinstance(detokenizer, BPEStreamingDetokenizer)
        self._spm = isinstance(detokenizer, SPMStreamingDetokenizer)
        self.trims_text = self._spm and bool(getattr(detokenizer, "trim_space", False))
        """The tokenizer writes a blank before the first word of a text, which its decoder takes away."""
        self.trims_turn = self._bpe or self.trims_text
        """mlx-lm takes the blank away that a turn begins with."""
        self._added = frozenset(tokenizer.get_added_vocab().values()) if self._bpe else frozenset()
        self._bytes: dict[int, bytes] = {}

    @property
    def exact(self) -> bool:
        """Whether tokens are bytes."""
        return self._bpe or self._spm

    def bytes_of(self, token: int) -> bytes:
        """Return the bytes of a token; those of an id that the tokenizer does not know are none."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._bytes_of(token)
        return known

    def _bytes_of(self, token: int) -> bytes:
        piece = self._piece(token)
        if self._spm:
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                return bytes([int(piece[3:5], 16)])
            return piece.replace(_BLANK, " ").encode("utf-8", "replace")
        if self._bpe:
            if token in self._added:
                return piece.encode("utf-8", "replace")
            return b"".join(_BYTES.get(char) or char.encode("utf-8", "replace") for char in piece)
        text = str(self.tokenizer.decode([token])) if piece else ""
        if piece.startswith(_BLANK) and not text.startswith(" "):
            text = f" {text}"
        return text.encode("utf-8", "replace")

    def _piece(self, token: int) -> str:
        try:
            piece = self.tokenizer.convert_ids_to_tokens(token)
        except (IndexError, KeyError, OverflowError):
            return ""
        return piece if isinstance(piece, str) else ""

    def decode(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """Return the text of tokens and whether a character at its end, left out, is unfinished."""
        if not self.exact:
            text = str(self.tokenizer.decode(list(tokens)))
            whole = text.rstrip("\ufffd")
            return whole, whole != text
        decoder = ByteDecoder(self, trim=self.trims_text)
        text = "".join(map(decoder.push, tokens))
        return text, bool(decoder.finish())


class ByteDecoder:
    """Decodes tokens that are bytes.

    Args:
        texts: the tokens.
        trim: take away a blank that the text begins with.
    """

    def __init__(self, texts: TokenTexts, *, trim: bool) -> None:
        self._texts = texts
        self._trim = trim
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Take a token; return the text that is certain now."""
        return self._cut(self._utf8.decode(self._texts.bytes_of(token)))

    def finish(self) -> str:
        """Return what is left: a mark for a character that has stayed unfinished."""
        return self._cut(self._utf8.decode(b"", final=True))

    def _cut(self, text: str) -> str:
        if self._trim and text:
            self._trim = False
            return text.removeprefix(" ")
        return text


class WordDecoder:
    """Decodes tokens of a tokenizer that decodes only several at once, as mlx-lm does."""

    def __init__(self, texts: TokenTexts) -> None:
        self._detokenizer = texts.tokenizer.detokenizer

    def push(self, token: int) -> str:
        """Take a token; return the text that is certain now."""
        self._detokenizer.add_token(token)
        return str(self._detokenizer.last_segment)

    def finish(self) -> str:
        """Return what is left."""
        self._detokenizer.finalize()
        return str(self._detokenizer.last_segment)


def turn_decoder(texts: TokenTexts) -> ByteDecoder | WordDecoder:
    """Return a decoder of a chat's turn."""
    return ByteDecoder(texts, trim=texts.trims_turn) if texts.exact else WordDecoder(texts)


def continuing_decoder(texts: TokenTexts, prompt: Sequence[int]) -> ByteDecoder | WordDecoder:
    """Return a decoder of a text that goes on from a prompt.

    What the prompt ends with, such as a part of a character, is not repeated, but completed.
    """
    decoder = ByteDecoder(texts, trim=False) if texts.exact else WordDecoder(texts)
    for token in prompt[-_CONTEXT:]:
        decoder.push(token)
    return decoder


def _byte_letters() -> dict[str, bytes]:
    """Return the letters in which GPT-2's byte-level BPE writes bytes (`bytes_to_unicode` of its encoder)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    letters = {chr(byte): bytes([byte]) for byte in plain}
    return letters | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTES = _byte_letters()
