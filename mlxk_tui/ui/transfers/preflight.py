"""The dialog before a pull: what it downloads, whether it fits and whether access is granted."""

from __future__ import annotations

from typing import ClassVar

from textual import events, getters, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from mlxk_tui.ops.core.errors import ErrorType, OpError
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.pull.plan import PullPlan, plan_pull
from mlxk_tui.transfers.jobs import Pull
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.transfers.preflight_card import failure_rows, plan_rows
from mlxk_tui.ui.widgets.error_text import error_text
from mlxk_tui.ui.widgets.overlay_screen import OverlayScreen
from mlxk_tui.ui.widgets.text import Part, cut, lines

_HINTS = {
    ErrorType.ACCESS_DENIED: "Request access, then press r to retry.",
    ErrorType.NETWORK_ERROR: "Press r to retry.",
}


class PreflightDialog(ModalScreen[Pull | None], OverlayScreen[Pull | None]):
    """Returns the pull to queue, or None if cancelled.

    Args:
        context: the app's services.
        spec: `NAME[@REV]`.
    """

    BINDING_GROUP_TITLE = "Pull preview"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "Cancel", show=False, id="preflight.cancel"),
        Binding("left,h", "app.focus_previous", "Previous button", show=False, id="preflight.previous"),
        Binding("right,l", "app.focus_next", "Next button", show=False, id="preflight.next"),
        Binding("r", "load", "Retry", show=False, id="preflight.again"),
    ]
    AUTO_FOCUS = "#safe"

    text = getters.query_one("#preflight-text", Static)
    box = getters.query_one("#preflight-box", VerticalScroll)
    proceed = getters.query_one("#proceed", Button)
    safe = getters.query_one("#safe", Button)

    def __init__(self, context: Context, spec: str) -> None:
        super().__init__()
        self.context = context
        self._spec = spec
        self.plan: PullPlan | None = None
        """What the pull would download; None until the hub has answered."""
        self.error: OpError | None = None
        """Why there is no plan."""

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as frame:
            frame.border_title = Content(cut(f"Pull {printable(self._spec)}", 60))
            with VerticalScroll(id="preflight-box", can_focus=False):
                yield Static(id="preflight-text", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="safe", compact=True)
                yield Button("Pull", id="proceed", variant="primary", compact=True, disabled=True)

    def on_mount(self) -> None:
        self.action_load()

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    @work(group="preflight", exclusive=True, exit_on_error=False)
    async def action_load(self) -> None:
        """Request the plan from the hub."""
        self.plan = self.error = None
        self._draw()
        try:
            self.plan = await plan_pull(
                self.context.library.cache, self._spec, hub=self.context.hub(), runtime=self.context.runtime
            )
        except OpError as error:
            self.error = error
        if not self.is_attached:
            return
        plan = self.plan
        ready = (
            plan is not None and plan.lacks_space is None and bool(plan.missing or not plan.ref_is_current)
        )
        self.proceed.disabled = not ready
        self.safe.label = "Cancel" if ready else "Close"
        (self.proceed if ready else self.safe).focus()
        self._draw()

    def _draw(self) -> None:
        width = self.box.scrollable_content_region.width or 60
        if self.plan is not None:
            rows = plan_rows(self.plan, self.context.library.machine_bytes, width)
        elif self.error is not None:
            hint = _HINTS.get(self.error.type)
            rows = failure_rows(self._spec, error_text(self.error), [hint] if hint else [], width)
        else:
            loading: list[Part] = [("Checking with the hub …", "$muted")]
            rows = [[(cut(printable(self._spec), width), "$strong bold")], [], loading]
        self.text.update(lines(rows))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "proceed" and self.plan is not None:
            revision = self.plan.spec.revision
            self.dismiss(Pull(f"{self.plan.repo}@{revision}" if revision else self.plan.repo))
        else:
            self.dismiss(None)

    def on_click(self, event: events.Click) -> None:
        """Cancel on a click outside the frame."""
        if event.widget is self:
            self.dismiss(None)

    def action_cancel(self) -> None:
        self.dismiss(None)
