# SPDX-License-Identifier: Apache-2.0
"""What tests of every family share: array kinds and guarded memory."""
