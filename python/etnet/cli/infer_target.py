"""Which folder `etnet infer` writes to: a new one, one that was named, or one with results to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from etnet.cli.folder_options import FolderChoice

RUNS = Path("runs/infer")


def earlier_results(source: Path, output_folder: Path | None, choice: FolderChoice) -> Path | None:
    """The folder with results to go on with, if any; one that must not be touched is refused.

    Args:
        source: What is segmented, as the user wrote it.
        output_folder: Where results were asked for; None where nothing was said.
        choice: What is to become of earlier results.

    Raises:
        UsageError: The folder holds results of another run, or files of somebody else.
    """
    from etnet.errors import UsageError
    from etnet.inference.journal import journal_name
    from etnet.output import check_output_folder

    folder = output_folder or (_newest_results(source) if choice.keeps else None)
    if folder is None:
        return None
    has_own, has_whole = ((folder / journal_name(part)).exists() for part in (choice.part, None))
    has_parts = any(folder.glob("journal.part-*.jsonl"))
    if choice.keeps and (has_own or has_whole or has_parts):
        return folder
    if choice.part is not None and has_parts and not has_own and not has_whole:
        return folder
    if not choice.overwrite and (has_own or has_whole or has_parts):
        raise UsageError(
            f"{folder}: holds the results of an earlier run; go on with it by --continue, remove its results by "
            "--overwrite, or choose another --output"
        )
    check_output_folder(folder, overwrite=choice.overwrite)
    return folder


def _newest_results(source: Path) -> Path | None:
    """The newest numbered folder with results of this input; another input of the same name has its own."""
    from etnet.inference.journal import journal_name, journal_source, source_key
    from etnet.output import numbered_folders

    wanted = source_key(source)
    found = numbered_folders(RUNS, _results_name(source))
    return next((folder for folder in found if journal_source(folder / journal_name()) == wanted), None)


def create_target(source: Path, folder: Path | None) -> Path:
    """The folder that was chosen or found, made where it is missing; None takes the next free number."""
    from etnet.output import create_output_folder

    return create_output_folder(folder, parent=RUNS, name=_results_name(source))


def _results_name(source: Path) -> str:
    from etnet.inference.inputs import fixed_folder, output_stem

    if source.is_file():
        return source.stem if source.suffix.lower() == ".csv" else output_stem(source.name)
    return fixed_folder(source).resolve().name or "images"
