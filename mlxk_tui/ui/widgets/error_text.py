"""What the app says of an error: the cause, and the remedy as a key or a place of the app."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, joined, words_for
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ui.widgets.text import sentence

WORDS: dict[Remedy, str] = {
    Remedy.DELETE_AGAIN: "Repair that and delete it again; the rest goes then.",
    Remedy.LIST_MODELS: "The Models pane shows what is there.",
    Remedy.CHECK_HEALTH: "The Health pane tells more.",
    Remedy.CHOOSE_MODEL: "m chooses one.",
    Remedy.REPLACE_OR_PULL_MODEL: "F9 chooses another model; esc, then p, pulls it.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized one.",
    Remedy.LEAVE_OUT_DRAFT: "Leave the draft model out: F10 changes that.",
    Remedy.FREE_MEMORY_OR_FORCE: "Close other programs or take a smaller model.",
    Remedy.CHANGE_MESSAGES: "Change the question, or take another model.",
    Remedy.WAIT_OR_FORCE: "Wait until it has finished, then delete it again.",
    Remedy.REMOVE_OTHERS_OR_FORCE: "Delete those first.",
    Remedy.PULL_OR_CLONE_UNCHECKED: "Pull it again first.",
    Remedy.ENABLE_PUSH: "Set {variable}=1, or push = true in the config file.",
    Remedy.CREATE_REPO: "Check the name, or let it be made with Create.",
    Remedy.CREATE_BRANCH: "Let it be made with Create.",
    Remedy.CONFIRM_PRIVATE: "Push to a private one.",
    Remedy.GIVE_COMMIT_MESSAGE: "Give a sentence as message.",
    Remedy.CHOOSE_ANOTHER_PORT: "Stop that program, or take another port.",
    Remedy.CHOOSE_HIGHER_PORT: "Choose one above 1023.",
    Remedy.SET_API_KEY: "Make one with n first. 127.0.0.1 needs none.",
    Remedy.CHANGE_DRAFT: "F10 chooses another one, or none.",
}
"""What the shared words leave open, or say too generally."""


def fault_text(title: str, error: BaseException | None) -> str:
    """Return what is shown of an exception that nobody expected, as one safe line; `title` names the work."""
    return printable(f"{title} failed: {error!r}. Please report this.")


def error_text(error: OpError) -> str:
    """Return an error as one safe line."""
    return sentence(joined(error.message, words_for(error.remedy, error.facts, WORDS)))
