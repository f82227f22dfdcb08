"""Errors of a training that are no faults of the program, each in one sentence: what failed, and what to do."""

import re

import torch

_KILLED = re.compile(r"DataLoader worker \(pid\S* ([\d, ]+)\) (?:is killed by signal: (\w[^.]*)|exited unexpectedly)")
_IN_WORKER = re.compile(r"Caught \w+ in \w+ .*process \d+\.")
_LOST = ("CUDA error", "cuDNN error", "cudnn", "NCCL error", "hipError", "MPS backend")


class DeviceError(OSError):
    """A device has failed or has no memory left."""


def in_one_sentence(error: BaseException, device: torch.device, folder: str) -> BaseException:
    """Translate an error of a training; others are returned as they are.

    Args:
        error: The error that ended the training.
        device: Device of the training.
        folder: Folder that the training writes into.
    """
    text = str(error)
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        return OSError(error.errno, error.strerror, folder)  # of TensorBoard's events
    if isinstance(error, torch.OutOfMemoryError):
        return DeviceError(
            f"the device {device} has no memory left ({_first_line(text)}): use smaller batches (batch_size) or views "
            "(view_shape)"
        )
    if isinstance(error, RuntimeError) and any(sign in text for sign in _LOST):
        return DeviceError(
            f"the device {device} failed ({_first_line(text)}): `medpixcl doctor` tells whether it still "
            "works; the same command goes on from the last state saved"
        )
    if isinstance(error, RuntimeError) and (killed := _KILLED.search(text)):
        return ChildProcessError(
            f"a process of the data loader (number {killed[1]}) was killed{_by(killed[2])}, as happens when memory "
            "runs out: give fewer of them (num_workers) or smaller batches; the same command goes on from the last "
            "state saved"
        )
    if _IN_WORKER.match(text) and len(lines := text.strip().splitlines()) > 1:
        return _from_worker(error, lines[-1])
    return error


def _by(name: str | None) -> str:
    return f" by the signal {name}" if name else ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].rstrip(". ")


def _from_worker(error: BaseException, last: str) -> BaseException:
    """The error that a process of the data loader raised, without its traceback."""
    sentence = last.partition(": ")[2] or last
    return type(error)(sentence) if isinstance(error, ValueError | OSError) else error
