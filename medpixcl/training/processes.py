"""One training on several GPUs, or on several processes of a CPU; ``torchrun`` starts the processes."""

import os
from collections.abc import Sized

import torch
from monai.utils import set_determinism
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DistributedSampler


def process_device() -> torch.device:
    """Device of this process: the GPU with the number that ``torchrun`` gives it, or the CPU without CUDA."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def start_processes(device: torch.device, seed: int) -> None:
    """Connect this process to the others, by NCCL with CUDA and by Gloo without, and seed it.

    Args:
        device: Device of this process, see :func:`process_device`.
        seed: Random seed, the same in all processes.
    """
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    set_determinism(seed=seed)


def is_not_first_process() -> bool:
    """Whether another process writes the logs, the pictures and the weights."""
    return distributed.get_rank() > 0


def end_processes() -> None:
    """Wait for all processes, and disconnect this one."""
    distributed.barrier()
    distributed.destroy_process_group()


def distributed_network(
    network: nn.Module, device: torch.device, unused_parameters: bool = False
) -> DistributedDataParallel:
    """Wrap a network so that its gradients are averaged over all processes.

    On GPUs, batch normalisation takes its statistics over the images of all processes.

    Args:
        network: Network, the same in all processes.
        device: Device of this process.
        unused_parameters: Whether a step may leave out some parameters, as a frozen encoder or a second head does.
    """
    if device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network).to(device)
    device_ids = [device] if device.type == "cuda" else None
    return DistributedDataParallel(network, device_ids=device_ids, find_unused_parameters=unused_parameters)


def process_share(dataset: Sized) -> DistributedSampler:
    """Sampler of every n-th item for each of n processes, in the order of the dataset.

    Args:
        dataset: Dataset of a validation.
    """
    return DistributedSampler(dataset, shuffle=False)  # type: ignore[arg-type]
