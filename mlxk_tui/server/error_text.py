"""What HTTP answers say of an error: the cause, and the remedy as whoever sends requests can follow it."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, joined, words_for

WORDS: dict[Remedy, str] = {
    Remedy.LIST_MODELS: "GET /v1/models lists the names.",
    Remedy.CHECK_HEALTH: "Its files on the server may be damaged.",
    Remedy.CHOOSE_MODEL: "Name one in the request's field 'model'.",
    Remedy.REPLACE_OR_PULL_MODEL: "Choose another one.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized one.",
    Remedy.LEAVE_OUT_DRAFT: "Leave the draft model out.",
    Remedy.FREE_MEMORY_OR_FORCE: "Choose a smaller or more quantized one.",
    Remedy.FREE_MEMORY: "Choose a smaller or more quantized one.",
    Remedy.CHANGE_MESSAGES: "Change the messages, or use /v1/completions, which goes without the template.",
    Remedy.SHORTEN_PROMPT: "Shorten the prompt, or take a model with a longer context.",
    Remedy.CHANGE_DRAFT: "Name another one.",
}
"""What the shared words leave open, or say for somebody who sits before the program."""
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
"""Remedies of what no request can ask for."""


def error_text(error: OpError) -> str:
    """Return an error as an HTTP answer says it; not yet safe to show."""
    return joined(error.message, words_for(error.remedy, error.facts, WORDS))
