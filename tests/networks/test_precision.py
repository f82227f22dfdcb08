"""Which precision a device gets, and that a resumed training keeps it or says that it changed."""

import copy
import logging
import os
import subprocess
import sys

import pytest
import torch

from medpixcl.networks import MixedPrecision, device_precision as module
from medpixcl.networks.device_precision import device_precision
from medpixcl.networks.precision import Precision
from tests.tiny import ROOT

CPU = torch.device("cpu")
FASTER, ALIKE, SLOWER = 2.0, 1.0, 0.2


@pytest.fixture
def measured(monkeypatch):
    """A CPU on which float32 takes so many times as long as bfloat16."""

    def pretend(ratio):
        monkeypatch.setattr(module, "_reported", lambda: True)
        monkeypatch.setattr(module, "_measured", lambda: {torch.float32: ratio, torch.bfloat16: 1.0})
        device_precision.cache_clear()

    yield pretend
    device_precision.cache_clear()


def network():
    return torch.nn.Conv2d(1, 2, 3, padding=1)


def image():
    return torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def is_bfloat16(precision):
    with precision.autocast(CPU):
        return network()(image()).dtype == torch.bfloat16


def resumed(setting, begun):
    precision = Precision(setting)
    precision.load_state_dict({"bfloat16": begun})
    return precision


class TestDevice:
    @pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason="no x86 with AVX2")
    def test_cpu_with_avx2_alone_takes_float32(self):
        """Any x86 pretends to be one by these variables; it is asked, not measured."""
        emulated = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
        code = "import torch; from medpixcl.networks.device_precision import device_precision as chosen; "
        code += "print(chosen(torch.device('cpu')))"
        environment = os.environ | emulated | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout == "float32 (torch reports no bfloat16 convolutions for this CPU, AVX2)\n"

    @pytest.mark.parametrize(("ratio", "expected"), [(FASTER, True), (1.1, False), (ALIKE, False), (SLOWER, False)])
    def test_bfloat16_wants_a_clear_margin(self, measured, ratio, expected):
        measured(ratio)
        assert device_precision(CPU).bfloat16 is expected
        assert f"{1e3 * ratio:.1f} ms in float32, 1000.0 ms in bfloat16" in device_precision(CPU).reason

    def test_measurement_draws_no_random_numbers_and_works_without_gradients(self):
        state = torch.get_rng_state()
        with torch.inference_mode():
            seconds = module._measured()
        assert torch.equal(torch.get_rng_state(), state)
        assert 0 < min(seconds.values()) <= max(seconds.values()) < float("inf")

    def test_other_devices_take_float32(self):
        assert not device_precision(torch.device("mps")).bfloat16
        assert device_precision(torch.device("cuda")).bfloat16 is (
            torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        )

    def test_said_once(self, measured, caplog):
        measured(FASTER)
        with caplog.at_level(logging.INFO, logger="medpixcl"):
            for _ in range(2):
                MixedPrecision(network())(image())
        expected = "convolutions on cpu in bfloat16 (a block of convolutions takes 2000.0 ms in float32, 1000.0 ms in"
        assert [record.getMessage()[: len(expected)] for record in caplog.records] == [expected]


class TestSetting:
    def test_auto_is_one_of_both_to_the_last_bit(self):
        net = network()
        found = MixedPrecision(net)(image())
        expected = MixedPrecision(net, True)(image()) if device_precision(CPU).bfloat16 else net(image())
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)

    @pytest.mark.parametrize(("setting", "expected"), [("auto", True), (True, True), (False, False)])
    def test_follows_the_device_or_the_setting(self, measured, setting, expected):
        measured(FASTER)
        assert is_bfloat16(Precision(setting)) is expected
        measured(SLOWER)
        assert is_bfloat16(Precision(setting)) is (setting is True)

    def test_float32_leaves_an_outer_autocast_alone(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert MixedPrecision(network(), False)(image()).dtype == torch.bfloat16

    @pytest.mark.parametrize("wrong", ["true", "float32"])
    def test_refuses_other_words(self, wrong):
        with pytest.raises(ValueError, match=f"bfloat16 is {wrong!r}; expected true, false or 'auto'"):
            Precision(wrong)


class TestResumed:
    @pytest.mark.parametrize(
        ("setting", "begun", "ratio", "expected"),
        [
            ("auto", False, FASTER, False),
            ("auto", True, FASTER, True),
            ("auto", True, ALIKE, True),
            ("auto", False, SLOWER, False),
            (True, True, SLOWER, True),
        ],
    )
    def test_keeps_what_it_began_with(self, measured, caplog, setting, begun, ratio, expected):
        measured(ratio)
        with caplog.at_level(logging.WARNING, logger="medpixcl"):
            assert is_bfloat16(resumed(setting, begun)) is expected
        assert not caplog.records

    @pytest.mark.parametrize(
        ("setting", "begun", "text"),
        [
            ("auto", True, "began in bfloat16 and goes on in float32: a block of convolutions takes 200.0 ms in"),
            (True, False, "began in float32 and goes on in bfloat16: bfloat16 is set to true"),
            (False, True, "began in bfloat16 and goes on in float32: bfloat16 is set to false"),
        ],
    )
    def test_says_once_that_it_changes(self, measured, caplog, setting, begun, text):
        measured(SLOWER)
        precision = resumed(setting, begun)
        with caplog.at_level(logging.WARNING, logger="medpixcl"):
            assert [is_bfloat16(precision) for _ in range(2)] == [not begun] * 2
        assert len(caplog.records) == 1
        assert text in caplog.records[0].getMessage()
        assert precision.state_dict() == {"bfloat16": not begun}

    def test_state_before_the_first_images(self):
        assert Precision().state_dict() == {}
        assert resumed("auto", True).state_dict() == {"bfloat16": True}

    def test_averaged_weights_are_validated_in_the_same(self):
        """A copy made before the checkpoint is read."""
        net = MixedPrecision(network())
        copied = copy.deepcopy(net)
        net.precision.load_state_dict({"bfloat16": False})
        assert copied.precision.state_dict() == {"bfloat16": False}
        assert copied.network is not net.network
