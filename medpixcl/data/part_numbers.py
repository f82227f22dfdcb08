"""Numbers of the parts of a divided scan or run: how they are checked, written as names, and told in messages."""

from collections.abc import Iterable, Sequence

from medpixcl.data.paths import shown_value

_SHOWN = 10


def check_part(part_id: int | None, num_parts: int | None) -> None:
    """Check the number of a part and the number of all parts.

    Raises:
        ValueError: If one is no whole number, or there is no such part.
    """
    for name, value in (("num_parts", num_parts), ("part_id", part_id)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise ValueError(f"{name} is {shown_value(value)}; expected a whole number")
    if num_parts is not None and num_parts < 1:
        raise ValueError(f"num_parts is {num_parts}; expected at least 1")
    if part_id is not None and (num_parts is None or not 0 <= part_id < num_parts):
        counted = f"there are {num_parts} parts, counted from 0"
        if num_parts is None:
            counted = "their number is unknown; give num_parts"
        raise ValueError(f"part_id={part_id} is no part: {counted}")


def part_name(part_id: int, num_parts: int) -> str:
    """Name of the folder or file of a part.

    Example:
        >>> part_name(2, 4)
        '2-of-4'
    """
    return f"{part_id}-of-{num_parts}"


def other_number(names: Iterable[str], num_parts: int | None) -> int | None:
    """Number of parts that one of some names says, other than the expected one; None if none does.

    Args:
        names: Names that may be those of parts, see :func:`part_name`.
        num_parts: Number of parts that is expected; None expects no parts.

    Example:
        >>> other_number(["0-of-4", "notes"], 4), other_number(["0-of-4", "0-of-3"], 4)
        (None, 3)
    """
    said = (number for _, sign, number in (name.partition("-of-") for name in sorted(names)) if sign)
    numbers = (int(number) for number in said if number.isdecimal() and number.isascii())
    return next((number for number in numbers if number != num_parts), None)


def named_parts(numbers: Sequence[int]) -> str:
    """Numbers of parts for a message, of many the first ones.

    Example:
        >>> named_parts([3]), named_parts([0, 2])
        ('part 3', 'parts 0, 2')
    """
    named, more = ", ".join(map(str, numbers[:_SHOWN])), len(numbers) - _SHOWN
    return f"{'part' if len(numbers) == 1 else 'parts'} {named}" + (f" and {more} more" if more > 0 else "")
