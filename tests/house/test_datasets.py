# SPDX-License-Identifier: Apache-2.0
"""The sample data: what the files promise, and how a damaged file is refused."""

from __future__ import annotations

import importlib.util
import io
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from embedcore import datasets

ROOT = Path(__file__).resolve().parents[2]
FULL = ROOT / "examples" / "data" / "glosses.npz"
SHIPPED = Path(str(files("embedcore") / "data"))


@pytest.fixture(scope="module", params=["shipped", "full"])
def path(request: pytest.FixtureRequest) -> Path | None:
    if request.param == "shipped":
        return None
    if not FULL.exists():
        pytest.skip("the full sample lives in the source tree")
    return FULL


@pytest.fixture(scope="module")
def glosses(path: Path | None) -> datasets.Glosses:
    return datasets.load_glosses(path)


@pytest.fixture(scope="module")
def states(path: Path | None) -> datasets.TokenStates:
    return datasets.load_token_states(path)


@pytest.fixture(scope="module")
def fields() -> dict[str, np.ndarray[Any, Any]]:
    with np.load(SHIPPED / "glosses.npz", allow_pickle=False) as archive:
        return dict(archive)


def save(path: Path, fields: dict[str, Any]) -> Path:
    np.savez_compressed(path, **fields)
    return path


def test_shipped_file_is_small_and_carries_its_licence() -> None:
    names = {entry.name: entry.stat().st_size for entry in SHIPPED.iterdir()}
    assert set(names) == {"glosses.npz", "WORDNET_LICENSE.txt"}
    assert sum(names.values()) <= 1_000_000
    licence = (SHIPPED / "WORDNET_LICENSE.txt").read_text("ascii")
    assert "WordNet 3.0 Copyright 2006 by Princeton University." in licence
    assert "ALL copies of the software, database and" in licence


@pytest.mark.skipif(not FULL.exists(), reason="the full sample lives in the source tree")
def test_full_file_is_small_and_carries_its_licence() -> None:
    assert FULL.stat().st_size <= 4_000_000
    assert (FULL.parent / "WORDNET_LICENSE.txt").read_bytes() == (
        SHIPPED / "WORDNET_LICENSE.txt"
    ).read_bytes()


def test_sizes_of_the_shipped_sample() -> None:
    sample = datasets.load_glosses()
    assert sample.vectors.shape == (1440, 384)
    assert sample.class_names == [
        "noun.animal",
        "noun.artifact",
        "noun.body",
        "noun.feeling",
        "noun.food",
        "noun.person",
        "verb.emotion",
        "verb.motion",
    ]
    assert np.bincount(sample.labels).tolist() == [180] * 8
    assert datasets.load_token_states().hidden.shape[0] == 24


@pytest.mark.skipif(not FULL.exists(), reason="the full sample lives in the source tree")
def test_sizes_of_the_full_sample() -> None:
    sample = datasets.load_glosses(FULL)
    counts = np.bincount(sample.labels)
    assert sample.vectors.shape == (4064, 384)
    assert len(sample.class_names) == 45
    assert counts.min() >= 36 and np.sort(counts)[-8:].tolist() == [220] * 8
    assert datasets.load_token_states(str(FULL)).hidden.shape[0] == 315


def test_every_field_has_its_length_and_dtype(glosses: datasets.Glosses) -> None:
    n, q = len(glosses.texts), len(glosses.query_texts)
    assert glosses.vectors.shape == (n, 384) and glosses.vectors.dtype == np.float32
    assert glosses.query_vectors.shape == (q, 384) and glosses.query_vectors.dtype == np.float32
    assert glosses.labels.shape == (n,) and glosses.labels.dtype == np.int64
    assert glosses.lemma_counts.dtype == np.int64
    assert len(glosses.lemmas) == len(glosses.pos) == n
    assert glosses.lemma_counts.tolist() == [len(words) for words in glosses.lemmas]
    assert glosses.query_answers.shape == (q,) and q >= 40
    assert glosses.query_answers.min() >= 0 and glosses.query_answers.max() < n


def test_vectors_are_finite_and_of_unit_length(glosses: datasets.Glosses) -> None:
    # Rounding each of 384 coordinates to float32 moves the norm by at most 2**-24.
    for vectors in (glosses.vectors, glosses.query_vectors):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
        np.testing.assert_allclose(norms, 1.0, rtol=0, atol=2**-24)


def test_texts_are_distinct_readable_definitions(glosses: datasets.Glosses) -> None:
    assert len({text.lower() for text in glosses.texts}) == len(glosses.texts)
    for text in glosses.texts + glosses.query_texts:
        assert text.isascii() and text.strip() == text and '"' not in text
    assert all(4 <= len(text.split()) <= 30 for text in glosses.texts)
    assert all(words and all(words) for words in glosses.lemmas)
    assert all(len(set(words)) == len(words) for words in glosses.lemmas)


def test_rows_are_sorted_by_class_and_classes_by_name(glosses: datasets.Glosses) -> None:
    assert glosses.class_names == sorted(set(glosses.class_names))
    assert np.all(np.diff(glosses.labels) >= 0)
    assert set(glosses.labels.tolist()) == set(range(len(glosses.class_names)))
    assert set(Counter(glosses.pos)) <= {"noun", "verb", "adj", "adv"}


@pytest.mark.parametrize(
    ("lemma", "class_name", "text"),
    [
        ("tadpole", "noun.animal", "a larval frog or toad"),
        ("nostalgia", "noun.feeling", "longing for something past"),
        ("mayor", "noun.person", "the head of a city government"),
        ("hitchhike", "verb.motion", "travel by getting free rides from motorists"),
    ],
)
def test_known_glosses(glosses: datasets.Glosses, lemma: str, class_name: str, text: str) -> None:
    row = glosses.texts.index(text)
    assert lemma in glosses.lemmas[row]
    assert glosses.class_names[glosses.labels[row]] == class_name
    assert glosses.pos[row] == class_name.split(".")[0]
    assert row in glosses.rows_of(class_name)


def test_shipped_rows_are_rows_of_the_full_file() -> None:
    if not FULL.exists():
        pytest.skip("the full sample lives in the source tree")
    shipped, full = datasets.load_glosses(), datasets.load_glosses(FULL)
    rows = [full.texts.index(text) for text in shipped.texts]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(shipped.vectors, full.vectors[rows])
    np.testing.assert_array_equal(shipped.query_vectors, full.query_vectors)
    assert shipped.lemmas == [full.lemmas[row] for row in rows]


def test_two_loads_are_equal(glosses: datasets.Glosses, path: Path | None) -> None:
    again = datasets.load_glosses(path)
    assert again.texts == glosses.texts and again.lemmas == glosses.lemmas
    np.testing.assert_array_equal(again.vectors, glosses.vectors)
    np.testing.assert_array_equal(again.labels, glosses.labels)


@pytest.mark.parametrize(
    ("question", "lemma"),
    [
        ("Which bird hunts at night?", "owl"),
        ("Which hot drink is made from roasted beans?", "coffee"),
        ("Who travels just for the fun of it?", "tourist"),
        ("How do you walk on the tips of your toes?", "tiptoe"),
        ("What is it called when you miss the old days?", "nostalgia"),
    ],
)
def test_nearest_gloss_answers_the_question(
    glosses: datasets.Glosses, question: str, lemma: str
) -> None:
    query = glosses.query_texts.index(question)
    nearest = int(np.argmax(glosses.vectors @ glosses.query_vectors[query]))
    assert lemma in glosses.lemmas[nearest]
    assert nearest == glosses.query_answers[query]


def test_most_answers_are_among_the_nearest_ten(glosses: datasets.Glosses) -> None:
    cosines = glosses.query_vectors @ glosses.vectors.T
    own = np.take_along_axis(cosines, glosses.query_answers[:, None], axis=1)
    assert np.mean((cosines > own).sum(axis=1) < 10) >= 0.9


def test_a_class_is_closer_to_itself(glosses: datasets.Glosses) -> None:
    animals = glosses.vectors[glosses.rows_of("noun.animal")]
    feelings = glosses.vectors[glosses.rows_of("noun.feeling")]
    assert (animals @ animals.T).mean() > (animals @ feelings.T).mean() + 0.1


def test_token_states_are_padded_and_aligned(
    glosses: datasets.Glosses, states: datasets.TokenStates
) -> None:
    r, longest, d = states.hidden.shape
    assert d == 384 and longest == states.lengths.max() and states.hidden.dtype == np.float32
    assert states.lengths.tolist() == [len(tokens) for tokens in states.tokens]
    assert len(set(states.rows.tolist())) == r
    assert np.all(np.isfinite(states.hidden))
    assert states.texts == [glosses.texts[row] for row in states.rows]
    assert states.labels.tolist() == glosses.labels[states.rows].tolist()
    assert states.class_names == glosses.class_names
    for i, tokens in enumerate(states.tokens):
        assert tokens[0] == "[CLS]" and tokens[-1] == "[SEP]"
        joined = re.sub(r"\W", "", "".join(t.replace("##", "") for t in tokens[1:-1]))
        assert joined == re.sub(r"\W", "", glosses.texts[states.rows[i]].lower())
        assert not states.hidden[i, states.lengths[i] :].any()


def test_mean_of_token_states_is_the_vector(
    glosses: datasets.Glosses, states: datasets.TokenStates
) -> None:
    # States are rounded to 2**-8 and vectors to 2**-12: half a step in each coordinate, divided by
    # the norms (at least 3 for the mean), turns the direction by at most 0.017.
    means = states.hidden.sum(axis=1, dtype=np.float64) / states.lengths[:, None]
    norms = np.linalg.norm(means, axis=1, keepdims=True)
    assert norms.min() >= 3
    gaps = np.linalg.norm(means / norms - glosses.vectors[states.rows], axis=1)
    assert gaps.max() <= 0.017


def test_rows_of_names_the_nearest_class() -> None:
    sample = datasets.load_glosses()
    assert sample.rows_of("noun.animal").tolist() == list(range(180))
    message = (
        "datasets.Glosses.rows_of: 'class_name' must be one of the class_names; "
        "got 'noun.animl'. Did you mean 'noun.animal'?"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sample.rows_of("noun.animl")
    with pytest.raises(TypeError, match=r"'class_name' must be a str; got int\.$"):
        sample.rows_of(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("load", [datasets.load_glosses, datasets.load_token_states])
def test_wrong_paths_are_refused(load: Any, tmp_path: Path) -> None:
    name = f"datasets.{load.__name__}"
    with pytest.raises(TypeError, match=f"^{name}: 'path' must be a str or a path-like object"):
        load(3)
    with pytest.raises(FileNotFoundError, match=f"^{name}: 'path' must be an existing sample"):
        load(tmp_path / "none.npz")
    with pytest.raises(OSError, match="it is not a readable npz archive"):
        load(tmp_path)


@pytest.mark.parametrize("load", [datasets.load_glosses, datasets.load_token_states])
def test_damaged_archives_are_refused(load: Any, tmp_path: Path) -> None:
    intact = (SHIPPED / "glosses.npz").read_bytes()
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    flipped = bytearray(intact)
    flipped[len(intact) // 2] ^= 0xFF
    for content in (b"", b"text", intact[:1000], intact[:-10], plain.getvalue(), bytes(flipped)):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(OSError, match=r"must be a sample file of embedcore; got '.*bad\.npz'"):
            load(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"format_version": np.int32(2)}, "its format version must be 1"),
        ({"texts": None}, "it has no field 'texts'"),
        ({"texts": np.array([1.0])}, "'texts' must hold bytes"),
        ({"texts": np.array([255], np.uint8)}, "'texts' must be UTF-8"),
        ({"labels": np.full(1440, 8)}, "'labels' must hold 1440 integers in [0, 8)"),
        ({"labels": np.zeros(1440)}, "'labels' must hold 1440 integers in [0, 8)"),
        ({"query_answers": np.full(41, -1)}, "'query_answers' must hold 41 integers in [0, 1440)"),
        ({"lemma_indptr": np.array([1, 2])}, "'lemma_indptr' must rise from 0 to"),
        ({"vectors": np.zeros((2, 3, 384), np.uint8)}, "must have shape (2, 1440, d)"),
        ({"vectors": np.zeros((2, 1440, 384), np.uint8)}, "'vectors' must have no zero row"),
        ({"vectors": np.ones((2, 1440, 4), np.uint8)}, "must have the same number of columns"),
        ({"vector_step": np.float64(np.nan)}, "'vector_step' must be a positive number"),
        ({"query_texts": np.array(["a"], dtype=object)}, "it is not a readable npz archive"),
    ],
)
def test_inconsistent_fields_are_refused(
    change: dict[str, Any], problem: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    merged = {k: v for k, v in {**fields, **change}.items() if v is not None}
    bad = save(tmp_path / "bad.npz", merged)
    with pytest.raises(OSError, match=f"^datasets.load_glosses: .*: .*{re.escape(problem)}"):
        datasets.load_glosses(bad)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"token_indptr": np.array([0, 5])}, "'token_indptr' must rise from 0 to"),
        ({"token_rows": np.zeros(3, int)}, "'token_rows' must hold 24 integers in [0, 1440)"),
        ({"token_states": np.zeros((2, 3, 384), np.uint8)}, "'token_states' must have shape (2,"),
    ],
)
def test_inconsistent_token_fields_are_refused(
    change: dict[str, Any], problem: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    bad = save(tmp_path / "bad.npz", {**fields, **change})
    with pytest.raises(OSError, match=f"^datasets.load_token_states: .*{re.escape(problem)}"):
        datasets.load_token_states(bad)


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    source = ROOT / "examples" / "build_sample_data.py"
    if not source.exists():
        pytest.skip("the build script lives in the source tree")
    spec = importlib.util.spec_from_file_location("build_sample_data", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("gloss", "text"),
    [
        ('a warm drink of leaves; "two cups"; "more tea"  ', "a warm drink of leaves"),
        ("a tree (with leaves) ", "a tree (with leaves)"),
        ('the sound "moo" of a cow', None),
        ('a tree (with leaves; "or so")', None),
    ],
)
def test_examples_are_cut_off_a_gloss(builder: ModuleType, gloss: str, text: str | None) -> None:
    assert builder.definition(gloss) == text


def test_a_line_of_wordnet_is_parsed(builder: ModuleType) -> None:
    uses = Counter({"warm_up%2:38:00": 3, "run%2:38:04": 2, "run%2:38:05": 9})
    line = "00000042 38 v 02 warm_up 0 run 4 001 @ 1 v 0000 01 + 02 00 | move quickly on one's feet"
    synset = builder.parse_synset(line, uses)
    assert synset.class_name == "verb.motion" and synset.offset == 42 and synset.uses == 5
    assert synset.lemmas == ("warm up", "run") and synset.text == "move quickly on one's feet"
    assert builder.parse_synset(line.replace("warm_up", "Warm_up"), uses) is None
    assert builder.parse_synset(line.replace("quickly", 'quickly "so"'), uses) is None


def test_codes_of_a_token_have_its_scale(builder: ModuleType) -> None:
    values = np.array([[-254.0, 3.0, 1.0], [0.5, 12.7, -6.2]], np.float32)
    fields = builder.encode_codes(values)
    assert fields["token_codes"].tolist() == [[-127, 2, 0], [5, 127, -62]]
    np.testing.assert_allclose(fields["token_scales"], [2.0, 0.1], rtol=1e-6)


def test_fixed_point_survives_the_round_trip(builder: ModuleType) -> None:
    values = np.array([[-0.5, 0.25, 127.0, -1 / 256, 0.001]])
    planes = builder.encode_fixed(values, 2.0**-8)
    assert planes.shape == (2, 1, 5) and planes.dtype == np.uint8
    decoded = (planes[0] + 256 * planes[1].astype(np.int32)).astype(np.int16) * 2.0**-8
    np.testing.assert_array_equal(decoded, [[-0.5, 0.25, 127.0, -1 / 256, 0.0]])
    with pytest.raises(ValueError, match="exceeds the range of 16-bit fixed point"):
        builder.encode_fixed(np.array([129.0]), 2.0**-8)
