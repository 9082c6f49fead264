# SPDX-License-Identifier: Apache-2.0
"""The command line: one module for each command, `main` for what they share."""
