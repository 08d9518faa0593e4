"""A killed process loses at most the last second and leaves no locks behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

from mlxk_tui.chats.model import MessageState
from mlxk_tui.chats.store import ChatStore

WRITER = """
import asyncio, sys, time
from pathlib import Path
from mlxk_tui.chats.model import MessageState, Role
from mlxk_tui.chats.store import ChatStore

async def main():
    store = await ChatStore.open(Path(sys.argv[1]))
    session = await store.create_session(title="long answer")
    answer = await store.add_message(session.id, Role.ASSISTANT, state=MessageState.STREAMING)
    print(answer.id, flush=True)
    while True:
        store.update_streaming(answer.id, content=f"{time.monotonic()!r} ")
        await asyncio.sleep(0.005)

asyncio.run(main())
"""


async def test_killed_process_loses_less_than_a_second(path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, str(path), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        answer = int(await child.stdout.readline())
        async with await ChatStore.open(path) as store:
            while (await store.message(answer)).content.count(" ") < 100:  # noqa: ASYNC110 - reads a file
                await asyncio.sleep(0)
            # The process is alive, so its answer is not changed by readers.
            async with await ChatStore.open(path) as other:
                (seen,) = await other.messages(answer >> 24)
                assert seen.state is MessageState.STREAMING
            killed = time.monotonic()
            os.kill(child.pid, signal.SIGKILL)
            await child.wait()
            # A store that is open sees the answer stop.
            (stopped,) = await store.messages(answer >> 24)
            assert stopped.state is MessageState.STOPPED
        async with await ChatStore.open(path) as store:
            (stopped,) = await store.messages(answer >> 24)
            assert stopped.state is MessageState.STOPPED
            stamps = [float(word) for word in stopped.content.split()]
            assert killed - stamps[-1] < 1
            assert stamps == sorted(stamps)
            assert len(await store.list_sessions(stopped.content.split(".")[0])) == 1
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert left_in(path.parent) == ["chats.db", "chats.db.lock"]


def left_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())
