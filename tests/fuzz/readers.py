"""Every reader: how a good input is made, how it is damaged, and what is done with it. A new reader is one line."""

from dataclasses import dataclass

from medpixcl.apps.corrections import Corrections
from medpixcl.apps.few_shot import read_earlier_runs
from medpixcl.apps.habit_file import ReadingHabit
from tests.fuzz import calls, inputs
from tests.fuzz.inputs import Maker, beside_good, case_of_match, dicom, nifti, picture, text, volume
from tests.fuzz.mutations import (
    Mutation,
    mutated_bytes,
    mutated_checkpoint,
    mutated_gzip,
    mutated_json,
    mutated_json_lines,
    mutated_table,
)

MM = "image,landmark,x_mm,y_mm,z_mm,flag\na.nii.gz,sella,1.5,2.5,3,\na.nii.gz,nasion,4,5,6,unsure\nb.nii.gz,sella,,,,\n"
PX = "image,landmark,x_px,y_px,spacing_mm\na.png,sella,10.5,20,0.5\na.png,nasion,12,8,0.5\nb.png,sella,3,4,0.5\n"
REGION = (
    "image,landmark,x_mm,y_mm,axis1_mm,axis1_x,axis1_y,axis2_mm,axis2_x,axis2_y\n"
    "a.png,sella,1.5,2.5,2,1,0,1,0,1\na.png,nasion,4,5,2,0.6,0.8,1,-0.8,0.6\n"
)
FCSV = (
    "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
    "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    "1,1.5,2.5,0,0,0,0,1,1,1,0,sella,,\n2,3,4,0,0,0,0,1,1,1,0,nasion,,\n"
)
SPLIT = "image,split,duplicate_of\na.png,train,\nb.png,test1,a.png\n"
CLASSES = "image,label,patient\na.png,0,x\nb.png,1,y\n"
ROLES = "landmark,name\nL1,sella\nL2,nasion\n"


@dataclass(frozen=True)
class Reader:
    """A reader and its inputs.

    Attributes:
        name: Name of the reader.
        make: Writes a good input.
        mutate: Damages it.
        call: Reads and uses it.
    """

    name: str
    make: Maker
    mutate: Mutation
    call: calls.Call


READERS = (
    Reader("csv px", text("marks.csv", PX), mutated_table, calls.landmarks),
    Reader("csv mm", text("marks.csv", MM), mutated_table, calls.landmarks),
    Reader("csv of a run", inputs.landmark_table, mutated_table, calls.landmarks),
    Reader("csv regions", text("regions.csv", REGION), mutated_table, calls.predictions),
    Reader("fcsv", text("a.fcsv", FCSV), mutated_table, calls.landmarks),
    Reader("mrk.json", inputs.markups, mutated_json, calls.landmarks),
    Reader("landmark json", inputs.landmark_json, mutated_json, calls.landmarks),
    Reader("coco", inputs.coco, mutated_json, calls.landmarks),
    Reader("sr", inputs.report, mutated_bytes, calls.report_of_image),
    Reader("csv corrections", inputs.landmark_table, mutated_table, Corrections),
    Reader("csv predictions", inputs.landmark_table, mutated_table, calls.predictions),
    Reader("json predictions", inputs.landmark_json, mutated_json, calls.predictions),
    Reader("coco reader", inputs.coco, mutated_json, calls.readers),
    Reader("csv reader", inputs.landmark_table, mutated_table, calls.readers),
    Reader("manifest json", inputs.manifest("m.json"), mutated_json, calls.manifest),
    Reader("manifest jsonl", inputs.manifest("m.jsonl"), mutated_json_lines, calls.manifest),
    Reader("manifest training", inputs.manifest("m.json"), mutated_json, calls.training_data),
    Reader("known json", inputs.known_images("m.json"), mutated_json, calls.scanned_again),
    Reader("known jsonl", inputs.known_images("m.jsonl"), mutated_json_lines, calls.scanned_again),
    Reader("split", text("split.csv", SPLIT), mutated_table, calls.split),
    Reader("classes", text("classes.csv", CLASSES), mutated_table, calls.classes),
    Reader("names", text("names.csv", ROLES), mutated_table, calls.names),
    Reader("png", picture("a.png"), mutated_bytes, calls.image),
    Reader("png 16", picture("a.png", "I;16"), mutated_bytes, calls.image),
    Reader("png colour", picture("a.png", "RGBA"), mutated_bytes, calls.image),
    Reader("jpeg", picture("a.jpg"), mutated_bytes, calls.image),
    Reader("bmp", picture("a.bmp"), mutated_bytes, calls.image),
    Reader("tiff", picture("a.tif"), mutated_bytes, calls.image),
    Reader("tiff 16", picture("a.tif", "I;16"), mutated_bytes, calls.image),
    Reader("tiff lzw", picture("a.tif", compression="tiff_lzw"), mutated_bytes, calls.image),
    Reader("nii", nifti("a.nii"), mutated_bytes, calls.image),
    Reader("nii.gz", nifti("a.nii.gz"), mutated_gzip, calls.image),
    Reader("nrrd", volume("a.nrrd"), mutated_bytes, calls.image),
    Reader("nrrd gzip", volume("a.nrrd", compressed=True), mutated_bytes, calls.image),
    Reader("nhdr", volume("a.nhdr"), mutated_bytes, calls.image),
    Reader("mha", volume("a.mha"), mutated_bytes, calls.image),
    Reader("mhd", volume("a.mhd"), mutated_bytes, calls.image),
    Reader("minc", inputs.minc, mutated_bytes, calls.image),
    Reader("dicom radiograph", inputs.radiograph, mutated_bytes, calls.image),
    Reader("dicom series", inputs.slice_of_series, mutated_bytes, calls.series),
    *(
        Reader(f"dicom {name}", dicom(f"{name}.dcm"), mutated_bytes, calls.image)
        for name in ("MR_small_RLE", "JPEG2000", "MR_small_jpeg_ls_lossless", "MR_small_bigendian", "MR_small_implicit")
    ),
    Reader("scan dicom", beside_good(dicom("MR_small_implicit.dcm")), mutated_bytes, calls.scanned),
    Reader("scan nrrd", beside_good(volume("a.nrrd")), mutated_bytes, calls.scanned),
    Reader("scan mhd", beside_good(volume("a.mhd")), mutated_bytes, calls.scanned),
    Reader("scan nii", beside_good(nifti("a.nii")), mutated_bytes, calls.scanned),
    Reader("scan tiff", beside_good(picture("a.tif")), mutated_bytes, calls.scanned),
    Reader("weights", inputs.weights, mutated_checkpoint, calls.weights),
    Reader("radii", inputs.radii, mutated_json, calls.radii),
    Reader("regions", inputs.regions, mutated_json, calls.regions),
    Reader("population", inputs.population, mutated_checkpoint, calls.population),
    Reader("habit", inputs.habit, mutated_json, ReadingHabit.read),
    Reader("resume", inputs.resume, mutated_checkpoint, calls.resume),
    Reader("settings", inputs.settings, mutated_json, calls.settings),
    Reader("metrics", inputs.metrics, mutated_json, lambda path: read_earlier_runs([str(path)])),
    Reader("run.json", inputs.run_file("run.json"), mutated_json, calls.run_folder),
    Reader("run.jsonl", inputs.run_file("run.jsonl"), mutated_json_lines, calls.run_folder),
    Reader("run.json overwritten", inputs.run_file("run.json"), mutated_json, calls.overwritten),
)
COMMANDS = (
    Reader("match --landmarks", case_of_match(inputs.beside("marks.csv")), mutated_table, calls.match),
    Reader("match --weights", case_of_match(inputs.beside("weights.pt")), mutated_checkpoint, calls.match),
    Reader("match --images", case_of_match(inputs.manifest("m.json")), mutated_json, calls.match_with("images")),
    Reader("match --calibration", case_of_match(inputs.radii_of_match), mutated_json, calls.match_with("calibration")),
    Reader("match --unlabelled", case_of_match(inputs.population_of_match), mutated_checkpoint,
           calls.match_with("unlabelled")),
    Reader("match --corrections", case_of_match(inputs.corrected), mutated_table, calls.match_with("corrections")),
    Reader("match --habit", case_of_match(inputs.habit), mutated_json, calls.match_with("habit")),
    Reader("match --continue", case_of_match(inputs.interrupted), mutated_json_lines, calls.go_on),
    Reader("measure", inputs.landmark_table, mutated_table, calls.measured),
    Reader("evaluate --reference", inputs.two_tables, mutated_table, calls.evaluated),
    Reader("scan --landmarks", case_of_match(inputs.beside("marks.csv")), mutated_table, calls.scan_with("landmarks")),
    Reader("scan --split", case_of_match(text("split.csv", SPLIT.replace("a.png", "phantom_000.png"))), mutated_table,
           calls.scan_with("split")),
    Reader("scan --classes", case_of_match(text("classes.csv", CLASSES.replace("a.png", "phantom_000.png"))),
           mutated_table, calls.scan_with("classes")),
)  # fmt: skip
