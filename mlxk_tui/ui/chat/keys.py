"""Key bindings of the Chat pane; those of the chats are the same on the screen that lists them."""

from __future__ import annotations

from textual.binding import Binding, BindingType

NEW = Binding("n", "new", "New", id="chat.new", tooltip="Start a new chat")
SEARCH = Binding("slash", "search", "Search", key_display="/", id="chat.search", tooltip="Search all chats")
UNDO = Binding(
    "u", "undo", "Undo delete", show=False, id="chat.undo", tooltip="Restore the chat that was deleted last"
)
PANE: list[BindingType] = [
    Binding("i", "write", "Write", id="chat.write", tooltip="Focus the composer"),
    Binding("r", "regenerate", "Retry", id="chat.again", tooltip="Regenerate the answer as a new branch"),
    Binding("E", "edit", "Edit", id="chat.edit", tooltip="Edit the message and send it as a new branch"),
    Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the message"),
    Binding("Y", "copy_code", "Code", id="chat.copy_code", tooltip="Copy a code block"),
    Binding("t", "fold", "Reasoning", show=False, id="chat.fold", tooltip="Show or hide the reasoning"),
    NEW,
    Binding("s", "sessions", "Chats", id="chat.sessions", tooltip="Focus the list of chats"),
    SEARCH,
    Binding("m", "model", "Model", id="chat.model", tooltip="Switch model"),
    Binding(
        "o",
        "settings",
        "Settings",
        show=False,
        id="chat.settings",
        tooltip="Set system prompt, sampling and token limit of the chat",
    ),
    Binding(
        "e", "export", "Export", show=False, id="chat.export", tooltip="Export the chat as Markdown or JSON"
    ),
    Binding("a", "attach", "Attach", show=False, id="chat.attach", tooltip="Attach a text file"),
    Binding(
        "left,h",
        "branch(-1)",
        "Previous branch",
        show=False,
        id="chat.branch_before",
        tooltip="Show the previous branch",
    ),
    Binding(
        "right,l",
        "branch(1)",
        "Next branch",
        show=False,
        id="chat.branch_next",
        tooltip="Show the next branch",
    ),
    Binding(
        "p",
        "pull",
        "Pull the model",
        show=False,
        id="chat.pull",
        tooltip="Pull the missing model of the chat",
    ),
    Binding(
        "x",
        "retry_store",
        "Reopen chats",
        show=False,
        id="chat.retry_store",
        tooltip="Retry opening the chats",
    ),
    UNDO,
    Binding("escape", "leave", "Back", show=False, id="chat.leave"),
]
"""Bindings while the composer does not have the focus; in the composer, function keys do the same."""
