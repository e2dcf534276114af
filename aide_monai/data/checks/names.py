"""Whether label files call their values what the datalist and other files call them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from aide_monai.data.datalist import Datalist
from aide_monai.errors import Problem
from aide_monai.io.segments import Segment, plain_name

_ADVICE = "number the segments alike in all files, or correct the names"


def name_problems(
    segments: Sequence[Segment], case: str, file: str, datalist: Datalist, called: dict[int, tuple[Segment, str]]
) -> Iterator[Problem]:
    """Segments of another name than the datalist has for their value, or other files have.

    Parts that become one class may have names of their own, but not those of other classes.

    Args:
        segments: of the file, by label value.
        case, file: named in the problems.
        datalist: its "labels" are the expected names, but for those that name nothing, such as "label 1".
        called: label value to the first segment of that value and its case; new ones are added.
    """
    classes = datalist.stored_classes
    parts = Counter(classes.values())
    for one in segments:
        index = classes.get(one.value, 0)
        if not one.known_as or index not in datalist.labels or not index:
            continue
        expected = plain_name(datalist.labels[index])
        others = {plain_name(name) for number, name in datalist.labels.items() if number != index} - {""}
        found = f'value {one.value} is "{one}"'
        wrong = bool(expected) and expected not in one.known_as
        if wrong and (parts[index] == 1 or not others.isdisjoint(one.known_as)):
            yield Problem(found, f'"{datalist.labels[index]}", as the datalist calls it', _ADVICE, file, case)
            continue
        first, place = called.setdefault(one.value, (one, case))
        if set(first.known_as).isdisjoint(one.known_as):
            yield Problem(found, f'"{first}", as in case "{place}"', _ADVICE, file, case)
