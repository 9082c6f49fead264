# SPDX-License-Identifier: Apache-2.0
"""Install a CPU build of Torch for the tests, where pip can find one; else say so and succeed.

The version is asked for with its local label (+cpu), which no CUDA build carries: where there is no
CPU build pip finds nothing, and the suite runs without Torch.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

REQUIREMENT = "torch==2.13.0+cpu"


def main() -> None:
    if importlib.util.find_spec("torch") is not None:
        print("Torch is installed already.")
        return
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", REQUIREMENT],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        print(f"Installed {REQUIREMENT}.")
    else:
        print(f"{REQUIREMENT} is not to be had here: the tests that need Torch will be skipped.")


if __name__ == "__main__":
    main()
