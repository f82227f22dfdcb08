"""Landmarks: named points of one image, heatmaps, metrics."""
