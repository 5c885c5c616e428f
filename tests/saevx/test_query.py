"""Searching a store: conditions, their order, and tables over what is found."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import saevx
from saevx import QueryError, SaevxWarning, SpecError
from saevx.notebook import run, table
from saevx.query.conditions import parse
from saevx.query.flatten import explode, facts_of
from saevx.query.search import BUILT_IN, bare_name, in_order, search
from saevx.resolve.batch import Batch
from saevx.resolve.recipe import recipe
from saevx.workspace import Workspace, open_workspace
from spec import Artifact, Spec
from store import Manifest


class Lens(Spec):
    name: str = "wide"
    size: int = 3


class Picture(Artifact):
    kind: ClassVar = "checkpoints"
    lens: Lens = Lens()
    layer: int


class Finding(Artifact):
    kind: ClassVar = "results"
    picture: Picture
    n_train: int | None = None
    rate: float = 0.5
    dark: bool = False
    words: tuple[str, ...] = ()


class Other(Artifact):
    kind: ClassVar = "results"
    layer: str = "top"


class Framed(Artifact):
    kind: ClassVar = "results"
    picture: Picture
    layer: int
    size: int


class Boxed(Artifact):
    kind: ClassVar = "results"
    framed: Framed


@recipe(Framed)
def make_framed(batch: Batch[Framed]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("frame", np.zeros(1))
    batch.publish(spec)


@recipe(Boxed)
def make_boxed(batch: Batch[Boxed]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("box", np.zeros(1))
    batch.publish(spec)


@recipe(Picture)
def make_picture(batch: Batch[Picture]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).write("pixels", np.zeros(spec.layer))
    batch.publish(spec)


@recipe(Finding, load=lambda artifact: artifact.table("rows"))
def make_finding(batch: Batch[Finding]) -> None:
    (spec,) = batch.specs
    layer = spec.picture.layer
    frame = pl.DataFrame(
        {"trait": ["a", "b"], "ap": [layer / 10, layer / 20], "layer": [layer] * 2}
    )
    batch.draft(spec).table("rows", frame)
    batch.publish(spec, {"mean_ap": layer / 10, "left_out": [], "by": {"side": 3}, "size": 7})


@recipe(Other, load=lambda artifact: artifact.table("rows"))
def make_other(batch: Batch[Other]) -> None:
    (spec,) = batch.specs
    batch.draft(spec).table("rows", pl.DataFrame({"ap": [0.125]}))
    batch.publish(spec)


FINDINGS = [
    Finding(picture=Picture(layer=layer), n_train=n_train, dark=layer == 2)
    for layer in (1, 2, 10)
    for n_train in (16, None)
]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = open_workspace(tmp_path_factory.mktemp("query") / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda fd: None)
        run([*FINDINGS, Other()], workspace)
    return workspace


def chosen(workspace: Workspace, where: Any, **rest: Any) -> list[tuple[Any, Any]]:
    rows = search(workspace.store, where=where, **({"kind": "results"} | rest)).rows
    return sorted(((row.get("layer"), row.get("n_train")) for row in rows), key=str)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("layer=2", [(2, 16), (2, None)]),
        ("layer==2", [(2, 16), (2, None)]),
        ("layer = 2.0", [(2, 16), (2, None)]),
        ("layer>=2 and n_train=16", [(10, 16), (2, 16)]),
        (["layer>=2", "n_train=16"], [(10, 16), (2, 16)]),
        ("n_train=null and layer!=1", [(10, None), (2, None)]),
        ("n_train!=16", [(1, None), (10, None), (2, None)]),
        ("n_train!=null", [(1, 16), (10, 16), (2, 16)]),
        ("n_train<100", [(1, 16), (10, 16), (2, 16)]),
        ("n_train=null|16 and layer=1", [(1, 16), (1, None)]),
        ("layer=1|2|top and n_train=16", [(1, 16), (2, 16)]),
        ("layer!=1|2", [("top", None), (10, 16), (10, None)]),
        ("layer=top", [("top", None)]),
        ("layer='top'", [("top", None)]),
        ("layer>t", [("top", None)]),
        ("layer~OP", [("top", None)]),
        ("dark=true and n_train=16", [(2, 16)]),
        ("dark!=TRUE and n_train=16", [(1, 16), (10, 16)]),
        ("mean_ap>0.15 and mean_ap<=1e0 and n_train=16", [(10, 16), (2, 16)]),
        ("rate=.5 and layer=1", [(1, 16), (1, None)]),
        ("lens.name~WID and layer=1", [(1, 16), (1, None)]),
        ("by.side=3 and layer=1", [(1, 16), (1, None)]),
        ("attributes.size=7 and layer=1", [(1, 16), (1, None)]),
        ("type=Other", [("top", None)]),
        ("type~find and layer=1", [(1, 16), (1, None)]),
        ("age>=1w", []),
        ("age<1h and layer=top", [("top", None)]),
        ("size>1GB", []),
        ("size>1 B and layer=top", [("top", None)]),
        ("version=1 and kind=results and state=null and layer=top", [("top", None)]),
        ("picture.layer=2", [(2, 16), (2, None)]),
        ("picture.layer>=2 and n_train=16", [(10, 16), (2, 16)]),
        ("picture.lens.name~WID and picture.layer=1", [(1, 16), (1, None)]),
        ({"picture.layer": [1, "top"], "n_train": 16}, [(1, 16)]),
        ("created>2020 and layer=top", [("top", None)]),
        ("created<2020", []),
        ("created=2020|2021-03", []),
        ("created!=2020-02-29 and layer=top", [("top", None)]),
        ("created>2020-02-29T23:59:59.5+02:00 and layer=top", [("top", None)]),
        ("created>2020-02-29 12:30 and layer=top", [("top", None)]),
        ("created~T and layer=top", [("top", None)]),
        ({"created": 2020}, []),
        ({"layer": 2}, [(2, 16), (2, None)]),
        ({"layer": [2, "top"], "n_train": None}, [(2, None)]),
        ({"n_train": [None, 16], "layer": range(2)}, [(1, 16), (1, None)]),
        ({"dark": True}, [(2, 16), (2, None)]),
        ({}, None),
        ([], None),
        (None, None),
    ],
)
def test_conditions(workspace: Workspace, where: Any, expected: list[Any] | None):
    everything = [(1, 16), (1, None), (10, 16), (10, None), (2, 16), (2, None)]
    everything = [("top", None), *everything]
    assert chosen(workspace, where) == (everything if expected is None else expected)


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("lyer=2", r"no artifact has a field 'lyer'; did you mean layer\?"),
        ("name=wide", r"did you mean lens.name\?"),
        ("zzz=1", r"the fields are age, .*, layer, "),
        ("lyer=2 and trian=3", r"(?s)'lyer'.*'trian'"),
        (
            "mean_ap=high",
            r"mean_ap=high cannot be decided: mean_ap is a number, as in mean_ap=[01]\.",
        ),
        ("lens.name>3", r"lens.name is text, as in lens.name='wide'"),
        ("dark=1", "dark is a boolean, as in dark=false"),
        ("dark>true", "dark is a boolean"),
        ("mean_ap~0", "mean_ap is a number"),
        ("layer", r"'layer' is no condition: write a field, one of = != .* as in layer=13"),
        ("=3", "is no condition"),
        ("", "'' is no condition"),
        ("layer>null", "null can only be compared with = and !="),
        ("size>3 parsec", "size has one of the units b, kb, mb"),
        ("pictre.layer=2", r"no artifact has a field 'pictre.layer'; did you mean layer or "),
        ("picture.n_train=2", r"no artifact has a field 'picture.n_train'; did you mean n_train"),
        ("created>yesterday", r"created is compared with dates, such as .*: 'yesterday' is none"),
        ("created>2026-02-30", "'2026-02-30' is none"),
        ("created=9999", "'9999' is none"),
        ("created>2026-11T12", "'2026-11T12' is none"),
        ("age<2 GB", "age has one of the units s, min, h, d, w"),
        ({"layer": object()}, "compared with a object"),
    ],
)
def test_invalid_conditions_are_refused(workspace: Workspace, where: Any, says: str):
    with pytest.raises(QueryError, match=says):
        chosen(workspace, where)


def test_an_empty_store_has_no_unknown_fields(tmp_path: Path):
    assert search(open_workspace(tmp_path / "none").store, where="anything>3").rows == []


def test_full_paths_mean_the_same_in_artifacts_of_all_types(tmp_path: Path):
    """Where a name is taken further out a field keeps its path, and elsewhere it is lifted."""
    workspace = open_workspace(tmp_path / "store")
    specs = [Framed(picture=Picture(layer=n), layer=10 + n, size=n) for n in (1, 2)]
    run([*specs, Finding(picture=Picture(layer=2))], workspace)

    def types(where: str, **rest: Any) -> list[str]:
        found = search(workspace.store, kind="results", where=where, **rest)
        return sorted(bare_name(row.entry.type) for row in found.rows)

    assert types("layer=2") == ["Finding"]
    assert types("type=Finding") == ["Finding"]
    assert types("type!=Finding") == ["Framed", "Framed"]
    assert types("layer=12") == ["Framed"]
    assert types("picture.layer=2") == ["Finding", "Framed"]
    assert types("picture.layer>=1") == ["Finding", "Framed", "Framed"]
    found = search(workspace.store, fields=["picture.layer", "picture.lens.size"])
    rows = [row for row in found.rows if row.entry.kind == "results"]
    assert [row.get("picture.layer") for row in in_order(rows, ["-picture.layer"])] == [2, 2, 1]
    assert {row.get("picture.lens.size") for row in rows} == {3}
    assert not any(row.get("picture.layer") for row in found.rows if row not in rows)
    frame = table(store=workspace, spec=Finding, where="picture.layer=2")
    assert frame["spec.layer"].unique().to_list() == [2]


def test_a_full_path_to_a_field_named_like_a_built_in_one(tmp_path: Path):
    workspace = open_workspace(tmp_path / "store")
    run([Boxed(framed=Framed(picture=Picture(layer=1), layer=2, size=77))], workspace)
    for where in ("framed.size=77", "spec.size=77"):
        found = search(workspace.store, where=where, type="Boxed").rows
        assert [row.entry.type for row in found] == [f"{__name__}.Boxed"]
    assert search(workspace.store, where="size=77", type="Boxed").rows == []


times = st.datetimes(
    datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC), allow_imaginary=False
)
FORMS = ("%Y", "%Y-%m", "%Y-%m-%d", "%Y-%m-%dT%H", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%SZ")


@given(found=times, wanted=times, form=st.sampled_from(FORMS))
def test_dates_compare_by_when_they_begin_and_equal_what_is_within(
    found: datetime, wanted: datetime, form: str
):
    def holds(sign: str, text: str) -> bool | None:
        (condition,) = parse(f"created{sign}{text}")
        return condition.holds(found.isoformat(timespec="milliseconds"))

    text = wanted.strftime(form)
    found = found.replace(microsecond=found.microsecond // 1000 * 1000)
    begin = datetime.strptime(text, form).replace(tzinfo=UTC)
    assert holds("<", text) is (found < begin)
    assert holds(">=", text) is (found >= begin)
    assert holds(">", text) is (found > begin)
    assert holds("<=", text) is (found <= begin)
    assert holds("=", text) is (found.strftime(form) == text)
    assert holds("!=", text) is (found.strftime(form) != text)
    whole = found.isoformat(timespec="milliseconds")
    assert holds("=", whole) is True
    assert holds("=", found.strftime(form)) is True


numbers = st.one_of(
    st.integers(-(10**18), 10**18), st.floats(allow_nan=False, allow_infinity=False)
)
OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@given(found=numbers, wanted=numbers, sign=st.sampled_from(sorted(OPERATORS)))
def test_numbers_compare_as_in_python(found: float, wanted: float, sign: str):
    (condition,) = parse(f"x{sign}{wanted!r}")
    assert condition.holds(found) is OPERATORS[sign](found, wanted)


# Without what the language gives a meaning to.
words = st.text(
    st.characters(codec="utf-8", exclude_characters="'\"|", exclude_categories=["C", "Z"])
)


@given(
    found=words, wanted=words, sign=st.sampled_from(sorted(OPERATORS)), quote=st.sampled_from("'\"")
)
def test_quoted_text_compares_as_in_python(found: str, wanted: str, sign: str, quote: str):
    (condition,) = parse(f"x {sign} {quote}{wanted}{quote}")
    assert condition.holds(found) is OPERATORS[sign](found, wanted)


@given(st.lists(st.tuples(words.filter(lambda w: w), st.sampled_from([" and ", "|"])), min_size=1))
def test_quoted_text_is_not_split(parts: list[tuple[str, str]]):
    text = "".join(word + joint for word, joint in parts)
    (condition,) = parse(f"x='{text}'")
    assert condition.holds(text) is True
    assert condition.holds(text + "x") is False


def test_texts_that_look_like_numbers():
    assert parse("x=13")[0].holds("13") is True
    assert parse("x='13'")[0].holds(13) is None
    assert parse("x>5")[0].holds("13") is None
    assert parse("x>'5'")[0].holds("13") is False
    assert parse("x=1")[0].holds(True) is None
    assert parse("x=nan")[0].holds(math.inf) is None


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3), st.sampled_from(["a", "b"]))))
def test_sorting_puts_what_is_missing_last(values: list[Any]):
    class Row:
        def __init__(self, x: Any, n: int) -> None:
            self.x, self.n = x, n

        def get(self, field: str) -> Any:
            return getattr(self, field)

    rows: Any = [Row(x, n) for n, x in enumerate(values)]
    for field, turn in (("x", 1), ("-x", -1)):
        found = [(row.x, row.n) for row in in_order(rows, [field])]
        expected = sorted(
            enumerate(values),
            key=lambda p: (
                p[1] is None,
                turn * isinstance(p[1], str),
                0 if p[1] is None else turn * (ord(p[1]) if isinstance(p[1], str) else p[1]),
            ),
        )
        assert found == [(x, n) for n, x in expected]


def test_sorting_by_several_fields(workspace: Workspace):
    rows = search(workspace.store, type="Finding").rows
    order = [(r.get("layer"), r.get("n_train")) for r in in_order(rows, ["n_train", "-layer"])]
    assert order == [(10, 16), (2, 16), (1, 16), (10, None), (2, None), (1, None)]


def test_facts_are_the_columns_of_the_spec_and_the_attributes(workspace: Workspace):
    manifest = workspace.store.open("results", FINDINGS[0].key).manifest
    facts = facts_of(manifest, BUILT_IN)
    columns = {n: v for n, v in explode(manifest.spec).items() if n not in ("type", "key")}
    assert {n: facts[n] for n in columns} == columns
    rest = {n: v for n, v in facts.items() if n not in columns}
    assert rest == {"mean_ap": 0.1, "by.side": 3, "attributes.size": 7}


def test_facts_of_a_spec_that_is_no_document():
    manifest = Manifest(
        **{"kind": "results", "key": "0" * 32, "type": "Thing", "version": 1, "canonical": ""},
        **{"spec": {"size": 1, "vit": {"name": "x"}, "text": "y" * 9999}},
        **{"parents": {}, "provenance": {}, "files": {}, "created": "", "attributes": {"text": 3}},
    )
    facts = facts_of(manifest, BUILT_IN)
    assert facts.pop("text") == "y" * 500
    assert facts == {"spec.size": 1, "vit": '{"name": "x"}', "attributes.text": 3}


def test_a_table_over_the_store(workspace: Workspace):
    frame = table(store=workspace, spec=Finding, where="layer>=2")
    same = table([spec for spec in FINDINGS if spec.picture.layer >= 2], workspace)
    assert frame.sort("key", "trait").equals(same.sort("key", "trait"))
    assert frame.columns == same.columns
    assert frame["spec.layer"].to_list() == frame["layer"].to_list()
    assert table(store=workspace, spec="Finding", where={"layer": [2, 10]}).equals(frame)
    assert table(store=workspace, spec="Finding").height == 12
    plain = table(store=workspace, spec=Other, explode_spec=False)
    assert plain.to_dict(as_series=False) == {"ap": [0.125]}


def test_a_table_over_several_types(workspace: Workspace):
    frame = table(store=workspace)
    assert frame.height == 13
    other = frame.filter(pl.col("type") == f"{__name__}.Other")
    assert other["spec.layer"].to_list() == ["top"]
    assert other["trait"].to_list() == other["n_train"].to_list() == [None]


def test_an_empty_table(workspace: Workspace):
    assert table(store=workspace, where="layer=77").is_empty()
    assert table([], workspace).is_empty()


def test_artifacts_without_a_table_are_refused(workspace: Workspace):
    with pytest.raises(SpecError, match=r"Picture \w+ is no table but checkpoints: use saevx.load"):
        table(store=workspace, kind="checkpoints")
    with pytest.raises(SpecError, match="either specs, or"):
        table(FINDINGS, workspace, where="layer=2")
    with pytest.raises(QueryError, match=r"is of type 'Findng'; did you mean Finding\?"):
        table(store=workspace, spec="Findng")
    with pytest.raises(saevx.StoreError, match="'tables' is not a kind"):
        table(store=workspace, kind="tables")  # type: ignore[arg-type]


def test_unnamed_types_are_read_if_they_hold_one_table(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saevx.query.tables.named_types", dict)
    assert table(store=workspace, spec="Finding").height == 12
    with pytest.raises(SpecError, match=r"Picture .* holds 0 tables: import the module"):
        table(store=workspace, kind="checkpoints")


def test_damaged_tables_are_left_out_with_a_warning(tmp_path: Path):
    workspace = open_workspace(tmp_path / "store")
    run(FINDINGS[:2], workspace)
    path = workspace.store.open("results", FINDINGS[0].key).path
    (path / "rows" / "ap" / "c.0").write_bytes(b"")
    with pytest.warns(
        SaevxWarning, match=f"Finding {FINDINGS[0].key} is left out: damaged: rows/ap"
    ):
        assert table(store=workspace)["key"].unique().to_list() == [FINDINGS[1].key]


def test_results_of_an_older_version_are_left_out(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Other, "version", 2)
    assert table(store=workspace, spec=Other).is_empty()
    assert table(store=workspace, spec="Other", older_versions=True).height == 1
    assert table(store=workspace).height == 12
