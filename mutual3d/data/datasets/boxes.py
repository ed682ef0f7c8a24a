"""A box in the columns of a csv: normalised xyxy, read strictly."""

from collections.abc import Sequence

from mutual3d.data.datasets.lists import parse_decimal, shown

# A normalised xyxy box.
Box = tuple[float, float, float, float]


def parse_box(texts: Sequence[str]) -> Box:
    """(x1, y1, x2, y2) of the four columns `texts`; ValueError, in words, where they are no box in [0, 1] of the frame."""
    numbers = [number for text in texts if (number := parse_decimal(text)) is not None]
    if len(numbers) != 4:
        raise ValueError(f"{shown(','.join(texts))} are not four numbers x1,y1,x2,y2")
    x1, y1, x2, y2 = numbers
    if not all(0 <= value <= 1 for value in numbers):
        raise ValueError("the box leaves [0, 1]: divide x by the frame's width and y by its height, and clip")
    if x1 >= x2 or y1 >= y2:
        raise ValueError("the box is empty: x1 must be below x2 and y1 below y2")
    return x1, y1, x2, y2
