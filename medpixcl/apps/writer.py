"""Write the landmarks that a MONAI evaluator finds, by matching or by detection."""

from contextlib import ExitStack
from pathlib import Path

from ignite.engine import Engine, Events

from medpixcl.apps.finder import LandmarkFinder
from medpixcl.apps.images import ImageList
from medpixcl.apps.results import Results


class LandmarkWriter:
    """Handler that collects, draws, measures and writes what an evaluator finds.

    At the start it removes from the folder what its run file lists of an earlier run; other files stay.

    Args:
        finder: Matcher or detector with the network, inferer and preprocessing of the evaluator.
        images: Images that the evaluator runs over.
        output_dir: Folder of the results.
        reference: Landmark file with true positions, to measure the error.
        calibration: File from ``medpixcl calibrate``; adds radii to the table and circles to the overlays.

    Attributes:
        results: Landmarks found so far; None before the start.
    """

    def __init__(
        self,
        finder: LandmarkFinder,
        images: ImageList,
        output_dir: str,
        reference: str | None = None,
        calibration: str | None = None,
    ) -> None:
        self.finder, self.images, self.output_dir = finder, images, Path(output_dir)
        self.reference, self.calibration = reference, calibration
        self.results: Results | None = None
        self.folder = ExitStack()

    def attach(self, engine: Engine) -> None:
        """Check the input at the start, collect after every iteration, write at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)

    def start(self, engine: Engine) -> None:
        """Read the reference and find the images, so that bad input is reported before the work begins."""
        self.output = self.finder.output.into(self.output_dir, overwrite=True)
        self.results = self.finder.start(
            self.images, reference=self.reference, calibration=self.calibration, output=self.output
        )
        self.folder.enter_context(self.output.opened(self.results))

    def collect(self, engine: Engine) -> None:
        """Keep and draw the landmarks of this iteration's images."""
        assert self.results is not None
        self.finder.collect(self.results, engine.state.batch["image"], engine.state.output["pred"], self.output)

    def finish(self, engine: Engine) -> None:
        """Measure and write."""
        assert self.results is not None
        self.results.measure()
        self.folder.close()
        self.output.write(self.results)

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Leave the folder, whose run stays unfinished."""
        self.folder.close()
        raise error
