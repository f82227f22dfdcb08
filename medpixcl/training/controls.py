"""What a claim about an exogenous channel needs: the same training without it, or with something else in its place."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from medpixcl.correspondence import ExogenousChannel
from medpixcl.data.exogenous import with_donors
from medpixcl.transforms import ShuffledExogenousd

CONTROLS = ("none", "shuffled", "random_deletion", "labels", "no_depth")


class ExogenousControl:
    """The exogenous channels of a training, as they are or under a control; what a configuration asks for its parts.

    Args:
        control: ``none``: the channels as they are. ``shuffled``: those of another image. ``random_deletion``: as many
            positives removed, at random. ``labels``: a label map instead, the upper bound. ``no_depth``: no channel,
            which is PixPro.
        channels: Arguments of :class:`medpixcl.correspondence.ExogenousChannel`, of each channel.
        labels: Arguments of the channel that holds the label map, for ``labels``.
        computed: Keys of channels that are made of the image; the others are files that the manifest names.
        seed: Random seed for exchanging the channels between images.

    Attributes:
        channels: Channels in use, for the loss.
        random_deletion: Whether the loss removes positives at random.
        keys: Keys of the channels in use.
        loaded: Keys that are read from files.
        kind: ``categorical`` if it is the label map, else ``continuous``; for reading files.
        nearest_keys: Keys that hold classes.
        exogenous_keys: Keys that are interpolated.
        view_keys: Keys of both views.

    Raises:
        ValueError: If the control is unknown, or it is ``labels`` and no label map is described.
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
        """The items to train on; of ``shuffled`` each with the one that it borrows from."""
        return with_donors(items, seed=self.seed) if self.control == "shuffled" else [dict(item) for item in items]

    def preparation(self, prepare: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """How the items to train on are prepared."""
        if self.control != "shuffled":
            return prepare
        return ShuffledExogenousd(self.keys, prepare, self.nearest_keys)
