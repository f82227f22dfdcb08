"""Controls for exogenous channels: the same training without the channel or with a replacement."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medpixcl.correspondence import ExogenousChannel
from medpixcl.data.exogenous import with_donors
from medpixcl.transforms import ShuffledExogenousd

CONTROLS = ("none", "shuffled", "random_deletion", "labels", "no_depth")


class ExogenousControl:
    """Exogenous channels of a training, unchanged or under a control.

    Args:
        control: Name of the control. ``none`` keeps the channels. ``shuffled`` takes those of another image.
            ``random_deletion`` removes as many positives at random. ``labels`` takes a label map instead, as an upper
            bound. ``no_depth`` uses no channel, which is PixPro.
        channels: Arguments of :class:`medpixcl.correspondence.ExogenousChannel` for each channel.
        labels: Arguments of the label map's channel, required by the control ``labels``.
        computed: Keys of channels computed from the image; the manifest names files for the others.
        seed: Random seed for exchanging the channels between images.

    Attributes:
        channels: Channels in use, for the loss.
        random_deletion: Whether the loss deletes positives at random.
        keys: Keys of the channels in use.
        loaded: Keys of the channels read from files.
        kind: Kind of the files to read: ``categorical`` for the label map, else ``continuous``.
        nearest_keys: Keys of the channels that hold classes, for nearest-neighbour sampling.
        exogenous_keys: Keys of the other channels, which are interpolated.
        view_keys: Keys of the channels in both views.

    Raises:
        ValueError: If the control is unknown, or is ``labels`` without a description of the label map.
    """

    def __init__(
        self,
        control: str,
        channels: Sequence[Mapping[str, Any]],
        labels: Mapping[str, Any] | None = None,
        computed: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if control not in CONTROLS:
            raise ValueError(f"control is {control!r}; expected one of {', '.join(CONTROLS)}.")
        if control == "labels" and labels is None:
            raise ValueError("control is 'labels' but no label map is described; give its key, classes and threshold.")
        self.control, self.seed = control, seed
        chosen = [labels] if control == "labels" and labels is not None else list(channels)
        self.channels = [] if control == "no_depth" else [ExogenousChannel(**channel) for channel in chosen]
        self.random_deletion = control == "random_deletion"
        self.keys = [channel.key for channel in self.channels]
        self.loaded = [key for key in self.keys if key not in computed]
        self.kind = "categorical" if control == "labels" else "continuous"
        self.nearest_keys = [channel.key for channel in self.channels if channel.kind == "categorical"]
        self.exogenous_keys = [key for key in self.keys if key not in self.nearest_keys]
        self.view_keys = [f"{key}_{view}" for key in self.keys for view in ("query", "anchor")]

    def items(self, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Items to train on; under ``shuffled``, each with the item whose channels it borrows."""
        return with_donors(items, seed=self.seed) if self.control == "shuffled" else [dict(item) for item in items]

    def preparation(self, prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """Transform that prepares the items to train on."""
        if self.control != "shuffled":
            return prepare
        return ShuffledExogenousd(self.keys, prepare, self.nearest_keys)
