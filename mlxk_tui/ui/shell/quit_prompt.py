"""What is said before the program ends while something runs."""

from __future__ import annotations

from collections.abc import Sequence

from mlxk_tui.ops.core.text import plural


def leaving(
    tasks: Sequence[str],
    transfers: int,
    requests: int = 0,
    *,
    answers: int = 0,
    unsent: int = 0,
    temporary: bool = False,
) -> tuple[str, str]:
    """Return title and text of the question; what is lost first, then what is kept or goes on by itself.

    Args:
        tasks: titles of the tasks that would be stopped.
        transfers: how many transfers would be interrupted.
        requests: how many requests of other programs would be cut.
        answers: how many answers of chats would be stopped.
        unsent: how many questions were typed and not sent.
        temporary: whether everything is removed at the end, so that nothing is kept or goes on next time.
    """
    counted, said = [], []
    if tasks:
        counted.append(plural(len(tasks), "task"))
        verb = "is" if len(tasks) == 1 else "are"
        said.append(f"{', '.join(tasks)} {verb} not finished and will be stopped.")
    if unsent:
        what = "A question that was typed is" if unsent == 1 else f"{unsent} questions that were typed are"
        said.append(f"{what} not sent yet and will be lost.")
    if requests:
        counted.append(plural(requests, "request"))
        said.append("What the server is answering will be cut.")
    if answers:
        counted.append(plural(answers, "answer"))
        said.append(_stopped(answers, temporary))
    if transfers:
        counted.append(plural(transfers, "transfer"))
        goes = "goes on where it" if transfers == 1 else "go on where they"
        who = (
            ("The transfer" if transfers == 1 else "The transfers")
            if said
            else "It"
            if transfers == 1
            else "They"
        )
        removed = f"{who} {'goes' if transfers == 1 else 'go'} with the demo, which is removed at its end."
        said.append(removed if temporary else f"{who} {goes} stopped next time.")
    if not counted:
        return f"Quit before the {'question is' if unsent == 1 else 'questions are'} sent?", " ".join(said)
    verb = "runs" if len(tasks) + transfers + requests + answers == 1 else "run"
    return f"Quit while {' and '.join(counted)} {verb}?", " ".join(said)


def _stopped(answers: int, temporary: bool) -> str:
    """Return what becomes of answers that are being written."""
    if answers == 1:
        what, goes = "The answer that is being written", "goes"
    else:
        what, goes = "The answers that are being written", "go"
    if temporary:
        return f"{what} will be stopped and {goes} with the demo, which is removed at its end."
    return f"{what} will be stopped; what has come is kept."
