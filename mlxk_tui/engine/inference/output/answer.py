"""Turns the tokens of one generation into deltas: text that is certain, reasoning, tool calls, counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from mlxk_tui.engine.delta_buffer import DeltaBuffer
from mlxk_tui.engine.formats.splitting import Markers, OutputSplitter, PieceKind, StopMatcher, TextPiece
from mlxk_tui.engine.formats.tool_calls import parse_tool_calls
from mlxk_tui.engine.formats.truncated_calls import parse_truncated_calls
from mlxk_tui.engine.formats.truncated_markup import is_markup_parser, parse_truncated_markup
from mlxk_tui.engine.generation import Delta, FinishReason, Generation, TokenLogprob, ToolCall
from mlxk_tui.engine.inference.detokenizing import continuing_decoder, turn_decoder
from mlxk_tui.engine.inference.output.log_probabilities import Likely, entry, likeliest, offsets
from mlxk_tui.engine.inference.prompts.messages import without_surrogates
from mlxk_tui.engine.inference.prompts.prompting import Prompt
from mlxk_tui.engine.inference.weights.loading import LoadedModel


class DeltaAssembler:
    """The text of one generation as it grows; `take` collects what is new."""

    def __init__(self, model: LoadedModel, request: Generation, prompt: Prompt) -> None:
        self.tokens = 0
        """Tokens so far."""
        self.reasoning_tokens = 0
        """Those of them that are reasoning, its markers included."""
        tokenizer = model.tokenizer
        self._tokenizer = tokenizer
        self._texts = model.texts
        self._request = request
        self._implied = prompt.implied_stops
        raw = request.messages is None  # its text is all that the tokens say, whatever markers it may hold
        templated = request.messages is not None and request.chat_template and tokenizer.has_chat_template
        constraint = prompt.constraint
        bound = constraint is not None  # then data is data, whatever markers it may hold
        reasons = tokenizer.has_thinking and (constraint.reasons if constraint is not None else not raw)
        calls: Markers | None = None
        if tokenizer.has_tool_calling and request.tools and not request.forced_call:
            calls = Markers(tokenizer.tool_call_start, tokenizer.tool_call_end or "")
            if constraint is not None and calls.start:
                constraint.or_call(calls.start, calls.end)
        self._splitter = (_DataSplitter if bound else OutputSplitter)(
            (*request.stop, *prompt.implied_stops),
            reasoning=Markers(tokenizer.think_start, tokenizer.think_end) if reasons else None,
            reasoning_open=prompt.reasoning_open,
            tools=calls,
            dropped=tuple(getattr(tokenizer, "structural_markers", ())) if templated and not bound else (),
            reasoning_first=bound,
        )
        self._calls = 0
        self._cut = False
        """Whether what comes now was cut off by a limit."""
        self._done: list[Delta] = []
        self._buffer = DeltaBuffer()
        self._decoder = (
            turn_decoder(self._texts)
            if templated or prompt.implied_stops
            else continuing_decoder(self._texts, prompt.tokens)
        )
        self._position = 0
        """Characters of prompt and answer so far."""
        self._prompt_offsets: list[int] = []
        self._scored = 0
        if raw and (request.echo or request.logprobs is not None):
            self._begin(prompt)

    @property
    def stop_string(self) -> str | None:
        """The request's stop string that ended the text."""
        found = self._splitter.stopped
        return None if found in self._implied else found

    def push(self, token: int, logprobs: mx.array | None, *, ends_turn: bool = False) -> bool:
        """Take a token; return True where the text ends here, by a stop string.

        Args:
            token: its id.
            logprobs: log-probabilities of the vocabulary, (vocabulary,).
            ends_turn: it is an end-of-turn token, which is counted and never shown.
        """
        self.tokens += 1
        self._buffer.tokens += 1
        reasoning = self._splitter.kind is PieceKind.REASONING
        if self._request.want_tokens:
            self._buffer.token_ids.append(token)
        if not ends_turn:
            if self._request.logprobs is not None and logprobs is not None:
                self._buffer.logprobs.append(self._likely(token, logprobs, self._request.logprobs))
            text = self._decoder.push(token)
            self._position += len(text)
            self._sort(self._splitter.push(text))
        if reasoning or self._splitter.kind is PieceKind.REASONING:
            self.reasoning_tokens += 1
        return self._splitter.stopped is not None

    def finish(self, reason: FinishReason) -> None:
        """Let out what was held back: no token follows, for this reason."""
        self._cut = reason is FinishReason.LENGTH
        self._sort(self._splitter.push(self._decoder.finish()))
        self._sort(self._splitter.finish())

    def score(self, token: int, logprob: float, top: Likely) -> None:
        """Take the log-probability of the prompt's next token; the first one, which has none, is left out."""
        self._scored += 1
        offset = self._prompt_offsets[self._scored]
        self._buffer.logprobs.append(entry(self._texts, token, logprob, top, offset))

    def reason(self, reason: FinishReason) -> FinishReason:
        """Return why it ended: an answer that stops after tool calls waits for their results."""
        return FinishReason.TOOL_CALLS if reason is FinishReason.STOP and self._calls else reason

    def take(self) -> list[Delta]:
        """Return everything since the last call: mostly one delta, or none."""
        deltas, self._done = self._done, []
        if self._buffer:
            deltas.append(self._buffer.to_delta())
            self._buffer = DeltaBuffer()
        return deltas

    def _sort(self, pieces: Sequence[TextPiece]) -> None:
        for piece in pieces:
            delta = self._delta_of(piece)
            if not self._buffer.can_append(delta):
                self._done.append(self._buffer.to_delta())
                self._buffer = DeltaBuffer()
            self._buffer.append(delta)

    def _delta_of(self, piece: TextPiece) -> Delta:
        if piece.kind is PieceKind.REASONING:
            return Delta(reasoning=piece.text)
        if piece.kind is PieceKind.CONTENT:
            return Delta(text=piece.text)
        calls = self._calls_of(piece)
        if calls is None:
            return Delta(text=piece.source)
        self._calls += len(calls)
        return Delta(tool_calls=calls)

    def _calls_of(self, piece: TextPiece) -> tuple[ToolCall, ...] | None:
        """Return the calls of a block; None where it holds something else."""
        parser, tools, text = self._tokenizer.tool_parser, self._request.tools, piece.text
        end = self._tokenizer.tool_call_end or ""
        if self._cut and not (end and piece.source.endswith(end)):
            if is_markup_parser(parser):
                calls = parse_truncated_markup(text, parser, tools, first_index=self._calls, block_end=end)
            else:
                calls = parse_tool_calls(text, parser=parser, tools=tools, first_index=self._calls)
            return parse_truncated_calls(text, tools, first_index=self._calls) if calls is None else calls
        return parse_tool_calls(text, parser=parser, tools=tools, first_index=self._calls)

    def _begin(self, prompt: Prompt) -> None:
        """Repeat the prompt's text where that is asked for, and find where each token of it begins."""
        given = self._request.prompt
        text = without_surrogates(given) if given is not None else self._texts.decode(prompt.tokens)[0]
        self._position = len(text)
        if not self._request.echo:
            return
        self._buffer.append(Delta(text=text))
        if self._request.logprobs is not None:
            self._prompt_offsets = offsets(self._texts, prompt.tokens, text)
            self._buffer.logprobs.append(entry(self._texts, prompt.tokens[0], None, (), 0))

    def _likely(self, token: int, logprobs: mx.array, top: int) -> TokenLogprob:
        values = logprobs.astype(mx.float32)
        (best,) = likeliest(values[None], top)
        own: Any = values[token].item()
        return entry(self._texts, token, own, best, self._position)


class _DataSplitter(OutputSplitter):
    """Splits an answer that is either data, in which nothing is a marker, or tool calls; reasoning first."""

    def __init__(self, stops: Sequence[str] = (), *, tools: Markers | None = None, **more: Any) -> None:
        super().__init__(stops, tools=tools, **more)
        self._calls = tools
        if tools is not None:
            self._blank_lines.begin()  # blank lines before a call, which may turn out to be before data

    def _on_marker(self, pieces: list[TextPiece], marker: str) -> None:
        super()._on_marker(pieces, marker)
        if self._kind is PieceKind.CONTENT and self._calls is not None:  # a call may follow
            self._scanners[PieceKind.CONTENT] = StopMatcher((self._calls.start,))
