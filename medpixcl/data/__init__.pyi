from .annotated import landmark_names as landmark_names, split_annotated as split_annotated
from .class_labels import split_labelled as split_labelled
from .datalist import section_items as section_items, split_validation as split_validation
from .monai_reader import MedpixclReader as MedpixclReader
from .phantoms import (
    write_depth_phantoms as write_depth_phantoms,
    write_landmark_phantoms as write_landmark_phantoms,
    write_organ_phantoms as write_organ_phantoms,
    write_phantoms as write_phantoms,
)
from .seeded import (
    EpochSampler as EpochSampler,
    PreparedItems as PreparedItems,
    SeededDataset as SeededDataset,
)
from .templates import template_items as template_items
from .textures import PictureSources as PictureSources, ProceduralSources as ProceduralSources
