"""The command line run inside the test's own process, and what every refusal of it has to be."""

from __future__ import annotations

from click.testing import CliRunner, Result

from etnet.cli.main import main


def run_etnet(*words: object) -> Result:
    """Runs `etnet WORDS`; anything else than an exit would be a traceback on the user's screen."""
    result = CliRunner().invoke(main, list(map(str, words)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def one_sentence(result: Result, code: int, *words: str) -> None:
    """The command ended with a code and a single error that holds all of the words."""
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    for word in words:
        assert word in line
    assert "Traceback" not in result.output
