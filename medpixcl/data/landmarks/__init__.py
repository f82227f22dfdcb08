"""Landmark files: CSV, JSON, COCO, 3D Slicer and DICOM structured reports."""
