"""OpenMoji: rendered drawings, words of their names as traits, and masks of their parts."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections import Counter
from functools import partial
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saevx.datasets.images import Decode, decoder
from saevx.datasets.labels import Labels, read_traits, trait_names
from spec import DatasetError, Site
from spec.images.openmoji import OpenMoji, OpenMojiImages, emojis

STOP_WORDS = frozenset(
    [
        "&",
        "a",
        "and",
        "at",
        "by",
        "for",
        "from",
        "in",
        "of",
        "on",
        "or",
        "the",
        "to",
        "with",
        "without",
    ]
)
"""Words that do not describe a picture."""

PARTS = ("color", "skin", "hair", "line")
"""The layers of OpenMoji drawings: coloured areas, skin, hair, and the outlines on top."""

_LAYER = re.compile(rf"({'|'.join(PARTS)})(?:[-_].*)?")

ET.register_namespace("", "http://www.w3.org/2000/svg")


@decoder.register
def _decoder(images: OpenMojiImages) -> Decode:
    return partial(render, size=images.size)


@read_traits.register
def _read(trait_set: OpenMoji, site: Site) -> Labels:
    drawings = emojis(trait_set.skin_tones)
    words = [words_of(emoji.name) for emoji in drawings]
    traits = trait_names(trait_set, site)
    y = np.array([[trait in own for trait in traits] for own in words], np.bool_)
    return Labels(tuple(emoji.file for emoji in drawings), traits, y.reshape(-1, len(traits)))


@trait_names.register
def _names(trait_set: OpenMoji, site: Site) -> tuple[str, ...]:
    drawings = emojis(trait_set.skin_tones)
    counts = Counter(word for emoji in drawings for word in words_of(emoji.name))
    traits = sorted(word for word, n in counts.items() if n >= trait_set.min_images)
    if not traits:
        raise DatasetError(
            f"no word is in the names of {trait_set.min_images} of the {len(drawings):,} drawings: "
            f"the most frequent, {counts.most_common(1)[0][0]!r}, is in "
            f"{counts.most_common(1)[0][1]}; lower min_images"
        )
    return tuple(traits)


def words_of(name: str) -> frozenset[str]:
    """Return the words of an emoji's name, such as "O_button_(blood_type)".

    Names are split at "_" and "-". Case is kept: "NO" is a gesture, "no" a prohibition.
    """
    return frozenset(re.split("[_-]", name)) - STOP_WORDS - {""}


def render(svg: bytes, size: int) -> Image.Image:
    """Render a drawing on white: RGB, `size` x `size` pixels."""
    return _render(svg, size, background="white").convert("RGB")


def part_masks(svg: bytes, size: int) -> NDArray[np.bool_]:
    """Return masks of where each of PARTS is drawn: (n_parts, size, size).

    Each part is rendered alone; its mask holds the pixels that are at least half opaque. So masks
    overlap where one part covers another, and the mask of a missing part is empty. Raises
    DatasetError when the bytes are not an SVG.
    """
    try:
        root = ET.fromstring(svg)
    except ET.ParseError as error:
        raise DatasetError(f"not an SVG drawing: {error}") from error
    masks = []
    for part in PARTS:
        alone = _only(root, part, inside=None)
        alpha = _render(ET.tostring(alone), size).convert("RGBA").getchannel("A")
        masks.append(np.asarray(alpha) >= 128)
    return np.stack(masks)


def _only(element: ET.Element, part: str, inside: str | None) -> ET.Element:
    """Copy `element`, which is in a layer of the part `inside`, so that only `part` is drawn."""
    copy = ET.Element(element.tag, element.attrib)
    copy.text = element.text
    for child in element:
        layer = _LAYER.fullmatch(child.get("id", ""))
        within = layer[1] if layer else inside
        if len(child) or within == part:
            copy.append(_only(child, part, within))
    return copy


def _render(svg: bytes, size: int, background: str | None = None) -> Image.Image:
    import resvg_py

    png = resvg_py.svg_to_bytes(
        svg_string=svg.decode("utf-8"),
        width=size,
        height=size,
        background=background,
        skip_system_fonts=True,  # a rendering must not depend on installed fonts
    )
    return Image.open(BytesIO(bytes(png)))
