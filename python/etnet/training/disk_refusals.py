"""What a run does when the disk refuses a file that it writes on the way: go on, say so once, try again later."""

from __future__ import annotations

from collections.abc import Callable

from etnet.errors import DiskFault


class DiskRefusals:
    """Lets a run go on without a file, and says so once for every kind of file.

    Args:
        tell: Takes the sentences.
    """

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._refused: set[str] = set()

    def attempt(self, kind: str, write: Callable[[], None], *, again: bool = True) -> bool:
        """Write something that the run can do without for now; whether it was written.

        Args:
            kind: What is written, for instance `metrics`.
            write: Writes it, whole or not at all.
            again: Whether the caller tries again later; otherwise the run has to do without it.
        """
        try:
            write()
        except DiskFault as error:
            if kind not in self._refused:
                self._refused.add(kind)
                # What the sentence advises, such as another output folder, is not for a run that is under way.
                what = str(error).rpartition(";")[0]
                how = "with what was there before and tries again later" if again else "without it"
                self.tell(f"Warning: {what}; the run goes on {how}")
            return False
        return True
