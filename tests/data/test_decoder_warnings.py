from __future__ import annotations

import logging
import warnings

import pytest

from etnet.data.decoder_warnings import silenced


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
