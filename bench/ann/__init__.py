# SPDX-License-Identifier: Apache-2.0
"""Filtered nearest-neighbour search: data, workloads, peers, cells."""
