"""Positives as the original finds them: a one-hot map is turned with the crop, its greatest value is the partner."""

import math

import numpy as np
from scipy.ndimage import rotate


def one_hot_positive(pixel, crop, degrees):
    """Where a pixel of a square crop lies after the crop was turned: cubic spline, zero fill, argmax."""
    one_hot = np.zeros((crop, crop))
    one_hot[pixel] = 1.0
    turned = rotate(one_hot, degrees, reshape=False, order=3, mode="constant", cval=0.0)
    return np.unravel_index(turned.argmax(), turned.shape)


def turned_point(pixel, crop, degrees):
    """The same from the equation of a turn about the middle of the crop, between pixels."""
    middle = (crop - 1) / 2
    row, column = pixel[0] - middle, pixel[1] - middle
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return middle + cosine * row - sine * column, middle + sine * row + cosine * column
