"""The request of the completions API, and prompts as it and the embeddings API take them."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from mlxk_tui.server.requests.chat_request import MAX_CHOICES, Sampled
from mlxk_tui.server.requests.shapes import NULL, PROMPTS, WHOLE, conditions, fields, refused

MAX_PROMPTS = 64


def _kind_of_prompts(given: object) -> str:
    """Tell by its first item what a prompt is, so that the rest is compared with one type only."""
    if isinstance(given, str):
        return "str"
    first = given[0] if isinstance(given, list) and given else None
    if isinstance(first, list):
        return "list[list[int]]"
    return "list[int]" if isinstance(first, (int, float)) else "list[str]"


_Texts = Annotated[list[str], Tag("list[str]")]
_Tokens = Annotated[list[int], Tag("list[int]")]
_TokenLists = Annotated[list[list[int]], Tag("list[list[int]]")]
Prompts = Annotated[
    Annotated[str, Tag("str")] | _Texts | _Tokens | _TokenLists,
    Discriminator(_kind_of_prompts),
    WithJsonSchema(PROMPTS),
]
"""A text, several, token ids, or several lists of them."""


def longest_ids_of(prompts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> int:
    """Return the most token ids of a prompt; 0 where there are none."""
    if isinstance(prompts, str) or not prompts or isinstance(prompts[0], str):
        return 0
    if isinstance(prompts[0], int):
        return len(prompts)
    return max(len(prompt) for prompt in prompts if isinstance(prompt, Sequence))


class CompletionRequest(Sampled):
    """POST /v1/completions."""

    model_config = ConfigDict(
        json_schema_extra=conditions(
            (
                fields("echo", echo={"const": True}),
                fields(max_tokens={"anyOf": [NULL, {"type": "integer", "minimum": 1}]}),
            ),
        )
    )

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0), WHOLE] | None = Field(
        None, description="0 with echo: nothing but the prompt."
    )
    suffix: Annotated[str | None, refused("")] = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), WHOLE] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20), WHOLE] | None = None

    @property
    def longest_ids(self) -> int:
        """Most token ids of one of its prompts; 0 where there are none."""
        return longest_ids_of(self.prompt)
