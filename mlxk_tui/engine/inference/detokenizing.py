"""Streaming detokenizers that decode tokens byte by byte.

mlx-lm's streaming detokenizers (0.32) drop the space at the beginning of a text. That is correct for a chat
turn, which begins after the template's generation prompt. It is wrong for a completion, whose text is what
its tokens add to the prompt. The decoders here therefore get the end of the prompt.

Byte-level BPE and SentencePiece tokens are bytes, so a character that spans several tokens is emitted once it
is complete, even if it begins in the prompt. For other tokenizers `tokenizer.decode` is called.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

_SPACE = "\u2581"
"""SentencePiece's symbol for a space."""
_CONTEXT_TOKENS = 16
"""Number of prompt tokens that may affect how the next token is decoded."""


class TokenDecoder:
    """Maps the token ids of one tokenizer to bytes and text.

    Args:
        tokenizer: mlx-lm's TokenizerWrapper.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        detokenizer = tokenizer.detokenizer
        self._bpe = isinstance(detokenizer, BPEStreamingDetokenizer)
        self._spm = isinstance(detokenizer, SPMStreamingDetokenizer)
        self.trims_text = self._spm and bool(getattr(detokenizer, "trim_space", False))
        """Whether the tokenizer adds a space before a text, which its decoder removes."""
        self.trims_turn = self._bpe or self.trims_text
        """Whether mlx-lm removes the space at the beginning of a turn."""
        self._added = frozenset(tokenizer.get_added_vocab().values()) if self._bpe else frozenset()
        self._bytes: dict[int, bytes] = {}

    @property
    def byte_level(self) -> bool:
        """Whether each token stands for a fixed byte string."""
        return self._bpe or self._spm

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes of a token id; empty for an id that the tokenizer does not have."""
        known = self._bytes.get(token)
        if known is None:
            known = self._bytes[token] = self._decode_token(token)
        return known

    def _decode_token(self, token: int) -> bytes:
        piece = self._piece(token)
        if self._spm:
            if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
                return bytes([int(piece[3:5], 16)])
            return piece.replace(_SPACE, " ").encode("utf-8", "replace")
        if self._bpe:
            if token in self._added:
                return piece.encode("utf-8", "replace")
            return b"".join(_BYTES.get(char) or char.encode("utf-8", "replace") for char in piece)
        text = str(self.tokenizer.decode([token])) if piece else ""
        if piece.startswith(_SPACE) and not text.startswith(" "):
            text = f" {text}"
        return text.encode("utf-8", "replace")

    def _piece(self, token: int) -> str:
        try:
            piece = self.tokenizer.convert_ids_to_tokens(token)
        except (IndexError, KeyError, OverflowError):
            return ""
        return piece if isinstance(piece, str) else ""

    def decode(self, tokens: Sequence[int]) -> tuple[str, bool]:
        """Decode tokens.

        Returns:
            The text, and whether an incomplete character at its end was left out.
        """
        if not self.byte_level:
            text = str(self.tokenizer.decode(list(tokens)))
            whole = text.rstrip("\ufffd")
            return whole, whole != text
        decoder = ByteDecoder(self, trim=self.trims_text)
        text = "".join(map(decoder.push, tokens))
        return text, bool(decoder.finish())


class ByteDecoder:
    """A streaming detokenizer for byte-level tokenizers.

    Args:
        tokens: the bytes of the tokens.
        trim: remove a space at the beginning of the text.
    """

    def __init__(self, tokens: TokenDecoder, *, trim: bool) -> None:
        self._tokens = tokens
        self._trim = trim
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """Append a token; return the text that is complete now."""
        return self._trimmed(self._utf8.decode(self._tokens.token_bytes(token)))

    def finish(self) -> str:
        """End the text; return U+FFFD if a character is incomplete, else an empty string."""
        return self._trimmed(self._utf8.decode(b"", final=True))

    def _trimmed(self, text: str) -> str:
        if self._trim and text:
            self._trim = False
            return text.removeprefix(" ")
        return text


class FallbackDecoder:
    """mlx-lm's streaming detokenizer, for tokenizers whose tokens cannot be decoded one by one."""

    def __init__(self, tokens: TokenDecoder) -> None:
        self._detokenizer = tokens.tokenizer.detokenizer

    def push(self, token: int) -> str:
        """Append a token; return the text that is complete now."""
        self._detokenizer.add_token(token)
        return str(self._detokenizer.last_segment)

    def finish(self) -> str:
        """End the text; return the rest of it."""
        self._detokenizer.finalize()
        return str(self._detokenizer.last_segment)


def chat_decoder(tokens: TokenDecoder) -> ByteDecoder | FallbackDecoder:
    """Return a streaming detokenizer for a chat turn."""
    return ByteDecoder(tokens, trim=tokens.trims_turn) if tokens.byte_level else FallbackDecoder(tokens)


def completion_decoder(tokens: TokenDecoder, prompt: Sequence[int]) -> ByteDecoder | FallbackDecoder:
    """Return a streaming detokenizer for the completion of a prompt.

    The prompt's text is not repeated. If it ends inside a character, the completion begins with that one.
    """
    decoder = ByteDecoder(tokens, trim=False) if tokens.byte_level else FallbackDecoder(tokens)
    for token in prompt[-_CONTEXT_TOKENS:]:
        decoder.push(token)
    return decoder


def _byte_letters() -> dict[str, bytes]:
    """Return GPT-2's mapping of characters to bytes, the inverse of its encoder's `bytes_to_unicode`."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(plain)]
    letters = {chr(byte): bytes([byte]) for byte in plain}
    return letters | {chr(256 + place): bytes([byte]) for place, byte in enumerate(others)}


_BYTES = _byte_letters()
