"""The schema of completion requests, and the type of prompts, which embedding requests share.

Reference: https://platform.openai.com/docs/api-reference/completions.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import ConfigDict, Discriminator, Field, Tag, WithJsonSchema

from mlxk_tui.server.requests.chat_request import MAX_CHOICES, SamplingRequest
from mlxk_tui.server.requests.json_schemas import INTEGER, NULL, PROMPT, all_of, condition, unsupported

MAX_PROMPTS = 64


def _prompt_tag(prompt: object) -> str:
    """Return the type of a prompt by its first item, so that it is validated against one type only."""
    if isinstance(prompt, str):
        return "str"
    first = prompt[0] if isinstance(prompt, list) and prompt else None
    if isinstance(first, list):
        return "list[list[int]]"
    return "list[int]" if isinstance(first, (int, float)) else "list[str]"


_Texts = Annotated[list[str], Tag("list[str]")]
_Tokens = Annotated[list[int], Tag("list[int]")]
_TokenLists = Annotated[list[list[int]], Tag("list[list[int]]")]
Prompts = Annotated[
    Annotated[str, Tag("str")] | _Texts | _Tokens | _TokenLists,
    Discriminator(_prompt_tag),
    WithJsonSchema(PROMPT),
]
"""One text, several texts, a list of token ids, or several such lists."""


def longest_ids(prompts: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]) -> int:
    """Return the number of token ids of the longest prompt; 0 if the prompts are text."""
    if isinstance(prompts, str) or not prompts or isinstance(prompts[0], str):
        return 0
    if isinstance(prompts[0], int):
        return len(prompts)
    return max(len(prompt) for prompt in prompts if isinstance(prompt, Sequence))


class CompletionRequest(SamplingRequest):
    """POST /v1/completions."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            (
                condition("echo", echo={"const": True}),
                condition(max_tokens={"anyOf": [NULL, {"type": "integer", "minimum": 1}]}),
            ),
        )
    )

    prompt: Prompts
    max_tokens: Annotated[int, Field(ge=0), INTEGER] | None = Field(
        None, description="0 is allowed with echo, and returns only the prompt."
    )
    suffix: Annotated[str | None, unsupported("")] = None
    echo: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES), INTEGER] | None = None
    logprobs: Annotated[int, Field(ge=0, le=20), INTEGER] | None = None

    @property
    def longest_ids(self) -> int:
        """Number of token ids of the longest prompt; 0 if the prompts are text."""
        return longest_ids(self.prompt)
