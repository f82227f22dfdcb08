"""Pixel-level self-supervised pretraining and few-shot landmark detection for medical images, on MONAI."""

__version__ = "0.1.0"
