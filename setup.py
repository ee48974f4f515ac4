#!/usr/bin/env python
"""Package metadata: a light core, and extras.

Detectron2, which training needs, is not on the package index and so not among the extras:
tools/install_detectron2.py installs it, or one's own build is used.
"""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
SOURCE = "projects/InstanceCRF"
README = ROOT / "README.md"


def at_least(*names: str) -> list[str]:
    """Of each package what the requirements files say, but for the upper bound."""
    return [f"{name}>={LEAST[name]}" for name in names]


# The lines "name>=least,<most" of the files that `make install` installs.
LEAST = {}
for file in ("requirements.txt", "requirements-dev.txt"):
    for line in (ROOT / file).read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, _, versions = line.partition(">=")
            LEAST[name] = versions.partition(",")[0]

# The CRF, the losses, PartInstances, and the evaluation of saved label maps.
CORE = at_least("torch", "numpy", "scipy", "numba", "Pillow")
# Run-length encoded masks, curves, progress bars.
EVAL = at_least("pycocotools", "matplotlib", "tqdm")
# Pictures of labellings, synthetic people.
VIZ = at_least("opencv-python-headless")
# What Detectron2 needs, and the data sets.
TRAIN = [
    *EVAL,
    *VIZ,
    *at_least("torchvision", "PyYAML", "fvcore", "iopath", "yacs", "omegaconf", "hydra-core"),
    *at_least("cloudpickle", "packaging", "tabulate", "termcolor", "tensorboard"),
]
# Libraries whose models one may bring; none is imported before a model of it is used.
LIBRARIES = at_least("transformers", "onnxruntime", "supervision")
MODELS = [*EVAL, *VIZ, *at_least("torchvision"), *LIBRARIES]
DEV = [*at_least("pytest", "hypothesis", "ruff", "onnx"), *LIBRARIES]

setup(
    name="instance-crf",
    version="0.1.0",
    description="Holistic, instance-level human parsing on Detectron2: for every pixel a part "
    "and the person it belongs to, by a conditional random field trained end to end",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(where=SOURCE, include=["instance_crf", "instance_crf.*"]),
    package_dir={"": SOURCE},
    install_requires=CORE,
    entry_points={"console_scripts": ["instance-crf=instance_crf.cli:main"]},
    extras_require={"train": TRAIN, "eval": EVAL, "viz": VIZ, "models": MODELS, "dev": DEV},
    classifiers=[
        "Programming Language :: Python :: 3",
        "Operating System :: OS Independent",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
