"""Mix-up pretraining in MONAI's engines: batches, metrics, pictures."""

from io import BytesIO

import numpy as np
import pytest
import torch
from ignite.metrics.regression import R2Score
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.losses.mixup import MixUpObjective
from medpixcl.networks import MixUpNet
from medpixcl.training.leak_probe import LeakProbeR2
from medpixcl.training.mixup import (
    ErrorAgainstLinear,
    MixUpPictures,
    MixUpPrepareBatch,
    mixtures_and_opacity,
    opacity_pairs,
    pixelwise_linear_error,
)

SHAPES = [(8, 8), (4, 6, 8)]


def mixed_batches(shape, number=2, size=4):
    """Batches as the transform collates them: white noise of one variance, mixed."""
    random = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(number):
        target, source = torch.randn(2, size, 1, *shape, generator=random)
        opacity = torch.rand(size, generator=random)
        share = opacity[(..., *[None] * (target.ndim - 1))]
        image = MetaTensor(share * target + (1 - share) * source)
        parts = {
            "target": target,
            "source": source,
            "opacity": opacity[:, None],
            "opacity_map": torch.ones_like(target),
        }
        batches.append({"image": image} | {f"image_{name}": part for name, part in parts.items()})
    return batches


class Known(torch.nn.Module):
    """Gives back what it is told: half the mixture as target, its mean as opacity."""

    def forward(self, x):
        opacity = x.flatten(1).mean(1, keepdim=True)
        return {"target": x / 2, "source": x / 4, "opacity": opacity, "opacity_logits": opacity}


@pytest.mark.parametrize("shape", SHAPES)
def test_prepared_batch(shape):
    batch = mixed_batches(shape)[0]
    image, truth = MixUpPrepareBatch()(batch | {"image_opacity": batch["image_opacity"].double()}, "cpu")
    assert type(image) is torch.Tensor
    assert torch.equal(image, batch["image"].as_tensor())
    assert truth.keys() == {"target", "source", "opacity", "mixed"}
    assert truth["opacity"].dtype == torch.float32
    _, shuffled = MixUpPrepareBatch(shuffle_opacity=True)(batch, "cpu")
    assert shuffled["opacity"].tolist() == np.roll(truth["opacity"].numpy(), 1, axis=0).tolist()
    assert torch.equal(shuffled["target"], truth["target"])
    _, dense = MixUpPrepareBatch(dense=True)(batch, "cpu")
    assert torch.equal(dense["opacity"], batch["image_opacity_map"])


def test_bad_batches():
    batch = mixed_batches((8, 8), size=1)[0]
    with pytest.raises(ValueError, match="in batches of at least 2"):
        MixUpPrepareBatch(shuffle_opacity=True)(batch)
    del batch["image_opacity"]
    with pytest.raises(ValueError, match="the batch has no 'image_opacity'"):
        MixUpPrepareBatch()(batch)


def test_opacity_of_a_map_is_its_mean():
    output = {"pred": {"opacity": torch.tensor([[[[0.2, 0.4]]]])}, "label": {"opacity": torch.tensor([0.5])}}
    found, truth = opacity_pairs(output)
    assert found.tolist() == pytest.approx([0.3])
    assert truth.tolist() == [0.5]


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_error_is_that_of_least_squares(shape):
    batch = mixed_batches(shape)[0]
    found = pixelwise_linear_error(batch["image"].as_tensor(), batch["image_target"])
    for index in range(4):
        x, t = batch["image"][index].numpy().ravel(), batch["image_target"][index].numpy().ravel()
        slope, shift = np.polyfit(x.astype(float), t, 1)
        assert float(found[index]) == pytest.approx(((slope * x + shift - t) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluator_measures_and_draws(shape, tmp_path):
    batches = mixed_batches(shape, number=3, size=8)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=Known(),
        prepare_batch=MixUpPrepareBatch(),
        key_val_metric={"opacity_r2": R2Score(output_transform=opacity_pairs)},
        additional_metrics={
            "against_linear": ErrorAgainstLinear(from_engine(["pred", "label"])),
            "leak_r2": LeakProbeR2(mixtures_and_opacity, folds=2, repeats=1),
        },
        val_handlers=[MixUpPictures(str(tmp_path), 2, str(tmp_path / "png"), {"R2": "opacity_r2", "none": "other"})],
        decollate=False,
    )
    evaluator.run()
    metrics = evaluator.state.metrics
    keys = ("image", "image_target", "image_opacity")
    image, target, opacity = (torch.cat([torch.as_tensor(batch[key]) for batch in batches]) for key in keys)
    image, opacity = image.as_tensor(), opacity[:, 0]
    error = (image.flatten(1).mean(1) - opacity).square().sum() / (opacity - opacity.mean()).square().sum()
    assert metrics["opacity_r2"] == pytest.approx(1 - float(error), rel=1e-4)
    wrong = (image / 2 - target).square().flatten(1).mean(1).sum()
    assert metrics["against_linear"] == pytest.approx(
        float(wrong / pixelwise_linear_error(image, target).sum()), rel=1e-5
    )
    assert np.isfinite(metrics["leak_r2"])
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    for tag in ("validation/unmixed", "validation/opacity"):
        assert events.Images(tag)[-1].encoded_image_string.startswith(b"\x89PNG")
        assert events.Images(tag)[-1].height > 100
    pictures = MixUpPictures(None, items=100, folder=str(tmp_path / "all"))
    pictures.attach(evaluator)
    evaluator.run()
    assert len(pictures.kept["mixed"]) == 8, "a batch has no more"
    with Image.open(tmp_path / "png" / "opacity.png") as picture:
        kept = np.asarray(picture)
    with Image.open(BytesIO(events.Images("validation/opacity")[-1].encoded_image_string)) as picture:
        assert np.array_equal(np.asarray(picture), kept)
    assert (tmp_path / "png" / "unmixed.png").is_file()


@pytest.mark.slow
def test_eight_fixed_pairs_are_learnt_by_heart():
    """Below the best pixelwise linear map of every pair, and the opacity within a tenth of a constant's error."""
    torch.manual_seed(0)
    target, source = torch.rand(2, 8, 1, 16, 16)
    opacity = torch.linspace(0.2, 0.8, 8)[:, None]
    mixed = opacity[..., None, None] * target + (1 - opacity[..., None, None]) * source
    network = MixUpNet(backbone="dynunet", channels=[16, 32, 32])
    loss = MixUpObjective()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(600):
        optimizer.zero_grad()
        found = network(mixed)
        loss(found, {"target": target, "opacity": opacity, "mixed": mixed}).backward()
        optimizer.step()
    error = (found["target"] - target).square().flatten(1).mean(1).detach()
    assert bool((error < pixelwise_linear_error(mixed, target)).all())
    seen, hidden = opacity.square(), (1 - opacity).square()
    bound = hidden / (seen + hidden) * target.var()  # of uncorrelated images of equal variance
    assert float(error.sum()) < 0.5 * float(bound.sum())
    assert float((found["opacity"] - opacity).square().mean()) < 0.1 * 0.03
