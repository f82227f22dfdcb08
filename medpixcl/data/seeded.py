"""Datasets whose random views depend only on (seed, epoch, index), not on workers or on a resumed run."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from monai.data import CacheDataset
from monai.transforms import Compose, Randomizable
from torch.utils.data import Dataset, DistributedSampler
from tqdm import tqdm

from medpixcl.data.datalist import SOURCE


def item_seed(seed: int, epoch: int, index: int) -> int:
    """Derive a 32-bit seed for an item of an epoch, unrelated to the seeds of its neighbours.

    Example:
        >>> item_seed(0, 1, 2) == item_seed(0, 1, 2), item_seed(0, 1, 2) == item_seed(0, 2, 1)
        (True, False)
    """
    return int(np.random.SeedSequence((seed, epoch, index)).generate_state(1)[0])


class PreparedItems(CacheDataset):
    """Items of a datalist after a deterministic transform, whose results are cached in memory and not copied.

    Args:
        data: Datalist.
        prepare: Deterministic MONAI transform; the result of other callables is not cached.
        cache_rate: Share of the items to cache.
        cache_workers: Number of threads that fill the cache.
        progress: Whether to show a progress bar while the cache is filled.
    """

    def __init__(
        self,
        data: Sequence[Any],
        prepare: Callable[[Any], Any] | None,
        *,
        cache_rate: float = 1.0,
        cache_workers: int = 1,
        progress: bool = False,
    ) -> None:
        # MONAI caches the result of no Compose within a Compose: it counts as random
        steps = prepare.flatten() if isinstance(prepare, Compose) else prepare
        super().__init__(
            data, steps, cache_rate=cache_rate, num_workers=cache_workers, progress=progress, copy_cache=False
        )

    def _fill_cache(self, indices: Sequence[int] | None = None) -> list[Any]:
        """Prepare the items as MONAI does, but leave no thread at work after an error: it would abort the exit."""
        numbers = range(self.cache_num) if indices is None else indices
        with ThreadPoolExecutor(self.num_workers) as pool:
            done = pool.map(self._load_cache_item, numbers)
            try:
                return list(tqdm(done, total=len(numbers), desc="Loading dataset", disable=not self.progress))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


class SeededDataset(Dataset):
    """Dataset with cached items and a random transform that is seeded for every epoch and index.

    The key of an item is ``index`` (epoch 0: always the same views, as validation needs) or ``(epoch, index)``. The
    latter is what :class:`EpochSampler` yields, so that workers need no message about a new epoch.

    Args:
        data: Datalist.
        transform: Random transform (a MONAI ``Compose`` or any callable); seeded when it is ``Randomizable``.
        prepare: Deterministic MONAI transform whose result is cached in memory; the result of other callables is not.
        seed: Random seed of the run.
        repeats: Number of views of every image per epoch.
        cache_rate: Share of the items to cache.
        cache_workers: Number of threads that fill the cache.
        progress: Whether to show a progress bar while the cache is filled.
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
        self.prepared = PreparedItems(
            data, prepare, cache_rate=cache_rate, cache_workers=cache_workers, progress=progress
        )

    def __len__(self) -> int:
        return len(self.data) * self.repeats

    @property
    def sources(self) -> list[int]:
        """Number of the manifest that each image comes from (:func:`medpixcl.data.datalist.split_validation`)."""
        return [entry.get(SOURCE, 0) if isinstance(entry, Mapping) else 0 for entry in self.data]

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        seed = item_seed(self.seed, epoch, index)
        if isinstance(self.transform, Randomizable):
            self.transform.set_random_state(seed=seed)
        return self.transform({**self.prepared[index % len(self.data)], "item_seed": seed})


def balanced_indices(sources: Sequence[int], repeats: int, *, seed: int, epoch: int) -> list[int]:
    """Draw indices into a :class:`SeededDataset` with the same number of items of every source.

    Their number is that of an epoch of the whole dataset, rounded up to a multiple of the number of sources. Every
    epoch shuffles each source anew. A small source is repeated; a repeated image has another index and hence other
    views.

    Args:
        sources: Number of the source of every image, in the order of the dataset.
        repeats: Number of views of every image per epoch, as in the dataset.
        seed: Random seed for the order.
        epoch: Number of the epoch; one epoch always gives the same indices.

    Example:
        >>> [index % 4 for index in balanced_indices([0, 0, 0, 1], 1, seed=0, epoch=1)].count(3)
        2
    """
    names = sorted(set(sources))
    each = -(-len(sources) * repeats // len(names))
    chosen = []
    for name in names:
        members = np.flatnonzero(np.asarray(sources) == name)
        random = np.random.default_rng((seed, epoch, name))
        rounds = range(-(-each // len(members)))
        order = np.concatenate([random.permutation(members) + number * len(sources) for number in rounds])
        chosen += order[:each].tolist()
    return chosen


class EpochSampler(DistributedSampler):
    """Sampler of shuffled ``(epoch, index)`` keys, divided among the processes of torch.distributed if initialised.

    MONAI's engines call ``set_epoch`` of every ``DistributedSampler``. In each step, all processes together take the
    items that a single process with the same global batch would take.

    Args:
        dataset: Dataset to sample from.
        seed: Random seed for shuffling.
        shuffle: Whether to shuffle; if False, the order is fixed.
        balance: Whether to take the same number of items of each of the dataset's ``sources``
            (:func:`balanced_indices`).
        items: Largest number of items per epoch over all processes, so that the number of steps does not depend on the
            number of images; None takes all.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        seed: int = 0,
        shuffle: bool = True,
        balance: bool = False,
        items: int | None = None,
    ) -> None:
        from torch import distributed

        ready = distributed.is_available() and distributed.is_initialized()
        replicas, rank = (distributed.get_world_size(), distributed.get_rank()) if ready else (1, 0)
        sources = getattr(dataset, "sources", ()) if balance else ()
        self.sources = sources if len(set(sources)) > 1 else ()
        sampled: Sized = dataset
        if self.sources:
            self.repeats = len(dataset) // len(self.sources)
            sampled = balanced_indices(self.sources, self.repeats, seed=seed, epoch=0)
        super().__init__(sampled, num_replicas=replicas, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.taken = self.num_samples if items is None else min(self.num_samples, -(-items // replicas))
        self._left_out = 0

    def __len__(self) -> int:
        return self.taken

    def leave_out(self, items: int) -> None:
        """Begin the next pass, and no later one, after a number of items that this process has trained on before."""
        self._left_out = items

    def __iter__(self) -> Iterator[tuple[int, int]]:
        places = itertools.islice(super().__iter__(), self._left_out, self.taken)
        self._left_out = 0
        if not self.sources:
            return ((self.epoch, index) for index in places)
        order = balanced_indices(self.sources, self.repeats, seed=self.seed, epoch=self.epoch if self.shuffle else 0)
        return ((self.epoch, order[place]) for place in places)
