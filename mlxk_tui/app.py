"""MlxkApp, the composition root: it creates the services and the panes and binds the global keys."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import platformdirs
from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.screen import Screen
from textual.theme import Theme

from mlxk_tui.config_file import ConfigError, save
from mlxk_tui.heap import use_one_heap
from mlxk_tui.ops.cache.cache import Cache
from mlxk_tui.ops.core.text import printable
from mlxk_tui.ops.health.machine import Runtime
from mlxk_tui.ops.push.request import push_enabled
from mlxk_tui.services.conversation.backend import ChatBackend
from mlxk_tui.services.library import Library
from mlxk_tui.services.server.control import ServerControl
from mlxk_tui.services.tasks import Tasks
from mlxk_tui.services.updates import UpdateChecker
from mlxk_tui.settings import LoadedSettings, weights_policy
from mlxk_tui.terminal_app import TerminalApp
from mlxk_tui.transfers.changes import Change
from mlxk_tui.transfers.jobs import TransferState
from mlxk_tui.transfers.queue import TransferQueue
from mlxk_tui.transfers.queue_file import state_file
from mlxk_tui.transfers.rate_limits import TransferRateLimits, from_megabytes, to_megabytes
from mlxk_tui.transfers.runners import runners
from mlxk_tui.ui.shell import themes
from mlxk_tui.ui.shell.context import Context
from mlxk_tui.ui.shell.messages import ChatRequested
from mlxk_tui.ui.shell.registry import PANES
from mlxk_tui.ui.shell.stylesheet import CachedStylesheet
from mlxk_tui.ui.shell.sweep import INTERVAL_S, sweep
from mlxk_tui.ui.shell.tasks import notify_end, stop_latest_task
from mlxk_tui.ui.widgets.error_text import error_text

if TYPE_CHECKING:
    from mlxk_tui.engine.client import Engine
    from mlxk_tui.ops.hub.hub import Hub


def _palette_provider() -> type[Provider]:
    from mlxk_tui.palette import PaletteCommands

    return PaletteCommands


def _enable_garbage_collection() -> None:
    if gc.isenabled():  # not started by the command
        return
    gc.freeze()  # modules, styles, classes: never collected
    gc.set_threshold(10_000, 10, 10)  # frames are many and small: collecting can wait
    gc.enable()


class MlxkApp(TerminalApp):
    """The interactive session.

    Args:
        loaded: the settings and their problems.
        cache: the cache to show.
        label: name of the cache in the header.
        clock: seconds since the epoch.
        runtime: what this machine can run; detected by default.
        remember: whether a theme picked in the palette is written to the config file.
        state: folder for persistent state, such as the transfer queue and the chats; the user's by default.
        hub: the hub to pull from and push to; the environment's by default.
        transfers: the transfer queue; by default one in the state folder, for this cache and this hub.
        engine: runs the models; by default it starts with the first chat and stops with the app.
        temporary: whether cache and state are deleted at the end, as in the demo.
    """

    TITLE = "mlxk-tui"
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_palette_provider}
    DEFAULT_MODE = PANES[0].id
    COMMAND_PALETTE_BINDING = "ctrl+p"
    COMMAND_PALETTE_DISPLAY = "^p"
    ENABLE_COMMAND_PALETTE = True
    NOTIFICATION_TIMEOUT = 6
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]
    BINDING_GROUP_TITLE = "Everywhere"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(f"{number},f{number}", f"pane('{pane.id}')", pane.title, show=False, id=f"pane.{pane.id}")
            for number, pane in enumerate(PANES, 1)
        ),
        Binding("question_mark,f12", "keys", "Help", key_display="?", id="app.help"),
        Binding(
            "ctrl+p",
            "command_palette",
            "palette",
            show=False,
            key_display="^p",
            priority=True,
            id="app.palette",
            tooltip="Search actions, panes, themes, models and chats",
        ),
        Binding("q", "leave_app", "Quit", show=False, id="app.quit"),
        Binding("ctrl+q", "leave_app", "Quit", show=False, system=True, id="app.quit_always", priority=True),
        Binding("ctrl+c", "interrupt", "Copy or quit", show=False, system=True, id="app.interrupt"),
    ]

    def __init__(
        self,
        loaded: LoadedSettings,
        cache: Cache,
        *,
        label: str = "hub",
        clock: Callable[[], float] = time.time,
        runtime: Runtime | None = None,
        remember: bool = True,
        state: Path | None = None,
        hub: Hub | None = None,
        transfers: TransferQueue | None = None,
        engine: Engine | None = None,
        temporary: bool = False,
    ) -> None:
        super().__init__(css_path=list(themes.stylesheets()))
        self.stylesheet = CachedStylesheet(variables=self.get_css_variables())
        settings = loaded.settings
        self._loaded = loaded
        self._remember = remember
        self._temporary = temporary
        self.library = Library(cache, refresh_seconds=settings.refresh_seconds, clock=clock, runtime=runtime)
        self.tasks = Tasks()
        self.tasks.ended.subscribe(partial(notify_end, self))
        self._hub = hub
        push = push_enabled(settings.push, os.environ)
        limits = TransferRateLimits(from_megabytes(settings.rate_limit))
        limits.changed.subscribe(lambda rate: self._remember_setting("rate_limit", to_megabytes(rate)))
        folder = state or platformdirs.user_state_path("mlxk-tui")
        self.updates = UpdateChecker(self.library, self._get_hub, state_file(folder, cache.root, "updates"))
        self.transfers = transfers or TransferQueue(
            state_file(folder, cache.root),
            runners(
                cache,
                self._get_hub,
                via_hub=settings.transfer_backend == "hub",
                push=push,
                limits=limits,
            ),
            parallel=settings.parallel_transfers,
            clock=clock,
        )
        self.chats = ChatBackend(
            state or platformdirs.user_data_path("mlxk-tui"),
            idle_unload_s=60 * settings.idle_unload_minutes,
            error_text=error_text,
            weights=lambda: weights_policy(loaded),
            engine=engine,
        )
        self.server = ServerControl(loaded, cache, lambda: self.chats.engine, remember=remember)
        self.context = Context(
            self.library,
            settings,
            self.tasks,
            self.transfers,
            limits,
            self._get_hub,
            self.chats,
            self.server,
            self.updates,
            runtime,
            push,
            label,
        )
        for theme in (themes.DARK, themes.LIGHT):
            self.register_theme(theme)
        known = settings.theme in self.available_themes
        self.theme = settings.theme if known else themes.DEFAULT_THEME
        self._theme_problem = "" if known else self._unknown_theme(settings.theme)
        if not settings.animations:
            self.animation_level = "none"
        for pane in PANES:
            self.add_mode(pane.id, self._pane_factory(pane.id))

    def _unknown_theme(self, name: str) -> str:
        own = (themes.DARK.name, themes.LIGHT.name, "ansi-dark", "ansi-light")
        others = sorted(set(self.available_themes) - set(own))
        return (
            f"{self._loaded.where('theme')}: unknown theme '{printable(name)}'. "
            f"Using the default. Available themes: {', '.join((*own, *others))}."
        )

    def _pane_factory(self, pane_id: str) -> Callable[[], Screen[None]]:
        pane = next(pane for pane in PANES if pane.id == pane_id)
        return lambda: pane.make(self.context)

    def get_css_variables(self) -> dict[str, str]:
        """Add this app's color tokens to Textual's variables."""
        variables = super().get_css_variables()
        variables.update(themes.tokens(self.current_theme, variables))
        self.theme_variables = variables
        return variables

    def on_mount(self) -> None:
        # Not earlier: scanning the cache, and the imports for it, would delay the first frame.
        self.call_after_refresh(self._start_services)
        self.set_timer(1.0, _enable_garbage_collection)
        self.set_interval(INTERVAL_S, self._sweep)
        self._use_keymap()
        problems = [*self._loaded.problems, *([self._theme_problem] if self._theme_problem else [])]
        for problem in problems[:4]:
            self.notify(problem, title="Settings", severity="warning", timeout=15, markup=False)
        self.theme_changed_signal.subscribe(self, self._remember_theme)

    def _start_services(self) -> None:
        if not gc.isenabled():  # started by the command: the process is the app's alone
            use_one_heap()
        self.run_worker(self.library.run(), name="library", group="library", exit_on_error=False)
        self.run_worker(self._start_updates(), name="updates", group="updates", exit_on_error=False)
        self.run_worker(self._start_transfers(), name="transfers", group="transfers", exit_on_error=False)

    async def _start_updates(self) -> None:
        """Show the updates that were found before; if the setting allows it, ask the hub again."""
        await self.updates.load()
        if self.context.settings.check_updates:
            self.updates.start_daily(self.tasks)

    async def _start_transfers(self) -> None:
        self.transfers.changed.subscribe(self._transfers_changed)
        await self.transfers.start()
        if self.transfers.problem:
            self.notify(
                self.transfers.problem, title="Transfers", severity="warning", timeout=15, markup=False
            )

    def _transfers_changed(self, change: Change) -> None:
        """Notify the user of transfers that ended, unless their pane is open; update the library."""
        for transfer in change.ended:
            failed = transfer.state is TransferState.FAILED
            if self.current_mode != "transfers":
                text = error_text(transfer.failure.error) if transfer.failure else transfer.result
                self.notify(
                    printable(text),
                    title=printable(transfer.job.name),
                    severity="error" if failed else "information",
                    timeout=12 if failed else None,
                    markup=False,
                )
        if any(not transfer.is_push and transfer.state is TransferState.DONE for transfer in change.ended):
            self.run_worker(self._read_downloaded(), group="refresh", exit_on_error=False)
        elif change.structure:
            self._mark_downloading()

    async def _read_downloaded(self) -> None:
        """Check the pulled models before they lose the state "downloading"."""
        await self.library.refresh()
        self._mark_downloading()

    def _mark_downloading(self) -> None:
        active = (
            t for t in self.transfers.transfers if t.state in {TransferState.WAITING, TransferState.RUNNING}
        )
        self.library.set_downloading(t.job.name for t in active if not t.is_push)

    def _get_hub(self) -> Hub:
        """Return the hub; its modules are imported on first use."""
        if self._hub is None:
            from mlxk_tui.ops.hub.hub import Hub

            self._hub = Hub.from_environment(os.environ)
        return self._hub

    async def on_unmount(self) -> None:
        """Stop server, transfers, answers and tasks; transfers resume at the next start."""
        await self.server.close()  # first: it uses the engine of the chats
        await asyncio.gather(self.transfers.close(), self.chats.close(), self.tasks.close())

    def _use_keymap(self) -> None:
        keymap = self.context.settings.keymap
        if not keymap:
            return
        from mlxk_tui.ui.shell.keys import known_ids

        unknown = sorted(set(keymap) - known_ids(type(self)))
        self.set_keymap({name: keys for name, keys in keymap.items() if name not in unknown})
        if unknown:
            names = ", ".join(printable(name) for name in unknown)
            text = f"{self._loaded.path}: unknown key binding {names}. docs/keys.md lists all ids."
            self.notify(text, title="Settings", severity="warning", timeout=15, markup=False)

    def _remember_theme(self, theme: Theme) -> None:
        self._remember_setting("theme", theme.name)

    def _remember_setting(self, name: str, value: str | float) -> None:
        if not self._remember:
            return
        try:
            save(self._loaded.path, name, value)
        except ConfigError as error:
            self.notify(str(error), title="Settings", severity="warning", timeout=12, markup=False)

    def _sweep(self) -> None:
        sweep(self)

    # -- global actions ------------------------------------------------------------------------------

    def action_command_palette(self) -> None:
        """Open the palette, unless it or a dialog is on the stack, maybe below another screen."""
        if self.use_command_palette and not any(screen.is_modal for screen in self.screen_stack):
            from mlxk_tui.palette import Palette

            self.push_screen(Palette())

    def action_pane(self, pane_id: str) -> None:
        while len(self.screen_stack) > 1:
            self.pop_screen()
        self.switch_mode(pane_id)

    def on_chat_requested(self, event: ChatRequested) -> None:
        from mlxk_tui.ui.chat.pane import ChatPane

        self.action_pane("chat")
        if isinstance(pane := self.screen, ChatPane):
            pane.call_after_refresh(pane.sessions.start_chat, event.model)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable the global letter and digit keys in dialogs, which use them."""
        del parameters
        own = action in {"pane", "keys", "leave_app"}
        return not (own and self._running and self.screen.is_modal)

    def action_keys(self) -> None:
        from mlxk_tui.ui.shell.keys import help_sections
        from mlxk_tui.ui.widgets.dialogs import HelpScreen

        self.push_screen(HelpScreen("Keys", help_sections(self)))

    async def action_interrupt(self) -> None:
        """Copy the selected text; without a selection, stop the latest task or show how to quit."""
        if (selected := self.screen.get_selected_text()) is not None:
            self.copy_to_clipboard(selected)
        elif not stop_latest_task(self, self.tasks):
            self.notify("Press q to quit.", markup=False, timeout=3)

    def action_leave_app(self) -> None:
        """Quit; ask first if something would be stopped or lost.

        Otherwise it exits at once: the next key in the queue could start something.
        """
        if any(worker.group == "quit" and not worker.is_finished for worker in self.workers):
            return
        answers, unsent = len(self.chats.answers), self.chats.unsent()
        if self.tasks.running or self.transfers.interruptible or self.server.live or answers or unsent:
            self.run_worker(self._confirm_quit(answers, unsent), group="quit", exit_on_error=False)
        else:
            self.exit()

    async def _confirm_quit(self, answers: int, unsent: int) -> None:
        from mlxk_tui.ui.shell.quit_prompt import quit_prompt
        from mlxk_tui.ui.widgets.dialogs import ConfirmDialog

        title, text = quit_prompt(
            [task.title for task in self.tasks.running],
            len(self.transfers.interruptible),
            len(self.server.live),
            answers=answers,
            unsent=unsent,
            temporary=self._temporary,
        )
        if await self.push_screen_wait(ConfirmDialog(title, text, proceed="Quit", cancel="Stay")):
            self.exit()
