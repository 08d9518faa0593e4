"""Converts the tokens of one generation to deltas: text, reasoning, tool calls, and token counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxk_tui.engine.delta_buffer import DeltaBuffer
from mlxk_tui.engine.formats.splitting import Markers, OutputSplitter, PieceKind, StopMatcher, TextPiece
from mlxk_tui.engine.formats.tool_calls import parse_tool_calls
from mlxk_tui.engine.formats.truncated_calls import parse_truncated_calls
from mlxk_tui.engine.formats.truncated_markup import is_markup_parser, parse_truncated_markup
from mlxk_tui.engine.generation import Delta, FinishReason, GenerationRequest, TokenLogprob, ToolCall
from mlxk_tui.engine.inference.detokenizing import chat_decoder, completion_decoder
from mlxk_tui.engine.inference.output.logprobs import TopLogprobs, text_offsets, token_logprob, top_logprobs
from mlxk_tui.engine.inference.prompts.messages import replace_surrogates
from mlxk_tui.engine.inference.prompts.prompt_builder import Prompt
from mlxk_tui.engine.inference.weights.loading import LoadedModel


class DeltaAssembler:
    """Decodes the tokens of one generation, splits the text, and collects deltas for `take_deltas`.

    Args:
        model: the model.
        request: the request.
        prompt: its prompt; a constraint in it learns the markers of tool calls.
    """

    def __init__(self, model: LoadedModel, request: GenerationRequest, prompt: Prompt) -> None:
        self.tokens = 0
        """Tokens so far."""
        self.reasoning_tokens = 0
        """Reasoning tokens so far, including the markers of reasoning."""
        tokenizer = model.tokenizer
        self._tokenizer = tokenizer
        self._token_decoder = model.token_decoder
        self._request = request
        self._implied = prompt.implied_stops
        raw = request.messages is None  # a completion: markers are ordinary text
        templated = request.messages is not None and request.chat_template and tokenizer.has_chat_template
        constraint = prompt.constraint
        constrained = constraint is not None  # markers in the data are ordinary text
        reasons = tokenizer.has_thinking and (constraint.reasons if constraint is not None else not raw)
        calls: Markers | None = None
        if tokenizer.has_tool_calling and request.tools and not request.forced_call:
            calls = Markers(tokenizer.tool_call_start, tokenizer.tool_call_end or "")
            if constraint is not None and calls.start:
                constraint.allow_tool_calls(calls.start, calls.end)
        self._splitter = (_DataSplitter if constrained else OutputSplitter)(
            (*request.stop, *prompt.implied_stops),
            reasoning=Markers(tokenizer.think_start, tokenizer.think_end) if reasons else None,
            reasoning_open=prompt.reasoning_open,
            tools=calls,
            dropped=tuple(getattr(tokenizer, "structural_markers", ()))
            if templated and not constrained
            else (),
            reasoning_first=constrained,
        )
        self._call_count = 0
        self._truncated = False
        """Whether the token budget ended the answer, so that its last tool call may be incomplete."""
        self._deltas: list[Delta] = []
        self._buffer = DeltaBuffer()
        self._decoder = (
            chat_decoder(self._token_decoder)
            if templated or prompt.implied_stops
            else completion_decoder(self._token_decoder, prompt.tokens)
        )
        self._position = 0
        """Characters of the prompt and the answer so far."""
        self._prompt_offsets: list[int] = []
        self._scored = 0
        """Index of the last prompt token that has a log-probability."""
        if raw and (request.echo or request.logprobs is not None):
            self._start_completion(prompt)

    @property
    def stop_string(self) -> str | None:
        """The stop sequence of the request that ended the text; None if none did."""
        found = self._splitter.stopped
        return None if found in self._implied else found

    def push(self, token: int, logprobs: mx.array | None, *, ends_turn: bool = False) -> bool:
        """Append a token; return whether a stop sequence ended the text.

        Args:
            token: the token id.
            logprobs: log-probabilities it was sampled from, (vocabulary,).
            ends_turn: it is an end-of-turn token, which is counted but has no text.
        """
        self.tokens += 1
        self._buffer.tokens += 1
        reasoning = self._splitter.kind is PieceKind.REASONING
        if self._request.return_token_ids:
            self._buffer.token_ids.append(token)
        if not ends_turn:
            if self._request.logprobs is not None and logprobs is not None:
                self._buffer.logprobs.append(self._logprob(token, logprobs, self._request.logprobs))
            text = self._decoder.push(token)
            self._position += len(text)
            self._add_pieces(self._splitter.push(text))
        if reasoning or self._splitter.kind is PieceKind.REASONING:
            self.reasoning_tokens += 1
        return self._splitter.stopped is not None

    def finish(self, reason: FinishReason) -> None:
        """End the text and add what was held back to the deltas.

        Args:
            reason: why the generation ended.
        """
        self._truncated = reason is FinishReason.LENGTH
        self._add_pieces(self._splitter.push(self._decoder.finish()))
        self._add_pieces(self._splitter.finish())

    def add_prompt_logprob(self, token: int, logprob: float, top: TopLogprobs) -> None:
        """Add the log-probability of the prompt's next token, beginning with its second token.

        Args:
            token: the token id.
            logprob: its log-probability.
            top: the most likely tokens at its position.
        """
        self._scored += 1
        offset = self._prompt_offsets[self._scored]
        self._buffer.logprobs.append(token_logprob(self._token_decoder, token, logprob, top, offset))

    def finish_reason(self, reason: FinishReason) -> FinishReason:
        """Return the finish reason for the client: `tool_calls` instead of `stop` after a tool call."""
        return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and self._call_count else reason

    def take_deltas(self) -> list[Delta]:
        """Return and remove the deltas since the last call; usually one or none."""
        deltas, self._deltas = self._deltas, []
        if self._buffer:
            deltas.append(self._buffer.to_delta())
            self._buffer = DeltaBuffer()
        return deltas

    def _add_pieces(self, pieces: Sequence[TextPiece]) -> None:
        for piece in pieces:
            delta = self._to_delta(piece)
            if not self._buffer.can_append(delta):
                self._deltas.append(self._buffer.to_delta())
                self._buffer = DeltaBuffer()
            self._buffer.append(delta)

    def _to_delta(self, piece: TextPiece) -> Delta:
        if piece.kind is PieceKind.REASONING:
            return Delta(reasoning=piece.text)
        if piece.kind is PieceKind.CONTENT:
            return Delta(text=piece.text)
        calls = self._parse_calls(piece)
        if calls is None:
            return Delta(text=piece.source)
        self._call_count += len(calls)
        return Delta(tool_calls=calls)

    def _parse_calls(self, piece: TextPiece) -> tuple[ToolCall, ...] | None:
        """Parse the tool calls of a block; None if it contains something else."""
        parser, tools, text = self._tokenizer.tool_parser, self._request.tools, piece.text
        end = self._tokenizer.tool_call_end or ""
        if self._truncated and not (end and piece.source.endswith(end)):
            if is_markup_parser(parser):
                calls = parse_truncated_markup(
                    text, parser, tools, first_index=self._call_count, block_end=end
                )
            else:
                calls = parse_tool_calls(text, parser=parser, tools=tools, first_index=self._call_count)
            return (
                parse_truncated_calls(text, tools, first_index=self._call_count) if calls is None else calls
            )
        return parse_tool_calls(text, parser=parser, tools=tools, first_index=self._call_count)

    def _start_completion(self, prompt: Prompt) -> None:
        """Determine the prompt's text and token offsets, and add them to the deltas with `echo`."""
        given = self._request.prompt
        text = (
            replace_surrogates(given) if given is not None else self._token_decoder.decode(prompt.tokens)[0]
        )
        self._position = len(text)
        if not self._request.echo:
            return
        self._buffer.append(Delta(text=text))
        if self._request.logprobs is not None:
            self._prompt_offsets = text_offsets(self._token_decoder, prompt.tokens, text)
            first = token_logprob(self._token_decoder, prompt.tokens[0], None, (), 0)
            self._buffer.logprobs.append(first)

    def _logprob(self, token: int, logprobs: mx.array, top: int) -> TokenLogprob:
        values = logprobs.astype(mx.float32)
        (best,) = top_logprobs(values[None], top)
        own: Any = values[token].item()
        return token_logprob(self._token_decoder, token, own, best, self._position)


class _DataSplitter(OutputSplitter):
    """Splits a constrained answer: optional reasoning, then either data without markers or tool calls."""

    def __init__(self, stops: Sequence[str] = (), *, tools: Markers | None = None, **more: Any) -> None:
        super().__init__(stops, tools=tools, **more)
        self._calls = tools
        if tools is not None:
            self._blank_lines.begin()  # the answer may begin with blank lines, before a call or before data

    def _on_marker(self, pieces: list[TextPiece], marker: str) -> None:
        super()._on_marker(pieces, marker)
        if self._kind is PieceKind.CONTENT and self._calls is not None:  # a call may follow
            self._scanners[PieceKind.CONTENT] = StopMatcher((self._calls.start,))
