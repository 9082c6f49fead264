# SPDX-License-Identifier: Apache-2.0
"""The bench of the kernels for GPUs: `python -m bench.gpu`."""
