"""Error messages of the app: the cause, then the remedy as a key or a place in the app."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, format_remedy, join_sentences
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ui.widgets.text import sentence

WORDS: dict[Remedy, str] = {
    Remedy.DELETE_AGAIN: "Fix that, then delete the model again.",
    Remedy.LIST_MODELS: "The Models pane lists the installed models.",
    Remedy.CHECK_HEALTH: "See the Health pane for details.",
    Remedy.CHOOSE_MODEL: "Press m to choose one.",
    Remedy.REPLACE_OR_PULL_MODEL: "Press F9 to switch models, or esc and then p to pull it.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized model.",
    Remedy.LEAVE_OUT_DRAFT: "Press F10 to remove the draft model.",
    Remedy.FREE_MEMORY_OR_FORCE: "Close other programs or choose a smaller model.",
    Remedy.CHANGE_MESSAGES: "Edit the message or switch models.",
    Remedy.WAIT_OR_FORCE: "Wait until it finishes, then delete the model again.",
    Remedy.REMOVE_OTHERS_OR_FORCE: "Delete those first.",
    Remedy.PULL_OR_CLONE_UNCHECKED: "Pull it again first.",
    Remedy.ENABLE_PUSH: "Set {variable}=1, or push = true in the config file.",
    Remedy.CREATE_REPO: "Check the name, or select Create.",
    Remedy.CREATE_BRANCH: "Select Create to create it.",
    Remedy.CONFIRM_PRIVATE: "Push to a private repo.",
    Remedy.GIVE_COMMIT_MESSAGE: "Enter a commit message.",
    Remedy.CHOOSE_ANOTHER_PORT: "Stop that program or choose another port.",
    Remedy.CHOOSE_HIGHER_PORT: "Choose a port above 1023.",
    Remedy.SET_API_KEY: "Press n to create one, or listen on 127.0.0.1.",
    Remedy.CHANGE_DRAFT: "Press F10 to choose another one, or none.",
}
"""Remedies that need a key or a place of the app; the others have the shared text."""


def fault_text(title: str, error: BaseException | None) -> str:
    """Return the text of an unexpected exception as one line, safe to show; `title` names the failed work."""
    return printable(f"{title} failed: {error!r}. Please report this.")


def error_text(error: OpError) -> str:
    """Return the message and the remedy of an error as one line, safe to show."""
    return sentence(join_sentences(error.message, format_remedy(error.remedy, error.facts, WORDS)))
