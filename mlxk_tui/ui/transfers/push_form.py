"""The push form: folder and repo, validated while typed, and a review before the upload."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import ClassVar

from textual import events, getters, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Static

from mlxk_tui.ops.cache.names import is_valid_repo_name
from mlxk_tui.ops.contract.results import WorkspaceHealth
from mlxk_tui.ops.contract.transfers import PushData
from mlxk_tui.ops.core.errors import OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.push.workspace import check_workspace
from mlxk_tui.transfers import push_jobs
from mlxk_tui.transfers.jobs import DEFAULT_MESSAGE, Push
from mlxk_tui.ui.inspector import pull_actions
from mlxk_tui.ui.inspector.clone_dialog import absolute
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.transfers.push_text import change_rows, summary_rows, workspace_rows
from mlxk_tui.ui.widgets.dialogs import Dialog, DialogList
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.text import Part, lines, wrap

_SETTLE_SECONDS = 0.3
_LINE = 62


class PlainCheckbox(Checkbox):
    """A checkbox with a mark only if it is checked: Textual's (8.2.8) states differ in color alone."""

    def render(self) -> Content:
        self.BUTTON_INNER = "✓" if self.value else " "
        return super().render()


class ReviewDialog(Dialog):
    """Shows what a push would change, before anything is uploaded."""

    def __init__(self, job: Push, plan: PushData) -> None:
        name = printable(job.repo)
        super().__init__(f"Push to {name}?", proceed=None if plan.no_changes else "Push", cancel="Back")
        self._job = job
        self._plan = plan

    def body(self) -> list[Widget]:
        changes = change_rows(self._plan, _LINE)
        rows = [
            [("Branch ", "$muted"), (printable(self._plan.branch), ""), ("  ", ""), ("private", "$muted")]
        ]
        widgets: list[Widget] = [Static(lines([*rows, []]), markup=False)]
        if changes:
            widgets.append(DialogList(changes))
        widgets.append(
            Static(lines([*([[]] if changes else []), *summary_rows(self._plan)]), classes="dialog-total")
        )
        return widgets


class PushForm(ModalScreen[None], OverlayScreen[None]):
    """Asks for folder and repo, and queues the push after a review.

    Args:
        context: the app's services.
    """

    BINDING_GROUP_TITLE = "Push form"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="push.cancel"),
        Binding("down", "app.focus_next", "Next field", show=False, id="push.next"),
        Binding("up", "app.focus_previous", "Previous field", show=False, id="push.previous"),
    ]
    AUTO_FOCUS = "#push-folder"

    folder = getters.query_one("#push-folder", Input)
    repo = getters.query_one("#push-repo", Input)
    branch = getters.query_one("#push-branch", Input)
    commit = getters.query_one("#push-commit", Input)
    create = getters.query_one("#push-create", Checkbox)
    delete = getters.query_one("#push-delete", Checkbox)
    check = getters.query_one("#push-check", Static)
    problem = getters.query_one("#push-problem", Static)
    proceed = getters.query_one("#proceed", Button)

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        self._health: WorkspaceHealth | None = None
        self._checked = ""
        self._busy = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="push-frame") as frame:
            frame.border_title = "Push a folder to the hub"
            frame.border_subtitle = "experimental"
            yield from self._field("Folder", "push-folder", "", "path of the model, such as ./my-model")
            with VerticalScroll(id="push-check-box", can_focus=False):
                yield Static(id="push-check", markup=False)
            yield from self._field("Repo", "push-repo", "", "organization/model")
            yield from self._field("Branch", "push-branch", "main", "main")
            yield from self._field("Message", "push-commit", DEFAULT_MESSAGE, "commit message")
            with Horizontal(classes="push-line"):
                yield Static("Private", classes="push-label")
                yield PlainCheckbox(
                    "always (never pushes to a public repo)",
                    True,
                    id="push-private",
                    compact=True,
                    disabled=True,
                )
            with Horizontal(classes="push-line"):
                yield Static("Create", classes="push-label")
                yield PlainCheckbox("create repo and branch if missing", id="push-create", compact=True)
            with Horizontal(classes="push-line"):
                yield Static("Delete", classes="push-label")
                yield PlainCheckbox(
                    "remote files that the folder does not have", id="push-delete", compact=True
                )
            with VerticalScroll(id="push-problem-box", can_focus=False):
                yield Static(id="push-problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button("Review", id="proceed", variant="primary", compact=True)

    def _field(self, label: str, identity: str, value: str, placeholder: str) -> ComposeResult:
        with Horizontal(classes="push-line"):
            yield Static(label, classes="push-label")
            yield Input(value, id=identity, compact=True, placeholder=placeholder, select_on_focus=False)

    def on_mount(self) -> None:
        self._draw()

    # -- fields ------------------------------------------------------------------------------------

    @property
    def job(self) -> Push:
        """The push of the current values."""
        return Push(
            absolute(self.folder.value),
            self.repo.value.strip(),
            self.branch.value.strip() or "main",
            self.commit.value.strip() or DEFAULT_MESSAGE,
            self.create.value,
            self.delete.value,
        )

    def validation_error(self) -> str | None:
        """Return what is invalid, as a sentence; empty while unknown, None if the push can be reviewed."""
        if not self.folder.value.strip():
            return "Enter the folder of the model."
        if self._health is None:
            return ""  # still checking, or the line below the folder shows the error
        repo = self.repo.value.strip()
        if not repo:
            return "Enter the repo as organization/model."
        if "/" not in repo or not is_valid_repo_name(repo):
            return "Use organization/model, such as me/my-model."
        return None

    def on_input_changed(self, event: Input.Changed) -> None:
        """Check the folder after a pause in the typing."""
        event.stop()
        if event.input is self.folder:
            self._health = None
            self._check_folder(event.value)
        self._draw()

    @work(group="push-check", exclusive=True, exit_on_error=False)
    async def _check_folder(self, text: str) -> None:
        self.check.update("")
        if not text.strip() or "\0" in text:
            return
        await asyncio.sleep(_SETTLE_SECONDS)
        self.check.update(Content.styled("Checking …", "$muted"))
        folder = Path(absolute(text))
        try:
            self._health = await check_workspace(folder)
        except OpError as error:
            self.check.update(Content.styled(f"✗ {error_text(error)}", "$bad"))
            return
        if self.is_attached:
            self.check.update(lines(workspace_rows(self._health, _LINE - 10)))
            self._draw()

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        """Clear the error of the previous values."""
        event.stop()
        self._draw()

    def _draw(self, error: str = "") -> None:
        invalid = self.validation_error()
        self.proceed.disabled = invalid is not None or self._busy
        rows: list[list[Part]] = []
        if self._busy:
            rows = [[("Comparing with the hub …", "$muted")]]
        elif error:
            rows = [
                [("✗ " if number == 0 else "  ", "$bad"), (text, "")]
                for number, text in enumerate(wrap(error, _LINE))
            ]
        elif invalid:
            rows = [[(invalid, "$muted")]]
        self.problem.update(lines(rows))

    # -- submitting --------------------------------------------------------------------------------

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Review the push if it is valid, else focus the next field."""
        event.stop()
        if self.validation_error() is None:
            self._review()
        else:
            self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "proceed":
            self._review()
        else:
            self.dismiss()

    @work(group="push-review", exclusive=True, exit_on_error=False)
    async def _review(self) -> None:
        job = self.job
        self._busy = True
        self._draw()
        try:
            plan = await push_jobs.review(job, hub=self.context.hub())
        except OpError as error:
            self._busy = False
            self._draw(error_text(error))
            return
        self._busy = False
        self._draw()
        if self.app.screen is self:
            self.app.push_screen(
                ReviewDialog(job, plan), lambda confirmed: self._enqueue(job) if confirmed else None
            )

    def _enqueue(self, job: Push) -> None:
        pull_actions.enqueue(self, self.context, [job])
        self.dismiss()

    def on_click(self, event: events.Click) -> None:
        """Cancel on a click outside the frame."""
        if event.widget is self:
            self.dismiss()

    def action_cancel(self) -> None:
        self.dismiss()
