"""What to install for a package, as this project asks for it."""

import re
from importlib import metadata


def requirement(package: str) -> str:
    """`package` with the version of pyproject.toml, where that names one."""
    for line in metadata.requires("marl-sale") or ():
        asked = line.partition(";")[0].strip()
        name = re.match(r"[\w.-]*\w", asked)
        if name and re.sub(r"[-.]", "_", name.group()) == re.sub(r"[-.]", "_", package):
            return asked
    return package
