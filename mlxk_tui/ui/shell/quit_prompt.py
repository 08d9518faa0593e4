"""The question before the app quits while something runs or is unsent."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.core.text import plural


def quit_prompt(
    tasks: Sequence[str],
    transfers: int,
    requests: int = 0,
    *,
    answers: int = 0,
    unsent: int = 0,
    temporary: bool = False,
) -> tuple[str, str]:
    """Return title and text of the question: first what is lost, then what is saved or resumes.

    Args:
        tasks: titles of the tasks that would be stopped.
        transfers: number of transfers that would be interrupted.
        requests: number of server requests that would be aborted.
        answers: number of chat answers that would be stopped.
        unsent: number of drafts that were not sent.
        temporary: whether all data is deleted at the end, as in the demo.
    """
    running, lines = [], []
    if tasks:
        running.append(plural(len(tasks), "task"))
        lines.append(f"{', '.join(tasks)} will be stopped.")
    if unsent:
        lines.append(
            "Your unsent draft will be lost." if unsent == 1 else f"{unsent} unsent drafts will be lost."
        )
    if requests:
        running.append(plural(requests, "request"))
        lines.append(f"{plural(requests, 'server request')} will be aborted.")
    if answers:
        running.append(plural(answers, "answer"))
        what = "The answer in progress" if answers == 1 else f"{answers} answers in progress"
        lines.append(
            f"{what} will be deleted with the demo."
            if temporary
            else f"{what} will be stopped. The text so far is saved."
        )
    if transfers:
        running.append(plural(transfers, "transfer"))
        what = "The transfer" if transfers == 1 else f"{transfers} transfers"
        resumes = f"{what} {'resumes' if transfers == 1 else 'resume'} at the next start."
        lines.append(f"{what} will be deleted with the demo." if temporary else resumes)
    if running:
        title = f"Quit with {' and '.join(running)} running?"
    else:
        title = "Quit with an unsent draft?" if unsent == 1 else f"Quit with {unsent} unsent drafts?"
    return title, " ".join(lines)
