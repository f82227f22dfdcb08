"""Scores and probes against scikit-learn's definitions written out, and against closed forms."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from scipy.stats import mannwhitneyu

from medpixcl.training.classification import ClassificationScore, expected_calibration_error, scores
from medpixcl.training.probes import PENALTIES, linear_probe, nearest_neighbours


def predictions(number=60, classes=2, seed=0):
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(number) % classes)
    logits = random.normal(size=(number, classes)) + 0.8 * np.eye(classes)[labels]
    return torch.from_numpy(logits).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores(classes):
    """AUC: the chance that an image of the class ranks above one of the rest."""
    logits, labels = predictions(classes=classes)
    p, y = logits.softmax(1).numpy().astype(float), labels.numpy()
    found = scores(logits.softmax(1), labels)
    areas = []
    for k in range(classes):
        inside, outside = p[y == k, k], p[y != k, k]
        areas.append(mannwhitneyu(inside, outside).statistic / (len(inside) * len(outside)))
    assert found["auc"] == pytest.approx(np.mean(areas), abs=1e-6)
    assert found["accuracy"] == pytest.approx((p.argmax(1) == y).mean())
    assert found["cross_entropy"] == pytest.approx(-np.log(p[np.arange(60), y]).mean(), rel=1e-5)
    metric = ClassificationScore("auc")
    for part in range(3):
        metric.update((logits[20 * part : 20 * part + 20], labels[20 * part : 20 * part + 20]))
    assert metric.compute() == pytest.approx(found["auc"])


def test_calibration_error_by_hand():
    """Bins of a half: 0.6 and 0.8 are right once in two, 0.9 wrong: all in the upper bin, |2.3/3 - 1/3|."""
    p = torch.tensor([[0.6, 0.4], [0.2, 0.8], [0.9, 0.1]])
    assert expected_calibration_error(p, torch.tensor([0, 0, 1]), bins=2) == pytest.approx(2.3 / 3 - 1 / 3, abs=1e-6)
    confident = torch.tensor([[0.95, 0.05]] * 20)
    assert expected_calibration_error(confident, torch.tensor([0] * 19 + [1])) == pytest.approx(0, abs=1e-6)


def test_one_class_has_no_auc():
    assert np.isnan(scores(torch.tensor([[0.9, 0.1]]), torch.tensor([0]))["auc"])


def test_linear_probe_is_penalised_logistic_regression():
    """scipy's minimum at every penalty; the one chosen is the best on the validation vectors."""
    random = np.random.default_rng(1)
    labels = {side: random.integers(0, 3, size) for side, size in (("train", 40), ("validation", 25))}
    vectors = {s: random.normal(size=(len(y), 5)) + np.eye(5)[y] for s, y in labels.items()}
    test = random.normal(size=(7, 5))
    mean, spread = vectors["train"].mean(0), vectors["train"].std(0, ddof=1)
    x, z, t = ((v - mean) / spread for v in (vectors["train"], vectors["validation"], test))

    def loss(weights, penalty=0.0, rows=x, truth=labels["train"]):
        matrix, shift = weights[:15].reshape(3, 5), weights[15:]
        said = log_softmax(rows @ matrix.T + shift, axis=1)
        return -said[np.arange(len(truth)), truth].mean() + penalty * (matrix**2).sum()

    fits = [minimize(loss, np.zeros(18), args=(penalty,), tol=1e-10).x for penalty in PENALTIES]
    best = min(fits, key=lambda weights: loss(weights, 0.0, z, labels["validation"]))
    wanted = np.exp(log_softmax(t @ best[:15].reshape(3, 5).T + best[15:], axis=1))
    pairs = [(torch.from_numpy(vectors[s]).float(), torch.from_numpy(labels[s])) for s in ("train", "validation")]
    found = linear_probe(*pairs, torch.from_numpy(test).float(), 3)
    np.testing.assert_allclose(found.numpy(), wanted, atol=5e-3)


def test_neighbours_vote_by_hand():
    """Of three training vectors (mean 0) the two nearest vote by exp(cosine / temperature)."""
    train = torch.tensor([[1.0, 0.0], [-0.5, 3**0.5 / 2], [-0.5, -(3**0.5) / 2]]), torch.tensor([0, 1, 1])
    found = nearest_neighbours(train, torch.tensor([[2.0, 0.1]]), 2, neighbours=2, temperature=0.5)
    cosines = np.array([2, -1 + 0.1 * 3**0.5 / 2]) / np.hypot(2, 0.1)
    votes = np.exp(cosines / 0.5)
    np.testing.assert_allclose(found[0].numpy(), votes / votes.sum(), atol=1e-5)
    everyone = nearest_neighbours(train, torch.tensor([[2.0, 0.1]]), 2, neighbours=20)
    assert everyone.sum().item() == pytest.approx(1)
