"""A few damaged inputs for every reader; ``make fuzz`` goes on for an hour."""

import pytest

from tests.fuzz.judging import Inputs, fault_of
from tests.fuzz.readers import COMMANDS, READERS, Reader

SEED = 17
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(tmp_path_factory.mktemp("fuzz"), SEED)


@pytest.mark.parametrize("reader", READERS, ids=lambda one: one.name)
def test_damaged_inputs(reader: Reader, inputs: Inputs) -> None:
    check(reader, 4, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("reader", COMMANDS, ids=lambda one: one.name)
def test_damaged_inputs_of_commands(reader: Reader, inputs: Inputs) -> None:
    check(reader, 4, inputs)


def check(reader: Reader, number: int, inputs: Inputs) -> None:
    """The good one is taken; of the damaged ones none ends in a traceback, a hang, or a refusal without a name."""
    reader.call(inputs.placed(reader, inputs.good(reader).read_bytes()))
    faults = {case: fault_of(reader, inputs.case(reader, case)) for case in range(number)}
    assert not {case: fault for case, fault in faults.items() if fault is not None}
