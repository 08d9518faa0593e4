"""The text of an error on the command line: the cause, and the remedy as an option or a command."""

from __future__ import annotations

from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.remedies import Remedy, format_remedy, join_sentences

WORDS: dict[Remedy, str] = {
    Remedy.DELETE_AGAIN: "Fix this and run the same command again to finish.",
    Remedy.LIST_MODELS: "'mlxk-headless list --all' lists the cached models.",
    Remedy.CHECK_HEALTH: "'mlxk-headless health' shows details.",
    Remedy.CHOOSE_MODEL: "Give the name of one of them.",
    Remedy.REPLACE_OR_PULL_MODEL: "Choose another model, or pull it again.",
    Remedy.CHOOSE_SMALLER_MODEL: "Choose a smaller or more quantized model, or use -f to run it anyway.",
    Remedy.LEAVE_OUT_DRAFT: "Run without the draft model, or use -f to run it anyway.",
    Remedy.FREE_MEMORY_OR_FORCE: "Close other programs, choose a smaller model, or use -f to run it anyway.",
    Remedy.CHANGE_MESSAGES: "Change the prompt, or use --no-chat-template.",
    Remedy.WAIT_OR_FORCE: "Wait until it has finished, or use -f to delete it anyway.",
    Remedy.REMOVE_OTHERS_OR_FORCE: "Remove those first, or use -f to delete it anyway.",
    Remedy.PULL_OR_CLONE_UNCHECKED: "Pull it again first, or use --no-health-check to clone it as it is.",
    Remedy.ENABLE_PUSH: "Set {variable}=1, or push = true in the config file.",
    Remedy.CREATE_REPO: "Check the name, or use --create to create it.",
    Remedy.CREATE_BRANCH: "Use --create to create it.",
    Remedy.CONFIRM_PRIVATE: "Confirm it with --private.",
    Remedy.GIVE_COMMIT_MESSAGE: "Give one with --commit.",
    Remedy.CHOOSE_ANOTHER_PORT: "Stop that program, or choose another port: --port 0 picks a free one.",
    Remedy.CHOOSE_HIGHER_PORT: "Choose a port above 1023, such as --port 8000.",
    Remedy.SET_API_KEY: "Use --api-key or set MLXK_API_KEY. 127.0.0.1 needs no key.",
    Remedy.CHANGE_DRAFT: "Choose another one with --draft.",
}
"""Texts for remedies that need a command or an option; the other texts are shared by all front ends."""


def remedy_text(error: OpError) -> str:
    """Return the remedy for an error, or an empty string."""
    return format_remedy(error.remedy, error.facts, WORDS)


def error_text(error: OpError) -> str:
    """Return the text of an error; control characters are not escaped yet."""
    return join_sentences(error.message, remedy_text(error))
