"""Recording: the same bits for any combination of layers, and clear errors."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

import saevx.recording.broken_images
import saevx.vit.model
from saevx.errors import DatasetError, RecipeError, SpecError
from saevx.recording.batches import AHEAD, batches
from saevx.recording.forward_pass import Overflow, record, round_tokens
from saevx.recording.layer_part import SHARD_BYTES, WHOLE_BATCHES, images_per_file
from saevx.recording.moments import Moments
from saevx.recording.recipe import check, record_shards
from saevx.resolve.context import Context
from saevx.resolve.run_recipe import make
from saevx.vit.model import LoadedViT, ViTFacts, inspect_vit, load_vit
from saevx.vit.preprocess import Preprocess
from spec import ImageFolder, ImageSet, Keys, RandomInit, Shards, Site, Squash, ViT
from spec.files.digests import digest_file
from spec.files.listing import Listing, list_files
from spec.files.site import Fingerprint
from store import Store

VIT = ViT(name="test_vit", weights=RandomInit(seed=0), resize=Squash(size=32))
"""6 blocks, 64 wide, one class token, 2 x 2 patches."""

N_IMAGES, BATCH_SIZE = 11, 4


def picture(i: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8))


class Pictures:
    """An image reader in memory; the images `broken` cannot be decoded."""

    def __init__(self, n: int = N_IMAGES, broken: Collection[int] = ()) -> None:
        self.files = [f"{i}.png" for i in range(n)]
        self.broken = broken
        self.n_loaded = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.files)

    def load(self, i: int) -> Image.Image:
        with self._lock:
            self.n_loaded += 1
        if i in self.broken:
            raise DatasetError(f"cannot decode {self.files[i]}")
        return picture(i)


class Memory:
    """A sink that keeps its tokens in memory."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.tokens: list[torch.Tensor] = []

    def append(self, names, tokens_bnd, grid):
        assert grid == (2, 2)
        self.names += names
        self.tokens.append(tokens_bnd)

    @property
    def all(self) -> torch.Tensor:
        return torch.cat(self.tokens)


@pytest.fixture(scope="module")
def vit() -> LoadedViT:
    return load_vit(VIT)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> ImageFolder:
    root = tmp_path_factory.mktemp("images")
    for i in range(N_IMAGES):
        picture(i).save(root / f"{i:02}.png")
    return ImageFolder(root=str(root))


def shards(images: ImageFolder, layer: int, **fields) -> Shards:
    return Shards(images=images, vit=VIT, layer=layer, batch_size=BATCH_SIZE, **fields)


def run(specs: list[Shards], store: Path, progress=None):
    """Return the artifacts made and the errors of a batch, by layer."""
    keys = Keys(Site())
    with Context(keys, Store(store)).batch(tuple(specs), progress) as batch:
        make(record_shards, batch)
    layer_of = {keys.of(spec): spec.layer for spec in specs}
    made = {layer_of[key]: artifact for key, artifact in batch.made.items()}
    return made, {layer_of[key]: error for key, error in batch.failed.items()}


def test_stored_tokens_equal_the_output_of_the_vit(vit, images, tmp_path):
    """Compare with a loop without prefetching, sinks or drafts."""
    seen: list[tuple[int, int, str]] = []
    made, failed = run(
        [shards(images, 1), shards(images, 4)], tmp_path, lambda *now: seen.append(now)
    )
    assert not failed
    assert seen == [(4, 11, "images"), (8, 11, "images"), (11, 11, "images")]
    preprocess = Preprocess.of(VIT.resize, vit.facts)
    pixels = np.stack([preprocess(picture(i)) for i in range(N_IMAGES)])
    for layer in (1, 4):
        expected = torch.cat(
            [vit.residual(torch.from_numpy(pixels[[i] * BATCH_SIZE]), [layer])[layer][:1]
             for i in range(N_IMAGES)]
        ).numpy()  # fmt: skip
        rounded = expected[:, 1:].astype(np.float16)
        tokens = record_shards.load(made[layer])
        np.testing.assert_array_equal(tokens.patches.read(), rounded)
        np.testing.assert_array_equal(tokens.cls.read(), expected[:, :1])
        assert tokens.images == [f"{i:02}.png" for i in range(N_IMAGES)]
        flat = rounded.reshape(-1, 64).astype(np.float64)
        np.testing.assert_allclose(tokens.mean, flat.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(tokens.variance, flat.var(axis=0).sum(), rtol=1e-12)
        np.testing.assert_allclose(tokens.mean_square, (flat**2).sum(axis=1).mean(), rtol=1e-12)


def test_layers_recorded_together_equal_layers_recorded_alone(images, tmp_path):
    together, _ = run([shards(images, layer) for layer in range(6)], tmp_path / "together")
    for layer in range(6):
        alone, _ = run([shards(images, layer)], tmp_path / "alone")
        assert alone[layer].manifest.files == together[layer].manifest.files
        assert alone[layer].manifest.attributes == together[layer].manifest.attributes


def test_parts_equal_the_whole(vit):
    whole = {layer: Memory() for layer in (2, 5)}
    parts = {layer: Memory() for layer in (2, 5)}
    options = {"batch_size": BATCH_SIZE}
    record(Pictures(), vit, VIT.resize, whole, **options)
    for start, stop in [(0, 4), (4, 8), (8, None)]:
        record(Pictures(), vit, VIT.resize, parts, start=start, stop=stop, **options)
    for layer, sink in whole.items():
        assert sink.names == parts[layer].names == Pictures().files
        assert torch.equal(sink.all, parts[layer].all)


@given(st.integers(1, 30), st.integers(1, 9), st.integers(1, 4))
def test_every_batch_has_the_same_shape(n, batch_size, n_decoders):
    def preprocess(image):
        return np.full((3, 2, 2), image, np.float32)

    class Numbers(Pictures):
        def load(self, i):
            return i + 1

    stream = batches(Numbers(n), preprocess, batch_size=batch_size, n_decoders=n_decoders)
    seen = []
    for batch in stream:
        assert batch.pixels_bchw.shape == (batch_size, 3, 2, 2)
        assert not batch.pixels_bchw[batch.n :].any()
        assert batch.start == len(seen)
        seen += batch.pixels_bchw[: batch.n, 0, 0, 0].tolist()
    assert seen == list(range(1, n + 1))


def test_decoding_runs_ahead_by_a_bounded_number():
    source = Pictures(100)
    stream = batches(source, lambda image: np.zeros((3, 2, 2), np.float32), batch_size=5)
    next(stream)
    deadline = time.monotonic() + 240
    while source.n_loaded < (AHEAD + 1) * 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)  # were it to run away, it would now
    assert source.n_loaded == (AHEAD + 1) * 5
    stream.close()
    assert source.n_loaded == (AHEAD + 1) * 5
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def test_an_image_that_cannot_be_decoded_ends_the_recording(vit):
    sink = Memory()
    with pytest.raises(DatasetError, match=r"cannot decode 9\.png"):
        record(Pictures(broken=[9]), vit, VIT.resize, {0: sink}, batch_size=BATCH_SIZE)
    assert sink.names == Pictures().files[:8]
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


def decode_all(source: Pictures, start: int = 0, **options) -> None:
    def preprocess(image):
        return np.zeros((3, 2, 2), np.float32)

    for _ in batches(source, preprocess, batch_size=BATCH_SIZE, start=start, **options):
        pass


@given(st.sets(st.integers(0, 79), min_size=1, max_size=30), st.integers(0, 10))
def test_one_error_names_all_broken_images(broken, first_batch):
    start = first_batch * BATCH_SIZE
    if not any(i >= start for i in broken):
        return decode_all(Pictures(80, broken), start)
    with pytest.raises(DatasetError) as caught:
        decode_all(Pictures(80, broken), start)
    message = str(caught.value)
    lines = message.splitlines()
    first = min(i for i in broken if i >= start)
    in_order = sorted(broken, key=lambda i: (i < first, i))
    told = [f"cannot decode {i}.png" for i in in_order]
    if len(broken) == 1:
        assert lines == told
        return None
    assert lines[0] == f"{len(broken)} images are broken:"
    assert lines[1:11] == told[:10]
    assert lines[11:] == ([f"... and {len(broken) - 10} more"] if len(broken) > 10 else [])
    return None


def test_broken_files_are_named(tmp_path):
    for i in range(N_IMAGES):
        picture(i).save(tmp_path / f"{i:02}.png")
    for i in (3, 8):
        (tmp_path / f"{i:02}.png").write_bytes(b"this is no image")
    broken = ImageFolder(root=str(tmp_path))
    seen: list[tuple[int, int, str]] = []
    with pytest.raises(DatasetError) as caught:
        run([shards(broken, 1)], tmp_path / "store", lambda *now: seen.append(now))
    header, *lines = str(caught.value).splitlines()
    assert header == "2 images are broken:"
    for line, name in zip(lines, ("03.png", "08.png"), strict=True):
        assert line.startswith(f"cannot decode {tmp_path / name} (16 bytes): cannot identify image")
        assert "object at" not in line
    assert {unit for _, _, unit in seen} == {"images checked"}


def test_the_check_of_other_images_takes_bounded_time(monkeypatch):
    monkeypatch.setattr(saevx.recording.broken_images, "BUDGET_S", 0.3)
    monkeypatch.setattr(saevx.recording.broken_images, "REPORT_S", 0.05)

    class Slow(Pictures):
        def load(self, i):
            time.sleep(0.02)
            return super().load(i)

    source, seen = Slow(1000, [1]), []
    with pytest.raises(DatasetError) as caught:
        decode_all(source, n_decoders=2, on_check=seen.append)
    told = re.fullmatch(
        r"cannot decode 1\.png\n(\d+) images were not checked, to limit the time",
        str(caught.value),
    )
    assert told
    assert 800 < int(told[1]) < 1000
    assert seen == sorted(seen)
    assert 0 < len(seen) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("decode")]


@pytest.fixture
def loud(monkeypatch):
    """Make a ViT whose block 3 adds `value` to one channel and whose block 4 subtracts it again."""

    def install(value: float) -> None:
        def load(spec: ViT, site: Site) -> LoadedViT:
            loaded = load_vit(spec, site=site)
            blocks = loaded.model.blocks
            for block, sign in ((blocks[3], 1.0), (blocks[4], -1.0)):
                block.mlp.fc2.bias.data[7] = (
                    sign * value / block.ls2.gamma[7]
                    if hasattr(block.ls2, "gamma")
                    else sign * value
                )
            return loaded

        monkeypatch.setattr(saevx.vit.model, "load_vit", load)

    return install


def test_an_overflow_fails_its_layer_alone(images, tmp_path, loud):
    loud(1e5)
    made, failed = run([shards(images, layer) for layer in (2, 3, 5)], tmp_path)
    assert sorted(made) == [2, 5]
    assert sorted(failed) == [3]
    assert isinstance(failed[3], RecipeError)
    message = str(failed[3])
    for part in ("'00.png'", "layer 3", "float16", "65,504", 'dtype="float32"', "100,0"):
        assert part in message
    alone, _ = run([shards(images, 5)], tmp_path / "alone")
    assert alone[5].manifest.files == made[5].manifest.files
    stored, failed = run([shards(images, 3, dtype="float32")], tmp_path)
    assert not failed
    assert record_shards.load(stored[3]).patches.read().max() > 65504


def test_nan_fails_in_every_dtype(images, tmp_path, loud):
    loud(float("nan"))
    made, failed = run([shards(images, i, dtype="float32") for i in (2, 3)], tmp_path)
    assert sorted(made) == [2]
    assert "layer 3 of image '00.png' has the value nan" in str(failed[3])
    assert "use Shards" not in str(failed[3])


def test_the_failing_image_is_named():
    tokens = torch.zeros(3, 5, 8)
    tokens[1, 4, 2] = -7e4
    with pytest.raises(Overflow, match=r"layer 9 of image 'b' has the value -70,000"):
        round_tokens(tokens, "float16", 9, ["a", "b", "c"])
    assert round_tokens(tokens, "float32", 9, ["a", "b", "c"]).min() == np.float32(-7e4)


def facts_of(n_prefix: int, has_cls: bool, grid=(2, 2), d_model: int = 8) -> ViTFacts:
    return ViTFacts(d_model, 6, n_prefix, has_cls, grid, (0, 0, 0), (1, 1, 1), "bicubic")


@pytest.mark.parametrize(
    ("prefix", "kept"),
    [("cls", {"cls": 1}), ("all", {"cls": 1, "registers": 4}), ("none", {})],
)
def test_tokens_before_the_patches_are_kept_as_asked_for(prefix, kept, images, tmp_path):
    name = "vit_small_patch14_reg4_dinov2"
    vit = ViT(name=name, weights=RandomInit(), resize=Squash(size=28))
    spec = Shards(images=images, vit=vit, layer=0, prefix=prefix, batch_size=BATCH_SIZE)
    made, failed = run([spec], tmp_path)
    assert not failed
    tokens = record_shards.load(made[0])
    found = {"cls": tokens.cls, "registers": tokens.registers}
    assert {name: array.shape[1] for name, array in found.items() if array is not None} == kept
    assert all(array.dtype == np.float32 for array in found.values() if array is not None)
    loaded = load_vit(vit)
    pixels = Preprocess.of(vit.resize, loaded.facts)(picture(3))
    expected = loaded.residual(torch.from_numpy(np.stack([pixels] * BATCH_SIZE)), [0])[0][0]
    if "registers" in kept:
        np.testing.assert_allclose(tokens.registers[3], expected[1:5], rtol=1e-4, atol=1e-5)
    if "cls" in kept:
        np.testing.assert_allclose(tokens.cls[3], expected[:1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(tokens.patches[3], expected[5:], rtol=1e-2, atol=1e-3)


def test_a_class_token_too_large_for_float16_leaves_the_patches(images, tmp_path, monkeypatch):
    real = LoadedViT.residual

    def residual(self, pixels, layers):
        acts = {layer: tokens.clone() for layer, tokens in real(self, pixels, layers).items()}
        for tokens in acts.values():
            tokens[:, 0] = 1e6
        return acts

    monkeypatch.setattr(LoadedViT, "residual", torch.inference_mode()(residual))
    made, failed = run([shards(images, 2)], tmp_path)
    assert not failed
    assert float(record_shards.load(made[2]).cls[0].max()) == 1e6


@given(st.integers(1, 200_000), st.integers(1, 64), st.integers(1, 2000),
       st.sampled_from(["float16", "float32"]))  # fmt: skip
def test_a_file_has_at_least_its_size_and_hardly_more(n_images, side, d, dtype):
    n = images_per_file(n_images, facts_of(1, True, (side, side), d), dtype)
    n_bytes = side * side * d * np.dtype(dtype).itemsize
    assert 1 <= n <= n_images
    if n < n_images:
        assert SHARD_BYTES <= n * n_bytes <= 4 * SHARD_BYTES
        assert n < WHOLE_BATCHES or n % WHOLE_BATCHES == 0
        assert n <= WHOLE_BATCHES or (n - WHOLE_BATCHES) * n_bytes < SHARD_BYTES


def test_another_batch_size_gives_the_same_numbers_to_rounding(images, tmp_path):
    spec = shards(images, 3, dtype="float32")
    other = spec.model_copy(update={"batch_size": 3})
    keys = Keys(Site())
    assert keys.of(spec) == keys.of(other)
    (one, _), (two, _) = run([spec], tmp_path / "one"), run([other], tmp_path / "two")
    again, _ = run([spec], tmp_path / "again")
    assert again[3].manifest.files == one[3].manifest.files
    for name in ("patches", "cls"):
        np.testing.assert_allclose(
            one[3].array(name).read(), two[3].array(name).read(), rtol=1e-4, atol=1e-5
        )
    assert [made[3].manifest.attributes["computed"][0]["batch_size"] for made in (one, two)] == [
        BATCH_SIZE,
        3,
    ]
    assert one[3].manifest.attributes["computed"][0]["threads"] == torch.get_num_threads()
    assert one[3].manifest.attributes["mean"] == list(inspect_vit(VIT).mean)


def test_few_images_make_small_files(images, tmp_path):
    made, _ = run([shards(images, 2)], tmp_path)
    payload = N_IMAGES * (4 + 1) * 64 * 2
    assert sum(file.size for file in made[2].manifest.files.values()) < payload + 10_000


TOKENS = hnp.arrays(
    np.float16, st.tuples(st.integers(2, 12), st.integers(1, 5), st.integers(1, 4)),
    elements=st.floats(-100, 100, width=16),
)  # fmt: skip


@given(TOKENS, st.data())
def test_moments_are_those_of_numpy_in_any_parts(tokens_npd, data):
    flat = tokens_npd.reshape(-1, tokens_npd.shape[-1]).astype(np.float64)
    cuts = data.draw(st.lists(st.integers(0, len(tokens_npd)), max_size=3).map(sorted))
    merged = Moments(flat.shape[1])
    for part in np.split(tokens_npd, cuts):
        moments = Moments(flat.shape[1])
        for image in part:
            moments.add_image(image)
        merged.merge(moments)
    assert merged.n_tokens == len(flat)
    np.testing.assert_allclose(merged.mean, flat.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(merged.variance, flat.var(axis=0).sum(), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(merged.mean_square, (flat**2).sum(axis=1).mean(), rtol=1e-9)


def test_equal_tokens_have_no_variance():
    for value in np.linspace(0.1, 3, 30):
        moments = Moments(5)
        moments.add_image(np.full((7, 5), value))
        assert 0 <= moments.variance < 1e-12  # rounding alone would make some negative


def test_preflight_names_every_fault(images, tmp_path):
    unknown = ViT(name="vit_smal", weights=RandomInit())
    specs = [
        shards(images, 2),
        shards(images, 6),
        shards(images, 17),
        Shards(images=images, vit=unknown, layer=0),
    ]
    check(specs[:1], Site())
    with pytest.raises(SpecError) as caught:
        check(specs, Site())
    message = str(caught.value)
    assert "test_vit has no layer 6, 17: its 6 blocks are layers 0 to 5" in message
    assert "no model 'vit_smal'" in message


class Chosen(ImageFolder):
    """As a user may declare a set: with a field that cannot be hashed."""

    names: list[str]

    def listing(self, site: Site) -> Listing:
        return list_files(self.folder(site), self.names.__contains__)


def test_preflight_accepts_specs_that_cannot_be_hashed(images):
    chosen = Chosen(root=images.root, names=["01.png"])
    check([Shards(images=chosen, vit=VIT, layer=5)], Site())
    with pytest.raises(SpecError, match="no layer 6"):
        check([Shards(images=chosen, vit=VIT, layer=6)], Site())


def test_preflight_refuses_image_sets_without_images():
    class NoImages(ImageSet):
        def fingerprint(self, site: Site) -> Fingerprint:
            return Fingerprint("0" * 32, 0)

    with pytest.raises(SpecError, match=r"NoImages\(.*has no images: choose another split"):
        check([shards(NoImages(), 2)], Site())


def test_preflight_names_an_unusable_device(images, monkeypatch):
    monkeypatch.setenv("SAEVX_DEVICE", "abacus")
    with pytest.raises(SpecError, match="SAEVX_DEVICE=abacus"):
        check([shards(images, 2)], Site())


def test_threads_do_not_change_the_recording(vit):
    """On this CPU, at this size; only independence of place, batch and parts is promised."""
    found = []
    before = torch.get_num_threads()
    try:
        for n_threads in (1, 2):
            torch.set_num_threads(n_threads)
            sink = Memory()
            record(
                Pictures(), vit, VIT.resize, {5: sink}, batch_size=BATCH_SIZE, n_decoders=n_threads
            )
            found.append(sink.all)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


class TestChangedImages:
    """Layers of one ViT must not be recorded from different pictures."""

    @pytest.fixture
    def images(self, images, tmp_path):
        return ImageFolder(root=str(shutil.copytree(images.root, tmp_path / "images")))

    @staticmethod
    def change(images: ImageFolder) -> None:
        """Write another picture of the same size in bytes, with the same mtime."""
        path = Path(images.root) / "03.png"
        was, data = path.stat(), bytearray(path.read_bytes())
        data[-20] ^= 1
        path.write_bytes(data)
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def test_a_set_identified_by_content_gets_a_new_key(self, images, tmp_path):
        spec = shards(images, 1)
        before = Keys(Site(cache=tmp_path)).of(spec)
        self.change(images)
        assert Keys(Site(cache=tmp_path)).of(spec) != before

    def test_a_set_identified_by_listing_is_compared_with_earlier_recordings(
        self, images, tmp_path
    ):
        listed = images.model_copy(update={"identity": "listing"})
        made, _ = run([shards(listed, 1)], tmp_path)
        digests = made[1].array("xxh3").read()
        names = made[1].table("images")["file"]
        expected = [digest_file(Path(images.root) / name) for name in names]
        assert [row.tobytes().hex() for row in digests] == expected
        made, failed = run([shards(listed, 2)], tmp_path)
        assert not failed
        np.testing.assert_array_equal(made[2].array("xxh3").read(), digests)
        self.change(images)
        assert Keys(Site()).of(shards(listed, 2)) == made[2].key
        with pytest.raises(DatasetError, match=r"03\.png does not hold the bytes that it had when"):
            run([shards(listed, 3)], tmp_path)
