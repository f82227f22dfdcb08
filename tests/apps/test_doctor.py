"""What ``doctor`` says of this machine."""

import importlib.metadata
import platform

import torch

from medpixcl._cpus import available_cpus
from medpixcl.apps.doctor import OPTIONAL, REQUIRED, diagnose, version_of
from medpixcl.networks.device_precision import device_precision


def test_versions() -> None:
    rows = {name: (found, note) for name, found, note in diagnose()}
    assert rows["python"] == (platform.python_version(), "")
    for name in REQUIRED:
        assert rows[name] == (importlib.metadata.version(name), "")
    for name, hint in OPTIONAL.items():
        installed = version_of(name)
        assert rows[name] == ((installed, "") if installed else ("missing", hint))
    assert rows["CPU threads of torch"][0] == str(torch.get_num_threads())
    assert rows["CPU threads of torch"][1].startswith(f"of {available_cpus()} CPUs that this process may use")
    chosen = device_precision(torch.device("cpu"))
    assert rows["precision on cpu"] == ("bfloat16" if chosen.bfloat16 else "float32", chosen.reason)
    assert (rows["GPU"][0] == "none") == (not torch.cuda.is_available())


def test_version_of_what_is_not_there() -> None:
    assert version_of("no-such-distribution") is None
