# SPDX-License-Identifier: Apache-2.0
"""Names of the depths and of their precisions, and the numbers that the native side gives them."""

from __future__ import annotations

METRICS = (
    "cosine",
    "chord",
    "arc",
    "l2",
    "spatial",
    "mahalanobis",
    "halfspace",
    "projection",
    "irw",
    "ai_irw",
)
PRECISIONS = ("float32", "bfloat16", "int8")

NATIVE_METRIC = {
    "cosine": 0,
    "chord": 1,
    "arc": 2,
    "l2": 3,
    "spatial": 4,
    "halfspace": 5,
    "projection": 6,
    "irw": 7,
}
NATIVE_PRECISION = {"float32": 0, "bfloat16": 1, "int8": 2}

# Depths over random directions; ai_irw is irw over directions that whiten the corpus.
DIRECTIONAL = frozenset({"halfspace", "projection", "irw", "ai_irw"})
# Depths that need the covariance.
COVARIANT = frozenset({"mahalanobis", "ai_irw"})
# Depths for which reduced precision has a kernel (for cosine there is nothing to reduce).
REDUCIBLE = frozenset({"cosine", "chord", "arc"})
