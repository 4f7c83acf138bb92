from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from etnet.data.decoder_warnings import own_warning_filters, silenced


def test_neither_warnings_nor_messages_come_out_of_the_block(caplog):
    for name in ("decoder", "decoder.jpeg"):
        logging.getLogger(name)
    with silenced("decoder"):
        warnings.warn("quotes the file", UserWarning, stacklevel=1)
        logging.getLogger("decoder").error("quotes the file")
        logging.getLogger("decoder.jpeg").error("quotes the file")
        logging.getLogger("decoders").error("another library")
    assert [record.message for record in caplog.records] == ["another library"]


def test_afterwards_both_are_heard_again(caplog):
    with pytest.raises(KeyError), silenced("decoder"):
        raise KeyError
    logging.getLogger("decoder").error("heard")
    assert "heard" in caplog.text
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("heard", UserWarning, stacklevel=1)


def in_threads(*jobs) -> None:
    """All at once; what one raises is raised here."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result(timeout=30)


def test_several_threads_are_inside_at_once_and_none_is_heard(caplog):
    together = threading.Barrier(3, timeout=20)

    def decode() -> None:
        with silenced("decoder"):
            together.wait()
            for _ in range(100):
                warnings.warn("quotes the file", UserWarning, stacklevel=1)
                logging.getLogger("decoder.jpeg").error("quotes the file")

    logging.getLogger("decoder.jpeg")
    in_threads(decode, decode, decode)
    assert not caplog.records


def test_one_that_leaves_does_not_end_the_silence_of_another(caplog):
    inside, left = threading.Event(), threading.Event()

    def first() -> None:
        with silenced("decoder"):
            inside.set()
            assert left.wait(20)
            warnings.warn("quotes the file", UserWarning, stacklevel=1)
            logging.getLogger("decoder").error("quotes the file")

    def second() -> None:
        assert inside.wait(20)
        with silenced("decoder"):
            pass
        left.set()

    logging.getLogger("decoder")
    in_threads(first, second)
    assert not caplog.records


def test_threads_outside_are_heard_meanwhile(caplog):
    inside, heard = threading.Event(), threading.Event()

    def decode() -> None:
        with silenced("decoder"):
            inside.set()
            assert heard.wait(20)

    def other() -> None:
        assert inside.wait(20)
        logging.getLogger("decoder").error("of another thread")
        try:
            with pytest.raises(UserWarning, match="of another thread"):
                warnings.warn("of another thread", UserWarning, stacklevel=1)
        finally:
            heard.set()

    logging.getLogger("decoder")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        in_threads(decode, other)
    assert [record.message for record in caplog.records] == ["of another thread"]


def test_the_last_one_restores_filters_and_loggers():
    logger, before = logging.getLogger("decoder"), list(warnings.filters)
    held = list(logger.filters)

    def decode() -> None:
        for _ in range(200):
            with silenced("decoder"), silenced("decoder"), own_warning_filters():
                warnings.simplefilter("ignore", UserWarning)

    in_threads(*[decode] * 4)
    assert list(warnings.filters) == before
    assert logger.filters == held
    assert not logger.disabled


def test_filters_of_one_thread_take_none_from_a_silent_one():
    """Pictures are opened with filters of their own while another thread decodes a medical file."""
    end = threading.Event()

    def open_pictures() -> None:
        try:
            for _ in range(500):
                with own_warning_filters():
                    warnings.simplefilter("ignore", UserWarning)
        finally:
            end.set()

    def decode() -> None:
        while not end.is_set():
            with silenced("decoder"):
                warnings.warn("quotes the file", RuntimeWarning, stacklevel=1)

    in_threads(open_pictures, decode, decode)
