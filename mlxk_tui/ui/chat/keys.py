"""The keys of the Chat pane; those of the sessions are the same on the screen that lists them."""

from __future__ import annotations

from textual.binding import Binding, BindingType

NEW = Binding("n", "new", "New", id="chat.new", tooltip="Begin a new chat")
SEARCH = Binding(
    "slash", "search", "Search", key_display="/", id="chat.search", tooltip="Find chats by their words"
)
UNDO = Binding("u", "undo", "Undo delete", show=False, id="chat.undo", tooltip="Bring a deleted chat back")
PANE: list[BindingType] = [
    Binding("i", "write", "Write", id="chat.write", tooltip="Go to the composer"),
    Binding("r", "again", "Again", id="chat.again", tooltip="Let the model answer again, as another branch"),
    Binding("E", "edit", "Edit", id="chat.edit", tooltip="Change the question and send it as another branch"),
    Binding("y", "copy", "Copy", id="chat.copy", tooltip="Copy the message"),
    Binding("Y", "copy_code", "Code", id="chat.copy_code", tooltip="Copy a code block of the message"),
    Binding("t", "fold", "Thoughts", show=False, id="chat.fold", tooltip="Show or hide the reasoning"),
    NEW,
    Binding("s", "sessions", "Chats", id="chat.sessions", tooltip="Go to the list of chats"),
    SEARCH,
    Binding("m", "model", "Model", id="chat.model", tooltip="Choose who answers next"),
    Binding(
        "o",
        "settings",
        "Settings",
        show=False,
        id="chat.settings",
        tooltip="System prompt, sampling and limit of this chat",
    ),
    Binding(
        "e", "export", "Export", show=False, id="chat.export", tooltip="Write the chat to Markdown or JSON"
    ),
    Binding(
        "a", "attach", "Attach", show=False, id="chat.attach", tooltip="Attach a text file to the question"
    ),
    Binding(
        "left,h",
        "branch(-1)",
        "Other branch",
        show=False,
        id="chat.branch_before",
        tooltip="The branch before",
    ),
    Binding(
        "right,l", "branch(1)", "Next branch", show=False, id="chat.branch_next", tooltip="The next branch"
    ),
    Binding("p", "pull", "Pull the model", show=False, id="chat.pull", tooltip="Pull a model that is gone"),
    Binding(
        "x",
        "retry_store",
        "Open again",
        show=False,
        id="chat.retry_store",
        tooltip="Try again to open the chats",
    ),
    UNDO,
    Binding("escape", "leave", "Back", show=False, id="chat.leave"),
]
"""What works in the pane while the composer has not the focus; there the function keys do the same."""
