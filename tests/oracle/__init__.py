# SPDX-License-Identifier: Apache-2.0
"""Float64 reference implementations, written from the formulas: slow and obvious on purpose."""
