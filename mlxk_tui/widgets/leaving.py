"""What is said before the program ends while something runs."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.format import plural


def leaving(
    tasks: Sequence[str], transfers: int, requests: int = 0, *, temporary: bool = False
) -> tuple[str, str]:
    """Return title and text of the question; what is lost first, then what goes on by itself.

    Args:
        tasks: titles of the tasks that would be stopped.
        transfers: how many transfers would be interrupted.
        requests: how many requests of other programs would be cut.
        temporary: whether everything is removed at the end, so that nothing goes on next time.
    """
    counted, said = [], []
    if tasks:
        counted.append(plural(len(tasks), "task"))
        verb = "is" if len(tasks) == 1 else "are"
        said.append(f"{', '.join(tasks)} {verb} not finished and will be stopped.")
    if requests:
        counted.append(plural(requests, "request"))
        said.append("What the server is answering will be cut.")
    if transfers:
        counted.append(plural(transfers, "transfer"))
        goes = "goes on where it" if transfers == 1 else "go on where they"
        who = (
            ("The transfer" if transfers == 1 else "The transfers")
            if tasks or requests
            else "It"
            if transfers == 1
            else "They"
        )
        removed = f"{who} {'goes' if transfers == 1 else 'go'} with the demo, which is removed at its end."
        said.append(removed if temporary else f"{who} {goes} stopped next time.")
    verb = "runs" if len(tasks) + transfers + requests == 1 else "run"
    return f"Quit while {' and '.join(counted)} {verb}?", " ".join(said)
