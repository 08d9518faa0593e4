"""Error messages for HTTP clients: the cause, then the remedy in terms of the API."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, format_remedy, join_sentences

WORDS: dict[Remedy, str] = {
    Remedy.LIST_MODELS: "GET /v1/models lists the names.",
    Remedy.CHECK_HEALTH: "Its files on the server may be damaged.",
    Remedy.CHOOSE_MODEL: "Set one in the request's field 'model'.",
    Remedy.REPLACE_OR_PULL_MODEL: "Choose another model.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized model.",
    Remedy.LEAVE_OUT_DRAFT: "Leave the draft model out.",
    Remedy.FREE_MEMORY_OR_FORCE: "Choose a smaller or more quantized model.",
    Remedy.FREE_MEMORY: "Choose a smaller or more quantized model.",
    Remedy.CHANGE_MESSAGES: "Change the messages, or use /v1/completions, which doesn't use the template.",
    Remedy.SHORTEN_PROMPT: "Shorten the prompt, or choose a model with a longer context.",
    Remedy.CHANGE_DRAFT: "Choose another draft model.",
}
"""Remedies that the shared texts don't cover, or word for a user at the terminal."""
NEVER = frozenset(
    {
        Remedy.DELETE_AGAIN,
        Remedy.WAIT_OR_FORCE,
        Remedy.REMOVE_OTHERS_OR_FORCE,
        Remedy.PULL_OR_CLONE_UNCHECKED,
        Remedy.ENABLE_PUSH,
        Remedy.CREATE_REPO,
        Remedy.CREATE_BRANCH,
        Remedy.CONFIRM_PRIVATE,
        Remedy.GIVE_COMMIT_MESSAGE,
        Remedy.CHOOSE_ANOTHER_PORT,
        Remedy.CHOOSE_HIGHER_PORT,
        Remedy.SET_API_KEY,
    }
)
"""Remedies of operations that no request can start."""


def error_text(error: OpError) -> str:
    """Return the message of an error for an HTTP client; control characters are not removed yet."""
    return join_sentences(error.message, format_remedy(error.remedy, error.facts, WORDS))
