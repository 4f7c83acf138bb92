from __future__ import annotations

import importlib
import subprocess
import sys
from importlib import metadata

import pytest

import etnet

EXPECTED = {
    "etnet": [
        "ETNet",
        "EdgeSupervisedLoss",
        "EtnetError",
        "LovaszSoftmax",
        "Predictor",
        "__version__",
        "open_predictor",
    ],
    "etnet.losses": ["EdgeSupervisedLoss", "LossTerms", "LovaszSoftmax"],
}


@pytest.mark.parametrize("module", EXPECTED)
def test_exported_names_are_these_and_exist(module):
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == sorted(EXPECTED[module])
    assert all(getattr(loaded, name) is not None for name in loaded.__all__)


def test_every_lazy_name_is_exported_and_the_other_way_round():
    assert set(etnet._HOME) | {"__version__"} == set(etnet.__all__) == set(dir(etnet))


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'etnet' has no attribute 'Unet'"):
        etnet.Unet  # noqa: B018


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, etnet; print(sorted({'torch', 'cv2', 'numpy', 'pydantic'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert result.stdout.strip() == "[]"


def test_version_is_that_of_the_installation():
    assert etnet.__version__ == metadata.version("etnet")
