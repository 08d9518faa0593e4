"""OpenAI's and Anthropic's clients, imported when a test first uses one.

Importing them takes seconds, and each process of a run imports every test module.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ("anthropic", "openai")

if TYPE_CHECKING:
    import anthropic
    import openai
else:

    class _Later:
        def __init__(self, name: str) -> None:
            self.module = name

        def __getattr__(self, name: str) -> Any:
            if name.startswith("_"):  # pytest accesses all attributes of a test module
                raise AttributeError(name)
            return getattr(importlib.import_module(self.module), name)

    anthropic, openai = _Later("anthropic"), _Later("openai")
