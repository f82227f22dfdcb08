"""The average of the weights: against the recurrence written out, and what is validated and saved."""

from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from medpixcl.training.averages import AveragedWeights
from tests.tiny import checkpoint, pretrain, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")


def test_recurrence() -> None:
    """From the weights at the start of the training, not from those of the construction."""
    network = torch.nn.Linear(1, 1, bias=False)
    average = AveragedWeights(network, momentum=0.25)
    engine = Engine(lambda engine, value: torch.nn.init.constant_(network.weight, value))
    engine.add_event_handler(Events.STARTED, lambda: torch.nn.init.constant_(network.weight, 8.0))
    average.attach(engine)
    engine.run([4.0, 0.0], max_epochs=1)
    assert average.network.weight.item() == 0.75 * (0.75 * 8.0 + 0.25 * 4.0) + 0.25 * 0.0
    assert network.weight.item() == 0.0
    other = AveragedWeights(torch.nn.Linear(1, 1, bias=False), momentum=0.25)
    other.load_state_dict(average.state_dict())
    assert torch.equal(other.network.weight, average.network.weight)


def test_off() -> None:
    network = torch.nn.Linear(1, 1)
    average = AveragedWeights(network)
    average.attach(Engine(lambda engine, value: None))
    average.load_state_dict({})
    assert average.network is network
    assert average.state_dict() == {}


@pytest.mark.parametrize("momentum", [-0.1, 1.0, 3.0])
def test_momentum_is_a_share(momentum: float) -> None:
    with pytest.raises(ValueError, match=rf"^ema_momentum is {momentum}; expected 0 \(off\) or a share"):
        AveragedWeights(torch.nn.Linear(1, 1), momentum)


def test_average_is_validated_and_saved(tmp_path: Path) -> None:
    workflow = pretrain(write_manifest(tmp_path), tmp_path / "run", ema_momentum=0.1, max_epochs=1)
    state = checkpoint(tmp_path / "run")
    saved = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    assert all(torch.equal(value, state["average"][f"network.{name}"]) for name, value in saved.items())
    assert any(not torch.equal(value, state["network"][f"network.{name}"]) for name, value in saved.items())
    evaluator = workflow.parser.get_parsed_content("validate::evaluator")
    assert evaluator.network is workflow.parser.get_parsed_content("average").network
