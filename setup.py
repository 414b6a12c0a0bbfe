"""The kernels of marl_sale/kernels, once for each instruction set; everything else is in pyproject.toml.

They are optional: without a compiler, or one that knows these flags, the package is installed without
them, and torch does the same, slower.
"""

import hashlib
import platform
from pathlib import Path

from setuptools import Extension, setup

FOLDER = Path("marl_sale/kernels")
X86 = {  # bytes of a vector, and the flags that allow it
    "avx2": (32, ["-mavx2", "-mfma"]),
    "avx512": (64, ["-mavx512f", "-mavx512dq", "-mavx512vl", "-mfma", "-mprefer-vector-width=512"]),
}
BUILDS = {"any": (16, []), **(X86 if platform.machine() in ("x86_64", "AMD64") else {})}
# No flag changes what is computed, but that a · b + c may be rounded once.
FLAGS = ["-std=c11", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]

# Compiled in, so that a library older than its sources is noticed (marl_sale/kernels/library.py).
SOURCES = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
DIGEST = hashlib.sha256(b"".join(SOURCES)).hexdigest()[:16]

setup(
    ext_modules=[
        Extension(
            f"marl_sale.kernels._{name}",
            [str(FOLDER / "kernels.c")],
            depends=[str(header) for header in sorted(FOLDER.glob("*.h"))],
            define_macros=[("VECTOR_BYTES", str(size)), ("SOURCES", f'"{DIGEST}"')],
            extra_compile_args=[*FLAGS, *flags],
            optional=True,
        )
        for name, (size, flags) in BUILDS.items()
    ]
)
