"""Random views that depend on (seed, epoch, index) alone: the same on any number of workers, and after a resume."""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Any

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Randomizable
from torch.utils.data import Dataset, DistributedSampler


def item_seed(seed: int, epoch: int, index: int) -> int:
    """One 32-bit seed for an item of an epoch, unrelated to that of its neighbours.

    Example:
        >>> item_seed(0, 1, 2) == item_seed(0, 1, 2), item_seed(0, 1, 2) == item_seed(0, 2, 1)
        (True, False)
    """
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])


class SeededDataset(Dataset):
    """Cached items, and a random transform seeded for every epoch and index.

    An item is asked for by ``index`` (epoch 0: always the same views, as validation wants) or by ``(epoch, index)``,
    the form in which :class:`EpochSampler` asks, so that workers need not be told of a new epoch.

    Args:
        data: Datalist.
        transform: Random transform (a MONAI ``Compose`` or any callable); seeded when it is ``Randomizable``.
        prepare: Deterministic MONAI transform, whose result is cached in memory (that of any other callable is not).
        seed: Of the run.
        repeats: Views of every image per epoch.
        cache_rate: Share of the items that is cached.
        cache_workers: Threads that fill the cache.
        progress: Show a progress bar while the cache is filled.
    """

    def __init__(
        self,
        data: Sequence[Any],
        transform: Callable[[Any], Any],
        *,
        prepare: Callable[[Any], Any] | None = None,
        seed: int = 0,
        repeats: int = 1,
        cache_rate: float = 1.0,
        cache_workers: int = 1,
        progress: bool = True,
    ) -> None:
        self.data, self.transform, self.seed, self.repeats = data, transform, seed, repeats
        self.prepared = CacheDataset(
            data, prepare, cache_rate=cache_rate, num_workers=cache_workers, progress=progress, copy_cache=False
        )

    def __len__(self) -> int:
        return len(self.data) * self.repeats

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed = item_seed(self.seed, epoch, index)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=seed)
        return self.transform({**self.prepared[index % len(self.data)], "item_seed": seed})


class EpochSampler(DistributedSampler):
    """Shuffled ``(epoch, index)`` keys, dealt out to the processes of torch.distributed when it is initialised.

    MONAI's engines call ``set_epoch`` of every ``DistributedSampler``. Step by step, all processes together take the
    items that a single process with the same global batch would take.

    Args:
        dataset: The dataset sampled.
        seed: Of the shuffling.
        shuffle: Off for a fixed order.
    """

    def __init__(self, dataset: Sized, *, seed: int = 0, shuffle: bool = True) -> None:
        from torch import distributed

        ready = distributed.is_available() and distributed.is_initialized()
        replicas, rank = (distributed.get_world_size(), distributed.get_rank()) if ready else (1, 0)
        super().__init__(dataset, num_replicas=replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in super().__iter__())
