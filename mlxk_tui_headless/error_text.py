"""What the command line says of an error: the cause, and the remedy as an option or a command."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, joined, words_for

WORDS: dict[Remedy, str] = {
    Remedy.DELETE_AGAIN: "Repair that and give the same command again; it will finish.",
    Remedy.LIST_MODELS: "'mlxk-headless list --all' shows what is there.",
    Remedy.CHECK_HEALTH: "'mlxk-headless health' tells more.",
    Remedy.CHOOSE_MODEL: "Give the name of one.",
    Remedy.REPLACE_OR_PULL_MODEL: "Choose another model, or pull it again.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized one, or force it with -f.",
    Remedy.LEAVE_OUT_DRAFT: "Leave the draft model out, or force it with -f.",
    Remedy.FREE_MEMORY_OR_FORCE: "Close other programs, take a smaller model, or force it with -f.",
    Remedy.CHANGE_MESSAGES: "Change the prompt, or go without the template (--no-chat-template).",
    Remedy.WAIT_OR_FORCE: "Wait until it has finished, or force the deletion with -f.",
    Remedy.REMOVE_OTHERS_OR_FORCE: "Remove those first, or force the deletion with -f.",
    Remedy.PULL_OR_CLONE_UNCHECKED: "Pull it again first, or clone it as it is with --no-health-check.",
    Remedy.ENABLE_PUSH: "Set {variable}=1, or push = true in the config file.",
    Remedy.CREATE_REPO: "Check the name, or let it be made with --create.",
    Remedy.CREATE_BRANCH: "Let it be made with --create.",
    Remedy.CONFIRM_PRIVATE: "Say so with --private.",
    Remedy.GIVE_COMMIT_MESSAGE: "Give a sentence with --commit.",
    Remedy.CHOOSE_ANOTHER_PORT: "Stop that program, or choose another port: --port 0 takes a free one.",
    Remedy.CHOOSE_HIGHER_PORT: "Choose one above 1023, such as --port 8000.",
    Remedy.SET_API_KEY: "Give --api-key or set MLXK_API_KEY. 127.0.0.1 needs none.",
    Remedy.CHANGE_DRAFT: "Give another one with --draft.",
}
"""What the shared words leave open, or say too generally."""


def remedy_text(error: OpError) -> str:
    """Return what to do about an error, or an empty string."""
    return words_for(error.remedy, error.facts, WORDS)


def error_text(error: OpError) -> str:
    """Return an error as the command line says it; not yet safe to show."""
    return joined(error.message, remedy_text(error))
