# SPDX-License-Identifier: Apache-2.0
"""The tour of `embedcore.ann`: questions to an index, and filters that say what may answer."""

from __future__ import annotations

import numpy as np

from .. import ann
from ..ann import field
from .output import heading, item, paragraph, timed
from .pictures import Pictures
from .sample import Sample

ASKED = {  # questions of which a word is about something else, and where the answer is
    "Which insect makes honey?": "noun.animal",
    "Who can help me with a toothache?": "noun.person",
    "Where should I keep the milk so that it stays cold?": "noun.artifact",
}
COMBINED = "What can make a person feel bitter?"
FILTERS = (
    field("class") == "noun.food",
    ~field("class").isin(["noun.feeling", "verb.emotion"]) & (field("words") <= 5),
    field("lemmas").contains_any(["regret", "envy", "love", "anger"]),
)
SHOWN = 3


def show(sample: Sample) -> Pictures:
    """Print all steps; there is nothing to draw."""
    index = _index_of(sample)
    _ask(index, sample)
    _combine(index, sample)
    _ask_all(index, sample)
    return {}


def _index_of(sample: Sample) -> ann.Index:
    heading("Filtered search: the nearest definitions among those that pass a filter")
    glosses = sample.glosses
    paragraph(
        f"An index of all {sample.size:,} definitions, each with its class (a category), its "
        "number of words (an integer) and its lemmas, the words that it defines (a set)."
    )
    attributes = {
        "class": sample.class_of_row,
        "words": [len(text.split()) for text in glosses.texts],
        "lemmas": glosses.lemmas,
    }
    index = ann.Index(sample.columns)
    with timed(f"index.add(x, attributes=table), n = {sample.size}, d = {sample.columns}"):
        index.add(glosses.vectors, attributes=attributes)
    return index


def _ask(index: ann.Index, sample: Sample) -> None:
    print("The nearest definition to a question, of all and of the class that is meant:")
    for question, class_name in ASKED.items():
        print(f"  {question}")
        query = sample.glosses.query_vectors[sample.glosses.query_texts.index(question)]
        for among, where in (("all", None), (class_name, field("class") == class_name)):
            ids, distances = index.search(query, k=1, where=where)[0]
            item(f"  {among:<13}  {distances[0]:.3f}", sample.entry(ids[0]))


def _combine(index: ann.Index, sample: Sample) -> None:
    heading("Filters are expressions")
    query = sample.glosses.query_vectors[sample.glosses.query_texts.index(COMBINED)]
    paragraph(f"{COMBINED} The {SHOWN} nearest, with their distances:")
    for where in FILTERS:
        hits = index.search(query, k=SHOWN, where=where)
        found = ", ".join(
            f"{sample.glosses.lemmas[row][0]} {distance:.3f}"
            for row, distance in zip(*hits[0], strict=True)
        )
        item("-", repr(where))
        item(" ", f"{index.count(where)} rows pass: {found}")
    told = index.explain(query, k=SHOWN, where=FILTERS[0])
    paragraph(
        f"explain() of the first: plan {told['plan']!r}, {told['passing']} of {told['live']} rows "
        f"pass, {told['rescored']} distances computed. So few rows are simply compared; from 2000 "
        "on, an index has codes, cells and a graph, and chooses a plan for each query."
    )


def _ask_all(index: ann.Index, sample: Sample) -> None:
    print("\nA filter for each query, all in one call:")
    glosses = sample.glosses
    x, answers = glosses.query_vectors, glosses.query_answers
    meant = [field("class") == name for name in sample.class_of_row[answers]]
    with timed(f"index.search(questions, k=1, where=filters), {len(x)} queries"):
        within = index.search(x, k=1, where=meant).ids[:, 0]
    anywhere = index.search(x, k=1).ids[:, 0]
    paragraph(
        f"Of {len(x)} questions, {np.mean(anywhere == answers):.0%} find the definition that they "
        f"were written for as the nearest of all, {np.mean(within == answers):.0%} as the nearest "
        "of its class."
    )
