"""The reader behind `make cuda-check`."""

from __future__ import annotations

from helpers.ptxas import main, read_spills

LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4sortPf' for 'sm_80'
ptxas info    : Function properties for _Z4sortPf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers
ptxas info    : Compiling entry function '_Z4scanPf' for 'sm_90'
ptxas info    : Function properties for _Z4scanPf
    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
"""


def test_spilled_bytes_are_found_for_each_kernel():
    assert read_spills(LOG) == {("_Z4sortPf", "sm_80"): 0, ("_Z4scanPf", "sm_90"): 20}


def test_the_check_fails_for_a_spill_and_for_a_log_without_kernels(tmp_path, monkeypatch, capsys):
    log = tmp_path / "ptxas.log"
    monkeypatch.setattr("sys.argv", ["ptxas.py", str(log)])
    for content, status, message in (
        (LOG, 1, "_Z4scanPf for sm_90 spills 20 bytes"),
        ("[1/1] Linking", 1, "ptxas reported no kernel"),
        (LOG[: LOG.index("ptxas info    : Compiling entry function '_Z4scan")], 0, ""),
    ):
        log.write_text(content)
        assert main() == status
        assert message in capsys.readouterr().err
