"""Themes, the color tokens that all stylesheets use, and where the stylesheets are."""

from __future__ import annotations

from pathlib import Path

from textual.color import Color, ColorParseError
from textual.theme import Theme

DARK = Theme(
    name="mlxk-dark",
    # All values are xterm 256 colors: Terminal.app and tmux without true color show the same.
    primary="#87afff",
    secondary="#87afff",
    accent="#87afff",
    success="#87d787",
    warning="#d7af5f",
    error="#ff8787",
    foreground="#d0d0d0",
    background="#121212",
    surface="#121212",
    panel="#1c1c1c",
    boost="#1c1c1c",
    dark=True,
    text_alpha=1.0,
    variables={
        "strong": "#eeeeee",
        "muted": "#949494",
        "faint": "#767676",
        "line": "#3a3a3a",
        "cursor": "#303030",
        "cursor-blurred": "#262626",
        "raised": "#1c1c1c",
    },
)
LIGHT = Theme(
    name="mlxk-light",
    primary="#005faf",
    secondary="#005faf",
    accent="#005faf",
    success="#008700",
    warning="#af5f00",
    error="#af0000",
    foreground="#303030",
    background="#ffffff",
    surface="#ffffff",
    panel="#eeeeee",
    boost="#eeeeee",
    dark=False,
    text_alpha=1.0,
    variables={
        "strong": "#121212",
        "muted": "#626262",
        "faint": "#767676",
        "line": "#c6c6c6",
        "cursor": "#dadada",
        "cursor-blurred": "#e4e4e4",
        "raised": "#eeeeee",
    },
)
DEFAULT_THEME = DARK.name
"""The theme before the user picks one."""


def tokens(theme: Theme, generated: dict[str, str]) -> dict[str, str]:
    """Return this app's color tokens for any theme, its own or one of Textual's.

    Args:
        theme: the current theme.
        generated: the variables that Textual generated from it.

    Returns:
        `strong`, `muted`, `faint`, `line`, `cursor`, `cursor-blurred`, `raised`, `good`,
        `attention` and `bad`, and matching values for Textual's own scrollbar and footer variables.
    """
    if theme.ansi:
        own = {
            "strong": "ansi_default",
            "muted": "ansi_bright_black",
            "faint": "ansi_bright_black",
            "line": "ansi_bright_black",
            "cursor": "ansi_default",
            "cursor-blurred": "ansi_default",
            "raised": "ansi_default",
        }
    else:
        front, back = generated["foreground"], generated["background"]
        own = {
            "strong": front,
            "muted": _mix(front, back, 0.35),
            "faint": _mix(front, back, 0.5),
            "line": _mix(front, back, 0.8),
            "cursor": _mix(front, back, 0.84),
            "cursor-blurred": _mix(front, back, 0.9),
            "raised": _mix(front, back, 0.94),
        }
    own.update({name: value for name, value in theme.variables.items() if name in own})
    own.update(good=generated["success"], attention=generated["warning"], bad=generated["error"])
    quiet = "ansi_default" if theme.ansi else generated["background"]
    return {
        **own,
        "scrollbar": own["line"],
        "scrollbar-hover": own["faint"],
        "scrollbar-active": own["faint"],
        "scrollbar-background": quiet,
        "scrollbar-background-hover": quiet,
        "scrollbar-background-active": quiet,
        "scrollbar-corner-color": quiet,
        "footer-background": quiet,
        "footer-foreground": own["muted"],
        "footer-description-foreground": own["muted"],
        "footer-key-foreground": generated["accent"],
        "border": generated["accent"],
        "border-blurred": own["line"],
        "block-cursor-background": own["cursor"],
        "block-cursor-foreground": own["strong"],
        "block-cursor-blurred-background": own["cursor-blurred"],
        "block-cursor-blurred-foreground": own["strong"],
        "block-hover-background": own["cursor-blurred"],
    }


def _mix(front: str, back: str, share: float) -> str:
    try:
        return Color.parse(front).blend(Color.parse(back), share).hex
    except ColorParseError:
        return front


def stylesheets() -> list[str | Path]:
    """Return the stylesheets: those of the installed package, else the checkout's `styles/`."""
    packaged = Path(__file__).parents[2] / "styles"
    folder = packaged if packaged.is_dir() else Path(__file__).parents[3] / "styles"
    return sorted(folder.glob("*.tcss"))
