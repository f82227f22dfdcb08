from .adaptive import AdaptiveClasses as AdaptiveClasses
from .averages import AveragedWeights as AveragedWeights
from .baselines import OpacityClassesPrepareBatch as OpacityClassesPrepareBatch, ViewsPrepareBatch as ViewsPrepareBatch
from .batches import PixelPairsPrepareBatch as PixelPairsPrepareBatch
from .classification import ClassificationScore as ClassificationScore
from .controls import ExogenousControl as ExogenousControl
from .correspondence import PixelCorrespondence as PixelCorrespondence
from .detection import (
    LandmarkError as LandmarkError,
    LandmarkPrepareBatch as LandmarkPrepareBatch,
    annotated_shape as annotated_shape,
)
from .divergence import DivergenceWatch as DivergenceWatch
from .handlers import (
    BestMetricState as BestMetricState,
    BestWeights as BestWeights,
    EarlyStop as EarlyStop,
    EpochProgress as EpochProgress,
    FiniteLossGuard as FiniteLossGuard,
    GradientClipping as GradientClipping,
    LastWeights as LastWeights,
    PeriodicValidation as PeriodicValidation,
    WeightsLoader as WeightsLoader,
)
from .interruption import StopOnSignal as StopOnSignal
from .leak_probe import LeakProbeR2 as LeakProbeR2
from .mixup import (
    ErrorAgainstLinear as ErrorAgainstLinear,
    MixUpPictures as MixUpPictures,
    MixUpPrepareBatch as MixUpPrepareBatch,
    mixtures_and_opacity as mixtures_and_opacity,
    opacity_pairs as opacity_pairs,
    reconstruction_pairs as reconstruction_pairs,
)
from .momentum import MomentumEncoder as MomentumEncoder
from .pictures import MatchedViewsPictures as MatchedViewsPictures
from .pixpro import PixProPrepareBatch as PixProPrepareBatch
from .positives import PositivePictures as PositivePictures, PositiveStatistics as PositiveStatistics
from .probes import FrozenProbes as FrozenProbes
from .processes import (
    distributed_network as distributed_network,
    end_processes as end_processes,
    is_not_first_process as is_not_first_process,
    process_device as process_device,
    process_share as process_share,
    start_processes as start_processes,
)
from .recipe import TrainingHandlers as TrainingHandlers
from .resume import ResumeHandler as ResumeHandler
from .segmentation import DiceByClass as DiceByClass, SegmentationPrepareBatch as SegmentationPrepareBatch
from .self_training import (
    Relabelling as Relabelling,
    TemplateMatching as TemplateMatching,
    template_landmark_names as template_landmark_names,
    with_templates as with_templates,
    without_templates as without_templates,
)
from .settings_file import SettingsFile as SettingsFile
from .similarity import PositiveSimilarity as PositiveSimilarity
