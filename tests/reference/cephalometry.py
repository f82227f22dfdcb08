"""Some measurements from school geometry: law of cosines and slopes, one face that looks right, x right and y down."""

import math

Point = tuple[float, float]
Face = dict[str, Point]


def corner(first: Point, vertex: Point, last: Point) -> float:
    """Angle at the vertex by the law of cosines, in degrees."""
    a, b, c = math.dist(vertex, first), math.dist(vertex, last), math.dist(first, last)
    return math.degrees(math.acos((a * a + b * b - c * c) / (2 * a * b)))


def slope(start: Point, end: Point) -> float:
    """How steeply a line that runs to the right goes down, in degrees."""
    return math.degrees(math.atan((end[1] - start[1]) / (end[0] - start[0])))


def height_above(point: Point, start: Point, end: Point) -> float:
    """Distance from a line by the area of a triangle (Heron), without sign."""
    a, b, c = math.dist(point, start), math.dist(point, end), math.dist(start, end)
    half = (a + b + c) / 2
    return 2 * math.sqrt(max(half * (half - a) * (half - b) * (half - c), 0.0)) / c


def measure_face(p: Face) -> dict[str, float]:
    """Measurements by name."""
    sna, snb = corner(p["S"], p["N"], p["A"]), corner(p["S"], p["N"], p["B"])
    saddle, articular = corner(p["N"], p["S"], p["Ar"]), corner(p["S"], p["Ar"], p["Go"])
    gonial = corner(p["Ar"], p["Go"], p["Me"])
    frankfort, palate, mandible = slope(p["Po"], p["Or"]), slope(p["PNS"], p["ANS"]), slope(p["Go"], p["Me"])
    bisector = math.radians((palate + mandible) / 2)
    from_b = (p["A"][0] - p["B"][0], p["A"][1] - p["B"][1])
    return {
        "SNA": sna,
        "SNB": snb,
        "ANB": sna - snb,
        "FMA": mandible - frankfort,
        "SN-GoGn": slope(p["Go"], p["Gn"]) - slope(p["S"], p["N"]),
        "FH-PP": palate - frankfort,
        "PP-MP": mandible - palate,
        "Y axis": slope(p["S"], p["Gn"]) - frankfort,
        "Gonial angle": gonial,
        "Björk sum": saddle + articular + gonial,
        "Jarabak ratio": 100 * math.dist(p["S"], p["Go"]) / math.dist(p["N"], p["Me"]),
        "LAFH ratio": 100 * math.dist(p["ANS"], p["Me"]) / math.dist(p["N"], p["Me"]),
        "SN length": math.dist(p["S"], p["N"]),
        "MM-Wits": from_b[0] * math.cos(bisector) + from_b[1] * math.sin(bisector),
        "Li-SnPog'": height_above(p["Li"], p["Sn"], p["Pog'"]),
    }
