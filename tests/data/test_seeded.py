"""The same views from any number of workers and processes."""

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import DataLoader, list_data_collate
from monai.engines import SupervisedTrainer
from monai.transforms import Compose, Lambda, RandLambdad, Randomizable, Transform
from torch import distributed

from medpixcl.data.seeded import EpochSampler, SeededDataset, item_seed
from medpixcl.transforms import RandPixelViewsd
from tests.geometry import random_image

NUMBER = 6


class Noise(Randomizable):
    """The plainest random transform; not known to the code under test."""

    def randomize(self, data: Any = None) -> None:
        self.value = self.R.uniform()

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        self.randomize()
        return {**data, "value": torch.tensor(self.value)}


def dataset(*, seed: int = 0, repeats: int = 1) -> SeededDataset:
    data = [{"image": random_image((20, 24), seed=n), "number": n} for n in range(NUMBER)]
    views = RandPixelViewsd("image", (10, 12), elastic_mm=1.0)
    return SeededDataset(data, Compose([views, Noise()]), seed=seed, repeats=repeats, progress=False)


def epoch_of(source: SeededDataset, epoch: int, workers: int) -> list[dict[str, Any]]:
    sampler = EpochSampler(source, seed=3)
    sampler.set_epoch(epoch)
    loader = DataLoader(source, batch_size=2, sampler=sampler, num_workers=workers, collate_fn=list_data_collate)
    return list(loader)


def assert_same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    assert len(first) == len(second) == NUMBER // 2
    for one, other in zip(first, second, strict=True):
        assert one["number"].tolist() == other["number"].tolist()
        for name in ("image_query", "coords_image_anchor", "value", "item_seed"):
            assert torch.equal(torch.as_tensor(one[name]), torch.as_tensor(other[name])), name


class TestSeededDataset:
    @pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
    def test_as_many_workers_as_one_likes(self):
        """Two processes one after the other, each with its own copy of the data set, against none."""
        source = dataset()
        for epoch in (1, 2):
            assert_same(epoch_of(source, epoch, workers=2), epoch_of(source, epoch, workers=0))

    def test_again(self):
        assert_same(epoch_of(dataset(), 4, 0), epoch_of(dataset(), 4, 0))

    def test_other_epoch_other_seed_other_repeat(self):
        keys = [(1, 0), (2, 0), (1, 1), (1, NUMBER)]
        values = [dataset(repeats=2)[key]["value"].item() for key in keys]
        values.append(dataset(seed=1)[(1, 0)]["value"].item())
        assert len(set(values)) == 5
        assert dataset(repeats=2)[(1, NUMBER)]["number"] == 0
        assert len(dataset(repeats=2)) == 2 * NUMBER

    def test_index_alone_is_always_the_same(self):
        source = dataset()
        first = source[2]
        source[(7, 2)], source[1]
        assert torch.equal(source[2]["image_query"], first["image_query"])
        assert torch.equal(source[(0, 2)]["image_query"], first["image_query"])

    def test_seeds_are_unrelated(self):
        seeds = [item_seed(s, e, i) for s in range(4) for e in range(8) for i in range(64)]
        assert len(set(seeds)) == len(seeds)
        first = [np.random.RandomState(seed).uniform() for seed in seeds]
        assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < 4 / np.sqrt(len(first))

    @pytest.mark.parametrize("nest", [lambda step: step, lambda step: Compose([Compose([step]), Lambda(dict)])])
    def test_prepare_is_cached_and_runs_once(self, nest):
        """A Compose within a Compose, too: MONAI's CacheDataset takes it for random."""
        calls = []

        def prepare(item: dict[str, Any]) -> dict[str, Any]:
            calls.append(item["number"])
            return {**item, "prepared": True}

        source = SeededDataset(
            [{"number": n} for n in range(3)], Noise(), prepare=nest(Lambda(prepare)), progress=False
        )
        for key in [(1, 0), (1, 1), (2, 0), (2, 2)]:
            assert source[key]["prepared"]
        assert sorted(calls) == [0, 1, 2]
        assert "value" not in source.prepared[0]  # the cache is left as it was

    def test_no_thread_works_on_after_an_error(self):
        """It would abort the program at its exit."""
        begun, before = [], threading.active_count()

        class Slow(Transform):
            def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
                begun.append(item["number"])
                if item["number"] == 1:
                    raise ValueError("image 1 is broken")
                time.sleep(0.05)
                return item

        items = [{"number": number} for number in range(20)]
        with pytest.raises(RuntimeError, match="applying transform"):
            SeededDataset(items, lambda item: item, prepare=Slow(), cache_workers=2, progress=False)
        assert threading.active_count() == before
        assert len(begun) < 6

    def test_transform_that_is_not_random(self):
        source = SeededDataset([{"number": 3}], lambda item: item["number"], progress=False)
        assert source[(1, 0)] == 3

    def test_stock_random_transform(self):
        source = SeededDataset(
            [{"x": torch.zeros(1)}] * 40, RandLambdad("x", lambda x: x + 1, prob=0.5), progress=False
        )
        drawn = [source[(1, n)]["x"].item() for n in range(40)]
        assert {0.0, 1.0} == set(drawn)
        assert drawn == [source[(1, n)]["x"].item() for n in range(40)]


def deal(rank: int, world: int, store: Path, connection: Any) -> None:
    """One of the processes: what its sampler gives in two epochs."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    sampler = EpochSampler(range(8), seed=3)
    keys = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        keys.append(list(sampler))
    connection.send(keys)
    distributed.barrier()
    distributed.destroy_process_group()


class TestEpochSampler:
    def test_every_item_once_in_an_order_of_the_epoch(self):
        sampler, orders = EpochSampler(range(20), seed=3), []
        for epoch in (1, 2, 1):
            sampler.set_epoch(epoch)
            keys = list(sampler)
            assert {e for e, _ in keys} == {epoch}
            assert sorted(index for _, index in keys) == list(range(20))
            orders.append(keys)
        assert orders[0] == orders[2]
        assert [index for _, index in orders[0]] != [index for _, index in orders[1]]
        assert list(EpochSampler(range(20), seed=4)) != list(EpochSampler(range(20), seed=3))

    def test_balanced_sources(self):
        """Ten images of one manifest and three of another, two views each: 13 of both in every epoch, all different."""
        source = SeededDataset(
            [{"source": 0}] * 10 + [{"source": 1}] * 3, lambda item: item["item_seed"], repeats=2, progress=False
        )
        sampler = EpochSampler(source, seed=3, balance=True)
        assert len(sampler) == 26
        orders = []
        for epoch in (1, 2, 1):
            sampler.set_epoch(epoch)
            keys = list(sampler)
            images = [index % 13 for _, index in keys]
            counts = [images.count(image) for image in range(13)]
            assert sum(counts[:10]) == sum(counts[10:]) == 13
            assert set(counts[:10]) == {1, 2}
            assert sorted(counts[10:]) == [4, 4, 5]
            assert len({source[key] for key in keys}) == 26  # seeds of the views
            orders.append(keys)
        assert orders[0] == orders[2] != [(1, index) for _, index in orders[1]]
        assert {index for _, index in orders[0]} != {index for _, index in orders[1]}

    def test_one_source_is_as_without_balance(self):
        source = SeededDataset([{}] * 10, Noise(), progress=False)
        assert list(EpochSampler(source, seed=3, balance=True)) == list(EpochSampler(source, seed=3))

    def test_by_size(self):
        source = SeededDataset([{"source": 0}] * 9 + [{"source": 1}], Noise(), progress=False)
        assert sorted(index for _, index in EpochSampler(source, balance=False)) == list(range(10))

    def test_balanced_processes_take_together_what_one_takes(self, monkeypatch):
        source = SeededDataset([{"source": 0}] * 7 + [{"source": 1}], Noise(), progress=False)
        alone = EpochSampler(source, seed=3, balance=True)
        alone.set_epoch(2)
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
        dealt = []
        for rank in range(2):
            monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
            sampler = EpochSampler(source, seed=3, balance=True)
            sampler.set_epoch(2)
            dealt.append(list(sampler))
        assert [key for step in zip(*dealt, strict=True) for key in step] == list(alone)

    def test_begins_within_an_epoch_once(self):
        source = dataset(repeats=2)
        whole, part = (EpochSampler(source, seed=3, items=7) for _ in range(2))
        for sampler in (whole, part):
            sampler.set_epoch(4)
        expected = list(whole)
        part.leave_out(5)
        assert (list(part), len(part)) == (expected[5:], 7)
        assert list(part) == expected

    def test_fixed_order(self):
        assert list(EpochSampler(range(3), shuffle=False)) == [(0, 0), (0, 1), (0, 2)]

    def test_two_processes_take_together_what_one_takes(self, tmp_path):
        """Step by step: a batch of two on each of two processes is the batch of four of one process."""
        context = multiprocessing.get_context("fork")
        processes, dealt = [], []
        for rank in range(2):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=deal, args=(rank, 2, tmp_path / "store", there))
            process.start()
            processes.append((process, here))
        for process, connection in processes:
            assert connection.poll(60), "no answer from a process"
            dealt.append(connection.recv())
            process.join(60)
            assert process.exitcode == 0
        alone = EpochSampler(range(8), seed=3)
        for number, epoch in enumerate((1, 2)):
            alone.set_epoch(epoch)
            whole = list(alone)
            for step in range(2):
                together = [key for rank in range(2) for key in dealt[rank][number][2 * step : 2 * step + 2]]
                assert sorted(together) == sorted(whole[4 * step : 4 * step + 4])

    def test_monai_trainer_tells_the_epoch(self):
        """Every epoch of a stock trainer asks for the items of that epoch."""
        source = SeededDataset([{"number": n} for n in range(4)], Noise(), progress=False)
        loader = DataLoader(source, batch_size=2, sampler=EpochSampler(source), num_workers=0)
        network = torch.nn.Linear(1, 1)
        seen: list[list[float]] = []

        def prepare_batch(batch: dict[str, Any], *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
            seen.append(sorted(zip(batch["number"].tolist(), batch["item_seed"].tolist(), strict=True)))
            return torch.zeros(1, 1), torch.zeros(1, 1)

        SupervisedTrainer(
            device=torch.device("cpu"),
            max_epochs=2,
            train_data_loader=loader,
            network=network,
            optimizer=torch.optim.SGD(network.parameters(), 0.1),
            loss_function=torch.nn.MSELoss(),
            prepare_batch=prepare_batch,
        ).run()
        for epoch in (1, 2):
            found = sorted(pair for batch in seen[2 * epoch - 2 : 2 * epoch] for pair in batch)
            assert found == [(n, item_seed(0, epoch, n)) for n in range(4)]
