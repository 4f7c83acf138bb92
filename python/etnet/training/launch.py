"""What a launcher such as `torchrun` tells its processes by their environment; imports without torch."""

from __future__ import annotations

import functools
import json
import os
import socket
import time
from datetime import timedelta
from pathlib import Path

SECONDS_TO_REACH_OTHERS = 5
SECONDS_FOR_THE_TELLER = 2


def has_others() -> bool:
    """Whether this process is one of several that work together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ


def restarts() -> int:
    """How often `torchrun` has started this command again because one of its processes failed (`--max-restarts`)."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def launch_name() -> str | None:
    """What all starts by one `torchrun` have in common, its restarts included, and no other's; None without it.

    The id of its rendezvous, which `--standalone` makes up; without one (`none`), the launcher's process.
    """
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return f"{socket.gethostname()}/{os.getppid()}" if name == "none" else name


@functools.cache
def is_first_to_tell() -> bool:
    """Whether this process is the one that says why all end: the first of them that asks; always when it is alone.

    The processes ask the store through which they met. Where it cannot be reached, the first of each machine tells.
    """
    if not has_others():
        return True
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    start = f"etnet/told/{restarts()}/{os.environ['WORLD_SIZE']}"
    try:
        store = TCPStore(
            os.environ["MASTER_ADDR"],
            int(os.environ["MASTER_PORT"]),
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=SECONDS_TO_REACH_OTHERS),
        )
        return bool(store.add(start, 1) == 1)
    except (KeyError, RuntimeError):
        return os.environ.get("LOCAL_RANK", "0") == "0"


def leave_the_telling_to_another(sentence: str, *, exit_code: int) -> None:
    """Return in the process that is to tell why all end; the others end here, and say nothing.

    `torchrun` is given the sentence for its own summary of failures.

    Args:
        sentence: What went wrong.
        exit_code: That of this process, where another tells.
    """
    if not has_others():
        return
    if not is_first_to_tell():
        # The launcher ends all when the first ends: not before the sentence is out.
        time.sleep(SECONDS_FOR_THE_TELLER)
        raise SystemExit(exit_code)
    if summary := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        extra = {"py_callstack": sentence, "timestamp": str(int(time.time()))}
        Path(summary).write_text(json.dumps({"message": {"message": sentence, "extraInfo": extra}}), encoding="utf-8")
