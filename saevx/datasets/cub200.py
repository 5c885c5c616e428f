"""The attribute labels of CUB-200-2011.

attributes.txt has a line "<attribute id> <name>" per attribute. image_attribute_labels.txt has a
line

    <image id> <attribute id> <is present: 0 or 1> <certainty: 1 to 4> <seconds>

for each of 11,788 x 312 pairs. In the published file the lines of images 2275 and 9364 have a stray
column, as in "2275 10 0 1 0  1.509", so only the first four columns are read.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence, Set
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saevx.datasets.labels import Labels, read_traits, trait_names
from spec import DatasetError, Site
from spec.images.cub200 import CUB200, find_labels, read_image_names, read_pairs

_NUMBER = re.compile("[0-9]{1,9}")
_ROW = re.compile(r"\s*([0-9]{1,9})\s+([0-9]{1,9})\s+[01]\s+[1-4](?:\s|$)")

SHOWN = 5
"""Most faults listed in an error."""


@read_traits.register
def _read(trait_set: CUB200, site: Site) -> Labels:
    files = find_labels(site.data_root("cub200", trait_set.root))
    names, attributes = read_image_names(files.images), read_pairs(files.attributes)
    image_ids, attribute_ids = sorted(names), sorted(attributes)
    y = read_table(files.labels, image_ids, attribute_ids, trait_set.min_certainty)
    images = tuple(names[number] for number in image_ids)
    return Labels(images, tuple(attributes[number] for number in attribute_ids), y)


@trait_names.register
def _names(trait_set: CUB200, site: Site) -> tuple[str, ...]:
    attributes = read_pairs(find_labels(site.data_root("cub200", trait_set.root)).attributes)
    return tuple(attributes[number] for number in sorted(attributes))


def read_table(
    path: Path, image_ids: Sequence[int], attribute_ids: Sequence[int], min_certainty: int
) -> NDArray[np.bool_]:
    """Return what is present with at least `min_certainty`: (n_images, n_attributes).

    Ids must be sorted. Raises DatasetError naming malformed lines, or pairs that do not occur
    exactly once.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty file: the pairs are counted below
            rows = np.loadtxt(path, np.int64, comments=None, usecols=(0, 1, 2, 3), ndmin=2)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise _faults(path, image_ids, attribute_ids, str(error)) from error
    image, attribute, present, certainty = rows.reshape(-1, 4).T
    i, i_known = _place(image, image_ids)
    a, a_known = _place(attribute, attribute_ids)
    sound = i_known & a_known & _within(present, 0, 1) & _within(certainty, 1, 4)
    if not sound.all():
        raise _faults(path, image_ids, attribute_ids, f"{(~sound).sum()} lines are out of range")
    _check_each_once(path, i * len(attribute_ids) + a, image_ids, attribute_ids)
    y = np.zeros((len(image_ids), len(attribute_ids)), np.bool_)
    y[i, a] = (present == 1) & (certainty >= min_certainty)
    return y


def _place(
    values: NDArray[np.int64], known: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the place of each value within the sorted `known`, and whether it is one of them."""
    ids = np.asarray(known, np.int64)
    places = np.searchsorted(ids, values).clip(max=len(ids) - 1).astype(np.int64)
    return places, ids[places] == values


def _within(values: NDArray[np.int64], low: int, high: int) -> NDArray[np.bool_]:
    return (values >= low) & (values <= high)


def _check_each_once(
    path: Path, pairs: NDArray[np.int64], image_ids: Sequence[int], attribute_ids: Sequence[int]
) -> None:
    """Raise DatasetError unless each of the n_images x n_attributes pairs occurs once."""
    counts = np.bincount(pairs, minlength=len(image_ids) * len(attribute_ids))
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        shown = [
            f"image {image_ids[pair // len(attribute_ids)]}, "
            f"attribute {attribute_ids[pair % len(attribute_ids)]}: {counts[pair]} lines"
            for pair in wrong[:SHOWN].tolist()
        ]
        raise DatasetError(
            f"{path} must have one line for each of {len(image_ids):,} images and "
            f"{len(attribute_ids)} attributes; {len(wrong):,} pairs differ: {'; '.join(shown)}"
            f"{'; ...' if len(wrong) > SHOWN else ''}; download the file again"
        )


def _faults(
    path: Path, image_ids: Sequence[int], attribute_ids: Sequence[int], otherwise: str
) -> DatasetError:
    """Return the error that names the malformed lines, found one by one."""
    images, attributes = set(image_ids), set(attribute_ids)
    found: list[str] = []
    with path.open(encoding="utf-8", errors="backslashreplace") as lines:
        for number, line in enumerate(lines, start=1):
            row = _ROW.match(line)
            if row and int(row[1]) in images and int(row[2]) in attributes:
                continue
            words = line.split()[:4]
            if words and (why := _fault(words, images, attributes)):
                found.append(f"line {number} ({line.strip()[:60]!r}): {why}")
    shown = found[:SHOWN] or [otherwise]
    more = f"; and {len(found) - SHOWN:,} more" if len(found) > SHOWN else ""
    return DatasetError(f"{path}: {'; '.join(shown)}{more}")


def _fault(words: list[str], images: Set[int], attributes: Set[int]) -> str:
    if len(words) < 4 or not all(_NUMBER.fullmatch(word) for word in words):
        return "must begin with four numbers"
    image, attribute, present, certainty = map(int, words)
    faults = {
        f"no image has the id {image}": image not in images,
        f"no attribute has the id {attribute}": attribute not in attributes,
        f"is_present is {present}, not 0 or 1": present not in (0, 1),
        f"the certainty is {certainty}, not 1 to 4": not 1 <= certainty <= 4,
    }
    return "; ".join(fault for fault, true in faults.items() if true)
