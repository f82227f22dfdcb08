"""What a frozen encoder knows of the classes: a linear probe and nearest neighbours on its vectors of whole images."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from monai.data import DataLoader
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.data.atomic import write_text_atomically
from medpixcl.networks.classifier import EncoderNet
from medpixcl.networks.weights import load_weights
from medpixcl.training.classification import scores

PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
Vectors = Float[Tensor, "n e"]
Labels = Int[Tensor, " n"]


def embed_images(network: EncoderNet, dataset: Any, device: str | torch.device = "cpu") -> tuple[Vectors, Labels]:
    """Vectors and labels of the images of a dataset, with the network in evaluation mode."""
    network = network.to(device).eval()
    vectors, labels = [], []
    with torch.no_grad():
        for batch in DataLoader(dataset, batch_size=16):
            image = torch.as_tensor(batch["image"].as_tensor()).to(device)
            vectors.append(network.embedding(image).float().cpu())
            labels.append(batch["label"].long())
    return torch.cat(vectors), torch.cat(labels)


def linear_probe(
    train: tuple[Vectors, Labels],
    validation: tuple[Float[Tensor, "v e"], Int[Tensor, " v"]],
    test: Float[Tensor, "m e"],
    classes: int,
) -> Float[Tensor, "m k"]:
    """Probabilities by multinomial logistic regression on standardised vectors.

    The penalty on the squared weights is the one of :data:`PENALTIES` with the least cross-entropy on the validation
    images; the fit is convex, so there is no step size and no seed.

    Args:
        train: Vectors and labels to fit.
        validation: To choose the penalty by.
        test: Vectors of the images to predict.
        classes: Number K.
    """
    mean, spread = train[0].mean(0), train[0].std(0).clamp_min(1e-6)
    best: tuple[float, Tensor] = (torch.inf, torch.empty(0))
    for penalty in PENALTIES:
        layer = _logistic((train[0] - mean) / spread, train[1], classes, penalty)
        with torch.no_grad():
            loss = float(F.cross_entropy(layer((validation[0] - mean) / spread), validation[1]))
            if loss < best[0]:
                best = (loss, layer((test - mean) / spread).softmax(1))
    return best[1]


def _logistic(vectors: Vectors, labels: Labels, classes: int, penalty: float) -> nn.Linear:
    layer = nn.Linear(vectors.shape[1], classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(layer(vectors), labels) + penalty * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(step)
    return layer


def nearest_neighbours(
    train: tuple[Vectors, Labels],
    test: Float[Tensor, "m e"],
    classes: int,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Float[Tensor, "m k"]:
    """Probabilities by a vote of the nearest training images, weighed by ``exp(cosine / temperature)``.

    Args:
        train: Vectors and labels.
        test: Vectors of the images to predict.
        classes: Number K.
        neighbours: Number of neighbours that vote; all images where there are fewer.
        temperature: Temperature of the softmax that weighs the neighbours.

    Reference: Wu et al., Unsupervised Feature Learning via Non-Parametric Instance Discrimination, CVPR 2018, 3.4.
    """
    mean = train[0].mean(0)
    cosine = F.normalize(test - mean, dim=1) @ F.normalize(train[0] - mean, dim=1).T
    near, place = cosine.topk(min(neighbours, cosine.shape[1]), dim=1)
    votes = F.one_hot(train[1][place], classes) * (near / temperature).softmax(1)[..., None]
    return votes.sum(1)


class FrozenProbes:
    """Measures a frozen encoder by both probes on the test images and writes ``probes.json``.

    Args:
        network: The encoder.
        weights: Checkpoint with an encoder; None leaves the network as it was built.
        datasets: ``training``, ``validation`` and ``test``, of items with ``image`` and ``label``.
        classes: Number of classes.
        output_dir: Folder of the result.
        device: Device on which the network runs.
        neighbours: See :func:`nearest_neighbours`.
    """

    def __init__(
        self,
        network: EncoderNet,
        weights: str | None,
        datasets: Mapping[str, Any],
        classes: int,
        output_dir: str,
        device: str | torch.device = "cpu",
        neighbours: int = 20,
    ) -> None:
        self.network, self.weights, self.datasets, self.classes = network, weights, dict(datasets), classes
        self.output_dir, self.device, self.neighbours = Path(output_dir), device, neighbours

    def run(self) -> dict[str, Any]:
        """Embed, fit, measure, write."""
        report = None
        if self.weights is not None:
            report = load_weights(
                self.network, self.weights, strict=False, adapt_channels=True, required=["backbone."]
            ).details()
        train, validation, test = (
            embed_images(self.network, self.datasets[side], self.device) for side in ("training", "validation", "test")
        )
        predicted = {
            "linear": linear_probe(train, validation, test[0], self.classes),
            "neighbours": nearest_neighbours(train, test[0], self.classes, self.neighbours),
        }
        result: dict[str, Any] = {name: scores(found, test[1]) for name, found in predicted.items()}
        result |= {"images": {"training": len(train[1]), "validation": len(validation[1]), "test": len(test[1])}}
        self.output_dir.mkdir(parents=True, exist_ok=True)
        write_text_atomically(
            self.output_dir / "probes.json", json.dumps(result | {"weights": report}, indent=1) + "\n"
        )
        return result
