# SPDX-License-Identifier: Apache-2.0
"""Install a CPU build of Torch for the tests, where pip can find one; else say so and succeed.

The version is asked for with its local label (+cpu), which no CUDA build carries: where there is no
CPU build pip finds nothing, and the suite runs without Torch. Transformers, of which an example
takes a model, comes with it; it does not depend on Torch.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys

REQUIREMENT = "torch==2.13.0+cpu"
WITH_IT = "transformers>=5,<6"


def install(requirement: str) -> bool:
    """Install a package; False where pip cannot."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"Installed {requirement}." if done.returncode == 0 else f"No {requirement} here.")
    return done.returncode == 0


def main() -> None:
    if importlib.util.find_spec("torch") is None and not install(REQUIREMENT):
        print("The tests that need Torch will be skipped.")
        return
    if importlib.util.find_spec("transformers") is None:
        install(WITH_IT)


if __name__ == "__main__":
    main()
