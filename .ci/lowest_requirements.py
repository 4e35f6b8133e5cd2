"""Print the lowest version of each requirement that setup.cfg admits, for the package with its demo and test extras.

torch and torchvision keep the version of this environment: another version is a download of several gigabytes.
"""

import configparser
import re
from importlib.metadata import version
from pathlib import Path

KEPT = ("torch", "torchvision")


def lowest(requirement: str) -> str:
    """Return name==version for name>=version with or without further bounds, or name==version."""
    name, bound = re.fullmatch(r"([\w.-]+)[>=]=([\w.]+).*", requirement).groups()
    return f"{name}=={version(name) if name in KEPT else bound}"


if __name__ == "__main__":
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parent.parent / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    lines = "\n".join([setup["options"]["install_requires"], extras["demo"], extras["test"]]).splitlines()
    print(*(lowest(line.strip()) for line in lines if line.strip()), sep="\n")
